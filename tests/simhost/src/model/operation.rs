// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a write to sysfs or the loading of a module does, in the kernel's order.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::address::Address;
use super::attribute::Attribute;
use super::device::Binding;
use super::errno::{Errno, Result};
use super::host::{Host, Release};
use super::ids::Pattern;
use super::tree::Node;

/// What an operation passes through on its way. It may be held up there, and others go on meanwhile; or it may fail.
pub trait Core {
    /// The host as it is now. What it was before the last other call may no longer hold.
    fn host(&mut self) -> &mut Host;

    /// Waits for a lock and takes it.
    fn lock(&mut self, lock: Lock) -> Result<()>;

    /// Lets go of a lock.
    fn unlock(&mut self, lock: Lock);

    /// A step is about to begin: nothing has changed yet, and it may fail.
    fn begin(&mut self, place: &Place) -> Result<()>;

    /// A step is under way: it may last, or its device may vanish.
    fn dwell(&mut self, place: &Place) -> Result<()>;

    /// A driver's own probe is called.
    fn note_probe(&mut self, _driver: &str, _address: Address) {}

    /// Time goes by.
    fn rest(&mut self, time: Duration) -> Result<()>;
}

/// With no one to hold anything up, operations just happen.
impl Core for Host {
    fn host(&mut self) -> &mut Host {
        self
    }

    fn lock(&mut self, _: Lock) -> Result<()> {
        Ok(())
    }

    fn unlock(&mut self, _: Lock) {}

    fn begin(&mut self, _: &Place) -> Result<()> {
        Ok(())
    }

    fn dwell(&mut self, _: &Place) -> Result<()> {
        Ok(())
    }

    fn rest(&mut self, _: Duration) -> Result<()> {
        Ok(())
    }
}

/// What an operation can have to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lock {
    /// `device_lock()` of a device.
    Device(Address),
    /// `pci_lock_rescan_remove()`.
    Rescan,
}

/// Where an operation is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// At a step with a device.
    Device(Address, Step),
    /// At the loading of a module.
    Module(String),
}

/// A step at which an operation on a device can be held up or fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A write to `driver_override`.
    Override,
    /// A driver's remove, whoever asked for it.
    Unbind,
    /// A write to `bind`, before the probe.
    Bind,
    /// A driver's probe, whoever asked for it.
    Probe,
    /// A write to `drivers_probe`, before the probe.
    DriversProbe,
    /// A write to `sriov_numvfs`.
    Sriov,
    /// A write to `sriov_drivers_autoprobe`.
    VfAutoprobe,
}

impl Step {
    const NAMES: [(Step, &'static str); 7] = [
        (Step::Override, "override"),
        (Step::Unbind, "unbind"),
        (Step::Bind, "bind"),
        (Step::Probe, "probe"),
        (Step::DriversProbe, "drivers_probe"),
        (Step::Sriov, "sriov"),
        (Step::VfAutoprobe, "vf_autoprobe"),
    ];
}

impl FromStr for Step {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let found = Self::NAMES.iter().find(|(_, name)| *name == text);
        found.map(|(step, _)| *step).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(_, name)| *name).collect();
            format!("{text:?} is not a step: {}", names.join(", "))
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(address, step) => {
                let name = Step::NAMES.iter().find(|(other, _)| other == step);
                write!(f, "{address}:{}", name.map_or("", |(_, name)| name))
            }
            Self::Module(name) => write!(f, "module={name}"),
        }
    }
}

impl Attribute {
    /// The step that a write of this comes to, if that is one.
    pub fn place(&self, host: &Host, data: &[u8]) -> Option<Place> {
        let (address, step) = match self {
            Attribute::DriverOverride(address) => (*address, Step::Override),
            Attribute::Bind(_) => (named(host, data).ok()?, Step::Bind),
            Attribute::Unbind(_) => (named(host, data).ok()?, Step::Unbind),
            Attribute::DriversProbe => (named(host, data).ok()?, Step::DriversProbe),
            Attribute::NumVfs(pf) => (*pf, Step::Sriov),
            Attribute::VfAutoprobe(pf) => (*pf, Step::VfAutoprobe),
            _ => return None,
        };
        Some(Place::Device(address, step))
    }
}

/// Writes to an attribute.
pub fn write(core: &mut impl Core, attribute: &Attribute, data: &[u8]) -> Result<()> {
    // fs/sysfs/file.c, sysfs_kf_write: no store is called for nothing.
    if data.is_empty() {
        return Ok(());
    }
    match attribute {
        Attribute::DriverOverride(address) => set_override(core, *address, data),
        Attribute::Bind(driver) => bind(core, driver, data),
        Attribute::Unbind(driver) => unbind(core, driver, data),
        Attribute::DriversProbe => drivers_probe(core, data),
        Attribute::NewId(driver) => new_id(core, driver, data),
        Attribute::RemoveId(driver) => remove_id(core, driver, data),
        Attribute::NumVfs(pf) => set_numvfs(core, *pf, data),
        Attribute::VfAutoprobe(pf) => {
            let on = boolean(data)?;
            pass(core, &Place::Device(*pf, Step::VfAutoprobe))?;
            let sriov = core.host().device_mut(*pf)?.sriov.as_mut().ok_or(Errno::ENODEV)?;
            sriov.autoprobe = on;
            Ok(())
        }
        Attribute::DriversAutoprobe => {
            // drivers/base/bus.c, drivers_autoprobe_store: '0' turns it off, anything else on.
            core.host().autoprobe = data[0] != b'0';
            Ok(())
        }
        Attribute::Remove(address) => {
            if number(data)? != 0 {
                with(core, Lock::Rescan, |core| remove(core, *address))?;
            }
            Ok(())
        }
        Attribute::Rescan(address) => {
            if number(data)? != 0 {
                let device = core.host().device(*address)?;
                let bus = device.path.rsplit_once('/').map_or_else(String::new, |(bus, _)| format!("{bus}/"));
                with(core, Lock::Rescan, |core| rescan(core, &bus))?;
            }
            Ok(())
        }
        Attribute::RescanAll => {
            if number(data)? != 0 {
                with(core, Lock::Rescan, |core| rescan(core, ""))?;
            }
            Ok(())
        }
        Attribute::Enable(address) => enable(core, *address, data),
        Attribute::Reset(address) => {
            // drivers/pci/pci-sysfs.c, reset_store
            if number(data)? != 1 {
                return Err(Errno::EINVAL);
            }
            with(core, Lock::Device(*address), |core| core.host().device(*address).map(|_| ()))
        }
        Attribute::Uevent(_) | Attribute::Trigger | Attribute::ClassUevent => synthetic_uevent(data),
        // Better than to say that it is well.
        Attribute::Fixed(_) => Err(Errno::EOPNOTSUPP),
        Attribute::TotalVfs(_) => Err(Errno::EACCES),
    }
}

impl Host {
    /// Writes to a file below /sys, with nothing to hold the operation up.
    pub fn write(&mut self, path: &str, data: impl AsRef<[u8]>) -> Result<()> {
        match self.walk(path).ok_or(Errno::ENOENT)? {
            Node::Attribute(attribute) if attribute.mode() & 0o200 != 0 => {
                let attribute = attribute.clone();
                write(self, &attribute, data.as_ref())
            }
            _ => Err(Errno::EACCES),
        }
    }
}

/// Runs with a lock held.
fn with<C: Core, T>(core: &mut C, lock: Lock, run: impl FnOnce(&mut C) -> Result<T>) -> Result<T> {
    core.lock(lock)?;
    let result = run(core);
    core.unlock(lock);
    result
}

/// A step at which nothing happens but what is asked for here: it may last, then fail.
fn pass(core: &mut impl Core, place: &Place) -> Result<()> {
    core.dwell(place)?;
    core.begin(place)
}

/// drivers/base/driver.c, driver_set_override
fn set_override<C: Core>(core: &mut C, address: Address, data: &[u8]) -> Result<()> {
    const PAGE_SIZE: usize = 4096;
    if data.len() >= PAGE_SIZE - 1 {
        return Err(Errno::EINVAL);
    }
    let name = data.split(|byte| matches!(byte, 0 | b'\n')).next().unwrap_or_default();
    let store = |core: &mut C| {
        pass(core, &Place::Device(address, Step::Override))?;
        let device = core.host().device_mut(address)?;
        device.driver_override = (!name.is_empty()).then(|| name.to_vec());
        Ok(())
    };
    match Attribute::DriverOverride(address).read_locks(core.host().release()) {
        Some(_) => with(core, Lock::Device(address), store),
        None => store(core),
    }
}

/// The device that a written name means: one newline may follow (sysfs_streq).
fn named(host: &Host, data: &[u8]) -> Result<Address> {
    let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
    let name = std::str::from_utf8(name.strip_suffix(b"\n").unwrap_or(name));
    let address = name.ok().and_then(|name| name.parse().ok()).ok_or(Errno::ENODEV)?;
    host.device(address).map(|device| device.address)
}

/// drivers/base/bus.c, bind_store
fn bind(core: &mut impl Core, driver: &str, data: &[u8]) -> Result<()> {
    let address = named(core.host(), data)?;
    if !core.host().matches(driver, address) {
        return Err(Errno::ENODEV);
    }
    let place = Place::Device(address, Step::Bind);
    let result = with(core, Lock::Device(address), |core| {
        pass(core, &place)?;
        probe(core, driver, address)
    });
    result.map_err(|errno| match errno {
        // dd.c, device_driver_attach
        Errno::EPROBE_DEFER => Errno::EAGAIN,
        errno => errno,
    })
}

/// drivers/base/dd.c, really_probe; the device's lock is held.
fn probe(core: &mut impl Core, driver: &str, address: Address) -> Result<()> {
    core.host().begin_probe(driver, address)?;
    let result = (|| {
        core.host().check_may_probe(address)?;
        core.note_probe(driver, address);
        let delay = core.host().driver(driver).map(|driver| driver.probe.delay());
        core.rest(delay.unwrap_or_default())?;
        pass(core, &Place::Device(address, Step::Probe))?;
        core.host().finish_probe(driver, address)
    })();
    if result.is_err() {
        core.host().abort_probe(address);
    }
    result
}

/// Tries the drivers one after another (dd.c, __device_attach); the device's lock is held. A probe's error lets the next
/// driver try its luck; a deferral ends the search.
fn attach(core: &mut impl Core, address: Address) -> Result<()> {
    let registered = core.host().registered().to_vec();
    for driver in registered {
        match core.host().device(address) {
            Ok(device) if device.binding == Binding::Unbound => {}
            _ => return Ok(()),
        }
        if !core.host().matches(&driver, address) {
            continue;
        }
        match probe(core, &driver, address) {
            Ok(()) => return Ok(()),
            Err(Errno::EPROBE_DEFER) => return Err(Errno::EPROBE_DEFER),
            Err(_) => {}
        }
    }
    Ok(())
}

/// drivers/base/bus.c, drivers_probe_store
fn drivers_probe(core: &mut impl Core, data: &[u8]) -> Result<()> {
    let address = named(core.host(), data)?;
    pass(core, &Place::Device(address, Step::DriversProbe))?;
    match core.host().device(address) {
        Ok(device) if device.binding == Binding::Unbound => {}
        _ => return Ok(()),
    }
    with(core, Lock::Device(address), |core| attach(core, address)).map_err(|_| Errno::EINVAL)
}

/// drivers/base/bus.c, unbind_store
fn unbind(core: &mut impl Core, driver: &str, data: &[u8]) -> Result<()> {
    let address = named(core.host(), data)?;
    if core.host().device(address)?.binding.driver() != Some(driver) {
        return Err(Errno::ENODEV);
    }
    core.begin(&Place::Device(address, Step::Unbind))?;
    with(core, Lock::Device(address), |core| {
        // Someone else may have been faster while this waited: that is no error (device_release_driver_internal).
        match core.host().device(address) {
            Ok(device) if device.binding.driver() == Some(driver) => detach(core, address),
            _ => Ok(()),
        }
    })
}

/// drivers/base/dd.c, __device_release_driver; the device's lock is held.
fn detach(core: &mut impl Core, address: Address) -> Result<()> {
    let Some(driver) = core.host().device(address)?.binding.bound().map(str::to_owned) else {
        return Ok(());
    };
    core.host().begin_remove(address)?;
    core.dwell(&Place::Device(address, Step::Unbind))?;
    if core.host().driver(&driver).is_some_and(|driver| driver.sriov && !driver.keeps_vfs) {
        remove_vfs(core, address)?;
    }
    core.host().finish_remove(address);
    Ok(())
}

/// Offers a driver every device that none has (drivers/base/dd.c, driver_attach).
fn driver_attach(core: &mut impl Core, driver: &str) -> Result<()> {
    let addresses: Vec<Address> = core.host().devices().map(|device| device.address).collect();
    for address in addresses {
        if !core.host().matches(driver, address) {
            continue;
        }
        with(core, Lock::Device(address), |core| {
            match core.host().device(address) {
                // A probe's errors are the device's affair, not the registration's.
                Ok(device) if device.binding == Binding::Unbound => {
                    let _ = probe(core, driver, address);
                }
                _ => {}
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// drivers/pci/pci-driver.c, new_id_store
fn new_id(core: &mut impl Core, driver: &str, data: &[u8]) -> Result<()> {
    let text = String::from_utf8_lossy(data);
    let pattern = Pattern::from_new_id(&text).ok_or(Errno::EINVAL)?;
    let known = core.host().driver_mut(driver)?;
    match Pattern::driver_data(&text) {
        None if known.lists(&pattern.example()) => return Err(Errno::EEXIST),
        // It must be that of an entry in the driver's table, and in vfio-pci's and most others' it is always 0.
        Some(data) if data != 0 => return Err(Errno::EINVAL),
        _ => {}
    }
    known.dynamic_ids.push(pattern);
    driver_attach(core, driver)
}

/// drivers/pci/pci-driver.c, remove_id_store
fn remove_id(core: &mut impl Core, driver: &str, data: &[u8]) -> Result<()> {
    let pattern = Pattern::from_new_id(&String::from_utf8_lossy(data)).ok_or(Errno::EINVAL)?;
    let ids = &mut core.host().driver_mut(driver)?.dynamic_ids;
    let index = ids.iter().position(|known| *known == pattern).ok_or(Errno::ENODEV)?;
    ids.remove(index);
    Ok(())
}

/// drivers/pci/pci-sysfs.c, enable_store
fn enable(core: &mut impl Core, address: Address, data: &[u8]) -> Result<()> {
    let on = number(data)? != 0;
    with(core, Lock::Device(address), |core| {
        let device = core.host().device_mut(address)?;
        if device.binding != Binding::Unbound {
            return Err(Errno::EBUSY);
        }
        device.enabled = match (on, device.enabled) {
            (true, count) => count + 1,
            (false, 0) => return Err(Errno::EIO),
            (false, count) => count - 1,
        };
        Ok(())
    })
}

/// `ACTION [UUID [KEY=VALUE ...]]` (lib/kobject_uevent.c, kobject_synth_uevent). No one listens.
fn synthetic_uevent(data: &[u8]) -> Result<()> {
    const ACTIONS: [&str; 8] = ["add", "remove", "change", "move", "online", "offline", "bind", "unbind"];
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let text = text.strip_suffix(['\n', '\0']).unwrap_or(text);
    let mut words = text.splitn(3, ' ');
    let known = words.next().is_some_and(|action| ACTIONS.contains(&action));
    let uuid = words.next().is_none_or(is_uuid);
    let variables = words.next().unwrap_or_default().split(' ').filter(|word| !word.is_empty());
    let mut pairs = variables.map(|word| word.split_once('='));
    let letters = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let well = known && uuid && pairs.all(|pair| pair.is_some_and(|(key, value)| letters(key) && letters(value)));
    if well { Ok(()) } else { Err(Errno::EINVAL) }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// drivers/pci/iov.c, sriov_numvfs_store
fn set_numvfs(core: &mut impl Core, pf: Address, data: &[u8]) -> Result<()> {
    let count = u16::try_from(number(data)?).map_err(|_| Errno::EINVAL)?;
    if count > core.host().max_vfs(pf)? {
        return Err(Errno::ERANGE);
    }
    with(core, Lock::Device(pf), |core| {
        let device = core.host().device(pf)?;
        let present = device.sriov.as_ref().map_or(0, |sriov| sriov.vfs.len());
        if usize::from(count) == present {
            return Ok(());
        }
        let driver = device.binding.driver().map(str::to_owned);
        let driver = driver.and_then(|driver| core.host().driver(&driver));
        if !driver.is_some_and(|driver| driver.sriov) {
            return Err(Errno::ENOENT);
        }
        if count != 0 && present != 0 {
            return Err(Errno::EBUSY);
        }
        pass(core, &Place::Device(pf, Step::Sriov))?;
        if count == 0 {
            return remove_vfs(core, pf);
        }
        for _ in 0..count {
            let vf = core.host().add_vf(pf)?;
            probe_new(core, vf)?;
        }
        Ok(())
    })
}

/// Probes a device that has just appeared (drivers/pci/bus.c, pci_bus_add_device), in older kernels whatever
/// `drivers_autoprobe` says.
fn probe_new(core: &mut impl Core, address: Address) -> Result<()> {
    if !core.host().autoprobe && core.host().release() >= Release::V7_0 {
        return Ok(());
    }
    with(core, Lock::Device(address), |core| {
        // Nobody waits for the answer.
        let _ = attach(core, address);
        Ok(())
    })
}

/// drivers/pci/iov.c, sriov_disable; the PF's lock is held.
fn remove_vfs(core: &mut impl Core, pf: Address) -> Result<()> {
    let Ok(device) = core.host().device(pf) else {
        return Ok(());
    };
    let vfs = device.sriov.as_ref().map(|sriov| sriov.vfs.clone());
    for vf in vfs.unwrap_or_default() {
        remove_one(core, vf)?;
    }
    Ok(())
}

/// Takes a device off the bus, and first what hangs on it (drivers/pci/remove.c).
fn remove(core: &mut impl Core, address: Address) -> Result<()> {
    core.host().device(address)?;
    for child in core.host().children(address).into_iter().rev() {
        if core.host().device(child).is_ok() {
            remove_one(core, child)?;
        }
    }
    remove_one(core, address)
}

fn remove_one(core: &mut impl Core, address: Address) -> Result<()> {
    with(core, Lock::Device(address), |core| {
        core.host().unlink_vf(address);
        if core.host().device(address).is_ok() {
            detach(core, address)?;
        }
        remove_vfs(core, address)?;
        core.host().take_device(address);
        Ok(())
    })
}

/// Finds what is below a directory (drivers/pci/probe.c, pci_rescan_bus).
fn rescan(core: &mut impl Core, below: &str) -> Result<()> {
    let absent: Vec<Address> = core.host().absent_devices(below).collect();
    for address in absent {
        if core.host().find_again(address) {
            probe_new(core, address)?;
        }
    }
    Ok(())
}

/// A device is pulled out: it goes with all that hangs on it, whatever is under way.
pub fn vanish(host: &mut Host, address: Address) {
    let mut gone = host.children(address);
    gone.reverse();
    if let Ok(device) = host.device(address) {
        gone.extend(device.sriov.iter().flat_map(|sriov| sriov.vfs.clone()));
    }
    gone.push(address);
    for address in gone {
        host.unlink_vf(address);
        host.take_device(address);
    }
}

/// Why a module is not in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadError {
    /// Which one: the one asked for, or one it needs.
    pub module: String,
    /// What the kernel said.
    pub errno: Errno,
}

/// Loads a module as modprobe does, with what it needs and what softdep asks for.
pub fn load_module(core: &mut impl Core, name: &str) -> std::result::Result<(), LoadError> {
    for (module, needed) in core.host().tables().probe_list(name) {
        if let Err(error) = insert(core, &module) {
            if needed {
                return Err(error);
            }
        }
    }
    Ok(())
}

fn insert(core: &mut impl Core, name: &str) -> std::result::Result<(), LoadError> {
    insert_module(core, name).map_err(|errno| LoadError { module: name.to_owned(), errno })
}

/// Inserts one module, whose drivers then take every device that they match and none has. One that is in already is
/// left alone.
pub fn insert_module(core: &mut impl Core, name: &str) -> Result<()> {
    let tables = core.host().tables();
    if tables.is_builtin(name) {
        return Ok(());
    }
    if !tables.has(name) {
        return Err(Errno::ENOENT);
    }
    if core.host().loaded_modules().contains(name) {
        return Ok(());
    }
    pass(core, &Place::Module(name.to_owned()))?;
    core.host().show_module(name);
    for driver in core.host().drivers_of(name) {
        core.host().register(&driver);
        if core.host().autoprobe {
            driver_attach(core, &driver)?;
        }
    }
    Ok(())
}

/// Removes one module, whose drivers let go of their devices.
pub fn unload_module(core: &mut impl Core, name: &str) -> Result<()> {
    let host = core.host();
    if !host.loaded_modules().contains(name) {
        return Err(Errno::ENOENT);
    }
    if host.tables().needed_by(name).any(|other| host.loaded_modules().contains(other)) {
        return Err(Errno::EAGAIN);
    }
    for driver in core.host().drivers_of(name) {
        let bound = core.host().devices().filter(|device| device.binding.driver() == Some(&driver));
        let bound: Vec<Address> = bound.map(|device| device.address).collect();
        for address in bound {
            with(core, Lock::Device(address), |core| match core.host().device(address) {
                Ok(device) if device.binding.driver() == Some(&driver) => detach(core, address),
                _ => Ok(()),
            })?;
        }
        core.host().unregister(&driver);
    }
    core.host().hide_module(name);
    Ok(())
}

/// kstrtoul with base 0: decimal, 0x, or 0 for octal; one newline may follow.
fn number(data: &[u8]) -> Result<u64> {
    let text = std::str::from_utf8(data).map_err(|_| Errno::EINVAL)?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_prefix('+').unwrap_or(text);
    let (digits, radix) = match (text.strip_prefix("0x"), text.strip_prefix('0')) {
        (Some(digits), _) => (digits, 16),
        (None, Some(digits)) if !digits.is_empty() => (digits, 8),
        _ => (text, 10),
    };
    // from_str_radix takes a sign, the kernel no second one.
    if digits.starts_with('+') {
        return Err(Errno::EINVAL);
    }
    u64::from_str_radix(digits, radix).map_err(|_| Errno::EINVAL)
}

/// kstrtobool
fn boolean(data: &[u8]) -> Result<bool> {
    match data {
        [b'y' | b'Y' | b't' | b'T' | b'1', ..] => Ok(true),
        [b'n' | b'N' | b'f' | b'F' | b'0', ..] => Ok(false),
        [b'o' | b'O', b'n' | b'N', ..] => Ok(true),
        [b'o' | b'O', b'f' | b'F', ..] => Ok(false),
        _ => Err(Errno::EINVAL),
    }
}
