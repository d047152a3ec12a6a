// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sysfs files behind which is the driver core.

use std::sync::Arc;

use super::address::Address;
use super::host::Release;

/// A file that the driver core answers for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attribute {
    /// `driver_override` of a device.
    DriverOverride(Address),
    /// `uevent` of a device.
    Uevent(Address),
    /// `enable` of a device.
    Enable(Address),
    /// `sriov_numvfs` of a PF.
    NumVfs(Address),
    /// `sriov_totalvfs` of a PF.
    TotalVfs(Address),
    /// `sriov_drivers_autoprobe` of a PF.
    VfAutoprobe(Address),
    /// `remove` of a device.
    Remove(Address),
    /// `reset` of a device.
    Reset(Address),
    /// `rescan` of a device, which looks on the bus that the device is on and behind it.
    Rescan(Address),
    /// `rescan` of all buses.
    RescanAll,
    /// `drivers/NAME/bind`.
    Bind(String),
    /// `drivers/NAME/unbind`.
    Unbind(String),
    /// `drivers/NAME/new_id`.
    NewId(String),
    /// `drivers/NAME/remove_id`.
    RemoveId(String),
    /// `drivers_probe` of the bus.
    DriversProbe,
    /// `drivers_autoprobe` of the bus.
    DriversAutoprobe,
    /// A `uevent` that can only be written to, of a driver or the bus: no listener, so no effect.
    Trigger,
    /// The same of a device of a class, which reads empty.
    ClassUevent,
    /// What the kernel lets be written, and nothing here does: it reads the same for ever.
    Fixed(Arc<[u8]>),
}

impl Attribute {
    /// Its permissions, as the kernel sets them.
    pub fn mode(&self) -> u16 {
        match self {
            Self::DriverOverride(_)
            | Self::Uevent(_)
            | Self::ClassUevent
            | Self::Enable(_)
            | Self::NumVfs(_)
            | Self::VfAutoprobe(_)
            | Self::DriversAutoprobe
            | Self::Fixed(_) => 0o644,
            Self::TotalVfs(_) => 0o444,
            Self::Remove(_) => 0o220,
            _ => 0o200,
        }
    }

    /// The device whose lock a read takes, and so waits for while a probe or a removal lasts.
    pub fn read_locks(&self, release: Release) -> Option<Address> {
        match self {
            // dev_uevent and driver_override_show used the device lock up to 6.1; later kernels and the backported
            // generic driver_override do not.
            Self::DriverOverride(address) | Self::Uevent(address) if release <= Release::V6_1 => Some(*address),
            // drivers/pci/iov.c, sriov_numvfs_show
            Self::NumVfs(address) => Some(*address),
            _ => None,
        }
    }
}
