// SPDX-License-Identifier: MIT OR Apache-2.0
//! vfioctl under driverctl's name, and what driverctl keeps taken over: the whole program on simulated hosts. What
//! driverctl is known to do wrong is shown here to be done right; its lists are compared with its own.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::ran::{Ran, copy, on};

const VF: &str = "0000:3b:00.1";

/// Runs a script on a host, in which `driverctl` is a link to ours, `theirs` the real one and `vfioctl` ours.
fn run(host: &Path, faults: &[&str], script: &str) -> Ran {
    let links = tempfile::tempdir().unwrap();
    symlink(support::VFIOCTL, links.path().join("driverctl")).unwrap();
    let script = format!(
        "theirs() {{ env -u SUBSYSTEM -u DEVPATH driverctl \"$@\"; }}
        driverctl() {{ {}/driverctl \"$@\"; }}
        vfioctl() {{ {} \"$@\"; }}
        {script}",
        links.path().display(),
        support::VFIOCTL
    );
    on(host, faults, &["bash", "-c", &script])
}

fn sh(host: &str, faults: &[&str], script: &str) -> Ran {
    run(&support::fixtures().join(host), faults, script)
}

/// A copy of a fixture for which driverctl keeps these overrides.
fn kept(host: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let host = copy(host);
    let directory = host.path().join("etc/driverctl.d");
    fs::create_dir_all(&directory).unwrap();
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
    host
}

fn policy<'a>(ran: &'a Ran, address: &str) -> &'a str {
    ran.journal["after"]["policy"][format!("{address}.toml")].as_str().unwrap_or("")
}

// ---- driverctl's verbs

#[test]
fn vfio_pci_is_the_best_vfio_driver_and_the_choice_is_ours_to_keep() {
    let ran = sh("connectx", &[], "driverctl set-override 3b:00.1 vfio-pci; ls /etc/driverctl.d");
    ran.assert_status(0);
    assert_eq!(ran.changed(), [VF]);
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci");
    assert!(policy(&ran, VF).contains("driver = \"auto\""), "{}", policy(&ran, VF));
    assert_eq!(ran.stdout, "", "driverctl says nothing either, and keeps nothing now");
    assert!(ran.stderr.contains("vfio-pci stands for the best VFIO driver, here mlx5_vfio_pci"), "{}", ran.stderr);
    // Where it is vfio-pci there is nothing to explain.
    let ran = sh("debian", &[], "driverctl set-override 0000:3b:00.2 vfio-pci");
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:3b:00.2")["driver"], "vfio-pci");
    assert!(!ran.stderr.contains("stands for"), "{}", ran.stderr);
}

#[test]
fn either_way_of_calling_it_takes_driverctls_command_line() {
    // Its own name, not that of what a link leads to.
    let directory = tempfile::tempdir().unwrap();
    let copy = directory.path().join("driverctl");
    support::copy_program(Path::new(support::VFIOCTL), &copy);
    for called in [copy.display().to_string(), format!("{} driverctl", support::VFIOCTL), "driverctl".to_string()] {
        let ran = sh("connectx", &[], &format!("{called} --nosave -v set-override pci/{VF} vfio-pci"));
        ran.assert_status(0);
        assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci", "{called}");
        assert!(ran.policy().is_empty(), "{called}");
        assert!(ran.stderr.contains("unbind mlx5_core"), "-v says every step: {}", ran.stderr);
    }
}

#[test]
fn the_lists_are_driverctls_own_byte_for_byte() {
    let theirs = Command::new("sh").args(["-c", "command -v driverctl"]).output().unwrap();
    assert!(theirs.status.success(), "driverctl is not installed: apt-get install driverctl");
    let set = "driverctl set-override 3b:00.1 vfio-pci; driverctl set-override 3b:00.2 none; \
               driverctl set-override 02:00.0 vfio-pci; driverctl set-override 3b:00.4 mlx5_core";
    for list in [
        "list-devices",
        "list-devices network",
        "list-devices storage",
        "list-devices all",
        "list-overrides",
        "list-overrides network",
        "-b pci list-devices",
        "list-devices serial",
    ] {
        let ran = sh(
            "connectx",
            &[],
            &format!("({set}) 2>/dev/null; driverctl {list}; echo $?; echo ----; theirs {list}; echo $?"),
        );
        let (ours, theirs) = ran.stdout.split_once("----\n").unwrap();
        assert_eq!(ours, theirs, "{list}\n{}", ran.stderr);
        assert!(ours.ends_with("0\n"), "{list}: {ours}");
    }
    let ran = sh("connectx", &[], &format!("({set}) 2>/dev/null; driverctl list-devices; driverctl list-overrides"));
    for line in [
        "0000:3b:00.1 mlx5_vfio_pci [*]\n",
        "0000:3b:00.2 (none) [*]\n",
        "0000:3b:00.3 (none)\n",
        "0000:3b:00.4 mlx5_core [*]\n",
        "0000:3b:00.1 mlx5_vfio_pci\n",
    ] {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
}

#[test]
fn verbose_lists_have_the_model() {
    let ran = sh("connectx", &[], "driverctl -v list-devices network; driverctl list-overrides; echo $?");
    ran.assert_status(0);
    if cfg!(feature = "names") {
        assert!(ran.stdout.contains("0000:02:00.0 igb (I210 Gigabit Network Connection)\n"), "{}", ran.stdout);
    }
    assert!(ran.stdout.ends_with(")\n0\n"), "no overrides are no failure: {}", ran.stdout);
}

#[test]
fn what_is_kept_is_listed_as_it_was_typed() {
    let ran = sh(
        "connectx",
        &[],
        "driverctl set-override 3b:00.1 vfio-pci; driverctl set-override 3b:00.2 none
        vfioctl bind --driver mlx5-vfio-pci 3b:00.3 >&2
        printf '[[device]]\\naddress = \"99:00.0\"\\ndriver = \"vfio-pci\"\\n' >/etc/vfioctl.d/a.toml
        printf '[[device]]\\nid = \"144d:a824\"\\ndriver = \"auto\"\\n' >/etc/vfioctl.d/b.toml
        printf '[[device]]\\naddress = \"02:00.0\"\\nid = \"1111:2222\"\\ndriver = \"auto\"\\n' >/etc/vfioctl.d/c.toml
        driverctl list-persisted",
    );
    ran.assert_status(0);
    assert_eq!(
        ran.stdout,
        "0000:3b:00.1 vfio-pci\n0000:3b:00.2 none\n0000:3b:00.3 mlx5_vfio_pci\n0000:5e:00.0 vfio-pci\n\
         0000:99:00.0 vfio-pci\n"
    );
    assert!(ran.stderr.contains("1111:2222"), "what will be left alone is said: {}", ran.stderr);
}

#[test]
fn nosave_leaves_what_is_kept() {
    let ran = sh("connectx", &[], "driverctl set-override 3b:00.1 vfio-pci; driverctl --nosave unset-override 3b:00.1");
    ran.assert_status(0);
    assert!(ran.changed().is_empty());
    assert_eq!(ran.policy(), [format!("{VF}.toml")]);
    let ran = run(
        &support::fixtures().join("connectx"),
        &[],
        "driverctl set-override 3b:00.1 vfio-pci; driverctl --nosave unset-override 3b:00.1
        driverctl load-override pci/0000:3b:00.1",
    );
    ran.assert_status(0);
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci", "load-override does what is kept");
    let ran = sh("connectx", &[], "driverctl load-override 3b:00.1");
    ran.assert_status(1);
    assert!(ran.stderr.contains("no override is kept"), "{}", ran.stderr);
}

#[test]
fn noprobe_leaves_the_device_for_whoever_probes_it() {
    // The module is loaded, and takes no device by that: neither this one nor one that had no driver.
    for address in ["0000:3b:00.1", "0000:3b:00.3"] {
        let ran = sh("connectx", &[], &format!("driverctl --noprobe set-override {address} vfio-pci"));
        ran.assert_status(0);
        let device = ran.device("after", address);
        assert_eq!(device["driver"], Value::Null);
        assert_eq!(device["driver_override"], "mlx5_vfio_pci");
        assert!(ran.stderr.contains("on no driver until it is probed"), "{}", ran.stderr);
        assert!(policy(&ran, address).contains("auto"));
        let ran = sh(
            "connectx",
            &[],
            &format!("driverctl --noprobe set-override {address} vfio-pci; echo {address} >/sys/bus/pci/drivers_probe"),
        );
        assert_eq!(ran.device("after", address)["driver"], "mlx5_vfio_pci");
    }
    let ran =
        sh("connectx", &[], "driverctl set-override 3b:00.1 vfio-pci; driverctl --noprobe unset-override 3b:00.1");
    ran.assert_status(0);
    let device = ran.device("after", VF);
    assert_eq!((&device["driver"], &device["driver_override"]), (&Value::Null, &Value::Null));
    assert!(ran.policy().is_empty());
}

#[test]
fn a_step_that_fails_short_of_the_probe_is_undone() {
    for fault in ["module=mlx5_vfio_pci:errno=EPERM", "0000:3b:00.1:unbind:errno=EBUSY:once"] {
        let ran = sh("connectx", &[fault], "driverctl --noprobe set-override 3b:00.1 vfio-pci");
        ran.assert_status(1);
        ran.assert_as_before();
    }
}

#[test]
fn what_is_not_there_or_not_ours_is_a_failure() {
    for (arguments, status, word) in [
        ("-b usb list-devices", 1, "bus usb"),
        ("set-override usb/1-1 x", 1, "bus usb"),
        ("list-devices --bus vmbus", 1, "bus vmbus"),
        ("set-override 99:00.0 vfio-pci", 3, "no PCI device"),
        ("unset-override 99:00.0", 3, "no PCI device"),
        ("set-override ens1f0 vfio-pci", 2, "not a PCI address"),
        ("--frobnicate list-devices", 2, "--frobnicate"),
        ("list-devices wireless", 2, "wireless"),
        ("--json list-devices", 2, "--json"),
        ("", 2, "Usage"),
    ] {
        let ran = sh("connectx", &[], &format!("driverctl {arguments}"));
        assert_eq!(ran.status, status, "{arguments}: {}", ran.stderr);
        assert!(ran.stderr.contains(word), "{arguments}: {}", ran.stderr);
        ran.assert_as_before();
    }
    assert_eq!(sh("connectx", &[], "driverctl --help | grep -c '^  set-override'").stdout, "1\n");
}

// ---- what driverctl does wrong

/// A device of the same ids, on no driver, is captured by what driverctl writes to new_id.
#[test]
fn identical_siblings_are_untouched() {
    let ran = sh("connectx", &[], "modprobe vfio-pci; driverctl set-override 3b:00.3 vfio-pci; modprobe mlx5_vfio_pci");
    ran.assert_status(0);
    // That nothing was written to new_id every run checks.
    assert_eq!(ran.changed(), ["0000:3b:00.3"]);
    assert_eq!(ran.device("after", "0000:3b:00.4")["driver"], Value::Null);
}

#[test]
fn a_set_that_fails_puts_the_device_back() {
    let ran = sh("debian", &["0000:3b:00.2:probe:errno=EINVAL"], "driverctl set-override 3b:00.2 vfio-pci");
    ran.assert_status(8);
    let ran = sh("debian", &["0000:3b:00.2:probe:errno=EINVAL:once"], "driverctl set-override 3b:00.2 vfio-pci");
    ran.assert_status(1);
    ran.assert_as_before();
}

#[test]
fn unset_loads_a_native_driver_that_is_not_in() {
    let ran = sh(
        "connectx",
        &[],
        "driverctl set-override 02:00.0 vfio-pci; modprobe -r igb; test -e /sys/module/igb && exit 99
        driverctl unset-override 02:00.0",
    );
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:02:00.0")["driver"], "igb");
    assert_eq!(ran.device("after", "0000:02:00.0")["driver_override"], Value::Null);
    assert!(ran.policy().is_empty());
    // And where there is none to be had, it is forgotten all the same.
    let ran = sh(
        "connectx",
        &["module=igb:errno=ENOENT"],
        "driverctl set-override 02:00.0 vfio-pci; modprobe -r igb; driverctl unset-override 02:00.0",
    );
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:02:00.0")["driver"], Value::Null);
    assert!(ran.policy().is_empty());
    assert!(ran.stderr.contains("no native driver took it"), "{}", ran.stderr);
}

#[test]
fn either_spelling_names_the_driver() {
    for (host, address, spelling, driver) in [
        ("xe", "0000:03:00.1", "xe_vfio_pci", "xe-vfio-pci"),
        ("xe", "0000:03:00.1", "xe-vfio-pci", "xe-vfio-pci"),
        ("qat", "0000:19:00.1", "pds-vfio-pci", "pds_vfio_pci"),
        ("qat", "0000:19:00.1", "vfio_pci", "pds_vfio_pci"),
    ] {
        let ran = sh(host, &[], &format!("driverctl set-override {address} {spelling}"));
        ran.assert_status(0);
        assert_eq!(ran.device("after", address)["driver"], driver, "{spelling}");
        let kept = if spelling == "vfio_pci" { "auto" } else { driver };
        assert!(policy(&ran, address).contains(&format!("driver = \"{kept}\"")), "{}", policy(&ran, address));
    }
}

#[test]
fn a_driver_that_does_not_list_the_device_is_refused() {
    for (host, address, driver, word) in [
        ("connectx", "0000:3b:00.3", "igb", "vfioctl.d(5)"),
        ("connectx", "0000:3b:00.3", "pcieport", "no table says"),
        ("connectx", "0000:3b:00.3", "qat_vfio_pci", "vfioctl bind --driver qat_vfio_pci --force 0000:3b:00.3"),
        ("xe", "0000:00:1f.6", "snd_hda_intel", "its table has"),
    ] {
        let ran = sh(host, &[], &format!("driverctl set-override {address} {driver}"));
        ran.assert_status(4);
        assert!(ran.stderr.contains(word), "{driver}: {}", ran.stderr);
        ran.assert_as_before();
        assert!(ran.writes().is_empty(), "{:?}", ran.writes());
    }
    let ran = sh("connectx", &[], "driverctl set-override 3b:00.3 no-such-driver");
    ran.assert_status(5);
    ran.assert_as_before();
}

#[test]
fn a_native_driver_that_lists_the_device_is_taken_and_kept() {
    let ran = sh("connectx", &[], "driverctl set-override 3b:00.3 mlx5_core");
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:3b:00.3")["driver"], "mlx5_core");
    assert!(policy(&ran, "0000:3b:00.3").contains("driver = \"mlx5_core\""));
    // A driver's module need not have its name.
    let ran = sh("qat", &[], "driverctl set-override 70:00.0 4xxx");
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:70:00.0")["driver"], "4xxx");
}

/// Such a driver is for whatever it is told.
#[test]
fn a_driver_without_a_table_is_taken() {
    let host = copy("connectx");
    let edit = |path: &str, more: &str| {
        let path = host.path().join(path);
        fs::write(&path, fs::read_to_string(&path).unwrap() + more).unwrap();
    };
    edit("host.toml", "\n[[driver]]\nname = \"uio_pci_generic\"\nmodule = \"uio_pci_generic\"\nids = []\n");
    edit("lib/modules/7.0.0-43-generic/modules.dep", "kernel/drivers/uio/uio_pci_generic.ko:\n");
    let file = host.path().join("lib/modules/7.0.0-43-generic/kernel/drivers/uio/uio_pci_generic.ko");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, "").unwrap();
    let set = "driverctl set-override 02:00.0 uio_pci_generic";
    let ran = run(host.path(), &[], set);
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:02:00.0")["driver"], "uio_pci_generic");
    let ran = run(host.path(), &[], &format!("{set}; driverctl unset-override 02:00.0"));
    ran.assert_status(0);
    ran.assert_as_before();
}

#[test]
fn a_short_address_is_as_good_for_unset() {
    let ran = sh("connectx", &[], "driverctl set-override 3b:00.1 vfio-pci; driverctl unset-override 3b:00.1");
    ran.assert_status(0);
    ran.assert_as_before();
    assert!(ran.policy().is_empty());
}

#[test]
fn four_at_once_are_no_trouble() {
    for addresses in [["3b:00.1"; 4], ["3b:00.1", "3b:00.2", "3b:00.3", "3b:00.4"]] {
        let sets: Vec<String> = addresses
            .iter()
            .map(|address| format!("(driverctl set-override {address} vfio-pci; echo rc $?) &"))
            .collect();
        let ran = sh("connectx", &["0000:3b:00.1:probe:delay=300"], &format!("{} wait", sets.join(" ")));
        assert_eq!(ran.stdout, "rc 0\n".repeat(4), "{}", ran.stderr);
        for address in addresses {
            assert_eq!(ran.device("after", &format!("0000:{address}"))["driver"], "mlx5_vfio_pci");
        }
    }
}

/// Processes get their numbers in order, so in a namespace of their own the last one's number is how many there were,
/// threads included.
#[test]
fn listing_devices_starts_no_process_for_each() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    const DEVICES: usize = 1024;
    for number in 0..DEVICES {
        let (bus, device, function) = (number >> 8, (number >> 3) & 0x1f, number & 7);
        let directory = format!("sys/bus/pci/devices/0000:{bus:02x}:{device:02x}.{function}");
        write(&format!("{directory}/modalias"), "pci:v00008086d00001533sv00008086sd00000001bc02sc00i00\n");
        write(&format!("{directory}/driver_override"), "(null)\n");
    }
    // On the older one each override is read by another process, but by one for all.
    for release in ["6.12.0", "7.2.0"] {
        write("proc/sys/kernel/osrelease", &format!("{release}\n"));
        let ran = sh(
            "connectx",
            &[],
            &format!(
                "unshare --pid --fork sh -c '{} driverctl --root {} list-devices | wc -l; sh -c \"echo \\$\\$\"'",
                support::VFIOCTL,
                root.path().display()
            ),
        );
        let numbers: Vec<usize> = ran.stdout.lines().map(|line| line.trim().parse().unwrap()).collect();
        assert_eq!(numbers[0], DEVICES, "{}{}", ran.stdout, ran.stderr);
        assert!(numbers[1] < 12, "{release}: {} processes\n{}", numbers[1], ran.stderr);
    }
}

// ---- taking over what driverctl keeps

const KEPT: [(&str, &str); 4] = [
    ("pci-0000:3b:00.1", "vfio-pci\n"),
    ("pci-0000:3b:00.2", "none\n"),
    ("pci-0000:3b:00.3", "mlx5-vfio-pci\n"),
    ("usb-1-1", "usbip-host\n"),
];

#[test]
fn an_import_says_what_it_would_do_and_does_nothing_unless_told_to() {
    let host = kept("connectx", &KEPT);
    for arguments in ["", "--dry-run --yes"] {
        let ran = run(host.path(), &[], &format!("vfioctl import-driverctl {arguments}; ls /etc/driverctl.d"));
        ran.assert_status(0);
        assert!(ran.policy().is_empty());
        for (name, _) in KEPT {
            assert!(ran.stdout.ends_with('\n') && ran.stdout.contains(&format!("\n{name}")), "{}", ran.stdout);
        }
        assert!(ran.stdout.contains("save /etc/vfioctl.d/0000:3b:00.1.toml: driver = \"auto\""), "{}", ran.stdout);
        assert!(ran.stderr.contains("now mlx5_vfio_pci") && ran.stderr.contains("--yes"), "{}", ran.stderr);
        assert!(ran.stderr.contains("usb-1-1: left"), "{}", ran.stderr);
    }
}

#[test]
fn an_import_leaves_each_device_to_one_tool() {
    let host = kept("connectx", &KEPT);
    let ran = run(
        host.path(),
        &[],
        "vfioctl import-driverctl --yes >&2 || exit
        ls /etc/driverctl.d; theirs list-devices | grep -c 3b:00; vfioctl apply >&2; driverctl list-persisted",
    );
    ran.assert_status(0);
    assert_eq!(
        ran.stdout,
        "imported-by-vfioctl.pci-0000:3b:00.1\nimported-by-vfioctl.pci-0000:3b:00.2\n\
         imported-by-vfioctl.pci-0000:3b:00.3\nusb-1-1\n5\n\
         0000:3b:00.1 vfio-pci\n0000:3b:00.2 none\n0000:3b:00.3 mlx5_vfio_pci\n"
    );
    for (address, text, driver) in [
        ("0000:3b:00.1", "auto", Value::from("mlx5_vfio_pci")),
        ("0000:3b:00.2", "none", Value::Null),
        ("0000:3b:00.3", "mlx5_vfio_pci", Value::from("mlx5_vfio_pci")),
    ] {
        let policy = policy(&ran, address);
        assert!(policy.contains(&format!("driver = \"{text}\"")) && policy.contains("id = \"15b3:101e\""), "{policy}");
        assert_eq!(ran.device("after", address)["driver"], driver, "{address}");
    }
    // What was imported is forgotten as what was bound is.
    let ran = run(host.path(), &[], "vfioctl import-driverctl --yes; vfioctl unbind 3b:00.1 3b:00.2 3b:00.3");
    ran.assert_status(0);
    assert!(ran.policy().is_empty());
}

#[test]
fn the_json_of_an_import() {
    let host = kept("connectx", &KEPT);
    let ran = run(host.path(), &[], "vfioctl import-driverctl --json --yes");
    ran.assert_status(0);
    let document = ran.json();
    assert_eq!((&document["schema"], &document["command"]), (&Value::from(1), &Value::from("import-driverctl")));
    let first = &document["results"][0];
    for (field, expected) in [
        ("address", VF),
        ("overridden", "vfio-pci"),
        ("choice", "auto"),
        ("best", "mlx5_vfio_pci"),
        ("outcome", "imported"),
        ("driver", "mlx5_core"),
    ] {
        assert_eq!(first[field], expected, "{field}");
    }
    let steps: Vec<&str> =
        first["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["save", "set-aside"]);
    assert_eq!(document["left"][0]["path"], "/etc/driverctl.d/usb-1-1");
}

#[test]
fn an_import_names_what_may_surprise() {
    let host = kept(
        "connectx",
        &[
            ("pci-0000:99:00.0", "vfio-pci\n"),
            ("pci-0000:02:00.0", "igb\n"),
            ("pci-0000:3b:00.3", "igb\n"),
            ("pci-0000:3b:00.4", "frobnicator\n"),
            ("pci-0000:5e:00.0", "qat_vfio_pci\n"),
        ],
    );
    let ran = run(host.path(), &[], "vfioctl import-driverctl --yes");
    ran.assert_status(0);
    assert!(!policy(&ran, "0000:99:00.0").contains("id ="), "no device, no id");
    assert!(policy(&ran, "0000:02:00.0").contains("driver = \"igb\""));
    for words in [
        "0000:99:00.0: no such device is here",
        "0000:3b:00.3: driver igb is not for 15b3:101e",
        "0000:3b:00.4: no driver frobnicator",
        "0000:5e:00.0: driver qat_vfio_pci is not for 144d:a824",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("0000:02:00.0"), "{}", ran.stderr);
    assert!(ran.writes().is_empty(), "devices stay as they are: {:?}", ran.writes());
}

#[test]
fn an_import_does_not_replace_a_choice() {
    let host = kept("connectx", &KEPT);
    for (file, text, is_conflict) in [
        ("a.toml", "[[device]]\naddress = '3b:00.1'\ndriver = 'vfio-pci'\n", true),
        ("a.toml", "[[device]]\naddress = '3b:00.1'\nid = '1111:2222'\ndriver = 'auto'\n", true),
        ("0000:3b:00.1.toml", "# By hand.\n", true),
        // What names no address is outranked, as it was.
        ("a.toml", "[[device]]\nclass = 'network'\ndriver = 'none'\n", false),
    ] {
        let ran = run(
            host.path(),
            &[],
            &format!(
                "printf \"{text}\" >/etc/vfioctl.d/{file}; vfioctl import-driverctl --yes; status=$?
                ls /etc/driverctl.d/pci-* >&2; exit $status"
            ),
        );
        ran.assert_status(if is_conflict { 4 } else { 0 });
        assert_eq!(ran.stderr.contains(&format!("\n/etc/driverctl.d/pci-{VF}\n")), is_conflict, "{}", ran.stderr);
        assert_eq!(ran.journal["after"]["policy"][file], text, "{}", ran.stderr);
        if is_conflict {
            assert!(ran.stderr.contains(&format!("/etc/vfioctl.d/{file}")), "{}", ran.stderr);
            assert_eq!(ran.policy().len(), 3, "the others are imported: {:?}", ran.policy());
        }
    }
}

#[test]
fn a_device_that_both_tools_claim_is_driverctls_until_the_import_is_finished() {
    let host = kept("connectx", &KEPT[..1]);
    // As it is when the import was stopped after the first of its two steps.
    let stopped = "vfioctl import-driverctl --yes >/dev/null 2>&1
        mv /etc/driverctl.d/imported-by-vfioctl.pci-0000:3b:00.1 /etc/driverctl.d/pci-0000:3b:00.1";
    let ran = run(host.path(), &[], &format!("{stopped}; vfioctl apply"));
    ran.assert_status(4);
    assert!(ran.stderr.contains("/etc/driverctl.d/pci-0000:3b:00.1"), "{}", ran.stderr);
    assert!(ran.writes().is_empty());
    let ran = run(
        host.path(),
        &[],
        &format!("{stopped}; vfioctl import-driverctl --yes && vfioctl apply >&2; ls /etc/driverctl.d"),
    );
    ran.assert_status(0);
    assert!(ran.stdout.ends_with("imported-by-vfioctl.pci-0000:3b:00.1\n"), "{}", ran.stdout);
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci");
}

#[test]
fn an_import_that_fails_leaves_the_device_to_driverctl() {
    let host = kept("connectx", &KEPT[..1]);
    // The name it is to get is a directory's; the place for policy is a file.
    for (hindrance, status) in [
        ("mkdir -p /etc/driverctl.d/imported-by-vfioctl.pci-0000:3b:00.1/x", 1),
        ("mount -t tmpfs -o ro,mode=755 none /etc/vfioctl.d", 6),
    ] {
        let script =
            format!("{hindrance}; vfioctl import-driverctl --yes; s=$?; cat /etc/driverctl.d/pci-{VF}; exit $s");
        let ran = run(host.path(), &[], &script);
        ran.assert_status(status);
        assert!(ran.stdout.ends_with("vfio-pci\n"), "{}", ran.stdout);
        assert!(ran.policy().is_empty(), "{:?}", ran.policy());
        assert!(ran.stderr.contains("driverctl keeps the device"), "{}", ran.stderr);
    }
}

#[test]
fn nothing_to_import_is_no_failure() {
    let ran = sh("connectx", &[], "vfioctl import-driverctl --yes; rm -r /etc/driverctl.d; vfioctl import-driverctl");
    ran.assert_status(0);
    assert_eq!(ran.stderr.matches("nothing to take over").count(), 2, "{}", ran.stderr);
}

#[test]
fn a_choice_is_not_kept_beside_driverctls() {
    let host = kept("connectx", &KEPT[..1]);
    for command in ["vfioctl bind 3b:00.1", "driverctl set-override 3b:00.1 vfio-pci", "vfioctl bind --dry-run 3b:00.1"]
    {
        let ran = run(host.path(), &[], command);
        ran.assert_status(4);
        assert!(
            ran.stderr.contains("/etc/driverctl.d/pci-0000:3b:00.1") && ran.stderr.contains("import-driverctl"),
            "{}",
            ran.stderr
        );
        ran.assert_as_before();
    }
    let ran = run(host.path(), &[], "vfioctl bind --no-save 3b:00.1 && vfioctl unbind 3b:00.1");
    ran.assert_status(0);
    assert!(ran.changed().is_empty());
    assert!(ran.stderr.contains("driverctl still keeps an override"), "{}", ran.stderr);
}
