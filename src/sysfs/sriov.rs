// SPDX-License-Identifier: MIT OR Apache-2.0
//! PFs: what they have, and where their VFs are, told by the PF alone. A VF is announced before it is linked to its PF (`drivers/pci/iov.c`,
//! `pci_iov_add_virtfn`: first `pci_device_add`, then `pci_iov_sysfs_link`), and who hears of it may be faster.

use super::node::{Directory, Node, ReadError};
use crate::address::Address;
use crate::host::Host;

/// A PF and the VFs it has. Nothing that is read for it waits for the PF's lock, as a read of `sriov_numvfs` does
/// (`drivers/pci/iov.c`, `sriov_numvfs_show`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pf {
    /// Where it is.
    pub address: Address,
    /// The VFs it can have.
    pub range: VfRange,
    /// Are VFs probed when they appear (`sriov_drivers_autoprobe`)? Without an override, that is: one with it may always be.
    pub is_autoprobed: bool,
    /// Its VFs with their numbers.
    pub vfs: Vec<(u16, Address)>,
}

impl Pf {
    /// Reads one; `None` where there is no PF at that address.
    pub fn read(host: &Host, address: Address) -> Result<Option<Pf>, ReadError> {
        let Some(range) = VfRange::read(host, address)? else { return Ok(None) };
        let node = Node::new(host.device(address));
        // Kernels before 4.12 have no such attribute, and probe.
        let is_autoprobed = node.read_if_there("sriov_drivers_autoprobe")?.is_none_or(|text| text != "0");
        let Some(directory) = Directory::open(host.device(address))? else { return Ok(None) };
        let mut vfs = Vec::new();
        for name in node.names_in("")? {
            let Some(number) = vf_number(&name) else { continue };
            let vf = directory.link_name(&name)?.and_then(|target| target.parse().ok());
            vfs.extend(vf.map(|vf| (number, vf)));
        }
        vfs.sort();
        Ok(Some(Pf { address, range, is_autoprobed, vfs }))
    }

    /// How many VFs there are, by the links to them; `None` where there is no device at that address.
    pub fn count(host: &Host, address: Address) -> Result<Option<usize>, ReadError> {
        let names = Node::new(host.device(address)).names_in("")?;
        let count = names.iter().filter(|name| vf_number(name).is_some()).count();
        Ok((!names.is_empty()).then_some(count))
    }

    /// All PFs, in bus order.
    pub fn list(host: &Host) -> Result<Vec<Pf>, ReadError> {
        let mut pfs = Vec::new();
        for name in Node::new(host.devices()).names_in("")? {
            if let Ok(address) = name.parse() {
                pfs.extend(Pf::read(host, address)?);
            }
        }
        pfs.sort_by_key(|pf| pf.address);
        Ok(pfs)
    }
}

/// `virtfn7`
fn vf_number(name: &str) -> Option<u16> {
    name.strip_prefix("virtfn")?.parse().ok()
}

/// The VFs that a PF has or can have. Nothing that is read for it waits for the PF's lock, which is held while VFs are made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VfRange {
    pf: Address,
    /// From the PF's routing id to that of its first VF.
    offset: u16,
    /// From one VF's to the next one's.
    stride: u16,
    /// How many there can be, with the driver that the PF is on.
    pub total: u16,
    /// The vendor of all of them: four hex digits.
    pub vendor: String,
    /// The device id of all of them: four hex digits.
    pub device: String,
}

impl VfRange {
    /// Reads a PF's; `None` where there is no PF at that address.
    pub fn read(host: &Host, pf: Address) -> Result<Option<VfRange>, ReadError> {
        let node = Node::new(host.device(pf));
        let number = |name: &str| -> Result<Option<u16>, ReadError> {
            Ok(node.read_if_there(name)?.and_then(|text| text.parse().ok()))
        };
        // Most functions are no PF.
        let Some(total) = number("sriov_totalvfs")? else { return Ok(None) };
        // `sriov_vf_device` is printed without 0x (`drivers/pci/iov.c`, `sriov_vf_device_show`).
        let (vendor, device) = (node.read_if_there("vendor")?, node.read_if_there("sriov_vf_device")?);
        let Some(((offset, stride), (vendor, device))) =
            number("sriov_offset")?.zip(number("sriov_stride")?).zip(vendor.zip(device))
        else {
            return Ok(None);
        };
        let vendor = vendor.trim_start_matches("0x").to_string();
        let device = format!("{:0>4}", device.trim_start_matches("0x"));
        Ok(Some(VfRange { pf, offset, stride, total, vendor, device }))
    }

    /// The PF whose VF the function at this address is, or `None`. For one that is not linked to its PF, as when it has just
    /// been announced: its directory lies beside its PF's already, on a machine with thousands of functions among few others
    /// (`drivers/pci/iov.c`, `pci_iov_add_virtfn`).
    pub fn pf_of(host: &Host, address: Address) -> Result<Option<Address>, ReadError> {
        let Some(beside) = Directory::open(host.device(address).join(".."))? else { return Ok(None) };
        let names = Node::new(beside.path().to_path_buf()).names_in("")?;
        let before = |pf: &Address| pf.domain() == address.domain() && pf.routing_id() < address.routing_id();
        let mut functions: Vec<Address> = names.iter().filter_map(|name| name.parse().ok()).filter(before).collect();
        // Between the two are VFs of the same PF.
        functions.sort_by(|a, b| b.cmp(a));
        for pf in functions {
            let is_pf = beside.read_if_there(&format!("{pf}/sriov_totalvfs"))?.is_some();
            if is_pf && VfRange::read(host, pf)?.is_some_and(|vfs| vfs.contains(address)) {
                return Ok(Some(pf));
            }
        }
        Ok(None)
    }

    /// Where the VFs are or will be, in their order; nothing where the PF tells that only once it has VFs.
    /// (`pci_iov_virtfn_bus`, `pci_iov_virtfn_devfn`.)
    pub fn addresses(&self) -> impl Iterator<Item = Address> + '_ {
        let first = u32::from(self.pf.routing_id()) + u32::from(self.offset);
        let total = if self.offset == 0 { 0 } else { u32::from(self.total) };
        let ids = (0..total).map_while(move |number| u16::try_from(first + u32::from(self.stride) * number).ok());
        ids.map(|id| self.pf.with_routing_id(id))
    }

    /// Is the function at this address, if there is one, a VF of the PF?
    pub fn contains(&self, address: Address) -> bool {
        self.addresses().any(|vf| vf == address)
    }
}

/// Which of its PF's VFs a function is, from 0, by the PF's `virtfn` links; `None`: it is none of them.
pub fn vf_index(host: &Host, pf: Address, vf: Address) -> Result<Option<u32>, ReadError> {
    let node = Node::new(host.device(pf));
    for name in node.names_in("")? {
        let Some(index) = name.strip_prefix("virtfn").and_then(|index| index.parse().ok()) else { continue };
        if node.link_name(&name)?.and_then(|name| name.parse().ok()) == Some(vf) {
            return Ok(Some(index));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn range(pf: &str, attributes: [(&str, &str); 5]) -> Option<VfRange> {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let pf = pf.parse().unwrap();
        fs::create_dir_all(host.device(pf)).unwrap();
        for (name, value) in attributes {
            fs::write(host.device(pf).join(name), format!("{value}\n")).unwrap();
        }
        VfRange::read(&host, pf).unwrap()
    }

    fn igb(pf: &str) -> VfRange {
        let attributes = [
            ("vendor", "0x8086"),
            ("sriov_vf_device", "10ca"),
            ("sriov_totalvfs", "7"),
            ("sriov_offset", "128"),
            ("sriov_stride", "2"),
        ];
        range(pf, attributes).unwrap()
    }

    #[test]
    fn vfs_of_one_function_are_not_those_of_the_next() {
        let [first, second] = ["0000:06:00.0", "0000:06:00.1"].map(igb);
        let cases = [
            ("0000:06:10.0", true, false),
            ("0000:06:10.1", false, true),
            ("0000:06:11.4", true, false),
            ("0000:06:11.6", false, false),
            ("0000:06:00.0", false, false),
            ("0000:07:10.0", false, false),
            ("0001:06:10.0", false, false),
        ];
        for (address, is_first, is_second) in cases {
            let address = address.parse().unwrap();
            assert_eq!((first.contains(address), second.contains(address)), (is_first, is_second), "{address}");
        }
        assert_eq!((first.vendor.as_str(), first.device.as_str()), ("8086", "10ca"));
    }

    #[test]
    fn vfs_go_on_to_the_next_bus() {
        let attributes = [
            ("vendor", "0x15b3"),
            ("sriov_vf_device", "101e"),
            ("sriov_totalvfs", "300"),
            ("sriov_offset", "2"),
            ("sriov_stride", "1"),
        ];
        let range = range("0000:3b:00.0", attributes).unwrap();
        assert!(range.contains("0000:3b:1f.7".parse().unwrap()));
        assert!(range.contains("0000:3c:00.0".parse().unwrap()));
        assert!(!range.contains("0000:3d:00.0".parse().unwrap()));
    }

    #[test]
    fn the_pf_of_a_vf_is_found_without_a_link() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        fs::create_dir_all(host.devices()).unwrap();
        let add = |place: &str, address: Address| {
            let place = format!("{place}/{address}");
            fs::create_dir_all(root.path().join("sys/devices").join(&place)).unwrap();
            symlink(format!("../../../devices/{place}"), host.device(address)).unwrap();
            fs::write(host.device(address).join("vendor"), "0x8086\n").unwrap();
        };
        let [nic, first, second, vf, port, other] =
            ["0000:02:00.0", "0000:06:00.0", "0000:06:00.1", "0000:06:10.1", "0000:00:1c.0", "0000:06:10.3"]
                .map(|text| text.parse().unwrap());
        for (place, address) in [
            ("pci0000:00", port),
            ("pci0000:00/0000:00:1c.0", nic),
            ("pci0000:00/0000:00:1d.0", first),
            ("pci0000:00/0000:00:1d.0", second),
            ("pci0000:00/0000:00:1d.0", vf),
            // Of this number, but not on this PF's port.
            ("pci0000:00/0000:00:1c.0", other),
        ] {
            add(place, address);
        }
        for pf in [first, second] {
            for (name, value) in [("vf_device", "10ca"), ("totalvfs", "7"), ("offset", "128"), ("stride", "2")] {
                fs::write(host.device(pf).join(format!("sriov_{name}")), format!("{value}\n")).unwrap();
            }
        }
        let pfs = [nic, first, port, other, vf].map(|address| VfRange::pf_of(&host, address).unwrap());
        assert_eq!(pfs, [None, None, None, None, Some(second)]);
        assert_eq!(VfRange::pf_of(&host, "0000:06:10.5".parse().unwrap()).unwrap(), None, "it is not there");
    }

    #[test]
    fn what_is_no_pf_has_none() {
        let attributes = [("vendor", "0x8086"), ("device", "0x10d3"), ("class", ""), ("revision", ""), ("irq", "")];
        assert_eq!(range("0000:02:00.0", attributes), None);
    }
}
