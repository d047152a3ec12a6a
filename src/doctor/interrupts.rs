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

const CHECK: &str = "interrupt-remapping";

/// So many lines are looked at; the list of a large host has megabytes.
const LINES: usize = 4096;

/// What tells.
#[derive(Debug)]
pub struct Facts {
    processor: Processor,
    command_line: CommandLine,
    loader: BootLoader,
    /// Is the IOMMU on at all?
    has_iommu: bool,
    /// What a controller is called whose interrupts are kept apart; `Some(None)`: of those in /proc/interrupts none is.
    remapped: Option<Option<String>>,
    /// The modules that let devices be given away all the same.
    unsafe_allowed: Vec<&'static str>,
    /// The IOMMUs that cannot do it, and how many there are (Intel's alone tell).
    incapable: (Vec<String>, usize),
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let host = scene.host;
    let is_allowed = |module: &&str| {
        let path = host.module_parameter(module, "allow_unsafe_interrupts");
        file::read_to_string(&path, file::ATTRIBUTE).is_ok_and(|text| text.starts_with('Y'))
    };
    Facts {
        processor: scene.processor,
        command_line: scene.command_line.clone(),
        loader: scene.loader.clone(),
        has_iommu: scene.groups.keys().any(|group| scene.is_of_an_iommu(*group)),
        remapped: file::open(&host.interrupts()).ok().map(|file| remapped(BufReader::new(file), scene.processor)),
        unsafe_allowed: ["vfio_iommu_type1", "iommufd"].into_iter().filter(|module| is_allowed(module)).collect(),
        incapable: incapable(host),
    }
}

/// The first controller whose interrupts are kept apart. On x86 those are called IR-IO-APIC, IR-PCI-MSI and the like
/// (`arch/x86/kernel/apic/io_apic.c`, `drivers/iommu/intel/irq_remapping.c`, `drivers/iommu/amd/iommu.c`); on Arm an ITS does it
/// (`drivers/irqchip/irq-gic-v3-its.c`, IRQ_DOMAIN_FLAG_ISOLATED_MSI).
fn remapped(file: impl BufRead, processor: Processor) -> Option<String> {
    let (begins, told_by): (&str, &[&str]) = match processor.vendor {
        Vendor::Arm => ("ITS-", &["ITS-"]),
        // One is as all are.
        _ => ("IR-", &["IO-APIC", "PCI-MSI"]),
    };
    let mut lines = file.lines().take(LINES).map_while(Result::ok);
    let line = lines.find(|line| told_by.iter().any(|name| line.contains(name)))?;
    // After the counts, one a processor.
    line.split_whitespace().find(|word| word.starts_with(begins)).map(str::to_string)
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
    let Some(remapped) = &facts.remapped else {
        return Finding::note(CHECK, "it cannot be told whether interrupts are remapped")
            .seen("/proc/interrupts", "cannot be read");
    };
    if let Some(controller) = remapped {
        // `drivers/iommu/irq_remapping.c`, setup_irqremap.
        if let Some(word) = facts.command_line.with_value("intremap", "nosid") {
            let message =
                "interrupts are remapped, but who sent one is not checked: a guest's device could send another's";
            return Finding::warning(CHECK, message).seen("/proc/cmdline", word).mend_all(facts.loader.remove(word));
        }
        let finding = Finding::pass(CHECK, what).seen("/proc/interrupts", controller);
        return match facts.unsafe_allowed.as_slice() {
            [] => finding,
            modules => Finding { severity: super::Severity::Note, ..finding }
                .seen(
                    parameter(modules[0]),
                    "Y: needless here, and devices would be given away without remapping as well",
                )
                .mend(format!("take allow_unsafe_interrupts=1 for {} out of modprobe.d", modules.join(" and "))),
        };
    }
    // Which controllers isolate elsewhere is known to the kernel alone.
    if !facts.processor.is_x86() {
        return Finding::note(CHECK, "it cannot be told whether interrupts are kept apart")
            .seen("/proc/interrupts", "no ITS that has given an interrupt to a device");
    }
    let off = facts.command_line.with_value("intremap", "off");
    let off = off.or(facts.command_line.named("nointremap").next().map(|(word, _)| word));
    let mut finding = match facts.unsafe_allowed.as_slice() {
        [] => Finding::failure(CHECK, "interrupts are not remapped, and without that VFIO gives no device away"),
        modules => Finding::warning(
            CHECK,
            "interrupts are not remapped: a guest with a device can raise interrupts of this host and of other guests",
        )
        .seen(parameter(modules[0]), "Y"),
    };
    finding = finding.seen("/proc/interrupts", "no controller IR-…");
    if let Some(word) = off {
        return finding.seen("/proc/cmdline", word).mend_all(facts.loader.remove(word));
    }
    let (incapable, number) = &facts.incapable;
    if !incapable.is_empty() {
        finding = finding.seen(
            format!("/sys/class/iommu/{}/intel-iommu/ecap", incapable[0]),
            format!("bit 3 is 0, on {} of {number}: the hardware cannot remap interrupts", incapable.len()),
        );
        if facts.processor.is_virtual {
            return finding
                .mend("on the hypervisor, with libvirt: <driver intremap='on'/> in <iommu> and <ioapic driver='qemu'/> in <features>")
                .mend("on the hypervisor, with QEMU: -machine q35,kernel-irqchip=split -device intel-iommu,intremap=on");
        }
        return finding.mend(
            "options vfio_iommu_type1 allow_unsafe_interrupts=1   (in /etc/modprobe.d/vfio.conf, only where all guests are trusted)",
        );
    }
    finding
        .mend("dmesg | grep -iE 'remapping|DMAR-IR|AMD-Vi'   (the kernel says there why it is off)")
        .mend("look for x2APIC, interrupt remapping or IOMMU in the firmware setup, and for an update of the firmware")
}

fn parameter(module: &str) -> String {
    format!("/sys/module/{module}/parameters/allow_unsafe_interrupts")
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    const INTEL: Processor = Processor { vendor: Vendor::Intel, is_virtual: false };

    fn facts(command_line: &str, remapped: Option<Option<&str>>) -> Facts {
        Facts {
            processor: INTEL,
            command_line: CommandLine::parse(command_line),
            loader: BootLoader::Grubby,
            has_iommu: true,
            remapped: remapped.map(|controller| controller.map(str::to_string)),
            unsafe_allowed: Vec::new(),
            incapable: (Vec::new(), 1),
        }
    }

    #[test]
    fn a_controllers_name_tells() {
        let arm = Processor { vendor: Vendor::Arm, is_virtual: false };
        for (text, processor, expected) in [
            ("            CPU0\n   0:         9   IO-APIC    2-edge      timer\n", INTEL, None),
            ("   0:         9  IR-IO-APIC    2-edge      timer\n", INTEL, Some("IR-IO-APIC")),
            (" 24:         0  IR-PCI-MSIX-0000:00:01.0    0-edge  PCIe PME\n", INTEL, Some("IR-PCI-MSIX-0000:00:01.0")),
            (" 24:         0  PCI-MSI 1-edge  FIR-x\n", INTEL, None),
            (" 50:         0  ITS-PCI-MSI-0000:01:00.0  0 Edge  nvme0q0\n", arm, Some("ITS-PCI-MSI-0000:01:00.0")),
            (" 50:         0  MBI  0 Edge  x\n", arm, None),
        ] {
            assert_eq!(remapped(text.as_bytes(), processor).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn what_each_means() {
        use Severity::{Failure, Note, Pass, Warning};
        let on = Some(Some("IR-IO-APIC"));
        let arm = Processor { vendor: Vendor::Arm, is_virtual: false };
        let guest = Processor { is_virtual: true, ..INTEL };
        let unsafe_allowed = || vec!["vfio_iommu_type1"];
        let incapable = || (vec!["dmar0".to_string()], 1);
        let remove = "grubby --update-kernel=ALL --remove-args=";
        let cases: [(Facts, Severity, String); 11] = [
            (facts("", on), Pass, String::new()),
            (facts("intremap=nosid", on), Warning, format!("{remove}intremap=nosid")),
            (Facts { unsafe_allowed: unsafe_allowed(), ..facts("", on) }, Note, "take allow_unsafe".to_string()),
            (facts("", Some(None)), Failure, "dmesg".to_string()),
            (facts("intremap=off", Some(None)), Failure, format!("{remove}intremap=off")),
            (facts("nointremap", Some(None)), Failure, format!("{remove}nointremap")),
            (Facts { unsafe_allowed: unsafe_allowed(), ..facts("", Some(None)) }, Warning, "dmesg".to_string()),
            (
                Facts { incapable: incapable(), ..facts("", Some(None)) },
                Failure,
                "options vfio_iommu_type1".to_string(),
            ),
            (
                Facts { incapable: incapable(), processor: guest, ..facts("", Some(None)) },
                Failure,
                "on the hypervisor, with libvirt".to_string(),
            ),
            (Facts { processor: arm, ..facts("", Some(None)) }, Note, String::new()),
            (facts("", None), Note, String::new()),
        ];
        for (facts, severity, mend) in cases {
            let finding = isolation(&facts);
            assert_eq!(finding.severity, severity, "{facts:?}");
            assert!(finding.mend.first().cloned().unwrap_or_default().starts_with(&mend), "{facts:?}: {finding:?}");
            assert_eq!(finding.mend.is_empty(), mend.is_empty(), "{finding:?}");
        }
        assert!(judge(&Facts { has_iommu: false, ..facts("", Some(None)) }).is_empty());
    }
}
