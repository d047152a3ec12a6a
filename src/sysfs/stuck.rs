// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who waits in the kernel, where, and at which device's attribute: told by /proc, for whoever else would only wait as well.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FsWord, statfs};
use serde::Serialize;

use crate::address::Address;
use crate::host::Host;
use crate::processes::{self, command};

/// How many functions of a stack are told: the first waits, the next are on whose behalf.
const DEPTH: usize = 4;

/// Where a stack goes on to what is the same for every attribute (`fs/sysfs/file.c`, `drivers/base/core.c`), or for every
/// system call.
const BELOW: [&str; 9] = [
    "kernfs_",
    "sysfs_",
    "dev_attr_",
    "seq_read",
    "vfs_",
    "do_syscall_",
    "__x64_sys_",
    "__arm64_sys_",
    "invoke_syscall",
];

/// `SYSFS_MAGIC` (`include/uapi/linux/magic.h`).
const SYSFS_MAGIC: FsWord = 0x6265_6572;

/// A process that waits in the kernel, at an attribute of sysfs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Waiter {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// The attribute, as the kernel names it; `None` where only the device is known.
    pub attribute: Option<PathBuf>,
    /// The kernel's functions it is in, the innermost first; none where the kernel does not tell the caller.
    pub within: Vec<String>,
    /// The device whose attribute it is, or on whose behalf ours writes it.
    #[serde(skip)]
    pub device: Option<Address>,
    /// Does it write on behalf of that device, as ours say by having its directory open?
    #[serde(skip)]
    is_at_work: bool,
}

impl Waiter {
    /// Does it only wait for an override's text, as older kernels have it, while others hold the device?
    pub fn is_looking(&self) -> bool {
        self.attribute.as_ref().is_some_and(|path| path.ends_with("driver_override")) && !self.is_at_work
    }
}

impl std::fmt::Display for Waiter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {}) waits in the kernel", self.command, self.pid)?;
        if let Some(attribute) = &self.attribute {
            write!(f, " at {}", attribute.display())?;
        }
        write!(f, "{}", in_words(&self.within))
    }
}

/// `, in FUNCTION, FUNCTION`, for the end of a message.
pub fn in_words(within: &[String]) -> String {
    if within.is_empty() { String::new() } else { format!(", in {}", within.join(", ")) }
}

/// The kernel's functions that a process of this machine is in, the innermost first. Root is told its stack, others at most
/// the function that waits (proc(5), `stack` and `wchan`); none where neither is, or it waits for nothing.
pub fn within(pid: u32) -> Vec<String> {
    within_of(Path::new("/proc").join(pid.to_string()).as_path())
}

fn within_of(process: &Path) -> Vec<String> {
    let stack = fs::read_to_string(process.join("stack")).unwrap_or_default();
    let told = functions(&stack);
    if !told.is_empty() {
        return told;
    }
    let wchan = fs::read_to_string(process.join("wchan")).unwrap_or_default();
    Some(wchan.trim()).filter(|name| !matches!(*name, "" | "0")).map(str::to_string).into_iter().collect()
}

/// `[<0>] vfio_unregister_group_dev+0x85/0x100 [vfio]`, a line each.
fn functions(stack: &str) -> Vec<String> {
    let names = stack.lines().filter_map(|line| {
        let name = line.split_whitespace().nth(1)?.split('+').next()?;
        // Parts that the compiler has split off are for nobody to tell apart.
        Some(name.split('.').next().unwrap_or(name))
    });
    names
        .take_while(|name| !BELOW.iter().any(|below| name.starts_with(below)))
        .take(DEPTH)
        .map(str::to_string)
        .collect()
}

/// The processes at the attribute of a PCI device or driver: those that have one open. Nobody keeps one open longer than
/// the kernel takes. Ours that work on a device have its directory open besides.
///
/// What a caller may not see (another user's processes) is not found.
pub fn waiters(host: &Host) -> Vec<Waiter> {
    let own = std::process::id();
    let tree = Tree::of(host);
    let others = processes::all(host).into_iter().filter(|(pid, _)| *pid != own);
    others
        .filter_map(|(pid, process)| {
            let (command, within) = (command(&process), within_of(&process));
            let Open { attribute, device, is_at_work } = at(&process, tree)?;
            Some(Waiter { pid, command, attribute, within, device, is_at_work })
        })
        .collect()
}

/// The same of our own processes alone: for these only names have to be looked through.
pub fn own_waiters(host: &Host) -> Vec<Waiter> {
    let ours = processes::all(host).into_iter().filter(|(_, process)| command(process) == "vfioctl");
    let tree = Tree::of(host);
    let found = ours.filter_map(|(pid, process)| {
        let Open { attribute, device, is_at_work } = at(&process, tree)?;
        let (command, within) = ("vfioctl".to_string(), within_of(&process));
        Some(Waiter { pid, command, attribute, within, device, is_at_work })
    });
    found.collect()
}

/// Does it wait there still?
pub fn is_waiting(host: &Host, waiter: &Waiter) -> bool {
    let process = processes::directory(host, waiter.pid);
    at(&process, Tree::of(host)).is_some_and(|open| open.device == waiter.device && open.attribute == waiter.attribute)
}

/// Whose devices an open file below /sys is about.
#[derive(Clone, Copy)]
enum Tree {
    /// This kernel's: in whatever network namespace it is mounted, as another file system in each, it has the same devices.
    Kernel,
    /// Those of the file system that the host has at /sys.
    Mount(u64),
    /// There is none to compare with.
    Any,
}

impl Tree {
    fn of(host: &Host) -> Tree {
        let path = host.pci_bus();
        match (statfs(&path), fs::metadata(&path)) {
            (Ok(system), _) if system.f_type == SYSFS_MAGIC => Tree::Kernel,
            (_, Ok(data)) => Tree::Mount(data.dev()),
            _ => Tree::Any,
        }
    }

    fn has(self, file: &Path) -> bool {
        match self {
            Tree::Kernel | Tree::Any => true,
            Tree::Mount(device) => fs::metadata(file).is_ok_and(|data| data.dev() == device),
        }
    }
}

/// What a process has open.
#[derive(Default)]
struct Open {
    attribute: Option<PathBuf>,
    device: Option<Address>,
    is_at_work: bool,
}

/// The attribute that a process has open, and the device that this is about.
fn at(process: &Path, tree: Tree) -> Option<Open> {
    let mut found = Open::default();
    for descriptor in fs::read_dir(process.join("fd")).ok()?.flatten() {
        let Ok(target) = fs::read_link(descriptor.path()) else { continue };
        match place(&target).filter(|_| tree.has(&descriptor.path())) {
            Some(Place::Device(_)) if is_mere_place(&descriptor.path()) => {}
            Some(Place::Device(address)) => (found.device, found.is_at_work) = (Some(address), true),
            Some(Place::Attribute(device)) => {
                (found.attribute, found.device) = (Some(target), found.device.or(device));
            }
            None => {}
        }
    }
    (found.attribute.is_some() || found.is_at_work).then_some(found)
}

/// Is a descriptor open as a place and no more (`O_PATH`), as a device's directory is while somebody looks at the device? The
/// kernel gives the link the permissions that the file was opened with, and so none (`fs/proc/fd.c`, `tid_fd_update_inode`).
fn is_mere_place(descriptor: &Path) -> bool {
    // One that is closed by now is nobody's work.
    fs::symlink_metadata(descriptor).map_or(true, |link| link.mode() & 0o700 == 0)
}

enum Place {
    /// A device's directory.
    Device(Address),
    /// An attribute: of a device, or one that is about any.
    Attribute(Option<Address>),
}

fn place(path: &Path) -> Option<Place> {
    let name = path.file_name()?.to_str()?;
    let parent = path.parent()?;
    if path.starts_with("/sys/bus/pci") {
        let is_ours = matches!(name, "bind" | "unbind" | "drivers_probe" | "new_id" | "remove_id");
        return is_ours.then_some(Place::Attribute(None));
    }
    if !path.starts_with("/sys/devices") {
        return None;
    }
    if let Ok(address) = name.parse() {
        return Some(Place::Device(address));
    }
    // What others read for long, such as `resource0` mapped, waits for nothing.
    let is_slow = matches!(
        name,
        "driver_override"
            | "uevent"
            | "sriov_numvfs"
            | "sriov_drivers_autoprobe"
            | "remove"
            | "rescan"
            | "reset"
            | "enable"
    );
    let device = parent.file_name()?.to_str()?.parse().ok()?;
    is_slow.then_some(Place::Attribute(Some(device)))
}

#[cfg(test)]
mod tests {
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::fs::symlink;

    use rustix::fs::{Mode, OFlags, open};

    use super::*;

    /// As Debian's 6.1 and 7.3 print it, and arm64.
    #[test]
    fn of_a_stack_what_matters_is_told() {
        let case = |stack: &str| functions(stack).join(" ");
        let unbind = "[<0>] vfio_unregister_group_dev+0x9a/0x110 [vfio]\n\
                      [<0>] vfio_pci_core_unregister_device+0x1d/0x90 [vfio_pci_core]\n\
                      [<0>] vfio_pci_remove+0x12/0x20 [vfio_pci]\n\
                      [<0>] pci_device_remove+0x33/0xa0\n\
                      [<0>] device_release_driver_internal+0x1a6/0x210\n\
                      [<0>] unbind_store+0x9e/0xb0\n\
                      [<0>] kernfs_fop_write_iter+0x11b/0x1f0\n";
        assert_eq!(
            case(unbind),
            "vfio_unregister_group_dev vfio_pci_core_unregister_device vfio_pci_remove pci_device_remove"
        );
        let locked =
            "[<0>] driver_override_show+0x1f/0x60\n[<0>] dev_attr_show+0x15/0x40\n[<0>] sysfs_kf_seq_show+0xa0/0xe0\n";
        assert_eq!(case(locked), "driver_override_show");
        assert_eq!(case("[<0>] foo.constprop.0+0x1/0x2\n[<0>] invoke_syscall+0x1/0x2\n"), "foo");
        assert_eq!(case(""), "");
    }

    #[test]
    fn who_only_looks_is_not_at_work() {
        let directory = tempfile::tempdir().unwrap();
        let path = |file: &OwnedFd| PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let is_mere_place =
            |flags: OFlags| is_mere_place(&path(&open(directory.path(), flags, Mode::empty()).unwrap()));
        assert!(is_mere_place(OFlags::PATH | OFlags::DIRECTORY));
        assert!(!is_mere_place(OFlags::RDONLY | OFlags::DIRECTORY));
    }

    #[test]
    fn who_is_at_which_device() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let device = "/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1";
        for (pid, command, open) in [
            ("41", "vfioctl", &["/sys/bus/pci/drivers/vfio-pci/unbind", device][..]),
            ("42", "virtqemud", &["/sys/bus/pci/drivers/vfio-pci/unbind"]),
            ("43", "cat", &["/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1/driver_override"]),
            ("44", "vfioctl", &["/dev/null"]),
            ("45", "qemu", &["/sys/devices/pci0000:3a/0000:3a:00.0/0000:3b:00.1/config"]),
        ] {
            let process = root.path().join("proc").join(pid);
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::write(process.join("comm"), format!("{command}\n")).unwrap();
            fs::write(process.join("stack"), "[<0>] unbind_store+0x9e/0xb0\n").unwrap();
            for (number, target) in (3..).zip(open) {
                symlink(target, process.join(format!("fd/{number}"))).unwrap();
            }
        }
        let address: Address = "3b:00.1".parse().unwrap();
        let found = waiters(&host);
        let of = |waiter: &Waiter| (waiter.pid, waiter.device);
        assert_eq!(found.iter().map(of).collect::<Vec<_>>(), [(41, Some(address)), (42, None), (43, Some(address))]);
        assert_eq!(own_waiters(&host), [found[0].clone()]);
        assert_eq!(
            found[1].to_string(),
            "virtqemud (pid 42) waits in the kernel at /sys/bus/pci/drivers/vfio-pci/unbind, in unbind_store"
        );
        assert!(is_waiting(&host, &found[0]));
        fs::remove_file(root.path().join("proc/41/fd/3")).unwrap();
        assert!(!is_waiting(&host, &found[0]));
    }
}
