// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI drivers: their tables and the rules by which their probes decide.

use std::time::Duration;

use serde::Deserialize;

use super::device::Device;
use super::errno::Errno;
use super::ids::{Ids, Pattern};

/// A `struct pci_driver`, registered or not, as `host.toml` describes it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Driver {
    /// Its name: what `driver_override` is compared with.
    pub name: String,
    /// The module that registers it; none for a driver built into the kernel.
    pub module: Option<String>,
    /// Its static id table, without the entries for `driver_override` alone.
    #[serde(default)]
    pub ids: Vec<Pattern>,
    /// The entries of its id table that hold only under `driver_override`.
    #[serde(default)]
    pub override_ids: Vec<Pattern>,
    /// Has `sriov_configure`.
    #[serde(default)]
    pub sriov: bool,
    /// The most VFs it lets a PF have (pci_sriov_set_totalvfs).
    pub max_vfs: Option<u16>,
    /// Leaves the VFs it made behind when it is unbound, as pci-pf-stub and nvme do.
    #[serde(default)]
    pub keeps_vfs: bool,
    /// Registers a VFIO device for what it binds.
    #[serde(default)]
    pub vfio: bool,
    /// Directories its probe makes under a device.
    #[serde(default)]
    pub children: Vec<String>,
    /// When its probe fails, and how long it takes.
    #[serde(default)]
    pub probe: Probe,
    /// What was written to `new_id`.
    #[serde(skip)]
    pub dynamic_ids: Vec<Pattern>,
}

/// When a driver's probe fails.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Probe {
    /// Fails so on what is not a VF.
    pub vf_only: Option<Errno>,
    /// The drivers on one of which a VF's PF must be …
    #[serde(default)]
    pub pf_driver: Vec<String>,
    /// … or the probe fails so.
    pub pf_missing: Option<Errno>,
    /// Fails with EINVAL on these: vfio-pci's denylist.
    #[serde(default)]
    pub deny: Vec<Pattern>,
    /// How long it takes.
    #[serde(default)]
    delay_ms: u64,
}

impl Probe {
    /// How long a probe takes.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }
}

impl Driver {
    /// Does the driver take the device? (drivers/pci/pci-driver.c, pci_match_device)
    pub fn matches(&self, device: &Device) -> bool {
        match &device.driver_override {
            Some(name) => name.as_slice() == self.name.as_bytes(),
            None => self.lists(&device.ids),
        }
    }

    /// Is this in its table, or was it written to `new_id`?
    pub fn lists(&self, ids: &Ids) -> bool {
        self.dynamic_ids.iter().chain(&self.ids).any(|pattern| pattern.matches(ids))
    }
}
