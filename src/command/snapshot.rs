// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl snapshot`: what this program reads of a host, as a host of its own.

use anyhow::{Result, bail};

use super::context::Context;
use crate::cli::Snapshot;

/// Does it.
pub fn run(_context: &Context, _options: &Snapshot) -> Result<u8> {
    bail!("not written yet")
}
