// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of a host, and the smallest changes of it. Each leaves the tree as sysfs would show it.

use std::collections::{BTreeMap, BTreeSet};

use super::address::Address;
use super::attribute::Attribute;
use super::device::{Binding, Device, Sriov};
use super::driver::Driver;
use super::errno::{Errno, Result};
use super::ids::Ids;
use super::modules::Tables;
use super::tree::{Node, resolve};

pub(super) const DEVICES: &str = "bus/pci/devices";
pub(super) const DRIVERS: &str = "bus/pci/drivers";
pub(super) const GROUPS: &str = "kernel/iommu_groups";
const VFIO_CLASS: &str = "class/vfio-dev";

/// Directories that the PCI core makes under a device, not its driver.
const NOT_A_DRIVERS: [&str; 6] = ["power", "vfio-dev", "link", "wakeup", "iommu", "firmware_node"];

/// A kernel release, as far as behaviour hangs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release(u32, u32);

impl Release {
    /// The first with `vfio-dev/`, the last whose attributes wait for the device lock.
    pub const V6_1: Self = Self(6, 1);
    /// Those that probe a new device only if the bus's `drivers_autoprobe` is on: 6.12 does not, 7.2 does.
    pub const V7_0: Self = Self(7, 0);

    /// From what `uname -r` says.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some(Self(numbers.next()?.ok()?, numbers.next()?.ok()?))
    }
}

/// A host: its hardware, its kernel's drivers and modules, and what its sysfs shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    title: String,
    release: Release,
    tree: Node,
    devices: BTreeMap<Address, Device>,
    absent: BTreeMap<Address, Absent>,
    groups: BTreeMap<u32, Option<u32>>,
    drivers: Vec<Driver>,
    registered: Vec<String>,
    tables: Tables,
    loaded: BTreeSet<String>,
    shelf: BTreeMap<String, Node>,
    births: u64,
    pub(super) autoprobe: bool,
}

/// A device that was removed and that a rescan will find again.
#[derive(Clone, Debug, PartialEq)]
struct Absent {
    device: Device,
    node: Node,
    group: Option<Node>,
}

impl Host {
    /// Makes a host of what its sysfs shows, its drivers and its module tables. An error names the path and the reason.
    pub fn new(
        title: String,
        release: &str,
        tree: Node,
        drivers: Vec<Driver>,
        tables: Tables,
    ) -> std::result::Result<Self, String> {
        let number = Release::parse(release).ok_or_else(|| format!("{release:?} is not a kernel release"))?;
        let mut host = Self {
            title,
            release: number,
            tree,
            devices: BTreeMap::new(),
            absent: BTreeMap::new(),
            groups: BTreeMap::new(),
            drivers,
            registered: Vec::new(),
            tables,
            loaded: BTreeSet::new(),
            shelf: BTreeMap::new(),
            births: 0,
            autoprobe: true,
        };
        host.find_modules();
        host.find_drivers()?;
        host.find_devices()?;
        host.find_groups()?;
        host.find_functions()?;
        // Last, as it takes the place of files that were read until here.
        for device in host.devices.values().cloned().collect::<Vec<_>>() {
            host.show_device(&device);
        }
        host.tree.insert("bus/pci/drivers_probe", Node::Attribute(Attribute::DriversProbe));
        host.tree.insert("bus/pci/drivers_autoprobe", Node::Attribute(Attribute::DriversAutoprobe));
        host.tree.insert("bus/pci/rescan", Node::Attribute(Attribute::RescanAll));
        host.tree.insert("bus/pci/uevent", Node::Attribute(Attribute::Trigger));
        Ok(host)
    }

    fn find_modules(&mut self) {
        let Some(modules) = self.tree.get("module") else {
            return;
        };
        let names = modules.entries().map(|(name, _)| name);
        let loaded = names.filter(|name| !self.tables.is_builtin(name));
        self.loaded = loaded.map(str::to_owned).collect();
    }

    fn find_drivers(&mut self) -> std::result::Result<(), String> {
        let shown: BTreeSet<String> = match self.tree.get(DRIVERS) {
            Some(drivers) => drivers.entries().map(|(name, _)| name.to_owned()).collect(),
            None => BTreeSet::new(),
        };
        for name in &shown {
            if self.driver(name).is_none() {
                return Err(format!("sys/{DRIVERS}/{name}: host.toml has no such driver"));
            }
        }
        let names: Vec<String> = self.drivers.iter().map(|driver| driver.name.clone()).collect();
        for name in names.into_iter().filter(|name| shown.contains(name)) {
            self.show_driver(&name);
            self.registered.push(name);
        }
        Ok(())
    }

    fn find_devices(&mut self) -> std::result::Result<(), String> {
        let Some(devices) = self.tree.get(DEVICES) else {
            return Err(format!("sys/{DEVICES}: missing"));
        };
        let mut found = Vec::new();
        for (name, node) in devices.entries() {
            let at = format!("{DEVICES}/{name}");
            let wrong = |reason: String| format!("sys/{at}: {reason}");
            let address: Address = name.parse().map_err(wrong)?;
            let path = match node {
                Node::Link(target) => resolve(&at, target),
                _ => None,
            };
            let path = path.filter(|path| matches!(self.tree.get(path), Some(Node::Dir(_))));
            let path = path.ok_or_else(|| wrong("not a link to a device's directory".into()))?;
            found.push(self.read_device(address, path)?);
        }
        self.devices = found.into_iter().map(|device| (device.address, device)).collect();
        Ok(())
    }

    fn read_device(&self, address: Address, path: String) -> std::result::Result<Device, String> {
        let node = self.tree.get(&path).ok_or_else(|| format!("sys/{path}: missing"))?;
        let number = |name: &str| {
            let content = node.content(name).ok_or_else(|| format!("sys/{path}/{name}: missing"))?;
            let text = String::from_utf8_lossy(content);
            let digits = text.trim().trim_start_matches("0x");
            u32::from_str_radix(digits, 16).map_err(|_| format!("sys/{path}/{name}: {text:?} is not a number"))
        };
        let ids = Ids {
            vendor: number("vendor")? as u16,
            device: number("device")? as u16,
            subvendor: number("subsystem_vendor")? as u16,
            subdevice: number("subsystem_device")? as u16,
            class: number("class")?,
        };
        let modalias = node.content("modalias").unwrap_or_default();
        if modalias != format!("{}\n", ids.modalias()).as_bytes() {
            let found = String::from_utf8_lossy(modalias);
            return Err(format!("sys/{path}/modalias: {found:?}, but the ids say {}", ids.modalias()));
        }
        let link = |name: &str| match node.get(name) {
            Some(Node::Link(target)) => target.rsplit('/').next().map(str::to_owned),
            _ => None,
        };
        let binding = match link("driver") {
            None => Binding::Unbound,
            Some(driver) if self.registered.contains(&driver) => Binding::Bound(driver),
            Some(driver) => {
                return Err(format!("sys/{path}/driver: {driver} is not in sys/{DRIVERS}"));
            }
        };
        let group = link("iommu_group")
            .map(|name| name.parse().map_err(|_| format!("sys/{path}/iommu_group: {name:?} is not a group")));
        let header_type = node.content("config").and_then(|config| config.get(0x0e)).copied();
        let bridge = match header_type {
            Some(byte) => byte & 0x7f != 0,
            None => matches!(ids.subclass(), 0x0604 | 0x0607),
        };
        let group = group.transpose()?;
        let text = |name: &str| String::from_utf8_lossy(node.content(name).unwrap_or_default()).into_owned();
        let driver_override = text("driver_override").trim_end_matches('\n').to_owned();
        let uevent = text("uevent");
        let uevent = uevent.lines().filter(|line| !line.starts_with("DRIVER="));
        Ok(Device {
            address,
            birth: 0,
            ids,
            bridge,
            driver_override: (!matches!(driver_override.as_str(), "" | "(null)")).then(|| driver_override.into()),
            binding,
            enabled: text("enable").trim().parse().unwrap_or_default(),
            group,
            cohort: group,
            vfio_dev: node.get("vfio-dev").and_then(|dir| dir.entries().next()).map(|(name, _)| name.to_owned()),
            physfn: None,
            sriov: None,
            uevent: uevent.flat_map(|line| [line, "\n"]).collect(),
            shelf: BTreeMap::new(),
            path,
        })
    }

    /// Puts the files behind which is the driver core in their places.
    fn show_device(&mut self, device: &Device) {
        let (address, path) = (device.address, &device.path);
        let mut attributes =
            vec![("driver_override", Attribute::DriverOverride(address)), ("uevent", Attribute::Uevent(address))];
        let node = self.tree.get(path);
        let has = |name: &str| node.is_some_and(|node| node.get(name).is_some());
        if has("enable") {
            attributes.push(("enable", Attribute::Enable(address)));
        }
        for name in ["config", "numa_node"] {
            if let Some(content) = node.and_then(|node| node.content(name)) {
                attributes.push((name, Attribute::Fixed(content.into())));
            }
        }
        if has("reset") {
            attributes.push(("reset", Attribute::Reset(address)));
        }
        if has("sriov_totalvfs") {
            attributes.push(("sriov_totalvfs", Attribute::TotalVfs(address)));
            attributes.push(("sriov_numvfs", Attribute::NumVfs(address)));
            attributes.push(("sriov_drivers_autoprobe", Attribute::VfAutoprobe(address)));
        }
        // A VF has neither (drivers/pci/pci-sysfs.c, pci_dev_hp_attrs_are_visible).
        if !has("physfn") {
            attributes.push(("remove", Attribute::Remove(address)));
            attributes.push(("rescan", Attribute::Rescan(address)));
        }
        for (name, attribute) in attributes {
            self.tree.insert(&format!("{path}/{name}"), Node::Attribute(attribute));
        }
        if let Some(name) = &device.vfio_dev {
            self.tree.insert(&format!("{path}/vfio-dev/{name}/uevent"), Node::Attribute(Attribute::ClassUevent));
        }
    }

    fn find_groups(&mut self) -> std::result::Result<(), String> {
        if let Some(groups) = self.tree.get(GROUPS) {
            for (name, _) in groups.entries() {
                let number = name.parse().map_err(|_| format!("sys/{GROUPS}/{name}: not a number"))?;
                self.groups.insert(number, Some(number));
            }
        }
        for number in self.groups.keys() {
            let path = format!("{GROUPS}/{number}/type");
            if let Some(content) = self.tree.content(&path).map(Into::into) {
                self.tree.insert(&path, Node::Attribute(Attribute::Fixed(content)));
            }
        }
        for device in self.devices.values() {
            if let Some(group) = device.group.filter(|group| !self.groups.contains_key(group)) {
                return Err(format!("sys/{}/iommu_group: sys/{GROUPS}/{group} is missing", device.path));
            }
        }
        Ok(())
    }

    fn find_functions(&mut self) -> std::result::Result<(), String> {
        let mut found = Vec::new();
        for device in self.devices.values() {
            let Some(node) = self.tree.get(&device.path) else {
                continue;
            };
            if node.get("sriov_totalvfs").is_none() {
                continue;
            }
            let number = |name: &str, radix| {
                let content = node.content(name).unwrap_or_default();
                let text = String::from_utf8_lossy(content);
                u16::from_str_radix(text.trim().trim_start_matches("0x"), radix)
                    .map_err(|_| format!("sys/{}/{name}: {text:?} is not a number", device.path))
            };
            let mut vfs = Vec::new();
            while let Some(Node::Link(target)) = node.get(&format!("virtfn{}", vfs.len())) {
                let at = format!("{}/virtfn{}", device.path, vfs.len());
                let vf: Option<Address> = target.rsplit('/').next().and_then(|name| name.parse().ok());
                let vf = vf.filter(|vf| self.devices.contains_key(vf));
                vfs.push(vf.ok_or_else(|| format!("sys/{at}: not a link to a VF"))?);
            }
            let autoprobe = node.content("sriov_drivers_autoprobe").is_none_or(|content| content != b"0\n");
            let sriov = Sriov {
                total: number("sriov_totalvfs", 10)?,
                offset: number("sriov_offset", 10)?,
                stride: number("sriov_stride", 10)?,
                vf_device: number("sriov_vf_device", 16)?,
                autoprobe,
                vfs,
            };
            found.push((device.address, sriov));
        }
        for (pf, sriov) in found {
            for vf in &sriov.vfs {
                if let Some(vf) = self.devices.get_mut(vf) {
                    vf.physfn = Some(pf);
                }
            }
            if let Some(device) = self.devices.get_mut(&pf) {
                device.sriov = Some(sriov);
            }
        }
        Ok(())
    }

    /// What the host is for.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// The kernel's release.
    pub fn release(&self) -> Release {
        self.release
    }

    /// What a path below `/sys` leads to. Links are not followed; one whose end is gone is not there, since who made the
    /// end made the link (a class's entry for what a driver registered).
    pub fn node(&self, path: &str) -> Option<&Node> {
        let node = self.tree.get(path)?;
        self.is_shown(path, node).then_some(node)
    }

    /// The names in a directory.
    pub fn list(&self, path: &str) -> Option<Vec<(&str, &Node)>> {
        let node @ Node::Dir(_) = self.tree.get(path)? else {
            return None;
        };
        let shown = node.entries().filter(|(name, node)| self.is_shown(&format!("{path}/{name}"), node));
        Some(shown.collect())
    }

    fn is_shown(&self, path: &str, node: &Node) -> bool {
        let registry =
            ["class/", "block/", "dev/"].iter().any(|prefix| path.trim_start_matches('/').starts_with(prefix));
        match node {
            Node::Link(target) if registry => resolve(path, target).is_some_and(|path| self.tree.get(&path).is_some()),
            _ => true,
        }
    }

    /// As `node`, through whatever links lead there; a link at the end is not followed.
    pub fn walk(&self, path: &str) -> Option<&Node> {
        // No more links than the VFS would follow.
        let mut path = path.trim_matches('/').to_owned();
        for _ in 0..40 {
            let slashes = path.match_indices('/').map(|(index, _)| &path[..index]);
            let link = slashes.filter_map(|before| match self.node(before) {
                Some(Node::Link(target)) => Some((before.len(), resolve(before, target)?)),
                _ => None,
            });
            match { link }.next() {
                Some((end, target)) => path = target + &path[end..],
                None => return self.node(&path),
            }
        }
        None
    }

    /// What sets the device whose directory a path is in apart from those that were there before it: a file that is open
    /// stays that of its own device (fs/kernfs/dir.c, kernfs_get_active).
    pub fn birth(&self, path: &str) -> u64 {
        // A device's directory has its address for a name; the innermost is last.
        let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
        let owner = ends.rev().find_map(|end| {
            let name = path[..end].rsplit('/').next()?;
            let device = self.devices.get(&name.parse().ok()?)?;
            (device.path == path[..end]).then_some(device)
        });
        owner.map_or(0, |device| device.birth)
    }

    /// What a read of an attribute gives.
    pub fn read(&self, attribute: &Attribute) -> Result<Vec<u8>> {
        let device = |address: &Address| self.devices.get(address).ok_or(Errno::ENODEV);
        let sriov = |address| device(address)?.sriov.as_ref().ok_or(Errno::ENODEV);
        match attribute {
            Attribute::DriverOverride(address) => {
                let mut content = device(address)?.driver_override.clone().unwrap_or(b"(null)".to_vec());
                content.push(b'\n');
                Ok(content)
            }
            Attribute::Uevent(address) => {
                let device = device(address)?;
                let driver = device.binding.driver().map(|driver| format!("DRIVER={driver}\n"));
                Ok((driver.unwrap_or_default() + &device.uevent).into_bytes())
            }
            Attribute::ClassUevent => Ok(Vec::new()),
            Attribute::Enable(address) => Ok(format!("{}\n", device(address)?.enabled).into_bytes()),
            Attribute::TotalVfs(address) => Ok(format!("{}\n", self.max_vfs(*address)?).into_bytes()),
            Attribute::Fixed(content) => Ok(content.to_vec()),
            Attribute::NumVfs(address) => Ok(format!("{}\n", sriov(address)?.vfs.len()).into_bytes()),
            Attribute::VfAutoprobe(address) => Ok(format!("{}\n", u8::from(sriov(address)?.autoprobe)).into_bytes()),
            Attribute::DriversAutoprobe => Ok(format!("{}\n", u8::from(self.autoprobe)).into_bytes()),
            _ => Err(Errno::EACCES),
        }
    }

    /// The device at an address.
    pub fn device(&self, address: Address) -> Result<&Device> {
        self.devices.get(&address).ok_or(Errno::ENODEV)
    }

    pub(super) fn device_mut(&mut self, address: Address) -> Result<&mut Device> {
        self.devices.get_mut(&address).ok_or(Errno::ENODEV)
    }

    /// The devices, in the bus's order.
    pub fn devices(&self) -> impl Iterator<Item = &Device> {
        self.devices.values()
    }

    /// The devices that were removed from below a directory, parents before children.
    pub fn absent_devices(&self, below: &str) -> impl Iterator<Item = Address> {
        let absent = self.absent.values().map(|absent| &absent.device);
        let mut absent: Vec<_> = absent.filter(|device| device.path.starts_with(below)).collect();
        absent.sort_by_key(|device| (device.path.matches('/').count(), device.address));
        absent.into_iter().map(|device| device.address)
    }

    /// A driver, registered or not.
    pub fn driver(&self, name: &str) -> Option<&Driver> {
        self.drivers.iter().find(|driver| driver.name == name)
    }

    /// A registered driver.
    pub(super) fn driver_mut(&mut self, name: &str) -> Result<&mut Driver> {
        let registered = self.registered.iter().any(|registered| registered == name);
        let driver = self.drivers.iter_mut().find(|driver| driver.name == name);
        driver.filter(|_| registered).ok_or(Errno::ENODEV)
    }

    /// The names of the registered drivers, in the order of registration.
    pub fn registered(&self) -> &[String] {
        &self.registered
    }

    /// The names of the drivers that a module registers.
    pub(super) fn drivers_of(&self, module: &str) -> Vec<String> {
        let drivers = self.drivers.iter().filter(|driver| driver.module.as_deref() == Some(module));
        drivers.map(|driver| driver.name.clone()).collect()
    }

    /// The modules that are loaded.
    pub fn loaded_modules(&self) -> &BTreeSet<String> {
        &self.loaded
    }

    /// The module tables of the running kernel.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// Does the driver take the device?
    pub(super) fn matches(&self, driver: &str, address: Address) -> bool {
        let registered = self.registered.iter().any(|registered| registered == driver);
        match (self.driver(driver), self.devices.get(&address)) {
            (Some(driver), Some(device)) => registered && driver.matches(device),
            _ => false,
        }
    }

    /// Gives a device to a driver whose probe is to run: the links show from now on.
    pub(super) fn begin_probe(&mut self, driver: &str, address: Address) -> Result<()> {
        self.driver_mut(driver)?;
        let device = self.device_mut(address)?;
        if device.binding != Binding::Unbound {
            return Err(Errno::EBUSY);
        }
        device.binding = Binding::Probing(driver.to_owned());
        let path = device.path.clone();
        self.tree.link(&format!("{path}/driver"), &format!("{DRIVERS}/{driver}"));
        self.tree.link(&format!("{DRIVERS}/{driver}/{address}"), &path);
        Ok(())
    }

    /// The probe's verdict, and what it makes when it is well.
    pub(super) fn finish_probe(&mut self, driver: &str, address: Address) -> Result<()> {
        self.check_probe(driver, address)?;
        let vfio = self.driver(driver).is_some_and(|driver| driver.vfio);
        let device = self.device_mut(address)?;
        device.binding = Binding::Bound(driver.to_owned());
        // VFIO enables a device when a user opens it, other drivers when they probe it.
        if vfio {
            self.show_vfio_dev(address)?;
        } else {
            device.enabled += 1;
        }
        self.show_children(driver, address)
    }

    /// Whether a driver's own probe is called at all: an override probes in spite of the PF's `sriov_drivers_autoprobe`
    /// (drivers/pci/pci-driver.c, pci_device_can_probe).
    pub(super) fn check_may_probe(&self, address: Address) -> Result<()> {
        let device = self.device(address)?;
        let pf = device.physfn.and_then(|pf| self.devices.get(&pf));
        let autoprobe = pf.and_then(|pf| pf.sriov.as_ref()).is_none_or(|sriov| sriov.autoprobe);
        if !autoprobe && device.driver_override.is_none() {
            return Err(Errno::ENODEV);
        }
        Ok(())
    }

    fn check_probe(&self, driver: &str, address: Address) -> Result<()> {
        let driver = self.driver(driver).ok_or(Errno::ENODEV)?;
        let device = self.device(address)?;
        let pf = device.physfn.and_then(|pf| self.devices.get(&pf));
        let probe = &driver.probe;
        match (pf, probe.vf_only, probe.pf_missing) {
            (None, Some(errno), _) => return Err(errno),
            (Some(pf), _, Some(errno)) => {
                let on = pf.binding.bound();
                if !probe.pf_driver.iter().any(|wanted| on == Some(wanted)) {
                    return Err(errno);
                }
            }
            _ => {}
        }
        if probe.deny.iter().any(|pattern| pattern.matches(&device.ids)) {
            return Err(Errno::EINVAL);
        }
        if !driver.vfio {
            return Ok(());
        }
        // vfio_pci_core_register_device and vfio_register_group_dev, in this order
        if device.bridge {
            return Err(Errno::EINVAL);
        }
        if device.sriov.as_ref().is_some_and(|sriov| !sriov.vfs.is_empty()) {
            return Err(Errno::EBUSY);
        }
        device.group.map(|_| ()).ok_or(Errno::EINVAL)
    }

    /// Takes a device back from a driver whose probe failed.
    pub(super) fn abort_probe(&mut self, address: Address) {
        self.hide_driver_links(address);
        self.set_unbound(address);
    }

    /// Takes the links and what the driver made away: its remove is about to run.
    pub(super) fn begin_remove(&mut self, address: Address) -> Result<()> {
        let device = self.device(address)?;
        let Binding::Bound(driver) = device.binding.clone() else {
            return Err(Errno::ENODEV);
        };
        let vfio = self.driver(&driver).is_some_and(|driver| driver.vfio);
        self.hide_driver_links(address);
        self.hide_children(&driver, address);
        // Up to 6.1 the entry stays until the user lets go, later it goes first.
        if self.release > Release::V6_1 {
            self.hide_vfio_dev(address);
        }
        let device = self.device_mut(address)?;
        device.binding = Binding::Removing(driver);
        if !vfio {
            device.enabled = device.enabled.saturating_sub(1);
        }
        Ok(())
    }

    /// The driver's remove has run.
    pub(super) fn finish_remove(&mut self, address: Address) {
        self.hide_vfio_dev(address);
        self.set_unbound(address);
    }

    fn set_unbound(&mut self, address: Address) {
        if let Some(device) = self.devices.get_mut(&address) {
            device.binding = Binding::Unbound;
        }
    }

    fn hide_driver_links(&mut self, address: Address) {
        let Some(device) = self.devices.get(&address) else {
            return;
        };
        if let Some(driver) = device.binding.driver() {
            self.tree.remove(&format!("{}/driver", device.path));
            self.tree.remove(&format!("{DRIVERS}/{driver}/{address}"));
        }
    }

    fn show_vfio_dev(&mut self, address: Address) -> Result<()> {
        if self.release < Release::V6_1 {
            return Ok(());
        }
        let taken: BTreeSet<&str> = self.devices.values().filter_map(|device| device.vfio_dev.as_deref()).collect();
        let name = free(|number| !taken.contains(format!("vfio{number}").as_str()));
        let name = format!("vfio{name}");
        let device = self.device_mut(address)?;
        device.vfio_dev = Some(name.clone());
        let path = device.path.clone();
        let entry = format!("{path}/vfio-dev/{name}");
        self.tree.insert(&entry, Node::dir());
        self.tree.insert(&format!("{entry}/uevent"), Node::Attribute(Attribute::ClassUevent));
        self.tree.link(&format!("{entry}/device"), &path);
        self.tree.link(&format!("{entry}/subsystem"), VFIO_CLASS);
        self.tree.link(&format!("{VFIO_CLASS}/{name}"), &entry);
        Ok(())
    }

    fn hide_vfio_dev(&mut self, address: Address) {
        let Some(device) = self.devices.get_mut(&address) else {
            return;
        };
        if let Some(name) = device.vfio_dev.take() {
            self.tree.remove(&format!("{}/vfio-dev", device.path));
            self.tree.remove(&format!("{VFIO_CLASS}/{name}"));
        }
    }

    /// Puts back what the driver made here before; or, the first time, makes it by its rule: `net/{name}` becomes the
    /// lowest `net/ethN` that is free on the host, and `{number}` the lowest number.
    fn show_children(&mut self, driver: &str, address: Address) -> Result<()> {
        let device = self.device_mut(address)?;
        let path = device.path.clone();
        if let Some(children) = device.shelf.remove(driver) {
            for (name, node) in children {
                self.tree.insert(&format!("{path}/{name}"), node);
            }
            return Ok(());
        }
        let templates = self.driver(driver).map(|driver| driver.children.clone()).unwrap_or_default();
        for template in templates {
            let kind = template.split('/').next().unwrap_or_default().to_owned();
            let stem = match kind.as_str() {
                "net" => "eth",
                "drm" => "card",
                kind => kind,
            };
            let made = |number: u32| {
                template.replace("{name}", &format!("{stem}{number}")).replace("{number}", &number.to_string())
            };
            let number = free(|number| {
                let taken = if template.contains("{number}") { made(number) } else { format!("{kind}/{stem}{number}") };
                self.devices.values().all(|device| self.tree.get(&format!("{}/{taken}", device.path)).is_none())
            });
            let child = made(number);
            let at = format!("{path}/{child}");
            self.tree.insert(&at, Node::dir());
            if kind == "net" {
                self.tree.insert(&format!("{at}/address"), Node::file(format!("02:00:00:00:00:{number:02x}\n")));
                self.tree.insert(&format!("{at}/operstate"), Node::file("down\n"));
            }
            let name = child.rsplit('/').next().unwrap_or_default();
            if self.tree.get(&format!("class/{kind}")).is_some() {
                self.tree.link(&format!("class/{kind}/{name}"), &at);
            }
        }
        Ok(())
    }

    fn hide_children(&mut self, driver: &str, address: Address) {
        let Some(device) = self.devices.get(&address) else {
            return;
        };
        let path = device.path.clone();
        let Some(node) = self.tree.get(&path) else {
            return;
        };
        let made = node.entries().filter(|(name, node)| {
            let device = name.parse::<Address>().is_ok() || name.contains(':');
            matches!(node, Node::Dir(_)) && !device && !NOT_A_DRIVERS.contains(name)
        });
        let names: Vec<String> = made.map(|(name, _)| name.to_owned()).collect();
        let mut shelved = Vec::new();
        for name in names {
            if let Some(node) = self.tree.remove(&format!("{path}/{name}")) {
                shelved.push((name, node));
            }
        }
        if let Some(device) = self.devices.get_mut(&address).filter(|_| !shelved.is_empty()) {
            device.shelf.insert(driver.to_owned(), shelved);
        }
    }

    /// Registers a driver, which shows its directory.
    pub(super) fn register(&mut self, driver: &str) {
        self.registered.push(driver.to_owned());
        self.show_driver(driver);
    }

    fn show_driver(&mut self, name: &str) {
        let path = format!("{DRIVERS}/{name}");
        if self.tree.get(&path).is_none() {
            self.tree.insert(&path, Node::dir());
        }
        for (file, attribute) in [
            ("bind", Attribute::Bind(name.to_owned())),
            ("unbind", Attribute::Unbind(name.to_owned())),
            ("new_id", Attribute::NewId(name.to_owned())),
            ("remove_id", Attribute::RemoveId(name.to_owned())),
            ("uevent", Attribute::Trigger),
        ] {
            self.tree.insert(&format!("{path}/{file}"), Node::Attribute(attribute));
        }
        let module = self.driver(name).and_then(|driver| driver.module.clone());
        if let Some(module) = module.filter(|module| self.tree.get(&format!("module/{module}")).is_some()) {
            self.tree.link(&format!("{path}/module"), &format!("module/{module}"));
            self.tree.link(&format!("module/{module}/drivers/pci:{name}"), &path);
        }
    }

    /// Takes a driver that no device has any more away.
    pub(super) fn unregister(&mut self, name: &str) {
        self.registered.retain(|registered| registered != name);
        self.tree.remove(&format!("{DRIVERS}/{name}"));
        if let Some(driver) = self.drivers.iter_mut().find(|driver| driver.name == name) {
            driver.dynamic_ids.clear();
            if let Some(module) = &driver.module {
                self.tree.remove(&format!("module/{module}/drivers/pci:{name}"));
            }
        }
    }

    /// Shows a module's directory; its drivers are still to be registered.
    pub(super) fn show_module(&mut self, name: &str) {
        let path = format!("module/{name}");
        let node = self.shelf.remove(name);
        self.tree.insert(&path, node.unwrap_or_else(Node::dir));
        for (file, content) in [("initstate", "live\n"), ("refcnt", "0\n")] {
            self.tree.insert(&format!("{path}/{file}"), Node::file(content));
        }
        self.loaded.insert(name.to_owned());
        if name == "vfio" && self.release >= Release::V6_1 {
            self.tree.insert(VFIO_CLASS, Node::dir());
        }
    }

    /// Takes a module's directory away.
    pub(super) fn hide_module(&mut self, name: &str) {
        self.loaded.remove(name);
        if let Some(node) = self.tree.remove(&format!("module/{name}")) {
            self.shelf.insert(name.to_owned(), node);
        }
        if name == "vfio" {
            self.tree.remove(VFIO_CLASS);
        }
    }

    /// Adds a device that is not there yet to the bus and its group.
    pub(super) fn add_device(&mut self, mut device: Device, node: Node, group: Option<&Node>) {
        let (address, path) = (device.address, device.path.clone());
        self.tree.insert(&path, node);
        self.tree.link(&format!("{DEVICES}/{address}"), &path);
        self.tree.link(&format!("{path}/subsystem"), "bus/pci");
        if let Some(template) = group {
            let together = self.groups.iter().find(|(_, cohort)| device.cohort.is_some() && **cohort == device.cohort);
            let number = match together {
                Some((number, _)) => *number,
                None => {
                    let number = free(|number| !self.groups.contains_key(&number));
                    self.groups.insert(number, device.cohort);
                    self.tree.insert(&format!("{GROUPS}/{number}"), template.clone());
                    number
                }
            };
            device.group = Some(number);
            self.tree.link(&format!("{GROUPS}/{number}/devices/{address}"), &path);
            self.tree.link(&format!("{path}/iommu_group"), &format!("{GROUPS}/{number}"));
        }
        self.show_device(&device);
        self.births += 1;
        device.birth = self.births;
        self.devices.insert(address, device);
    }

    /// A group's files without its devices.
    pub(super) fn group_template(&self, group: Option<u32>) -> Option<Node> {
        let mut node = self.tree.get(&format!("{GROUPS}/{}", group?))?.clone();
        node.insert("devices", Node::dir());
        Some(node)
    }

    /// Takes a device without children and VFs off the bus. A rescan finds it again, unless it is a VF.
    pub(super) fn take_device(&mut self, address: Address) {
        self.hide_driver_links(address);
        self.hide_vfio_dev(address);
        let driver = self.devices.get(&address).and_then(|device| device.binding.driver());
        if let Some(driver) = driver.map(str::to_owned) {
            self.hide_children(&driver, address);
        }
        let Some(mut device) = self.devices.remove(&address) else {
            return;
        };
        let group = self.group_template(device.group);
        self.tree.remove(&format!("{DEVICES}/{address}"));
        let node = self.tree.remove(&device.path);
        if let Some(number) = device.group {
            let members = format!("{GROUPS}/{number}/devices");
            self.tree.remove(&format!("{members}/{address}"));
            if self.tree.get(&members).is_none_or(|members| members.entries().next().is_none()) {
                self.tree.remove(&format!("{GROUPS}/{number}"));
                self.groups.remove(&number);
            }
        }
        let Some(mut node) = node.filter(|_| device.physfn.is_none()) else {
            return;
        };
        node.remove("iommu_group");
        device.driver_override = None;
        device.binding = Binding::Unbound;
        device.enabled = 0;
        device.group = None;
        if let Some(sriov) = &mut device.sriov {
            sriov.autoprobe = true;
            sriov.vfs.clear();
        }
        self.absent.insert(address, Absent { device, node, group });
    }

    /// Finds a removed device again. False when its parent is not there.
    pub(super) fn find_again(&mut self, address: Address) -> bool {
        let Some(absent) = self.absent.remove(&address) else {
            return false;
        };
        let parent = absent.device.path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if self.tree.get(parent).is_none() {
            self.absent.insert(address, absent);
            return false;
        }
        self.add_device(absent.device, absent.node, absent.group.as_ref());
        true
    }

    /// The devices behind a bridge, nearest first.
    pub(super) fn children(&self, address: Address) -> Vec<Address> {
        let Some(device) = self.devices.get(&address) else {
            return Vec::new();
        };
        let prefix = format!("{}/", device.path);
        let below = self.devices.values().filter(|other| other.path.starts_with(&prefix));
        let mut below: Vec<&Device> = below.collect();
        below.sort_by_key(|device| device.path.matches('/').count());
        below.into_iter().map(|device| device.address).collect()
    }

    pub(super) fn tree_mut(&mut self) -> &mut Node {
        &mut self.tree
    }

    pub(super) fn tree(&self) -> &Node {
        &self.tree
    }
}

/// The lowest number that is free, as the kernel's ida gives.
fn free(is_free: impl Fn(u32) -> bool) -> u32 {
    (0..).find(|&number| is_free(number)).unwrap_or_default()
}
