// SPDX-License-Identifier: MIT OR Apache-2.0
//! Names of modules and of drivers: two types, because they are two things. Module `xe_vfio_pci` registers driver
//! `xe-vfio-pci`, and `driver_override` is compared with the driver's name, byte for byte.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// Why a string is no name for a module or driver.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a name a kernel module or driver can have")]
pub struct NameError(String);

/// Are two names one to the kernel's module loader, to which '-' and '_' are the same?
pub fn is_same_name(a: &str, b: &str) -> bool {
    let normal = |byte| if byte == b'-' { b'_' } else { byte };
    a.bytes().map(normal).eq(b.bytes().map(normal))
}

/// What may stand in such a name: one path component, nothing a terminal or a sysfs write would take amiss.
fn check(text: &str) -> Result<(), NameError> {
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/')
        && !text.starts_with(['.', '-']);
    if fits { Ok(()) } else { Err(NameError(text.escape_default().to_string())) }
}

/// A PCI driver's name, as `/sys/bus/pci/drivers` and `driver_override` have it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct DriverName(String);

impl DriverName {
    /// The name in `driver_override` that keeps every driver off: no driver has it
    /// (`Documentation/ABI/testing/sysfs-bus-pci`).
    pub fn none() -> DriverName {
        DriverName("none".to_string())
    }

    /// A name that the kernel itself has told, as the last component of a path. Drivers may call themselves what they like
    /// (`budget dvb` is one); what a user types is held to more.
    pub fn from_kernel(name: String) -> DriverName {
        debug_assert!(!name.contains('/'), "{name:?} is more than one component of a path");
        DriverName(name)
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The same name but for `-` and `_`?
    pub fn is_spelled_like(&self, name: &str) -> bool {
        is_same_name(&self.0, name)
    }
}

impl FromStr for DriverName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<DriverName, NameError> {
        check(text).map(|()| DriverName(text.to_string()))
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A module's name with underscores, as `/sys/module` and `modules.alias` have it; kmod takes `-` for the same.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct ModuleName(String);

impl ModuleName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ModuleName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<ModuleName, NameError> {
        check(text).map(|()| ModuleName(text.replace('-', "_")))
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_path_component() {
        for good in ["vfio-pci", "mlx5_vfio_pci", "4xxx", "e1000e", "nvidia", "xen-pciback/x".trim_end_matches("/x")] {
            assert!(good.parse::<DriverName>().is_ok(), "{good}");
        }
        let long = "x".repeat(65);
        for bad in ["", ".", "..", "../vfio-pci", "a/b", "a b", "a\n", "\u{1b}[31m", "-r", "ünïcode", long.as_str()] {
            assert!(bad.parse::<DriverName>().is_err(), "{bad:?}");
            assert!(bad.parse::<ModuleName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn modules_are_normalised_and_drivers_are_not() {
        assert_eq!("xe-vfio-pci".parse::<ModuleName>().unwrap().as_str(), "xe_vfio_pci");
        assert_eq!("xe-vfio-pci".parse::<DriverName>().unwrap().as_str(), "xe-vfio-pci");
        assert!("xe-vfio-pci".parse::<DriverName>().unwrap().is_spelled_like("xe_vfio_pci"));
    }
}
