// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a PCI device's drivers have made of it: disks, network interfaces, screens and the like, however deep below it.

use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::address::Address;
use crate::host::Host;
use crate::sysfs::{Node, ReadError};

/// A kernel object below a PCI device, of a class or a bus.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Below {
    /// The class or bus: `block`, `net`, `drm`, `input`, …
    pub subsystem: String,
    /// Its name there: `nvme0n1`, `eth0`, `card0-HDMI-A-1`, `event3`, …
    pub name: String,
    /// Its directory.
    pub path: PathBuf,
}

impl Below {
    /// Its attributes.
    pub fn node(&self) -> Node {
        Node::new(self.path.clone())
    }

    /// The number of its device node, as `MAJOR:MINOR`; `None` where it has no node.
    pub fn number(&self) -> Result<Option<String>, ReadError> {
        self.node().read_if_there("dev")
    }
}

/// All of it, sorted by path; nothing where the device is not there. Only names and links are read.
pub fn below(host: &Host, address: Address) -> Result<Vec<Below>, ReadError> {
    under(&host.device(address))
}

/// The same of any directory of a device.
pub fn under(root: &Path) -> Result<Vec<Below>, ReadError> {
    let mut found = Vec::new();
    let mut entries = WalkDir::new(root).min_depth(1).sort_by_file_name().into_iter();
    while let Some(entry) = entries.next() {
        // What goes away meanwhile is no longer in use.
        let Ok(entry) = entry else { continue };
        if !entry.file_type().is_dir() {
            continue;
        }
        let Some(subsystem) = Node::new(entry.path().to_path_buf()).link_name("subsystem")? else { continue };
        // Behind a bridge are devices in their own right, but those of a bus that a driver has made of the device go with it
        // (`drivers/pci/controller/vmd.c`). Below an interface are its queues, and there can be very many.
        if (subsystem == "pci" && entry.depth() == 1) || subsystem == "net" {
            entries.skip_current_dir();
        }
        if subsystem != "pci" {
            found.push(Below { subsystem, name: name(entry.path()), path: entry.into_path() });
        }
    }
    Ok(found)
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_below_a_device_and_no_more() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let devices = root.path().join("sys/devices/pci0000:00");
        let bridge = devices.join("0000:00:1c.0");
        for (path, subsystem) in [
            ("0000:00:1c.0", "bus/pci"),
            ("0000:00:1c.0/pci_bus/0000:01", "class/pci_bus"),
            ("0000:00:1c.0/0000:01:00.0", "bus/pci"),
            ("0000:00:1c.0/0000:01:00.0/nvme/nvme0", "class/nvme"),
            ("0000:00:1c.0/0000:01:00.0/nvme/nvme0/nvme0n1", "class/block"),
            ("0000:00:1c.0/0000:01:00.0/nvme/nvme0/nvme0n1/nvme0n1p1", "class/block"),
            ("0000:00:1c.0/0000:01:00.0/net/eth0", "class/net"),
            ("0000:00:0e.0", "bus/pci"),
            ("0000:00:0e.0/pci10000:e0/10000:e0:06.0", "bus/pci"),
            ("0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0", "bus/pci"),
            ("0000:00:0e.0/pci10000:e0/10000:e0:06.0/10000:e1:00.0/nvme/nvme1", "class/nvme"),
            ("0000:00:1c.0/0000:01:00.0/net/eth0/queues/rx-0", "class/queues"),
        ] {
            fs::create_dir_all(devices.join(path)).unwrap();
            symlink(format!("/sys/{subsystem}"), devices.join(path).join("subsystem")).unwrap();
        }
        fs::create_dir_all(bridge.join("0000:01:00.0/power")).unwrap();
        fs::create_dir_all(host.devices()).unwrap();
        for name in ["0000:00:0e.0", "0000:00:1c.0", "0000:00:1c.0/0000:01:00.0"] {
            let link = host.devices().join(Path::new(name).file_name().unwrap());
            symlink(devices.join(name), link).unwrap();
        }
        let names = |address: &str| -> Vec<(String, String)> {
            let found = below(&host, address.parse().unwrap()).unwrap();
            found.into_iter().map(|below| (below.subsystem, below.name)).collect()
        };
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(subsystem, name)| (subsystem.to_string(), name.to_string())).collect()
        };
        assert_eq!(
            names("0000:01:00.0"),
            pairs(&[("net", "eth0"), ("nvme", "nvme0"), ("block", "nvme0n1"), ("block", "nvme0n1p1")])
        );
        assert_eq!(names("0000:00:1c.0"), pairs(&[("pci_bus", "0000:01")]));
        assert_eq!(names("0000:00:0e.0"), pairs(&[("nvme", "nvme1")]));
        assert_eq!(names("0000:99:00.0"), []);
    }
}
