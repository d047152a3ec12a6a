// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device nodes by which a user reaches a device: those of its group, and since 6.6 its own
//! (`Documentation/driver-api/vfio.rst`, "IOMMUFD and VFIO" and "VFIO Device cdev").

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

use crate::host::Host;

/// Two nodes that are opened together: one for the device, one for the IOMMU.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pair {
    /// The group, or the device.
    pub device: PathBuf,
    /// The container, or iommufd. That it is there says nothing: the node may lack where the kernel has it all the same.
    pub iommu: Option<PathBuf>,
}

/// The nodes that are there, as the host's own processes spell them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Nodes {
    /// By the group, with a container.
    pub group: Option<Pair>,
    /// By the device's own node, with iommufd (`CONFIG_VFIO_DEVICE_CDEV`).
    pub cdev: Option<Pair>,
}

impl Nodes {
    /// The nodes of a VFIO device with this group and these names in `vfio-dev/`.
    pub fn of(host: &Host, group: Option<u32>, vfio_devices: &[String]) -> Nodes {
        let directory = host.vfio_nodes();
        let there = |path: PathBuf| path.exists().then(|| host.inside(&path));
        let pair = |device: PathBuf, iommu: &Path| Some(Pair { device, iommu: there(iommu.to_path_buf()) });
        // A group that stands in for a missing IOMMU has a name of its own (`drivers/vfio/group.c`).
        let groups = group.into_iter().flat_map(|group| [group.to_string(), format!("noiommu-{group}")]);
        let mut groups = groups.filter_map(|name| there(directory.join(name)));
        let mut devices = vfio_devices.iter().filter_map(|name| there(directory.join("devices").join(name)));
        Nodes {
            group: groups.next().and_then(|group| pair(group, &directory.join("vfio"))),
            cdev: devices.next().and_then(|device| pair(device, &host.iommufd_node())),
        }
    }

    fn pairs(&self) -> impl Iterator<Item = Vec<String>> {
        let paths = |pair: &Pair| {
            let paths = std::iter::once(&pair.device).chain(&pair.iommu);
            paths.map(|path| path.display().to_string()).collect()
        };
        self.group.iter().chain(&self.cdev).map(paths)
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.group.is_none() && self.cdev.is_none()
    }
}

/// `/dev/vfio/7 and /dev/vfio/vfio, or /dev/vfio/devices/vfio0 and /dev/iommu`
impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs: Vec<String> = self.pairs().map(|paths| paths.join(" and ")).collect();
        f.write_str(&pairs.join(", or "))
    }
}

/// A list of them all.
impl Serialize for Nodes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.pairs().flatten())
    }
}

/// Does this group stand in for a missing IOMMU?
pub fn is_noiommu(group: &Path) -> bool {
    group.file_name().is_some_and(|name| name.to_string_lossy().starts_with("noiommu-"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_there() {
        let group = "/dev/vfio/7";
        let all = ["/dev/vfio/7", "/dev/vfio/vfio", "/dev/vfio/devices/vfio0", "/dev/iommu"];
        for (there, expected) in [
            (&[][..], &[][..]),
            (&["vfio/7"], &[group]),
            (&["vfio/7", "vfio/vfio", "vfio/8"], &all[..2]),
            (&["vfio/7", "vfio/vfio", "vfio/devices/vfio1", "iommu"], &all[..2]),
            (&["vfio/7", "vfio/vfio", "vfio/devices/vfio0", "iommu"], &all[..]),
            (&["vfio/vfio", "vfio/devices/vfio0", "iommu"], &all[2..]),
            (&["vfio/noiommu-7", "vfio/vfio"], &["/dev/vfio/noiommu-7", "/dev/vfio/vfio"]),
            (&["vfio/vfio", "iommu"], &[]),
        ] {
            let root = tempfile::tempdir().unwrap();
            for name in there {
                let path = root.path().join("dev").join(name);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            }
            let host = Host::new(root.path(), None).unwrap();
            let nodes = Nodes::of(&host, Some(7), &["vfio0".to_string()]);
            assert_eq!(serde_json::to_value(&nodes).unwrap(), serde_json::json!(expected), "{there:?}");
            assert_eq!(nodes.is_empty(), expected.is_empty());
            if expected.len() == 4 {
                let text = "/dev/vfio/7 and /dev/vfio/vfio, or /dev/vfio/devices/vfio0 and /dev/iommu";
                assert_eq!(nodes.to_string(), text);
            }
        }
        assert!(is_noiommu(Path::new("/dev/vfio/noiommu-7")) && !is_noiommu(Path::new("/dev/vfio/7")));
    }
}
