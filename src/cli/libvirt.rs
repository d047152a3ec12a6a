// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line of `vfioctl libvirt`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use crate::address::Address;
use crate::libvirt::Version;

/// What to do for libvirt.
#[derive(Subcommand, Debug)]
pub enum Libvirt {
    /// Be libvirt's hook for QEMU: bind the devices of a domain before it starts, give them back when it has ended
    Hook(Hook),
    /// Print what a domain's XML needs for a device
    Xml(Xml),
    /// Say what would happen to the PCI devices of a domain if it were started
    Check(Check),
}

/// What libvirt calls a hook with; the domain's XML is on standard input.
#[derive(Args, Debug)]
pub struct Hook {
    /// The domain's name
    pub guest: String,

    /// What happens to it: prepare, start, started, stopped, release, …
    pub operation: String,

    /// begin or end
    pub sub_operation: String,

    /// Why, or '-'
    pub extra: Option<String>,

    /// For this version of libvirt, like 11.3.0, instead of the one that is installed
    #[arg(long, value_name = "VERSION")]
    pub libvirt_version: Option<Version>,
}

/// What to print.
#[derive(Args, Debug)]
pub struct Xml {
    /// PCI addresses, like 0000:3b:00.1 or 3b:00.1
    #[arg(required = true)]
    pub addresses: Vec<Address>,

    /// Is libvirt to take the device from its driver, and to give it back?
    #[arg(long, value_name = "WHETHER", default_value = "yes")]
    pub managed: Managed,

    /// An <interface type='hostdev'>, for which libvirt also sets MAC address and VLAN: for VFs of network cards
    #[arg(long)]
    pub interface: bool,

    /// For this version of libvirt, like 11.3.0, instead of the one that is installed
    #[arg(long, value_name = "VERSION")]
    pub libvirt_version: Option<Version>,
}

/// Whether libvirt manages a device.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Managed {
    /// It does.
    Yes,
    /// It takes it as it is: on a VFIO driver.
    No,
}

/// What to look at.
#[derive(Args, Debug)]
pub struct Check {
    /// The domain's XML, as 'virsh dumpxml' prints it; -: standard input
    #[arg(value_name = "DOMAIN.xml")]
    pub file: PathBuf,

    /// For this version of libvirt, like 11.3.0, instead of the one that is installed
    #[arg(long, value_name = "VERSION")]
    pub libvirt_version: Option<Version>,
}
