// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the name that a user or a policy gives to a driver that can be bound.

use crate::catalog::{Catalog, Driver};
use crate::gather::Chooser;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::modules::ModuleState;
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
        let kconfig = known.map(|driver| format!("; it is built with {}", driver.kconfig)).unwrap_or_default();
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
    let doubt = is_doubtful.then(|| format!("{}: {}", candidate.name(), candidate.reasons.join("; ")));
    Some((target, doubt))
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
        format!("what fits: {others}; --force binds it all the same"),
    )
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
