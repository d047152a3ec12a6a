// SPDX-License-Identifier: MIT OR Apache-2.0
//! Making and unmaking VFs (drivers/pci/iov.c).

use std::collections::BTreeMap;

use super::address::Address;
use super::device::{Binding, Device};
use super::errno::{Errno, Result};
use super::host::Host;
use super::ids::Ids;
use super::tree::Node;

impl Host {
    /// How many VFs a PF can have, with the driver that it is on.
    pub(super) fn max_vfs(&self, pf: Address) -> Result<u16> {
        let device = self.device(pf)?;
        let total = device.sriov.as_ref().ok_or(Errno::ENODEV)?.total;
        let driver = device.binding.driver().and_then(|driver| self.driver(driver));
        Ok(driver.and_then(|driver| driver.max_vfs).map_or(total, |most| total.min(most)))
    }

    /// Adds the next VF of a PF, without probing it.
    pub(super) fn add_vf(&mut self, pf: Address) -> Result<Address> {
        let device = self.device(pf)?;
        let sriov = device.sriov.as_ref().ok_or(Errno::ENOENT)?;
        let index = sriov.vfs.len();
        let distance = u32::from(sriov.offset) + u32::from(sriov.stride) * index as u32;
        let address = pf.offset(distance).ok_or(Errno::ENOMEM)?;
        if self.device(address).is_ok() {
            return Err(Errno::EEXIST);
        }
        // A VF hangs beside its PF whichever bus it is on (pci_iov_add_virtfn: virtfn->dev.parent = dev->dev.parent).
        let (parent, _) = device.path.rsplit_once('/').ok_or(Errno::ENODEV)?;
        let path = format!("{parent}/{address}");
        let ids = Ids { device: sriov.vf_device, ..device.ids };
        // The core's sriov_configure names its own driver for the VFs (vfio_pci_core.c, vfio_pci_bus_notifier).
        let vfio = device.binding.driver() == Some("vfio-pci");
        let vf = Device {
            address,
            birth: 0,
            path: path.clone(),
            ids,
            bridge: false,
            driver_override: vfio.then(|| b"vfio-pci".to_vec()),
            binding: Binding::Unbound,
            enabled: 0,
            group: None,
            cohort: None,
            vfio_dev: None,
            physfn: Some(pf),
            sriov: None,
            uevent: uevent(address, &ids),
            shelf: BTreeMap::new(),
        };
        let mut node = files(self.tree().get(&device.path).ok_or(Errno::ENODEV)?, &ids);
        let (pf_path, group) = (device.path.clone(), self.group_template(device.group));
        node.insert("physfn", Node::Link(format!("../{pf}")));
        self.add_device(vf, node, group.as_ref());
        self.tree_mut().link(&format!("{pf_path}/virtfn{index}"), &path);
        if let Some(sriov) = &mut self.device_mut(pf)?.sriov {
            sriov.vfs.push(address);
        }
        Ok(address)
    }

    /// Takes the links between a PF and one of its VFs away, before the VF goes (pci_iov_remove_virtfn).
    pub(super) fn unlink_vf(&mut self, vf: Address) {
        let Ok(device) = self.device(vf) else { return };
        let (vf_path, pf) = (device.path.clone(), device.physfn);
        let Some(Ok(pf)) = pf.map(|pf| self.device_mut(pf)) else {
            return;
        };
        let Some(sriov) = &mut pf.sriov else { return };
        let Some(index) = sriov.vfs.iter().position(|address| *address == vf) else {
            return;
        };
        sriov.vfs.remove(index);
        let pf_path = pf.path.clone();
        let Some(node) = self.tree_mut().get_mut(&pf_path) else {
            return;
        };
        // Links keep their numbers: find the one that leads to this VF.
        let target = format!("../{vf}");
        let leads = |node: &Node| matches!(node, Node::Link(link) if *link == target);
        let name = node.entries().find(|(name, node)| name.starts_with("virtfn") && leads(node));
        if let Some(name) = name.map(|(name, _)| name.to_owned()) {
            node.remove(&name);
        }
        self.tree_mut().remove(&format!("{vf_path}/physfn"));
    }
}

/// What a VF's directory holds when it appears.
fn files(pf: &Node, ids: &Ids) -> Node {
    let mut node = Node::dir();
    let mut file = |name: &str, content: String| node.insert(name, Node::file(content));
    file("modalias", format!("{}\n", ids.modalias()));
    file("vendor", format!("{:#06x}\n", ids.vendor));
    file("device", format!("{:#06x}\n", ids.device));
    file("subsystem_vendor", format!("{:#06x}\n", ids.subvendor));
    file("subsystem_device", format!("{:#06x}\n", ids.subdevice));
    file("class", format!("{:#08x}\n", ids.class));
    file("irq", "0\n".into());
    file("enable", "0\n".into());
    file("resource", "0x0000000000000000 0x0000000000000000 0x0000000000000000\n".repeat(13));
    // A VF can be reset by itself where its PF can, as both take it from the one specification (PCIe 9.2.2.2).
    for name in ["revision", "numa_node", "reset"] {
        if let Some(same) = pf.get(name) {
            node.insert(name, same.clone());
        }
    }
    if let Some(config) = pf.content("config") {
        let mut config = config.to_vec();
        // Vendor and device read as all ones on a VF (PCIe 9.3.4.1); commands, addresses and pins as zero.
        for (byte, value) in config.iter_mut().enumerate() {
            match byte {
                0..=3 => *value = 0xff,
                4..=5 | 0x10..=0x27 | 0x30..=0x33 | 0x3c..=0x3f => *value = 0,
                _ => {}
            }
        }
        node.insert("config", Node::file(config));
    }
    node
}

/// `uevent` without the driver's line (drivers/pci/pci-driver.c, pci_uevent).
fn uevent(address: Address, ids: &Ids) -> String {
    format!(
        "PCI_CLASS={:X}\nPCI_ID={:04X}:{:04X}\nPCI_SUBSYS_ID={:04X}:{:04X}\nPCI_SLOT_NAME={address}\nMODALIAS={}\n",
        ids.class,
        ids.vendor,
        ids.device,
        ids.subvendor,
        ids.subdevice,
        ids.modalias()
    )
}
