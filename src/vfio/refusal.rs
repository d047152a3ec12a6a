// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which device is left alone, and what a step that the kernel refused means. Pure.

use rustix::io::Errno;

use super::open::{Refused, Step, Way};
use crate::catalog::Catalog;
use crate::guard::Holder;
use crate::outcome::{Failure, Kind};
use crate::plan::{Facts, Sibling};
use crate::sysfs::control::describe;

/// What speaks against opening a device, before anything is opened.
pub fn check(facts: &Facts, has_token: bool) -> Result<(), Failure> {
    let device = &facts.device;
    let address = device.address;
    let unsafe_ = |message: String, hint: &str| Err(Failure::new(Kind::Unsafe, message, hint));
    if device.is_bridge() {
        return unsafe_(format!("{address} is a bridge: no VFIO driver takes one"), "ask the devices behind it");
    }
    if !facts.is_vfio_device {
        let now = match &device.driver {
            None => "on no driver".to_string(),
            Some(driver) if Catalog::bundled().by_driver(driver.as_str()).is_some() => {
                let message = format!("{address} is on {driver}, which has made no VFIO device of it");
                return unsafe_(message, &log_hint(facts));
            }
            Some(driver) => format!("on {driver}, which is no VFIO driver"),
        };
        let hint = format!("'vfioctl bind {address}' gives it the one that fits");
        return unsafe_(format!("{address} is {now}: nothing can be asked of it"), &hint);
    }
    if let Some(driver) = device.driver.as_ref().filter(|_| !facts.is_on_vfio_driver()) {
        return unsafe_(
            format!(
                "{address} was made a VFIO device by driver {driver} itself: what opening it would start is unknown"
            ),
            "ask that driver's own tools",
        );
    }
    if !device.vfs.is_empty() {
        return unsafe_(
            format!("{address} is a PF with {} VFs enabled: opening it resets it, and them with it", device.vfs.len()),
            "ask its VFs, or destroy them first",
        );
    }
    if has_token && device.pf.is_none() {
        return unsafe_(
            format!("{address} is no VF: the token would become its own, for VFs that it may come to have"),
            "leave --vf-token out",
        );
    }
    if !facts.holders.is_empty() {
        return Err(in_use(facts));
    }
    Ok(())
}

/// No nodes by which it could be opened.
pub fn no_nodes(facts: &Facts) -> Failure {
    Failure::new(
        Kind::Failed,
        format!(
            "{}: there are no nodes to open it by, neither /dev/vfio/GROUP with /dev/vfio/vfio nor /dev/vfio/devices/NAME \
             with /dev/iommu",
            facts.device.address
        ),
        "in a container they have to be passed in; elsewhere udev or devtmpfs makes them",
    )
}

/// What a refused step means. `facts` are those of after it.
pub fn failure(facts: &Facts, way: &Way, refused: Refused) -> Failure {
    let address = facts.device.address;
    let errno = Errno::from_raw_os_error(refused.errno);
    let call = call(way, refused.step);
    let message = format!("{address}: {call}: {}", describe(errno));
    match (refused.step, errno) {
        (Step::OpenNode | Step::Bind | Step::GetDevice, Errno::BUSY) => in_use(facts),
        (Step::GroupStatus | Step::SetContainer | Step::Bind, Errno::PERM) => not_viable(facts, message),
        (Step::GetDevice | Step::Bind, Errno::ACCESS) => token(facts, way, message),
        (Step::GetDevice | Step::Bind, Errno::INVAL) if way.token.is_some() => Failure::new(
            Kind::Unsafe,
            message,
            "so the kernel refuses a token where none is needed: leave --vf-token out",
        ),
        (Step::SetIommu, Errno::PERM) => Failure::new(
            Kind::Unsafe,
            format!("{message}: the IOMMU does not remap interrupts, or firmware has reserved a mapping in the group"),
            log_hint(facts),
        ),
        (Step::SetIommu, Errno::NODEV) => Failure::new(
            Kind::Module,
            format!("{message}: no module has an IOMMU for containers"),
            "this is for IOMMUs that the module vfio_iommu_type1 knows",
        ),
        (Step::OpenIommu | Step::OpenNode, Errno::ACCESS | Errno::PERM | Errno::ROFS) => Failure::new(
            Kind::Permission,
            message,
            "asking a device is for root; a group without an IOMMU also takes CAP_SYS_RAWIO, and a container its nodes",
        ),
        (Step::GetDevice | Step::Bind, Errno::AGAIN) => {
            Failure::new(Kind::Failed, message, "something holds the device's lock, as binding does: try again")
        }
        _ => Failure::new(Kind::Failed, message, log_hint(facts)),
    }
}

/// Nothing came back in time.
pub fn timed_out(facts: &Facts, error: &dyn std::error::Error) -> Failure {
    let address = facts.device.address;
    Failure::new(
        Kind::Timeout,
        format!("{address}: {error}; it lets go of the device when the kernel does"),
        format!(
            "its reset may be slow, or stuck: dmesg | grep {address}; 'vfioctl show {address}' says who has it open"
        ),
    )
}

fn in_use(facts: &Facts) -> Failure {
    let holders: Vec<String> = facts.holders.iter().map(Holder::to_string).collect();
    let who = match holders.is_empty() {
        // As another user's process is, or one in another PID namespace.
        true => "someone whom we cannot see has it, or its group, open".to_string(),
        false => holders.join(", "),
    };
    Failure::new(
        Kind::Unsafe,
        format!("{} is in use: {who}; asking it would reset it", facts.device.address),
        "stop the VM or program that has it, then try again",
    )
}

fn not_viable(facts: &Facts, message: String) -> Failure {
    let group = facts.group.as_ref().map_or(String::new(), |group| format!(" {}", group.number));
    let blockers: Vec<String> = facts.blockers().map(Sibling::to_string).collect();
    if blockers.is_empty() {
        let message = format!("{message}: another user has IOMMU group{group}, or a driver in it does DMA of its own");
        return Failure::new(Kind::Unsafe, message, format!("'vfioctl show {}' shows the group", facts.device.address));
    }
    Failure::new(
        Kind::Unsafe,
        format!(
            "{}: IOMMU group{group} cannot be given to a user while it also holds {}",
            facts.device.address,
            blockers.join(", ")
        ),
        "bind these too, or unbind them",
    )
}

fn token(facts: &Facts, way: &Way, message: String) -> Failure {
    let pf = facts.device.pf.map_or("its PF".to_string(), |pf| format!("its PF {pf}"));
    match way.token {
        None => Failure::new(
            Kind::Permission,
            format!("{message}: {pf} is on a VFIO driver too, so it takes the token that the PF's user has set"),
            "give that with --vf-token UUID",
        ),
        Some(_) => Failure::new(
            Kind::Permission,
            format!("{message}: not the token that the user of {pf} has set"),
            "QEMU is given it as vf-token=UUID of its vfio-pci device",
        ),
    }
}

fn log_hint(facts: &Facts) -> String {
    format!("the kernel log may say more: dmesg | grep {}", facts.device.address)
}

fn call(way: &Way, step: Step) -> String {
    let opening = |path: &std::path::Path| format!("opening {}", path.display());
    let on = |call: &str, path: &std::path::Path| format!("{call} on {}", path.display());
    match step {
        Step::OpenIommu => opening(&way.iommu),
        Step::OpenNode => opening(&way.device),
        Step::GroupStatus => on("VFIO_GROUP_GET_STATUS", &way.device),
        Step::SetContainer => on("VFIO_GROUP_SET_CONTAINER", &way.device),
        Step::SetIommu => on("VFIO_SET_IOMMU", &way.iommu),
        Step::GetDevice => on("VFIO_GROUP_GET_DEVICE_FD", &way.device),
        Step::Bind => on("VFIO_DEVICE_BIND_IOMMUFD", &way.device),
        Step::Info => "VFIO_DEVICE_GET_INFO".to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Sibling;
    use crate::sysfs::{Device, Group};
    use crate::vfio::open::{Interface, at};

    const NETWORK: &str = "pci:v000015B3d0000101Esv000015B3sd00000000bc02sc00i00";
    const BRIDGE: &str = "pci:v00008086d00003420sv00000000sd00000000bc06sc04i00";

    fn bound(modalias: &str, driver: Option<&str>) -> Facts {
        Facts {
            device: Device {
                address: "0000:3b:00.1".parse().unwrap(),
                modalias: modalias.parse().unwrap(),
                driver: driver.map(|name| name.parse().unwrap()),
                iommu_group: Some(7),
                pf: Some("0000:3b:00.0".parse().unwrap()),
                vfs: Vec::new(),
            },
            driver_override: None,
            is_vfio_device: driver.is_some(),
            vfio_devices: vec!["vfio0".to_string()],
            group: Some(Group { number: 7, ..Group::default() }),
            siblings: Vec::new(),
            holders: Vec::new(),
            findings: Vec::new(),
            may_lack_iommu: false,
        }
    }

    fn qemu() -> Holder {
        let node = Some("/dev/vfio/7".into());
        Holder { pid: 41, command: "qemu".to_string(), node, has_device: None }
    }

    #[test]
    fn what_is_left_alone() {
        let good = || bound(NETWORK, Some("vfio-pci"));
        assert_eq!(check(&good(), true), Ok(()));
        let mut unknown_variant = bound(NETWORK, Some("house_vfio"));
        unknown_variant.driver_override = Some("house_vfio".to_string());
        assert_eq!(check(&unknown_variant, false), Ok(()));

        let native = Facts { is_vfio_device: false, ..bound(NETWORK, Some("mlx5_core")) };
        let driver_override = Some("pci-pf-stub".to_string());
        let stub = Facts { is_vfio_device: false, driver_override, ..bound(NETWORK, Some("pci-pf-stub")) };
        let failed = Facts { is_vfio_device: false, ..good() };
        let mut with_vfs = good();
        with_vfs.device.vfs = vec!["0000:3b:00.2".parse().unwrap()];
        let mut no_vf = good();
        no_vf.device.pf = None;
        for (facts, has_token, words) in [
            (bound(NETWORK, None), false, "on no driver"),
            (native, false, "on mlx5_core, which is no VFIO driver"),
            (stub, false, "on pci-pf-stub, which is no VFIO driver"),
            (failed, false, "has made no VFIO device"),
            (bound(NETWORK, Some("nvidia")), false, "by driver nvidia itself"),
            (bound(BRIDGE, Some("pcieport")), false, "is a bridge"),
            (with_vfs, false, "a PF with 1 VFs"),
            (no_vf, true, "is no VF"),
            (Facts { holders: vec![qemu()], ..good() }, false, "qemu (pid 41) has /dev/vfio/7 open"),
        ] {
            let failure = check(&facts, has_token).unwrap_err();
            assert!(failure.message.contains(words), "{words}: {failure}");
            assert!(failure.message.contains("0000:3b:00.1") && failure.hint.is_some(), "{failure:?}");
            assert_eq!(failure.kind, Kind::Unsafe, "{failure}");
        }
    }

    #[test]
    fn what_the_kernels_refusals_mean() {
        let token = "bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3".parse().unwrap();
        let sibling = |driver: &str| Sibling {
            address: "0000:3b:00.2".parse().unwrap(),
            driver: Some(driver.parse().unwrap()),
            is_vfio_device: false,
        };
        let alone = || bound(NETWORK, Some("vfio-pci"));
        let with = |driver: &str| Facts { siblings: vec![sibling(driver)], ..alone() };
        let held = Facts { holders: vec![qemu()], ..alone() };
        for (facts, step, errno, token, kind, words) in [
            (held, Step::OpenNode, Errno::BUSY, None, Kind::Unsafe, "qemu (pid 41)"),
            (alone(), Step::OpenNode, Errno::BUSY, None, Kind::Unsafe, "someone whom we cannot see"),
            (alone(), Step::Bind, Errno::BUSY, None, Kind::Unsafe, "in use"),
            (
                with("snd_hda_intel"),
                Step::GroupStatus,
                Errno::PERM,
                None,
                Kind::Unsafe,
                "0000:3b:00.2 on snd_hda_intel",
            ),
            (with("snd_hda_intel"), Step::Bind, Errno::PERM, None, Kind::Unsafe, "IOMMU group 7"),
            (with("pcieport"), Step::SetContainer, Errno::PERM, None, Kind::Unsafe, "another user"),
            (
                alone(),
                Step::GetDevice,
                Errno::ACCESS,
                None,
                Kind::Permission,
                "its PF 0000:3b:00.0 is on a VFIO driver",
            ),
            (alone(), Step::Bind, Errno::ACCESS, Some(token), Kind::Permission, "not the token"),
            (alone(), Step::GetDevice, Errno::INVAL, Some(token), Kind::Unsafe, "EINVAL"),
            (alone(), Step::GetDevice, Errno::INVAL, None, Kind::Failed, "VFIO_GROUP_GET_DEVICE_FD on /dev/vfio/7"),
            (alone(), Step::GetDevice, Errno::AGAIN, None, Kind::Failed, "EAGAIN"),
            (alone(), Step::SetIommu, Errno::PERM, None, Kind::Unsafe, "remap interrupts"),
            (alone(), Step::SetIommu, Errno::NODEV, None, Kind::Module, "VFIO_SET_IOMMU on /dev/vfio/vfio"),
            (alone(), Step::OpenIommu, Errno::ACCESS, None, Kind::Permission, "opening /dev/vfio/vfio: EACCES"),
            (alone(), Step::OpenNode, Errno::PERM, None, Kind::Permission, "opening /dev/vfio/7: EPERM"),
            (alone(), Step::OpenNode, Errno::NODEV, None, Kind::Failed, "opening /dev/vfio/7: ENODEV"),
            (alone(), Step::Info, Errno::NOTTY, None, Kind::Failed, "VFIO_DEVICE_GET_INFO: ENOTTY"),
        ] {
            let way = Way {
                interface: Interface::Group,
                device: "/dev/vfio/7".into(),
                iommu: "/dev/vfio/vfio".into(),
                address: facts.device.address.to_string(),
                token,
            };
            let failure = failure(&facts, &way, at(step)(errno));
            assert_eq!(failure.kind, kind, "{step:?} {errno:?}: {failure}");
            assert!(failure.message.starts_with("0000:3b:00.1"), "{failure}");
            assert!(failure.message.contains(words), "{step:?} {errno:?}: {failure}");
            assert!(failure.hint.is_some(), "{failure}");
        }
    }
}
