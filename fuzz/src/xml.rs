// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain's XML.

use std::collections::BTreeSet;

use vfioctl::libvirt::{Element, HostDevice, parse};

/// The most that is said of what is wrong.
const LONGEST_MESSAGE: usize = 1000;

/// An answer in time, within the bounds that are promised, and about places that are there.
pub fn domain_xml(data: &[u8]) {
    let bytes = super::grown(data);
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let found = super::in_time(|| parse(&bytes));
    assert_eq!(parse(&bytes), found);
    match found {
        Ok(domain) => {
            let text = std::str::from_utf8(&bytes).expect("nothing else is read");
            assert!(domain.devices.len() <= 1024);
            let addresses: BTreeSet<_> = domain.devices.iter().map(|device| device.address).collect();
            assert_eq!(addresses.len(), domain.devices.len(), "a device twice");
            assert!(domain.devices.windows(2).all(|two| two[0].line <= two[1].line), "not in the document's order");
            for device in &domain.devices {
                in_its_place(device, &lines);
            }
            assert!(domain.networks.len() <= text.matches("network").count());
            assert!(
                !text.contains("<!DOCTYPE") || text.contains("<!--") || text.contains("<![CDATA["),
                "a DTD was read"
            );
        }
        Err(error) => {
            assert!((1..=lines.len()).contains(&(error.line as usize)), "{error} of {} lines", lines.len());
            let line = String::from_utf8_lossy(lines[error.line as usize - 1]);
            assert!((1..=line.chars().count() + 1).contains(&(error.column as usize)), "{error}");
            let length = error.message.chars().count();
            assert!((1..=LONGEST_MESSAGE).contains(&length), "{length} characters");
            assert!(!super::has_control(&error.to_string()), "{error:?}");
        }
    }
}

fn in_its_place(device: &HostDevice, lines: &[&[u8]]) {
    let line = String::from_utf8_lossy(lines[device.line - 1]);
    assert!(line.contains(&format!("<{}", device.element)), "{device:?} in {line:?}");
    assert_eq!(device.address.to_string().parse(), Ok(device.address));
    assert!(device.address.domain() > 0 || device.address.routing_id() >> 3 > 0, "the host bridge's address");
    if device.element == Element::Disk {
        assert!(device.model.is_none() && device.other_backend.is_none());
    }
    if let Some(backend) = &device.other_backend {
        assert!(!["vfio", "default"].contains(&backend.as_str()));
    }
}
