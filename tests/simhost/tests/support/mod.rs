// SPDX-License-Identifier: MIT OR Apache-2.0
//! A small host in a temporary directory, and how to run commands on it.
#![allow(dead_code)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use simhost::model::{Errno, Host, Node};
use tempfile::TempDir;

/// On e1000e, alone in its group.
pub const NIC: &str = "0000:00:02.0";
/// The same hardware on no driver.
pub const TWIN: &str = "0000:00:03.0";
/// On no driver, in no group.
pub const STRAY: &str = "0000:00:04.0";
/// A bridge on pcieport; the PF is behind it.
pub const BRIDGE: &str = "0000:00:01.0";
/// On igb, with 7 VFs to make.
pub const PF: &str = "0000:01:00.0";
/// Its first VF.
pub const VF: &str = "0000:01:10.0";
/// Its second VF.
pub const VF2: &str = "0000:01:10.2";
/// Where no device is.
pub const NOWHERE: &str = "0000:7f:00.0";

const DRIVERS: &str = r#"
title = "A bridge, two equal NICs, one without a group, and a PF"
[[driver]]
name = "pcieport"
ids = ["class:060400"]
[[driver]]
name = "e1000e"
module = "e1000e"
ids = ["8086:10d3"]
children = ["net/{name}"]
[[driver]]
name = "igb"
module = "igb"
ids = ["8086:1521"]
sriov = true
children = ["net/{name}"]
[[driver]]
name = "igbvf"
module = "igbvf"
ids = ["8086:1520"]
[[driver]]
name = "vfio-pci"
module = "vfio_pci"
vfio = true
override-ids = ["*:*"]
[[driver]]
name = "vf_vfio_pci"
module = "vf_vfio_pci"
vfio = true
override-ids = ["8086:1520"]
probe.vf-only = "ENODEV"
probe.pf-driver = ["igb"]
probe.pf-missing = "EINVAL"
[[driver]]
name = "pf-stub"
module = "pf_stub"
sriov = true
keeps-vfs = true
"#;

/// The release of the host, unless a test wants another.
pub const RELEASE: &str = "6.12.107+deb13-amd64";

/// A host's directory.
pub struct Fixture {
    pub directory: TempDir,
}

impl Fixture {
    pub fn new() -> Self {
        Self::with_release(RELEASE)
    }

    pub fn with_release(release: &str) -> Self {
        let fixture = Self { directory: TempDir::new().unwrap() };
        fixture.file("host.toml", DRIVERS);
        fixture.file("proc/sys/kernel/osrelease", &format!("{release}\n"));
        let modules = format!("lib/modules/{release}");
        fixture.file(
            &format!("{modules}/modules.dep"),
            "kernel/e1000e.ko:\nkernel/igb.ko:\nkernel/igbvf.ko:\nkernel/pf-stub.ko:\nkernel/vfio.ko:\n\
             kernel/vfio-pci-core.ko: kernel/vfio.ko\nkernel/vfio-pci.ko: kernel/vfio-pci-core.ko kernel/vfio.ko\n\
             kernel/vf-vfio-pci.ko: kernel/igb.ko kernel/vfio-pci-core.ko kernel/vfio.ko\n",
        );
        fixture.file(
            &format!("{modules}/modules.alias"),
            "alias pci:v00008086d000010D3sv*sd*bc*sc*i* e1000e\n\
             alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n\
             alias vfio_pci:v00008086d00001520sv*sd*bc*sc*i* vf_vfio_pci\n",
        );
        fixture.file(&format!("{modules}/modules.builtin"), "kernel/drivers/pci/pcieport.ko\n");
        for (driver, module) in [("pcieport", None), ("e1000e", Some("e1000e")), ("igb", Some("igb"))] {
            fixture.directory(&format!("sys/bus/pci/drivers/{driver}"));
            if let Some(module) = module {
                fixture.directory(&format!("sys/module/{module}/drivers"));
                fixture.link(&format!("sys/bus/pci/drivers/{driver}/module"), &format!("../../../../module/{module}"));
                fixture.link(
                    &format!("sys/module/{module}/drivers/pci:{driver}"),
                    &format!("../../../bus/pci/drivers/{driver}"),
                );
            }
        }
        let root = "pci0000:00";
        // Newer dpdk-devbind.py looks there for an IOMMU.
        fixture.file("sys/devices/virtual/iommu/dmar0/uevent", "");
        fixture.link("sys/class/iommu/dmar0", "../../devices/virtual/iommu/dmar0");
        fixture.device(root, BRIDGE, "8086", "3420", "060400", Some(1), Some("pcieport"));
        fixture.device(root, NIC, "8086", "10d3", "020000", Some(2), Some("e1000e"));
        fixture.device(root, TWIN, "8086", "10d3", "020000", Some(3), None);
        fixture.device(root, STRAY, "1af4", "1041", "020000", None, None);
        fixture.file(&format!("sys/devices/{root}/{NIC}/net/eno1/address"), "52:54:00:00:00:01\n");
        let behind = format!("{root}/{BRIDGE}");
        fixture.device(&behind, PF, "8086", "1521", "020000", Some(4), Some("igb"));
        for (name, content) in [
            ("sriov_totalvfs", "7\n"),
            ("sriov_numvfs", "0\n"),
            ("sriov_offset", "128\n"),
            ("sriov_stride", "2\n"),
            ("sriov_vf_device", "1520\n"),
            ("sriov_drivers_autoprobe", "1\n"),
            ("reset", ""),
        ] {
            fixture.file(&format!("sys/devices/{behind}/{PF}/{name}"), content);
        }
        fixture
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn file(&self, path: &str, content: &str) {
        self.bytes(path, content.as_bytes());
    }

    fn bytes(&self, path: &str, content: &[u8]) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn directory(&self, path: &str) {
        fs::create_dir_all(self.path().join(path)).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    #[allow(clippy::too_many_arguments)]
    fn device(
        &self,
        parent: &str,
        address: &str,
        vendor: &str,
        device: &str,
        class: &str,
        group: Option<u32>,
        driver: Option<&str>,
    ) {
        let path = format!("sys/devices/{parent}/{address}");
        let up = "../".repeat(path.matches('/').count());
        let upper = |text: &str| format!("{:0>8}", text.to_uppercase());
        let modalias = format!(
            "pci:v{}d{}sv{}sd{}bc{}sc{}i{}\n",
            upper(vendor),
            upper(device),
            upper(vendor),
            upper("1"),
            &class[..2],
            &class[2..4],
            &class[4..]
        );
        for (name, content) in [
            ("modalias", modalias.clone()),
            ("vendor", format!("0x{vendor}\n")),
            ("device", format!("0x{device}\n")),
            ("subsystem_vendor", format!("0x{vendor}\n")),
            ("subsystem_device", "0x0001\n".into()),
            ("class", format!("0x{class}\n")),
            ("revision", "0x00\n".into()),
            ("irq", "11\n".into()),
            ("numa_node", "0\n".into()),
            ("enable", "1\n".into()),
            ("driver_override", "(null)\n".into()),
            ("resource", "0x0000000000000000 0x0000000000000000 0x0000000000000000\n".repeat(13)),
            ("uevent", format!("PCI_SLOT_NAME={address}\nMODALIAS={modalias}")),
        ] {
            self.file(&format!("{path}/{name}"), &content);
        }
        let mut config = vec![0; 64];
        config[0..2].copy_from_slice(&u16::from_str_radix(vendor, 16).unwrap().to_le_bytes());
        config[2..4].copy_from_slice(&u16::from_str_radix(device, 16).unwrap().to_le_bytes());
        config[0x0e] = u8::from(class == "060400");
        self.bytes(&format!("{path}/config"), &config);
        self.link(&format!("sys/bus/pci/devices/{address}"), &format!("../../../devices/{parent}/{address}"));
        self.link(&format!("{path}/subsystem"), &format!("{up}bus/pci"));
        if let Some(group) = group {
            let members = format!("sys/kernel/iommu_groups/{group}");
            self.file(&format!("{members}/type"), "DMA-FQ\n");
            self.file(&format!("{members}/reserved_regions"), "0x00000000fee00000 0x00000000feefffff msi\n");
            self.link(&format!("{members}/devices/{address}"), &format!("../../../../devices/{parent}/{address}"));
            self.link(&format!("{path}/iommu_group"), &format!("{up}kernel/iommu_groups/{group}"));
        }
        if let Some(driver) = driver {
            self.link(&format!("{path}/driver"), &format!("{up}bus/pci/drivers/{driver}"));
            self.link(
                &format!("sys/bus/pci/drivers/{driver}/{address}"),
                &format!("../../../../devices/{parent}/{address}"),
            );
        }
    }

    /// The host as a value.
    pub fn load(&self) -> Host {
        Host::load(self.path()).unwrap()
    }

    /// Runs a shell script on the host.
    pub fn run(&self, options: &[&str], script: &str) -> Output {
        run(self.path(), options, script)
    }

    /// Runs a shell script that must succeed, and gives what it printed.
    pub fn sh(&self, options: &[&str], script: &str) -> String {
        succeed(self.run(options, script))
    }
}

/// The simhost program, set up to run a shell script on a host.
pub fn command(host: &Path, options: &[&str], script: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simhost"));
    command.arg("run").args(options).arg(host).args(["--", "bash", "-c"]).arg(script);
    command
}

/// Runs a shell script on a host.
pub fn run(host: &Path, options: &[&str], script: &str) -> Output {
    command(host, options, script).output().unwrap()
}

/// What a run printed; it must have succeeded.
pub fn succeed(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}\n{}\n{}\n(these tests need root, or user namespaces, and /dev/fuse)",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// The fixture hosts of the repository.
pub fn fixtures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut hosts: Vec<PathBuf> = entries.filter(|path| path.join("host.toml").exists()).collect();
    hosts.sort();
    hosts
}

/// Where a link below /sys leads, by its last name.
pub fn link(host: &Host, path: &str) -> Option<String> {
    match host.walk(path)? {
        Node::Link(target) => target.rsplit('/').next().map(str::to_owned),
        _ => None,
    }
}

/// The driver that a device's link shows.
pub fn driver(host: &Host, address: &str) -> Option<String> {
    link(host, &format!("bus/pci/devices/{address}/driver"))
}

/// What a file below /sys reads.
pub fn read(host: &Host, path: &str) -> Result<String, Errno> {
    let bytes = match host.walk(path).ok_or(Errno::ENOENT)? {
        Node::File(content) => content.to_vec(),
        Node::Attribute(attribute) => host.read(attribute)?,
        _ => return Err(Errno::EISDIR),
    };
    Ok(String::from_utf8(bytes).unwrap())
}
