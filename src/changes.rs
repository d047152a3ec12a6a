// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has changed between two listings. What the kernel announces says that something may have; two listings say what, however
//! many announcements came meanwhile or were lost.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::address::Address;
use crate::sysfs::Device;

/// All devices at a moment, and those of them that are shown.
#[derive(Debug, Default)]
pub struct Listed {
    /// In bus order.
    pub devices: Vec<Device>,
    /// Does the filter let the device at this place through?
    pub is_wanted: Vec<bool>,
}

impl Listed {
    /// A device.
    pub fn get(&self, address: Address) -> Option<&Device> {
        self.place(address).map(|place| &self.devices[place])
    }

    /// Those that are shown.
    pub fn wanted(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().zip(&self.is_wanted).filter(|(_, is_wanted)| **is_wanted).map(|(device, _)| device)
    }

    fn has(&self, address: Address) -> bool {
        self.place(address).is_some_and(|place| self.is_wanted[place])
    }

    fn place(&self, address: Address) -> Option<usize> {
        self.devices.binary_search_by_key(&address, |device| device.address).ok()
    }
}

/// What became of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It has come.
    Added,
    /// It has gone.
    Removed,
    /// It is on another driver, or in another group.
    Changed,
    /// It was there, and has become one of those that are shown.
    Listed,
    /// It is there, and no longer one of those that are shown.
    Unlisted,
}

/// A change, and the device before and after it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Change<'a> {
    /// Where it is.
    pub address: Address,
    /// What became of it.
    pub kind: Kind,
    /// As it was; `None`: it was not there.
    pub before: Option<&'a Device>,
    /// As it is; `None`: it is gone.
    pub after: Option<&'a Device>,
}

/// What has changed of those that are shown, in bus order.
pub fn changes<'a>(before: &'a Listed, after: &'a Listed) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    let shown: BTreeSet<Address> = before.wanted().chain(after.wanted()).map(|device| device.address).collect();
    for address in shown {
        let (was, is) = (before.get(address), after.get(address));
        let mut add = |kind, before, after| changes.push(Change { address, kind, before, after });
        match (was, is, before.has(address), after.has(address)) {
            // Whatever is there now, it is another device.
            (Some(old), Some(new), was_shown, is_shown) if (&old.modalias, old.pf) != (&new.modalias, new.pf) => {
                if was_shown {
                    add(Kind::Removed, was, None);
                }
                if is_shown {
                    add(Kind::Added, None, is);
                }
            }
            (Some(old), Some(new), true, true) => {
                if (&old.driver, old.iommu_group) != (&new.driver, new.iommu_group) {
                    add(Kind::Changed, was, is);
                }
            }
            (Some(_), Some(_), false, _) => add(Kind::Listed, was, is),
            (Some(_), Some(_), true, false) => add(Kind::Unlisted, was, is),
            (None, _, _, _) => add(Kind::Added, None, is),
            (Some(_), None, _, _) => add(Kind::Removed, was, None),
        }
    }
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel_name::DriverName;

    const VF: &str = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00";
    const NVME: &str = "pci:v0000144Dd0000A824sv0000144Dsd0000A801bc01sc08i02";

    /// Devices as `FUNCTION MODALIAS DRIVER GROUP`; one whose line begins with `!` is not shown.
    fn listed(lines: &[&str]) -> Listed {
        let mut listed = Listed::default();
        for line in lines {
            let words: Vec<&str> = line.trim_start_matches('!').split(' ').collect();
            let [function, modalias, driver, group] = words.as_slice() else { panic!("{line}") };
            let address: Address = format!("0000:3b:00.{function}").parse().unwrap();
            listed.devices.push(Device {
                address,
                modalias: modalias.parse().unwrap(),
                driver: (*driver != "-").then(|| DriverName::from_kernel(driver.to_string())),
                iommu_group: group.parse().ok(),
                pf: None,
                vfs: Vec::new(),
            });
            listed.is_wanted.push(!line.starts_with('!'));
        }
        listed
    }

    #[test]
    fn what_two_listings_say() {
        let vf = |driver: &str| format!("1 {VF} {driver} 7");
        let hidden = |driver: &str| format!("!1 {VF} {driver} 7");
        type Case<'a> = (&'a str, &'a [String], &'a [String], &'a [Kind]);
        let cases: [Case; 12] = [
            ("nothing", &[vf("mlx5_core")], &[vf("mlx5_core")], &[]),
            ("another driver", &[vf("mlx5_core")], &[vf("vfio-pci")], &[Kind::Changed]),
            ("none any more", &[vf("mlx5_core")], &[vf("-")], &[Kind::Changed]),
            ("another group", &[vf("-")], &[format!("1 {VF} - 8")], &[Kind::Changed]),
            ("one has come", &[], &[vf("-")], &[Kind::Added]),
            ("one has gone", &[vf("-")], &[], &[Kind::Removed]),
            ("another device at its place", &[vf("-")], &[format!("1 {NVME} - 7")], &[Kind::Removed, Kind::Added]),
            ("another that is not shown", &[vf("-")], &[format!("!1 {NVME} - 7")], &[Kind::Removed]),
            ("it has come to match", &[hidden("mlx5_core")], &[vf("vfio-pci")], &[Kind::Listed]),
            ("it matches no longer", &[vf("vfio-pci")], &[hidden("mlx5_core")], &[Kind::Unlisted]),
            ("what is not shown changes", &[hidden("mlx5_core")], &[hidden("-")], &[]),
            ("what is not shown comes and goes", &[hidden("-")], &[format!("!2 {VF} - 8")], &[]),
        ];
        for (what, before, after, expected) in cases {
            let lines = |lines: &[String]| listed(&lines.iter().map(String::as_str).collect::<Vec<_>>());
            let (before, after) = (lines(before), lines(after));
            let found = changes(&before, &after);
            assert_eq!(found.iter().map(|change| change.kind).collect::<Vec<_>>(), expected, "{what}");
            for change in found {
                assert_eq!(change.before.is_none(), change.kind == Kind::Added, "{what}");
                assert_eq!(change.after.is_none(), change.kind == Kind::Removed, "{what}");
            }
        }
    }

    #[test]
    fn changes_come_in_bus_order() {
        let before = listed(&[&format!("0 {VF} a 1"), &format!("1 {VF} a 2"), &format!("3 {VF} a 3")]);
        let after = listed(&[&format!("0 {VF} b 1"), &format!("2 {VF} a 4"), &format!("3 {VF} b 3")]);
        let functions: Vec<String> =
            changes(&before, &after).iter().map(|change| format!("{:?} {}", change.kind, change.address)).collect();
        let expected = ["Changed 0000:3b:00.0", "Removed 0000:3b:00.1", "Added 0000:3b:00.2", "Changed 0000:3b:00.3"];
        assert_eq!(functions, expected);
    }
}
