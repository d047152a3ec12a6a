// SPDX-License-Identifier: MIT OR Apache-2.0
//! What there is to compare before and after.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::device::Device;
use super::host::Host;

/// A host's state, as a JSON document.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct State {
    /// The devices by address, those that were removed among them.
    pub devices: BTreeMap<String, DeviceState>,
    /// The modules that are loaded.
    pub modules: BTreeSet<String>,
}

/// A device's state.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DeviceState {
    /// Is it on the bus?
    pub exists: bool,
    /// The driver that its link shows.
    pub driver: Option<String>,
    /// Its `driver_override`.
    pub driver_override: Option<String>,
    /// Its IOMMU group.
    pub iommu_group: Option<u32>,
    /// The names in its `vfio-dev/`.
    pub vfio_dev: Vec<String>,
    /// For a PF, how many VFs there are.
    pub sriov_numvfs: Option<usize>,
    /// For a PF, whether VFs that appear are probed.
    pub sriov_drivers_autoprobe: Option<bool>,
}

impl From<&Device> for DeviceState {
    fn from(device: &Device) -> Self {
        let lossy = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        Self {
            exists: true,
            driver: device.binding.linked().map(str::to_owned),
            driver_override: device.driver_override.as_ref().map(lossy),
            iommu_group: device.group,
            vfio_dev: device.vfio_dev.iter().cloned().collect(),
            sriov_numvfs: device.sriov.as_ref().map(|sriov| sriov.vfs.len()),
            sriov_drivers_autoprobe: device.sriov.as_ref().map(|sriov| sriov.autoprobe),
        }
    }
}

impl Host {
    /// The state as it is now.
    pub fn state(&self) -> State {
        let absent = self.absent_devices("").map(|address| (address.to_string(), DeviceState::default()));
        let present = self.devices().map(|device| (device.address.to_string(), DeviceState::from(device)));
        State { devices: absent.chain(present).collect(), modules: self.loaded_modules().clone() }
    }
}
