// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads what the pure parts decide on: tables and drivers for verdicts, the device's surroundings for plans.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::address::Address;
use crate::guard;
use crate::host::Host;
use crate::kernel_name::{DriverName, ModuleName};
use crate::matcher::{Match, Modalias, rank};
use crate::modules::{ModuleState, Modules, TableError, Tables};
use crate::plan::{Facts, Sibling, Target};
use crate::sysfs::{Device, Group, Node, Overrides, ReadError};
use crate::verdict::{self, Candidate, ModuleFacts, Position, judge};

/// Finds candidates, with one reading of the tables for all devices.
pub struct Chooser<'a> {
    host: &'a Host,
    /// The tables.
    pub tables: Tables,
    modules: Option<Modules<'a>>,
}

impl<'a> Chooser<'a> {
    /// Reads the tables.
    pub fn new(host: &'a Host) -> Result<Chooser<'a>, TableError> {
        Ok(Chooser { host, tables: Tables::read(host)?, modules: None })
    }

    /// Reads also what modules there are: what an alias names need not be there. Left out where a name is all that is
    /// wanted, since the lists are long.
    pub fn with_modules(mut self) -> Chooser<'a> {
        self.modules = Some(Modules::read(self.host, &self.tables.release));
        self
    }

    /// How a module stands, as far as that was asked for.
    pub fn state(&self, module: &ModuleName) -> ModuleState {
        self.modules.as_ref().map_or(ModuleState::Installed, |modules| modules.state(module))
    }

    /// Do the tables name devices that it takes as a VFIO driver?
    pub fn lists_vfio_devices(&self, target: &Target) -> bool {
        target.module.as_ref().is_some_and(|module| self.tables.table.names(module.as_str()))
    }

    /// The drivers for a modalias in a position, best first.
    pub fn candidates(&self, modalias: &Modalias, position: &Position) -> Result<Vec<Candidate>, ReadError> {
        let matches = rank(&self.tables.table, modalias);
        let facts = self.module_facts(&matches)?;
        Ok(judge(matches, modalias, position, &facts))
    }

    /// The drivers for a device, best first.
    pub fn for_device(&self, device: &Device) -> Result<Vec<Candidate>, ReadError> {
        self.candidates(&device.modalias, &self.position(device)?)
    }

    /// A device's position; the PF's driver is read only where there is a PF.
    fn position(&self, device: &Device) -> Result<Position, ReadError> {
        let pf_driver = device.pf.map(|pf| driver_of(self.host, pf)).transpose()?.flatten();
        Ok(Position::of(device, pf_driver))
    }

    fn module_facts(&self, matches: &[Match]) -> Result<ModuleFacts, ReadError> {
        let mut facts = ModuleFacts::default();
        for found in matches {
            if let Some(driver) = self.tables.driver(self.host, &found.module)? {
                facts.drivers.insert(found.module.clone(), driver);
            }
            if self.state(&found.module) == ModuleState::Missing {
                facts.missing.insert(found.module.clone());
            }
            // A blacklist keeps a module from being loaded; one that is in is in.
            if let Some(place) = self.tables.blacklist.get(&found.module) {
                if !(self.tables.is_running && Modules::is_loaded(self.host, &found.module)) {
                    facts.blacklisted.insert(found.module.clone(), place.clone());
                }
            }
        }
        Ok(facts)
    }
}

/// The answers of a [`Chooser`] for many devices: those that are alike are asked about once.
pub struct BestOf<'a> {
    chooser: Chooser<'a>,
    known: BTreeMap<(String, Option<DriverName>, bool), Option<String>>,
}

impl<'a> BestOf<'a> {
    /// Answers from `chooser`.
    pub fn new(chooser: Chooser<'a>) -> BestOf<'a> {
        BestOf { chooser, known: BTreeMap::new() }
    }

    /// The name of the best driver for a device whose PF, if it has one, is on `pf_driver`.
    pub fn name(&mut self, device: &Device, pf_driver: Option<&DriverName>) -> Result<Option<String>, ReadError> {
        let key = (device.modalias.as_str().to_string(), pf_driver.cloned(), device.pf.is_some());
        if let Some(name) = self.known.get(&key) {
            return Ok(name.clone());
        }
        let position = Position::of(device, pf_driver.cloned());
        let candidates = self.chooser.candidates(&device.modalias, &position)?;
        let name = verdict::chosen(&candidates).map(|candidate| candidate.name().to_string());
        self.known.insert(key, name.clone());
        Ok(name)
    }
}

/// Reads all that plans need; `patience` is for the override, which on older kernels waits for the device's lock.
pub fn facts(host: &Host, device: Device, patience: Duration) -> Result<Facts, ReadError> {
    let driver_override = Overrides::new(host, patience).read(device.address)?;
    surroundings(host, device, driver_override)
}

/// Reads the rest, where the override is known or does not matter.
pub fn surroundings(host: &Host, device: Device, driver_override: Option<String>) -> Result<Facts, ReadError> {
    let group = device.iommu_group.map(|number| Group::read(host, number)).transpose()?;
    let mut siblings = Vec::new();
    for &address in group.iter().flat_map(|group| &group.devices) {
        if address != device.address {
            siblings.push(Sibling {
                address,
                driver: driver_of(host, address)?,
                is_vfio_device: Device::is_vfio_device(host, address)?,
            });
        }
    }
    let vfio_devices = Device::vfio_devices(host, device.address)?;
    let is_vfio_device = !vfio_devices.is_empty() || Device::is_vfio_device(host, device.address)?;
    // Looking through all processes is for what someone may hold.
    let holders = match is_vfio_device {
        true => guard::holders(host, device.iommu_group, &vfio_devices),
        false => Vec::new(),
    };
    let unsafe_mode = host.module(&vfio()).join("parameters/enable_unsafe_noiommu_mode");
    Ok(Facts {
        driver_override,
        is_vfio_device,
        vfio_devices,
        group,
        siblings,
        holders,
        may_lack_iommu: fs::read(unsafe_mode).is_ok_and(|text| text.starts_with(b"Y")),
        device,
    })
}

/// The driver a device is on.
pub fn driver_of(host: &Host, address: Address) -> Result<Option<DriverName>, ReadError> {
    let name = Node::new(host.device(address)).link_name("driver")?;
    Ok(name.map(DriverName::from_kernel))
}

fn vfio() -> ModuleName {
    "vfio".parse().expect("a constant name")
}
