// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is there PCI at all? Small virtual machines and mainframes may be without.

use super::Scene;
use super::boot::BootLoader;
use super::finding::Finding;

const CHECK: &str = "pci";

/// What is there.
#[derive(Debug)]
pub struct Facts {
    has_bus: bool,
    devices: usize,
    /// The parameter that turns it off.
    off: Option<String>,
    loader: BootLoader,
}

/// Looks.
pub fn gather(scene: &Scene<'_>) -> Facts {
    Facts {
        has_bus: scene.host.devices().exists(),
        devices: scene.devices.len(),
        off: scene.command_line.with_value("pci", "off").map(str::to_string),
        loader: scene.loader.clone(),
    }
}

/// What it means; nothing where there are devices.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    if facts.devices > 0 {
        return Vec::new();
    }
    let says = if facts.has_bus { "empty" } else { "not there" };
    let finding = Finding::failure(CHECK, "there is no PCI device here: nothing could be given to a guest");
    let finding = finding.seen("/sys/bus/pci/devices", says);
    // `arch/s390/pci/pci.c`, pcibios_setup; `arch/x86/pci/common.c` has it as well.
    vec![match &facts.off {
        Some(word) => finding.seen("/proc/cmdline", word).mend_all(facts.loader.remove(word)),
        None => finding.mend("boot a machine that has PCI devices, with a kernel that was built with CONFIG_PCI"),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn no_device_is_a_failure() {
        let facts = |has_bus, devices, off: Option<&str>| Facts {
            has_bus,
            devices,
            off: off.map(str::to_string),
            loader: BootLoader::Grubby,
        };
        for (facts, says, mend) in [
            (facts(false, 0, None), "not there", "boot a machine"),
            (facts(true, 0, None), "empty", "boot a machine"),
            (facts(false, 0, Some("pci=off")), "not there", "grubby --update-kernel=ALL --remove-args=pci=off"),
        ] {
            let findings = judge(&facts);
            assert_eq!(findings[0].severity, Severity::Failure);
            assert!(findings[0].evidence[0].ends_with(says), "{findings:?}");
            assert!(findings[0].mend[0].starts_with(mend), "{findings:?}");
        }
        assert!(judge(&facts(true, 1, Some("pci=off"))).is_empty());
    }
}
