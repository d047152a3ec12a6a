// SPDX-License-Identifier: MIT OR Apache-2.0
//! Software on the host that hands VFIO devices to guests, and tells them by the driver's name: most of it knows vfio-pci
//! alone, and for it a device on a variant driver is not there. Looked for only when a variant was chosen, by what each
//! leaves in the file system.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::sysfs::Device;

/// A program that consumes VFIO devices.
struct Consumer {
    name: &'static str,
    /// The drivers it knows.
    knows: &'static [&'static str],
    /// The vendor whose devices it is for; `None`: any.
    vendor: Option<&'static str>,
    /// How the classes of devices that it is for begin; empty: any.
    classes: &'static [&'static str],
    /// What becomes of a device on another driver.
    effect: &'static str,
    sign: Sign,
}

/// What shows that a consumer is here.
enum Sign {
    /// A socket in one of the kubelet's directories, by its name.
    Socket(fn(&str) -> bool),
    /// This directory.
    Directory(fn(&Host) -> PathBuf),
}

const CONSUMERS: [Consumer; 5] = [
    // kubevirt/kubevirt pkg/virt-handler/device-manager: discoverPermittedHostPCIDevices in pci_device.go; SocketPath in
    // common.go, and the devices of every node in device_controller.go.
    Consumer {
        name: "KubeVirt",
        knows: &["vfio-pci"],
        vendor: None,
        classes: &[],
        effect: "offers host devices on vfio-pci alone",
        sign: Sign::Socket(|name| {
            ["kubevirt-kvm.sock", "kubevirt-tun.sock", "kubevirt-vhost-net.sock"].contains(&name)
        }),
    },
    // NVIDIA/kubevirt-gpu-device-plugin pkg/device_plugin: supportedVfioDrivers and getDeviceName in device_plugin.go;
    // NewGenericDevicePlugin in generic_device_plugin.go. What KubeVirt itself makes of a resource has a dot in its name.
    Consumer {
        name: "NVIDIA's KubeVirt GPU device plugin",
        knows: &["vfio-pci", "nvgrace_gpu_vfio_pci"],
        vendor: Some("10de"),
        classes: &[],
        effect: "offers GPUs on vfio-pci and nvgrace_gpu_vfio_pci alone",
        sign: Sign::Socket(|name| {
            let model = name.strip_prefix("kubevirt-").and_then(|name| name.strip_suffix(".sock")).unwrap_or_default();
            let is_in_capitals = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
            !model.is_empty() && model.bytes().all(is_in_capitals)
        }),
    },
    // NVIDIA/gpu-operator cmd/nvidia-validator/main.go: defaultStatusPath, VfioPCI.runValidation.
    Consumer {
        name: "NVIDIA's GPU operator",
        knows: &["vfio-pci", "nvgrace_gpu_vfio_pci"],
        vendor: Some("10de"),
        classes: &[],
        effect: "takes a GPU on vfio-pci or nvgrace_gpu_vfio_pci alone for ready",
        sign: Sign::Directory(Host::gpu_operator),
    },
    // k8snetworkplumbingwg/sriov-network-device-plugin: GetDefaultInfoProvider in pkg/factory/factory.go; NewResourceServer
    // in pkg/resources/server.go names a socket PREFIX_NAME.sock, PREFIX being a domain; SupportedDevices in
    // pkg/types/types.go.
    Consumer {
        name: "the SR-IOV network device plugin",
        knows: &["vfio-pci"],
        vendor: None,
        classes: &["02", "12"],
        effect: "gives a pod the VFIO nodes of devices on vfio-pci alone",
        sign: Sign::Socket(|name| {
            let resource = name.strip_suffix(".sock").and_then(|name| name.split_once('_'));
            let is_name = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            resource.is_some_and(|(prefix, name)| prefix.contains('.') && !name.is_empty() && is_name(name))
        }),
    },
    // k8snetworkplumbingwg/sriov-network-operator pkg/consts/constants.go: SriovConfBasePath, DeviceTypeVfioPci, NetClass.
    Consumer {
        name: "the SR-IOV network operator",
        knows: &["vfio-pci"],
        vendor: None,
        classes: &["02"],
        effect: "knows VFs on vfio-pci or a native driver alone, and may bind this one anew",
        sign: Sign::Directory(Host::sriov_operator),
    },
];

/// What to know of the consumers on a host before a device is on `driver`.
pub fn remarks(host: &Host, device: &Device, driver: &str) -> Vec<String> {
    if driver == "vfio-pci" {
        return Vec::new();
    }
    let (sockets, mut remarks) = sockets(host);
    let found: Vec<(&Consumer, PathBuf)> = CONSUMERS
        .iter()
        .filter(|consumer| consumer.is_for(device))
        .filter_map(|consumer| Some((consumer, consumer.trace(host, &sockets)?)))
        .collect();
    // One that is made for this vendor's devices serves them in place of the others.
    if found.iter().any(|(consumer, _)| consumer.vendor.is_some() && consumer.knows.contains(&driver)) {
        return remarks;
    }
    for (consumer, path) in found.iter().filter(|(consumer, _)| !consumer.knows.contains(&driver)) {
        remarks.push(format!(
            "{} ({}) {}, and this is {driver}; if it is to have the device: vfioctl bind --driver vfio-pci {}",
            consumer.name,
            path.display(),
            consumer.effect,
            device.address
        ));
    }
    remarks
}

/// The consumers on a host, each with what gives it away and what becomes of a device on a driver that it does not know.
pub fn present(host: &Host) -> Vec<(&'static str, PathBuf, &'static str)> {
    let (sockets, _) = sockets(host);
    let found = CONSUMERS.iter().filter_map(|consumer| Some((consumer, consumer.trace(host, &sockets)?)));
    found.map(|(consumer, path)| (consumer.name, path, consumer.effect)).collect()
}

impl Consumer {
    fn is_for(&self, device: &Device) -> bool {
        let class = device.modalias.class();
        self.vendor.is_none_or(|vendor| device.modalias.vendor() == vendor)
            && (self.classes.is_empty() || self.classes.iter().any(|begin| class.starts_with(begin)))
    }

    /// The file that gives it away.
    fn trace(&self, host: &Host, sockets: &[PathBuf]) -> Option<PathBuf> {
        let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match &self.sign {
            Sign::Socket(is_its) => sockets.iter().find(|path| is_its(&name(path))).cloned(),
            Sign::Directory(path) => Some(path(host)).filter(|path| path.is_dir()),
        }
    }
}

/// What device plugins have put into the kubelet's directories, and where that could not be seen.
fn sockets(host: &Host) -> (Vec<PathBuf>, Vec<String>) {
    let (mut sockets, mut remarks) = (Vec::new(), Vec::new());
    for directory in host.device_plugin_sockets() {
        let read = || -> io::Result<Vec<PathBuf>> {
            fs::read_dir(&directory)?.map(|entry| entry.map(|entry| entry.path())).collect()
        };
        match read() {
            Ok(paths) => sockets.extend(paths),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => remarks.push(format!(
                "cannot tell whether software here knows vfio-pci alone: {}: {error}",
                directory.display()
            )),
        }
    }
    sockets.sort();
    (sockets, remarks)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MLX5_VF: &str = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00";
    const QAT_VF: &str = "pci:v00008086d00004941sv00008086sd00000000bc0Bsc40i00";
    const GRACE: &str = "pci:v000010DEd00002342sv000010DEsd000016EBbc03sc02i00";
    const PLUGINS: &str = "var/lib/kubelet/device-plugins";

    fn device(modalias: &str) -> Device {
        let modalias = modalias.parse().unwrap();
        let address = "0000:3b:00.1".parse().unwrap();
        Device { address, modalias, driver: None, iommu_group: None, pf: None, vfs: Vec::new() }
    }

    /// The consumers that are warned of, by the first words of the remarks.
    fn warned(traces: &[&str], modalias: &str, driver: &str) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        for trace in traces {
            let path = root.path().join(trace);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match trace.ends_with(".sock") {
                true => fs::write(path, "").unwrap(),
                false => fs::create_dir(path).unwrap(),
            }
        }
        let host = Host::new(root.path(), None).unwrap();
        let remarks = remarks(&host, &device(modalias), driver);
        assert!(remarks.iter().all(|remark| remark.ends_with("vfioctl bind --driver vfio-pci 0000:3b:00.1")));
        remarks.iter().map(|remark| remark.split(" (").next().unwrap().to_string()).collect()
    }

    #[test]
    fn who_is_warned_of() {
        let kubevirt = format!("{PLUGINS}/kubevirt-kvm.sock");
        let kubevirt_gpu = format!("{PLUGINS}/kubevirt-nvidia.com-GH200.sock");
        let nvidia = format!("{PLUGINS}/kubevirt-GH200_480GB.sock");
        let others = format!("{PLUGINS}/nvidia-gpu.sock");
        let csi = "var/lib/kubelet/plugins_registry/org.cephfs.csi-reg.sock";
        let sriov = format!("{PLUGINS}/openshift.io_mlx_vfs.sock");
        let registry = "var/lib/kubelet/plugins_registry/intel.com_qat.sock";
        let operator = "etc/sriov-operator";
        let gpu_operator = "run/nvidia/validations";
        let (kubevirt, sriov) = (kubevirt.as_str(), sriov.as_str());
        let (virt, plugin, sno) = ("KubeVirt", "the SR-IOV network device plugin", "the SR-IOV network operator");
        let cases: [(&[&str], &str, &str, &[&str]); 12] = [
            (&[], MLX5_VF, "mlx5_vfio_pci", &[]),
            (&[kubevirt], MLX5_VF, "mlx5_vfio_pci", &[virt]),
            (&[kubevirt], MLX5_VF, "vfio-pci", &[]),
            (&[kubevirt_gpu.as_str(), others.as_str(), csi], MLX5_VF, "mlx5_vfio_pci", &[]),
            (&[kubevirt, sriov, operator], MLX5_VF, "mlx5_vfio_pci", &[virt, plugin, sno]),
            (&[registry], MLX5_VF, "mlx5_vfio_pci", &[plugin]),
            // Neither is for a co-processor.
            (&[sriov, operator], QAT_VF, "qat_vfio_pci", &[]),
            (&[kubevirt, gpu_operator], MLX5_VF, "mlx5_vfio_pci", &[virt]),
            (&[kubevirt], GRACE, "nvgrace_gpu_vfio_pci", &[virt]),
            // These know the variant, and stand in for KubeVirt.
            (&[kubevirt, nvidia.as_str()], GRACE, "nvgrace_gpu_vfio_pci", &[]),
            (&[gpu_operator], GRACE, "nvgrace_gpu_vfio_pci", &[]),
            (&[gpu_operator], GRACE, "new_gpu_vfio_pci", &["NVIDIA's GPU operator"]),
        ];
        for (traces, modalias, driver, expected) in cases {
            assert_eq!(warned(traces, modalias, driver), expected, "{traces:?} {modalias} {driver}");
        }
    }

    #[test]
    fn what_cannot_be_looked_into_is_said() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("var/lib/kubelet")).unwrap();
        fs::write(root.path().join(PLUGINS), "").unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let remarks = remarks(&host, &device(MLX5_VF), "mlx5_vfio_pci");
        assert_eq!(remarks.len(), 1);
        assert!(remarks[0].contains("device-plugins"), "{remarks:?}");
    }
}
