// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl doctor`: is this host ready for VFIO?

use anyhow::{Result, bail};

use super::context::Context;

/// Does it.
pub fn run(_context: &Context) -> Result<u8> {
    bail!("not written yet")
}
