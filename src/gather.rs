// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads what the pure parts decide on: tables and drivers for verdicts, the device's surroundings for plans.

use std::cell::LazyCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::rc::Rc;
use std::sync::Mutex;
use std::time::Duration;

use crate::address::Address;
use crate::catalog::{Catalog, Driver};
use crate::guard::{self, Finding, Use};
use crate::host::Host;
use crate::kernel_name::{DriverName, ModuleName};
use crate::matcher::{Match, Modalias, rank};
use crate::modules::{self, ModuleState, Modules, TableError, Tables};
use crate::plan::{Facts, Sibling, Target};
use crate::sriov::Vf;
use crate::sysfs::{self, Device, Group, Node, Overrides, ReadError};
use crate::topology::{Function, Tree};
use crate::verdict::{self, Candidate, ModuleFacts, Native, Pf, Position, Subject, judge};

/// Finds candidates, with one reading of the tables for all devices.
pub struct Chooser<'a> {
    host: &'a Host,
    /// The tables.
    pub tables: Tables,
    modules: Option<Modules<'a>>,
    /// By the PF's modalias: the tables are long, and many VFs may ask the same.
    natives: Mutex<BTreeMap<String, Native>>,
    /// Of modules that matched: what is said of one is as it was when it was first asked about, like the tables. One that has
    /// come since is found when it is to be loaded, and one that has gone when its driver is to take a device.
    known: Mutex<BTreeMap<ModuleName, (Option<DriverName>, ModuleState)>>,
}

impl<'a> Chooser<'a> {
    /// Reads the tables.
    pub fn new(host: &'a Host) -> Result<Chooser<'a>, TableError> {
        let (natives, known) = Default::default();
        Ok(Chooser { host, tables: Tables::read(host)?, modules: None, natives, known })
    }

    /// Reads also what modules there are: what an alias names need not be there. Left out where a name is all that is
    /// wanted, since the lists are long.
    pub fn with_modules(mut self) -> Chooser<'a> {
        self.modules = Some(Modules::read(self.host, &self.tables.release));
        self
    }

    /// How a module stands, as far as that was asked for.
    pub fn state(&self, module: &ModuleName) -> ModuleState {
        let known = self.known.lock().expect("no thread panics with the answers").get(module).map(|(_, state)| *state);
        known.unwrap_or_else(|| self.state_now(module))
    }

    fn state_now(&self, module: &ModuleName) -> ModuleState {
        self.modules.as_ref().map_or(ModuleState::Installed, |modules| modules.state(module))
    }

    /// A module's driver, and how it stands.
    fn known(&self, module: &ModuleName) -> Result<(Option<DriverName>, ModuleState), ReadError> {
        let mut all = self.known.lock().expect("no thread panics with the answers");
        if let Some(known) = all.get(module) {
            return Ok(known.clone());
        }
        let found = (self.tables.driver(self.host, module)?, self.state_now(module));
        all.insert(module.clone(), found.clone());
        Ok(found)
    }

    /// Do the tables name devices that it takes as a VFIO driver?
    pub fn lists_vfio_devices(&self, target: &Target) -> bool {
        target.module.as_ref().is_some_and(|module| self.tables.table.names(module.as_str()))
    }

    /// The drivers for a modalias alone, best first.
    pub fn for_modalias(&self, modalias: &Modalias) -> Result<Vec<Candidate>, ReadError> {
        self.candidates(modalias, None, Position::Unknown)
    }

    /// The drivers for a device, best first.
    pub fn for_device(&self, device: &Device) -> Result<Vec<Candidate>, ReadError> {
        self.candidates(&device.modalias, Some(device.address), self.position(device)?)
    }

    fn candidates(
        &self,
        modalias: &Modalias,
        address: Option<Address>,
        position: Position,
    ) -> Result<Vec<Candidate>, ReadError> {
        let matches = rank(&self.tables.table, modalias);
        let facts = self.module_facts(&matches)?;
        Ok(judge(matches, &Subject { modalias, address, position, release: &self.tables.release }, &facts))
    }

    /// A device's position, with what mends a wrong one. Of a PF only what is wrong is looked into.
    fn position(&self, device: &Device) -> Result<Position, ReadError> {
        let made_for_it = made_for(device);
        if device.is_bridge() {
            return Ok(Position::Bridge);
        }
        let Some(address) = device.pf else {
            let asks = made_for_it.is_some_and(|driver| driver.on_non_vf.is_some());
            let total = if asks { count(self.host, device.address, "sriov_totalvfs")? } else { 0 };
            return Ok(Position::NotVf { vf: device.vfs.first().copied(), can_have_vfs: total > 0 });
        };
        let driver = driver_of(self.host, address)?;
        let mut pf = Pf { address, driver, not_up: None, native: Native::Unknown, vfs: 0 };
        let name = pf.driver.as_ref().map(DriverName::as_str);
        match made_for_it.filter(|made| !made.pf_drivers.is_empty()) {
            // Of each VF anew: to make VFs can bring their PF up.
            Some(made) if made.is_served_by(name) => pf.not_up = not_up(self.host, address, made)?,
            Some(made) => {
                pf.native = self.native(address, made)?;
                // Not by `sriov_numvfs`, which waits for the PF's lock (`drivers/pci/iov.c`, `sriov_numvfs_show`).
                let names = Node::new(self.host.device(address)).names_in("")?;
                let vfs = names.iter().filter(|name| name.starts_with("virtfn")).count();
                pf.vfs = u16::try_from(vfs).unwrap_or(u16::MAX);
            }
            None => {}
        }
        Ok(Position::Vf(pf))
    }

    /// Which driver a PF could be on for the sake of its VFs' variant.
    fn native(&self, pf: Address, variant: &Driver) -> Result<Native, ReadError> {
        // All of it would be read with its VFs, for each of these.
        let Some(modalias) = Node::new(self.host.device(pf)).read_if_there("modalias")? else {
            return Ok(Native::Unknown);
        };
        let mut natives = self.natives.lock().expect("no thread panics with the answers");
        if let Some(known) = natives.get(&modalias) {
            return Ok(known.clone());
        }
        let mut native = Native::Unknown;
        for name in variant.pf_modules.iter() {
            let module: ModuleName = name.parse().expect("a name of the catalogue");
            // The tables could be read a moment ago. What has none is built into a kernel that does not say.
            let table = modules::native_table(self.host, &self.tables.release, &module).unwrap_or_default();
            if table.iter().any(|pattern| pattern.matches(&modalias)) {
                native = Native::Module(module);
                break;
            }
            if !table.is_empty() {
                native = Native::Unlisted;
            }
        }
        natives.insert(modalias, native.clone());
        Ok(native)
    }

    fn module_facts(&self, matches: &[Match]) -> Result<ModuleFacts, ReadError> {
        let mut facts = ModuleFacts::default();
        for found in matches {
            let (driver, state) = self.known(&found.module)?;
            if let Some(driver) = driver {
                facts.drivers.insert(found.module.clone(), driver);
            }
            if state == ModuleState::Missing {
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

/// The answers of a [`Chooser`] for many devices: those that are alike are asked about once, and so is a PF with many VFs.
pub struct BestOf<'a> {
    chooser: Chooser<'a>,
    /// By PF and modalias: the VFs of one PF are alike, and are found here without looking at more.
    told: BTreeMap<Option<Address>, BTreeMap<String, Option<Rc<str>>>>,
    known: BTreeMap<Alike, Option<Rc<str>>>,
    not_up: BTreeMap<Address, Option<String>>,
}

/// What devices have in common that are given the same driver.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Alike {
    modalias: String,
    is_vf: bool,
    pf_driver: Option<DriverName>,
    pf_not_up: Option<String>,
}

impl<'a> BestOf<'a> {
    /// Answers from `chooser`.
    pub fn new(chooser: Chooser<'a>) -> BestOf<'a> {
        BestOf { chooser, told: BTreeMap::new(), known: BTreeMap::new(), not_up: BTreeMap::new() }
    }

    /// The name of the best driver for a device whose PF, if it has one, is on `pf_driver`, now as at any time before.
    pub fn name(&mut self, device: &Device, pf_driver: Option<&DriverName>) -> Result<Option<Rc<str>>, ReadError> {
        if let Some(name) = self.told.get(&device.pf).and_then(|told| told.get(device.modalias.as_str())) {
            return Ok(name.clone());
        }
        let name = self.name_by_what_counts(device, pf_driver)?;
        self.told.entry(device.pf).or_default().insert(device.modalias.as_str().to_string(), name.clone());
        Ok(name)
    }

    fn name_by_what_counts(
        &mut self,
        device: &Device,
        pf_driver: Option<&DriverName>,
    ) -> Result<Option<Rc<str>>, ReadError> {
        let not_up = self.not_up(device, pf_driver)?;
        let key = Alike {
            modalias: device.modalias.as_str().to_string(),
            is_vf: device.pf.is_some(),
            pf_driver: pf_driver.cloned(),
            pf_not_up: not_up.clone(),
        };
        if let Some(name) = self.known.get(&key) {
            return Ok(name.clone());
        }
        let position = match device.pf {
            _ if device.is_bridge() => Position::Bridge,
            Some(address) => {
                Position::Vf(Pf { address, driver: pf_driver.cloned(), not_up, native: Native::Unknown, vfs: 0 })
            }
            None => Position::NotVf { vf: None, can_have_vfs: false },
        };
        let candidates = self.chooser.candidates(&device.modalias, Some(device.address), position)?;
        let name: Option<Rc<str>> = verdict::chosen(&candidates).map(|candidate| Rc::from(candidate.name()));
        self.known.insert(key, name.clone());
        Ok(name)
    }

    fn not_up(&mut self, device: &Device, pf_driver: Option<&DriverName>) -> Result<Option<String>, ReadError> {
        let made = made_for(device).filter(|made| made.is_served_by(pf_driver.map(DriverName::as_str)));
        let Some((pf, made)) = device.pf.zip(made) else { return Ok(None) };
        if let Some(known) = self.not_up.get(&pf) {
            return Ok(known.clone());
        }
        let found = not_up(self.chooser.host, pf, made)?;
        self.not_up.insert(pf, found.clone());
        Ok(found)
    }
}

/// The variant that the catalogue knows for a device.
fn made_for(device: &Device) -> Option<&'static Driver> {
    Catalog::bundled().for_id(device.modalias.vendor_id(), device.modalias.device_id()).next()
}

/// What shows that a PF is not up as its VFs' variant needs it.
fn not_up(host: &Host, pf: Address, variant: &Driver) -> Result<Option<String>, ReadError> {
    match &variant.pf_state {
        Some(state) => sysfs::not_up(host, pf, &state.sign),
        None => Ok(None),
    }
}

/// A number among a device's attributes; 0 where there is none.
fn count(host: &Host, address: Address, attribute: &str) -> Result<u16, ReadError> {
    let text = Node::new(host.device(address)).read_if_there(attribute)?;
    Ok(text.and_then(|text| text.parse().ok()).unwrap_or(0))
}

/// Reads all that plans need; `patience` is for the override, which on older kernels waits for the device's lock.
pub fn facts(host: &Host, device: Device, patience: Duration) -> Result<Facts, ReadError> {
    let facts = facts_but_users(host, device, patience)?;
    with_users(host, facts, &[])
}

/// The same without those who use the device: looking through all processes and mounts is for what is to be taken away.
pub fn facts_but_users(host: &Host, device: Device, patience: Duration) -> Result<Facts, ReadError> {
    let driver_override = Overrides::new(host, patience).read(device.address)?;
    surroundings(host, device, driver_override)
}

/// Adds these; what goes `together` with the device is not counted on to carry on without it.
pub fn with_users(host: &Host, mut facts: Facts, together: &[Address]) -> Result<Facts, ReadError> {
    let address = facts.device.address;
    if facts.is_vfio_device {
        facts.holders = guard::holders(host, address, facts.device.iommu_group, &facts.vfio_devices);
    }
    // What a VFIO driver has is no longer this host's.
    let is_given = facts.is_vfio_device && facts.is_on_vfio_driver();
    if facts.device.driver.is_some() && !is_given {
        facts.findings = guard::findings(host, address, together)?;
    }
    Ok(facts)
}

/// Reads the rest but the users, where the override is known or does not matter.
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
    // Without a driver there is nobody who could have made one of it, whatever the kernel shows.
    let is_asked = vfio_devices.is_empty() && device.driver.is_some();
    let is_vfio_device = !vfio_devices.is_empty() || is_asked && Device::is_vfio_device(host, device.address)?;
    let is_unsafe = || fs::read(host.module(&vfio()).join("parameters/enable_unsafe_noiommu_mode"));
    Ok(Facts {
        driver_override,
        is_vfio_device,
        vfio_devices,
        group,
        siblings,
        holders: Vec::new(),
        findings: Vec::new(),
        may_lack_iommu: device.iommu_group.is_none() && is_unsafe().is_ok_and(|text| text.starts_with(b"Y")),
        device,
    })
}

/// A PF's VFs as they are, but for what this host uses them for, and the overrides that could not be read, which are `None`
/// then; `patience` is for each of these.
pub fn vfs(host: &Host, pf: &sysfs::Pf, patience: Duration) -> Result<(Vec<Vf>, Vec<ReadError>), ReadError> {
    let mut overrides = Overrides::new(host, patience);
    // Most are with no guest, and then nobody need be looked for.
    let users = LazyCell::new(|| guard::users(host));
    let (mut vfs, mut errors) = (Vec::with_capacity(pf.vfs.len()), Vec::new());
    for &(number, address) in &pf.vfs {
        // One that goes at this moment is none.
        let Some(device) = Device::read(host, address)? else { continue };
        let driver_override = overrides.read(address).unwrap_or_else(|error| {
            errors.push(error);
            None
        });
        let names = Device::vfio_devices(host, address)?;
        let is_vfio_device = !names.is_empty() || Device::is_vfio_device(host, address)?;
        let holders = match is_vfio_device {
            true => guard::holding(&users, address, device.iommu_group, &names),
            false => Vec::new(),
        };
        let uses = Vec::new();
        vfs.push(Vf { number, device, driver_override, is_vfio_device, holders, uses, domain: None });
    }
    Ok((vfs, errors))
}

/// Adds what this host uses the VFs for: that is for VFs that are to be taken away, or shown.
pub fn add_uses(host: &Host, vfs: &mut [Vf]) -> Result<(), ReadError> {
    let together: Vec<Address> = vfs.iter().map(|vf| vf.device.address).collect();
    for Vf { device, uses, .. } in vfs {
        *uses = guard::findings(host, device.address, &together)?;
        // An interface that is up and nothing else is not in use, but nobody expects it to go because another VF is made.
        if uses.iter().all(|finding| finding.used_as != Use::Network) {
            let interfaces = guard::interfaces_in_use(host, device.address)?;
            uses.extend(interfaces.into_iter().map(|interface| Finding::new(Use::Network, interface)));
        }
    }
    Ok(())
}

/// All functions in their places, and the groups they are in; and what could not be read of groups, which costs no other its
/// place.
pub fn tree<'a>(host: &Host, devices: &'a [Device]) -> Result<(Tree<'a>, Vec<ReadError>), ReadError> {
    let mut buses: BTreeMap<(u32, u16), Rc<[Address]>> = BTreeMap::new();
    let mut functions = Vec::with_capacity(devices.len());
    for device in devices {
        let first = device.pf.unwrap_or(device.address);
        let ports = match buses.entry((first.domain(), first.routing_id() >> 8)) {
            Entry::Occupied(known) => Rc::clone(known.get()),
            Entry::Vacant(bus) => Rc::clone(bus.insert(Device::ports(host, first)?.into())),
        };
        let is_vfio = device.driver.is_some() && Device::is_vfio_device(host, device.address)?;
        functions.push(Function { device, ports, is_vfio });
    }
    let (mut groups, mut unread) = (BTreeMap::new(), Vec::new());
    for (number, group) in self::groups(host, devices) {
        match group {
            Ok(group) => drop(groups.insert(number, group)),
            Err(error) => unread.push(error),
        }
    }
    Ok((Tree::new(functions, groups), unread))
}

/// The groups that devices are in, each as far as it can be read.
pub fn groups(host: &Host, devices: &[Device]) -> BTreeMap<u32, Result<Group, ReadError>> {
    let numbers: BTreeSet<u32> = devices.iter().filter_map(|device| device.iommu_group).collect();
    numbers.into_iter().map(|number| (number, Group::read(host, number))).collect()
}

/// The driver a device is on.
pub fn driver_of(host: &Host, address: Address) -> Result<Option<DriverName>, ReadError> {
    let name = Node::new(host.device(address)).link_name("driver")?;
    Ok(name.map(DriverName::from_kernel))
}

fn vfio() -> ModuleName {
    "vfio".parse().expect("a constant name")
}
