// SPDX-License-Identifier: MIT OR Apache-2.0
//! From nodes to an open device. Until the last step nothing happens to the device; that one resets it
//! (`drivers/vfio/pci/vfio_pci_core.c`, `vfio_pci_core_enable`), and so does closing it.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::ioctl::{self, Iommu};
use super::nodes::{Nodes, Pair, is_noiommu};
use crate::address::Address;

/// Through which nodes a device is opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Interface {
    /// Its own, and iommufd.
    Cdev,
    /// Its group's, and a container.
    Group,
}

/// How a device is to be opened.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Way {
    /// Through what.
    pub interface: Interface,
    /// The device's node, or its group's.
    pub device: PathBuf,
    /// iommufd, or the container.
    pub iommu: PathBuf,
    /// The device's name in its group.
    pub address: String,
    /// What the user of a VF's PF has agreed on with those of the VFs.
    pub token: Option<Uuid>,
}

impl Way {
    /// The way for these nodes: by the device's own where the kernel has such. Before 6.17 it takes no token there
    /// (`drivers/vfio/device_cdev.c`, `vfio_df_ioctl_bind_iommufd`), and a group always does.
    pub fn choose(nodes: &Nodes, address: Address, token: Option<Uuid>) -> Option<Way> {
        let way = |interface, pair: &Pair| {
            let (device, iommu) = (pair.device.clone(), pair.iommu.clone()?);
            Some(Way { interface, device, iommu, address: address.to_string(), token })
        };
        let cdev = || nodes.cdev.as_ref().and_then(|pair| way(Interface::Cdev, pair));
        let group = || nodes.group.as_ref().and_then(|pair| way(Interface::Group, pair));
        if token.is_some() { group().or_else(cdev) } else { cdev().or_else(group) }
    }

    /// What is opened.
    pub fn nodes(&self) -> [&Path; 2] {
        [&self.device, &self.iommu]
    }
}

/// A step of opening.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Step {
    /// Opening the container or iommufd.
    OpenIommu,
    /// Opening the group's or the device's node.
    OpenNode,
    /// `VFIO_GROUP_GET_STATUS`: an errno of ours, EPERM, if it says that the group is not viable.
    GroupStatus,
    /// `VFIO_GROUP_SET_CONTAINER`
    SetContainer,
    /// `VFIO_SET_IOMMU`
    SetIommu,
    /// `VFIO_GROUP_GET_DEVICE_FD`
    GetDevice,
    /// `VFIO_DEVICE_BIND_IOMMUFD`
    Bind,
    /// `VFIO_DEVICE_GET_INFO`
    Info,
}

/// A step that the kernel refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// Which.
    pub step: Step,
    /// How.
    pub errno: i32,
}

/// An open device, with what has to stay open beside it.
pub struct Open {
    device: OwnedFd,
    _others: Vec<OwnedFd>,
}

impl Open {
    /// The device.
    pub fn device(&self) -> &OwnedFd {
        &self.device
    }
}

/// Opens a device.
pub fn open(way: &Way) -> Result<Open, Refused> {
    let iommu = open_node(&way.iommu).map_err(at(Step::OpenIommu))?;
    let node = open_node(&way.device).map_err(at(Step::OpenNode))?;
    match way.interface {
        Interface::Cdev => {
            let token = way.token.as_ref().map(Uuid::as_bytes);
            ioctl::bind_iommufd(&node, &iommu, token).map_err(at(Step::Bind))?;
            Ok(Open { device: node, _others: vec![iommu] })
        }
        Interface::Group => {
            if !ioctl::is_viable(&node).map_err(at(Step::GroupStatus))? {
                return Err(at(Step::GroupStatus)(Errno::PERM));
            }
            ioctl::set_container(&node, &iommu).map_err(at(Step::SetContainer))?;
            let kind = if is_noiommu(&way.device) { Iommu::None } else { Iommu::Type1v2 };
            ioctl::set_iommu(&iommu, kind).map_err(at(Step::SetIommu))?;
            let device = ioctl::open_device(&node, &name(way)).map_err(at(Step::GetDevice))?;
            Ok(Open { device, _others: vec![node, iommu] })
        }
    }
}

/// The name by which a group knows a device (`drivers/vfio/pci/vfio_pci_core.c`, `vfio_pci_core_match`).
fn name(way: &Way) -> CString {
    let token = way.token.map(|token| format!(" vf_token={token}")).unwrap_or_default();
    CString::new(format!("{}{token}", way.address)).expect("addresses and UUIDs have no NUL")
}

fn open_node(path: &Path) -> rustix::io::Result<OwnedFd> {
    let file: io::Result<File> = OpenOptions::new().read(true).write(true).open(path);
    file.map(OwnedFd::from).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Says at which step an errno came.
pub(super) fn at(step: Step) -> impl Fn(Errno) -> Refused {
    move |errno| Refused { step, errno: errno.raw_os_error() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: Uuid = Uuid::from_u128(0xbd8d9d2b_5a5f_4f5a_a211_f591514ba1f3);

    fn pair(device: &str, iommu: Option<&str>) -> Option<Pair> {
        Some(Pair { device: device.into(), iommu: iommu.map(PathBuf::from) })
    }

    #[test]
    fn by_its_own_node_where_there_is_one() {
        let group = || pair("/dev/vfio/7", Some("/dev/vfio/vfio"));
        let cdev = || pair("/dev/vfio/devices/vfio0", Some("/dev/iommu"));
        let without_iommufd = pair("/dev/vfio/devices/vfio0", None);
        for (group, cdev, token, expected) in [
            (group(), cdev(), None, Some(Interface::Cdev)),
            (group(), cdev(), Some(TOKEN), Some(Interface::Group)),
            (None, cdev(), Some(TOKEN), Some(Interface::Cdev)),
            (group(), None, None, Some(Interface::Group)),
            (group(), without_iommufd, None, Some(Interface::Group)),
            (pair("/dev/vfio/7", None), None, None, None),
            (None, None, None, None),
        ] {
            let nodes = Nodes { group, cdev };
            let way = Way::choose(&nodes, "3b:00.1".parse().unwrap(), token);
            assert_eq!(way.map(|way| way.interface), expected, "{nodes:?}");
        }
    }

    #[test]
    fn the_token_goes_with_the_name() {
        let nodes = Nodes { group: pair("/dev/vfio/7", Some("/dev/vfio/vfio")), cdev: None };
        let name_with = |token| name(&Way::choose(&nodes, "3b:00.1".parse().unwrap(), token).unwrap());
        assert_eq!(name_with(None).as_c_str(), c"0000:3b:00.1");
        let expected = c"0000:3b:00.1 vf_token=bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3";
        assert_eq!(name_with(Some(TOKEN)).as_c_str(), expected);
    }

    #[test]
    fn a_step_that_fails_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        std::fs::write(path("file"), "").unwrap();
        let refused = |interface, device: &str, iommu: &str| {
            let (device, iommu) = (path(device), path(iommu));
            let way = Way { interface, device, iommu, address: "0000:3b:00.1".to_string(), token: None };
            open(&way).err().unwrap()
        };
        let missing = Errno::NOENT;
        assert_eq!(refused(Interface::Group, "file", "none"), at(Step::OpenIommu)(missing));
        assert_eq!(refused(Interface::Cdev, "none", "file"), at(Step::OpenNode)(missing));
        assert_eq!(refused(Interface::Group, "file", "file"), at(Step::GroupStatus)(Errno::NOTTY));
        assert_eq!(refused(Interface::Cdev, "file", "file"), at(Step::Bind)(Errno::NOTTY));
    }
}
