// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that hold a device through VFIO. Taking its driver away would wait for them, in the kernel and for ever
//! (`drivers/vfio/vfio_main.c`, `vfio_unregister_group_dev`), so they are looked for first.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::address::Address;
use crate::fresh::Fresh;
use crate::host::Host;
use crate::printable::printable;
use crate::processes::{Opener, is_ours, openers_of};

/// Where the nodes are, as a process names them: below its own root, whatever ours is.
pub const NODES: &str = "/dev/vfio";

/// What an open device is that was reached through its group (`drivers/vfio/group.c`, `vfio_device_open_file`).
pub const DEVICE: &str = "anon_inode:[vfio-device]";

/// The line of `/proc/PID/fdinfo/FD` that names an open device (`drivers/vfio/vfio_main.c`, `vfio_device_show_fdinfo`, in
/// the newest kernels).
const DEVICE_PATH: &str = "vfio-device-syspath:";

/// A process with a VFIO node open.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// The node, as the process sees it; `None` if it was handed the open device by another.
    pub node: Option<PathBuf>,
    /// Has it opened this device itself, and not another one of the group? `None` where the kernel does not tell.
    pub has_device: Option<bool>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A process names itself.
        write!(f, "{} (pid {}) has ", printable(&self.command), self.pid)?;
        match (&self.node, self.has_device) {
            (Some(node), Some(false)) => write!(f, "{} open, for another device", node.display()),
            (Some(node), _) => write!(f, "{} open", node.display()),
            (None, _) => write!(f, "the device open"),
        }
    }
}

/// A process with anything of VFIO open.
#[derive(Clone, Debug)]
pub struct User {
    pid: u32,
    command: String,
    /// What it has open, and the device that is, where the kernel tells.
    open: Vec<(PathBuf, Option<Address>)>,
}

impl User {
    /// What it has of the device, if it has anything; `wanted` are the nodes of that.
    fn holds(&self, address: Address, wanted: &[PathBuf]) -> Option<Holder> {
        let ours = || self.open.iter().filter(|(target, _)| wanted.contains(target) || target == Path::new(DEVICE));
        let node = self.open.iter().map(|(target, _)| target).find(|target| wanted.contains(target)).cloned();
        let is_told = ours().any(|(_, device)| device.is_some());
        let has_device = is_told.then(|| ours().any(|(_, device)| *device == Some(address)));
        let holder = || Holder { pid: self.pid, command: self.command.clone(), node: node.clone(), has_device };
        (node.is_some() || has_device == Some(true)).then(holder)
    }
}

/// The processes that have the group's node open, or the node of one of its VFIO devices named `vfio_devices`, or, where
/// the kernel tells, the device itself.
///
/// What a caller may not see (another user's processes) is not found: the kernel has the last word.
pub fn holders(host: &Host, address: Address, group: Option<u32>, vfio_devices: &[String]) -> Vec<Holder> {
    static USERS: Fresh<Vec<User>> = Fresh::new();
    holding(&USERS.get(&host.processes(), || users(host)), address, group, vfio_devices)
}

/// Those of `users` that hold this device: for many devices, with one look at the processes.
pub fn holding(users: &[User], address: Address, group: Option<u32>, vfio_devices: &[String]) -> Vec<Holder> {
    let nodes = Path::new(NODES);
    let wanted: Vec<PathBuf> = group
        .iter()
        .flat_map(|group| [nodes.join(group.to_string()), nodes.join(format!("noiommu-{group}"))])
        .chain(vfio_devices.iter().map(|name| nodes.join("devices").join(name)))
        .collect();
    users.iter().filter_map(|user| user.holds(address, &wanted)).collect()
}

/// Every process that has something of VFIO open.
pub fn users(host: &Host) -> Vec<User> {
    let which = |descriptor: &Path, target: &Path| {
        let is_node = target.starts_with(NODES) && (!host.is_this_machine() || is_ours(target, descriptor));
        (is_node || target == Path::new(DEVICE)).then(|| device(descriptor))
    };
    let openers = openers_of(host, which);
    let user = |open: &[(Opener, Option<Address>)]| User {
        pid: open[0].0.pid,
        command: open[0].0.command.clone(),
        open: open.iter().map(|(opener, device)| (opener.node.clone(), *device)).collect(),
    };
    openers.chunk_by(|(one, _), (other, _)| one.pid == other.pid).map(user).collect()
}

/// The device that a process has open, where the kernel tells; `descriptor` is `/proc/PID/fd/FD`.
fn device(descriptor: &Path) -> Option<Address> {
    let process = descriptor.parent()?.parent()?;
    let info = fs::read_to_string(process.join("fdinfo").join(descriptor.file_name()?)).ok()?;
    let path = info.lines().find_map(|line| line.strip_prefix(DEVICE_PATH))?;
    path.trim().rsplit('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn who_holds_what() {
        let ours = "vfio-device-syspath: /sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1";
        let twin = "vfio-device-syspath: /sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.2";
        let none = "pos:\t0\nflags:\t02000002";
        let root = tempfile::tempdir().unwrap();
        for (pid, command, open) in [
            ("41", "qemu-system-x86", &[("/dev/vfio/7", none), (DEVICE, none)][..]),
            ("42", "other-vm", &[("/dev/vfio/8", none)]),
            ("43", "new-vm", &[("/dev/vfio/devices/vfio0", ours)]),
            ("44", "shell", &[("/dev/null", none)]),
            ("45", "of-the-group", &[("/dev/vfio/7", none), (DEVICE, twin)]),
            ("46", "of-both", &[(DEVICE, ours), (DEVICE, twin), ("/dev/vfio/7", none)]),
            ("47", "handed", &[(DEVICE, ours)]),
            ("48", "handed-other", &[(DEVICE, twin)]),
        ] {
            let process = root.path().join("proc").join(pid);
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::create_dir_all(process.join("fdinfo")).unwrap();
            fs::write(process.join("comm"), format!("{command}\n")).unwrap();
            symlink("/dev/vfio/vfio", process.join("fd/3")).unwrap();
            for (number, (target, info)) in (4..).zip(open) {
                symlink(target, process.join(format!("fd/{number}"))).unwrap();
                fs::write(process.join(format!("fdinfo/{number}")), format!("{info}\n")).unwrap();
            }
        }
        fs::create_dir_all(root.path().join("proc/sys")).unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let address = "3b:00.1".parse().unwrap();
        let found = holders(&host, address, Some(7), &["vfio0".to_string()]);
        let found: Vec<String> = found.iter().map(Holder::to_string).collect();
        assert_eq!(
            found,
            [
                "qemu-system-x86 (pid 41) has /dev/vfio/7 open",
                "new-vm (pid 43) has /dev/vfio/devices/vfio0 open",
                "of-the-group (pid 45) has /dev/vfio/7 open, for another device",
                "of-both (pid 46) has /dev/vfio/7 open",
                "handed (pid 47) has the device open",
            ]
        );
        assert!(holders(&host, "99:00.0".parse().unwrap(), None, &[]).is_empty());
    }
}
