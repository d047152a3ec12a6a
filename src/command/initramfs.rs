// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl initramfs`: what an initramfs needs to claim devices before its drivers are loaded.

use anyhow::{Result, bail};

use super::context::Context;
use crate::cli::Initramfs;

/// Does it.
pub fn run(_context: &Context, _options: &Initramfs) -> Result<u8> {
    bail!("not written yet")
}
