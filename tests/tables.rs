// SPDX-License-Identifier: MIT OR Apache-2.0
//! The matcher on the whole module tables of four real kernels, and against kmod itself.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Cursor;
use std::process::Command;

use vfioctl::catalog::{Catalog, KernelVersion};
use vfioctl::matcher::{Entry, Modalias, Source, Table, rank};
use vfioctl::modules::index::Index;

const DEBIAN: &str = "6.1.0-56-amd64";
const SOURCE: &str = "src-7.2.13-allvariants";
const UBUNTU_ARM: &str = "ubuntu-7.0.0-14-generic-arm64";
const UBUNTU: &str = "ubuntu-7.0.0-43-generic-amd64";

fn read(kernel: &str) -> Table {
    let mut table = Table::default();
    table.read_modules_alias(Cursor::new(support::table(kernel, "modules.alias"))).unwrap();
    table.read_builtin_modinfo(Cursor::new(support::table(kernel, "modules.builtin.modinfo"))).unwrap();
    assert!(table.oddities.is_empty(), "{kernel}: {:?}", table.oddities);
    table
}

fn modalias(vendor: u16, device: u16) -> Modalias {
    format!("pci:v{vendor:08X}d{device:08X}sv0000103Csd00001590bc02sc00i00").parse().unwrap()
}

/// Modules in rank order.
fn ranked(table: &Table, modalias: &Modalias) -> Vec<String> {
    rank(table, modalias).into_iter().map(|found| found.module.to_string()).collect()
}

#[test]
fn every_vfio_line_is_found_and_no_other() {
    for (kernel, lines) in [(DEBIAN, 1), (SOURCE, 45), (UBUNTU_ARM, 44), (UBUNTU, 36)] {
        let text = support::table(kernel, "modules.alias");
        let expected = text.split(|b| *b == b'\n').filter(|line| line.starts_with(b"alias vfio_pci:")).count();
        assert_eq!(expected, lines, "{kernel}: the fixture");
        assert_eq!(read(kernel).entries.len(), lines, "{kernel}");
    }
}

#[test]
fn the_catalogue_and_the_tables_agree_on_every_id() {
    for kernel in [SOURCE, UBUNTU_ARM, UBUNTU] {
        let table = read(kernel);
        let release = KernelVersion::parse(kernel.trim_start_matches("src-").trim_start_matches("ubuntu-")).unwrap();
        for driver in Catalog::bundled().drivers().iter().filter(|driver| table.names(driver.module)) {
            for id in driver.ids.iter().filter(|id| id.since.is_none_or(|since| since <= release)) {
                let expected = [driver.module, "vfio_pci"];
                assert_eq!(ranked(&table, &modalias(id.vendor, id.device)), expected, "{kernel} {}", id.name);
            }
        }
        for entry in &table.entries {
            assert!(Catalog::bundled().by_module(entry.module.as_str()).is_some(), "{kernel}: {}", entry.module);
        }
    }
}

#[test]
fn debian_has_the_generic_driver_alone() {
    let table = read(DEBIAN);
    for driver in Catalog::bundled().drivers() {
        for id in driver.ids.iter() {
            assert_eq!(ranked(&table, &modalias(id.vendor, id.device)), ["vfio_pci"], "{}", id.name);
        }
    }
}

/// What is read of an index is what the whole table says, in the same order of modules.
#[test]
fn the_index_says_what_the_table_says() {
    let (bytes, table) = (support::table(UBUNTU, "modules.alias.bin"), read(UBUNTU));
    let entries = Index::new(bytes.as_slice()).unwrap().starting_with(b"vfio_pci:").unwrap();
    let mut indexed = Table::default();
    for entry in entries {
        indexed.add_indexed(Source::ModulesAlias, &entry.key, &entry.value);
    }
    let modules = |table: &Table| {
        let mut names: Vec<String> = table.entries.iter().map(|entry| entry.module.to_string()).collect();
        names.dedup();
        names
    };
    assert_eq!(modules(&indexed), modules(&table));
    let pairs = |table: &Table| -> BTreeSet<(String, String)> {
        let pair = |entry: &Entry| (entry.pattern.as_str().to_string(), entry.module.to_string());
        table.entries.iter().map(pair).collect()
    };
    assert_eq!(pairs(&indexed), pairs(&table));
    assert_eq!(indexed.entries.len(), 36);
}

/// kmod matches the same patterns; it only cannot say which match is the best.
#[test]
fn kmod_finds_the_same_modules() {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("lib/modules").join("7.0.0-43-generic");
    fs::create_dir_all(&directory).unwrap();
    for name in ["modules.alias", "modules.alias.bin"] {
        fs::write(directory.join(name), support::table(UBUNTU, name)).unwrap();
    }
    let table = read(UBUNTU);
    let catalog = Catalog::bundled();
    let ids = catalog.drivers().iter().flat_map(|driver| driver.ids.iter()).map(|id| (id.vendor, id.device));
    for (vendor, device) in ids.chain([(0x8086, 0x1533), (0x10de, 0x2684)]) {
        let modalias = modalias(vendor, device);
        let mut modprobe = Command::new("modprobe");
        modprobe.arg("-d").arg(root.path()).args(["-S", "7.0.0-43-generic", "-R", &modalias.vfio_key()]);
        let output = support::run(&mut modprobe);
        let theirs: BTreeSet<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_string).collect();
        let ours: BTreeSet<String> = ranked(&table, &modalias).into_iter().collect();
        assert_eq!(ours, theirs, "{}", modalias.vfio_key());
    }
}
