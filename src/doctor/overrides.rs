// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that no driver can take, because of an override that nobody keeps: an initramfs that is older than an `unbind`, or a
//! hand that wrote it. A device on a driver has what it was given, and its override is not asked for.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Scene;
use super::finding::{Finding, some};
use crate::address::Address;
use crate::policy::driverctl;
use crate::printable::printable;
use crate::sysfs::Overrides;

const CHECK: &str = "overrides";

/// How long all devices together are waited for: on older kernels whoever holds a device's lock holds up its override.
const PATIENCE: Duration = Duration::from_secs(2);

/// How things stand.
#[derive(Debug)]
pub struct Facts {
    /// Devices on no driver, by their overrides.
    unkept: BTreeMap<String, Vec<Address>>,
    /// Those whose override could not be read, and why.
    unread: Vec<(Address, String)>,
}

/// Reads it, of devices that are on no driver and that no choice is kept for.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let is_left = |address: Address| driverctl::claim(scene.host, address).is_none();
    let idle = scene.devices.iter().filter(|device| device.driver.is_none() && scene.policy.decide(device).is_none());
    let addresses: Vec<Address> = idle.map(|device| device.address).filter(|address| is_left(*address)).collect();
    let mut facts = Facts { unkept: BTreeMap::new(), unread: Vec::new() };
    let overrides = Overrides::new(scene.host, PATIENCE).read_all(&addresses);
    for (address, text) in addresses.into_iter().zip(overrides) {
        match text {
            Ok(None) => {}
            Ok(Some(text)) => facts.unkept.entry(text).or_default().push(address),
            Err(error) => facts.unread.push((address, error.to_string())),
        }
    }
    facts
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let unkept = facts.unkept.iter().map(|(text, addresses)| {
        let (are, their) = if addresses.len() == 1 { ("is", "its") } else { ("are", "their") };
        let text = printable(text);
        let message = format!(
            "{} {are} on no driver, and {their} override {text} is of no choice that is kept: no other driver takes {}",
            some(addresses),
            if addresses.len() == 1 { "it" } else { "them" },
        );
        let finding = Finding::warning(CHECK, message)
            .seen(format!("/sys/bus/pci/devices/{}/driver_override", addresses[0]), text);
        finding.mend_all(addresses.iter().map(|address| format!("vfioctl unbind {address}")))
    });
    let unread = facts.unread.iter().map(|(address, error)| {
        Finding::note(
            CHECK,
            format!("{address} is on no driver, and whether an override is why cannot be read: {error}"),
        )
    });
    unkept.chain(unread).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    #[test]
    fn a_finding_for_each_override() {
        let at = |address: &str| address.parse().unwrap();
        let facts = Facts {
            unkept: BTreeMap::from([
                ("none".to_string(), vec![at("0000:02:00.0")]),
                ("vfio-pci".to_string(), vec![at("0000:5e:00.0"), at("0000:5e:00.1")]),
            ]),
            unread: vec![(at("0000:60:00.0"), "timed out".to_string())],
        };
        let findings = judge(&facts);
        let severities: Vec<Severity> = findings.iter().map(|finding| finding.severity).collect();
        assert_eq!(severities, [Severity::Warning, Severity::Warning, Severity::Note]);
        assert_eq!(
            findings[0].message,
            "0000:02:00.0 is on no driver, and its override none is of no choice that is kept: no other driver takes it"
        );
        assert_eq!(findings[1].mend, ["vfioctl unbind 0000:5e:00.0", "vfioctl unbind 0000:5e:00.1"]);
        assert!(judge(&Facts { unkept: BTreeMap::new(), unread: Vec::new() }).is_empty());
    }
}
