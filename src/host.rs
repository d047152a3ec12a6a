// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host looked at: a root directory and a kernel release. The only place that spells a path, so that `--root`
//! moves the whole world.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::address::Address;
use crate::file;
use crate::kernel_name::{DriverName, ModuleName};

/// Where the host's files are, and which kernel's module tables count.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
    kernel: Option<String>,
    /// What is looked at in place of /etc/vfioctl.d.
    supposed: Option<PathBuf>,
    /// Read once: it does not change before the next boot.
    running: OnceLock<String>,
}

/// Why a host's kernel could not be told.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// `--root` is not a directory.
    #[error("{0} is not a directory")]
    Root(PathBuf),
    /// No kernel release to be read.
    #[error("cannot read the kernel release from {path}: {source}; name it with --kernel")]
    Release {
        /// Where it was looked for.
        path: PathBuf,
        /// Why that failed.
        source: io::Error,
    },
    /// `--kernel`, or what is there as the release, is something that cannot be a directory's name.
    #[error("'{0}' is not a kernel release (like 6.12.107+deb13-amd64, a directory of /lib/modules)")]
    Kernel(String),
}

impl Host {
    /// A host under `root`; `kernel` names the release to choose for, instead of the one that runs.
    pub fn new(root: &Path, kernel: Option<String>) -> Result<Host, HostError> {
        if !root.is_dir() {
            return Err(HostError::Root(root.to_path_buf()));
        }
        if let Some(name) = &kernel {
            if !is_release(name) {
                return Err(HostError::Kernel(name.escape_default().to_string()));
            }
        }
        Ok(Host { root: root.to_path_buf(), kernel, supposed: None, running: OnceLock::new() })
    }

    /// The same host if its /etc/vfioctl.d were this directory: for saying what would be done, and for nothing else.
    pub fn supposing(self, directory: &Path) -> Host {
        Host { supposed: Some(directory.to_path_buf()), ..self }
    }

    /// Is this the machine itself?
    pub fn is_this_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The release of the kernel that runs.
    pub fn running(&self) -> Result<String, HostError> {
        if let Some(known) = self.running.get() {
            return Ok(known.clone());
        }
        let path = self.root.join("proc/sys/kernel/osrelease");
        match file::read_to_string(&path, file::ATTRIBUTE) {
            Ok(text) if is_release(text.trim_end()) => {
                Ok(self.running.get_or_init(|| text.trim_end().to_string()).clone())
            }
            Ok(text) => Err(HostError::Kernel(text.trim_end().escape_default().to_string())),
            Err(source) => Err(HostError::Release { path, source }),
        }
    }

    /// The release whose module tables count: `--kernel`, else the one that runs.
    pub fn release(&self) -> Result<String, HostError> {
        match &self.kernel {
            Some(kernel) => Ok(kernel.clone()),
            None => self.running(),
        }
    }

    /// The directory of a release's modules and tables; the first of the places distributions use that is there, else
    /// the usual one.
    pub fn modules(&self, release: &str) -> PathBuf {
        let directories = self.module_directories().map(|directory| directory.join(release));
        directories.iter().find(|directory| directory.is_dir()).unwrap_or(&directories[0]).clone()
    }

    /// Where releases have these, a directory each, likeliest first.
    pub fn module_directories(&self) -> [PathBuf; 3] {
        // NixOS keeps them beside the booted system; merged-usr roots may lack the /lib link.
        let places = ["lib/modules", "usr/lib/modules", "run/booted-system/kernel-modules/lib/modules"];
        places.map(|place| self.root.join(place))
    }

    /// Where a release's build configuration may be, likeliest first.
    pub fn kernel_configs(&self, release: &str) -> [PathBuf; 2] {
        [self.root.join("boot").join(format!("config-{release}")), self.modules(release).join("config")]
    }

    /// `/sys/bus/pci`.
    pub fn pci_bus(&self) -> PathBuf {
        self.root.join("sys/bus/pci")
    }

    /// `/sys/bus/pci/devices`.
    pub fn devices(&self) -> PathBuf {
        self.root.join("sys/bus/pci/devices")
    }

    /// A device's directory.
    pub fn device(&self, address: Address) -> PathBuf {
        self.devices().join(address.to_string())
    }

    /// `/sys/bus/pci/drivers`.
    pub fn drivers(&self) -> PathBuf {
        self.root.join("sys/bus/pci/drivers")
    }

    /// A driver's directory.
    pub fn driver(&self, driver: &DriverName) -> PathBuf {
        self.drivers().join(driver.as_str())
    }

    /// A loaded module's directory.
    pub fn module(&self, module: &ModuleName) -> PathBuf {
        self.root.join("sys/module").join(module.as_str())
    }

    /// The loaded modules, and those that are built in and have parameters or drivers.
    pub fn all_modules(&self) -> PathBuf {
        self.root.join("sys/module")
    }

    /// An IOMMU group's directory.
    pub fn iommu_group(&self, group: u32) -> PathBuf {
        self.root.join("sys/kernel/iommu_groups").join(group.to_string())
    }

    /// The class of IOMMU groups that are open to VFIO.
    pub fn vfio_groups(&self) -> PathBuf {
        self.root.join("sys/class/vfio")
    }

    /// The device nodes of VFIO.
    pub fn vfio_nodes(&self) -> PathBuf {
        self.root.join("dev/vfio")
    }

    /// The device node of iommufd.
    pub fn iommufd_node(&self) -> PathBuf {
        self.root.join("dev/iommu")
    }

    /// A path of this host as its own processes spell it.
    pub fn inside(&self, path: &Path) -> PathBuf {
        Path::new("/").join(path.strip_prefix(&self.root).unwrap_or(path))
    }

    /// Drop-in directories of `name`, highest precedence first (UAPI.6).
    fn drop_in(&self, name: &str) -> [PathBuf; 4] {
        ["etc", "run", "usr/local/lib", "usr/lib"].map(|place| self.root.join(place).join(name))
    }

    /// Policy directories, highest precedence first; the first is the administrator's, the only one written to.
    pub fn policy_directories(&self) -> [PathBuf; 4] {
        let mut directories = self.drop_in("vfioctl.d");
        if let Some(supposed) = &self.supposed {
            directories[0].clone_from(supposed);
        }
        directories
    }

    /// Where driverctl keeps its overrides, a file each.
    pub fn driverctl_directory(&self) -> PathBuf {
        self.root.join("etc/driverctl.d")
    }

    /// modprobe's configuration directories, highest precedence first (modprobe.d(5)).
    pub fn modprobe_directories(&self) -> Vec<PathBuf> {
        let mut directories = self.drop_in("modprobe.d").to_vec();
        // On merged-usr systems this is /usr/lib/modprobe.d again, and its files are masked by their own names.
        directories.push(self.root.join("lib/modprobe.d"));
        directories
    }

    /// The processes' directories.
    pub fn processes(&self) -> PathBuf {
        self.root.join("proc")
    }

    /// Every block device, partitions and virtual ones among them.
    pub fn block_devices(&self) -> PathBuf {
        self.root.join("sys/class/block")
    }

    /// What file systems tell of themselves, a directory a kind.
    pub fn file_systems(&self) -> PathBuf {
        self.root.join("sys/fs")
    }

    /// Where the kernel's storage targets are configured: SCSI ones and NVMe ones.
    pub fn storage_targets(&self) -> [PathBuf; 2] {
        ["target/core", "nvmet/subsystems"].map(|name| self.root.join("sys/kernel/config").join(name))
    }

    /// What is swapped to (proc_swaps(5)).
    pub fn swaps(&self) -> PathBuf {
        self.root.join("proc/swaps")
    }

    /// A directory for each ZFS pool that is imported.
    pub fn zfs_pools(&self) -> PathBuf {
        self.root.join("proc/spl/kstat/zfs")
    }

    /// What udev has found out about a block device, by its number `MAJOR:MINOR`.
    pub fn udev_block_data(&self, number: &str) -> PathBuf {
        self.root.join("run/udev/data").join(format!("b{number}"))
    }

    /// The device nodes.
    pub fn device_nodes(&self) -> PathBuf {
        self.root.join("dev")
    }

    /// A file of `/proc/net`, about the network namespace of whoever reads it.
    pub fn network_table(&self, name: &str) -> PathBuf {
        self.root.join("proc/net").join(name)
    }

    /// The file systems that are mounted.
    pub fn mounts(&self) -> PathBuf {
        self.root.join("proc/self/mountinfo")
    }

    /// Whose memory is whose.
    pub fn memory_map(&self) -> PathBuf {
        self.root.join("proc/iomem")
    }

    /// What NVIDIA's own driver says of a device.
    pub fn nvidia(&self, address: Address) -> PathBuf {
        self.root.join("proc/driver/nvidia/gpus").join(address.to_string())
    }

    /// A class of devices.
    pub fn class(&self, name: &str) -> PathBuf {
        self.root.join("sys/class").join(name)
    }

    /// Where the kernel's messages are sent over the network, a directory a target.
    pub fn netconsole(&self) -> PathBuf {
        self.root.join("sys/kernel/config/netconsole")
    }

    /// udev's link from the number of a character device, as `MAJOR:MINOR`, to its node.
    pub fn character_device(&self, number: &str) -> PathBuf {
        self.root.join("dev/char").join(number)
    }

    /// The kernel's command line.
    pub fn kernel_command_line(&self) -> PathBuf {
        self.root.join("proc/cmdline")
    }

    /// The udev rules that are made of the policy's selectors. udev reads them before its packaged rules of that name.
    pub fn udev_rules(&self) -> PathBuf {
        self.root.join("run/udev/rules.d/04-vfioctl-selectors.rules")
    }

    /// Where udev listens for commands, while it runs.
    pub fn udev_control(&self) -> PathBuf {
        self.root.join("run/udev/control")
    }

    /// Whether modules may still be loaded (`kernel.modules_disabled`).
    pub fn modules_disabled(&self) -> PathBuf {
        self.root.join("proc/sys/kernel/modules_disabled")
    }

    /// What the kernel is locked down to (kernel_lockdown(7)).
    pub fn lockdown(&self) -> PathBuf {
        self.root.join("sys/kernel/security/lockdown")
    }

    /// Where Kubernetes' device plugins have their sockets: the kubelet's directory for these, and the one for plugins of all
    /// kinds (k8s.io/kubelet `DevicePluginPath`; the kubelet's `DefaultKubeletPluginsRegistrationDirName`).
    pub fn device_plugin_sockets(&self) -> [PathBuf; 2] {
        ["device-plugins", "plugins_registry"].map(|name| self.root.join("var/lib/kubelet").join(name))
    }

    /// What the SR-IOV network operator keeps.
    pub fn sriov_operator(&self) -> PathBuf {
        self.root.join("etc/sriov-operator")
    }

    /// What NVIDIA's GPU operator has found ready.
    pub fn gpu_operator(&self) -> PathBuf {
        self.root.join("run/nvidia/validations")
    }

    /// Where libvirt's library may be, a directory each.
    pub fn libraries(&self) -> [PathBuf; 5] {
        // What is installed by hand is found first, as the loader does.
        let places = ["usr/local/lib64", "usr/local/lib", "usr/lib64", "usr/lib", "run/current-system/sw/lib"];
        places.map(|place| self.root.join(place))
    }

    /// Where libvirt looks for its hook for QEMU, and for more of them.
    pub fn libvirt_hooks(&self) -> [PathBuf; 2] {
        ["qemu", "qemu.d"].map(|name| self.root.join("etc/libvirt/hooks").join(name))
    }

    /// What the hook for libvirt has taken, a file a domain.
    pub fn libvirt_domains(&self) -> PathBuf {
        self.root.join("run/vfioctl/libvirt")
    }

    /// What the processors are.
    pub fn processors(&self) -> PathBuf {
        self.root.join("proc/cpuinfo")
    }

    /// What interrupts there are, and which controller has each.
    pub fn interrupts(&self) -> PathBuf {
        self.root.join("proc/interrupts")
    }

    /// The tables of the firmware, by their signatures.
    pub fn acpi_tables(&self) -> PathBuf {
        self.root.join("sys/firmware/acpi/tables")
    }

    /// All IOMMU groups.
    pub fn iommu_groups(&self) -> PathBuf {
        self.root.join("sys/kernel/iommu_groups")
    }

    /// A parameter of a module that is in.
    pub fn module_parameter(&self, module: &str, parameter: &str) -> PathBuf {
        self.root.join("sys/module").join(module).join("parameters").join(parameter)
    }

    /// What this machine runs under, where Xen is what it runs under.
    pub fn hypervisor_type(&self) -> PathBuf {
        self.root.join("sys/hypervisor/type")
    }

    /// What Xen calls this domain: all zeros for the one that has the host's devices.
    pub fn hypervisor_uuid(&self) -> PathBuf {
        self.root.join("sys/hypervisor/uuid")
    }

    /// What Xen lets this domain do.
    pub fn xen_capabilities(&self) -> PathBuf {
        self.root.join("proc/xen/capabilities")
    }

    /// What mkinitcpio makes for each kernel.
    pub fn mkinitcpio_presets(&self) -> PathBuf {
        self.root.join("etc/mkinitcpio.d")
    }

    /// A program, in the first directory that has it.
    pub fn program(&self, name: &str) -> Option<PathBuf> {
        let places = ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "sbin", "bin"];
        places.iter().map(|place| self.root.join(place).join(name)).find(|path| path.is_file())
    }

    /// A path that the host's own files name.
    pub fn named(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Is there where OSTree has deployed what is booted.
    pub fn ostree_booted(&self) -> PathBuf {
        self.root.join("run/ostree-booted")
    }

    /// Is there on NixOS.
    pub fn nixos(&self) -> PathBuf {
        self.root.join("etc/NIXOS")
    }

    /// What GRUB's configuration is made of.
    pub fn default_grub(&self) -> PathBuf {
        self.root.join("etc/default/grub")
    }

    /// Where grub-mkconfig's output is, GRUB's own name for its directory first, then Red Hat's and SUSE's.
    pub fn grub_configurations(&self) -> [PathBuf; 2] {
        ["grub", "grub2"].map(|name| self.root.join("boot").join(name).join("grub.cfg"))
    }

    /// The command line that kernel-install(8) gives to kernels.
    pub fn kernel_install_command_line(&self) -> PathBuf {
        self.root.join("etc/kernel/cmdline")
    }

    /// Is there where proxmox-boot-tool looks after the boot loader.
    pub fn proxmox_boot(&self) -> PathBuf {
        self.root.join("etc/kernel/proxmox-boot-uuids")
    }

    /// The firmware's variable in which a boot loader says what it is (the Boot Loader Interface of systemd).
    pub fn boot_loader_variable(&self) -> PathBuf {
        self.root.join("sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")
    }

    /// A release's kernel image, where kernel-install(8) is told to take it from.
    pub fn kernel_images(&self, release: &str) -> [PathBuf; 2] {
        [self.modules(release).join("vmlinuz"), self.root.join("boot").join(format!("vmlinuz-{release}"))]
    }

    /// Where a release's initramfs may be, by the names that distributions give it. Arch Linux names it after the package.
    pub fn initramfs_images(&self, release: &str, package: Option<&str>) -> Vec<PathBuf> {
        let boot = self.root.join("boot");
        let names = [format!("initrd.img-{release}"), format!("initramfs-{release}.img"), format!("initrd-{release}")];
        let mut images: Vec<PathBuf> = names.iter().map(|name| boot.join(name)).collect();
        images.push(self.modules(release).join("initramfs.img"));
        images.extend(package.map(|package| boot.join(format!("initramfs-{package}.img"))));
        images
    }

    /// The package that a release's kernel is of, on Arch Linux.
    pub fn kernel_package(&self, release: &str) -> PathBuf {
        self.modules(release).join("pkgbase")
    }

    /// Where our module for dracut is.
    pub fn dracut_hooks(&self) -> Vec<PathBuf> {
        vec![self.root.join("usr/lib/dracut/modules.d/50vfioctl")]
    }

    /// Where our hook for initramfs-tools may be.
    pub fn initramfs_tools_hooks(&self) -> Vec<PathBuf> {
        ["usr/share", "etc"].map(|place| self.root.join(place).join("initramfs-tools/hooks/vfioctl")).to_vec()
    }

    /// Where our hook for mkinitcpio may be.
    pub fn mkinitcpio_hooks(&self) -> Vec<PathBuf> {
        ["usr/lib", "etc"].map(|place| self.root.join(place).join("initcpio/install/vfioctl")).to_vec()
    }

    /// mkinitcpio's configuration, which names the hooks that it takes, and the directory of more of it.
    pub fn mkinitcpio_configuration(&self) -> [PathBuf; 2] {
        ["mkinitcpio.conf", "mkinitcpio.conf.d"].map(|name| self.root.join("etc").join(name))
    }

    /// Modules that are loaded at boot (modules-load.d(5)), highest precedence first.
    pub fn modules_load_directories(&self) -> [PathBuf; 4] {
        self.drop_in("modules-load.d")
    }

    /// The same in one file, as Debian has it.
    pub fn modules_file(&self) -> PathBuf {
        self.root.join("etc/modules")
    }

    /// udev's directories of rules (udev(7)), highest precedence first.
    pub fn udev_rule_directories(&self) -> [PathBuf; 5] {
        let places = ["etc/udev", "run/udev", "usr/local/lib/udev", "usr/lib/udev", "lib/udev"];
        places.map(|place| self.root.join(place).join("rules.d"))
    }

    /// systemd's directories of units (systemd.unit(5)), highest precedence first.
    pub fn unit_directories(&self) -> [PathBuf; 5] {
        let places = ["etc", "run", "usr/local/lib", "usr/lib", "lib"];
        places.map(|place| self.root.join(place).join("systemd/system"))
    }

    /// Is there while systemd is what has booted the host (sd_booted(3)).
    pub fn systemd(&self) -> PathBuf {
        self.root.join("run/systemd/system")
    }

    /// Where the hook for libvirt is for the taking.
    pub fn libvirt_hook_templates(&self) -> [PathBuf; 2] {
        ["usr/share", "usr/local/share"].map(|place| self.root.join(place).join("vfioctl/libvirt-hook"))
    }

    /// Locks, one a device.
    pub fn locks(&self) -> PathBuf {
        self.root.join("run/vfioctl")
    }

    /// What runs are at, a file a device.
    pub fn unfinished_works(&self) -> PathBuf {
        self.locks().join("unfinished")
    }

    /// What a run is at on a device, or was when it was killed.
    pub fn unfinished(&self, address: Address) -> PathBuf {
        self.unfinished_works().join(address.to_string())
    }

    /// Where it is said that a device was given away although a choice is kept for it.
    pub fn given_away(&self, address: Address) -> PathBuf {
        self.locks().join("given-away").join(address.to_string())
    }
}

/// One component of a path, of the characters that `make kernelrelease` leaves.
fn is_release(name: &str) -> bool {
    !name.is_empty() && !name.starts_with('.') && name.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_release_is_one_component_wherever_it_comes_from() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/sys/kernel")).unwrap();
        for (name, is_good) in [
            ("6.12.107+deb13-amd64", true),
            ("7.0.0-43-generic", true),
            ("", false),
            (".", false),
            ("..", false),
            ("../../etc", false),
            ("7.0/../../../etc", false),
            ("/etc", false),
            ("7.0\u{1b}[2J", false),
            ("7.0 x", false),
        ] {
            assert_eq!(Host::new(root.path(), Some(name.to_string())).is_ok(), is_good, "{name}");
            fs::write(root.path().join("proc/sys/kernel/osrelease"), format!("{name}\n")).unwrap();
            let host = Host::new(root.path(), None).unwrap();
            assert_eq!(host.release().is_ok(), is_good, "{name}");
        }
    }
}
