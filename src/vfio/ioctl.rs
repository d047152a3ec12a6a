// SPDX-License-Identifier: MIT OR Apache-2.0
//! The calls of VFIO and iommufd, one function each, safe to call with any descriptor of VFIO or iommufd. The layouts and numbers are those of
//! the kernel's `include/uapi/linux/vfio.h` (7.3); all are `_IO` calls, whose number does not tell the size of what they
//! take, so that is in its first word, `argsz`.
//!
//! This file alone has `unsafe` code: an ioctl is a pointer to memory whose layout the compiler cannot check.
//!
//! Reviewed line by line on 2026-11-21 with 7.3's `drivers/vfio`. What makes each call sound, besides its own reason:
//! * The kernel copies back at most `argsz` bytes as it was passed (`vfio_pci_ioctl_get_info` takes its `minsz` before it
//!   raises `argsz` for capabilities), or one field (`out_devid`); no call is told of more memory than there is.
//! * The structs are `repr(C)` of integers: any bytes the kernel leaves there are a value, and none are padding.
//! * Nothing is kept by the kernel after the call: what pointers in structs point to is borrowed until then.
//! * A number means one thing only to each kind of descriptor. 117 is also a container's `VFIO_IOMMU_DIRTY_PAGES`, which has
//!   no flag like ours and says EINVAL; 106, whose answer becomes a descriptor, is a group's alone. Descriptors of other
//!   drivers do not get here: `open.rs` opens nothing but nodes of VFIO and iommufd.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_void};
use std::mem::{offset_of, size_of};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::io::{Errno, Result};
use rustix::ioctl::{IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter, Updater, ioctl, opcode};

/// `_IO(VFIO_TYPE, VFIO_BASE + number)`, by the rules of the machine this is compiled for.
const fn vfio(number: u8) -> Opcode {
    opcode::none(b';', 100 + number)
}

const SET_IOMMU: Opcode = vfio(2);
const GROUP_GET_STATUS: Opcode = vfio(3);
const GROUP_SET_CONTAINER: Opcode = vfio(4);
const GROUP_GET_DEVICE_FD: Opcode = vfio(6);
const DEVICE_GET_INFO: Opcode = vfio(7);
const DEVICE_FEATURE: Opcode = vfio(17);
const DEVICE_BIND_IOMMUFD: Opcode = vfio(18);

/// `VFIO_GROUP_FLAGS_VIABLE`
const VIABLE: u32 = 1 << 0;
/// `VFIO_DEVICE_FLAGS_RESET`
const CAN_RESET: u32 = 1 << 0;
/// `VFIO_DEVICE_BIND_FLAG_TOKEN`
const HAS_TOKEN: u32 = 1 << 0;

/// `VFIO_DEVICE_FEATURE_GET`, `_SET` and `_PROBE`.
const GET: u32 = 1 << 16;
const SET: u32 = 1 << 17;
const PROBE: u32 = 1 << 18;

/// How a container translates (`VFIO_TYPE1v2_IOMMU`, `VFIO_NOIOMMU_IOMMU`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Iommu {
    /// By the IOMMU.
    Type1v2 = 3,
    /// Not at all.
    None = 8,
}

/// What a device may offer (`VFIO_DEVICE_FEATURE_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Feature {
    /// A token of its own, for its VFs' users.
    VfToken = 0,
    /// Moving its state.
    Migration = 1,
    /// Powering down.
    LowPowerEntry = 3,
    /// Powering down until it has something to say.
    LowPowerEntryWithWakeup = 4,
    /// Powering up.
    LowPowerExit = 5,
    /// Logging what memory it writes.
    DmaLoggingStart = 6,
    /// Lending its memory.
    DmaBuf = 11,
}

impl Feature {
    /// The kernel's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Feature::VfToken => "VFIO_DEVICE_FEATURE_PCI_VF_TOKEN",
            Feature::Migration => "VFIO_DEVICE_FEATURE_MIGRATION",
            Feature::LowPowerEntry => "VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY",
            Feature::LowPowerEntryWithWakeup => "VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP",
            Feature::LowPowerExit => "VFIO_DEVICE_FEATURE_LOW_POWER_EXIT",
            Feature::DmaLoggingStart => "VFIO_DEVICE_FEATURE_DMA_LOGGING_START",
            Feature::DmaBuf => "VFIO_DEVICE_FEATURE_DMA_BUF",
        }
    }

    /// The only thing that can be done with it: to get it, or to set it. The kernel refuses to be probed for the other.
    fn operation(self) -> u32 {
        match self {
            Feature::Migration | Feature::DmaBuf => GET,
            Feature::VfToken
            | Feature::LowPowerEntry
            | Feature::LowPowerEntryWithWakeup
            | Feature::LowPowerExit
            | Feature::DmaLoggingStart => SET,
        }
    }
}

/// `struct vfio_group_status`
#[repr(C)]
struct GroupStatus {
    argsz: u32,
    flags: u32,
}

/// The part of `struct vfio_device_info` that every kernel has.
#[repr(C)]
struct RawDeviceInfo {
    argsz: u32,
    flags: u32,
    num_regions: u32,
    num_irqs: u32,
}

/// `struct vfio_device_feature`, without data: enough for a probe.
#[repr(C)]
struct FeatureHeader {
    argsz: u32,
    flags: u32,
}

/// `struct vfio_device_feature` with `struct vfio_device_feature_migration` as its data.
#[repr(C)]
struct MigrationFeature {
    argsz: u32,
    flags: u32,
    migration: u64,
}

/// `struct vfio_device_bind_iommufd`; kernels before 6.17 know it up to `out_devid`.
#[repr(C)]
struct BindIommufd {
    argsz: u32,
    flags: u32,
    iommufd: i32,
    out_devid: u32,
    token_uuid_ptr: u64,
}

/// What a device says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceInfo {
    /// Can its user reset it?
    pub can_reset: bool,
    /// How many regions it has, absent ones included.
    pub regions: u32,
    /// How many kinds of interrupts it has, absent ones included.
    pub irqs: u32,
}

/// May a group be used: is every device in it on VFIO, on no driver, or on one that leaves DMA alone? This does not touch
/// the device.
pub fn is_viable(group: impl AsFd) -> Result<bool> {
    let mut status = GroupStatus { argsz: length::<GroupStatus>(), flags: 0 };
    // SAFETY: VFIO_GROUP_GET_STATUS takes a vfio_group_status, as long as its argsz says, and writes no more of it.
    unsafe { ioctl(group, Updater::<GROUP_GET_STATUS, _>::new(&mut status))? };
    Ok(status.flags & VIABLE != 0)
}

/// Puts a group into a container.
pub fn set_container(group: impl AsFd, container: impl AsFd) -> Result<()> {
    let container: RawFd = container.as_fd().as_raw_fd();
    // SAFETY: VFIO_GROUP_SET_CONTAINER reads an int through the pointer it is given, a descriptor that is open here, and takes a
    // reference of its own to what is behind it.
    unsafe { ioctl(group, Setter::<GROUP_SET_CONTAINER, RawFd>::new(container)) }
}

/// Gives a container its IOMMU.
pub fn set_iommu(container: impl AsFd, iommu: Iommu) -> Result<()> {
    // SAFETY: VFIO_SET_IOMMU takes a number in place of a pointer, and uses no memory of ours.
    unsafe { ioctl(container, IntegerSetter::<SET_IOMMU>::new_usize(iommu as usize)) }
}

/// Opens a device of a group by its name, with which a token may go. This resets it.
pub fn open_device(group: impl AsFd, name: &CStr) -> Result<OwnedFd> {
    // SAFETY: see GetDevice, which lives no longer than the name.
    unsafe { ioctl(group, GetDevice { name }) }
}

/// Binds a device that was opened by its own node to an iommufd. This resets it.
pub fn bind_iommufd(device: impl AsFd, iommufd: impl AsFd, token: Option<&[u8; 16]>) -> Result<()> {
    let mut bind = BindIommufd {
        // Without a token as kernels before 6.17 know it.
        argsz: token.map_or(offset_of!(BindIommufd, token_uuid_ptr) as u32, |_| length::<BindIommufd>()),
        flags: token.map_or(0, |_| HAS_TOKEN),
        iommufd: iommufd.as_fd().as_raw_fd(),
        out_devid: 0,
        token_uuid_ptr: token.map_or(0, |token| token.as_ptr() as u64),
    };
    // SAFETY: VFIO_DEVICE_BIND_IOMMUFD takes a vfio_device_bind_iommufd, as long as its argsz says, and writes out_devid. It
    // reads sixteen bytes at token_uuid_ptr if the flag says so, and `token` is borrowed until the call is over.
    unsafe { ioctl(device, Updater::<DEVICE_BIND_IOMMUFD, _>::new(&mut bind)) }
}

/// Asks a device what it is.
pub fn device_info(device: impl AsFd) -> Result<DeviceInfo> {
    let mut info = RawDeviceInfo { argsz: length::<RawDeviceInfo>(), flags: 0, num_regions: 0, num_irqs: 0 };
    // SAFETY: VFIO_DEVICE_GET_INFO takes a vfio_device_info of which as much is there as its argsz says, at least these four
    // words, and writes no more of it.
    unsafe { ioctl(device, Updater::<DEVICE_GET_INFO, _>::new(&mut info))? };
    Ok(DeviceInfo { can_reset: info.flags & CAN_RESET != 0, regions: info.num_regions, irqs: info.num_irqs })
}

/// Asks a device whether it has a feature, without using it. Any error means that it has not: which one, depends on the
/// kernel and the driver.
pub fn has_feature(device: impl AsFd, feature: Feature) -> Result<()> {
    let flags = feature as u32 | PROBE | feature.operation();
    let mut header = FeatureHeader { argsz: length::<FeatureHeader>(), flags };
    // SAFETY: with PROBE the kernel takes a vfio_device_feature, as long as its argsz says, and looks at no data after it.
    unsafe { ioctl(device, Updater::<DEVICE_FEATURE, _>::new(&mut header)) }
}

/// Asks a device how it can be migrated: `VFIO_MIGRATION_*`.
pub fn migration_flags(device: impl AsFd) -> Result<u64> {
    let flags = Feature::Migration as u32 | GET;
    let mut feature = MigrationFeature { argsz: length::<MigrationFeature>(), flags, migration: 0 };
    // SAFETY: with GET of this feature the kernel takes a vfio_device_feature with a vfio_device_feature_migration after it,
    // together as long as argsz says, and writes no more of it.
    unsafe { ioctl(device, Updater::<DEVICE_FEATURE, _>::new(&mut feature))? };
    Ok(feature.migration)
}

/// `argsz`
const fn length<T>() -> u32 {
    size_of::<T>() as u32
}

/// `VFIO_GROUP_GET_DEVICE_FD`
struct GetDevice<'a> {
    name: &'a CStr,
}

// SAFETY: the call reads a string that ends with a NUL, as a CStr does, writes nothing, and returns a new descriptor.
unsafe impl Ioctl for GetDevice<'_> {
    type Output = OwnedFd;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        GROUP_GET_DEVICE_FD
    }

    fn as_ptr(&mut self) -> *mut c_void {
        ptr::from_ref(self.name).cast::<c_void>().cast_mut()
    }

    unsafe fn output_from_ptr(descriptor: IoctlOutput, _: *mut c_void) -> Result<OwnedFd> {
        if descriptor < 0 {
            return Err(Errno::BADF);
        }
        // SAFETY: a descriptor that the kernel has just made is nobody else's (`vfio_group_ioctl_get_device_fd`, which makes it
        // close-on-exec).
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs::File;
    use std::process::Command;

    use super::*;

    /// What C says of the header, printed as `name value` lines. A name that the machine's header is too old for is left out.
    const PROGRAM: &str = r#"
#include <linux/vfio.h>
#include <stddef.h>
#include <stdio.h>
#define SHOW(name, value) printf("%s %llu\n", name, (unsigned long long)(value))
int main(void)
{
	SHOW("SET_IOMMU", VFIO_SET_IOMMU);
	SHOW("GROUP_GET_STATUS", VFIO_GROUP_GET_STATUS);
	SHOW("GROUP_SET_CONTAINER", VFIO_GROUP_SET_CONTAINER);
	SHOW("GROUP_GET_DEVICE_FD", VFIO_GROUP_GET_DEVICE_FD);
	SHOW("DEVICE_GET_INFO", VFIO_DEVICE_GET_INFO);
	SHOW("DEVICE_FEATURE", VFIO_DEVICE_FEATURE);
	SHOW("VIABLE", VFIO_GROUP_FLAGS_VIABLE);
	SHOW("CAN_RESET", VFIO_DEVICE_FLAGS_RESET);
	SHOW("GET", VFIO_DEVICE_FEATURE_GET);
	SHOW("SET", VFIO_DEVICE_FEATURE_SET);
	SHOW("PROBE", VFIO_DEVICE_FEATURE_PROBE);
	SHOW("Type1v2", VFIO_TYPE1v2_IOMMU);
	SHOW("None", VFIO_NOIOMMU_IOMMU);
	SHOW("VfToken", VFIO_DEVICE_FEATURE_PCI_VF_TOKEN);
	SHOW("group status", sizeof(struct vfio_group_status));
	SHOW("group status flags", offsetof(struct vfio_group_status, flags));
	SHOW("info flags", offsetof(struct vfio_device_info, flags));
	SHOW("info regions", offsetof(struct vfio_device_info, num_regions));
	SHOW("info irqs", offsetof(struct vfio_device_info, num_irqs));
	SHOW("info irqs end", offsetof(struct vfio_device_info, num_irqs) + sizeof(__u32));
	SHOW("feature", sizeof(struct vfio_device_feature));
	SHOW("feature flags", offsetof(struct vfio_device_feature, flags));
	SHOW("feature data", offsetof(struct vfio_device_feature, data));
#ifdef VFIO_DEVICE_FEATURE_MIGRATION
	SHOW("Migration", VFIO_DEVICE_FEATURE_MIGRATION);
	SHOW("migration", sizeof(struct vfio_device_feature_migration));
#endif
#ifdef VFIO_DEVICE_FEATURE_LOW_POWER_EXIT
	SHOW("LowPowerEntry", VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY);
	SHOW("LowPowerEntryWithWakeup", VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY_WITH_WAKEUP);
	SHOW("LowPowerExit", VFIO_DEVICE_FEATURE_LOW_POWER_EXIT);
#endif
#ifdef VFIO_DEVICE_FEATURE_DMA_LOGGING_START
	SHOW("DmaLoggingStart", VFIO_DEVICE_FEATURE_DMA_LOGGING_START);
#endif
#ifdef VFIO_DEVICE_FEATURE_DMA_BUF
	SHOW("DmaBuf", VFIO_DEVICE_FEATURE_DMA_BUF);
#endif
#ifdef VFIO_DEVICE_BIND_IOMMUFD
	SHOW("DEVICE_BIND_IOMMUFD", VFIO_DEVICE_BIND_IOMMUFD);
	SHOW("bind iommufd", offsetof(struct vfio_device_bind_iommufd, iommufd));
	SHOW("bind devid", offsetof(struct vfio_device_bind_iommufd, out_devid));
#endif
#ifdef VFIO_DEVICE_BIND_FLAG_TOKEN
	SHOW("HAS_TOKEN", VFIO_DEVICE_BIND_FLAG_TOKEN);
	SHOW("bind", sizeof(struct vfio_device_bind_iommufd));
	SHOW("bind token", offsetof(struct vfio_device_bind_iommufd, token_uuid_ptr));
#endif
	return 0;
}
"#;

    /// What is here, under the same names.
    fn ours() -> BTreeMap<&'static str, u64> {
        BTreeMap::from([
            ("SET_IOMMU", SET_IOMMU as u64),
            ("GROUP_GET_STATUS", GROUP_GET_STATUS as u64),
            ("GROUP_SET_CONTAINER", GROUP_SET_CONTAINER as u64),
            ("GROUP_GET_DEVICE_FD", GROUP_GET_DEVICE_FD as u64),
            ("DEVICE_GET_INFO", DEVICE_GET_INFO as u64),
            ("DEVICE_FEATURE", DEVICE_FEATURE as u64),
            ("DEVICE_BIND_IOMMUFD", DEVICE_BIND_IOMMUFD as u64),
            ("VIABLE", VIABLE.into()),
            ("CAN_RESET", CAN_RESET.into()),
            ("HAS_TOKEN", HAS_TOKEN.into()),
            ("GET", GET.into()),
            ("SET", SET.into()),
            ("PROBE", PROBE.into()),
            ("Type1v2", Iommu::Type1v2 as u64),
            ("None", Iommu::None as u64),
            ("VfToken", Feature::VfToken as u64),
            ("Migration", Feature::Migration as u64),
            ("LowPowerEntry", Feature::LowPowerEntry as u64),
            ("LowPowerEntryWithWakeup", Feature::LowPowerEntryWithWakeup as u64),
            ("LowPowerExit", Feature::LowPowerExit as u64),
            ("DmaLoggingStart", Feature::DmaLoggingStart as u64),
            ("DmaBuf", Feature::DmaBuf as u64),
            ("group status", length::<GroupStatus>().into()),
            ("group status flags", offset_of!(GroupStatus, flags) as u64),
            ("info flags", offset_of!(RawDeviceInfo, flags) as u64),
            ("info regions", offset_of!(RawDeviceInfo, num_regions) as u64),
            ("info irqs", offset_of!(RawDeviceInfo, num_irqs) as u64),
            ("info irqs end", length::<RawDeviceInfo>().into()),
            ("feature", length::<FeatureHeader>().into()),
            ("feature flags", offset_of!(FeatureHeader, flags) as u64),
            ("feature data", offset_of!(MigrationFeature, migration) as u64),
            ("migration", u64::from(length::<MigrationFeature>() - length::<FeatureHeader>())),
            ("bind", length::<BindIommufd>().into()),
            ("bind iommufd", offset_of!(BindIommufd, iommufd) as u64),
            ("bind devid", offset_of!(BindIommufd, out_devid) as u64),
            ("bind token", offset_of!(BindIommufd, token_uuid_ptr) as u64),
        ])
    }

    #[test]
    fn the_kernels_header_says_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let (source, program) = (directory.path().join("header.c"), directory.path().join("header"));
        std::fs::write(&source, PROGRAM).unwrap();
        let compiled = Command::new("cc").arg("-o").arg(&program).arg(&source).output().expect("a C compiler");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let output = String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap();
        let ours = ours();
        let lines: Vec<(&str, u64)> = output
            .lines()
            .map(|line| line.rsplit_once(' ').unwrap())
            .map(|(name, value)| (name, value.parse().unwrap()))
            .collect();
        assert!(lines.len() >= 23, "{output}");
        for (name, value) in lines {
            assert_eq!(ours.get(name), Some(&value), "{name}");
        }
    }

    /// What an older header does not have: the numbers of `include/uapi/linux/vfio.h` in 7.3.
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64", target_arch = "s390x"))]
    #[test]
    fn numbers_that_never_change() {
        let ours = ours();
        for (name, value) in [
            ("SET_IOMMU", 0x3B66),
            ("DEVICE_FEATURE", 0x3B75),
            ("DEVICE_BIND_IOMMUFD", 0x3B76),
            ("Migration", 1),
            ("LowPowerEntry", 3),
            ("LowPowerEntryWithWakeup", 4),
            ("LowPowerExit", 5),
            ("DmaLoggingStart", 6),
            ("DmaBuf", 11),
            ("migration", 8),
            ("bind iommufd", 8),
            ("bind devid", 12),
            ("bind token", 16),
            ("bind", 24),
        ] {
            assert_eq!(ours[name], value, "{name}");
        }
    }

    #[test]
    fn what_is_no_vfio_device_says_so() {
        let file = || File::open("/dev/null").unwrap();
        assert_eq!(is_viable(file()), Err(Errno::NOTTY));
        assert_eq!(set_container(file(), file()), Err(Errno::NOTTY));
        assert_eq!(set_iommu(file(), Iommu::Type1v2), Err(Errno::NOTTY));
        assert_eq!(open_device(file(), c"0000:3b:00.1").unwrap_err(), Errno::NOTTY);
        assert_eq!(bind_iommufd(file(), file(), Some(&[7; 16])), Err(Errno::NOTTY));
        assert_eq!(device_info(file()), Err(Errno::NOTTY));
        assert_eq!(has_feature(file(), Feature::DmaBuf), Err(Errno::NOTTY));
        assert_eq!(migration_flags(file()), Err(Errno::NOTTY));
    }
}
