// SPDX-License-Identifier: MIT OR Apache-2.0
//! What would keep a domain from starting, as far as one of its devices is concerned.

use std::fs;

use super::version::Version;
use super::xml::HostDevice;
use crate::file;
use crate::guard::Holder;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::outcome::{Failure, Kind};
use crate::plan::{Facts, Sibling};

/// How things stand with a device that a domain asks for.
#[derive(Debug)]
pub struct Situation<'a> {
    /// What the domain asks for.
    pub asked: &'a HostDevice,
    /// The device; of its siblings those that the domain does not ask for as well.
    pub facts: &'a Facts,
    /// libvirt's version.
    pub version: Version,
    /// The driver that it would be on.
    pub driver: &'a DriverName,
    /// Is the hook there to bind it?
    pub has_hook: bool,
    /// The domain that has it.
    pub owner: Option<&'a str>,
    /// Is it the very domain that is asked about?
    pub is_own: bool,
    /// Why libvirt cannot choose a driver.
    pub no_choice: Option<String>,
}

impl Situation<'_> {
    /// What keeps the domain from having it, beyond what keeps it from being bound. Pure.
    pub fn obstacle(&self) -> Option<Failure> {
        let Situation { asked, facts, version, driver, .. } = self;
        let address = asked.address;
        if self.is_own {
            return None;
        }
        if let Some(owner) = self.owner {
            let message = format!("{address}: domain {owner} has it");
            return Some(Failure::new(Kind::Unsafe, message, "a device is for one guest at a time"));
        }
        if !facts.holders.is_empty() {
            let holders: Vec<String> = facts.holders.iter().map(Holder::to_string).collect();
            let message = format!("{address} is in use: {}", holders.join(", "));
            return Some(Failure::new(Kind::Unsafe, message, "stop that VM or program first"));
        }
        if let Some(why) = self.no_choice.as_ref().filter(|_| asked.is_managed && asked.model.is_none()) {
            return Some(Failure::new(
                Kind::Failed,
                format!("{address}: {why}"),
                "'depmod -a' writes modules.alias anew; with <driver model='vfio-pci'/> libvirt does not read it",
            ));
        }
        if !asked.is_managed && !self.has_hook && !facts.is_vfio_device {
            return Some(Failure::new(
                Kind::Unsafe,
                format!("{address}: with managed='no' libvirt takes it only if it is on a VFIO driver already"),
                format!("'vfioctl bind {address}', or install the hook, or write managed='yes'"),
            ));
        }
        if !asked.is_managed && !version.accepts_variants() && driver.as_str() != "vfio-pci" {
            return Some(Failure::new(
                Kind::Unsafe,
                format!("{address}: libvirt {version} does not know that {driver} is a VFIO driver"),
                "bind it to vfio-pci, or update libvirt to 9.7 or newer",
            ));
        }
        let blockers: Vec<String> = facts.blockers().map(Sibling::to_string).collect();
        let group = facts.group.as_ref().filter(|_| !blockers.is_empty())?;
        Some(Failure::new(
            Kind::Unsafe,
            format!(
                "{address}: IOMMU group {} also holds {}: QEMU could not open it",
                group.number,
                blockers.join(", ")
            ),
            "give these to the guest as well, or bind them to vfio-pci, or unbind them",
        ))
    }
}

/// Is there a hook of ours that libvirt would call?
pub fn is_hook_installed(host: &Host) -> bool {
    let [single, directory] = host.libvirt_hooks();
    let more = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut scripts = std::iter::once(single).chain(more);
    scripts
        .any(|path| file::read_to_string(&path, file::SETTINGS).is_ok_and(|text| text.contains("vfioctl libvirt hook")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libvirt::Element;
    use crate::plan::Sibling;
    use crate::sysfs::{Device, Group};

    fn facts() -> Facts {
        Facts {
            device: Device {
                address: "0000:3b:00.1".parse().unwrap(),
                modalias: "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00".parse().unwrap(),
                driver: None,
                iommu_group: Some(7),
                pf: None,
                vfs: Vec::new(),
            },
            driver_override: None,
            is_vfio_device: false,
            vfio_devices: Vec::new(),
            group: Some(Group { number: 7, ..Group::default() }),
            siblings: Vec::new(),
            holders: Vec::new(),
            findings: Vec::new(),
            may_lack_iommu: false,
        }
    }

    fn obstacle(is_managed: bool, facts: &Facts, change: impl FnOnce(&mut Situation<'_>)) -> Option<String> {
        let asked = HostDevice {
            address: facts.device.address,
            element: Element::Hostdev,
            is_managed,
            model: None,
            other_backend: None,
            line: 5,
        };
        let driver = "mlx5_vfio_pci".parse().unwrap();
        let mut situation = Situation {
            asked: &asked,
            facts,
            version: Version::new(11, 3, 0),
            driver: &driver,
            has_hook: true,
            owner: None,
            is_own: false,
            no_choice: None,
        };
        change(&mut situation);
        situation.obstacle().map(|failure| failure.message)
    }

    fn sibling(driver: &str) -> Sibling {
        Sibling {
            address: "0000:3b:00.2".parse().unwrap(),
            driver: Some(driver.parse().unwrap()),
            is_vfio_device: false,
        }
    }

    #[test]
    fn what_keeps_a_domain_from_starting() {
        let free = facts();
        let bound = Facts { is_vfio_device: true, ..facts() };
        let (command, node) = ("qemu".to_string(), Some("/dev/vfio/7".into()));
        let holder = Holder { pid: 41, command, node, has_device: Some(true) };
        let held = Facts { holders: vec![holder], ..bound.clone() };
        let shared = Facts { siblings: vec![sibling("nouveau")], ..facts() };
        let harmless = Facts { siblings: vec![sibling("pcieport")], ..facts() };
        let old = |situation: &mut Situation<'_>| situation.version = Version::new(9, 0, 0);
        type Case<'a> = (bool, &'a Facts, &'a dyn Fn(&mut Situation<'_>), Option<&'a str>);
        let cases: [Case<'_>; 13] = [
            (true, &free, &|_| {}, None),
            (false, &free, &|_| {}, None),
            (false, &free, &|s| s.has_hook = false, Some("only if it is on a VFIO driver")),
            (true, &free, &|s| s.has_hook = false, None),
            (false, &bound, &|s| s.has_hook = false, None),
            (false, &bound, &old, Some("libvirt 9.0.0 does not know")),
            (true, &bound, &old, None),
            (true, &held, &|_| {}, Some("qemu (pid 41)")),
            (true, &held, &|s| s.is_own = true, None),
            (true, &free, &|s| s.owner = Some("other"), Some("domain other has it")),
            (true, &harmless, &|_| {}, None),
            (true, &free, &|s| s.no_choice = Some("no table".to_string()), Some("0000:3b:00.1: no table")),
            (false, &free, &|s| s.no_choice = Some("no table".to_string()), None),
        ];
        for (index, (is_managed, facts, change, expected)) in cases.into_iter().enumerate() {
            let obstacle = obstacle(is_managed, facts, change);
            match expected {
                None => assert_eq!(obstacle, None, "case {index}"),
                Some(part) => {
                    assert!(obstacle.as_ref().is_some_and(|text| text.contains(part)), "case {index}: {obstacle:?}")
                }
            }
        }
        let text = obstacle(true, &shared, |_| {}).unwrap();
        assert!(text.contains("IOMMU group 7 also holds 0000:3b:00.2 on nouveau"), "{text}");
    }

    #[test]
    fn our_hook_among_others() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        assert!(!is_hook_installed(&host));
        let [single, directory] = host.libvirt_hooks();
        fs::create_dir_all(&directory).unwrap();
        fs::write(&single, "#!/bin/sh\nexit 0\n").unwrap();
        assert!(!is_hook_installed(&host));
        fs::write(directory.join("50-vfioctl"), "#!/bin/sh\nexec /usr/sbin/vfioctl libvirt hook -- \"$@\"\n").unwrap();
        assert!(is_hook_installed(&host));
    }
}
