// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that hold a device through VFIO. Taking its driver away would wait for them, in the kernel and for ever
//! (`drivers/vfio/vfio_main.c`, `vfio_unregister_group_dev`), so they are looked for first.

use std::fs;
use std::path::{Path, PathBuf};

use crate::host::Host;

/// A process with a VFIO node open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// The node, as the process sees it.
    pub node: PathBuf,
}

/// The processes that have the group's node open, or the node of one of its VFIO devices named `vfio_devices`.
///
/// What a caller may not see (another user's processes) is not found: the kernel has the last word.
pub fn holders(host: &Host, group: Option<u32>, vfio_devices: &[String]) -> Vec<Holder> {
    // As a process names them: below its own root, whatever ours is.
    let nodes = Path::new("/dev/vfio");
    let wanted: Vec<PathBuf> = group
        .iter()
        .flat_map(|group| [nodes.join(group.to_string()), nodes.join(format!("noiommu-{group}"))])
        .chain(vfio_devices.iter().map(|name| nodes.join("devices").join(name)))
        .collect();
    let Ok(processes) = fs::read_dir(host.processes()) else { return Vec::new() };
    let mut holders: Vec<Holder> = Vec::new();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // It may end at any moment, or be another user's.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let open = descriptors.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        if let Some(node) = open.into_iter().find(|target| wanted.contains(target)) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            // A process names itself; what would steer a terminal is left out.
            let command = command.chars().filter(|c| !c.is_control()).collect();
            holders.push(Holder { pid, command, node });
        }
    }
    holders.sort_by_key(|holder| holder.pid);
    holders
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn who_holds_what() {
        let root = tempfile::tempdir().unwrap();
        for (pid, command, target) in [
            ("41", "qemu-system-x86", "/dev/vfio/7"),
            ("42", "other-vm", "/dev/vfio/8"),
            ("43", "new-vm", "/dev/vfio/devices/vfio0"),
            ("44", "shell", "/dev/null"),
        ] {
            let process = root.path().join("proc").join(pid);
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::write(process.join("comm"), format!("{command}\n")).unwrap();
            symlink("/dev/vfio/vfio", process.join("fd/3")).unwrap();
            symlink(target, process.join("fd/4")).unwrap();
        }
        fs::create_dir_all(root.path().join("proc/sys")).unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let found = holders(&host, Some(7), &["vfio0".to_string()]);
        let found: Vec<(u32, &str)> = found.iter().map(|holder| (holder.pid, holder.command.as_str())).collect();
        assert_eq!(found, [(41, "qemu-system-x86"), (43, "new-vm")]);
        assert!(holders(&host, None, &[]).is_empty());
    }
}
