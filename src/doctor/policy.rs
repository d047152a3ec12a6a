// SPDX-License-Identifier: MIT OR Apache-2.0
//! The choices of vfioctl.d: are they read, about devices that are there, and done?

use std::collections::BTreeMap;

use super::Scene;
use super::finding::{Finding, count, quoted, some};
use super::kept::Kept;
use crate::address::Address;
use crate::catalog::Catalog;
use crate::kernel_name::DriverName;
use crate::modules::ModuleState;
use crate::policy::{Choice, PolicyError};
use crate::sysfs;

const FILES: &str = "policy-files";
const DEVICES: &str = "policy-devices";
const DRIVERS: &str = "policy-drivers";

/// What is kept, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Facts {
    rules: usize,
    /// Files that are left out: the file, why, what to do about it.
    left_out: Vec<(String, String, Option<String>)>,
    /// Rules for addresses where nothing is, and the files these stand in.
    absent: Vec<(Address, String)>,
    /// Addresses where another device is than the rule is about: file, and what it is about.
    others: Vec<(Address, String, String)>,
    /// Rules without an address that are about no device here.
    unmatched: Vec<String>,
    /// Drivers that this kernel does not have, the files that name them, and whether they are VFIO's.
    no_driver: Vec<(String, String, bool)>,
    kept: Vec<Kept>,
    release: String,
}

/// Reads it.
pub fn gather(scene: &Scene<'_>, kept: &[Kept]) -> Facts {
    let mut facts = Facts {
        rules: scene.policy.rules.len(),
        left_out: scene.errors.iter().map(|error| left_out(scene, error)).collect(),
        kept: kept.to_vec(),
        release: scene.release.clone(),
        ..Facts::default()
    };
    for rule in &scene.policy.rules {
        let file = scene.at(&rule.file);
        match rule.address() {
            Some(address) => match scene.device(address) {
                None => facts.absent.push((address, file.clone())),
                Some(device) if !rule.is_about(device) => {
                    let about = rule.selector().id.clone().unwrap_or_else(|| "another device".to_string());
                    facts.others.push((address, file.clone(), about));
                }
                Some(_) => {}
            },
            None if !scene.devices.iter().any(|device| rule.is_about(device)) => facts.unmatched.push(file.clone()),
            None => {}
        }
        if let Choice::Named(name) = &rule.driver {
            if !can_be_had(scene, name) {
                facts.no_driver.push((name.to_string(), file, is_vfios(name)));
            }
        }
    }
    facts
}

/// Is there such a driver, or a module that would have it?
fn can_be_had(scene: &Scene<'_>, name: &DriverName) -> bool {
    let registered = scene.chooser.tables.is_running && sysfs::is_registered(scene.host, name);
    let module = Catalog::bundled().by_any_name(name.as_str()).map_or(name.as_str(), |known| known.module);
    let state = module.parse().map(|module| scene.chooser.state(&module));
    registered || state.is_ok_and(|state| state != ModuleState::Missing)
}

/// Is it a driver of VFIO, by its name? The module of a native one may be called something else, as that of driver 4xxx is
/// qat_4xxx, and so there may be one where none of that name is.
fn is_vfios(name: &DriverName) -> bool {
    let is_known = Catalog::bundled().by_any_name(name.as_str()).is_some();
    is_known || name.as_str().replace('-', "_").ends_with("vfio_pci")
}

fn left_out(scene: &Scene<'_>, error: &PolicyError) -> (String, String, Option<String>) {
    let why = match error {
        PolicyError::Read { source, .. } => format!("cannot be read: {source}"),
        PolicyError::Malformed { message, .. } => message.clone(),
        PolicyError::Distrusted { distrust, .. } => format!("others than root could change it: {distrust}"),
        PolicyError::Directory(error) => error.to_string(),
    };
    let path = error.path().map_or("/etc/vfioctl.d".to_string(), |path| scene.at(path));
    (path, why, error.hint())
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, why, hint) in &facts.left_out {
        let finding = Finding::failure(FILES, format!("{path} is left out: what it says is not done")).seen(path, why);
        findings.push(
            finding
                .mend(hint.clone().unwrap_or_else(|| format!("edit {path}; vfioctl.d(5) says what may stand there"))),
        );
    }
    if facts.left_out.is_empty() && facts.rules > 0 {
        findings.push(Finding::pass(
            FILES,
            format!("{} in vfioctl.d, read without errors", count(facts.rules, "rule", "rules")),
        ));
    }
    findings.extend(absent(&facts.absent));
    findings.extend(others(&facts.others));
    for file in &facts.unmatched {
        findings.push(
            Finding::note(DEVICES, "a rule is about no device that is here now")
                .seen(file, "its selectors match nothing"),
        );
    }
    for (driver, file, is_vfios) in &facts.no_driver {
        let says = format!("driver = \"{driver}\"");
        if !is_vfios {
            let message = format!("no driver {driver} is registered now, which a rule asks for");
            let finding = Finding::warning(DRIVERS, message).seen(file, says);
            findings.push(
                finding.mend(format!("modprobe the module that has driver {driver}, or correct the name in {file}")),
            );
            continue;
        }
        let finding = Finding::failure(
            DRIVERS,
            format!("kernel {} has no driver {driver}, which a rule asks for", facts.release),
        );
        findings.push(finding.seen(file, says).mend(format!("driver = \"auto\"   (in {file})")));
    }
    findings.extend(drivers(facts));
    findings
}

/// So many files are named; of VFs that are not made there may be thousands.
const NAMED: usize = 4;

fn absent(absent: &[(Address, String)]) -> Option<Finding> {
    let addresses: Vec<Address> = absent.iter().map(|(address, _)| *address).collect();
    let (address, file) = absent.first()?;
    let choices = if absent.len() == 1 { "a choice is" } else { "choices are" };
    let finding = Finding::warning(DEVICES, format!("{choices} kept for {}, where no device is", some(&addresses)))
        .seen(file, format!("address = \"{address}\""))
        .seen(format!("/sys/bus/pci/devices/{address}"), "not there");
    let forget = |(address, file): &(Address, String)| forget(*address, file, "if it is not to come back");
    Some(finding.mend_all(absent.iter().take(NAMED).map(forget)))
}

fn others(others: &[(Address, String, String)]) -> Option<Finding> {
    let addresses: Vec<Address> = others.iter().map(|(address, ..)| *address).collect();
    let (_, file, about) = others.first()?;
    let message = match others {
        [(address, _, about)] => {
            format!("the choice kept for {address} is about {about}, and another device is there now")
        }
        _ => format!("the choices kept for {} are about other devices than are there now", some(&addresses)),
    };
    let finding = Finding::warning(DEVICES, format!("{message}: left alone")).seen(file, format!("id = \"{about}\""));
    let forget =
        |(address, file, _): &(Address, String, String)| forget(*address, file, "then 'vfioctl bind' for the new one");
    Some(finding.mend_all(others.iter().take(NAMED).map(forget)))
}

/// The file that `bind` writes bears the device's name; others are for an editor.
fn forget(address: Address, file: &str, when: &str) -> String {
    match file == format!("/etc/vfioctl.d/{address}.toml") {
        true => format!("rm {}   ({when})", quoted(file)),
        false => format!("edit {file}"),
    }
}

fn drivers(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let no_driver = |name: &str| facts.no_driver.iter().any(|(known, ..)| known == name);
    // Those with the same fault are told of together: there may be thousands.
    let mut wrong: BTreeMap<(Option<&str>, Option<&str>), Vec<&Kept>> = BTreeMap::new();
    let mut given_away = Vec::new();
    let mut unfit = Vec::new();
    for kept in facts.kept.iter().filter(|kept| !kept.is_so()) {
        let wanted = kept.wanted.as_deref();
        if kept.is_given_away {
            given_away.push(kept.address);
        } else if !kept.has_best {
            unfit.push(kept);
        } else if !wanted.is_some_and(no_driver) {
            let on = kept.driver.as_ref().map(DriverName::as_str);
            wrong.entry((wanted, on)).or_default().push(kept);
        }
    }
    if !unfit.is_empty() {
        let addresses: Vec<Address> = unfit.iter().map(|kept| kept.address).collect();
        let message = format!("a choice is kept for {}, and no VFIO driver matches", some(&addresses));
        findings.push(
            Finding::failure(DRIVERS, message)
                .seen(&unfit[0].file, "driver = \"auto\"")
                .mend(format!("vfioctl explain {}", addresses[0])),
        );
    }
    for ((wanted, on), devices) in &wrong {
        let addresses: Vec<Address> = devices.iter().map(|kept| kept.address).collect();
        let (wanted, on) = (wanted.unwrap_or("no driver"), on.unwrap_or("no driver"));
        let are = if addresses.len() == 1 { "is" } else { "are" };
        let message = format!("{} {are} kept for {wanted}, and {are} on {on}", some(&addresses));
        let finding = Finding::warning(DRIVERS, message).seen(&devices[0].file, format!("driver: {wanted}"));
        let finding = finding.seen(format!("/sys/bus/pci/devices/{}/driver", addresses[0]), on);
        findings.push(match addresses.as_slice() {
            [address] => finding.mend(format!("vfioctl apply {address}")),
            _ => finding.mend("vfioctl apply"),
        });
    }
    if !given_away.is_empty() {
        let message = format!("{} given away on purpose, although a choice is kept", {
            let are = if given_away.len() == 1 { "was" } else { "were" };
            format!("{} {are}", some(&given_away))
        });
        let finding =
            Finding::note(DRIVERS, message).seen(format!("/run/vfioctl/given-away/{}", given_away[0]), "there");
        findings.push(finding.mend("vfioctl apply"));
    }
    if findings.is_empty() && facts.no_driver.is_empty() && !facts.kept.is_empty() {
        let devices = count(facts.kept.len(), "device is on its chosen driver", "devices are on their chosen drivers");
        findings.push(Finding::pass(DRIVERS, devices));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn kept(wanted: Option<&str>, driver: Option<&str>) -> Kept {
        Kept {
            address: "0000:3b:00.1".parse().unwrap(),
            file: "/etc/vfioctl.d/0000:3b:00.1.toml".to_string(),
            wanted: wanted.map(str::to_string),
            has_best: true,
            driver: driver.map(|name| name.parse().unwrap()),
            is_given_away: false,
            class: "020000".to_string(),
        }
    }

    #[test]
    fn what_each_fault_is_and_what_mends_it() {
        let address: Address = "0000:3b:00.1".parse().unwrap();
        let own = "/etc/vfioctl.d/0000:3b:00.1.toml".to_string();
        let other = "/etc/vfioctl.d/50-x.toml".to_string();
        let facts = || Facts { rules: 1, release: "6.12.0".to_string(), ..Facts::default() };
        let wrong = kept(Some("mlx5_vfio_pci"), Some("mlx5_core"));
        let unfit = Kept { has_best: false, ..kept(None, None) };
        let given_away = Kept { is_given_away: true, ..wrong.clone() };
        for (facts, check, severity, mend) in [
            (facts(), FILES, Severity::Pass, ""),
            (
                Facts { left_out: vec![(other.clone(), "line 3".to_string(), None)], ..facts() },
                FILES,
                Severity::Failure,
                "edit /etc/vfioctl.d/50-x.toml",
            ),
            (
                Facts {
                    left_out: vec![(other.clone(), "mode".to_string(), Some("chmod go-w x".to_string()))],
                    ..facts()
                },
                FILES,
                Severity::Failure,
                "chmod go-w x",
            ),
            (
                Facts { absent: vec![(address, own.clone())], ..facts() },
                DEVICES,
                Severity::Warning,
                "rm /etc/vfioctl.d/0000:3b:00.1.toml",
            ),
            (
                Facts { absent: vec![(address, other.clone())], ..facts() },
                DEVICES,
                Severity::Warning,
                "edit /etc/vfioctl.d/50-x.toml",
            ),
            (
                Facts { others: vec![(address, own.clone(), "15b3:101e".to_string())], ..facts() },
                DEVICES,
                Severity::Warning,
                "rm /etc",
            ),
            (Facts { unmatched: vec![other.clone()], ..facts() }, DEVICES, Severity::Note, ""),
            (
                Facts { no_driver: vec![("x_vfio_pci".to_string(), other.clone(), true)], ..facts() },
                DRIVERS,
                Severity::Failure,
                "driver = \"auto\"",
            ),
            (
                Facts { no_driver: vec![("4xxx".to_string(), other.clone(), false)], ..facts() },
                DRIVERS,
                Severity::Warning,
                "modprobe the module that has driver 4xxx",
            ),
            (Facts { kept: vec![kept(Some("vfio-pci"), Some("vfio-pci"))], ..facts() }, DRIVERS, Severity::Pass, ""),
            (Facts { kept: vec![wrong.clone()], ..facts() }, DRIVERS, Severity::Warning, "vfioctl apply 0000:3b:00.1"),
            (Facts { kept: vec![wrong.clone(), wrong], ..facts() }, DRIVERS, Severity::Warning, "vfioctl apply"),
            (Facts { kept: vec![unfit], ..facts() }, DRIVERS, Severity::Failure, "vfioctl explain 0000:3b:00.1"),
            (Facts { kept: vec![given_away], ..facts() }, DRIVERS, Severity::Note, "vfioctl apply"),
        ] {
            let findings = judge(&facts);
            let finding = findings.last().unwrap();
            assert_eq!((finding.check, finding.severity), (check, severity), "{finding:?}");
            assert!(finding.mend.first().cloned().unwrap_or_default().starts_with(mend), "{finding:?}");
        }
        assert!(judge(&Facts::default()).is_empty());
    }
}
