// SPDX-License-Identifier: MIT OR Apache-2.0
//! An IOMMU group: the devices that can only be given away together.

use super::node::{Node, ReadError};
use crate::address::Address;
use crate::host::Host;

/// An IOMMU group, at the moment of reading.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Group {
    /// Its number, which need not be the same after a reboot.
    pub number: u32,
    /// The default domain's type (`DMA`, `DMA-FQ`, `identity`, …), where the kernel tells.
    pub kind: Option<String>,
    /// Its PCI devices, in bus order.
    pub devices: Vec<Address>,
    /// Has firmware asked for a fixed mapping of a member (a `direct` line of `reserved_regions`)? Then VFIO cannot have
    /// the group (`drivers/iommu/iommu.c`, "Firmware has requested this device have a 1:1 IOMMU mapping").
    pub is_direct_mapped: bool,
    /// Is it one that VFIO has made for a device without an IOMMU? It stays while the device is bound, whatever the mode is by
    /// then.
    pub is_no_iommu: bool,
}

/// How the kernel names the groups that it makes for devices without an IOMMU (`drivers/vfio/group.c`,
/// `vfio_noiommu_group_alloc`).
pub const NO_IOMMU: &str = "vfio-noiommu";

impl Group {
    /// Reads a group.
    pub fn read(host: &Host, number: u32) -> Result<Group, ReadError> {
        let node = Node::new(host.iommu_group(number));
        let kind = node.read_if_there("type")?;
        let regions = node.read_if_there("reserved_regions")?.unwrap_or_default();
        let mut devices: Vec<Address> = node.names_in("devices")?.iter().filter_map(|name| name.parse().ok()).collect();
        devices.sort();
        // `direct-relaxable` regions do not hinder.
        let is_direct_mapped = regions.lines().any(|line| line.split_whitespace().nth(2) == Some("direct"));
        let is_no_iommu = node.read_if_there("name")?.is_some_and(|name| name.trim_end() == NO_IOMMU);
        Ok(Group { number, kind, devices, is_direct_mapped, is_no_iommu })
    }
}
