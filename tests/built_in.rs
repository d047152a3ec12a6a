// SPDX-License-Identifier: MIT OR Apache-2.0
//! VFIO drivers that are part of the kernel's image: in newer kernels' modinfo, in older ones nowhere but among the drivers.

mod support;

use std::fs;
use std::path::Path;

use support::ran::{copy, on};

const RELEASE: &str = "7.0.0-43-generic";
const VF: &str = "0000:3b:00.1";
const NIC: &str = "0000:02:00.0";

/// The connectx host with some modules built into its kernel.
fn host(modules: &[&str], has_aliases_in_modinfo: bool) -> tempfile::TempDir {
    let host = copy("connectx");
    let tables = host.path().join("lib/modules").join(RELEASE);
    for module in modules {
        let file = move_into_the_image(&tables, module);
        let alias = take_alias(&tables, module);
        if has_aliases_in_modinfo {
            append(&tables.join("modules.builtin.modinfo"), &format!("{module}.file={file}\0{module}.alias={alias}\0"));
        }
        let drivers = host.path().join("host.toml");
        let text = fs::read_to_string(&drivers).unwrap();
        // A driver without a module is registered from the start.
        let line = format!("module = \"{module}\"\n");
        assert!(text.contains(&line), "{module}");
        fs::write(&drivers, text.replace(&line, "")).unwrap();
        let name = if *module == "vfio_pci" { "vfio-pci" } else { module };
        let driver = host.path().join("sys/bus/pci/drivers").join(name);
        fs::create_dir_all(&driver).unwrap();
        for attribute in ["bind", "unbind", "new_id", "remove_id", "uevent"] {
            fs::write(driver.join(attribute), "").unwrap();
        }
    }
    host
}

fn append(path: &Path, text: &str) {
    fs::write(path, [fs::read(path).unwrap(), text.as_bytes().to_vec()].concat()).unwrap();
}

/// From modules.dep to modules.builtin; its path.
fn move_into_the_image(tables: &Path, module: &str) -> String {
    let dep = fs::read_to_string(tables.join("modules.dep")).unwrap();
    let is_its = |line: &&str| line.split(".ko").next().unwrap().replace('-', "_").ends_with(&format!("/{module}"));
    let path = dep.lines().find(is_its).unwrap().split(".ko").next().unwrap().to_string();
    let rest: Vec<&str> = dep.lines().filter(|line| !is_its(line)).collect();
    fs::write(tables.join("modules.dep"), rest.join("\n") + "\n").unwrap();
    append(&tables.join("modules.builtin"), &format!("{path}.ko\n"));
    path
}

/// Its `vfio_pci:` alias, which modules.alias has of modules alone.
fn take_alias(tables: &Path, module: &str) -> String {
    let aliases = fs::read_to_string(tables.join("modules.alias")).unwrap();
    let is_its = |line: &&str| line.starts_with("alias vfio_pci:") && line.ends_with(&format!(" {module}"));
    let alias = aliases.lines().find(is_its).unwrap().split(' ').nth(1).unwrap().to_string();
    let rest: Vec<&str> = aliases.lines().filter(|line| !is_its(line)).collect();
    fs::write(tables.join("modules.alias"), rest.join("\n") + "\n").unwrap();
    alias
}

#[test]
fn what_is_built_in_is_chosen_and_bound_without_modprobe() {
    for has_aliases_in_modinfo in [true, false] {
        for (modules, address, driver) in [
            (["vfio_pci"].as_slice(), NIC, "vfio-pci"),
            (&["vfio_pci", "mlx5_vfio_pci"], VF, "mlx5_vfio_pci"),
            (&["vfio_pci", "mlx5_vfio_pci"], NIC, "vfio-pci"),
            (&["mlx5_vfio_pci"], VF, "mlx5_vfio_pci"),
        ] {
            let host = host(modules, has_aliases_in_modinfo);
            let what = format!("{modules:?}, aliases in modinfo: {has_aliases_in_modinfo}, {address}");
            let ran = on(host.path(), &[], &[support::VFIOCTL, "bind", address, "--json"]);
            ran.assert_status(0);
            assert_eq!(ran.changed(), [address], "{what}");
            assert_eq!(ran.device("after", address)["driver"], driver, "{what}");
            assert!(!ran.writes().iter().any(|write| write.starts_with("modprobe")), "{what}: {:?}", ran.writes());
            assert_eq!(ran.result()["warnings"].as_array().unwrap().len(), 0, "{what}: {}", ran.stdout);
        }
    }
}

/// A variant that is a module beats the generic driver that is built in, although kmod stops at the first of the two tables.
#[test]
fn a_module_and_what_is_built_in_are_one_list() {
    for has_aliases_in_modinfo in [true, false] {
        let host = host(&["vfio_pci"], has_aliases_in_modinfo);
        let ran = on(host.path(), &[], &[support::VFIOCTL, "bind", VF]);
        ran.assert_status(0);
        assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci");
    }
}

/// The rule for the boot claims for it, too; binding is then up to nobody's module.
#[test]
fn what_is_built_in_is_claimed_for() {
    let host = host(&["vfio_pci", "mlx5_vfio_pci"], false);
    fs::create_dir_all(host.path().join("etc/vfioctl.d")).unwrap();
    let policy = "[[device]]\naddress = '3b:00.3'\ndriver = 'auto'\n";
    fs::write(host.path().join("etc/vfioctl.d/0000:3b:00.3.toml"), policy).unwrap();
    let ran = on(host.path(), &[], &[support::VFIOCTL, "claim"]);
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:3b:00.3")["driver_override"], "mlx5_vfio_pci");
}

/// A variant that no table names on an old kernel is listed with its source.
#[test]
fn explain_says_where_it_knows_it_from() {
    for (has_aliases_in_modinfo, source) in [(true, "builtin"), (false, "registered")] {
        let host = host(&["vfio_pci", "mlx5_vfio_pci"], has_aliases_in_modinfo);
        let ran = on(host.path(), &[], &[support::VFIOCTL, "explain", VF, "--json"]);
        let document = ran.json();
        let found: Vec<_> =
            document["candidates"].as_array().unwrap().iter().map(|c| c["source"].as_str().unwrap()).collect();
        assert!(found.iter().all(|found| found.contains(source)), "{found:?}");
        assert_eq!(document["best"]["driver"], "mlx5_vfio_pci");
    }
}
