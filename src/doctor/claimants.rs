// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who else lays claim to devices: driverctl, ids= of modules, what guides have people write, software for containers.

use std::collections::BTreeMap;
use std::fs;

use super::Scene;
use super::boot::BootLoader;
use super::finding::{Finding, comment_out, count, some};
use super::kept::best_name;
use crate::address::Address;
use crate::consumers;
use crate::drop_in;
use crate::file;
use crate::gather::BestOf;
use crate::kernel_name::{ModuleName, is_same_name};
use crate::modules::{ModuleState, directives};
use crate::policy::{self, driverctl};
use crate::sysfs::{Device, ReadError};

const DRIVERCTL: &str = "driverctl";
const IDS: &str = "module-ids";
const LINES: &str = "module-lines";
const CONSUMERS: &str = "vfio-consumers";

/// An `ids=` that gives devices to a module.
#[derive(Clone, Debug)]
struct Ids {
    /// vfio-pci or pci-stub.
    module: &'static str,
    /// FILE:LINE, or none on the kernel's command line.
    place: Option<(String, usize)>,
    /// As it is written.
    text: String,
    /// Is it all that its line says?
    is_alone: bool,
    /// The devices it is about, each with its best driver.
    devices: Vec<(Address, Option<String>)>,
    /// Of these, those for which vfioctl keeps no choice.
    unkept: Vec<Address>,
}

/// What there is.
#[derive(Debug)]
pub struct Facts {
    /// What driverctl keeps.
    overrides: Vec<(Address, String)>,
    /// Of these, those that vfioctl keeps a choice for as well.
    both: Vec<Address>,
    /// Files of its directory that it takes no notice of, or that cannot be trusted.
    odd: Vec<(String, String)>,
    /// Is its udev rule installed?
    has_driverctl: bool,
    ids: Vec<Ids>,
    /// Devices that Xen's own stub is told to take.
    pciback: Option<String>,
    /// Lines `softdep` that have a module of VFIO loaded before another.
    softdeps: Vec<(String, String)>,
    /// Modules of VFIO to be loaded at boot: where, which, how it stands.
    loads: Vec<(String, String, ModuleState)>,
    consumers: Vec<(&'static str, String, &'static str)>,
    loader: BootLoader,
    release: String,
}

/// Reads it.
pub fn gather(scene: &Scene<'_>, best: &mut BestOf<'_>) -> Result<Facts, ReadError> {
    let host = scene.host;
    let (overrides, mut odd) = match driverctl::read(host) {
        Ok((overrides, others)) => {
            (overrides, others.into_iter().map(|other| (scene.at(&other.path), other.reason)).collect())
        }
        Err(error) => (Vec::new(), vec![("/etc/driverctl.d".to_string(), format!("cannot be read: {error}"))]),
    };
    // Devices of other buses are its own.
    odd.retain(|(_, reason)| !reason.starts_with("a device of bus"));
    let is_kept = |address: &Address| policy::own_file(host, *address).exists();
    let both = overrides.iter().map(|found| found.address).filter(is_kept).collect();
    let rules = host.udev_rule_directories();
    let mut by_id: BTreeMap<(u16, u16), Vec<&Device>> = BTreeMap::new();
    for device in scene.devices {
        by_id.entry((device.modalias.vendor_id(), device.modalias.device_id())).or_default().push(device);
    }
    let lines = directives(host);
    let mut ids = Vec::new();
    for line in &lines {
        let [what, module, options @ ..] = line.words.as_slice() else { continue };
        let Some(module) = taking(module).filter(|_| what == "options") else { continue };
        for text in options.iter().filter_map(|option| option.strip_prefix("ids=")) {
            let devices = given(scene, best, &by_id, text)?;
            ids.push(Ids {
                module,
                place: Some((scene.at(&line.path), line.line)),
                text: text.to_string(),
                is_alone: options.len() == 1,
                unkept: unkept(scene, &devices),
                devices,
            });
        }
    }
    for (module, parameter) in [("vfio-pci", "vfio_pci.ids"), ("pci-stub", "pci_stub.ids")] {
        for (word, text) in scene.command_line.named(parameter) {
            let devices = given(scene, best, &by_id, text)?;
            ids.push(Ids {
                module,
                place: None,
                text: word.to_string(),
                is_alone: true,
                unkept: unkept(scene, &devices),
                devices,
            });
        }
    }
    let is_vfio = |name: &str| name.replace('-', "_").starts_with("vfio");
    let softdeps = lines.iter().filter(|line| {
        let mut words = line.words.iter().map(String::as_str);
        words.next() == Some("softdep") && !words.next().is_some_and(is_vfio) && {
            let pre = words.skip_while(|word| *word != "pre:").skip(1).take_while(|word| *word != "post:");
            pre.into_iter().any(is_vfio)
        }
    });
    let softdeps = softdeps.map(|line| (format!("{}:{}", scene.at(&line.path), line.line), line.words.join(" ")));
    let (mut files, _) = drop_in::readable_files(&host.modules_load_directories(), ".conf");
    // On Debian the one is a link to the other.
    let is_link = files.iter().any(|path| fs::canonicalize(path).ok() == fs::canonicalize(host.modules_file()).ok());
    files.extend(Some(host.modules_file()).filter(|path| path.is_file() && !is_link));
    let mut loads = Vec::new();
    for path in files {
        let Ok(text) = file::read(&path, file::SETTINGS) else { continue };
        for (number, line) in String::from_utf8_lossy(&text).lines().enumerate() {
            let name = line.split_whitespace().next().unwrap_or_default();
            if let Ok(module) = name.parse::<ModuleName>() {
                if is_vfio(name) {
                    loads.push((
                        format!("{}:{}", scene.at(&path), number + 1),
                        name.to_string(),
                        scene.chooser.state(&module),
                    ));
                }
            }
        }
    }
    Ok(Facts {
        overrides: overrides.into_iter().map(|found| (found.address, found.driver.to_string())).collect(),
        both,
        odd,
        has_driverctl: rules.iter().any(|directory| directory.join("05-driverctl.rules").exists()),
        ids,
        pciback: scene.command_line.named("xen_pciback.hide").next().map(|(word, _)| word.to_string()),
        softdeps: softdeps.collect(),
        loads,
        consumers: consumers::present(host)
            .into_iter()
            .map(|(name, path, effect)| (name, scene.at(&path), effect))
            .collect(),
        loader: scene.loader.clone(),
        release: scene.release.clone(),
    })
}

/// The modules with a parameter `ids`.
fn taking(module: &str) -> Option<&'static str> {
    ["vfio-pci", "pci-stub"].into_iter().find(|name| is_same_name(name, module))
}

/// The devices that a list of ids is about (`drivers/vfio/pci/vfio_pci.c`, `vfio_pci_fill_ids`):
/// `vendor:device[:subvendor[:subdevice[:class[:class_mask]]]]`, with commas between them.
fn given(
    scene: &Scene<'_>,
    best: &mut BestOf<'_>,
    by_id: &BTreeMap<(u16, u16), Vec<&Device>>,
    text: &str,
) -> Result<Vec<(Address, Option<String>)>, ReadError> {
    let mut found = BTreeMap::new();
    for id in text.split(',') {
        let Some(id) = Id::parse(id) else { continue };
        for device in by_id.get(&(id.vendor, id.device)).into_iter().flatten().filter(|device| id.fits(device)) {
            found.insert(device.address, best_name(scene, best, device)?);
        }
    }
    Ok(found.into_iter().collect())
}

/// The devices that no rule of vfioctl.d is about.
fn unkept(scene: &Scene<'_>, devices: &[(Address, Option<String>)]) -> Vec<Address> {
    let addresses = devices.iter().map(|(address, _)| *address);
    addresses
        .filter(|address| scene.device(*address).is_some_and(|device| scene.policy.decide(device).is_none()))
        .collect()
}

/// One of such ids, without the class.
struct Id {
    vendor: u16,
    device: u16,
    subsystem: [Option<u16>; 2],
}

impl Id {
    fn parse(text: &str) -> Option<Id> {
        let mut numbers = text.split(':').map(|part| u32::from_str_radix(part, 16).ok());
        let mut next = || numbers.next().flatten();
        let (vendor, device) = (u16::try_from(next()?).ok()?, u16::try_from(next()?).ok()?);
        // All ones are any (PCI_ANY_ID).
        let subsystem = [(); 2].map(|()| next().and_then(|number| u16::try_from(number).ok()));
        Some(Id { vendor, device, subsystem })
    }

    fn fits(&self, device: &Device) -> bool {
        let modalias = &device.modalias;
        let has = [modalias.subsystem_vendor(), modalias.subsystem_device()];
        self.subsystem.iter().zip(has).all(|(id, has)| id.is_none_or(|id| format!("{id:04x}") == has))
    }
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = driverctl_findings(facts);
    findings.extend(facts.ids.iter().map(|ids| claimed(facts, ids)));
    if let Some(word) = &facts.pciback {
        let message = "devices are hidden for Xen's guests: xen-pciback takes them before any VFIO driver can";
        findings.push(Finding::note(IDS, message).seen("/proc/cmdline", word).mend_all(facts.loader.remove(word)));
    }
    for (place, line) in &facts.softdeps {
        let message =
            "a line of modprobe.d has a module of VFIO loaded before a native driver, for ids= to take devices first";
        let finding = Finding::note(LINES, format!("{message}: choices of vfioctl.d do without"));
        findings.push(finding.seen(place, line));
    }
    let (gone, there): (Vec<_>, Vec<_>) = facts.loads.iter().partition(|(_, _, state)| *state == ModuleState::Missing);
    for (place, module, _) in gone {
        let message = format!("{module} is to be loaded at boot, and kernel {} has no such module", facts.release);
        let finding = Finding::warning(LINES, format!("{message}: systemd-modules-load.service fails over it"));
        let (path, line) = place.rsplit_once(':').unwrap_or((place, "1"));
        findings.push(finding.seen(place, module).mend_all(comment_out(path, line)));
    }
    if let Some((place, ..)) = there.first() {
        let modules: Vec<&str> = there.iter().map(|(_, module, _)| module.as_str()).collect();
        let finding = Finding::note(
            LINES,
            format!("{} loaded at each boot: vfioctl loads what a device needs by itself", are(&modules)),
        );
        findings.push(finding.seen(place, modules[0]));
    }
    for (name, path, effect) in &facts.consumers {
        let finding = Finding::note(CONSUMERS, format!("{name} {effect}"));
        findings.push(
            finding
                .seen(path, "there")
                .mend("vfioctl bind --driver vfio-pci ADDRESS   (for the devices that it is to have)"),
        );
    }
    findings
}

fn are(names: &[&str]) -> String {
    format!("{} {}", some(names), if names.len() == 1 { "is" } else { "are" })
}

fn driverctl_findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, why) in &facts.odd {
        findings
            .push(Finding::note(DRIVERCTL, format!("{path} is nothing that vfioctl could take over")).seen(path, why));
    }
    if facts.overrides.is_empty() {
        return findings;
    }
    let addresses: Vec<Address> = facts.overrides.iter().map(|(address, _)| *address).collect();
    let overrides = count(addresses.len(), "device", "devices");
    let import = "vfioctl import-driverctl --yes";
    let seen = |finding: Finding| finding.seen(format!("/etc/driverctl.d/pci-{}", addresses[0]), &facts.overrides[0].1);
    if !facts.both.is_empty() {
        let message = format!(
            "driverctl and vfioctl both keep a choice for {}: vfioctl leaves it to driverctl",
            some(&facts.both)
        );
        let own = format!("/etc/driverctl.d/pci-{}", facts.both[0]);
        findings.push(Finding::warning(DRIVERCTL, message).seen(own, "there").mend(import));
    }
    findings.push(match facts.has_driverctl {
        true => {
            seen(Finding::note(DRIVERCTL, format!("driverctl keeps a driver for {overrides}: {}", some(&addresses))))
                .mend(import)
        }
        false => seen(Finding::warning(
            DRIVERCTL,
            format!(
                "driverctl keeps a driver for {overrides} and is not installed: nobody sees to {}",
                some(&addresses)
            ),
        ))
        .seen("05-driverctl.rules", "in none of udev's directories")
        .mend(import),
    });
    findings
}

/// A module that takes devices by their ids, as soon as it is loaded.
fn claimed(facts: &Facts, ids: &Ids) -> Finding {
    let Ids { module, place, text, is_alone, devices, .. } = ids;
    let addresses: Vec<Address> = devices.iter().map(|(address, _)| *address).collect();
    let mut passed_over: BTreeMap<&str, Vec<Address>> = BTreeMap::new();
    for (address, best) in devices {
        if let Some(best) = best.as_deref().filter(|best| *best != "vfio-pci") {
            passed_over.entry(best).or_default().push(*address);
        }
    }
    let better: Vec<String> =
        passed_over.iter().map(|(best, devices)| format!("{best} for {}", some(devices))).collect();
    let taken = format!("{module} takes every device of these ids that no other driver has");
    let finding = if addresses.is_empty() {
        Finding::note(IDS, format!("{taken}, and there is none here"))
    } else if better.is_empty() || *module != "vfio-pci" {
        Finding::note(IDS, format!("{taken}: {}", some(&addresses)))
    } else {
        Finding::warning(
            IDS,
            format!("{taken}: {}; what fits better is passed over: {}", some(&addresses), some(&better)),
        )
    };
    let finding = match place {
        None => finding.seen("/proc/cmdline", text).mend_all(facts.loader.remove(text)),
        Some((path, line)) => {
            let finding = finding.seen(format!("{path}:{line}"), format!("options {module} ids={text}"));
            match is_alone {
                true => finding.mend_all(comment_out(path, &line.to_string())),
                false => finding.mend(format!("take ids={text} out of {path}, line {line}")),
            }
        }
    };
    // Not for hundreds of VFs.
    match ids.unkept.as_slice() {
        [] => finding,
        few if few.len() <= 8 => {
            let few: Vec<String> = few.iter().map(Address::to_string).collect();
            finding.mend(format!("vfioctl bind {}", few.join(" ")))
        }
        _ => finding.mend("keep a rule for them in /etc/vfioctl.d, see vfioctl.d(5); then: vfioctl apply"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn facts() -> Facts {
        Facts {
            overrides: Vec::new(),
            both: Vec::new(),
            odd: Vec::new(),
            has_driverctl: true,
            ids: Vec::new(),
            pciback: None,
            softdeps: Vec::new(),
            loads: Vec::new(),
            consumers: Vec::new(),
            loader: BootLoader::Grubby,
            release: "6.12.0".to_string(),
        }
    }

    #[test]
    fn ids_are_read_as_the_kernel_reads_them() {
        let modalias = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00".parse().unwrap();
        let address = "0000:3b:00.1".parse().unwrap();
        let device = Device { address, modalias, driver: None, iommu_group: None, pf: None, vfs: Vec::new() };
        for (text, expected) in [
            ("15b3:101e", Some(true)),
            ("15B3:101E:15b3", Some(true)),
            ("15b3:101e:15b3:0023", Some(true)),
            ("15b3:101e:15b3:0024", Some(false)),
            ("15b3:101e:ffffffff:ffffffff:020000", Some(true)),
            ("15b3", None),
            ("", None),
            ("x:y", None),
        ] {
            assert_eq!(Id::parse(text).map(|id| id.fits(&device)), expected, "{text}");
        }
    }

    #[test]
    fn who_claims_what() {
        use Severity::{Note, Warning};
        let address: Address = "0000:3b:00.1".parse().unwrap();
        let line = |module: &'static str, best: &[&str], is_alone| Ids {
            module,
            place: Some(("/etc/modprobe.d/vfio.conf".to_string(), 3)),
            text: "15b3:101e".to_string(),
            is_alone,
            devices: best.iter().map(|name| (address, Some(name.to_string()))).collect(),
            unkept: best.iter().map(|_| address).collect(),
        };
        let word = Ids {
            place: None,
            text: "vfio-pci.ids=15b3:101e".to_string(),
            ..line("vfio-pci", &["mlx5_vfio_pci"], true)
        };
        let pair = |a: &str, b: &str| vec![(a.to_string(), b.to_string())];
        let load = |state| vec![("/etc/modules:4".to_string(), "vfio_virqfd".to_string(), state)];
        let comment = "sed -i '3s/^/# /' /etc/modprobe.d/vfio.conf";
        let cases = [
            (Facts { ids: vec![line("vfio-pci", &["mlx5_vfio_pci"], true)], ..facts() }, IDS, Warning, comment),
            (Facts { ids: vec![line("vfio-pci", &["vfio-pci"], true)], ..facts() }, IDS, Note, comment),
            (Facts { ids: vec![line("vfio-pci", &[], false)], ..facts() }, IDS, Note, "take ids=15b3:101e out of"),
            (Facts { ids: vec![line("pci-stub", &["mlx5_vfio_pci"], true)], ..facts() }, IDS, Note, comment),
            (
                Facts { ids: vec![word], ..facts() },
                IDS,
                Warning,
                "grubby --update-kernel=ALL --remove-args=vfio-pci.ids=15b3:101e",
            ),
            (
                Facts { pciback: Some("xen-pciback.hide=(01:00.0)".to_string()), ..facts() },
                IDS,
                Note,
                "take xen-pciback.hide=(01:00.0) off",
            ),
            (
                Facts { softdeps: pair("/etc/modprobe.d/x.conf:1", "softdep nvme pre: vfio-pci"), ..facts() },
                LINES,
                Note,
                "",
            ),
            (Facts { loads: load(ModuleState::Missing), ..facts() }, LINES, Warning, "sed -i '4s/^/# /' /etc/modules"),
            (Facts { loads: load(ModuleState::Loaded), ..facts() }, LINES, Note, ""),
            (
                Facts { overrides: vec![(address, "vfio-pci".to_string())], ..facts() },
                DRIVERCTL,
                Note,
                "vfioctl import-driverctl --yes",
            ),
            (
                Facts { overrides: vec![(address, "vfio-pci".to_string())], has_driverctl: false, ..facts() },
                DRIVERCTL,
                Warning,
                "vfioctl import-driverctl --yes",
            ),
            (Facts { odd: pair("/etc/driverctl.d/x", "not named"), ..facts() }, DRIVERCTL, Note, ""),
            (
                Facts { consumers: vec![("KubeVirt", "/x".to_string(), "offers")], ..facts() },
                CONSUMERS,
                Note,
                "vfioctl bind --driver vfio-pci",
            ),
        ];
        for (facts, check, severity, mend) in cases {
            let findings = judge(&facts);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!((findings[0].check, findings[0].severity), (check, severity), "{findings:?}");
            assert!(findings[0].mend.first().cloned().unwrap_or_default().starts_with(mend), "{findings:?}");
        }
        let both = Facts { overrides: vec![(address, "vfio-pci".to_string())], both: vec![address], ..facts() };
        let findings = judge(&both);
        assert_eq!((findings.len(), findings[0].severity), (2, Warning));
        assert!(judge(&facts()).is_empty());
    }
}
