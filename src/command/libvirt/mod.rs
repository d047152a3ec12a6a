// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl libvirt`: its verbs, a file each.

mod hook;
mod wanted;

use std::io::{self, Read};

use anyhow::Result;

use super::context::{Context, UsageError};
use crate::cli::libvirt::Libvirt;
use crate::libvirt::{self, Domain};

/// Does what was typed, or what libvirt asks for.
pub fn run(context: &Context, options: &Libvirt) -> Result<u8> {
    match options {
        Libvirt::Hook(options) => hook::run(context, options),
    }
}

/// Reads a domain's XML, no more of it than is worth reading.
fn read(source: impl Read, name: &str) -> Result<Domain> {
    let mut bytes = Vec::new();
    let read = source.take(libvirt::LONGEST as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|error: io::Error| anyhow::anyhow!("cannot read {name}: {error}"))?;
    Ok(libvirt::parse(&bytes).map_err(|error| UsageError(format!("{name}: {error}")))?)
}
