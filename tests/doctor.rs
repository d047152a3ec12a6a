// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl doctor` on small roots: one host with which all is well, and what is said of it once one thing is changed.

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;

const RELEASE: &str = "7.0.0";
/// A VF of a ConnectX-7, its PF, and a network card.
const VF: &str = "0000:3b:00.1";
const PF: &str = "0000:3b:00.0";
const NIC: &str = "0000:04:00.0";

/// A host's root directory.
struct Root {
    directory: tempfile::TempDir,
}

impl Root {
    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(target, path).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.path(path);
        match path.symlink_metadata().unwrap().is_dir() {
            true => fs::remove_dir_all(path).unwrap(),
            false => fs::remove_file(path).unwrap(),
        }
    }

    /// Sets when a file was written, so many seconds from a day long ago.
    fn written(&self, path: &str, seconds: u64) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds);
        File::open(self.path(path)).unwrap().set_modified(time).unwrap();
    }

    fn device(&self, address: &str, ids: &str, driver: Option<&str>, group: Option<u32>) {
        let directory = format!("sys/bus/pci/devices/{address}");
        self.put(&format!("{directory}/modalias"), &format!("pci:{ids}\n"));
        if let Some(driver) = driver {
            self.put(&format!("sys/bus/pci/drivers/{driver}/bind"), "");
            self.link(&format!("{directory}/driver"), &format!("../../drivers/{driver}"));
        }
        if let Some(group) = group {
            let groups = format!("sys/kernel/iommu_groups/{group}");
            self.put(&format!("{groups}/reserved_regions"), "0x00000000fee00000 0x00000000feefffff msi\n");
            self.put(&format!("{groups}/type"), "DMA-FQ\n");
            self.link(&format!("{groups}/devices/{address}"), &format!("../../../../bus/pci/devices/{address}"));
            self.link(&format!("{directory}/iommu_group"), &format!("../../../../kernel/iommu_groups/{group}"));
        }
    }

    /// Whatever leads to that file.
    fn install(&self, template: &str, path: &str) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(template);
        let text = fs::read_to_string(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
        self.put(path, &text.replace("@sbindir@", "/usr/sbin"));
    }

    fn doctor(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(support::VFIOCTL);
        let output = support::run(command.arg("--root").arg(self.directory.path()).arg("doctor").args(arguments));
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn json(&self) -> (i32, Value) {
        let (status, stdout, stderr) = self.doctor(&["--json"]);
        (status, serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}")))
    }
}

/// A host that is ready.
fn good() -> Root {
    let root = Root { directory: tempfile::tempdir().unwrap() };
    root.put("proc/sys/kernel/osrelease", &format!("{RELEASE}\n"));
    root.put("proc/sys/kernel/modules_disabled", "0\n");
    root.put("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n");
    root.put("proc/cmdline", "root=/dev/sda1 intel_iommu=on\n");
    root.put("proc/interrupts", "            CPU0\n   0:         9  IR-IO-APIC    2-edge      timer\n");
    root.put("sys/firmware/acpi/tables/DMAR", "");
    root.put("sys/devices/virtual/iommu/dmar0/intel-iommu/ecap", "f050da\n");
    root.link("sys/class/iommu/dmar0", "../../devices/virtual/iommu/dmar0");
    root.device(PF, "v000015B3d00001021sv000015B3sd00000023bc02sc00i00", Some("mlx5_core"), Some(1));
    root.device(VF, "v000015B3d0000101Esv000015B3sd00000023bc02sc00i00", Some("mlx5_vfio_pci"), Some(2));
    root.device(NIC, "v00008086d00001533sv00008086sd00000000bc02sc00i00", Some("igb"), Some(3));
    root.link(&format!("sys/bus/pci/devices/{VF}/physfn"), &format!("../{PF}"));
    root.put(&format!("sys/bus/pci/devices/{VF}/vfio-dev/vfio0/dev"), "511:0\n");
    // What its variant wants of the PF: that it is up.
    root.put(&format!("sys/bus/pci/devices/{PF}/mlx5_core.eth.0/uevent"), "");

    let modules = format!("lib/modules/{RELEASE}");
    let names = ["vfio", "vfio_iommu_type1", "vfio-pci-core", "vfio-pci", "mlx5-vfio-pci", "iommufd", "igb"];
    let dep: String = names.iter().map(|name| format!("kernel/{name}.ko:\n")).collect();
    root.put(&format!("{modules}/modules.dep"), &dep);
    names.iter().for_each(|name| root.put(&format!("{modules}/kernel/{name}.ko"), ""));
    root.put(
        &format!("{modules}/modules.alias"),
        "alias vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci\nalias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n",
    );
    root.put(
        &format!("boot/config-{RELEASE}"),
        "CONFIG_X86_64=y\nCONFIG_INTEL_IOMMU=y\nCONFIG_IOMMUFD=m\nCONFIG_VFIO_DEVICE_CDEV=y\nCONFIG_MLX5_VFIO_PCI=m\n",
    );
    for module in ["vfio", "vfio_pci_core", "vfio_iommu_type1", "mlx5_vfio_pci"] {
        root.put(&format!("sys/module/{module}/initstate"), "live\n");
    }
    root.put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N\n");
    root.put("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "N\n");

    root.put(&policy_file(VF), &format!("[[device]]\naddress = \"{VF}\"\nid = \"15b3:101e\"\ndriver = \"auto\"\n"));
    root.put("usr/sbin/vfioctl", "");
    root.put("usr/bin/systemctl", "");
    root.put("usr/sbin/grubby", "");
    root.put("run/udev/control", "");
    root.install("udev/05-vfioctl.rules.in", RULE);
    root.install("systemd/vfioctl-claim.service.in", CLAIM);
    root.install("systemd/vfioctl@.service.in", APPLY);
    root.link(WANTED, "../vfioctl-claim.service");
    root.link("usr/lib64/libvirt.so.0", "libvirt.so.0.11003.0");
    root.install("libvirt/qemu.d/vfioctl.in", HOOK);
    fs::set_permissions(root.path(HOOK), Permissions::from_mode(0o755)).unwrap();
    root.put(DRACUT, "");
    root.put(IMAGE, "");
    root
}

fn policy_file(address: &str) -> String {
    format!("etc/vfioctl.d/{address}.toml")
}

const RULE: &str = "usr/lib/udev/rules.d/05-vfioctl.rules";
const CLAIM: &str = "usr/lib/systemd/system/vfioctl-claim.service";
const APPLY: &str = "usr/lib/systemd/system/vfioctl@.service";
const WANTED: &str = "usr/lib/systemd/system/sysinit.target.wants/vfioctl-claim.service";
const HOOK: &str = "etc/libvirt/hooks/qemu.d/vfioctl";
const DRACUT: &str = "usr/lib/dracut/modules.d/50vfioctl/module-setup.sh";
const IMAGE: &str = "boot/initramfs-7.0.0.img";

fn without_groups(root: &Root) {
    [PF, VF, NIC].iter().for_each(|device| root.remove(&format!("sys/bus/pci/devices/{device}/iommu_group")));
    root.remove("sys/kernel/iommu_groups");
}

/// What is changed, and the finding that comes of it: its check, its severity, and how what mends it begins.
type Case = (&'static str, fn(&Root), &'static str, &'static str, &'static str);

const CASES: &[Case] = &[
    ("nothing", |_| {}, "iommu", "pass", ""),
    (
        "no PCI",
        |root| {
            without_groups(root);
            root.remove("sys/bus/pci");
            root.put("proc/cmdline", "pci=off\n");
        },
        "pci",
        "failure",
        "grubby --update-kernel=ALL --remove-args=pci=off",
    ),
    // The IOMMU.
    (
        "no parameter",
        |root| {
            without_groups(root);
            root.remove("sys/class/iommu/dmar0");
            root.put("proc/cmdline", "quiet\n");
        },
        "iommu",
        "failure",
        "grubby --update-kernel=ALL --args=intel_iommu=on",
    ),
    (
        "turned off",
        |root| {
            without_groups(root);
            root.put("proc/cmdline", "intel_iommu=off\n");
        },
        "iommu",
        "failure",
        "grubby --update-kernel=ALL --remove-args=intel_iommu=off",
    ),
    (
        "a guest of Xen",
        |root| {
            without_groups(root);
            root.put("sys/hypervisor/type", "xen\n");
            root.put("sys/hypervisor/uuid", "2f6f8a4e-58b1-4e3a-9e6a-0d1c2b3a4f50\n");
            root.put("proc/xen/capabilities", "");
        },
        "iommu",
        "failure",
        "on the host of this guest",
    ),
    (
        "the host of Xen's guests",
        |root| {
            without_groups(root);
            root.put("sys/hypervisor/type", "xen\n");
            root.put("proc/xen/capabilities", "control_d\n");
        },
        "iommu",
        "failure",
        "boot this kernel without Xen",
    ),
    (
        "the host of Xen's guests, by its UUID",
        |root| {
            without_groups(root);
            root.put("sys/hypervisor/type", "xen\n");
            root.put("sys/hypervisor/uuid", "00000000-0000-0000-0000-000000000000\n");
        },
        "iommu",
        "failure",
        "boot this kernel without Xen",
    ),
    (
        "virtio's, without its driver",
        |root| {
            without_groups(root);
            root.remove("sys/firmware/acpi/tables/DMAR");
            root.put("sys/firmware/acpi/tables/VIOT", "");
        },
        "iommu",
        "failure",
        "boot a kernel that was built with CONFIG_VIRTIO_IOMMU",
    ),
    (
        "off in the firmware",
        |root| {
            without_groups(root);
            root.remove("sys/firmware/acpi/tables/DMAR");
        },
        "iommu",
        "failure",
        "turn on VT-d",
    ),
    (
        "a guest without one",
        |root| {
            without_groups(root);
            root.remove("sys/firmware/acpi/tables/DMAR");
            root.put("proc/cpuinfo", "vendor_id\t: AuthenticAMD\nflags\t\t: fpu hypervisor\n");
        },
        "iommu",
        "failure",
        "on the hypervisor, with libvirt: <iommu",
    ),
    (
        "by default, and off",
        |root| {
            without_groups(root);
            root.put("proc/cmdline", "quiet\n");
            root.put("boot/config-7.0.0", "CONFIG_INTEL_IOMMU=y\nCONFIG_INTEL_IOMMU_DEFAULT_ON=y\n");
        },
        "iommu",
        "failure",
        "dmesg | grep",
    ),
    (
        "only groups of no IOMMU",
        |root| {
            root.put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n");
            root.remove("sys/class/iommu/dmar0");
            (1..=3).for_each(|group| root.put(&format!("sys/kernel/iommu_groups/{group}/name"), "vfio-noiommu\n"));
        },
        "iommu",
        "failure",
        "dmesg | grep",
    ),
    (
        "groups that are left of the mode without an IOMMU",
        |root| {
            root.remove("sys/class/iommu/dmar0");
            (1..=3).for_each(|group| root.put(&format!("sys/kernel/iommu_groups/{group}/name"), "vfio-noiommu\n"));
        },
        "iommu",
        "failure",
        "dmesg | grep",
    ),
    (
        "an IOMMU that other devices have",
        |root| {
            without_groups(root);
            root.put("sys/kernel/iommu_groups/0/type", "DMA\n");
        },
        "iommu",
        "failure",
        "dmesg | grep",
    ),
    (
        "devices without an IOMMU",
        |root| root.put("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "Y\n"),
        "no-iommu-mode",
        "warning",
        "echo N >",
    ),
    (
        "a command line that is no text",
        |root| {
            fs::write(root.path("proc/cmdline"), b"root=LABEL=\xff amd_iommu=on modprobe.blacklist=vfio_pci\n").unwrap()
        },
        "iommu-parameters",
        "note",
        "",
    ),
    ("AMD's parameter", |root| root.put("proc/cmdline", "amd_iommu=on\n"), "iommu-parameters", "note", ""),
    // Interrupts.
    (
        "not remapped",
        |root| root.put("proc/interrupts", "   0:   9   IO-APIC    2-edge  timer\n"),
        "interrupt-remapping",
        "failure",
        "dmesg | grep",
    ),
    (
        "not remapped by a parameter",
        |root| {
            root.put("proc/interrupts", "   0:   9   IO-APIC    2-edge  timer\n");
            root.put("proc/cmdline", "intremap=off\n");
        },
        "interrupt-remapping",
        "failure",
        "grubby --update-kernel=ALL --remove-args=intremap=off",
    ),
    (
        "not remapped by the hardware, and allowed",
        |root| {
            root.put("proc/interrupts", "   0:   9   IO-APIC    2-edge  timer\n");
            root.put("sys/devices/virtual/iommu/dmar0/intel-iommu/ecap", "f050d2\n");
            root.put("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n");
        },
        "interrupt-remapping",
        "warning",
        "options vfio_iommu_type1 allow_unsafe_interrupts=1",
    ),
    (
        "not remapped, and to be allowed by modprobe.d",
        |root| {
            root.put("proc/interrupts", "   0:   9   IO-APIC    2-edge  timer\n");
            root.remove("sys/module/vfio_iommu_type1");
            root.put(
                "etc/modprobe.d/x.conf",
                "options vfio-iommu-type1 disable_hugepages=1 allow_unsafe_interrupts=1\n",
            );
        },
        "interrupt-remapping",
        "warning",
        "dmesg | grep",
    ),
    (
        "not remapped, and to be allowed by the command line",
        |root| {
            root.put("proc/interrupts", "   0:   9   IO-APIC    2-edge  timer\n");
            root.remove("sys/module/vfio_iommu_type1");
            root.put("proc/cmdline", "vfio_iommu_type1.allow_unsafe_interrupts=1\n");
        },
        "interrupt-remapping",
        "warning",
        "dmesg | grep",
    ),
    (
        "not remapped, and no more allowed",
        |root| {
            root.put("proc/interrupts", "   0:   9   IO-APIC    2-edge  timer\n");
            root.remove("sys/module/vfio_iommu_type1");
            root.put("etc/modprobe.d/x.conf", "options vfio_iommu_type1 allow_unsafe_interrupts=1\n");
            root.put("proc/cmdline", "vfio_iommu_type1.allow_unsafe_interrupts=0\n");
        },
        "interrupt-remapping",
        "failure",
        "dmesg | grep",
    ),
    (
        "no interrupt that tells",
        |root| root.put("proc/interrupts", "            CPU0\nNMI:   0   Non-maskable interrupts\n"),
        "interrupt-remapping",
        "note",
        "",
    ),
    (
        "not remapped by a guest's IOMMU",
        |root| {
            root.put("proc/interrupts", "   0:   9   IO-APIC    2-edge  timer\n");
            root.put("proc/cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu hypervisor\n");
            root.remove("sys/class/iommu/dmar0");
            root.put("sys/class/iommu/virtio3/uevent", "");
        },
        "interrupt-remapping",
        "failure",
        "on the hypervisor, with libvirt: <iommu model='intel'>",
    ),
    (
        "allowed without need",
        |root| root.put("sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "Y\n"),
        "interrupt-remapping",
        "note",
        "take allow_unsafe_interrupts=1",
    ),
    // Groups.
    (
        "a shared group",
        |root| root.device("0000:04:00.1", "v00008086d00001533sv00008086sd00000000bc02sc00i00", None, Some(3)),
        "iommu-groups",
        "note",
        "vfioctl groups",
    ),
    (
        "a device without a group",
        |root| root.device("0000:05:00.0", "v00008086d00001533sv00008086sd00000000bc02sc00i00", None, None),
        "iommu-groups",
        "warning",
        "",
    ),
    (
        "a device in a group of no IOMMU",
        |root| root.put("sys/kernel/iommu_groups/3/name", "vfio-noiommu\n"),
        "iommu-groups",
        "warning",
        "",
    ),
    (
        "a group that cannot be read",
        |root| {
            root.remove("sys/kernel/iommu_groups/3/reserved_regions");
            root.put("sys/kernel/iommu_groups/3/reserved_regions/x", "");
        },
        "iommu-groups",
        "warning",
        "",
    ),
    (
        "a group that is held up",
        |root| {
            let ids = "v00008086d00001533sv00008086sd00000000bc02sc00i00";
            root.device("0000:3b:00.2", ids, Some("igb"), Some(2));
        },
        "iommu-group-blocked",
        "warning",
        "vfioctl bind 0000:3b:00.2",
    ),
    (
        "a group that a bridge holds up",
        |root| {
            let ids = "v00008086d00002030sv00008086sd00000000bc06sc04i00";
            root.device("0000:3a:00.0", ids, Some("shpchp"), Some(2));
        },
        "iommu-group-blocked",
        "warning",
        "echo 0000:3a:00.0 > /sys/bus/pci/drivers/shpchp/unbind",
    ),
    (
        "a fixed mapping",
        |root| root.put("sys/kernel/iommu_groups/3/reserved_regions", "0x0 0xfff direct\n"),
        "iommu-group-reserved",
        "warning",
        "look in the firmware setup",
    ),
    (
        "groups made smaller",
        |root| root.put("proc/cmdline", "pcie_acs_override=downstream,multifunction\n"),
        "acs-override",
        "warning",
        "grubby --update-kernel=ALL --remove-args=pcie_acs_override=downstream,multifunction",
    ),
    // Modules.
    (
        "a module is missing",
        |root| root.remove("lib/modules/7.0.0/kernel/vfio-pci.ko"),
        "vfio-modules",
        "failure",
        "boot a kernel that was built with CONFIG_VFIO_PCI",
    ),
    (
        "another architecture's module in place of it",
        |root| {
            root.remove("sys/module/vfio_iommu_type1");
            root.remove("lib/modules/7.0.0/kernel/vfio_iommu_type1.ko");
            root.put("sys/module/vfio_iommu_spapr_tce/initstate", "live\n");
        },
        "vfio-modules",
        "pass",
        "",
    ),
    (
        "iommufd in place of it",
        |root| {
            root.remove("sys/module/vfio_iommu_type1");
            root.remove("lib/modules/7.0.0/kernel/vfio_iommu_type1.ko");
            root.remove("boot/config-7.0.0");
        },
        "vfio-modules",
        "warning",
        "boot a kernel",
    ),
    (
        "no alias table",
        |root| root.remove("lib/modules/7.0.0/modules.alias"),
        "module-tables",
        "warning",
        "depmod 7.0.0",
    ),
    (
        "no module can be loaded",
        |root| root.put("proc/sys/kernel/modules_disabled", "1\n"),
        "module-loading",
        "failure",
        "find what sets kernel.modules_disabled",
    ),
    (
        "locked down",
        |root| root.put("sys/kernel/security/lockdown", "none [integrity] confidentiality\n"),
        "module-loading",
        "note",
        "",
    ),
    (
        "blacklisted",
        |root| root.put("etc/modprobe.d/x.conf", "# x\nblacklist vfio-pci\n"),
        "module-blacklisted",
        "warning",
        "sed -i '2s/^/# /' /etc/modprobe.d/x.conf",
    ),
    (
        "blacklisted by a package",
        |root| root.put("usr/lib/modprobe.d/x y.conf", "blacklist vfio-pci\n"),
        "module-blacklisted",
        "warning",
        "test -e '/etc/modprobe.d/x y.conf' || install -D -m644 '/usr/lib/modprobe.d/x y.conf' '/etc/modprobe.d/x y.conf'",
    ),
    (
        "refused by the kernel",
        |root| root.put("proc/cmdline", "module_blacklist=nouveau,vfio_pci\n"),
        "module-blacklisted",
        "failure",
        "grubby --update-kernel=ALL --remove-args=module_blacklist=nouveau,vfio_pci",
    ),
    (
        "a variant refused by the kernel",
        |root| root.put("proc/cmdline", "module_blacklist=vfio_pci module_blacklist=mlx5_vfio_pci\n"),
        "module-blacklisted",
        "warning",
        "grubby --update-kernel=ALL --remove-args=module_blacklist=mlx5_vfio_pci",
    ),
    (
        "something else in place of it",
        |root| root.put("etc/modprobe.d/x.conf", "install vfio-pci /bin/false\n"),
        "module-blacklisted",
        "warning",
        "take the line out of /etc/modprobe.d/x.conf",
    ),
    ("no iommufd", |root| root.remove("lib/modules/7.0.0/kernel/iommufd.ko"), "iommufd", "note", ""),
    // Variants.
    (
        "a variant is missing",
        |root| {
            root.put("lib/modules/7.0.0/modules.alias", "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n");
            root.remove("lib/modules/7.0.0/kernel/mlx5-vfio-pci.ko");
            root.remove("sys/module/mlx5_vfio_pci");
            root.remove("sys/bus/pci/drivers/mlx5_vfio_pci");
            root.remove(&format!("sys/bus/pci/devices/{VF}/driver"));
        },
        "variant-missing",
        "warning",
        "boot a kernel from 5.18 on that was built with CONFIG_MLX5_VFIO_PCI",
    ),
    // Others' claims.
    (
        "driverctl's",
        |root| {
            root.put("etc/driverctl.d/pci-0000:04:00.0", "vfio-pci\n");
            root.put("usr/lib/udev/rules.d/05-driverctl.rules", "");
        },
        "driverctl",
        "note",
        "vfioctl import-driverctl --yes",
    ),
    (
        "driverctl's without it",
        |root| root.put("etc/driverctl.d/pci-0000:04:00.0", "vfio-pci\n"),
        "driverctl",
        "warning",
        "vfioctl import-driverctl --yes",
    ),
    (
        "ids on the command line",
        |root| root.put("proc/cmdline", "vfio-pci.ids=15b3:101e\n"),
        "module-ids",
        "warning",
        "grubby --update-kernel=ALL --remove-args=vfio-pci.ids=15b3:101e",
    ),
    (
        "ids in modprobe.d",
        |root| root.put("etc/modprobe.d/vfio.conf", "options vfio-pci ids=8086:1533 disable_vga=1\n"),
        "module-ids",
        "note",
        "take ids=8086:1533 out of /etc/modprobe.d/vfio.conf, line 1",
    ),
    (
        "a softdep",
        |root| root.put("etc/modprobe.d/vfio.conf", "softdep igb pre: vfio-pci\n"),
        "module-lines",
        "note",
        "",
    ),
    (
        "a module that is no more",
        |root| root.put("etc/modules-load.d/vfio.conf", "vfio\nvfio_virqfd\n"),
        "module-lines",
        "warning",
        "sed -i '2s/^/# /' /etc/modules-load.d/vfio.conf",
    ),
    (
        "KubeVirt",
        |root| root.put("var/lib/kubelet/device-plugins/kubevirt-kvm.sock", ""),
        "vfio-consumers",
        "note",
        "vfioctl bind --driver vfio-pci",
    ),
    // Policy.
    (
        "a file that is none",
        |root| root.put("etc/vfioctl.d/50-x.toml", "[[device]]\nadress = 1\n"),
        "policy-files",
        "failure",
        "edit /etc/vfioctl.d/50-x.toml",
    ),
    (
        "a device that is gone",
        |root| root.put(&policy_file("0000:99:00.0"), "[[device]]\naddress = '99:00.0'\ndriver = 'auto'\n"),
        "policy-devices",
        "warning",
        "rm /etc/vfioctl.d/0000:99:00.0.toml",
    ),
    (
        "another device",
        |root| {
            root.put("etc/vfioctl.d/50-x.toml", "[[device]]\naddress = '04:00.0'\nid = '8086:1572'\ndriver = 'auto'\n")
        },
        "policy-devices",
        "warning",
        "edit /etc/vfioctl.d/50-x.toml",
    ),
    (
        "no device of that kind",
        |root| root.put("etc/vfioctl.d/50-x.toml", "[[device]]\nclass = 'display'\ndriver = 'auto'\n"),
        "policy-devices",
        "note",
        "",
    ),
    (
        "a driver that is not there",
        |root| root.put("etc/vfioctl.d/50-x.toml", "[[device]]\naddress = '04:00.0'\ndriver = 'qat_vfio_pci'\n"),
        "policy-drivers",
        "failure",
        "driver = \"auto\"   (in /etc/vfioctl.d/50-x.toml)",
    ),
    (
        "a native driver that is not there",
        |root| root.put("etc/vfioctl.d/50-x.toml", "[[device]]\naddress = '04:00.0'\ndriver = '4xxx'\n"),
        "policy-drivers",
        "warning",
        "modprobe the module that has driver 4xxx, or correct the name in /etc/vfioctl.d/50-x.toml",
    ),
    (
        "not on its driver",
        |root| root.link(&format!("sys/bus/pci/devices/{VF}/driver"), "../../drivers/mlx5_core"),
        "policy-drivers",
        "warning",
        "vfioctl apply 0000:3b:00.1",
    ),
    (
        "given away",
        |root| {
            root.link(&format!("sys/bus/pci/devices/{VF}/driver"), "../../drivers/mlx5_core");
            root.put(&format!("run/vfioctl/given-away/{VF}"), "");
        },
        "policy-drivers",
        "note",
        "vfioctl apply",
    ),
    // What is installed.
    ("no rule", |root| root.remove(RULE), "udev-rule", "warning", "install the package of vfioctl"),
    (
        "a masked rule",
        |root| root.link("etc/udev/rules.d/05-vfioctl.rules", "/dev/null"),
        "udev-rule",
        "warning",
        "rm /etc/udev/rules.d/05-vfioctl.rules",
    ),
    ("a rule of another version", |root| root.put(RULE, "SUBSYSTEM==\"pci\"\n"), "udev-rule", "warning", "install"),
    (
        "no program",
        |root| root.remove("usr/sbin/vfioctl"),
        "udev-rule",
        "failure",
        "install the package of vfioctl anew",
    ),
    ("no unit", |root| root.remove(APPLY), "apply-unit", "warning", "install the package of vfioctl"),
    (
        "a masked unit",
        |root| root.link("etc/systemd/system/vfioctl-claim.service", "/dev/null"),
        "claim-unit",
        "warning",
        "rm /etc/systemd/system/vfioctl-claim.service",
    ),
    (
        "a unit that nobody wants",
        |root| root.remove(WANTED),
        "claim-unit",
        "warning",
        "systemctl add-wants sysinit.target vfioctl-claim.service",
    ),
    (
        "no udev",
        |root| root.remove("run/udev/control"),
        "udev-running",
        "warning",
        "systemctl start systemd-udevd.service",
    ),
    (
        "an override that nobody keeps",
        |root| {
            root.remove(&format!("sys/bus/pci/devices/{NIC}/driver"));
            root.put(&format!("sys/bus/pci/devices/{NIC}/driver_override"), "none\n");
        },
        "overrides",
        "warning",
        "vfioctl unbind 0000:04:00.0",
    ),
    // The initramfs.
    ("a choice that is newer", |root| root.written(IMAGE, 0), "initramfs", "warning", "dracut --force --kver 7.0.0"),
    (
        "another builder",
        |root| {
            root.remove("usr/lib/dracut");
            root.remove(IMAGE);
            root.put("usr/share/initramfs-tools/hooks/vfioctl", "");
            root.put("boot/initrd.img-7.0.0", "");
            root.written("boot/initrd.img-7.0.0", 0);
        },
        "initramfs",
        "warning",
        "update-initramfs -u -k 7.0.0",
    ),
    (
        "Arch's",
        |root| {
            root.remove("usr/lib/dracut");
            root.remove(IMAGE);
            root.put("usr/lib/initcpio/install/vfioctl", "");
            root.put("etc/mkinitcpio.conf", "HOOKS=(base vfioctl\n  udev)\n");
            root.put("lib/modules/7.0.0/pkgbase", "linux\n");
            root.put("boot/initramfs-linux.img", "");
            root.written("boot/initramfs-linux.img", 0);
        },
        "initramfs",
        "warning",
        "mkinitcpio -P",
    ),
    (
        "Arch's, too late",
        |root| {
            root.remove("usr/lib/dracut");
            root.remove(IMAGE);
            root.put("usr/lib/initcpio/install/vfioctl", "");
            root.put("etc/mkinitcpio.conf", "HOOKS=(base udev\n  vfioctl)\n");
        },
        "initramfs",
        "warning",
        "put vfioctl before udev",
    ),
    (
        "a deployment of OSTree's",
        |root| {
            root.put("run/ostree-booted", "");
            root.written(IMAGE, 0);
        },
        "initramfs",
        "note",
        "rpm-ostree initramfs --enable",
    ),
    (
        "native, and no hook",
        |root| {
            root.remove("usr/lib/dracut");
            root.link(&format!("sys/bus/pci/devices/{VF}/driver"), "../../drivers/mlx5_core");
        },
        "early-boot",
        "warning",
        "install the hook",
    ),
    // libvirt.
    (
        "an old libvirt",
        |root| root.link("usr/lib64/libvirt.so.0", "libvirt.so.0.9000.0"),
        "libvirt",
        "warning",
        "update libvirt to 10.0.0 or newer",
    ),
    ("no libvirt", |root| root.remove("usr/lib64/libvirt.so.0"), "libvirt", "note", ""),
    (
        "no hook for libvirt",
        |root| {
            root.remove(HOOK);
            root.put("usr/share/vfioctl/libvirt-hook", "");
        },
        "libvirt-hook",
        "note",
        "install -D -m755 /usr/share/vfioctl/libvirt-hook /etc/libvirt/hooks/qemu.d/vfioctl",
    ),
    (
        "a hook that is not called",
        |root| fs::set_permissions(root.path(HOOK), Permissions::from_mode(0o644)).unwrap(),
        "libvirt-hook",
        "warning",
        "chmod +x /etc/libvirt/hooks/qemu.d/vfioctl",
    ),
    (
        "a hook that calls nobody",
        |root| root.put(HOOK, "#!/bin/sh\nexec /opt/sbin/vfioctl libvirt hook -- \"$@\"\n"),
        "libvirt-hook",
        "failure",
        "install the package of vfioctl anew",
    ),
];

fn findings(document: &Value) -> &Vec<Value> {
    document["findings"].as_array().unwrap()
}

#[test]
fn one_change_is_one_finding() {
    let (_, before) = good().json();
    // Most of the time goes into making roots, which can be done side by side.
    thread::scope(|scope| {
        for cases in CASES.chunks(CASES.len().div_ceil(4)) {
            scope.spawn(|| cases.iter().for_each(|case| is_found(case, &before)));
        }
    });
}

fn is_found((name, change, check, severity, mend): &Case, before: &Value) {
    let root = good();
    change(&root);
    let (status, document) = root.json();
    let found = findings(&document).iter().find(|found| found["check"] == *check && found["severity"] == *severity);
    let found = found.unwrap_or_else(|| panic!("{name}: no {severity} of {check}: {document:#}"));
    let first = found["mend"][0].as_str().unwrap_or_default();
    assert!(first.starts_with(mend) && first.is_empty() == mend.is_empty(), "{name}: {found:#}");
    let is_ready = findings(&document).iter().all(|found| found["severity"] != "failure");
    assert_eq!((status, &document["ready"]), (i32::from(!is_ready), &Value::Bool(is_ready)), "{name}");
    // What is evidence is spelled as the host spells it.
    let evidence = document.to_string();
    assert!(!evidence.contains(root.directory.path().to_str().unwrap()), "{name}: {document:#}");
    if *name != "nothing" {
        assert_ne!(findings(&document), findings(before), "{name}");
    }
}

#[test]
fn a_host_that_is_ready() {
    let (status, document) = good().json();
    assert_eq!((status, &document["schema"], &document["command"]), (0, &1.into(), &"doctor".into()));
    for found in findings(&document) {
        assert_eq!(found["severity"], "pass", "{found:#}");
        assert_eq!(found["mend"], Value::Array(Vec::new()));
    }
    let (status, text, stderr) = good().doctor(&[]);
    assert_eq!((status, stderr.as_str()), (0, ""));
    assert!(text.ends_with("\nThis host is ready for VFIO: 0 failures, 0 warnings, 0 notes, 16 passed.\n"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("PASS  ")).count(), 16, "{text}");
    // With -v each says what shows it.
    let (_, verbose, _) = good().doctor(&["-v"]);
    assert!(verbose.contains("\n    /proc/interrupts: IR-IO-APIC\n"), "{verbose}");
    assert!(!text.contains("/proc/interrupts"), "{text}");
}

/// A FIFO in place of any file is not waited for.
#[test]
fn what_is_no_file_is_not_waited_for() {
    let variable = "sys/firmware/efi/efivars/LoaderInfo-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
    for path in ["proc/interrupts", "proc/cpuinfo", "proc/cmdline", variable] {
        let root = good();
        root.put(path, "");
        root.remove(path);
        let fifo = root.path(path);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
        let mut command = Command::new("timeout");
        command.args(["10", support::VFIOCTL, "--root"]).arg(root.directory.path()).arg("doctor");
        let output = support::run(&mut command);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{path}: {}", support::transcript(&output));
    }
}

#[test]
fn what_mends_it_stands_under_it() {
    let root = good();
    root.put("proc/interrupts", "   0:   9   IO-APIC    2-edge  timer\n");
    root.put("proc/cmdline", "intremap=off\n");
    let (status, text, _) = root.doctor(&["--color", "always"]);
    assert_eq!(status, 1);
    let plain =
        text.replace("\u{1b}[31m", "").replace("\u{1b}[1m", "").replace("\u{1b}[2m", "").replace("\u{1b}[0m", "");
    assert_ne!(plain, text);
    let expected = "interrupts are not remapped, and without that VFIO gives no device away\n    \
                    /proc/interrupts: IO-APIC, and no controller IR-…\n    /proc/cmdline: intremap=off\n    \
                    → grubby --update-kernel=ALL --remove-args=intremap=off\n";
    assert!(plain.contains(expected), "{plain}");
}

/// The manual's table has each check that is made, and no other.
#[test]
fn each_check_is_in_the_manual() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("man/vfioctl.8")).unwrap();
    let section = page.split(".It Cm doctor\n").nth(1).and_then(|rest| rest.split(".It Cm snapshot").next()).unwrap();
    let told: BTreeSet<&str> = section.lines().filter_map(|line| line.strip_prefix(".It Sy ")).collect();
    let made: BTreeSet<&str> = CASES.iter().map(|(_, _, check, ..)| *check).chain(["variant-drivers"]).collect();
    assert_eq!(told, made);
    let (_, document) = good().json();
    for found in findings(&document) {
        assert!(told.contains(found["check"].as_str().unwrap()), "{found:#}");
    }
}

/// Nothing is written, and what steers a terminal is not passed on.
#[test]
fn it_looks_and_that_is_all() {
    let root = good();
    root.put("etc/vfioctl.d/50-x.toml", "x = '\u{1b}[2J\u{202e}'\n");
    let list = || -> Vec<(PathBuf, u64)> {
        let walk = walkdir::WalkDir::new(root.directory.path()).sort_by_file_name();
        walk.into_iter()
            .map(|entry| entry.unwrap())
            .map(|e| (e.path().to_path_buf(), e.metadata().unwrap().len()))
            .collect()
    };
    let before = list();
    for arguments in [&["--color", "always"][..], &["--json"], &["-v", "--color", "never"]] {
        let (status, stdout, stderr) = root.doctor(arguments);
        assert_eq!(status, 1, "{stdout}{stderr}");
        assert!(!stdout.contains("\u{1b}[2J") && !stdout.contains('\u{202e}'), "{stdout:?}");
    }
    assert_eq!(list(), before);
}

/// Whoever has said why there is no driver is not told; where there is one its override is not read.
#[test]
fn an_override_that_is_kept_is_no_finding() {
    type Change = (&'static str, fn(&Root));
    let cases: [Change; 3] = [
        ("the policy's", |root| {
            root.put(&policy_file(NIC), &format!("[[device]]\naddress = \"{NIC}\"\ndriver = \"none\"\n"))
        }),
        ("driverctl's", |root| root.put(&format!("etc/driverctl.d/pci-{NIC}"), "none\n")),
        ("on a driver", |root| root.link(&format!("sys/bus/pci/devices/{NIC}/driver"), "../../drivers/igb")),
    ];
    for (name, change) in cases {
        let root = good();
        root.remove(&format!("sys/bus/pci/devices/{NIC}/driver"));
        root.put(&format!("sys/bus/pci/devices/{NIC}/driver_override"), "none\n");
        change(&root);
        let (_, document) = root.json();
        assert!(!findings(&document).iter().any(|found| found["check"] == "overrides"), "{name}: {document:#}");
    }
}
