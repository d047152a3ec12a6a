// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the name that a user or a policy gives to a driver that can be bound.

use crate::catalog::{Catalog, Driver};
use crate::gather::Chooser;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::modules::{self, ModuleState, Modules};
use crate::outcome::{Failure, Kind};
use crate::plan::Target;
use crate::sysfs::{self, Device};
use crate::verdict::{Candidate, Verdict};

/// A driver by either spelling, whether or not it fits any device.
pub fn resolve(host: &Host, chooser: &Chooser<'_>, name: &DriverName) -> Result<Target, Failure> {
    let known = Catalog::bundled().by_any_name(name.as_str());
    let module = known.map_or(name.as_str(), |driver| driver.module).parse();
    let module = module.map_err(|error| Failure::plain(Kind::NoDriver, format!("{error}")))?;
    let is_vfio = known.is_some();
    let reason = "as asked for".to_string();
    let registered = match chooser.tables.is_running {
        true => sysfs::registered(host).unwrap_or_default(),
        false => Vec::new(),
    };
    if let Some(driver) = registered.into_iter().find(|driver| driver.is_spelled_like(name.as_str())) {
        return Ok(Target { module: Some(module), driver: Some(driver), state: ModuleState::Loaded, is_vfio, reason });
    }
    let state = chooser.state(&module);
    if state == ModuleState::Missing {
        let kconfig = known.and_then(|driver| driver.kconfig);
        let kconfig = kconfig.map(|symbol| format!("; it is built with {symbol}")).unwrap_or_default();
        return Err(Failure::new(
            Kind::NoDriver,
            format!(
                "no driver {name}: none is registered, and kernel {} has no module {module}{kconfig}",
                chooser.tables.release
            ),
            "see 'vfioctl drivers' for the VFIO drivers this kernel has",
        ));
    }
    let driver = chooser.tables.driver(host, &module).ok().flatten();
    Ok(Target { module: Some(module), driver, state, is_vfio, reason })
}

/// The driver that is meant, among those that match the device, and what speaks against it all the same.
pub fn among(candidates: &[Candidate], chooser: &Chooser<'_>, name: &DriverName) -> Option<(Target, Option<String>)> {
    let is_meant = |candidate: &&Candidate| {
        name.is_spelled_like(candidate.module.as_str()) || name.is_spelled_like(candidate.name())
    };
    let candidate = candidates.iter().find(is_meant)?;
    let target = Target {
        module: Some(candidate.module.clone()),
        driver: candidate.driver.clone(),
        state: chooser.state(&candidate.module),
        is_vfio: true,
        reason: format!("as asked for; {}", candidate.claim()),
    };
    let is_doubtful = matches!(candidate.verdict, Verdict::Blocked | Verdict::Limited);
    let doubt = is_doubtful.then(|| format!("{}: {}", candidate.name(), candidate.doubt()));
    Some((target, doubt))
}

/// The drivers that were made for a device and add something, and that this kernel has not got: with another kernel they
/// would be chosen.
pub fn absent(device: &Device, candidates: &[Candidate], release: &str) -> Vec<String> {
    let modalias = &device.modalias;
    let is_there = |driver: &&Driver| candidates.iter().any(|candidate| candidate.module.as_str() == driver.module);
    let made_for_it = Catalog::bundled().for_id(modalias.vendor_id(), modalias.device_id());
    let absent = made_for_it.filter(|driver| driver.adds_something() && !is_there(driver));
    absent.map(|driver| format!("{} is made for it, but kernel {release} has not got it", driver.driver)).collect()
}

/// Why a driver is not for a device. The kernel would not stop anyone: `driver_override` makes any driver match
/// (`drivers/pci/pci-driver.c`, `pci_match_device`). So the id table is held up here.
pub fn not_for_device(device: &Device, target: &Target, candidates: &[Candidate]) -> Failure {
    let modalias = &device.modalias;
    let table = match Catalog::bundled().by_any_name(target.name()) {
        Some(driver) => format!("its table has {}", ids(driver)),
        None => "it is no VFIO driver that the alias tables name for this device".to_string(),
    };
    let others: Vec<&str> = candidates.iter().map(Candidate::name).collect();
    let others = if others.is_empty() { "none".to_string() } else { others.join(", ") };
    Failure::new(
        Kind::NotForDevice,
        format!(
            "{}: driver {} is not for {}:{}: {table}",
            device.address,
            target.name(),
            modalias.vendor(),
            modalias.device()
        ),
        format!(
            "what fits: {others}; 'vfioctl bind --driver {} --force {}' binds it all the same",
            target.name(),
            device.address
        ),
    )
}

/// May a native driver be bound by name, as far as its own id table goes? A driver without one is for whatever it is told
/// (pci-stub, uio_pci_generic).
pub fn check_native(host: &Host, chooser: &Chooser<'_>, device: &Device, target: &Target) -> Result<(), Failure> {
    let (address, name, modalias) = (device.address, target.name(), &device.modalias);
    let failed = |error: &dyn std::error::Error| Failure::plain(Kind::Failed, format!("{address}: {error}"));
    // A driver that is registered tells its module, if it has one.
    let registered = target.driver.as_ref().filter(|_| chooser.tables.is_running);
    let registered = registered.filter(|driver| sysfs::is_registered(host, driver));
    let told =
        registered.map(|driver| sysfs::module_of_driver(host, driver)).transpose().map_err(|error| failed(&error))?;
    let module = told.clone().flatten().or_else(|| target.module.clone());
    let table = module.as_ref().map(|module| modules::native_table(host, &chooser.tables.release, module)).transpose();
    let table = table.map_err(|error| failed(&error))?.unwrap_or_default();
    // Of a module that is a file, depmod has written down all that there is.
    let is_file = module.is_some_and(|module| match told.is_some() {
        true => Modules::is_from_file(host, &module),
        false => chooser.state(&module) == ModuleState::Installed,
    });
    let what = match table.as_slice() {
        patterns if patterns.iter().any(|pattern| pattern.matches(modalias.as_str())) => return Ok(()),
        [] if is_file || name == "pci-stub" => return Ok(()),
        [] => "it is part of the kernel, and no table says which devices it takes".to_string(),
        [only] => format!("its table has {}", only.as_str()),
        [first, rest @ ..] => format!("its table has {} and {} more", first.as_str(), rest.len()),
    };
    Err(Failure::new(
        Kind::NotForDevice,
        format!("{address}: driver {name} is not for {}:{}: {what}", modalias.vendor(), modalias.device()),
        format!(
            "a rule for {address} with driver = \"{name}\" in vfioctl.d(5), and 'vfioctl apply', bind it all the same"
        ),
    ))
}

/// A driver's ids, the first few of a long table.
fn ids(driver: &Driver) -> String {
    const SHOWN: usize = 8;
    let mut ids: Vec<String> =
        driver.ids.iter().take(SHOWN).map(|id| format!("{:04x}:{:04x}", id.vendor, id.device)).collect();
    if driver.ids.len() > SHOWN {
        ids.push(format!("… ({} in all)", driver.ids.len()));
    }
    ids.join(", ")
}
