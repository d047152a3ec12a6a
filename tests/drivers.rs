// SPDX-License-Identifier: MIT OR Apache-2.0
//! `drivers/`: what Kbuild builds, what DKMS is told of, and what the catalogue knows are the same modules.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use vfioctl::catalog::Catalog;

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("drivers").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_same_modules_are_built_packed_and_known() {
    let kbuild = read("Kbuild");
    let built: BTreeSet<String> = kbuild
        .lines()
        .filter_map(|line| line.strip_prefix("obj-m"))
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.strip_suffix(".o"))
        .map(str::to_string)
        .collect();
    let dkms = read("dkms.conf");
    let packed: BTreeSet<String> = dkms
        .lines()
        .filter(|line| line.starts_with("BUILT_MODULE_NAME["))
        .map(|line| line.split('"').nth(1).unwrap().to_string())
        .collect();
    let known: BTreeSet<String> = Catalog::bundled()
        .drivers()
        .iter()
        .filter(|driver| driver.kconfig.is_none())
        .map(|driver| driver.module.to_string())
        .collect();
    assert_eq!(built.len(), 2, "{kbuild}");
    assert_eq!(built, packed);
    assert_eq!(built, known);
    for module in &built {
        assert!(read(&format!("{module}.c")).contains("MODULE_DEVICE_TABLE(pci, "), "{module}");
    }
    let version = format!("PACKAGE_VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    assert!(dkms.lines().any(|line| line == version), "{dkms}");
}

/// The aliases come from id tables through depmod; nobody writes one by hand.
#[test]
fn no_alias_is_written_by_hand() {
    for driver in Catalog::bundled().drivers().iter().filter(|driver| driver.kconfig.is_none()) {
        let source = read(&format!("{}.c", driver.module));
        assert!(source.contains("PCI_DRIVER_OVERRIDE_DEVICE_VFIO("), "{}", driver.module);
        assert!(!source.contains("MODULE_ALIAS("), "{}", driver.module);
    }
}
