// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is left of a text when all is taken out of it that this program does not read. Pure; what is reduced already stays as it
//! is.

use crate::guard::{TELLING_PARTITIONS, is_boot_framebuffer};

/// Words of the kernel's command line that have to do with any of these are kept.
const WORDS: [&str; 13] = [
    "blacklist",
    "iommu",
    "vfio",
    "pci",
    "kvm",
    "video=",
    "fb",
    "console=",
    "initcall",
    "intremap",
    "modules",
    "driver",
    "lockdown",
];

/// `/proc/cmdline`: what concerns devices and drivers. Other words may be addresses, or passwords.
pub fn command_line(text: &str) -> String {
    format!("{}\n", words(text))
}

/// What follows `--` is for init, and stays behind it.
fn words(text: &str) -> String {
    let is_kept = |word: &&str| *word == "--" || WORDS.iter().any(|known| word.contains(known));
    text.split_whitespace().filter(is_kept).collect::<Vec<_>>().join(" ")
}

/// `/etc/default/grub`: of the command lines in it the same.
pub fn grub(text: &str) -> String {
    let lines = text.lines().filter(|line| line.starts_with("GRUB_CMDLINE_LINUX")).filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        let quote = value.chars().next().filter(|c| ['"', '\''].contains(c)).map(String::from).unwrap_or_default();
        Some(format!("{name}={quote}{}{quote}\n", words(value.trim_matches(['"', '\'', ' ']))))
    });
    lines.collect::<Vec<_>>().concat()
}

/// `/etc/mkinitcpio.conf`: the hooks it names.
pub fn hooks_of_mkinitcpio(text: &str) -> String {
    lines_with(text, |line| line.trim_start().starts_with("HOOKS="))
}

/// Presets of mkinitcpio: the lines that have it make unified kernel images.
pub fn unified_images(text: &str) -> String {
    lines_with(text, |line| !line.trim_start().starts_with('#') && line.contains("_uki="))
}

/// `/sys/hypervisor/uuid`: whether it is that of Xen's first domain, all zeros. Another is its own.
pub fn uuid_of_none(text: &str) -> String {
    match text.trim().bytes().all(|b| matches!(b, b'0' | b'-')) {
        true => text.to_string(),
        false => "\n".to_string(),
    }
}

/// `/proc/cpuinfo`: whose the first processor is, and whether it is a hypervisor's.
pub fn processors(text: &str) -> String {
    let field = |name: &str| text.lines().filter_map(|line| line.split_once(':')).find(|(key, _)| key.trim() == name);
    let kept = ["vendor_id", "CPU implementer"].into_iter().filter_map(|name| {
        let (_, value) = field(name)?;
        Some(format!("{name}\t: {}\n", value.trim()))
    });
    let is_virtual = field("flags").is_some_and(|(_, flags)| flags.split(' ').any(|flag| flag == "hypervisor"));
    kept.chain(is_virtual.then(|| "flags\t\t: hypervisor\n".to_string())).collect::<Vec<_>>().concat()
}

/// `/proc/interrupts`: what the first controller of each kind is called, that an interrupt of a device goes through.
pub fn interrupts(text: &str) -> String {
    let first = |kinds: &[&str]| {
        let is_one = |word: &&str| kinds.iter().any(|kind| word.contains(kind));
        text.lines().find_map(|line| line.split_whitespace().find(is_one))
    };
    let controllers = [first(&["IO-APIC", "PCI-MSI"]), first(&["ITS-"])].into_iter().flatten();
    let lines = controllers.enumerate().map(|(number, name)| format!("{number:>4}:          0 {name}\n"));
    std::iter::once("            CPU0\n".to_string()).chain(lines).collect::<Vec<_>>().concat()
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

#[cfg(test)]
mod tests {
    use super::*;

    type Reduce = fn(&str) -> String;

    /// Each with a text, and what is left of it; of that all is left.
    #[test]
    fn what_is_left() {
        let cases: [(Reduce, &str, &str); 17] = [
            (
                command_line,
                "BOOT_IMAGE=/vmlinuz root=UUID=1 rd.iscsi.password=x intel_iommu=on vfio-pci.ids=10de:1234 -- single\n",
                "intel_iommu=on vfio-pci.ids=10de:1234 --\n",
            ),
            (command_line, "ro quiet\n", "\n"),
            (
                grub,
                "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX=\"crypt=x iommu=pt\"\nGRUB_CMDLINE_LINUX_DEFAULT='quiet'\nGRUB_CMDLINE_LINUX_X=\n",
                "GRUB_CMDLINE_LINUX=\"iommu=pt\"\nGRUB_CMDLINE_LINUX_DEFAULT=''\nGRUB_CMDLINE_LINUX_X=\n",
            ),
            (
                unified_images,
                "ALL_kver='/boot/vmlinuz-linux'\n#fallback_uki=\"x\"\ndefault_uki=\"/efi/EFI/Linux/arch-linux.efi\"\n",
                "default_uki=\"/efi/EFI/Linux/arch-linux.efi\"\n",
            ),
            (uuid_of_none, "2f6f8a4e-58b1-4e3a-9e6a-0d1c2b3a4f50\n", "\n"),
            (uuid_of_none, "00000000-0000-0000-0000-000000000000\n", "00000000-0000-0000-0000-000000000000\n"),
            (hooks_of_mkinitcpio, "MODULES=()\nHOOKS=(base vfioctl udev)\n", "HOOKS=(base vfioctl udev)\n"),
            (
                processors,
                "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: X\nflags\t\t: fpu hypervisor lm\n\nprocessor\t: 1\n",
                "vendor_id\t: GenuineIntel\nflags\t\t: hypervisor\n",
            ),
            (processors, "CPU implementer\t: 0x41\nFeatures\t: fp\n", "CPU implementer\t: 0x41\n"),
            (
                interrupts,
                "       CPU0 CPU1\n  1: 5 6 IR-IO-APIC 1-edge i8042\n 30: 1 2 IR-PCI-MSI-0000:00:1f.2 0-edge ahci\n",
                "            CPU0\n   0:          0 IR-IO-APIC\n",
            ),
            (
                memory_map,
                "00000000-00000fff : Reserved\nc0000000-dfffffff : PCI Bus 0000:00\n  c0000000-cfffffff : 0000:00:02.0\n    \
                 c0000000-c07fffff : BOOTFB\n  d0000000-d00fffff : 0000:00:03.0\n",
                "00000000-00000000 : PCI Bus 0000:00\n  00000000-00000000 : 0000:00:02.0\n    00000000-00000000 : BOOTFB\n",
            ),
            (memory_map, "00001000-0009ffff : System RAM\n", ""),
            (nvidia, "Model: \t X\nGPU UUID: \t GPU-1\nDevice Minor: \t 0\n", "Device Minor: \t 0\n"),
            (node_name, "MAJOR=8\nDEVNAME=sda\nPARTNAME=secret\n", "DEVNAME=sda\n"),
            (whether_any, "12345\n", "1\n"),
            (
                udev_properties,
                "S:disk/by-id/x\nE:ID_SERIAL=x\nE:ID_FS_TYPE=ext4\nE:ID_FS_LABEL=mine\nE:ID_PART_ENTRY_TYPE=0fc63daf\n",
                "E:ID_FS_TYPE=ext4\n",
            ),
            (
                udev_properties,
                "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\nE:ID_PART_ENTRY_TYPE=c12a7328-f81f-11d2-ba4b-00a0c93ec93b\n",
                "E:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL=tank\nE:ID_PART_ENTRY_TYPE=c12a7328-f81f-11d2-ba4b-00a0c93ec93b\n",
            ),
        ];
        for (reduce, text, left) in cases {
            assert_eq!(reduce(text), left, "{text}");
            assert_eq!(reduce(left), left);
        }
    }
}
