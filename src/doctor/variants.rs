// SPDX-License-Identifier: MIT OR Apache-2.0
//! The variant drivers of this kernel, and those that this host's devices would have on another.

use std::collections::BTreeMap;

use super::Scene;
use super::finding::{Finding, Severity, count, some};
use crate::address::Address;
use crate::catalog::{Catalog, Driver, Function};
use crate::kernel_name::ModuleName;
use crate::modules::{KernelConfig, ModuleState};
use crate::sysfs::Device;

const CHECK: &str = "variant-drivers";
const MISSING: &str = "variant-missing";

/// A variant that devices here could have.
#[derive(Clone, Debug)]
struct Lacking {
    driver: &'static Driver,
    devices: Vec<Address>,
    why: String,
}

/// What there is.
#[derive(Debug)]
pub struct Facts {
    release: String,
    there: Vec<String>,
    /// Of which variants it is not known.
    is_unknown: bool,
    summary: Option<String>,
    lacking: Vec<Lacking>,
}

/// Says so where a kernel has no variant at all; `drivers` says the same.
pub fn no_variant(release: &str, config: &KernelConfig) -> String {
    match config.has_variant() {
        true => format!(
            "No variant driver of kernel {release} is installed, so vfio-pci is the best there is for every device."
        ),
        false => format!(
            "Kernel {release} was built without any variant driver (as Debian's kernels are), so vfio-pci is the best there is \
             for every device."
        ),
    }
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let state =
        |driver: &Driver| scene.chooser.state(&driver.module.parse::<ModuleName>().expect("a name of the catalogue"));
    let variants = || Catalog::bundled().drivers().iter().filter(|driver| !driver.catch_all);
    let is_there = |state| !matches!(state, ModuleState::Missing | ModuleState::Unknown);
    let known = variants().filter(|driver| is_there(state(driver))).map(|driver| driver.driver.to_string());
    let mut there: Vec<String> = known.collect();
    // Of those that the tables name besides, the module is what is known.
    for entry in &scene.chooser.tables.table.entries {
        let name = entry.module.to_string();
        let is_new = Catalog::bundled().by_module(&name).is_none() && !there.contains(&name);
        if is_new && is_there(scene.chooser.state(&entry.module)) {
            there.push(name);
        }
    }
    let is_unknown = variants().any(|driver| state(driver) == ModuleState::Unknown);
    let mut wanted: BTreeMap<&str, (&'static Driver, Vec<Address>)> = BTreeMap::new();
    for device in scene.devices {
        for driver in fitting(device) {
            wanted.entry(driver.module).or_insert_with(|| (driver, Vec::new())).1.push(device.address);
        }
    }
    let lacking = wanted.into_values().filter(|(driver, _)| state(driver) == ModuleState::Missing);
    let lacking = lacking.map(|(driver, devices)| Lacking { driver, devices, why: scene.config.why_missing(driver) });
    Facts {
        release: scene.release.clone(),
        summary: there.is_empty().then(|| no_variant(&scene.release, &scene.config)),
        there,
        is_unknown,
        lacking: lacking.collect(),
    }
}

/// The variants that list a device and do on it what plain vfio-pci does not.
fn fitting(device: &Device) -> impl Iterator<Item = &'static Driver> {
    let is_vf = device.pf.is_some();
    let listing = Catalog::bundled().for_id(device.modalias.vendor_id(), device.modalias.device_id());
    listing.filter(move |driver| {
        !driver.catch_all
            && driver.adds_something()
            && match driver.function {
                Function::Vf => is_vf,
                Function::Pf => !is_vf,
                Function::Any => true,
            }
    })
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![match &facts.summary {
        _ if facts.is_unknown => {
            Finding::note(CHECK, format!("which variant drivers kernel {} has is not known", facts.release))
        }
        Some(summary) => Finding::note(CHECK, summary.trim_end_matches('.')),
        None => Finding::pass(
            CHECK,
            format!(
                "kernel {} has {}: {}",
                facts.release,
                count(facts.there.len(), "variant driver", "variant drivers"),
                facts.there.join(", ")
            ),
        ),
    }];
    for Lacking { driver, devices, why } in &facts.lacking {
        let names = some(devices);
        let message = format!(
            "{} is made for {names}, and this kernel does not have it: {}",
            driver.driver,
            driver.summary.trim_end_matches('.')
        );
        let finding = Finding::warning(MISSING, message).seen(format!("module {}", driver.module), why);
        // One that is no part of the kernel is for who wants to try it.
        let severity = if driver.kconfig.is_some() { finding.severity } else { Severity::Note };
        let finding = Finding { severity, ..finding };
        findings.push(match driver.kconfig {
            Some(option) => {
                finding.mend(format!("boot a kernel from {} on that was built with {option}", driver.first_kernel))
            }
            None => {
                finding.mend(format!("build module {} from the directory drivers/ of vfioctl's source", driver.module))
            }
        });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(modalias: &str, is_vf: bool) -> Device {
        let pf = is_vf.then(|| "0000:3b:00.0".parse().unwrap());
        let (address, modalias) = ("0000:3b:00.1".parse().unwrap(), modalias.parse().unwrap());
        Device { address, modalias, driver: None, iommu_group: None, pf, vfs: Vec::new() }
    }

    #[test]
    fn which_variant_a_device_could_have() {
        for (modalias, is_vf, expected) in [
            ("pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00", true, Some("mlx5_vfio_pci")),
            // A PF is not what it is for.
            ("pci:v00008086d00004940sv00008086sd00000000bc0Bsc40i00", false, None),
            ("pci:v00008086d00004941sv00008086sd00000000bc0Bsc40i00", true, Some("qat_vfio_pci")),
            ("pci:v00008086d00001533sv00008086sd00000000bc02sc00i00", false, None),
        ] {
            let device = device(modalias, is_vf);
            let found: Vec<&str> = fitting(&device).map(|driver| driver.driver).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{modalias}");
        }
    }

    #[test]
    fn what_is_lacking_is_named_with_its_option() {
        let driver = Catalog::bundled().by_module("qat_vfio_pci").unwrap();
        let lacking = Lacking { driver, devices: vec!["0000:3b:00.1".parse().unwrap()], why: "not built".to_string() };
        let facts = Facts {
            release: "6.12.0".to_string(),
            there: Vec::new(),
            is_unknown: false,
            summary: Some("None.".to_string()),
            lacking: vec![lacking],
        };
        let findings = judge(&facts);
        assert_eq!(findings[0].severity, Severity::Note);
        assert_eq!(findings[1].severity, Severity::Warning);
        assert!(findings[1].message.contains("0000:3b:00.1"));
        assert!(findings[1].mend[0].contains("CONFIG_QAT_VFIO_PCI"));
        let facts = Facts { there: vec!["mlx5_vfio_pci".to_string()], summary: None, lacking: Vec::new(), ..facts };
        assert_eq!(judge(&facts)[0].severity, Severity::Pass);
    }
}
