// SPDX-License-Identifier: MIT OR Apache-2.0
//! What driverctl keeps: `/etc/driverctl.d/BUS-DEVICE`, whose content is the driver's name.
//!
//! driverctl's udev rule looks for a file of exactly that name, so for each device the file that is there says whose it
//! is: driverctl's while it stands, and ours once it is set aside. One rename decides, and nothing in between is both.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::store::{StoreError, sync_directory};
use super::trust;
use crate::address::Address;
use crate::file;
use crate::host::Host;
use crate::kernel_name::DriverName;

/// What comes before the name of a file that was set aside. No bus is called so, and driverctl lists by `BUS-*`.
const ASIDE: &str = "imported-by-vfioctl.";

/// A PCI device's override, as driverctl keeps it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Override {
    /// The device.
    pub address: Address,
    /// The driver it is to have.
    pub driver: DriverName,
    /// The file.
    pub path: PathBuf,
}

/// A file that is nothing for vfioctl.
#[derive(Clone, PartialEq, Eq, Debug, serde::Serialize)]
pub struct Other {
    /// The file.
    pub path: PathBuf,
    /// Why it is left alone.
    pub reason: String,
}

/// The file by which driverctl lays claim to a device, if there is one. It takes no notice of an empty one.
pub fn claim(host: &Host, address: Address) -> Option<PathBuf> {
    let path = host.driverctl_directory().join(format!("pci-{address}"));
    path.metadata().is_ok_and(|data| data.is_file() && data.len() > 0).then_some(path)
}

/// All that driverctl keeps for PCI devices, by address, and the files that are something else.
pub fn read(host: &Host) -> io::Result<(Vec<Override>, Vec<Other>)> {
    let (mut overrides, mut others) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(host.driverctl_directory()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((overrides, others)),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(ASIDE) || name.starts_with('.') || !path.is_file() {
            continue;
        }
        match parse(host, &name, &path) {
            Ok(found) => overrides.push(found),
            Err(reason) => others.push(Other { path, reason }),
        }
    }
    overrides.sort_by_key(|found| found.address);
    others.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((overrides, others))
}

fn parse(host: &Host, name: &str, path: &Path) -> Result<Override, String> {
    let address = address(name)?;
    let unread = |error: io::Error| format!("cannot be read: {error}");
    let mut opened = file::open(path).map_err(unread)?;
    trust::check(host, &opened, path)
        .map_err(|distrust| format!("others than root could change it: {distrust}; {}", distrust.hint()))?;
    let text = file::read_open(&mut opened, file::SETTINGS).and_then(file::text).map_err(unread)?;
    Ok(Override { address, driver: driver(&text)?, path: path.to_path_buf() })
}

/// The device that a file of this name is about; an error says why it is about none.
pub fn address(name: &str) -> Result<Address, String> {
    let Some((bus, device)) = name.split_once('-') else {
        return Err("not named as driverctl names its files".to_string());
    };
    if bus != "pci" {
        return Err(format!("a device of bus {bus}: vfioctl is for PCI devices, and leaves it to driverctl"));
    }
    // Other spellings are never looked for.
    device.parse::<Address>().ok().filter(|address| address.to_string() == device).ok_or_else(|| {
        "not the name of a PCI device as the kernel spells it: driverctl itself takes no notice".to_string()
    })
}

/// The driver that a file with this content is for; an error says why it is for none.
pub fn driver(text: &str) -> Result<DriverName, String> {
    let text = text.trim_end_matches('\n');
    if text.is_empty() {
        return Err("empty: driverctl itself takes no notice".to_string());
    }
    text.parse().map_err(|error| format!("{error}"))
}

/// The name a file gets that is set aside.
pub fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{ASIDE}{name}"))
}

/// Puts a file where driverctl does not look for it, and where it can be taken back from.
pub fn set_aside(path: &Path) -> Result<(), StoreError> {
    fs::rename(path, aside(path)).and_then(|()| sync_directory(path)).map_err(|source| StoreError {
        action: "rename",
        path: path.to_path_buf(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        fs::create_dir_all(host.driverctl_directory()).unwrap();
        for (name, text) in files {
            fs::write(host.driverctl_directory().join(name), text).unwrap();
        }
        (root, host)
    }

    #[test]
    fn files_are_told_apart() {
        let (_root, host) = host(&[
            ("pci-0000:3b:00.2", "none\n"),
            ("pci-0000:3b:00.1", "vfio-pci\n"),
            ("pci-10000:e1:00.0", "vfio-pci"),
            ("pci-3b:00.1", "vfio-pci\n"),
            ("pci-0000:3B:00.4", "vfio-pci\n"),
            ("pci-0000:3b:00.3", ""),
            ("pci-0000:3b:00.5", "two words\n"),
            ("usb-1-1", "usbip-host\n"),
            ("README", "x\n"),
            (".pci-0000:3b:00.6.swp", "x\n"),
            ("imported-by-vfioctl.pci-0000:3b:00.7", "vfio-pci\n"),
        ]);
        fs::create_dir(host.driverctl_directory().join("pci-0000:3b:00.0")).unwrap();
        let (overrides, others) = read(&host).unwrap();
        let shown: Vec<String> = overrides.iter().map(|found| format!("{} {}", found.address, found.driver)).collect();
        assert_eq!(shown, ["0000:3b:00.1 vfio-pci", "0000:3b:00.2 none", "10000:e1:00.0 vfio-pci"]);
        let reasons: Vec<(String, &str)> = others
            .iter()
            .map(|other| (other.path.file_name().unwrap().to_string_lossy().into_owned(), other.reason.as_str()))
            .collect();
        let expected = [
            ("README", "not named"),
            ("pci-0000:3B:00.4", "spells"),
            ("pci-0000:3b:00.3", "empty"),
            ("pci-0000:3b:00.5", "not a name"),
            ("pci-3b:00.1", "spells"),
            ("usb-1-1", "bus usb"),
        ];
        assert_eq!(reasons.len(), expected.len(), "{reasons:?}");
        for ((name, reason), (file, word)) in reasons.iter().zip(expected) {
            assert_eq!(name, file);
            assert!(reason.contains(word), "{name}: {reason}");
        }
    }

    #[test]
    fn a_file_claims_its_device_until_it_is_set_aside() {
        let (_root, host) = host(&[("pci-0000:3b:00.1", "vfio-pci\n"), ("pci-0000:3b:00.2", "")]);
        let [one, empty] = ["0000:3b:00.1", "0000:3b:00.2"].map(|text| text.parse().unwrap());
        let path = claim(&host, one).unwrap();
        assert_eq!(claim(&host, empty), None);
        set_aside(&path).unwrap();
        assert_eq!(claim(&host, one), None);
        assert_eq!(fs::read_to_string(aside(&path)).unwrap(), "vfio-pci\n");
        assert!(read(&host).unwrap().0.is_empty());
        assert!(set_aside(&path).unwrap_err().to_string().contains("cannot rename"));
    }

    #[test]
    fn no_directory_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        assert_eq!(read(&host).unwrap(), (Vec::new(), Vec::new()));
        assert_eq!(claim(&host, "0000:3b:00.1".parse().unwrap()), None);
    }
}
