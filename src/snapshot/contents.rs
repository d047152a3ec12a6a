// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in a snapshot: everything that this program reads to look at a host, and what is kept of each. What reads something
//! new has it added here: `tests/snapshot.rs` holds the two together by strace.

use super::reduce;

/// What is kept of something.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// All of a file: the kernel's words, with nobody's name in them.
    Whole,
    /// All of a file, masked.
    Masked,
    /// Of a file what a function leaves of it, masked.
    Reduced(fn(&str) -> String),
    /// The same of an attribute that waits for a lock of the kernel's.
    Patiently,
    /// All of a file that udev, systemd or modprobe reads, masked; empty where it is there to hide another.
    Setting,
    /// That there is a file, or a node, or a socket.
    Presence,
    /// That there is a directory.
    Directory,
    /// A link, wherever it leads.
    Link,
    /// A link, and that there is something at its end.
    Way,
}

use Keep::{Directory, Link, Masked, Patiently, Presence, Reduced, Setting, Way, Whole};

/// Paths below the root directory; `*` stands for any part of a name. Module tables, policy, processes and what they have
/// mounted are apart: `modules.rs`, `settings.rs`, `processes.rs`.
pub const PLACES: &[(&str, Keep)] = &[
    ("proc/sys/kernel/osrelease", Whole),
    ("proc/sys/kernel/modules_disabled", Whole),
    ("sys/kernel/security/lockdown", Whole),
    ("proc/cmdline", Reduced(reduce::command_line)),
    ("proc/cpuinfo", Reduced(reduce::processors)),
    ("proc/interrupts", Reduced(reduce::interrupts)),
    ("proc/iomem", Reduced(reduce::memory_map)),
    ("proc/driver/nvidia/gpus/*/information", Reduced(reduce::nvidia)),
    ("proc/swaps", Masked),
    ("proc/spl/kstat/zfs/*", Directory),
    ("sys/bus/pci/devices", Directory),
    ("sys/bus/pci/drivers/*", Directory),
    ("sys/bus/pci/drivers/*/module", Link),
    ("sys/firmware/acpi/tables", Directory),
    ("sys/firmware/acpi/tables/DMAR", Presence),
    ("sys/firmware/acpi/tables/IORT", Presence),
    ("sys/firmware/acpi/tables/IVRS", Presence),
    ("sys/firmware/acpi/tables/VIOT", Presence),
    ("sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f", Whole),
    ("sys/hypervisor/type", Whole),
    ("sys/hypervisor/uuid", Reduced(reduce::uuid_of_none)),
    ("proc/xen/capabilities", Whole),
    ("sys/module/*/initstate", Whole),
    ("sys/kernel/iommu_groups/*", Directory),
    ("sys/kernel/iommu_groups/*/name", Whole),
    ("sys/kernel/iommu_groups/*/type", Whole),
    ("sys/kernel/iommu_groups/*/reserved_regions", Whole),
    ("sys/kernel/iommu_groups/*/devices/*", Link),
    ("sys/kernel/config/netconsole/*/dev_name", Whole),
    ("sys/kernel/config/netconsole/*/enabled", Whole),
    ("sys/kernel/config/target/core/*/*/udev_path", Masked),
    ("sys/kernel/config/nvmet/subsystems/*/namespaces/*/enable", Whole),
    ("sys/kernel/config/nvmet/subsystems/*/namespaces/*/device_path", Masked),
    ("sys/fs/btrfs/*/devices/*", Link),
    ("sys/fs/bcachefs/*/dev-*/block", Link),
    ("sys/class/vfio/*", Directory),
    ("sys/class/tty/console/active", Patiently),
    ("dev/iommu", Presence),
    ("dev/vfio/*", Presence),
    ("dev/vfio/devices/*", Presence),
    ("var/lib/kubelet/device-plugins/*", Presence),
    ("var/lib/kubelet/plugins_registry/*", Presence),
    ("etc/sriov-operator", Directory),
    ("run/nvidia/validations", Directory),
    ("etc/libvirt/hooks/qemu", Reduced(reduce::hook)),
    ("etc/libvirt/hooks/qemu.d/*", Reduced(reduce::hook)),
    ("usr/share/vfioctl/libvirt-hook", Presence),
    ("usr/local/share/vfioctl/libvirt-hook", Presence),
    ("run/vfioctl/given-away/*", Presence),
    ("run/udev/control", Presence),
    ("run/systemd/system", Directory),
    ("run/ostree-booted", Presence),
    ("etc/NIXOS", Presence),
    ("etc/default/grub", Reduced(reduce::grub)),
    ("etc/kernel/cmdline", Presence),
    ("etc/kernel/proxmox-boot-uuids", Presence),
    ("etc/mkinitcpio.conf", Reduced(reduce::hooks_of_mkinitcpio)),
    ("etc/mkinitcpio.conf.d/*", Reduced(reduce::hooks_of_mkinitcpio)),
    ("etc/mkinitcpio.d", Directory),
    ("etc/mkinitcpio.d/*", Reduced(reduce::unified_images)),
    ("etc/modules", Masked),
    ("boot", Directory),
    ("boot/grub/grub.cfg", Presence),
    ("boot/grub2/grub.cfg", Presence),
    ("usr/lib/dracut/modules.d/50vfioctl", Directory),
    ("usr/lib/dracut/modules.d/50vfioctl/*", Presence),
    ("usr/share/initramfs-tools/hooks/vfioctl", Presence),
    ("etc/initramfs-tools/hooks/vfioctl", Presence),
    ("usr/lib/initcpio/install/vfioctl", Presence),
    ("etc/initcpio/install/vfioctl", Presence),
    ("usr/local/lib64/libvirt.so.0", Link),
    ("usr/local/lib64/*-linux-*/libvirt.so.0", Link),
    ("usr/local/lib/libvirt.so.0", Link),
    ("usr/local/lib/*-linux-*/libvirt.so.0", Link),
    ("usr/lib64/libvirt.so.0", Link),
    ("usr/lib64/*-linux-*/libvirt.so.0", Link),
    ("usr/lib/libvirt.so.0", Link),
    ("usr/lib/*-linux-*/libvirt.so.0", Link),
    ("run/current-system/sw/lib/libvirt.so.0", Link),
    ("run/current-system/sw/lib/*-linux-*/libvirt.so.0", Link),
];

/// Programs of which it is looked for whether they are there, in any of these directories.
pub const PROGRAMS: [&str; 14] = [
    "dracut",
    "grub-mkconfig",
    "grub2-mkconfig",
    "grubby",
    "kernel-install",
    "kernelstub",
    "mkinitcpio",
    "mkinitramfs",
    "proxmox-boot-tool",
    "rpm-ostree",
    "sdbootutil",
    "systemctl",
    "update-grub",
    "vfioctl",
];
/// Where they are looked for.
pub const PROGRAM_DIRECTORIES: [&str; 6] = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];

/// What is installed to be read by udev.
pub const RULES: [(&str, Keep); 2] = [("05-vfioctl.rules", Setting), ("05-driverctl.rules", Presence)];
/// What is installed to be read by systemd.
pub const UNITS: [(&str, Keep); 3] = [
    ("vfioctl-claim.service", Setting),
    ("vfioctl@.service", Setting),
    ("sysinit.target.wants/vfioctl-claim.service", Link),
];

/// Classes whose devices are looked at wherever they hang, and whether what is below them is.
pub const CLASSES: &[(&str, bool)] = &[
    ("block", false),
    ("graphics", false),
    ("input", false),
    ("iommu", false),
    ("iscsi_connection", true),
    ("net", false),
    ("nvme", true),
    ("nvme-subsystem", true),
    ("vtconsole", false),
];

/// What is read in a device's directory, by its bus or class.
pub const DEVICES: &[(&str, &[(&str, Keep)])] = &[
    (
        "pci",
        &[
            ("modalias", Whole),
            ("class", Whole),
            ("vendor", Whole),
            ("boot_vga", Whole),
            ("sriov_totalvfs", Whole),
            ("sriov_offset", Whole),
            ("sriov_stride", Whole),
            ("sriov_vf_device", Whole),
            ("sriov_drivers_autoprobe", Whole),
            ("driver", Link),
            ("iommu_group", Link),
            ("physfn", Link),
            ("virtfn*", Link),
        ],
    ),
    (
        "net",
        &[
            ("flags", Whole),
            ("operstate", Whole),
            ("ifindex", Whole),
            ("statistics/rx_packets", Reduced(reduce::whether_any)),
            ("statistics/tx_packets", Reduced(reduce::whether_any)),
            ("bonding", Directory),
            ("bridge", Directory),
            ("device", Way),
            ("master", Link),
            ("upper_*", Link),
            ("lower_*", Link),
        ],
    ),
    (
        "block",
        &[
            ("partition", Whole),
            ("uevent", Reduced(reduce::node_name)),
            ("holders/*", Link),
            ("slaves/*", Link),
            ("device", Way),
            ("device/state", Whole),
            ("ana_state", Whole),
            ("loop/backing_file", Masked),
            ("backing_dev", Masked),
            ("bcache/set", Way),
            ("bcache/set/bdev*", Directory),
            ("bcache/set/bdev*/dev", Link),
            ("dm/name", Masked),
            ("dm/uuid", Masked),
            ("md/level", Whole),
            ("md/degraded", Whole),
            ("md/raid_disks", Whole),
            ("md/dev-*/state", Whole),
        ],
    ),
    ("bsg", &[("uevent", Reduced(reduce::node_name))]),
    ("scsi_generic", &[("uevent", Reduced(reduce::node_name))]),
    ("nvme-generic", &[("uevent", Reduced(reduce::node_name))]),
    ("nvme", &[("uevent", Reduced(reduce::node_name)), ("state", Whole), ("transport", Whole), ("address", Patiently)]),
    ("iommu", &[("intel-iommu/ecap", Whole)]),
    ("nvme-subsystem", &[("nvme*", Link)]),
    ("iscsi_connection", &[("persistent_address", Masked)]),
    ("drm", &[("status", Whole), ("enabled", Whole)]),
    ("input", &[("capabilities/key", Whole), ("name", Masked)]),
    ("vtconsole", &[("name", Whole), ("bind", Patiently)]),
    ("watchdog", &[("state", Whole)]),
];

/// What is read in the directory of any device.
pub const ANY_DEVICE: &[(&str, Keep)] =
    &[("subsystem", Link), ("dev", Whole), ("net", Directory), ("net/*", Directory), ("net/*/flags", Whole)];

/// What is read of a loaded module.
pub const MODULE: &[(&str, Keep)] = &[
    ("initstate", Whole),
    ("drivers/pci:*", Link),
    ("parameters/allow_unsafe_interrupts", Whole),
    ("parameters/enable_unsafe_noiommu_mode", Whole),
];
