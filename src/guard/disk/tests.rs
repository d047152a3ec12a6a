// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hosts with disks in use, as files: a tree for each kind of layer.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::findings;
use crate::guard::below::below;
use crate::guard::finding::Use;
use crate::guard::going::Going;
use crate::host::Host;

const OURS: &str = "0000:01:00.0";
const OTHER: &str = "0000:02:00.0";

/// A host's files.
struct Tree {
    root: tempfile::TempDir,
    mounts: String,
    disks: u32,
}

impl Tree {
    /// Two controllers: ours has the disk nvme0n1 with two partitions (259:1, :2, :3), the other sda with two (259:4, :5, :6).
    fn new() -> Tree {
        let mut tree = Tree { root: tempfile::tempdir().unwrap(), mounts: String::new(), disks: 0 };
        tree.mount("0:5", "/dev", "devtmpfs", "udev");
        for (address, disk) in [(OURS, "nvme/nvme0/nvme0n1"), (OTHER, "ata1/host0/block/sda")] {
            tree.disk(address, disk);
            let name = disk.rsplit('/').next().unwrap();
            let infix = if name == "sda" { "" } else { "p" };
            tree.disk(address, &format!("{disk}/{name}{infix}1"));
            tree.disk(address, &format!("{disk}/{name}{infix}2"));
        }
        tree
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: impl AsRef<Path>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    /// A block device below a PCI device, by the next number.
    fn disk(&mut self, address: &str, path: &str) {
        let device = format!("sys/devices/pci0000:00/{address}");
        let link = format!("sys/bus/pci/devices/{address}");
        fs::create_dir_all(self.path(&device)).unwrap();
        if !self.path(&link).exists() {
            self.link(&link, self.path(&device));
        }
        self.block(&format!("{device}/{path}"));
    }

    /// A block device made by the kernel.
    fn made(&mut self, name: &str, on: &[&str]) {
        self.block(&format!("sys/devices/virtual/block/{name}"));
        for member in on {
            self.link(
                &format!("sys/class/block/{member}/holders/{name}"),
                self.path(&format!("sys/class/block/{name}")),
            );
            self.link(
                &format!("sys/class/block/{name}/slaves/{member}"),
                self.path(&format!("sys/class/block/{member}")),
            );
        }
    }

    fn block(&mut self, path: &str) {
        self.disks += 1;
        let name = path.rsplit('/').next().unwrap();
        self.write(&format!("{path}/dev"), &format!("259:{}\n", self.disks));
        self.write(&format!("{path}/uevent"), &format!("DEVNAME={}\n", name.replace('!', "/")));
        if path.rsplit('/').nth(1).is_some_and(|parent| name.starts_with(parent)) {
            self.write(&format!("{path}/partition"), "1\n");
        }
        self.link(&format!("{path}/subsystem"), "/sys/class/block");
        self.link(&format!("sys/class/block/{name}"), self.path(path));
    }

    fn mapper(&mut self, name: &str, mapped: &str, uuid: &str, on: &[&str]) {
        self.made(name, on);
        self.write(&format!("sys/class/block/{name}/dm/name"), &format!("{mapped}\n"));
        self.write(&format!("sys/class/block/{name}/dm/uuid"), &format!("{uuid}\n"));
    }

    fn array(&mut self, name: &str, level: &str, degraded: u32, on: &[&str]) {
        self.made(name, on);
        self.write(&format!("sys/class/block/{name}/md/level"), &format!("{level}\n"));
        self.write(&format!("sys/class/block/{name}/md/raid_disks"), &format!("{}\n", on.len()));
        self.write(&format!("sys/class/block/{name}/md/degraded"), &format!("{degraded}\n"));
        for member in on {
            self.write(&format!("sys/class/block/{name}/md/dev-{member}/state"), "in_sync\n");
        }
    }

    /// A mount in our own namespace.
    fn mount(&mut self, number: &str, point: &str, fs_type: &str, source: &str) {
        self.mounts.push_str(&format!("1 0 {number} / {point} rw - {fs_type} {source}\n"));
        self.write("proc/self/mountinfo", &self.mounts);
    }

    fn process(&self, pid: u32, command: &str, open: &[&str]) {
        self.write(&format!("proc/{pid}/comm"), &format!("{command}\n"));
        for (number, target) in open.iter().enumerate() {
            self.link(&format!("proc/{pid}/fd/{number}"), target);
        }
    }

    /// What is found, each as `KIND: MESSAGE` and its mend.
    fn found(&self) -> Vec<(String, String)> {
        self.found_with(&[OURS])
    }

    /// The same, where these go in one go.
    fn found_with(&self, together: &[&str]) -> Vec<(String, String)> {
        let host = Host::new(self.root.path(), None).unwrap();
        let below = below(&host, OURS.parse().unwrap()).unwrap();
        let together: Vec<_> = together.iter().map(|address| address.parse().unwrap()).collect();
        let mut found = findings(&host, &below, &Going::new(&host, &together)).unwrap();
        found.sort();
        let text = |used_as: Use, message: &str| format!("{}: {message}", used_as.name());
        found.iter().map(|f| (text(f.used_as, &f.message), f.mend.clone().unwrap_or_default())).collect()
    }

    fn expect(&self, expected: &[(&str, &str)]) {
        let found = self.found();
        let found: Vec<(&str, &str)> = found.iter().map(|(message, mend)| (message.as_str(), mend.as_str())).collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn a_disk_that_nobody_uses() {
    let mut tree = Tree::new();
    tree.mount("259:5", "/", "ext4", "/dev/sda1");
    tree.write("proc/swaps", "Filename\n/dev/sda2 partition 1 0 -2\n");
    tree.write("run/udev/data/b259:2", "E:ID_FS_TYPE=LVM2_member\n");
    tree.process(41, "shell", &["/dev/null", "/dev/sda", "/srv/nvme0n1"]);
    // They look at it for a moment.
    tree.process(42, "(udev-worker)", &["/dev/nvme0n1"]);
    tree.expect(&[]);
}

#[test]
fn partitions_mounted() {
    let mut tree = Tree::new();
    tree.mount("259:5", "/", "ext4", "/dev/sda1");
    tree.mount("259:2", "/srv/a\\040b", "xfs", "/dev/nvme0n1p1");
    tree.mount("259:3", "/boot", "vfat", "/dev/nvme0n1p2");
    for container in 0..412 {
        tree.mount("259:2", &format!("/var/lib/containers/{container}/data"), "xfs", "/dev/nvme0n1p1");
    }
    tree.expect(&[
        ("root-disk: /boot (vfat) is mounted from nvme0n1p2", "umount /boot"),
        ("disk: /srv/a b and 412 more mounts (xfs) are mounted from nvme0n1p1", "umount --all-targets '/srv/a b'"),
    ]);
}

#[test]
fn the_firmware_s_partition_wherever_it_is() {
    let mut tree = Tree::new();
    tree.mount("259:2", "/esp", "vfat", "/dev/nvme0n1p1");
    tree.write("run/udev/data/b259:2", "E:ID_PART_ENTRY_TYPE=c12a7328-f81f-11d2-ba4b-00a0c93ec93b\n");
    tree.expect(&[("root-disk: /esp (vfat) is mounted from nvme0n1p1", "umount /esp")]);
}

#[test]
fn root_on_a_volume_on_luks() {
    let mut tree = Tree::new();
    tree.mapper("dm-0", "luks-root", "CRYPT-LUKS2-1", &["nvme0n1p2"]);
    tree.mapper("dm-1", "vg-root", "LVM-1", &["dm-0"]);
    tree.mapper("dm-2", "vg-swap", "LVM-2", &["dm-0"]);
    tree.mapper("dm-3", "vg-a", "LVM-3", &["dm-0"]);
    tree.mapper("dm-4", "vg-b", "LVM-4", &["dm-0"]);
    tree.mount("259:8", "/", "ext4", "/dev/mapper/vg-root");
    tree.write("proc/swaps", "Filename\n/dev/dm-2 partition 1 0 -2\n");
    tree.expect(&[
        ("root-disk: / (ext4) is mounted from nvme0n1p2 through dm-0 (luks-root) and dm-1 (vg-root)", ""),
        ("root-disk: the system swaps to nvme0n1p2 through dm-0 (luks-root) and dm-2 (vg-swap)", "swapoff /dev/dm-2"),
        ("disk: dm-3 (vg-a) and dm-4 (vg-b) are active on nvme0n1p2 through dm-0 (luks-root)", "vgchange -an vg"),
    ]);
}

/// What the root file system is on; a container's is not, though the system's swap is seen there, and its disks where files of
/// its own come from.
#[test]
fn where_the_root_file_system_is() {
    type Case = (&'static str, fn(&mut Tree), bool);
    const SWAPS: &str = "Filename\n/dev/nvme0n1p2 partition 1 0 -2\n";
    let cases: [Case; 7] = [
        ("a partition", |tree| tree.mount("259:2", "/", "ext4", "/dev/nvme0n1p1"), true),
        ("another device's", |tree| tree.mount("259:5", "/", "ext4", "/dev/sda1"), false),
        (
            "an array that would go on",
            |tree| {
                tree.array("md0", "raid1", 0, &["nvme0n1p1", "sda1"]);
                tree.mount("259:7", "/", "ext4", "/dev/md0");
            },
            true,
        ),
        ("/ in memory", |tree| tree.mount("259:2", "/nix", "ext4", "/dev/nvme0n1p1"), true),
        ("another file system", |tree| tree.mount("259:2", "/srv", "ext4", "/dev/nvme0n1p1"), false),
        (
            "a container",
            |tree| {
                tree.mount("0:50", "/", "overlay", "overlay rw,lowerdir=/x,upperdir=/y");
                tree.mount("259:2", "/etc/hosts", "ext4", "/dev/nvme0n1p1");
                tree.mount("259:2", "/var", "ext4", "/dev/nvme0n1p1");
                tree.write("proc/swaps", SWAPS);
            },
            false,
        ),
        (
            "a container's, seen from outside",
            |tree| {
                tree.mount("259:5", "/", "ext4", "/dev/sda1");
                tree.write("proc/71/mountinfo", "1 0 259:2 / / rw - ext4 /dev/nvme0n1p1 rw\n");
                tree.link("proc/71/ns/mnt", PathBuf::from("mnt:[71]"));
            },
            false,
        ),
    ];
    for (name, change, expected) in cases {
        let mut tree = Tree::new();
        change(&mut tree);
        let host = Host::new(tree.root.path(), None).unwrap();
        assert_eq!(crate::guard::is_root_seen(&host, &[OURS.parse().unwrap()]).unwrap(), expected, "{name}");
    }
}

#[test]
fn swap_to_a_file() {
    let mut tree = Tree::new();
    tree.mount("259:5", "/", "ext4", "/dev/sda1");
    tree.mount("259:2", "/srv", "ext4", "/dev/nvme0n1p1");
    tree.write("proc/swaps", "Filename\n/srv/swap\\040file file 1 0 -2\n");
    tree.expect(&[
        ("root-disk: the system swaps to /srv/swap file on nvme0n1p1", "swapoff '/srv/swap file'"),
        ("disk: /srv (ext4) is mounted from nvme0n1p1", "umount /srv"),
    ]);
}

#[test]
fn arrays() {
    for (level, degraded, second, expected) in [
        (
            "raid1",
            0,
            "sda1",
            "disk: md0 (raid1) would lose nvme0n1p1 and go on degraded, with sda1; / (ext4) is mounted from nvme0n1p1 through md0 (raid1)",
        ),
        ("raid1", 1, "sda1", "root-disk: / (ext4) is mounted from nvme0n1p1 through md0 (raid1, which would fail)"),
        ("raid0", 0, "sda1", "root-disk: / (ext4) is mounted from nvme0n1p1 through md0 (raid0, which would fail)"),
        (
            "raid1",
            0,
            "nvme0n1p2",
            "root-disk: / (ext4) is mounted from nvme0n1p1 through md0 (raid1, which would fail)",
        ),
    ] {
        let mut tree = Tree::new();
        tree.array("md0", level, degraded, &["nvme0n1p1", second]);
        tree.mount("259:7", "/", "ext4", "/dev/md0");
        let found = tree.found();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].0, expected, "{level}, {degraded} missing, with {second}");
    }
    // That nobody has mounted it does not make it idle.
    let mut tree = Tree::new();
    tree.array("md0", "raid1", 0, &["nvme0n1p1", "sda1"]);
    tree.expect(&[(
        "disk: md0 (raid1) would lose nvme0n1p1 and go on degraded, with sda1",
        "mdadm /dev/md0 --fail /dev/nvme0n1p1 --remove /dev/nvme0n1p1",
    )]);
    // A spare is missed by nobody.
    tree.write("sys/class/block/md0/md/degraded", "1\n");
    tree.write("sys/class/block/md0/md/dev-nvme0n1p1/state", "spare\n");
    tree.mount("259:7", "/", "ext4", "/dev/md0");
    let found = tree.found();
    assert!(found[0].0.starts_with("disk: md0 (raid1) would lose its spare nvme0n1p1;"), "{found:?}");
}

#[test]
fn multipath_with_and_without_another_path() {
    let mut tree = Tree::new();
    tree.mapper("dm-0", "mpatha", "mpath-1", &["nvme0n1", "sda"]);
    tree.mapper("dm-1", "mpatha-part1", "part1-mpath-1", &["dm-0"]);
    tree.process(41, "multipathd", &["/dev/nvme0n1", "/dev/sda"]);
    tree.expect(&[]);
    tree.mount("259:8", "/", "ext4", "/dev/mapper/mpatha-part1");
    tree.expect(&[(
        "disk: dm-0 (mpatha) would lose its path nvme0n1 and go on with sda; / (ext4) is mounted from nvme0n1 through dm-0 (mpatha) \
         and dm-1 (mpatha-part1)",
        "",
    )]);
    tree.write("sys/class/block/sda/device/state", "offline\n");
    tree.expect(&[("root-disk: / (ext4) is mounted from nvme0n1 through dm-0 (mpatha) and dm-1 (mpatha-part1)", "")]);
}

#[test]
fn nvme_multipath_with_and_without_another_controller() {
    let mut tree = Tree::new();
    // The disk is nobody's child; its paths are.
    for (address, controller) in [(OURS, "nvme3"), (OTHER, "nvme4")] {
        let path = format!("nvme/{controller}/nvme3c{}n1", &controller[4..]);
        tree.disk(address, &path);
        fs::remove_file(tree.path(&format!("sys/devices/pci0000:00/{address}/{path}/dev"))).unwrap();
        tree.write(&format!("sys/devices/pci0000:00/{address}/{path}/device/state"), "live\n");
    }
    let head = "sys/devices/virtual/nvme-subsystem/nvme-subsys3/nvme3n1";
    tree.block(head);
    tree.block(&format!("{head}/nvme3n1p1"));
    tree.expect(&[]);
    tree.mount("259:10", "/", "ext4", "/dev/nvme3n1p1");
    tree.expect(&[(
        "disk: nvme3n1 would lose its path nvme3c3n1 and go on with nvme3c4n1; / (ext4) is mounted from nvme3n1p1",
        "",
    )]);
    let lost = ("root-disk: / (ext4) is mounted from nvme3n1p1".to_string(), String::new());
    assert_eq!(tree.found_with(&[OURS, OTHER]), [lost]);
    for (file, text) in [("ana_state", "inaccessible\n"), ("device/state", "connecting\n")] {
        tree.write("sys/class/block/nvme3c4n1/device/state", "live\n");
        tree.write(&format!("sys/class/block/nvme3c4n1/{file}"), text);
        tree.expect(&[("root-disk: / (ext4) is mounted from nvme3n1p1", "")]);
        tree.write("sys/class/block/nvme3c4n1/ana_state", "non-optimized\n");
    }
}

/// What goes on without ours does not if the rest goes in the same go.
#[test]
fn all_that_it_would_go_on_with_goes_too() {
    let only = |tree: &Tree, together: &[&str]| -> String {
        let found = tree.found_with(together);
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].0.clone()
    };
    let third = "0000:03:00.0";
    let mut tree = Tree::new();
    tree.disk(third, "ata2/host1/block/sdb");
    // With a layer between: what is lost is not the other's disk itself.
    tree.mapper("dm-0", "luks", "CRYPT-LUKS2-1", &["sda1"]);
    tree.array("md0", "raid1", 0, &["nvme0n1p1", "dm-0", "sdb"]);
    tree.mount("259:9", "/", "ext4", "/dev/md0");
    let mounted = "/ (ext4) is mounted from nvme0n1p1 through md0 (raid1";
    let degraded = |lost: &str, kept: &str| {
        format!("disk: md0 (raid1) would lose {lost} and go on degraded, with {kept}; {mounted})")
    };
    assert_eq!(only(&tree, &[]), degraded("nvme0n1p1", "dm-0 and sdb"));
    assert_eq!(only(&tree, &[OURS]), degraded("nvme0n1p1", "dm-0 and sdb"));
    assert_eq!(only(&tree, &[OTHER]), degraded("dm-0 and nvme0n1p1", "sdb"));
    assert_eq!(only(&tree, &[third, OURS]), degraded("nvme0n1p1 and sdb", "dm-0"));
    assert_eq!(only(&tree, &[OURS, OTHER, third]), format!("root-disk: {mounted}, which would fail)"));
    // One has gone a moment ago, and the array does not know it yet.
    fs::remove_file(tree.path("sys/class/block/sdb")).unwrap();
    assert_eq!(only(&tree, &[OURS, third]), degraded("nvme0n1p1", "dm-0"));
    assert_eq!(only(&tree, &[OURS, OTHER, third]), format!("root-disk: {mounted}, which would fail)"));
    // What the others carry besides is not ours.
    let mut tree = Tree::new();
    tree.array("md0", "raid1", 0, &["nvme0n1p1", "sda1"]);
    tree.mount("259:6", "/", "ext4", "/dev/sda2");
    tree.mount("259:7", "/srv", "ext4", "/dev/md0");
    let expected = "disk: /srv (ext4) is mounted from nvme0n1p1 through md0 (raid1, which would fail)";
    assert_eq!(only(&tree, &[OURS, OTHER]), expected);

    let mut tree = Tree::new();
    tree.mapper("dm-0", "mpatha", "mpath-1", &["nvme0n1", "sda"]);
    tree.mount("259:7", "/", "ext4", "/dev/mapper/mpatha");
    assert!(only(&tree, &[OURS]).starts_with("disk: dm-0 (mpatha) would lose its path nvme0n1 and go on with sda;"));
    let lost = "root-disk: / (ext4) is mounted from nvme0n1 through dm-0 (mpatha)";
    assert_eq!(only(&tree, &[OURS, OTHER]), lost);
    fs::remove_file(tree.path("sys/class/block/sda")).unwrap();
    assert_eq!(only(&tree, &[OURS, OTHER]), lost);
}

#[test]
fn the_second_device_of_a_btrfs() {
    let mut tree = Tree::new();
    for member in ["sda1", "nvme0n1p1"] {
        tree.link(&format!("sys/fs/btrfs/12-34/devices/{member}"), tree.path(&format!("sys/class/block/{member}")));
    }
    tree.link("sys/fs/btrfs/56-78/devices/sda2", tree.path("sys/class/block/sda2"));
    tree.expect(&[("disk: a file system (btrfs) of nvme0n1p1 is still in use, though no longer mounted", "")]);
    tree.mount("0:41", "/srv", "btrfs", "/dev/sda1");
    tree.mount("0:42", "/srv/other", "btrfs", "/dev/sda2");
    tree.expect(&[("disk: /srv (btrfs) is mounted from nvme0n1p1, one of its 2 devices", "umount /srv")]);
    tree.mount("0:41", "/", "btrfs", "/dev/root");
    tree.expect(&[("root-disk: / and 1 more mount (btrfs) are mounted from nvme0n1p1, one of its 2 devices", "")]);
}

#[test]
fn a_bcachefs_of_two() {
    let mut tree = Tree::new();
    tree.link("sys/fs/bcachefs/12-34/dev-0/block", tree.path("sys/class/block/sda1"));
    tree.link("sys/fs/bcachefs/12-34/dev-1/block", tree.path("sys/class/block/nvme0n1p1"));
    tree.mount("0:41", "/srv", "bcachefs", "/dev/sda1:/dev/nvme0n1p1");
    tree.expect(&[("disk: /srv (bcachefs) is mounted from nvme0n1p1, one of its 2 devices", "umount /srv")]);
}

#[test]
fn a_member_of_a_pool() {
    let mut tree = Tree::new();
    tree.write("run/udev/data/b259:2", "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\nE:ID_FS_LABEL_ENC=tank\n");
    tree.expect(&[]);
    tree.write("proc/spl/kstat/zfs/tank/state", "ONLINE\n");
    tree.expect(&[("disk: ZFS pool tank has a member on nvme0n1p1", "zpool export tank")]);
    tree.mount("0:41", "/tank", "zfs", "tank");
    tree.mount("0:42", "/tank/a", "zfs", "tank/a");
    tree.expect(&[("disk: /tank and 1 more mount (zfs) are mounted from nvme0n1p1", "zpool export tank")]);
    tree.mount("0:43", "/", "zfs", "tank/root");
    tree.expect(&[("root-disk: / and 2 more mounts (zfs) are mounted from nvme0n1p1", "")]);
}

#[test]
fn what_may_be_a_member_of_a_pool() {
    let zfs = "E:ID_PART_ENTRY_TYPE=6a898cc3-1dd2-11b2-99a6-080020736631\n";
    let ambivalent = "E:ID_FS_AMBIVALENT=filesystem:ext4:1.0 filesystem:zfs_member:5000\n";
    for (udev, is_one) in [
        (zfs, true),
        (ambivalent, true),
        ("E:ID_FS_TYPE=zfs_member\n", true),
        (&format!("{zfs}E:ID_FS_TYPE=crypto_LUKS\n"), false),
        ("E:ID_FS_AMBIVALENT=filesystem:ext4:1.0 filesystem:xfs:\n", false),
        ("E:ID_PART_ENTRY_TYPE=0fc63daf-8483-4772-8e79-3d69d8477de4\n", false),
    ] {
        let mut tree = Tree::new();
        tree.write("run/udev/data/b259:2", udev);
        // None is imported; and the one that is has its member elsewhere.
        tree.expect(&[]);
        tree.write("proc/spl/kstat/zfs/tank/state", "ONLINE\n");
        tree.mount("0:43", "/", "zfs", "tank/root");
        let expected = [("root-disk: / (zfs) is mounted from nvme0n1p1", "")];
        tree.expect(&expected[..usize::from(is_one)]);
        tree.write("run/udev/data/b259:5", "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\n");
        tree.expect(&[]);
    }
}

#[test]
fn a_live_system_s_root() {
    let mut tree = Tree::new();
    tree.mount("259:2", "/run/live/medium", "iso9660", "/dev/nvme0n1p1");
    tree.made("loop0", &[]);
    tree.write("sys/class/block/loop0/loop/backing_file", "/run/live/medium/live/filesystem.squashfs\n");
    tree.mount("259:7", "/run/live/rootfs", "squashfs", "/dev/loop0");
    let loop0 = "loop0 (/run/live/medium/live/filesystem.squashfs)";
    let expected = |root: &str| {
        [
            (format!("root-disk: / (overlay) is mounted from nvme0n1p1 through {loop0}"), String::new()),
            (
                "disk: /run/live/medium (iso9660) is mounted from nvme0n1p1".to_string(),
                "umount /run/live/medium".to_string(),
            ),
            (format!("disk: {root} (squashfs) is mounted from nvme0n1p1 through {loop0}"), format!("umount {root}")),
        ]
    };
    let seen = tree.mounts.clone();
    for lower in ["/run/live/rootfs", "/root-of-the-initramfs"] {
        tree.mounts = seen.clone();
        tree.mounts.push_str(&format!("1 0 0:50 / / rw - overlay overlay rw,lowerdir={lower},upperdir=/cow/up\n"));
        tree.write("proc/self/mountinfo", &tree.mounts);
        assert_eq!(tree.found(), expected("/run/live/rootfs"), "{lower}");
    }
}

#[test]
fn a_loop_device_that_nobody_has_mounted() {
    let mut tree = Tree::new();
    tree.mount("259:5", "/", "ext4", "/dev/sda1");
    tree.made("loop0", &[]);
    tree.write("sys/class/block/loop0/loop/backing_file", "/dev/nvme0n1p1\n");
    tree.made("loop1", &[]);
    tree.write("sys/class/block/loop1/loop/backing_file", "/srv/image\n");
    tree.made("loop2", &[]);
    tree.expect(&[("disk: loop0 (/dev/nvme0n1p1) is active on nvme0n1p1", "losetup -d /dev/loop0")]);
}

#[test]
fn what_a_cache_is_for_and_what_spills_over() {
    let mut tree = Tree::new();
    tree.made("bcache0", &["sda1"]);
    tree.link("sys/fs/bcache/12-34/bdev0/dev", tree.path("sys/class/block/bcache0"));
    tree.link("sys/class/block/nvme0n1p1/bcache/set", tree.path("sys/fs/bcache/12-34"));
    tree.made("zram0", &[]);
    tree.write("sys/class/block/zram0/backing_dev", "/dev/nvme0n1p2\n");
    tree.made("zram1", &[]);
    tree.write("sys/class/block/zram1/backing_dev", "none\n");
    tree.write("proc/swaps", "Filename\n/dev/zram0 partition 1 0 100\n/dev/zram1 partition 1 0 100\n");
    tree.mount("259:7", "/srv", "xfs", "/dev/bcache0");
    tree.expect(&[
        ("root-disk: the system swaps to nvme0n1p2 through zram0", "swapoff /dev/zram0"),
        ("disk: /srv (xfs) is mounted from nvme0n1p1 through bcache0", "umount /srv"),
    ]);
}

#[test]
fn journals_elsewhere() {
    let mut tree = Tree::new();
    tree.mounts.push_str("1 0 259:5 / /srv rw - xfs /dev/sda1 rw,logdev=/dev/nvme0n1p1,noquota\n");
    tree.mount("259:6", "/mnt", "xfs", "/dev/sda2");
    tree.expect(&[("disk: /srv (xfs) is mounted from nvme0n1p1", "umount /srv")]);
}

#[test]
fn mounts_of_containers() {
    let mut tree = Tree::new();
    tree.link("proc/self/ns/mnt", "mnt:[1]");
    tree.link("proc/1/ns/mnt", "mnt:[1]");
    tree.write("proc/1/mountinfo", "");
    tree.mount("259:3", "/srv", "ext4", "/dev/nvme0n1p2");
    for (pid, namespace) in [(71, "mnt:[2]"), (72, "mnt:[2]"), (73, "mnt:[3]"), (74, "mnt:[1]")] {
        tree.link(&format!("proc/{pid}/ns/mnt"), namespace);
        tree.process(pid, "postgres", &[]);
        // What is mounted outside as well is that file system's use, not another one.
        let mounts = "1 0 259:2 / / rw - ext4 /dev/x rw\n2 1 259:3 / /data rw - ext4 /dev/x rw\n";
        tree.write(&format!("proc/{pid}/mountinfo"), mounts);
    }
    tree.expect(&[
        (
            "disk: / (ext4) is mounted from nvme0n1p1, in the mount namespace of postgres (pid 71)",
            "nsenter --target 71 --mount umount --all-targets /",
        ),
        ("disk: /srv (ext4) is mounted from nvme0n1p2", "umount /srv"),
    ]);
}

#[test]
fn the_first_process_s_namespace_is_the_system_s() {
    let mut tree = Tree::new();
    tree.link("proc/self/ns/mnt", "mnt:[9]");
    tree.link("proc/1/ns/mnt", "mnt:[1]");
    tree.mount("259:5", "/", "ext4", "/dev/sda1");
    tree.write("proc/1/mountinfo", "1 0 259:2 / / rw - ext4 /dev/x rw\n");
    tree.expect(&[("root-disk: / (ext4) is mounted from nvme0n1p1", "")]);
    // What is on both is one thing, and the worse of the two.
    tree.mount("259:2", "/host", "ext4", "/dev/nvme0n1p1");
    tree.expect(&[("root-disk: / (ext4) is mounted from nvme0n1p1", "")]);
    // A tree with that alone.
    fs::remove_dir_all(tree.path("proc/self")).unwrap();
    fs::remove_dir_all(tree.path("proc/1/ns")).unwrap();
    tree.expect(&[("root-disk: / (ext4) is mounted from nvme0n1p1", "")]);
}

#[test]
fn file_systems_that_linger() {
    let tree = Tree::new();
    fs::create_dir_all(tree.path("sys/fs/ext4/nvme0n1p1")).unwrap();
    fs::create_dir_all(tree.path("sys/fs/ext4/features")).unwrap();
    tree.expect(&[("disk: a file system (ext4) of nvme0n1p1 is still in use, though no longer mounted", "")]);
}

#[test]
fn processes_and_their_nodes() {
    let mut tree = Tree::new();
    tree.mapper("dm-0", "vg-vm", "LVM-1", &["nvme0n1p2"]);
    tree.process(41, "qemu-system-x86", &["/dev/null", "/dev/nvme0n1p1", "/dev/nvme0n1"]);
    tree.process(42, "qemu\u{1b}[2J", &["/dev/mapper/vg-vm"]);
    tree.process(43, "smartd", &["/dev/nvme0"]);
    let controller = format!("sys/devices/pci0000:00/{OURS}/nvme/nvme0");
    tree.write(&format!("{controller}/uevent"), "MAJOR=244\nDEVNAME=nvme0\n");
    tree.write(&format!("{controller}/dev"), "244:0\n");
    tree.link(&format!("{controller}/subsystem"), "/sys/class/nvme");
    tree.expect(&[
        ("disk: qemu-system-x86 (pid 41) has /dev/nvme0n1 open", ""),
        ("disk: qemu[2J (pid 42) has /dev/mapper/vg-vm open, which is on nvme0n1p2 through dm-0 (vg-vm)", ""),
        ("disk: smartd (pid 43) has /dev/nvme0 open", ""),
    ]);
    for pid in 100..120 {
        tree.process(pid, "reader", &["/dev/nvme0n1"]);
    }
    let found = tree.found();
    assert_eq!(found.len(), 9, "{found:?}");
    let more = "disk: 15 more processes have its nodes open, reader (pid 105) has /dev/nvme0n1 open among them";
    assert!(found.iter().any(|(message, _)| message == more), "{found:?}");
}

#[test]
fn targets_of_the_kernel() {
    let tree = Tree::new();
    tree.write("sys/kernel/config/target/core/alua/lu_gps/x", "");
    tree.write("sys/kernel/config/target/core/iblock_0/hba_info", "");
    tree.write("sys/kernel/config/target/core/iblock_0/a/udev_path", "/dev/nvme0n1p1\n");
    tree.write("sys/kernel/config/target/core/iblock_0/b/udev_path", "/dev/sda1\n");
    for (id, enabled) in [("1", "1\n"), ("2", "0\n")] {
        let namespace = format!("sys/kernel/config/nvmet/subsystems/nqn.x/namespaces/{id}");
        tree.write(&format!("{namespace}/enable"), enabled);
        tree.write(&format!("{namespace}/device_path"), "/dev/disk/by-id/x\n");
    }
    tree.link("dev/disk/by-id/x", "../../nvme0n1");
    let found = tree.found();
    let messages: Vec<&str> = found.iter().map(|(message, _)| message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "disk: NVMe target nqn.x, namespace 1, exports /dev/disk/by-id/x, which is on nvme0n1",
            "disk: SCSI target iblock_0/a exports /dev/nvme0n1p1, which is on nvme0n1p1",
        ]
    );
}

#[test]
fn no_disk_no_work() {
    let mut tree = Tree::new();
    // Not even what cannot be read is read.
    fs::remove_dir_all(tree.path("proc")).unwrap();
    fs::create_dir_all(tree.path("proc/self/mountinfo")).unwrap();
    let host = Host::new(tree.root.path(), None).unwrap();
    assert_eq!(findings(&host, &[], &Going::new(&host, &[])).unwrap(), []);
    let below = below(&host, OURS.parse().unwrap()).unwrap();
    assert!(findings(&host, &below, &Going::new(&host, &[])).is_err());
    tree.disks = 0;
}

#[test]
fn containers_put_together_of_layers() {
    let mut tree = Tree::new();
    tree.mount("259:2", "/var/lib/containers", "ext4", "/dev/nvme0n1p1");
    tree.link("proc/71/ns/mnt", "mnt:[2]");
    tree.process(71, "postgres", &[]);
    let overlay = |number: u32, point: &str| {
        format!(
            "1 0 0:{number} / {point} rw - overlay overlay rw,lowerdir=/var/lib/containers/l/A:/var/lib/containers/l/B\n"
        )
    };
    tree.write("proc/71/mountinfo", &(overlay(50, "/") + &overlay(51, "/opt")));
    tree.expect(&[
        (
            "disk: / and 1 more mount (overlay) are mounted from nvme0n1p1, in the mount namespace of postgres (pid 71)",
            "",
        ),
        ("disk: /var/lib/containers (ext4) is mounted from nvme0n1p1", "umount /var/lib/containers"),
    ]);
}
