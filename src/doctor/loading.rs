// SPDX-License-Identifier: MIT OR Apache-2.0
//! May the modules be loaded, and will those be that ask for them by an alias?

use std::fs;
use std::path::Path;

use super::Scene;
use super::finding::{Finding, some};
use crate::catalog::Catalog;
use crate::file;
use crate::host::Host;
use crate::kernel_name::{ModuleName, is_same_name};
use crate::modules::{ModuleState, directives};

const CHECK: &str = "module-loading";
const BLACKLISTED: &str = "module-blacklisted";

/// How things stand.
#[derive(Debug)]
pub struct Facts {
    /// Is it the kernel that runs? Another's modules are not loaded into it.
    is_running: bool,
    /// May no module be loaded any more (`kernel.modules_disabled`)? `None`: there is no such setting.
    is_disabled: Option<bool>,
    /// What the kernel is locked down to: `none`, `integrity`, `confidentiality`.
    lockdown: Option<String>,
    /// Modules of VFIO that would have to be loaded yet.
    to_load: Vec<String>,
    /// Modules of VFIO that are blacklisted, and where.
    blacklisted: Vec<(String, String)>,
    /// Lines `install` that have something else done in place of loading a module of VFIO, and where they stand.
    replaced: Vec<(String, String)>,
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let names = ["vfio", "vfio_pci_core", "vfio_iommu_type1"].into_iter();
    let names: Vec<&str> = names.chain(Catalog::bundled().drivers().iter().map(|driver| driver.module)).collect();
    let state = |name: &str| scene.chooser.state(&name.parse::<ModuleName>().expect("a name of the catalogue"));
    let needed = ["vfio", "vfio_pci", "vfio_iommu_type1"].into_iter();
    let to_load = needed.filter(|name| state(name) == ModuleState::Installed).map(str::to_string).collect();
    let lockdown = file::read_to_string(&scene.host.lockdown(), file::ATTRIBUTE).ok().and_then(|text| {
        // `none [integrity] confidentiality`: the one in brackets is in force.
        let chosen = text.split_whitespace().find_map(|word| word.strip_prefix('[')?.strip_suffix(']'));
        chosen.map(str::to_string)
    });
    let is_disabled = file::read_to_string(&scene.host.modules_disabled(), file::ATTRIBUTE);
    let is_there = |name: &&&str| !matches!(state(name), ModuleState::Missing | ModuleState::BuiltIn);
    let place = |name: &str| scene.chooser.tables.blacklist.get(&name.parse::<ModuleName>().ok()?).cloned();
    let blacklisted = names.iter().filter(is_there).filter_map(|name| Some((name.to_string(), place(name)?)));
    let replaced = directives(scene.host).into_iter().filter_map(|directive| {
        let [what, module, command @ ..] = directive.words.as_slice() else { return None };
        let is_ours = what == "install" && names.iter().any(|name| is_same_name(name, module));
        is_ours.then(|| {
            (format!("{}:{}", scene.at(&directive.path), directive.line), format!("{module}: {}", command.join(" ")))
        })
    });
    Facts {
        is_running: scene.chooser.tables.is_running,
        is_disabled: match is_disabled {
            Ok(text) => Some(text.trim() == "1"),
            // What came from a file says the same.
            Err(_) => has_loaded(scene.host).then_some(false),
        },
        lockdown: lockdown.filter(|mode| mode != "none"),
        to_load,
        blacklisted: blacklisted.map(|(name, place)| (name, inside(scene, &place))).collect(),
        replaced: replaced.collect(),
    }
}

/// Was any module of the kernel that runs loaded from a file?
fn has_loaded(host: &Host) -> bool {
    let modules = fs::read_dir(host.all_modules()).into_iter().flatten().flatten();
    modules.into_iter().any(|module| module.path().join("initstate").exists())
}

/// A place, `FILE:LINE`, as the host's own processes spell it.
fn inside(scene: &Scene<'_>, place: &str) -> String {
    match place.rsplit_once(':') {
        Some((path, line)) => format!("{}:{line}", scene.at(Path::new(path))),
        None => place.to_string(),
    }
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.is_running {
        findings.push(may_load(facts));
    }
    // `modprobe -b`, as udev and libvirt call it, heeds a blacklist for names, too (modprobe(8), --use-blacklist).
    for (module, place) in &facts.blacklisted {
        let message =
            format!("{module} is blacklisted: libvirt does not load it, and vfioctl only where a driver is named");
        let finding = Finding::warning(BLACKLISTED, message).seen(place, format!("blacklist {module}"));
        findings.push(match place.rsplit_once(':') {
            Some((path, line)) => finding.mend(format!("sed -i '{line}s/^/# /' {path}")),
            None => finding.mend(format!("take {module} out of modprobe.blacklist= on the kernel command line")),
        });
    }
    for (place, what) in &facts.replaced {
        let message = "a line of modprobe.d has something else done in place of loading a module of VFIO";
        findings.push(Finding::warning(BLACKLISTED, message).seen(place, format!("install {what}")).mend(format!(
            "take the line out of {}, unless it loads the module itself",
            place.rsplit_once(':').map_or(place.as_str(), |(path, _)| path)
        )));
    }
    findings
}

fn may_load(facts: &Facts) -> Finding {
    if facts.is_disabled == Some(true) {
        let seen = |finding: Finding| finding.seen("/proc/sys/kernel/modules_disabled", "1");
        if facts.to_load.is_empty() {
            return seen(Finding::note(
                CHECK,
                "no module can be loaded any more; those that every device needs are in",
            ));
        }
        let message = format!("no module can be loaded any more, and {} not in", not_in(&facts.to_load));
        return seen(Finding::failure(CHECK, message)).mend(
            "find what sets kernel.modules_disabled: grep -rs modules_disabled /etc/sysctl.conf /etc/sysctl.d /usr/lib/sysctl.d; \
             then reboot",
        );
    }
    match &facts.lockdown {
        _ if facts.is_disabled.is_none() => Finding::note(
            CHECK,
            "it cannot be told whether modules can be loaded: a kernel without CONFIG_MODULES takes none",
        )
        .seen("/proc/sys/kernel/modules_disabled", "not there"),
        Some(mode) => {
            Finding::note(CHECK, format!("the kernel is locked down ({mode}): modules that are not signed are refused"))
                .seen("/sys/kernel/security/lockdown", format!("[{mode}]"))
        }
        None => Finding::pass(CHECK, "modules can be loaded"),
    }
}

fn not_in(modules: &[String]) -> String {
    format!("{} {}", some(modules), if modules.len() == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn facts() -> Facts {
        let (to_load, blacklisted, replaced) = Default::default();
        Facts { is_running: true, is_disabled: Some(false), lockdown: None, to_load, blacklisted, replaced }
    }

    #[test]
    fn what_keeps_modules_out() {
        let to_load = || vec!["vfio_pci".to_string()];
        let pair = |a: &str, b: &str| vec![(a.to_string(), b.to_string())];
        for (facts, severity, mend) in [
            (facts(), Severity::Pass, ""),
            (Facts { lockdown: Some("integrity".to_string()), ..facts() }, Severity::Note, ""),
            (Facts { is_disabled: Some(true), ..facts() }, Severity::Note, ""),
            (Facts { is_disabled: None, ..facts() }, Severity::Note, ""),
            (Facts { is_disabled: Some(true), to_load: to_load(), ..facts() }, Severity::Failure, "find what sets"),
            (
                Facts { blacklisted: pair("vfio_pci", "/etc/modprobe.d/x.conf:7"), ..facts() },
                Severity::Warning,
                "sed -i '7s/^/# /' /etc/modprobe.d/x.conf",
            ),
            (
                Facts { blacklisted: pair("vfio_pci", "the kernel command line"), ..facts() },
                Severity::Warning,
                "take vfio_pci out of modprobe.blacklist=",
            ),
            (
                Facts { replaced: pair("/etc/modprobe.d/x.conf:2", "vfio-pci: /bin/false"), ..facts() },
                Severity::Warning,
                "take the line out of /etc/modprobe.d/x.conf,",
            ),
        ] {
            let findings = judge(&facts);
            let finding = findings.last().unwrap();
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.mend.first().cloned().unwrap_or_default().starts_with(mend), "{finding:?}");
        }
        assert!(judge(&Facts { is_running: false, is_disabled: Some(true), ..facts() }).is_empty());
    }
}
