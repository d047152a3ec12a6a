// SPDX-License-Identifier: MIT OR Apache-2.0
//! Are the interrupts of a guest's device kept to that guest? Without, the kernel refuses to give a device away unless told
//! that this is wanted (`drivers/vfio/vfio_iommu_type1.c` and `drivers/iommu/iommufd/device.c`, `allow_unsafe_interrupts`).

use std::io::{BufRead, BufReader};

use super::Scene;
use super::boot::BootLoader;
use super::command_line::CommandLine;
use super::finding::Finding;
use super::processor::{Processor, Vendor};
use crate::file;
use crate::host::Host;
use crate::kernel_name::is_same_name;
use crate::modules::directives;

const CHECK: &str = "interrupt-remapping";

/// The parameter that lets devices be given away all the same.
const PARAMETER: &str = "allow_unsafe_interrupts";

/// What sets it.
const ALLOW: &str = "options vfio_iommu_type1 allow_unsafe_interrupts=1   (in /etc/modprobe.d/vfio.conf, only where all guests are trusted)";

/// So many lines are looked at; the list of a large host has megabytes.
const LINES: usize = 4096;

/// What /proc/interrupts tells.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Told {
    /// The interrupts of this controller are kept apart.
    Remapped(String),
    /// Those of this one would be, if any were.
    NotRemapped(String),
    /// No interrupt goes through a controller that tells.
    Nothing,
}

/// A module that lets devices be given away all the same: where that is said, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Allowed {
    module: &'static str,
    place: String,
    says: String,
}

/// What tells.
#[derive(Debug)]
pub struct Facts {
    processor: Processor,
    command_line: CommandLine,
    loader: BootLoader,
    /// Is the IOMMU on at all?
    has_iommu: bool,
    /// `None`: /proc/interrupts cannot be read.
    told: Option<Told>,
    unsafe_allowed: Vec<Allowed>,
    /// The IOMMUs that there are.
    units: Vec<String>,
    /// The IOMMUs that cannot do it, and how many there are (Intel's alone tell).
    incapable: (Vec<String>, usize),
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let host = scene.host;
    Facts {
        processor: scene.processor,
        command_line: scene.command_line.clone(),
        loader: scene.loader.clone(),
        has_iommu: scene.groups.keys().any(|group| scene.is_of_an_iommu(*group)),
        told: file::open(&host.interrupts()).ok().map(|file| told(BufReader::new(file), scene.processor)),
        unsafe_allowed: ["vfio_iommu_type1", "iommufd"]
            .into_iter()
            .filter_map(|module| allowed(scene, module))
            .collect(),
        units: super::iommu::names_in(&host.class("iommu")),
        incapable: incapable(host),
    }
}

/// Is it allowed now; or, as long as the module is not in, once it is?
fn allowed(scene: &Scene<'_>, module: &'static str) -> Option<Allowed> {
    let path = scene.host.module_parameter(module, PARAMETER);
    if let Ok(text) = file::read_to_string(&path, file::ATTRIBUTE) {
        return text.starts_with('Y').then(|| Allowed { module, place: scene.at(&path), says: "Y".to_string() });
    }
    // modprobe gives a module its options of the command line after those of modprobe.d (`libkmod/libkmod-config.c`), and the
    // last one counts.
    let name = format!("{module}.{PARAMETER}");
    if let Some((word, value)) = scene.command_line.named(&name).last() {
        let is_set = is_true(word.contains('=').then_some(value));
        return is_set.then(|| Allowed { module, place: "/proc/cmdline".to_string(), says: word.to_string() });
    }
    let mut last = None;
    for directive in directives(scene.host) {
        let [what, about, options @ ..] = directive.words.as_slice() else { continue };
        if what != "options" || !is_same_name(about, module) {
            continue;
        }
        for option in options {
            let (key, value) =
                option.split_once('=').map_or((option.as_str(), None), |(key, value)| (key, Some(value)));
            if is_same_name(key, PARAMETER) {
                let place = format!("{}:{}", scene.at(&directive.path), directive.line);
                last = is_true(value).then(|| Allowed { module, place, says: directive.words.join(" ") });
            }
        }
    }
    last
}

/// What the kernel takes for yes; a parameter alone is one (`lib/kstrtox.c`, `kstrtobool`; `kernel/params.c`, `param_set_bool`).
fn is_true(value: Option<&str>) -> bool {
    value.is_none_or(|value| {
        value.starts_with(['y', 'Y', 't', 'T', '1']) || value.to_ascii_lowercase().starts_with("on")
    })
}

/// The first controller that tells, and whether its interrupts are kept apart. On x86 such are called IR-IO-APIC, IR-PCI-MSI and
/// the like (`arch/x86/kernel/apic/io_apic.c`, `drivers/iommu/intel/irq_remapping.c`, `drivers/iommu/amd/iommu.c`); on Arm an ITS
/// does it (`drivers/irqchip/irq-gic-v3-its.c`, IRQ_DOMAIN_FLAG_ISOLATED_MSI).
fn told(file: impl BufRead, processor: Processor) -> Told {
    let (begins, told_by): (&str, &[&str]) = match processor.vendor {
        Vendor::Arm => ("ITS-", &["ITS-"]),
        // One is as all are.
        _ => ("IR-", &["IO-APIC", "PCI-MSI"]),
    };
    let mut lines = file.lines().take(LINES).map_while(Result::ok);
    let is_one = |word: &str| told_by.iter().any(|name| word.contains(name));
    let Some(line) = lines.find(|line| is_one(line)) else { return Told::Nothing };
    // After the counts, one a processor.
    let name =
        |is_meant: &dyn Fn(&str) -> bool| line.split_whitespace().find(|word| is_meant(word)).map(str::to_string);
    match name(&|word| word.starts_with(begins)) {
        Some(name) => Told::Remapped(name),
        None => Told::NotRemapped(name(&is_one).unwrap_or_default()),
    }
}

/// Intel's IOMMUs that say they cannot (`drivers/iommu/intel/iommu.h`, `ecap_ir_support`: bit 3), and how many there are.
fn incapable(host: &Host) -> (Vec<String>, usize) {
    let entries = std::fs::read_dir(host.class("iommu")).into_iter().flatten().flatten();
    let (mut incapable, mut number) = (Vec::new(), 0);
    for entry in entries {
        let text = file::read_to_string(&entry.path().join("intel-iommu/ecap"), file::ATTRIBUTE);
        let Some(ecap) = text.ok().and_then(|text| u64::from_str_radix(text.trim(), 16).ok()) else { continue };
        number += 1;
        if ecap & (1 << 3) == 0 {
            incapable.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    incapable.sort();
    (incapable, number)
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    // Without an IOMMU there is nothing to be remapped by, and that is said already.
    if !facts.has_iommu {
        return Vec::new();
    }
    vec![isolation(facts)]
}

fn isolation(facts: &Facts) -> Finding {
    let what =
        if facts.processor.vendor == Vendor::Arm { "an ITS keeps interrupts apart" } else { "interrupts are remapped" };
    let Some(told) = &facts.told else {
        return Finding::note(CHECK, "it cannot be told whether interrupts are remapped")
            .seen("/proc/interrupts", "cannot be read");
    };
    if let Told::Remapped(controller) = told {
        // `drivers/iommu/irq_remapping.c`, setup_irqremap.
        if let Some(word) = facts.command_line.with_value("intremap", "nosid") {
            let message =
                "interrupts are remapped, but who sent one is not checked: a guest's device could send another's";
            return Finding::warning(CHECK, message).seen("/proc/cmdline", word).mend_all(facts.loader.remove(word));
        }
        let finding = Finding::pass(CHECK, what).seen("/proc/interrupts", controller);
        return match facts.unsafe_allowed.as_slice() {
            [] => finding,
            allowed => {
                let modules: Vec<&str> = allowed.iter().map(|allowed| allowed.module).collect();
                let says = "needless here, and devices would be given away without remapping as well";
                Finding { severity: super::Severity::Note, ..finding }
                    .seen(&allowed[0].place, format!("{}: {says}", allowed[0].says))
                    .mend(format!("take allow_unsafe_interrupts=1 for {} out of modprobe.d", modules.join(" and ")))
            }
        };
    }
    // Which controllers isolate elsewhere is known to the kernel alone.
    if !facts.processor.is_x86() {
        return Finding::note(CHECK, "it cannot be told whether interrupts are kept apart")
            .seen("/proc/interrupts", "no ITS that has given an interrupt to a device");
    }
    let Told::NotRemapped(controller) = told else {
        return Finding::note(CHECK, "it cannot be told whether interrupts are remapped")
            .seen("/proc/interrupts", "no interrupt of an IO-APIC or of PCI-MSI");
    };
    let off = facts.command_line.with_value("intremap", "off");
    let off = off.or(facts.command_line.named("nointremap").next().map(|(word, _)| word));
    let mut finding = match facts.unsafe_allowed.as_slice() {
        [] => Finding::failure(CHECK, "interrupts are not remapped, and without that VFIO gives no device away"),
        allowed => Finding::warning(
            CHECK,
            "interrupts are not remapped: a guest with a device can raise interrupts of this host and of other guests",
        )
        .seen(&allowed[0].place, &allowed[0].says),
    };
    finding = finding.seen("/proc/interrupts", format!("{controller}, and no controller IR-…"));
    if let Some(word) = off {
        return finding.seen("/proc/cmdline", word).mend_all(facts.loader.remove(word));
    }
    let (incapable, number) = &facts.incapable;
    if !incapable.is_empty() {
        finding = finding.seen(
            format!("/sys/class/iommu/{}/intel-iommu/ecap", incapable[0]),
            format!("bit 3 is 0, on {} of {number}: the hardware cannot remap interrupts", incapable.len()),
        );
    }
    if facts.processor.is_virtual {
        return of_a_guest(finding, &facts.units);
    }
    if !incapable.is_empty() {
        return finding.mend(ALLOW);
    }
    finding
        .mend("dmesg | grep -iE 'remapping|DMAR-IR|AMD-Vi'   (the kernel says there why it is off)")
        .mend("look for x2APIC, interrupt remapping or IOMMU in the firmware setup, and for an update of the firmware")
}

/// In a virtual machine it is for the hypervisor to remap, and one kind of IOMMU cannot.
fn of_a_guest(finding: Finding, units: &[String]) -> Finding {
    let is = |kind: &str| units.iter().any(|unit| unit.starts_with(kind));
    // `drivers/iommu/virtio-iommu.c`, viommu_probe, and `drivers/iommu/amd/init.c`, iommu_init_pci, name them so.
    if is("virtio") {
        return finding
            .mend("on the hypervisor, with libvirt: <iommu model='intel'><driver intremap='on'/></iommu> in place of model='virtio', which cannot remap interrupts on x86, and <ioapic driver='qemu'/> in <features>")
            .mend("on the hypervisor, with QEMU: -machine q35,kernel-irqchip=split -device intel-iommu,intremap=on in place of virtio-iommu-pci")
            .mend(format!("or, without remapping: {ALLOW}"));
    }
    let kind = if is("ivhd") { "amd" } else { "intel" };
    finding
        .mend("on the hypervisor, with libvirt: <driver intremap='on'/> in <iommu> and <ioapic driver='qemu'/> in <features>")
        .mend(format!("on the hypervisor, with QEMU: -machine q35,kernel-irqchip=split -device {kind}-iommu,intremap=on"))
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    const INTEL: Processor = Processor { vendor: Vendor::Intel, is_virtual: false };

    fn facts(command_line: &str, told: Option<Told>) -> Facts {
        Facts {
            processor: INTEL,
            command_line: CommandLine::parse(command_line),
            loader: BootLoader::Grubby,
            has_iommu: true,
            told,
            unsafe_allowed: Vec::new(),
            units: Vec::new(),
            incapable: (Vec::new(), 1),
        }
    }

    #[test]
    fn a_controllers_name_tells() {
        let (is, not) =
            (|name: &str| Told::Remapped(name.to_string()), |name: &str| Told::NotRemapped(name.to_string()));
        let arm = Processor { vendor: Vendor::Arm, is_virtual: false };
        for (text, processor, expected) in [
            ("            CPU0\n   0:         9   IO-APIC    2-edge      timer\n", INTEL, not("IO-APIC")),
            ("   0:         9  IR-IO-APIC    2-edge      timer\n", INTEL, is("IR-IO-APIC")),
            (" 24:         0  IR-PCI-MSIX-0000:00:01.0    0-edge  PCIe PME\n", INTEL, is("IR-PCI-MSIX-0000:00:01.0")),
            (" 24:         0  PCI-MSI 1-edge  FIR-x\n", INTEL, not("PCI-MSI")),
            ("            CPU0\n  8:  0  XT-PIC  rtc0\nNMI:  0  Non-maskable interrupts\n", INTEL, Told::Nothing),
            ("", INTEL, Told::Nothing),
            (" 50:         0  ITS-PCI-MSI-0000:01:00.0  0 Edge  nvme0q0\n", arm, is("ITS-PCI-MSI-0000:01:00.0")),
            (" 50:         0  MBI  0 Edge  x\n", arm, Told::Nothing),
        ] {
            assert_eq!(told(text.as_bytes(), processor), expected, "{text}");
        }
    }

    #[test]
    fn what_each_means() {
        use Severity::{Failure, Note, Pass, Warning};
        let on = || Some(Told::Remapped("IR-IO-APIC".to_string()));
        let off = || Some(Told::NotRemapped("IO-APIC".to_string()));
        let units = |name: &str| vec![name.to_string()];
        let arm = Processor { vendor: Vendor::Arm, is_virtual: false };
        let guest = Processor { is_virtual: true, ..INTEL };
        let unsafe_allowed =
            || vec![Allowed { module: "vfio_iommu_type1", place: "/proc/cmdline".to_string(), says: "x".to_string() }];
        let incapable = || (vec!["dmar0".to_string()], 1);
        let remove = "grubby --update-kernel=ALL --remove-args=";
        let cases: [(Facts, Severity, String); 15] = [
            (facts("", on()), Pass, String::new()),
            (facts("intremap=nosid", on()), Warning, format!("{remove}intremap=nosid")),
            (Facts { unsafe_allowed: unsafe_allowed(), ..facts("", on()) }, Note, "take allow_unsafe".to_string()),
            (facts("", off()), Failure, "dmesg".to_string()),
            (facts("intremap=off", off()), Failure, format!("{remove}intremap=off")),
            (facts("nointremap", off()), Failure, format!("{remove}nointremap")),
            (Facts { unsafe_allowed: unsafe_allowed(), ..facts("", off()) }, Warning, "dmesg".to_string()),
            (Facts { incapable: incapable(), ..facts("", off()) }, Failure, "options vfio_iommu_type1".to_string()),
            (
                Facts { incapable: incapable(), processor: guest, ..facts("", off()) },
                Failure,
                "on the hypervisor, with libvirt".to_string(),
            ),
            // What hypervisors make of it; the firmware's setup has nothing to say there.
            (
                Facts { processor: guest, units: units("ivhd0"), ..facts("", off()) },
                Failure,
                "on the hypervisor, with libvirt: <driver intremap='on'/>".to_string(),
            ),
            (
                Facts { processor: guest, units: units("virtio3"), ..facts("", off()) },
                Failure,
                "on the hypervisor, with libvirt: <iommu model='intel'>".to_string(),
            ),
            (Facts { processor: guest, ..facts("nointremap", off()) }, Failure, format!("{remove}nointremap")),
            (facts("", Some(Told::Nothing)), Note, String::new()),
            (Facts { processor: arm, ..facts("", off()) }, Note, String::new()),
            (facts("", None), Note, String::new()),
        ];
        for (facts, severity, mend) in cases {
            let finding = isolation(&facts);
            assert_eq!(finding.severity, severity, "{facts:?}");
            assert!(finding.mend.first().cloned().unwrap_or_default().starts_with(&mend), "{facts:?}: {finding:?}");
            assert_eq!(finding.mend.is_empty(), mend.is_empty(), "{finding:?}");
        }
        let amd = isolation(&Facts { processor: guest, units: units("ivhd0"), ..facts("", off()) });
        assert!(amd.mend[1].contains("-device amd-iommu,intremap=on"), "{amd:?}");
        assert!(judge(&Facts { has_iommu: false, ..facts("", off()) }).is_empty());
    }

    #[test]
    fn what_the_kernel_takes_for_yes() {
        for (value, expected) in [
            (None, true),
            (Some("1"), true),
            (Some("Y"), true),
            (Some("true"), true),
            (Some("on"), true),
            (Some("off"), false),
            (Some("0"), false),
            (Some("N"), false),
            (Some(""), false),
        ] {
            assert_eq!(is_true(value), expected, "{value:?}");
        }
    }
}
