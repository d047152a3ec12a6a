// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl groups`: IOMMU groups, as a tree.

use anyhow::{Result, bail};

use super::context::Context;
use crate::cli::Groups;

/// Does it.
pub fn run(_context: &Context, _options: &Groups) -> Result<u8> {
    bail!("not written yet")
}
