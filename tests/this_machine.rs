// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reading commands on the machine that runs the tests: whatever it is, they agree with its own /sys. Nothing is
//! written.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

const DEVICES: &str = "/sys/bus/pci/devices";

fn json(arguments: &[&str]) -> Value {
    let output = support::run(Command::new(support::VFIOCTL).args(arguments).arg("--json"));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"))
}

fn addresses() -> Vec<String> {
    let entries = fs::read_dir(DEVICES).unwrap_or_else(|error| panic!("{DEVICES}: {error}; this test needs a PCI bus"));
    let mut addresses: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    addresses.sort();
    addresses
}

#[test]
fn list_agrees_with_sysfs() {
    let document = json(&["list"]);
    let devices = document["devices"].as_array().unwrap();
    let listed: Vec<&str> = devices.iter().map(|device| device["address"].as_str().unwrap()).collect();
    assert_eq!(listed, addresses());
    for device in devices {
        let directory = Path::new(DEVICES).join(device["address"].as_str().unwrap());
        for field in ["vendor", "device", "subsystem_vendor", "subsystem_device", "class"] {
            let text = fs::read_to_string(directory.join(field)).unwrap();
            assert_eq!(device[field], text.trim().trim_start_matches("0x"), "{field} of {}", directory.display());
        }
        let driver = fs::read_link(directory.join("driver")).ok();
        let driver = driver.map(|link| link.file_name().unwrap().to_str().unwrap().to_string());
        assert_eq!(device["driver"].as_str(), driver.as_deref());
    }
}

#[test]
fn every_device_can_be_explained_and_shown() {
    for address in addresses() {
        let explained = json(&["explain", &address]);
        let shown = json(&["show", &address]);
        let listed = json(&["list"]);
        let device = listed["devices"].as_array().unwrap().iter().find(|d| d["address"] == address.as_str()).unwrap();
        assert_eq!(explained["modalias"], device["modalias"]);
        assert_eq!(shown["device"]["address"], address.as_str());
        assert_eq!(explained["best"]["driver"], device["best"], "{address}");
    }
}
