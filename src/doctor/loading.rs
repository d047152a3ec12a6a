// SPDX-License-Identifier: MIT OR Apache-2.0
//! May the modules be loaded, and will those be that ask for them by an alias?

use std::fs;
use std::path::Path;

use super::Scene;
use super::boot::BootLoader;
use super::finding::{Finding, comment_out, some};
use crate::catalog::Catalog;
use crate::file;
use crate::host::Host;
use crate::kernel_name::{ModuleName, is_same_name};
use crate::modules::{ModuleState, directives};

const CHECK: &str = "module-loading";
const BLACKLISTED: &str = "module-blacklisted";

/// What every device needs, as far as the kernel has it.
const NEEDED: [&str; 5] = ["vfio", "vfio_pci_core", "vfio_pci", "vfio_iommu_type1", "vfio_iommu_spapr_tce"];

/// The parameter of which the kernel itself refuses modules, whoever loads them (`kernel/module/main.c`, `blacklisted`).
const REFUSED: &str = "module_blacklist";

/// A word of the command line by which the kernel refuses modules of VFIO.
#[derive(Clone, Debug)]
struct Refusal {
    /// The word.
    word: String,
    /// Those that every device needs.
    needed: Vec<String>,
    /// Those for some devices.
    variants: Vec<String>,
    /// What else it names.
    others: Vec<String>,
}

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
    /// What the kernel that runs refuses.
    refused: Option<Refusal>,
    loader: BootLoader,
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let variants = Catalog::bundled().drivers().iter().map(|driver| driver.module);
    let names: Vec<&str> = NEEDED.into_iter().chain(variants.filter(|name| !NEEDED.contains(name))).collect();
    let state = |name: &str| scene.chooser.state(&name.parse::<ModuleName>().expect("a name of the catalogue"));
    // vfio_pci brings its core.
    let needed = NEEDED.into_iter().filter(|name| *name != "vfio_pci_core");
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
    // The last one counts, and a name is as the module bears it: with '_'.
    let refused = scene.command_line.named(REFUSED).last().filter(|_| scene.chooser.tables.is_running);
    let refused = refused.map(|(word, modules)| {
        let is_ours = |name: &&str| names.contains(name) && is_there(&name);
        let (ours, others): (Vec<&str>, Vec<&str>) =
            modules.split(',').filter(|name| !name.is_empty()).partition(is_ours);
        let (needed, variants): (Vec<&str>, Vec<&str>) = ours.into_iter().partition(|name| NEEDED.contains(name));
        let [needed, variants, others] =
            [needed, variants, others].map(|names| names.into_iter().map(str::to_string).collect());
        Refusal { word: word.to_string(), needed, variants, others }
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
        refused,
        loader: scene.loader.clone(),
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
            Some((path, line)) => finding.mend_all(comment_out(path, line)),
            None => finding.mend(format!("take {module} out of modprobe.blacklist= on the kernel command line")),
        });
    }
    findings.extend(facts.refused.iter().flat_map(|refusal| refused(refusal, &facts.loader)));
    for (place, what) in &facts.replaced {
        let message = "a line of modprobe.d has something else done in place of loading a module of VFIO";
        findings.push(Finding::warning(BLACKLISTED, message).seen(place, format!("install {what}")).mend(format!(
            "take the line out of {}, unless it loads the module itself",
            place.rsplit_once(':').map_or(place.as_str(), |(path, _)| path)
        )));
    }
    findings
}

fn refused(refusal: &Refusal, loader: &BootLoader) -> Vec<Finding> {
    let message = |names: &[String]| {
        format!("the kernel refuses {}, whoever loads {}", some(names), if names.len() == 1 { "it" } else { "them" })
    };
    let needed = (!refusal.needed.is_empty()).then(|| Finding::failure(BLACKLISTED, message(&refusal.needed)));
    let variants = (!refusal.variants.is_empty()).then(|| Finding::warning(BLACKLISTED, message(&refusal.variants)));
    let others = (!refusal.others.is_empty()).then(|| format!("{REFUSED}={}", refusal.others.join(",")));
    let with_mend = |finding: Finding| {
        finding
            .seen("/proc/cmdline", &refusal.word)
            .mend_all(loader.remove(&refusal.word))
            .mend_all(others.iter().flat_map(|others| loader.add(others)))
    };
    needed.into_iter().chain(variants).map(with_mend).collect()
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
        let loader = BootLoader::Grubby;
        let (is_disabled, lockdown, refused) = (Some(false), None, None);
        Facts { is_running: true, is_disabled, lockdown, to_load, blacklisted, replaced, refused, loader }
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
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        let (remove, add) = ("grubby --update-kernel=ALL --remove-args=", "grubby --update-kernel=ALL --args=");
        for (needed, variants, others, severities) in [
            (&["vfio_pci"][..], &[][..], &[][..], &[Severity::Failure][..]),
            (&[], &["mlx5_vfio_pci"], &["nouveau"], &[Severity::Warning]),
            (&["vfio"], &["mlx5_vfio_pci"], &["nouveau", "igb"], &[Severity::Failure, Severity::Warning]),
            (&[], &[], &["nouveau"], &[]),
        ] {
            let word = format!("module_blacklist={}", [needed, variants, others].concat().join(","));
            let [needed, variants, left] = [needed, variants, others].map(names);
            let refusal = Refusal { word: word.clone(), needed, variants, others: left };
            let findings = refused(&refusal, &BootLoader::Grubby);
            let found: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
            assert_eq!(found, severities, "{word}");
            for finding in findings {
                assert_eq!(finding.mend[0], format!("{remove}{word}"));
                let kept = finding.mend.get(1).cloned();
                assert_eq!(kept, (!others.is_empty()).then(|| format!("{add}module_blacklist={}", others.join(","))));
            }
        }
        assert!(judge(&Facts { is_running: false, is_disabled: Some(true), ..facts() }).is_empty());
    }
}
