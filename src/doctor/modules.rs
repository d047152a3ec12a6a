// SPDX-License-Identifier: MIT OR Apache-2.0
//! The modules that every VFIO device needs, and the tables that name the variants.

use super::Scene;
use super::finding::{Finding, some};
use super::processor::{Processor, Vendor};
use crate::catalog::KernelVersion;
use crate::modules::ModuleState;

const CHECK: &str = "vfio-modules";
const TABLES: &str = "module-tables";

/// The modules and what they are built with. vfio_pci_core was a part of vfio_pci before 5.15.
const NEEDED: [(&str, &str); 4] = [
    ("vfio", "CONFIG_VFIO"),
    ("vfio_pci_core", "CONFIG_VFIO_PCI_CORE"),
    ("vfio_pci", "CONFIG_VFIO_PCI"),
    ("vfio_iommu_type1", "CONFIG_VFIO_IOMMU_TYPE1"),
];

/// What stands in for vfio_iommu_type1 on POWER, where that cannot be built (`drivers/vfio/Kconfig`).
const SPAPR: (&str, &str) = ("vfio_iommu_spapr_tce", "CONFIG_VFIO_IOMMU_SPAPR_TCE");

/// The first kernel with a module vfio_pci_core (commit 7fa005caa35e).
const WITH_CORE: KernelVersion = KernelVersion::new(5, 15);

/// A module, how it stands, and whether the kernel was built with it.
#[derive(Clone, Debug)]
struct Module {
    name: &'static str,
    option: &'static str,
    state: ModuleState,
    is_built: Option<bool>,
}

/// How they stand.
#[derive(Debug)]
pub struct Facts {
    release: String,
    processor: Processor,
    modules: Vec<Module>,
    /// Can device nodes of iommufd stand in for vfio_iommu_type1?
    has_iommufd: bool,
    /// The directory of the modules, and whether it is there.
    directory: (String, bool),
    /// `modules.alias`, where neither it nor its index is there.
    no_aliases: Option<String>,
    warnings: Vec<String>,
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let is_whole = |name: &str| name != "vfio_pci_core" || scene.version.is_none_or(|version| version >= WITH_CORE);
    let needed = NEEDED.into_iter().filter(|(name, _)| is_whole(name));
    let state = |name: &str| scene.chooser.state(&name.parse().expect("a constant name"));
    let is_there = |name: &str| !matches!(state(name), ModuleState::Missing | ModuleState::Unknown);
    let is_spapr = !is_there("vfio_iommu_type1") && is_there(SPAPR.0);
    let modules = needed.map(|(name, option)| {
        let (name, option) = if is_spapr && name == "vfio_iommu_type1" { SPAPR } else { (name, option) };
        let state = state(name);
        Module { name, option, state, is_built: scene.config.is_set(option) }
    });
    let directory = scene.host.modules(&scene.release);
    let root = scene.host.root().display().to_string();
    let inside = |warning: &String| match root.as_str() {
        "/" => warning.clone(),
        root => warning.replace(root, ""),
    };
    let is_set = |option| scene.config.is_set(option);
    let has_node = scene.chooser.tables.is_running && scene.host.iommufd_node().exists();
    let has_iommufd = is_set("CONFIG_IOMMUFD") == Some(true) || has_node || is_there("iommufd");
    let is_container = is_set("CONFIG_IOMMUFD_VFIO_CONTAINER") == Some(true);
    Facts {
        release: scene.release.clone(),
        processor: scene.processor,
        modules: modules.collect(),
        // What is not known to be left out is in, as distributions build it.
        has_iommufd: has_iommufd && (is_container || is_set("CONFIG_VFIO_DEVICE_CDEV") != Some(false)),
        directory: (scene.at(&directory), directory.is_dir()),
        no_aliases: scene.chooser.tables.missing.as_ref().map(|path| scene.at(path)),
        warnings: scene.chooser.tables.warnings.iter().map(inside).collect(),
    }
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![modules(facts)];
    if let Some(path) = &facts.no_aliases {
        let message = format!(
            "which variant drivers kernel {} has is unknown, so vfio-pci is taken for every device",
            facts.release
        );
        let finding = Finding::warning(TABLES, message).seen(path, "not there");
        // There is nothing to make it of without the modules.
        findings.push(finding.mend_all(facts.directory.1.then(|| format!("depmod {}", facts.release))));
    }
    for warning in &facts.warnings {
        findings
            .push(Finding::warning(TABLES, format!("not all of the module tables and modprobe.d was read: {warning}")));
    }
    findings
}

fn modules(facts: &Facts) -> Finding {
    let release = &facts.release;
    let in_state = |state| facts.modules.iter().filter(move |module| module.state == state);
    let missing: Vec<&Module> = in_state(ModuleState::Missing).collect();
    if missing.is_empty() {
        let word = |module: &Module| match module.state {
            ModuleState::Loaded => "loaded",
            ModuleState::BuiltIn => "built in",
            ModuleState::Installed => "installed",
            ModuleState::Unknown => "unknown",
            ModuleState::Missing => "missing",
        };
        let told: Vec<String> =
            facts.modules.iter().map(|module| format!("{} {}", module.name, word(module))).collect();
        let told = told.join(", ");
        return match in_state(ModuleState::Unknown).next() {
            None => Finding::pass(CHECK, told),
            Some(_) => {
                let (directory, is_there) = &facts.directory;
                let finding =
                    Finding::note(CHECK, format!("which modules kernel {release} has cannot be told: {told}"));
                match is_there {
                    true => {
                        finding.seen(format!("{directory}/modules.dep"), "not there").mend(format!("depmod {release}"))
                    }
                    false => finding.seen(directory, "not there"),
                }
            }
        };
    }
    let names: Vec<&str> = missing.iter().map(|module| module.name).collect();
    let message = format!("kernel {release} has no {}", some(&names));
    let finding = match names.as_slice() {
        ["vfio_iommu_type1"] if facts.has_iommufd => {
            Finding::warning(CHECK, format!("{message}: programs that know iommufd alone can use devices"))
        }
        // Elsewhere it could not always be built (`drivers/vfio/Kconfig`), and another may do its work.
        ["vfio_iommu_type1"] if facts.processor.vendor == Vendor::Other => {
            Finding::warning(CHECK, format!("{message}, which some architectures do without"))
        }
        _ => Finding::failure(CHECK, message),
    };
    let finding = finding.seen(format!("{}/modules.dep", facts.directory.0), format!("no {}", some(&names)));
    let unset: Vec<&str> = missing.iter().filter(|m| m.is_built == Some(false)).map(|m| m.option).collect();
    let set = missing.iter().filter(|module| module.is_built == Some(true)).count();
    if !unset.is_empty() {
        return finding.mend(format!("boot a kernel that was built with {}", unset.join(", ")));
    }
    if set == missing.len() {
        return finding.mend(format!(
            "install all modules of kernel {release} (a package such as linux-modules-extra-{release} or kernel-modules may have \
             them), then: depmod {release}"
        ));
    }
    let options: Vec<&str> = missing.iter().map(|module| module.option).collect();
    finding.mend(format!("boot a kernel that was built with {}, with all of its modules installed", options.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn facts(states: [ModuleState; 4], is_built: Option<bool>) -> Facts {
        let modules = NEEDED.into_iter().zip(states);
        let modules = modules.map(|((name, option), state)| Module { name, option, state, is_built }).collect();
        let directory = ("/lib/modules/6.12.0".to_string(), true);
        let release = "6.12.0".to_string();
        let processor = Processor { vendor: Vendor::Intel, is_virtual: false };
        Facts { release, processor, modules, has_iommufd: false, directory, no_aliases: None, warnings: Vec::new() }
    }

    #[test]
    fn what_is_missing_and_why() {
        use ModuleState::{BuiltIn, Installed, Loaded, Missing, Unknown};
        let without = [Installed, Installed, Installed, Missing];
        for (facts, severity, mend) in [
            (facts([Loaded, Loaded, Installed, BuiltIn], None), Severity::Pass, ""),
            (facts([Unknown; 4], None), Severity::Note, "depmod 6.12.0"),
            (
                facts([Installed, Installed, Missing, Installed], Some(false)),
                Severity::Failure,
                "boot a kernel that was built with CONFIG_VFIO_PCI",
            ),
            (facts([Missing; 4], Some(true)), Severity::Failure, "install all modules of kernel 6.12.0"),
            (facts([Missing; 4], None), Severity::Failure, "boot a kernel that was built with CONFIG_VFIO, "),
            (facts(without, Some(false)), Severity::Failure, "boot a kernel"),
            (
                Facts {
                    processor: Processor { vendor: Vendor::Other, is_virtual: false },
                    ..facts(without, Some(false))
                },
                Severity::Warning,
                "boot a kernel",
            ),
            (Facts { has_iommufd: true, ..facts(without, Some(false)) }, Severity::Warning, "boot a kernel"),
        ] {
            let finding = modules(&facts);
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.mend.first().cloned().unwrap_or_default().starts_with(mend), "{finding:?}");
        }
        let facts = Facts {
            no_aliases: Some("/lib/modules/6.12.0/modules.alias".to_string()),
            warnings: vec!["/etc/modprobe.d/x.conf: odd".to_string()],
            ..facts([Installed; 4], None)
        };
        let findings = judge(&facts);
        assert_eq!(findings.iter().filter(|finding| finding.check == TABLES).count(), 2);
        assert_eq!(findings[1].mend, ["depmod 6.12.0"]);
    }
}
