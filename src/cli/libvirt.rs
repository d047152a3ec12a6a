// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of `vfioctl libvirt`.

use clap::{Args, Subcommand};

/// What to do for libvirt.
#[derive(Subcommand, Debug)]
pub enum Libvirt {
    /// Be libvirt's hook for QEMU: bind the devices of a domain before it starts, give them back when it has ended
    Hook(Hook),
}

/// What libvirt calls a hook with; the domain's XML is on standard input.
#[derive(Args, Debug)]
pub struct Hook {
    /// The domain's name
    #[arg(allow_hyphen_values = true)]
    pub guest: String,

    /// What happens to it: prepare, start, started, stopped, release, …
    #[arg(allow_hyphen_values = true)]
    pub operation: String,

    /// begin or end
    #[arg(allow_hyphen_values = true)]
    pub sub_operation: String,

    /// Why, or '-'
    #[arg(allow_hyphen_values = true)]
    pub extra: Option<String>,
}
