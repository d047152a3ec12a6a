// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl libvirt`: its verbs, a file each.

mod check;
mod hook;
mod wanted;
mod xml;

use std::io::{self, Read};

use anyhow::Result;

use super::context::{Context, UsageError};
use crate::cli::libvirt::Libvirt;
use crate::libvirt::{self, Domain, Version};

/// The newest libvirt whose choice of drivers is known to us: what is taken to be here where no library of its is found.
const NEWEST: Version = Version::new(12, 8, 0);

/// Does what was typed, or what libvirt asks for.
pub fn run(context: Context, options: &Libvirt) -> Result<u8> {
    match options {
        Libvirt::Hook(options) => hook::run(&context, options),
        Libvirt::Xml(options) => xml::run(&context, options),
        Libvirt::Check(options) => check::run(context, options),
    }
}

/// libvirt's version: the one that was typed, or that is installed; whether it is known comes with it.
fn version(context: &Context, typed: Option<Version>) -> (Version, bool) {
    if let Some(version) = typed.or_else(|| Version::installed(&context.host)) {
        return (version, true);
    }
    context.output.warn(&format!("no libvirt is installed here: taken for {NEWEST}; --libvirt-version names another"));
    (NEWEST, false)
}

/// Reads a domain's XML, no more of it than is worth reading.
fn read(source: impl Read, name: &str) -> Result<Domain> {
    let mut bytes = Vec::new();
    let read = source.take(libvirt::LONGEST as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error: io::Error| anyhow::anyhow!("cannot read {name}: {error}"))?;
    Ok(libvirt::parse(&bytes).map_err(|error| UsageError(format!("{name}: {error}")))?)
}
