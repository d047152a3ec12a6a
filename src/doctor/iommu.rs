// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is the IOMMU on, and if not, who has it off: the hypervisor, the firmware, the kernel's build or its command line?

use std::fs;
use std::path::PathBuf;

use super::Scene;
use super::boot::BootLoader;
use super::command_line::CommandLine;
use super::finding::{Finding, count, some};
use super::processor::{Processor, Vendor};
use crate::file;
use crate::host::Host;
use crate::modules::ModuleState;
use crate::sysfs::NO_IOMMU;

const CHECK: &str = "iommu";
const UNSAFE: &str = "no-iommu-mode";
const PARAMETERS: &str = "iommu-parameters";

/// The driver of virtio's IOMMU.
const VIRTIO: &str = "virtio_iommu";

/// Where the kernel says what it takes amiss.
const KERNEL_LOG: &str = "dmesg | grep -iE 'DMAR|AMD-Vi|SMMU|IOMMU'   (the kernel says there what it takes amiss)";

/// What drivers of IOMMUs are built with.
const DRIVERS: [&str; 5] =
    ["CONFIG_INTEL_IOMMU", "CONFIG_AMD_IOMMU", "CONFIG_ARM_SMMU_V3", "CONFIG_ARM_SMMU", "CONFIG_VIRTIO_IOMMU"];

/// What is there.
#[derive(Debug)]
pub struct Facts {
    processor: Processor,
    command_line: CommandLine,
    loader: BootLoader,
    /// Groups of PCI devices that an IOMMU has made.
    groups: usize,
    /// Where there are none: the groups that it has made of other devices.
    others: usize,
    /// The IOMMUs that drivers have registered.
    units: Vec<String>,
    /// The firmware's tables that tell of an IOMMU; `None`: there are no ACPI tables to be seen.
    tables: Option<Vec<String>>,
    /// Does the kernel turn Intel's on by itself (CONFIG_INTEL_IOMMU_DEFAULT_ON)?
    is_on_by_default: Option<bool>,
    /// The options that drivers of IOMMUs are built with, and whether they are known to be unset.
    unset: Vec<&'static str>,
    /// Is `enable_unsafe_noiommu_mode` set?
    is_unsafe: bool,
    /// Does Xen have the IOMMU?
    is_xen: bool,
    /// Is it the domain that has the devices?
    is_dom0: bool,
    /// How the driver of virtio's stands.
    virtio: ModuleState,
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let host = scene.host;
    let is_unsafe = is_no_iommu_mode(host);
    let groups = scene.groups.keys().filter(|group| scene.is_of_an_iommu(**group)).count();
    let is_others = |name: &&String| {
        let is_ours = name.parse().is_ok_and(|number: u32| scene.groups.contains_key(&number));
        let named = file::read_to_string(&host.iommu_groups().join(name).join("name"), file::ATTRIBUTE);
        !is_ours && !named.is_ok_and(|named| named.trim_end() == NO_IOMMU)
    };
    let known = ["DMAR", "IORT", "IVRS", "VIOT"];
    let is_acpi = host.acpi_tables().is_dir();
    let tables = names_in(&host.acpi_tables()).into_iter().filter(|name| known.contains(&name.as_str())).collect();
    Facts {
        processor: scene.processor,
        command_line: scene.command_line.clone(),
        loader: scene.loader.clone(),
        groups,
        others: match groups {
            0 => names_in(&host.iommu_groups()).iter().filter(is_others).count(),
            _ => 0,
        },
        units: names_in(&host.class("iommu")),
        tables: is_acpi.then_some(tables),
        is_on_by_default: scene.config.is_set("CONFIG_INTEL_IOMMU_DEFAULT_ON"),
        unset: DRIVERS.into_iter().filter(|option| scene.config.is_set(option) == Some(false)).collect(),
        is_unsafe,
        is_xen: file::read_to_string(&host.hypervisor_type(), file::ATTRIBUTE).is_ok_and(|text| text.trim() == "xen"),
        is_dom0: is_dom0(host),
        virtio: scene.chooser.state(&VIRTIO.parse().expect("a constant name")),
    }
}

/// Does Xen have this domain manage the host (`drivers/xen/xenfs/super.c`, capabilities_read)? Its UUID is all zeros.
fn is_dom0(host: &Host) -> bool {
    let read = |path: PathBuf| file::read_to_string(&path, file::ATTRIBUTE).unwrap_or_default();
    let uuid = read(host.hypervisor_uuid());
    read(host.xen_capabilities()).contains("control_d")
        || (uuid.contains('0') && uuid.trim().bytes().all(|b| matches!(b, b'0' | b'-')))
}

/// May devices without an IOMMU be opened?
fn is_no_iommu_mode(host: &Host) -> bool {
    let path = host.module_parameter("vfio", "enable_unsafe_noiommu_mode");
    file::read_to_string(&path, file::ATTRIBUTE).is_ok_and(|text| text.starts_with('Y'))
}

/// The names in a directory, sorted; none where there is no such directory.
pub fn names_in(path: &std::path::Path) -> Vec<String> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![is_on(facts)];
    if facts.is_unsafe {
        findings.push(
            Finding::warning(
                UNSAFE,
                "devices without an IOMMU may be given away: such a device can read and write all of this host's memory",
            )
            .seen("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y")
            .mend("echo N >/sys/module/vfio/parameters/enable_unsafe_noiommu_mode"),
        );
    }
    findings.extend(useless_parameter(facts));
    findings
}

fn is_on(facts: &Facts) -> Finding {
    let units = match facts.units.as_slice() {
        [] => "empty".to_string(),
        units => some(units),
    };
    if facts.groups > 0 {
        let message = format!("the IOMMU is on: {}", count(facts.groups, "IOMMU group", "IOMMU groups"));
        return Finding::pass(CHECK, message)
            .seen("/sys/kernel/iommu_groups", count(facts.groups, "group", "groups"))
            .seen("/sys/class/iommu", units);
    }
    if facts.others > 0 {
        let others = count(facts.others, "group", "groups");
        return Finding::failure(CHECK, "the IOMMU is on, but in front of no PCI device")
            .seen("/sys/kernel/iommu_groups", format!("{others}, none with a PCI device"))
            .seen("/sys/class/iommu", units)
            .mend(KERNEL_LOG)
            .mend(
                "look in the firmware setup for an IOMMU of the PCI host bridges, and for an update of the firmware",
            );
    }
    let finding =
        off(facts).seen("/sys/kernel/iommu_groups", "no group that an IOMMU has made").seen("/sys/class/iommu", units);
    match &facts.tables {
        Some(tables) if tables.is_empty() => {
            finding.seen("/sys/firmware/acpi/tables", "neither DMAR, IVRS, IORT nor VIOT")
        }
        Some(tables) => finding.seen("/sys/firmware/acpi/tables", some(tables)),
        None => finding,
    }
}

/// Whose IOMMU it is. The firmware's tables tell better than the processor: QEMU has Intel's for AMD's processors, too.
fn designer(facts: &Facts) -> Vendor {
    let has = |name: &str| facts.tables.as_ref().is_some_and(|tables| tables.iter().any(|table| table == name));
    match facts.processor.vendor {
        _ if has("DMAR") => Vendor::Intel,
        _ if has("IVRS") => Vendor::Amd,
        _ if has("IORT") => Vendor::Arm,
        vendor => vendor,
    }
}

/// Who has it off, the surest reason first.
fn off(facts: &Facts) -> Finding {
    let Facts { processor, command_line, loader, .. } = facts;
    let vendor = designer(facts);
    if facts.is_xen {
        return Finding::failure(CHECK, "there is no IOMMU: this is a domain of Xen, which keeps the IOMMU to itself")
            .seen("/sys/hypervisor/type", "xen")
            .mend(match facts.is_dom0 {
                true => "boot this kernel without Xen, or give devices to guests with xl's pci-assignable-add",
                false => {
                    "on the host of this guest, which alone can give devices to guests: xl pci-assignable-add ADDRESS"
                }
            });
    }
    let tables = facts.tables.as_deref();
    let has = |name: &str| tables.is_some_and(|tables| tables.iter().any(|table| table == name));
    if has("VIOT") && !has("DMAR") && !has("IVRS") {
        return virtio(facts);
    }
    // An IORT tells of what MSIs go through as well, and so is there without an SMMU.
    if vendor == Vendor::Arm && tables.is_some() {
        return no_smmu(facts);
    }
    let intel = command_line.switch("intel_iommu").filter(|_| vendor == Vendor::Intel);
    let amd = command_line.with_value("amd_iommu", "off").filter(|_| vendor == Vendor::Amd);
    // `arch/x86/kernel/pci-dma.c`, iommu_setup; `drivers/iommu/intel/iommu.c`, intel_iommu_setup; `drivers/iommu/amd/init.c`,
    // parse_amd_iommu_options.
    let turned_off = command_line.with_value("iommu", "off").filter(|_| processor.is_x86());
    let turned_off = turned_off.or(amd).or(intel.filter(|(_, is_on)| !is_on).map(|(word, _)| word));
    if tables.is_some_and(<[String]>::is_empty) {
        return not_offered(facts);
    }
    if let Some(word) = turned_off {
        return Finding::failure(CHECK, format!("the IOMMU is off: {word} on the kernel command line turns it off"))
            .seen("/proc/cmdline", word)
            .mend_all(loader.remove(word));
    }
    let option = match vendor {
        Vendor::Intel => "CONFIG_INTEL_IOMMU",
        Vendor::Amd => "CONFIG_AMD_IOMMU",
        Vendor::Arm | Vendor::Other => "",
    };
    if facts.unset.contains(&option) {
        return Finding::failure(CHECK, format!("the IOMMU is off: this kernel was built without {option}"))
            .mend(format!("boot a kernel that was built with {option}"));
    }
    let is_asked_for = intel.is_some_and(|(_, is_on)| is_on) || facts.is_on_by_default == Some(true);
    if vendor == Vendor::Intel && !is_asked_for {
        let message = match facts.is_on_by_default {
            Some(_) => "the IOMMU is off: this kernel turns Intel's on only with intel_iommu=on on its command line",
            None => {
                "the IOMMU is off, and intel_iommu=on is not on the command line, which most kernels need for Intel's"
            }
        };
        let finding = Finding::failure(CHECK, message).seen("/proc/cmdline", "no intel_iommu=on");
        let firmware =
            "if it is still off after a reboot: turn on VT-d (Intel VT for Directed I/O) in the firmware setup";
        // Without tables to be seen it could be the firmware as well.
        return finding.mend_all(loader.add("intel_iommu=on")).mend_all(tables.is_none().then(|| firmware.to_string()));
    }
    match tables {
        Some(_) => {
            Finding::failure(CHECK, "the IOMMU is off although the firmware offers one and nothing here turns it off")
                .mend(KERNEL_LOG)
        }
        None => {
            let finding = Finding::failure(CHECK, "there is no IOMMU that this kernel has found");
            match vendor {
                // Without ACPI the firmware hands over a device tree, and what is not in that is not there.
                Vendor::Arm => finding
                    .mend("find out whether this machine has an SMMU, and its device tree names it")
                    .mend_all(on_virt(vendor)),
                Vendor::Other => finding.mend(KERNEL_LOG),
                Vendor::Intel | Vendor::Amd => {
                    finding.mend(format!("turn on {} in the firmware setup", in_firmware(vendor)))
                }
            }
        }
    }
}

/// Virtio's, of a virtual machine, is told of (`drivers/acpi/viot.c`), and there are no groups.
fn virtio(facts: &Facts) -> Finding {
    let option = "CONFIG_VIRTIO_IOMMU";
    let finding = Finding::failure(CHECK, format!("the IOMMU is off: it is virtio's, and {VIRTIO} does not drive it"));
    match facts.virtio {
        _ if facts.unset.contains(&option) => finding.mend(format!("boot a kernel that was built with {option}")),
        ModuleState::Missing => {
            finding.mend(format!("boot a kernel that was built with {option}, with all of its modules installed"))
        }
        ModuleState::Installed | ModuleState::Unknown => finding
            .mend(format!("modprobe {VIRTIO}   (at each boot: a line of a file in /etc/modules-load.d)"))
            .mend(KERNEL_LOG),
        ModuleState::Loaded | ModuleState::BuiltIn => finding.mend(KERNEL_LOG),
    }
}

/// Arm's, on a host with ACPI.
fn no_smmu(facts: &Facts) -> Finding {
    let options = ["CONFIG_ARM_SMMU_V3", "CONFIG_ARM_SMMU"];
    if options.iter().all(|option| facts.unset.contains(option)) {
        let options = options.join(" and ");
        return Finding::failure(CHECK, format!("the IOMMU is off: this kernel was built without {options}"))
            .mend(format!("boot a kernel that was built with {options}"));
    }
    Finding::failure(CHECK, "there is no SMMU that this kernel uses")
        .mend(format!("turn on {} in the firmware setup", in_firmware(Vendor::Arm)))
        .mend_all(on_virt(Vendor::Arm))
        .mend(KERNEL_LOG)
}

/// The firmware, or what stands in for it, tells of none.
fn not_offered(facts: &Facts) -> Finding {
    let vendor = facts.processor.vendor;
    if facts.processor.is_virtual {
        return Finding::failure(CHECK, "there is no IOMMU: this is a virtual machine, and its hypervisor gives it none")
            .seen("/proc/cpuinfo", "flags: hypervisor")
            .mend("on the hypervisor, with libvirt: <iommu model='intel'><driver intremap='on' caching_mode='on'/></iommu> in <devices> and <ioapic driver='qemu'/> in <features>")
            .mend("on the hypervisor, with QEMU: -machine q35,kernel-irqchip=split -device intel-iommu,intremap=on,caching-mode=on");
    }
    let needs = match vendor {
        Vendor::Amd => "; with AMD's no kernel parameter is needed",
        _ => "",
    };
    Finding::failure(CHECK, format!("the IOMMU is off: the firmware offers none{needs}"))
        .mend(format!("turn on {} in the firmware setup", in_firmware(vendor)))
        .mend_all(on_virt(vendor))
}

/// Arm's processors do not say whether they are real.
fn on_virt(vendor: Vendor) -> Option<String> {
    let line = "or, of a virtual machine, on its hypervisor: -machine virt,iommu=smmuv3 (with libvirt: <iommu model='smmuv3'/>)";
    (vendor == Vendor::Arm).then(|| line.to_string())
}

/// What firmware setups call it.
fn in_firmware(vendor: Vendor) -> &'static str {
    match vendor {
        Vendor::Intel => "VT-d (Intel VT for Directed I/O)",
        Vendor::Amd => "IOMMU (AMD-Vi, often below NBIO or AMD CBS)",
        Vendor::Arm => "SMMU",
        Vendor::Other => "the IOMMU (VT-d, AMD-Vi, SMMU)",
    }
}

/// Guides have it, and it does nothing: AMD's is on unless it is turned off (`parse_amd_iommu_options` knows no `on`).
fn useless_parameter(facts: &Facts) -> Option<Finding> {
    let (word, why) = match designer(facts) {
        Vendor::Amd => {
            let amd = facts.command_line.with_value("amd_iommu", "on");
            let amd = amd.map(|word| (word, "the kernel knows no such value, and turns AMD's IOMMU on by itself"));
            let intel = facts.command_line.named("intel_iommu").next();
            amd.or(intel.map(|(word, _)| (word, "the IOMMU is not Intel's")))?
        }
        Vendor::Intel => {
            let (word, _) = facts.command_line.named("amd_iommu").next()?;
            (word, "the IOMMU is not AMD's")
        }
        Vendor::Arm | Vendor::Other => return None,
    };
    let finding = Finding::note(PARAMETERS, format!("{word} on the kernel command line does nothing: {why}"));
    Some(finding.seen("/proc/cmdline", word))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    const INTEL: Processor = Processor { vendor: Vendor::Intel, is_virtual: false };
    const AMD: Processor = Processor { vendor: Vendor::Amd, is_virtual: false };
    const OTHER: Processor = Processor { vendor: Vendor::Other, is_virtual: false };
    const ARM: Processor = Processor { vendor: Vendor::Arm, is_virtual: false };

    /// A host with such a processor, command line and tables.
    fn facts(processor: Processor, command_line: &str, tables: Option<&[&str]>) -> Facts {
        Facts {
            processor,
            command_line: CommandLine::parse(command_line),
            loader: BootLoader::Grubby,
            groups: 0,
            others: 0,
            units: Vec::new(),
            tables: tables.map(|tables| tables.iter().map(|table| table.to_string()).collect()),
            is_on_by_default: None,
            unset: Vec::new(),
            is_unsafe: false,
            is_xen: false,
            is_dom0: false,
            virtio: ModuleState::Installed,
        }
    }

    #[test]
    fn who_has_it_off_and_what_turns_it_on() {
        let guest = Processor { is_virtual: true, ..INTEL };
        let dmar: Option<&[&str]> = Some(&["DMAR"]);
        let none: Option<&[&str]> = Some(&[]);
        let add = "grubby --update-kernel=ALL --args=intel_iommu=on";
        let remove = |word: &str| format!("grubby --update-kernel=ALL --remove-args={word}");
        let cases = [
            (facts(INTEL, "quiet", dmar), "which most kernels need", add.to_string()),
            (facts(INTEL, "quiet", None), "which most kernels need", add.to_string()),
            (facts(INTEL, "intel_iommu=on intel_iommu=off", dmar), "intel_iommu=off on", remove("intel_iommu=off")),
            (facts(INTEL, "intel_iommu=on iommu=off", dmar), "iommu=off on", remove("iommu=off")),
            (facts(INTEL, "intel_iommu=on", none), "the firmware offers none", "turn on VT-d".to_string()),
            // Another's parameter does nothing.
            (facts(INTEL, "intel_iommu=on amd_iommu=off", dmar), "nothing here turns it off", "dmesg".to_string()),
            (facts(AMD, "quiet", none), "no kernel parameter is needed", "turn on IOMMU (AMD-Vi".to_string()),
            (facts(AMD, "amd_iommu=off", Some(&["IVRS"])), "amd_iommu=off on", remove("amd_iommu=off")),
            (facts(AMD, "intel_iommu=off", Some(&["IVRS"])), "nothing here turns it off", "dmesg".to_string()),
            (facts(AMD, "", None), "no IOMMU that this kernel has found", "turn on IOMMU (AMD-Vi".to_string()),
            (facts(ARM, "iommu=off", Some(&["IORT"])), "no SMMU that this kernel uses", "turn on SMMU".to_string()),
            (facts(guest, "", Some(&["VIOT"])), "it is virtio's", "modprobe virtio_iommu".to_string()),
            (facts(ARM, "", Some(&["IORT", "VIOT"])), "it is virtio's", "modprobe virtio_iommu".to_string()),
            (facts(guest, "", Some(&["DMAR", "VIOT"])), "which most kernels need", add.to_string()),
            (facts(ARM, "", None), "no IOMMU that this kernel has found", "find out whether".to_string()),
            (facts(OTHER, "", None), "no IOMMU that this kernel has found", "dmesg".to_string()),
            (facts(ARM, "", none), "no SMMU that this kernel uses", "turn on SMMU".to_string()),
            (facts(guest, "", none), "a virtual machine", "on the hypervisor, with libvirt".to_string()),
            // One whose hypervisor offers one is a host like others.
            (facts(guest, "", dmar), "which most kernels need", add.to_string()),
            (facts(AMD, "", dmar), "which most kernels need", add.to_string()),
        ];
        for (facts, message, mend) in cases {
            let finding = is_on(&facts);
            assert_eq!(finding.severity, Severity::Failure, "{facts:?}");
            assert!(finding.message.contains(message), "{facts:?}: {}", finding.message);
            assert!(finding.mend[0].starts_with(&mend), "{facts:?}: {:?}", finding.mend);
        }
    }

    #[test]
    fn what_the_kernel_was_built_with_counts() {
        let dmar: Option<&[&str]> = Some(&["DMAR"]);
        let not_default = Facts { is_on_by_default: Some(false), ..facts(INTEL, "", dmar) };
        assert!(is_on(&not_default).message.contains("only with intel_iommu=on"));
        let default = Facts { is_on_by_default: Some(true), ..facts(INTEL, "", dmar) };
        assert!(is_on(&default).message.contains("nothing here turns it off"));
        let without = Facts { unset: vec!["CONFIG_INTEL_IOMMU"], ..facts(INTEL, "", dmar) };
        assert_eq!(is_on(&without).mend, ["boot a kernel that was built with CONFIG_INTEL_IOMMU"]);
        let xen = Facts { is_xen: true, ..facts(INTEL, "", dmar) };
        assert!(is_on(&xen).message.contains("a domain of Xen"));
        assert!(is_on(&xen).mend[0].starts_with("on the host of this guest"));
        assert!(is_on(&Facts { is_dom0: true, ..xen }).mend[0].starts_with("boot this kernel without Xen"));
        let iort: Option<&[&str]> = Some(&["IORT"]);
        let one = Facts { unset: vec!["CONFIG_ARM_SMMU_V3"], ..facts(ARM, "", iort) };
        assert!(is_on(&one).message.contains("no SMMU that this kernel uses"));
        let both = Facts { unset: vec!["CONFIG_ARM_SMMU_V3", "CONFIG_ARM_SMMU"], ..one };
        assert_eq!(is_on(&both).mend, ["boot a kernel that was built with CONFIG_ARM_SMMU_V3 and CONFIG_ARM_SMMU"]);
        let viot: Option<&[&str]> = Some(&["VIOT"]);
        for (state, unset, mend) in [
            (ModuleState::Missing, vec![], "boot a kernel that was built with CONFIG_VIRTIO_IOMMU, with all"),
            (
                ModuleState::Unknown,
                vec!["CONFIG_VIRTIO_IOMMU"],
                "boot a kernel that was built with CONFIG_VIRTIO_IOMMU",
            ),
            (ModuleState::Unknown, vec![], "modprobe virtio_iommu"),
            (ModuleState::BuiltIn, vec![], "dmesg"),
        ] {
            let finding = is_on(&Facts { virtio: state, unset, ..facts(INTEL, "", viot) });
            assert!(finding.mend[0].starts_with(mend), "{finding:?}");
        }
    }

    #[test]
    fn groups_are_what_counts() {
        // Some architectures register no unit.
        let others = is_on(&Facts { others: 2, ..facts(INTEL, "intel_iommu=on", Some(&["DMAR"])) });
        assert_eq!((others.severity, others.mend[0].as_str()), (Severity::Failure, KERNEL_LOG));
        assert!(others.message.contains("in front of no PCI device"), "{others:?}");
        let on = Facts { groups: 3, ..facts(AMD, "amd_iommu=on", Some(&["IVRS"])) };
        let findings = judge(&on);
        assert_eq!(findings[0].severity, Severity::Pass);
        assert_eq!(findings[1].check, PARAMETERS);
        assert_eq!(findings[1].severity, Severity::Note);
        for (processor, line, is_noted) in
            [(INTEL, "amd_iommu=on", true), (AMD, "intel_iommu=on", true), (INTEL, "intel_iommu=on iommu=pt", false)]
        {
            assert_eq!(useless_parameter(&facts(processor, line, None)).is_some(), is_noted, "{line}");
        }
        let findings = judge(&Facts { is_unsafe: true, ..facts(INTEL, "", None) });
        assert_eq!((findings[1].check, findings[1].severity), (UNSAFE, Severity::Warning));
    }
}
