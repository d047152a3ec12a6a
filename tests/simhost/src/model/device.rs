// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI devices.

use std::collections::BTreeMap;

use super::address::Address;
use super::ids::Ids;
use super::tree::Node;

/// A `struct pci_dev`: what the model knows of it beside the files in the tree.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Its address, which is its name on the bus.
    pub address: Address,
    /// Sets it apart from those that were at the same address before it.
    pub birth: u64,
    /// Its directory, from the root of sysfs.
    pub path: String,
    /// What it is.
    pub ids: Ids,
    /// Its header type is not 0: a bridge.
    pub bridge: bool,
    /// `driver_override`: any bytes but NUL and newline.
    pub driver_override: Option<Vec<u8>>,
    /// How far a driver has it.
    pub binding: Binding,
    /// How many want it enabled: what `enable` reads.
    pub enabled: u32,
    /// Its IOMMU group.
    pub group: Option<u32>,
    /// Those that share an IOMMU group whenever they are present have this in common.
    pub cohort: Option<u32>,
    /// Its entry in `vfio-dev/`.
    pub vfio_dev: Option<String>,
    /// The PF, for a VF.
    pub physfn: Option<Address>,
    /// The SR-IOV capability, for a PF.
    pub sriov: Option<Sriov>,
    /// `uevent` without the driver's line.
    pub uevent: String,
    /// What drivers made here while they were bound, put back when they bind again.
    pub shelf: BTreeMap<String, Vec<(String, Node)>>,
}

/// How far a driver has a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// No driver.
    Unbound,
    /// Its probe runs: the `driver` link shows already (drivers/base/dd.c, really_probe).
    Probing(String),
    /// Its probe succeeded.
    Bound(String),
    /// Its remove runs: the `driver` link is gone already (drivers/base/dd.c, __device_release_driver).
    Removing(String),
}

impl Binding {
    /// `dev->driver`: set from before probe to after remove.
    pub fn driver(&self) -> Option<&str> {
        match self {
            Self::Unbound => None,
            Self::Probing(driver) | Self::Bound(driver) | Self::Removing(driver) => Some(driver),
        }
    }

    /// The driver that the link shows.
    pub fn linked(&self) -> Option<&str> {
        match self {
            Self::Probing(driver) | Self::Bound(driver) => Some(driver),
            Self::Unbound | Self::Removing(_) => None,
        }
    }

    /// The driver whose probe succeeded.
    pub fn bound(&self) -> Option<&str> {
        match self {
            Self::Bound(driver) => Some(driver),
            _ => None,
        }
    }
}

/// A PF's SR-IOV capability.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sriov {
    /// `sriov_totalvfs`.
    pub total: u16,
    /// `sriov_offset`.
    pub offset: u16,
    /// `sriov_stride`.
    pub stride: u16,
    /// `sriov_vf_device`.
    pub vf_device: u16,
    /// `sriov_drivers_autoprobe`.
    pub autoprobe: bool,
    /// The VFs there are, in their order.
    pub vfs: Vec<Address>,
}
