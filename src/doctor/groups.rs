// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which devices can only be given away together, and which not at all.

use std::collections::BTreeMap;

use super::Scene;
use super::boot::BootLoader;
use super::finding::{Finding, count, some};
use crate::address::Address;
use crate::plan::Sibling;
use crate::sysfs::{Device, ReadError};
use crate::topology::from_driver;

const CHECK: &str = "iommu-groups";
const BLOCKED: &str = "iommu-group-blocked";
const MAPPED: &str = "iommu-group-reserved";
const OVERRIDE: &str = "acs-override";

/// A group with a device on a VFIO driver and others that keep it from a guest.
#[derive(Clone, Debug)]
struct Blocked {
    group: u32,
    given: Address,
    blockers: Vec<Sibling>,
    /// Bridges among them, which no VFIO driver takes.
    bridges: Vec<Address>,
}

/// What is there.
#[derive(Debug)]
pub struct Facts {
    groups: usize,
    /// Groups with several devices that a guest could be given.
    shared: Vec<(u32, Vec<Address>)>,
    /// Devices without a group although there are groups.
    without: Vec<Address>,
    /// Groups of which firmware asks for a fixed mapping, and their devices.
    mapped: Vec<(u32, Vec<Address>)>,
    blocked: Vec<Blocked>,
    /// What could not be read of groups: a path, and why.
    unread: Vec<(String, String)>,
    /// `pcie_acs_override`, as it is on the command line.
    acs_override: Option<String>,
    loader: BootLoader,
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Result<Facts, ReadError> {
    let mut groups: BTreeMap<u32, Vec<&Device>> = BTreeMap::new();
    let mut without = Vec::new();
    // A bridge has a group where there is an IOMMU, but nobody is given one.
    for device in scene.devices {
        match device.iommu_group.filter(|group| scene.is_of_an_iommu(*group)) {
            Some(group) => groups.entry(group).or_default().push(device),
            None if !device.is_bridge() => without.push(device.address),
            None => {}
        }
    }
    if groups.is_empty() {
        without.clear();
    }
    let (mut shared, mut mapped, mut blocked) = (Vec::new(), Vec::new(), Vec::new());
    for (&number, members) in &groups {
        let ends: Vec<&&Device> = members.iter().filter(|device| !device.is_bridge()).collect();
        let addresses: Vec<Address> = ends.iter().map(|device| device.address).collect();
        let is_mapped = scene.groups[&number].as_ref().is_ok_and(|group| group.is_direct_mapped);
        // A group of bridges alone is nobody's.
        if !ends.is_empty() && is_mapped {
            mapped.push((number, addresses.clone()));
        }
        if members.len() < 2 {
            continue;
        }
        if addresses.len() > 1 {
            shared.push((number, addresses));
        }
        let mut siblings = Vec::new();
        for device in members {
            let is_vfio_device = device.driver.is_some() && Device::is_vfio_device(scene.host, device.address)?;
            siblings.push(Sibling { address: device.address, driver: device.driver.clone(), is_vfio_device });
        }
        let given = siblings.iter().find(|sibling| sibling.is_vfio_device).map(|sibling| sibling.address);
        let blockers: Vec<Sibling> = siblings.into_iter().filter(Sibling::blocks_group).collect();
        let bridges = members.iter().filter(|device| device.is_bridge()).map(|device| device.address).collect();
        let blocking = given.filter(|_| !blockers.is_empty());
        blocked.extend(blocking.map(|given| Blocked { group: number, given, blockers, bridges }));
    }
    Ok(Facts {
        groups: groups.len(),
        shared,
        without,
        mapped,
        blocked,
        unread: scene.groups.values().filter_map(|group| group.as_ref().err()).map(|error| scene.said(error)).collect(),
        acs_override: scene.command_line.named("pcie_acs_override").next().map(|(word, _)| word.to_string()),
        loader: scene.loader.clone(),
    })
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if facts.groups > 0 {
        findings.push(shared(facts));
    }
    if !facts.without.is_empty() {
        findings.push(
            Finding::warning(CHECK, format!("{} in no IOMMU group and cannot be given away", are(&facts.without)))
                .seen(format!("/sys/bus/pci/devices/{}/iommu_group", facts.without[0]), "not there"),
        );
    }
    if let Some((path, why)) = facts.unread.first() {
        let groups = count(facts.unread.len(), "IOMMU group", "IOMMU groups");
        findings.push(
            Finding::warning(
                CHECK,
                format!(
                    "{groups} cannot be read: whether VFIO can have {} is not known",
                    match facts.unread.len() {
                        1 => "it",
                        _ => "them",
                    }
                ),
            )
            .seen(path, why),
        );
    }
    for (group, devices) in &facts.mapped {
        findings.push(
            Finding::warning(
                MAPPED,
                format!("firmware has asked for a fixed mapping of {}: VFIO cannot have IOMMU group {group}", some(devices)),
            )
            .seen(format!("/sys/kernel/iommu_groups/{group}/reserved_regions"), "a line 'direct'")
            .mend("look in the firmware setup for what shares the device with the management controller (RMRR), and turn it off"),
        );
    }
    for Blocked { group, given, blockers, bridges } in &facts.blocked {
        let (bridges, to_bind): (Vec<&Sibling>, Vec<&Sibling>) =
            blockers.iter().partition(|sibling| bridges.contains(&sibling.address));
        let to_bind: Vec<String> = to_bind.iter().map(|sibling| sibling.address.to_string()).collect();
        let from_driver = |bridge: &&Sibling| Some(from_driver(bridge.address, bridge.driver.as_ref()?));
        let addresses: Vec<String> = blockers.iter().map(|sibling| sibling.address.to_string()).collect();
        findings.push(
            Finding::warning(
                BLOCKED,
                format!(
                    "{given} cannot be given to a guest yet: its IOMMU group {group} also holds {}",
                    some(blockers)
                ),
            )
            .seen(format!("/sys/kernel/iommu_groups/{group}/devices"), some(&addresses))
            .mend_all((!to_bind.is_empty()).then(|| format!("vfioctl bind {}", to_bind.join(" "))))
            .mend_all(bridges.iter().filter_map(from_driver)),
        );
    }
    if let Some(word) = &facts.acs_override {
        findings.push(
            Finding::warning(
                OVERRIDE,
                "IOMMU groups may claim an isolation that the hardware does not give: guests could reach each other's devices",
            )
            .seen("/proc/cmdline", format!("{word}, a patch that is not in the kernel of kernel.org"))
            .mend_all(facts.loader.remove(word)),
        );
    }
    findings
}

fn shared(facts: &Facts) -> Finding {
    let groups = count(facts.groups, "IOMMU group", "IOMMU groups");
    if facts.shared.is_empty() {
        return Finding::pass(CHECK, format!("{groups}, none with more than one device besides bridges"));
    }
    let shared = facts.shared.len();
    let those = if shared == 1 {
        "1 holds several devices, which go".to_string()
    } else {
        format!("{shared} hold several devices, which go")
    };
    let mut finding = Finding::note(CHECK, format!("of {groups}, {those} to a guest together or not at all"));
    for (group, devices) in facts.shared.iter().take(3) {
        finding = finding.seen(format!("/sys/kernel/iommu_groups/{group}/devices"), some(devices));
    }
    finding.mend("vfioctl groups   (shows them all)")
}

fn are(devices: &[Address]) -> String {
    format!("{} {}", some(devices), if devices.len() == 1 { "is" } else { "are" })
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn facts() -> Facts {
        Facts {
            groups: 2,
            shared: Vec::new(),
            without: Vec::new(),
            mapped: Vec::new(),
            blocked: Vec::new(),
            unread: Vec::new(),
            acs_override: None,
            loader: BootLoader::Grubby,
        }
    }

    #[test]
    fn what_is_told_of_groups() {
        let [a, b, c]: [Address; 3] =
            ["0000:01:00.0", "0000:01:00.1", "0000:00:1c.0"].map(|text| text.parse().unwrap());
        let blocker = Sibling { address: b, driver: Some("nouveau".parse().unwrap()), is_vfio_device: false };
        let bridge = Sibling { address: c, driver: Some("shpchp".parse().unwrap()), is_vfio_device: false };
        let blocked = Blocked { group: 1, given: a, blockers: vec![blocker.clone()], bridges: vec![c] };
        let by_bridge = Blocked { blockers: vec![bridge.clone()], ..blocked.clone() };
        let unbind = "echo 0000:00:1c.0 > /sys/bus/pci/drivers/shpchp/unbind";
        let by_both =
            judge(&Facts { blocked: vec![Blocked { blockers: vec![blocker, bridge], ..blocked.clone() }], ..facts() });
        assert_eq!(by_both.last().unwrap().mend, ["vfioctl bind 0000:01:00.1", unbind]);
        let cases = [
            (facts(), (CHECK, Severity::Pass), ""),
            (Facts { shared: vec![(1, vec![a, b])], ..facts() }, (CHECK, Severity::Note), "vfioctl groups"),
            (Facts { without: vec![b], ..facts() }, (CHECK, Severity::Warning), ""),
            (
                Facts { unread: vec![("/sys/kernel/iommu_groups/1/type".into(), "odd".into())], ..facts() },
                (CHECK, Severity::Warning),
                "",
            ),
            (Facts { mapped: vec![(1, vec![a])], ..facts() }, (MAPPED, Severity::Warning), "look in the firmware"),
            (Facts { blocked: vec![by_bridge], ..facts() }, (BLOCKED, Severity::Warning), unbind),
            (Facts { blocked: vec![blocked], ..facts() }, (BLOCKED, Severity::Warning), "vfioctl bind 0000:01:00.1"),
            (
                Facts { acs_override: Some("pcie_acs_override=downstream".to_string()), ..facts() },
                (OVERRIDE, Severity::Warning),
                "grubby --update-kernel=ALL --remove-args=pcie_acs_override=downstream",
            ),
        ];
        for (facts, expected, mend) in cases {
            let findings = judge(&facts);
            let finding = findings.last().unwrap();
            assert_eq!((finding.check, finding.severity), expected);
            assert!(finding.mend.first().cloned().unwrap_or_default().starts_with(mend), "{finding:?}");
        }
        assert!(judge(&Facts { groups: 0, ..facts() }).is_empty());
    }
}
