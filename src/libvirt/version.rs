// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which libvirt is here, told by its library's name, so that no process is needed.

use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::host::Host;

/// libvirt's version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    major: u32,
    minor: u32,
    micro: u32,
}

/// Why a string is no version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a version of libvirt (like 11.3.0)")]
pub struct VersionError(String);

impl Version {
    /// The version with these numbers.
    pub const fn new(major: u32, minor: u32, micro: u32) -> Version {
        Version { major, minor, micro }
    }

    /// Does it look for the variant driver that fits a device, and know `<driver model=…/>`? Before, all it took was
    /// vfio-pci (`virPCIDeviceFindBestVFIOVariant`, since 10.0.0).
    pub fn takes_variants(self) -> bool {
        self >= Version::new(10, 0, 0)
    }

    /// Does it accept a device that somebody else has bound to a variant driver (`virPCIDeviceGetCurrentDriverNameAndType`,
    /// since 9.7.0)?
    pub fn accepts_variants(self) -> bool {
        self >= Version::new(9, 7, 0)
    }

    /// The version that is installed; `None`: there is no libvirt, or it is where we do not look.
    pub fn installed(host: &Host) -> Option<Version> {
        host.libraries().iter().find_map(|directory| in_directory(directory).or_else(|| below(directory)))
    }

    /// From the file that `libvirt.so.0` leads to: `libvirt.so.0.11003.0` is 11.3.0, as libtool names it.
    fn from_library(name: &str) -> Option<Version> {
        let (numbers, micro) = name.strip_prefix("libvirt.so.0.")?.split_once('.')?;
        let numbers: u32 = numbers.parse().ok()?;
        Some(Version::new(numbers / 1000, numbers % 1000, micro.parse().ok()?))
    }
}

fn in_directory(directory: &Path) -> Option<Version> {
    let target = fs::read_link(directory.join("libvirt.so.0")).ok()?;
    Version::from_library(target.file_name()?.to_str()?)
}

/// Debian has a directory an architecture, `x86_64-linux-gnu`.
fn below(directory: &Path) -> Option<Version> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    names.retain(|name| name.to_str().is_some_and(|name| name.contains("-linux-")));
    names.sort();
    names.iter().find_map(|name| in_directory(&directory.join(name)))
}

impl FromStr for Version {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Version, VersionError> {
        let number = |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
        let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
        match numbers.as_deref() {
            Some(&[major, minor]) => Ok(Version::new(major, minor, 0)),
            Some(&[major, minor, micro]) => Ok(Version::new(major, minor, micro)),
            _ => Err(VersionError(text.escape_default().to_string())),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn versions_as_typed() {
        for (text, expected) in [("11.3.0", Some((11, 3, 0))), ("9.7", Some((9, 7, 0))), ("10.10.1", Some((10, 10, 1)))]
        {
            let version = text.parse().ok().map(|Version { major, minor, micro }| (major, minor, micro));
            assert_eq!(version, expected, "{text}");
        }
        for text in ["", "11", "11.", "11.3.0.1", "v11.3", "11.+3.0", "11.3.0-2", "99999999999.0.0"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_each_version_knows() {
        for (text, takes, accepts) in
            [("9.0.0", false, false), ("9.7.0", false, true), ("9.10.0", false, true), ("10.0.0", true, true)]
        {
            let version: Version = text.parse().unwrap();
            assert_eq!((version.takes_variants(), version.accepts_variants()), (takes, accepts), "{text}");
        }
    }

    #[test]
    fn the_library_tells() {
        for (place, target, expected) in [
            ("usr/lib/x86_64-linux-gnu", "libvirt.so.0.11003.0", Some("11.3.0")),
            ("usr/lib64", "libvirt.so.0.9000.0", Some("9.0.0")),
            ("usr/local/lib", "libvirt.so.0.10010.1", Some("10.10.1")),
            ("usr/lib64", "libvirt.so.1", None),
            ("usr/lib64", "libvirt.so.0.x.0", None),
        ] {
            let root = tempfile::tempdir().unwrap();
            let directory = root.path().join(place);
            fs::create_dir_all(&directory).unwrap();
            symlink(target, directory.join("libvirt.so.0")).unwrap();
            let found = Version::installed(&Host::new(root.path(), None).unwrap());
            assert_eq!(found.map(|version| version.to_string()).as_deref(), expected, "{place}/{target}");
        }
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Version::installed(&Host::new(root.path(), None).unwrap()), None);
    }
}
