// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an image is told.

use std::io;

use serde::Serialize;

use super::Output;
use crate::initramfs::Claim;
use crate::outcome::Failure;

/// It, and what it is not told.
#[derive(Serialize, Debug)]
pub struct InitramfsView<'a> {
    /// The kernel's release.
    pub release: &'a str,
    /// In this order.
    pub claims: &'a [Claim],
    /// Why devices are left alone.
    pub errors: &'a [Failure],
}

/// Shows `text`, or with `--json` what it is made of.
pub fn initramfs(output: Output, text: &str, view: &InitramfsView<'_>) -> io::Result<()> {
    for failure in view.errors {
        output.fail(failure);
    }
    if output.is_json { output.print_json("initramfs", view) } else { output.print(text) }
}
