// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is left of a text when all is taken out of it that this program does not read. Pure; what is reduced already stays as it
//! is.

use crate::guard::{TELLING_PARTITIONS, is_boot_framebuffer};

/// Words of the kernel's command line that have to do with any of these are kept.
const WORDS: [&str; 12] = [
    "blacklist",
    "iommu",
    "vfio",
    "pci",
    "kvm",
    "video=",
    "fb",
    "console=",
    "initcall",
    "modules",
    "driver",
    "lockdown",
];

/// `/proc/cmdline`: what concerns devices and drivers. Other words may be addresses, or passwords.
pub fn command_line(text: &str) -> String {
    let words = text.split_whitespace().filter(|word| WORDS.iter().any(|known| word.contains(known)));
    let mut kept = words.collect::<Vec<_>>().join(" ");
    kept.push('\n');
    kept
}

/// `/proc/iomem`: framebuffers of the firmware's and what they are in, without addresses.
pub fn memory_map(text: &str) -> String {
    let lines: Vec<(usize, &str)> = text
        .lines()
        .filter_map(|line| Some((line.len() - line.trim_start().len(), line.split_once(" : ")?.1)))
        .collect();
    let mut is_kept = vec![false; lines.len()];
    for at in 0..lines.len() {
        if is_boot_framebuffer(lines[at].1) {
            let mut depth = usize::MAX;
            for outer in (0..=at).rev() {
                if lines[outer].0 < depth {
                    depth = lines[outer].0;
                    is_kept[outer] = true;
                }
            }
        }
    }
    let kept = lines.iter().zip(is_kept).filter(|(_, is_kept)| *is_kept);
    kept.map(|((depth, name), _)| format!("{:depth$}00000000-00000000 : {name}\n", "")).collect::<Vec<_>>().concat()
}

/// `/proc/driver/nvidia/gpus/*/information`: the node's number.
pub fn nvidia(text: &str) -> String {
    lines_with(text, |line| line.starts_with("Device Minor:"))
}

/// A `uevent`: the node's name.
pub fn node_name(text: &str) -> String {
    lines_with(text, |line| line.starts_with("DEVNAME="))
}

/// A counter: whether it has counted.
pub fn whether_any(text: &str) -> String {
    let word = text.trim_end();
    format!("{}\n", if word == "0" { "0" } else { "1" })
}

/// A hook for libvirt: whether it calls ours.
pub fn hook(text: &str) -> String {
    lines_with(text, |line| line.contains("vfioctl libvirt hook"))
}

/// What udev knows of a block device: what kind of file system is on it, the pool of a ZFS member, and whether the partition is
/// of a type that says something. Labels and UUIDs of others are not kept.
pub fn udev_properties(text: &str) -> String {
    let is_zfs = text.lines().any(|line| line == "E:ID_FS_TYPE=zfs_member");
    lines_with(text, |line| {
        let Some((name, value)) = line.strip_prefix("E:").and_then(|line| line.split_once('=')) else { return false };
        match name {
            "ID_FS_TYPE" | "ID_FS_AMBIVALENT" => true,
            "ID_FS_LABEL" | "ID_FS_LABEL_ENC" => is_zfs,
            "ID_PART_ENTRY_TYPE" => TELLING_PARTITIONS.contains(&value),
            _ => false,
        }
    })
}

/// `/proc/PID/fdinfo/FD`: the VFIO device it is.
pub fn descriptor(text: &str) -> String {
    lines_with(text, |line| line.starts_with("vfio-device-syspath:"))
}

/// Whole lines of a text.
pub fn lines_with(text: &str, is_kept: impl Fn(&str) -> bool) -> String {
    text.lines().filter(|line| is_kept(line)).flat_map(|line| [line, "\n"]).collect()
}
