// SPDX-License-Identifier: MIT OR Apache-2.0
//! driverctl's files: whose they are, and the driver they are for.

use vfioctl::address::Address;
use vfioctl::policy::driverctl;

/// The first line is a file's name, the rest what it contains.
pub fn driverctl_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (name, content) = text.split_once('\n').unwrap_or((text, ""));
    match driverctl::address(name) {
        // udev has driverctl look for the file of exactly that name.
        Ok(address) => assert_eq!(name, format!("pci-{address}")),
        Err(reason) => {
            let canonical = name.strip_prefix("pci-").and_then(|device| device.parse::<Address>().ok());
            assert!(canonical.is_none_or(|address| name != format!("pci-{address}")), "{name:?}: {reason}");
        }
    }
    // driverctl's shell takes the newlines off the end, no others and nothing else (`$(< FILE)`).
    match driverctl::driver(content) {
        Ok(driver) => {
            let mut bare = content;
            while let Some(shorter) = bare.strip_suffix('\n') {
                bare = shorter;
            }
            assert_eq!(driver.as_str(), bare);
            assert!(!bare.is_empty() && !bare.contains(['/', '\n', ' ']) && !super::has_control(bare));
        }
        Err(reason) => {
            assert!(!super::has_control(&reason), "{reason:?}");
            assert!(content.trim_end_matches('\n').parse::<vfioctl::kernel_name::DriverName>().is_err());
        }
    }
}
