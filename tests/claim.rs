// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl claim` on simulated hosts: at boot, and as the udev rule calls it.

mod support;

use std::fs;
use std::process::Command;

use serde_json::Value;

use support::ran::{Ran, copy, script, vfioctl};

const POLICY: &str = "policy() { mkdir -p /etc/vfioctl.d; cat > \"/etc/vfioctl.d/$1\"; }";

/// A script on a host whose administrator wrote a policy.
fn with_policy(host: &str, faults: &[&str], name: &str, text: &str, commands: &str) -> Ran {
    script(host, faults, &format!("{POLICY}\npolicy '{name}' <<'END'\n{text}\nEND\n{commands}"))
}

#[test]
fn claim_sets_overrides_and_nothing_else() {
    let ran = vfioctl("qat", &[], &["claim"]);
    ran.assert_status(0);
    assert_eq!(ran.changed(), ["0000:6b:00.1", "0000:6b:00.2", "0000:6b:00.3", "0000:6b:00.4", "0000:75:00.1"]);
    for (address, claimed_for) in [("0000:6b:00.1", "qat_vfio_pci"), ("0000:75:00.1", "vfio-pci")] {
        let device = ran.device("after", address);
        assert_eq!(device["driver"], Value::Null);
        assert_eq!(device["driver_override"], claimed_for);
        assert!(ran.stdout.contains(&format!("{address}: claimed for {claimed_for}")), "{}", ran.stdout);
    }
    assert!(ran.writes().iter().all(|write| write.starts_with("driver_override ")), "{:?}", ran.writes());
}

#[test]
fn what_is_claimed_is_out_of_reach_for_native_drivers() {
    let policy = "[[device]]\naddress = '3b:00.3'\ndriver = 'auto'";
    let ran = with_policy(
        "connectx",
        &[],
        "50-nics.toml",
        policy,
        "vfioctl claim && for device in 3 4; do echo 0000:3b:00.$device > /sys/bus/pci/drivers_probe; done
         readlink /sys/bus/pci/devices/0000:3b:00.[34]/driver; vfioctl apply --json",
    );
    ran.assert_status(0);
    // The twin went to the native driver, this one did not.
    assert_eq!(ran.stdout.matches("drivers/mlx5_core\n").count(), 1, "{}", ran.stdout);
    assert_eq!(ran.device("after", "0000:3b:00.3")["driver"], "mlx5_vfio_pci");
    assert_eq!(ran.device("after", "0000:3b:00.4")["driver"], "mlx5_core");
}

#[test]
fn claim_comes_too_late_for_a_device_with_a_driver() {
    let policy = "[[device]]\nid = '15b3:101e'\ndriver = 'auto'";
    let ran = with_policy("connectx", &[], "50-nics.toml", policy, "vfioctl claim");
    ran.assert_status(0);
    assert_eq!(ran.changed(), ["0000:3b:00.3", "0000:3b:00.4"]);
    assert!(ran.stderr.contains("0000:3b:00.1: mlx5_core has it already"), "{}", ran.stderr);
}

#[test]
fn claim_tells_udev_about_one_device_and_writes_nothing() {
    let policy = "[[device]]\npf = '3b:00.0'\ndriver = 'auto'\n[[device]]\naddress = '3b:00.4'\ndriver = 'none'";
    for (address, printed) in [
        ("3b:00.3", "VFIOCTL_CLAIMED=1\nVFIOCTL_DRIVER=mlx5_vfio_pci\n"),
        ("3b:00.4", "VFIOCTL_CLAIMED=1\nVFIOCTL_DRIVER=none\n"),
        // Bound already; of no rule.
        ("3b:00.1", ""),
        ("5e:00.0", ""),
    ] {
        let command = format!("vfioctl claim --udev {address}");
        let ran = with_policy("connectx", &[], "50-nics.toml", policy, &command);
        ran.assert_status(0);
        assert_eq!(ran.stdout, printed, "{address}: {}", ran.stderr);
        assert_eq!(ran.changed(), Vec::<&str>::new());
        assert_eq!(ran.writes(), Vec::<String>::new());
    }
}

#[test]
fn a_vf_that_is_not_linked_to_its_pf_yet_is_its_all_the_same() {
    let host = copy("connectx");
    let vf = host.path().join("sys/bus/pci/devices/0000:3b:00.3");
    fs::remove_file(vf.join("physfn")).unwrap();
    fs::create_dir_all(host.path().join("etc/vfioctl.d")).unwrap();
    let tell = |pf: &str| {
        let policy = format!("[[device]]\npf = '{pf}'\ndriver = 'auto'\n");
        fs::write(host.path().join("etc/vfioctl.d/50-vfs.toml"), policy).unwrap();
        let arguments = ["claim", "--udev", "3b:00.3"];
        support::transcript(&support::run(
            Command::new(support::VFIOCTL).arg("--root").arg(host.path()).args(arguments),
        ))
    };
    // With its PF known the variant is seen to be of use.
    assert_eq!(tell("3b:00.0"), "VFIOCTL_CLAIMED=1\nVFIOCTL_DRIVER=mlx5_vfio_pci\n");
    assert_eq!(tell("02:00.0"), "");
}

#[test]
fn claim_keeps_off_what_cannot_be_claimed() {
    // Another device is there now.
    let policy = "[[device]]\naddress = '3b:00.3'\nid = '8086:1572'\ndriver = 'auto'";
    for command in ["vfioctl claim", "vfioctl claim --udev 3b:00.3"] {
        let ran = with_policy("connectx", &[], "0000:3b:00.3.toml", policy, command);
        ran.assert_status(4);
        assert!(ran.stderr.contains("is about device 8086:1572, but 15b3:101e is there now"), "{}", ran.stderr);
        assert_eq!((ran.stdout.as_str(), ran.changed()), ("", vec![]));
    }
    // A driver that this kernel has not got: claimed, the device would be without any.
    let policy = "[[device]]\naddress = '3b:00.3'\ndriver = 'qat_vfio_pci'";
    let ran = with_policy("debian", &[], "0000:3b:00.3.toml", policy, "vfioctl claim");
    ran.assert_status(5);
    assert_eq!(ran.changed(), Vec::<&str>::new());
}

#[test]
fn what_is_bound_already_stays_claimed() {
    let ran = script("connectx", &[], "vfioctl bind 3b:00.1 >&2; vfioctl claim --udev 3b:00.1");
    ran.assert_status(0);
    assert_eq!(ran.stdout, "VFIOCTL_CLAIMED=1\n");
}

#[test]
fn a_claimed_device_whose_driver_cannot_be_had_can_be_given_back() {
    let policy = "[[device]]\naddress = '3b:00.3'\ndriver = 'vfio-pci'";
    let ran = with_policy(
        "connectx",
        &["module=vfio_pci:errno=EPERM"],
        "50-nics.toml",
        policy,
        "vfioctl claim >&2; vfioctl apply",
    );
    ran.assert_status(1);
    let way_out = "it is on no driver; 'vfioctl unbind --no-save 0000:3b:00.3' gives it to its native driver for now";
    assert!(ran.stderr.contains(way_out), "{}", ran.stderr);
    let device = ran.device("after", "0000:3b:00.3");
    assert_eq!((&device["driver"], &device["driver_override"]), (&Value::Null, &Value::from("vfio-pci")));

    let commands = "vfioctl claim >&2; vfioctl apply; vfioctl unbind --no-save 3b:00.3";
    let ran = with_policy("connectx", &["module=vfio_pci:errno=EPERM"], "50-nics.toml", policy, commands);
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:3b:00.3")["driver"], "mlx5_core");
}

#[test]
fn a_claim_that_fails_is_named_and_costs_no_other_device_its_own() {
    let ran = vfioctl("qat", &["0000:6b:00.2:override:errno=EIO"], &["claim"]);
    ran.assert_status(1);
    assert!(ran.stderr.contains("0000:6b:00.2") && ran.stderr.contains("EIO"), "{}", ran.stderr);
    assert_eq!(ran.changed(), ["0000:6b:00.1", "0000:6b:00.3", "0000:6b:00.4", "0000:75:00.1"]);
}

#[test]
fn udev_is_told_of_selectors_by_claim_and_by_apply() {
    let policy = "[[device]]\npf = '3b:00.0'\nclass = 'ethernet'\ndriver = 'auto'";
    for command in ["vfioctl claim", "vfioctl apply"] {
        let show = "cat /run/udev/rules.d/04-vfioctl-selectors.rules";
        let again = "rm /etc/vfioctl.d/50-nics.toml";
        let commands = format!("{command} >&2; {show}; {again}; {command} >&2; test ! -e {}", &show[4..]);
        let ran = with_policy("connectx", &[], "50-nics.toml", policy, &commands);
        ran.assert_status(0);
        let rule = "ATTR{class}==\"0x0200*\", TEST==\"physfn/../0000:3b:00.0/sriov_numvfs\", ENV{VFIOCTL_POLICY}=\"1\"";
        assert!(ran.stdout.contains(rule), "{}{}", ran.stdout, ran.stderr);
    }
    // A plan is no reason to write.
    let ran = with_policy("connectx", &[], "50-nics.toml", policy, "vfioctl claim --dry-run; ls /run/udev/rules.d");
    assert_ne!(ran.status, 0, "{}", ran.stdout);
    assert_eq!(ran.changed(), Vec::<&str>::new());
}

/// systemd merges a second start of a unit into the one that runs.
#[test]
fn a_vf_that_is_made_anew_while_it_is_applied_is_applied_again() {
    let policy = "[[device]]\naddress = '3b:00.3'\ndriver = 'auto'";
    let numvfs = "/sys/bus/pci/devices/0000:3b:00.0/sriov_numvfs";
    let commands = format!("vfioctl apply --json 3b:00.3 & sleep 0.4; echo 0 > {numvfs}; echo 4 > {numvfs}; wait $!");
    let faults = ["0000:3b:00.3:override:delay=1500:once"];
    let ran = with_policy("connectx", &faults, "50-nics.toml", policy, &commands);
    ran.assert_status(0);
    assert_eq!(ran.result()["outcome"], "bound");
    assert_eq!(ran.device("after", "0000:3b:00.3")["driver"], "mlx5_vfio_pci");
    let overrides = ran.writes().iter().filter(|write| *write == "driver_override mlx5_vfio_pci").count();
    assert_eq!(overrides, 2, "{:?}", ran.writes());
}
