// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl sriov` on simulated hosts: VFs are made, changed and removed, and at whatever step that fails all is as before.

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::ran::{Ran, copy, on, script, vfioctl};

/// With four of sixteen VFs: two on mlx5_core, two on no driver.
const PF: &str = "0000:3b:00.0";
const VFS: [&str; 4] = ["0000:3b:00.1", "0000:3b:00.2", "0000:3b:00.3", "0000:3b:00.4"];

/// The drivers whose probe was called for a device.
fn probed<'a>(ran: &'a Ran, vf: &str) -> Vec<&'a str> {
    let probes = ran.journal["probes"].as_array().unwrap().iter();
    probes.filter(|probe| probe["address"] == vf).map(|probe| probe["driver"].as_str().unwrap()).collect()
}

fn has_no_native_probe(ran: &Ran) {
    let probes = ran.journal["probes"].as_array().unwrap();
    assert!(probes.iter().all(|probe| probe["driver"] != "mlx5_core"), "{probes:?}");
}

fn autoprobe(ran: &Ran) -> bool {
    ran.device("after", PF)["sriov_drivers_autoprobe"].as_bool().unwrap()
}

#[test]
fn vfs_are_made_and_bound_and_no_native_driver_sees_them() {
    let ran = vfioctl("connectx", &[], &["sriov", "3b:00.0", "6", "--driver", "auto"]);
    ran.assert_status(0);
    assert_eq!(ran.stdout, format!("{PF}: 6 VFs made (there were 4), 6 on mlx5_vfio_pci\n"));
    for vf in ["0000:3b:00.1", "0000:3b:00.6"] {
        let device = ran.device("after", vf);
        assert_eq!(device["driver"], "mlx5_vfio_pci");
        assert_eq!(probed(&ran, vf), ["mlx5_vfio_pci"]);
    }
    has_no_native_probe(&ran);
    assert!(autoprobe(&ran));
    // Nothing but these, and in this order.
    let writes = ran.writes();
    let pf: Vec<&str> = writes.iter().map(String::as_str).filter(|write| write.starts_with("sriov")).collect();
    assert_eq!(pf, ["sriov_drivers_autoprobe 0", "sriov_numvfs 0", "sriov_numvfs 6", "sriov_drivers_autoprobe 1"]);
    assert_eq!(writes.last().unwrap(), "sriov_drivers_autoprobe 1");
    assert_eq!(ran.policy(), Vec::<&str>::new());
}

#[test]
fn each_goes_where_the_policy_says_and_the_others_where_the_kernel_says() {
    let policy = "[[device]]\npf = '3b:00.0'\nid = '15b3:101e'\ndriver = 'auto'\n\
                  [[device]]\naddress = '3b:00.2'\ndriver = 'vfio-pci'\n\
                  [[device]]\naddress = '3b:00.3'\ndriver = 'none'\n";
    let set = |policy: &str| {
        let text = format!("mkdir -p /etc/vfioctl.d; cat > /etc/vfioctl.d/50.toml <<'END'\n{policy}END\n");
        script("connectx", &[], &format!("{text} vfioctl sriov {PF} 5"))
    };
    let ran = set(policy);
    ran.assert_status(0);
    assert_eq!(
        ran.stdout,
        format!("{PF}: 5 VFs made (there were 4), 3 on mlx5_vfio_pci, 1 on no driver, 1 on vfio-pci\n")
    );
    assert_eq!(ran.device("after", "0000:3b:00.2")["driver"], "vfio-pci");
    assert_eq!(ran.device("after", "0000:3b:00.3")["driver_override"], "none");
    has_no_native_probe(&ran);

    let ran = set("[[device]]\naddress = '3b:00.2'\ndriver = 'auto'\n");
    ran.assert_status(0);
    assert_eq!(ran.stdout, format!("{PF}: 5 VFs made (there were 4), 4 on mlx5_core, 1 on mlx5_vfio_pci\n"));
    assert_eq!((ran.stderr.as_str(), probed(&ran, "0000:3b:00.2")), ("", vec!["mlx5_vfio_pci"]));
    assert!(autoprobe(&ran));
}

#[test]
fn an_administrator_who_wants_no_probing_gets_none() {
    let host = copy("connectx");
    fs::write(pf(host.path()).join("sriov_drivers_autoprobe"), "0\n").unwrap();
    let ran = on(host.path(), &[], &[support::VFIOCTL, "sriov", "3b:00.0", "5"]);
    ran.assert_status(0);
    assert_eq!(ran.stdout, format!("{PF}: 5 VFs made (there were 4), 5 on no driver\n"));
    assert_eq!(ran.journal["probes"], json!([]));
    assert!(!autoprobe(&ran));
}

fn pf(host: &Path) -> std::path::PathBuf {
    host.join("sys/bus/pci/devices").join(PF)
}

#[test]
fn they_are_removed_and_come_again() {
    let ran = vfioctl("connectx", &[], &["sriov", "3b:00.0", "0"]);
    ran.assert_status(0);
    assert_eq!(ran.stdout, format!("{PF}: 4 VFs removed\n"));
    assert_eq!(ran.device("after", PF)["sriov_numvfs"], 0);
    assert_eq!(ran.writes(), ["sriov_numvfs 0"]);

    let both = "vfioctl sriov 3b:00.0 0 && vfioctl sriov 3b:00.0 0 && vfioctl sriov 3b:00.0 2 --driver vfio-pci";
    let ran = script("connectx", &[], both);
    ran.assert_status(0);
    let expected =
        format!("{PF}: 4 VFs removed\n{PF}: unchanged, 0 VFs\n{PF}: 2 VFs made (there were 0), 2 on vfio-pci\n");
    assert_eq!(ran.stdout, expected);
    has_no_native_probe(&ran);
}

#[test]
fn the_same_number_binds_what_is_not_as_wanted_and_makes_nothing_anew() {
    let two =
        "vfioctl bind --no-save 3b:00.3 >&2; vfioctl sriov 3b:00.0 4 --driver auto; vfioctl sriov 3b:00.0 4 --json";
    let ran = script("connectx", &[], two);
    ran.assert_status(0);
    let (text, document) = ran.stdout.split_once('\n').unwrap();
    assert_eq!(text, format!("{PF}: 4 VFs, 4 on mlx5_vfio_pci"));
    assert!(!ran.writes().iter().any(|write| write.starts_with("sriov")), "{:?}", ran.writes());
    assert_eq!(probed(&ran, "0000:3b:00.3"), ["mlx5_vfio_pci"], "it was right already");
    let document: Value = serde_json::from_str(document).unwrap();
    assert_eq!((&document["outcome"], &document["previous_vfs"]), (&json!("unchanged"), &json!(4)));
}

#[test]
fn what_is_shown() {
    let ran = vfioctl("connectx", &[], &["sriov", "--json"]);
    let document = ran.json();
    let expected = json!([{
        "address": PF, "name": document["pfs"][0]["name"], "driver": "mlx5_core", "total_vfs": 16, "num_vfs": 4,
        "autoprobe": true, "vf_vendor": "15b3", "vf_device": "101e",
    }]);
    assert_eq!(document, json!({"schema": 1, "command": "sriov", "pfs": expected}));

    let commands = "vfioctl bind 3b:00.3 >&2; exec 9</dev/vfio/9; vfioctl sriov 3b:00.0; vfioctl sriov 3b:00.0 --json";
    let ran = script("connectx", &[], commands);
    ran.assert_status(0);
    let (text, json) = ran.stdout.split_at(ran.stdout.find('{').unwrap());
    assert!(text.contains("4 of 16, ids 15b3:101e"), "{text}");
    let document: Value = serde_json::from_str(json).unwrap();
    let vf = &document["vfs"][2];
    assert_eq!(vf["address"], VFS[2]);
    assert_eq!((&vf["driver"], &vf["driver_override"]), (&json!("mlx5_vfio_pci"), &json!("mlx5_vfio_pci")));
    assert_eq!((&vf["policy"]["driver"], &vf["holders"][0]["node"]), (&json!("auto"), &json!("/dev/vfio/9")));
    let line = text.lines().find(|line| line.contains(VFS[2])).unwrap();
    assert!(line.contains("mlx5_vfio_pci") && line.contains("auto") && line.contains("sh (pid "), "{line}");
}

#[test]
fn a_dry_run_says_what_and_does_nothing() {
    let ran = vfioctl("connectx", &[], &["sriov", "3b:00.0", "8", "--driver", "auto", "--dry-run"]);
    ran.assert_status(0);
    for line in
        ["4 of 16 VFs; would", "1. vf-autoprobe 0", "2. vf-count 0", "3. vf-count 8", "4. bind-vfs 8 to mlx5_vfio_pci"]
    {
        assert!(ran.stdout.contains(line), "{line}: {}", ran.stdout);
    }
    assert_eq!(ran.writes(), Vec::<String>::new());
    ran.assert_as_before();
}

#[test]
fn what_is_refused() {
    let qat_pf = "vfioctl bind --no-save 70:00.0 >&2; vfioctl sriov 70:00.0 2";
    let cases: [(&str, &str, i32, &str); 12] = [
        ("connectx", "vfioctl sriov 3b:00.0 17", 4, "can have 16 VFs at most"),
        ("connectx", "vfioctl sriov 3b:00.1 1", 4, "is a VF, of PF 0000:3b:00.0"),
        ("connectx", "vfioctl sriov 00:00.0", 4, "is no PF"),
        ("connectx", "vfioctl sriov 99:00.0 1", 3, "no PCI device 0000:99:00.0"),
        ("connectx", "vfioctl sriov 3b:00.0 many", 2, "invalid"),
        ("connectx", "vfioctl sriov 3b:00.0 --driver auto", 2, "COUNT"),
        ("connectx", "vfioctl sriov 3b:00.0 2 --driver qat_vfio_pci", 4, "is not for 15b3:101e"),
        (
            "connectx",
            "vfioctl bind --no-save 3b:00.3 >&2; exec 9</dev/vfio/9; vfioctl sriov 3b:00.0 2",
            4,
            "0000:3b:00.3: sh (pid ",
        ),
        ("connectx", "vfioctl bind --no-save 3b:00.3 >&2; exec 9</dev/vfio/9; vfioctl sriov 3b:00.0 0", 4, "in use"),
        (
            "connectx",
            "vfioctl bind --driver vfio-pci 3b:00.3 >&2; vfioctl sriov 3b:00.0 4 --driver mlx5_vfio_pci",
            4,
            "0000:3b:00.3.toml chooses driver vfio-pci for it, not mlx5_vfio_pci",
        ),
        (
            "qat",
            "echo 0000:70:00.0 > /sys/bus/pci/devices/0000:70:00.0/driver/unbind; vfioctl sriov 70:00.0 2",
            4,
            "on no driver",
        ),
        ("qat", qat_pf, 4, "is given to VFIO, on vfio-pci"),
    ];
    for (host, commands, status, words) in cases {
        let ran = script(host, &[], commands);
        ran.assert_status(status);
        assert!(ran.stderr.contains(words), "{commands}: {}", ran.stderr);
        assert!(!ran.writes().iter().any(|write| write.starts_with("sriov")), "{commands}: {:?}", ran.writes());
        assert_eq!(ran.stdout, "", "{commands}");
    }
}

#[test]
fn interfaces_that_are_up_are_not_taken_away_unasked() {
    let host = copy("connectx");
    let net = host.path().join("sys/bus/pci/devices").join(VFS[0]).join("net");
    let interface = fs::read_dir(&net).unwrap().next().unwrap().unwrap().path();
    fs::write(interface.join("flags"), "0x1003\n").unwrap();
    let run = |arguments: &[&str]| on(host.path(), &[], &[&[support::VFIOCTL, "sriov", PF, "2"], arguments].concat());
    let ran = run(&[]);
    ran.assert_status(4);
    let name = interface.file_name().unwrap().to_str().unwrap();
    assert!(ran.stderr.contains(&format!("{}: network interface {name} is up", VFS[0])), "{}", ran.stderr);
    ran.assert_as_before();
    run(&["--force=interface"]).assert_status(0);
}

/// What a VF is used for cannot be told: then none is taken away, and that is all.
#[test]
fn what_vfs_are_used_for_counts_where_they_are_to_go() {
    let host = copy("connectx");
    let net = host.path().join("sys/bus/pci/devices").join(VFS[0]).join("net");
    let flags = fs::read_dir(&net).unwrap().next().unwrap().unwrap().path().join("flags");
    fs::create_dir(&flags).unwrap();
    for (count, status, words) in [("2", 1, "flags"), ("", 0, "flags"), ("4", 0, "")] {
        let text = format!("{} sriov {PF} {count}", support::VFIOCTL);
        let ran = on(host.path(), &[], &["sh", "-c", &text]);
        ran.assert_status(status);
        assert!(ran.stderr.contains(words) && ran.stderr.is_empty() == words.is_empty(), "{text}: {}", ran.stderr);
        ran.assert_as_before();
    }
}

/// As a driver without `sriov_configure` answers, after the fact.
#[test]
fn a_driver_that_makes_no_vfs_is_named() {
    let ran = vfioctl("connectx", &[&format!("{PF}:sriov:errno=ENOENT")], &["sriov", PF, "6"]);
    ran.assert_status(4);
    for words in ["its driver, mlx5_core, cannot make or remove VFs", "pci-pf-stub", "enable_sriov"] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    ran.assert_as_before();
}

/// Each step may fail. The VFs that were there are there again, each on its driver.
#[test]
fn a_failure_at_any_step_leaves_all_as_before() {
    for (fault, words) in [
        ("0000:3b:00.0:vf_autoprobe:errno=EIO:once", "sriov_drivers_autoprobe: EIO"),
        ("0000:3b:00.0:sriov:errno=EIO:once", "writing \"0\""),
        ("0000:3b:00.0:sriov:errno=ENOMEM:nth=2", "pci=realloc"),
        ("0000:3b:00.2:override:errno=EIO:once", "1 of 6 VFs could not be bound: 0000:3b:00.2"),
        ("0000:3b:00.6:probe:errno=EIO", "1 of 6 VFs could not be bound: 0000:3b:00.6"),
        ("module=mlx5_vfio_pci:errno=EPERM", "6 of 6 VFs could not be bound"),
        // Putting it back comes second.
        ("0000:3b:00.0:vf_autoprobe:errno=EIO:nth=2", "sriov_drivers_autoprobe: EIO"),
    ] {
        let ran = vfioctl("connectx", &[fault], &["sriov", PF, "6", "--driver", "mlx5_vfio_pci"]);
        assert_eq!(ran.status, 1, "{fault}: {}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(words), "{fault}: {}", ran.stderr);
        assert_eq!(ran.stdout, "");
        assert_eq!(ran.device("after", PF)["sriov_numvfs"], 4, "{fault}");
        assert!(autoprobe(&ran), "{fault}");
        for vf in VFS {
            for field in ["driver", "driver_override", "vfio_dev"] {
                assert_eq!(ran.device("after", vf)[field], ran.device("before", vf)[field], "{fault}: {vf} {field}");
            }
        }
        let is_untouched = fault.ends_with("once") && !fault.contains("override");
        let end = if is_untouched && !fault.contains(":sriov:") {
            "nothing was changed"
        } else {
            "put back: it has 4 VFs, sriov_drivers_autoprobe 1"
        };
        assert!(ran.stderr.contains(end), "{fault}: {}", ran.stderr);
    }
}

#[test]
fn what_is_wrong_with_all_vfs_is_said_once() {
    let ran = vfioctl("connectx", &["module=vfio_pci:errno=EPERM"], &["sriov", PF, "6", "--driver", "vfio-pci"]);
    ran.assert_status(1);
    assert_eq!(ran.stderr.matches("modprobe vfio_pci").count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("(5 more VFs likewise)"), "{}", ran.stderr);
}

#[test]
fn a_pf_that_is_pulled_out_is_gone() {
    let ran = vfioctl("connectx", &[&format!("{PF}:sriov:vanish:nth=2")], &["sriov", PF, "6", "--json"]);
    ran.assert_status(3);
    let document = ran.json();
    assert_eq!((&document["error"]["kind"], &document["pf"]), (&json!("no-device"), &Value::Null));
    assert!(document["error"]["message"].as_str().unwrap().contains("went away"), "{document}");
}

#[test]
fn what_cannot_be_put_back_is_said() {
    // The third time VFs are made or removed, and all later.
    let faults: Vec<String> = (3..9).map(|nth| format!("{PF}:sriov:errno=EIO:nth={nth}")).collect();
    let mut faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    faults.push("0000:3b:00.5:probe:errno=ENODEV");
    let ran = vfioctl("connectx", &faults, &["sriov", PF, "6", "--driver", "mlx5_vfio_pci", "--json"]);
    ran.assert_status(8);
    let document = ran.json();
    assert_eq!(document["error"]["kind"], "not-restored");
    assert_eq!(document["outcome"], "failed");
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.contains("putting it back failed as well") && message.contains("it has 6 VFs"), "{message}");
    assert_eq!(document["results"].as_array().unwrap().len(), 1, "those that failed: {document}");
    assert!(autoprobe(&ran), "restored whatever else failed");
}

#[test]
fn those_that_could_be_bound_are_kept_if_asked_for() {
    let arguments = ["sriov", PF, "6", "--driver", "auto", "--keep-going"];
    let ran = vfioctl("connectx", &["0000:3b:00.2:probe:errno=EIO"], &arguments);
    ran.assert_status(1);
    assert!(ran.stderr.contains("0000:3b:00.2"), "{}", ran.stderr);
    assert_eq!(ran.stdout, format!("{PF}: 6 VFs made (there were 4), 5 on mlx5_vfio_pci, 1 on no driver\n"));
    assert!(autoprobe(&ran));
}

#[test]
fn a_pf_that_is_busy_is_not_waited_for_for_ever() {
    // Somebody makes VFs by hand, and that lasts.
    let busy =
        format!("echo 0 > /sys/bus/pci/devices/{PF}/sriov_numvfs & sleep 0.3; vfioctl sriov {PF} 2 --timeout 0.5");
    let ran =
        script("connectx", &[&format!("{PF}:sriov:block")], &format!("{busy}; r=$?; simhost ctl release; exit $r"));
    ran.assert_status(7);
    assert!(ran.stderr.contains("sriov_numvfs") && ran.stderr.contains("the PF's lock is held"), "{}", ran.stderr);

    // It is our own write that does not come back.
    let ran = script(
        "connectx",
        &[&format!("{PF}:sriov:block:once")],
        &format!("vfioctl sriov {PF} 2 --timeout 0.5; r=$?; simhost ctl release; exit $r"),
    );
    ran.assert_status(7);
    for words in ["writing \"0\"", "still waits in the kernel", "left as they are", "mlx5_core, may be slow"] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
    assert!(autoprobe(&ran));

    // A VF's probe: removing it would wait as well.
    let ran = script(
        "connectx",
        &["0000:3b:00.2:probe:block"],
        &format!("vfioctl sriov {PF} 3 --driver auto --timeout 0.5; r=$?; simhost ctl release; exit $r"),
    );
    ran.assert_status(7);
    assert!(ran.stderr.contains("0000:3b:00.2") && ran.stderr.contains("left as they are"), "{}", ran.stderr);
    assert!(autoprobe(&ran));
}

#[test]
fn showing_waits_for_nobody() {
    let busy =
        format!("echo 0 > /sys/bus/pci/devices/{PF}/sriov_numvfs & sleep 0.3; vfioctl sriov {PF}; simhost ctl release");
    let ran = script("connectx", &[&format!("{PF}:sriov:block")], &busy);
    ran.assert_status(0);
    assert!(ran.stdout.contains("4 of 16"), "{}", ran.stdout);
}

#[test]
fn two_at_once_come_one_after_the_other() {
    let two = format!(
        "vfioctl sriov {PF} 2 --driver auto & sleep 0.1; vfioctl sriov {PF} 3 --driver vfio-pci --timeout 20 >&2; wait"
    );
    let ran = script("connectx", &["*:sriov:delay=300"], &two);
    ran.assert_status(0);
    assert_eq!(ran.stdout, format!("{PF}: 2 VFs made (there were 4), 2 on mlx5_vfio_pci\n"));
    assert!(ran.stderr.contains("3 VFs made (there were 2), 3 on vfio-pci"), "{}", ran.stderr);
    assert!(autoprobe(&ran));

    let two = format!("vfioctl sriov {PF} 2 >&2 & sleep 0.3; vfioctl sriov {PF} 3 --timeout 0.3; r=$?; wait; exit $r");
    let ran = script("connectx", &["*:sriov:delay=900"], &two);
    ran.assert_status(7);
    assert!(ran.stderr.contains("another vfioctl has worked on this device"), "{}", ran.stderr);
}

#[test]
fn ctrl_c_puts_everything_back() {
    // While VFs are removed; while they are made; while one is bound. The kernel has it until the signal has been sent.
    for fault in ["*:sriov:block:nth=1", "*:sriov:block:nth=2", "*:probe:block:once"] {
        let command = format!(
            "(exec {} sriov {PF} 6 --driver auto) & until simhost ctl blocked | grep -q '[a-z]'; do sleep 0.02; done
             kill -INT $!; sleep 0.2; simhost ctl release >/dev/null; wait $!",
            support::VFIOCTL
        );
        let command = format!("trap : INT; {command}");
        // Whoever runs the tests may have it ignored, as what is started in the background by a shell has.
        let shell = ["env", "--default-signal=INT", "bash", "-m", "-c", &command];
        let ran = on(&support::fixtures().join("connectx"), &[fault], &shell);
        ran.assert_status(1);
        assert!(ran.stderr.contains("interrupted"), "{fault}: {}", ran.stderr);
        assert_eq!(ran.device("after", PF)["sriov_numvfs"], 4, "{}", ran.stderr);
        for vf in VFS {
            assert_eq!(ran.device("after", vf)["driver"], ran.device("before", vf)["driver"], "{fault}: {vf}");
        }
        assert!(autoprobe(&ran));
    }
}

/// While one VF is bound and fails, a guest opens another that is done.
#[test]
fn vfs_that_somebody_opens_meanwhile_are_left_to_them() {
    let faults = ["0000:3b:00.4:probe:block:once", "0000:3b:00.4:probe:errno=EIO"];
    let ran = script(
        "connectx",
        &faults,
        &format!(
            "modprobe vfio-pci; vfioctl sriov {PF} 4 --driver vfio-pci & pid=$!; s=/sys/bus/pci/devices
             on_vfio() {{ [ \"$(basename \"$(readlink $s/$1/driver)\")\" = vfio-pci ]; }}
             until on_vfio {0} && on_vfio {1} && simhost ctl blocked | grep -q [a-z]; do sleep 0.02; done
             exec 3<>/dev/vfio/$(basename $(readlink $s/{0}/iommu_group)); simhost ctl release >/dev/null; wait $pid",
            VFS[0], VFS[1]
        ),
    );
    ran.assert_status(8);
    assert!(ran.stderr.contains(&format!("left as it is: {} is in use: sh (pid ", VFS[0])), "{}", ran.stderr);
    assert_eq!(ran.device("after", VFS[0])["driver"], "vfio-pci");
    assert_eq!(ran.changed(), [VFS[0]], "{}", ran.stderr);
}

#[test]
fn a_vf_that_is_stuck_while_all_is_put_back_is_told_from_one_that_fails() {
    let faults = ["0000:3b:00.4:probe:errno=EIO", "0000:3b:00.1:unbind:block:nth=2"];
    let command = format!("vfioctl sriov {PF} 4 --driver vfio-pci --timeout 1; r=$?; simhost ctl release; exit $r");
    let ran = script("connectx", &faults, &command);
    ran.assert_status(7);
    let words = "putting it back failed as well: 0000:3b:00.1: ";
    assert!(ran.stderr.contains(words) && ran.stderr.contains("still waits in the kernel"), "{}", ran.stderr);
}

/// What a rule requires, and what it has run, counts for VFs that are about to be made too, before the old ones go.
#[test]
fn what_a_rule_asks_for_is_looked_at_before_anything_is_removed() {
    let rule = |rest: &str| {
        format!("mkdir -p /etc/vfioctl.d; printf '[[device]]\npf = \"3b:00.0\"\n{rest}\n' > /etc/vfioctl.d/50.toml")
    };
    for (rest, commands, words) in [
        (r#"driver = "vfio-pci"\nrequire = ["migration"]"#, "vfioctl sriov 3b:00.0 2", "migration cannot be had"),
        (
            r#"driver = "vfio-pci"\nrequire = ["migration"]"#,
            "vfioctl sriov 3b:00.0 2 --driver vfio-pci",
            "migration cannot be had",
        ),
        (
            r#"driver = "auto"\nprepare = [["true"]]"#,
            "chmod o+w /etc/vfioctl.d/50.toml; vfioctl sriov 3b:00.0 2",
            "others than root could change /etc/vfioctl.d/50.toml",
        ),
    ] {
        let ran = script("connectx", &[], &format!("{}; {commands}", rule(rest)));
        ran.assert_status(4);
        assert!(ran.stderr.contains(words), "{commands}: {}", ran.stderr);
        assert_eq!(ran.writes(), Vec::<String>::new(), "{commands}");
    }
    // The same driver in another spelling is no other driver.
    let ran = script(
        "connectx",
        &[],
        &format!("{}; vfioctl sriov 3b:00.0 2 --driver mlx5-vfio-pci", rule(r#"driver = "mlx5_vfio_pci""#)),
    );
    ran.assert_status(0);
}

#[test]
fn a_step_that_is_killed_puts_everything_back() {
    let rule = "mkdir -p /etc/vfioctl.d; printf '[[device]]\\npf = \"3b:00.0\"\\ndriver = \"auto\"\\n\
                [[device.prepare]]\\nrun = [\"sleep\", \"30\"]\\ntimeout = 1\\n' > /etc/vfioctl.d/50.toml";
    let ran = script("connectx", &[], &format!("{rule}; vfioctl sriov 3b:00.0 2"));
    ran.assert_status(7);
    assert!(ran.stderr.contains("put back: it has 4 VFs"), "{}", ran.stderr);
    for vf in VFS {
        assert_eq!(ran.device("after", vf)["driver"], ran.device("before", vf)["driver"], "{vf}");
    }
}

#[test]
fn what_was_prepared_is_undone_with_the_rest() {
    let step = "[[device.prepare]]\\nrun = [\"touch\", \"/run/{address}\"]\\nundo = [\"rm\", \"/run/{address}\"]";
    let rule = format!(
        "mkdir -p /etc/vfioctl.d; printf '[[device]]\\npf = \"3b:00.0\"\\ndriver = \"mlx5_vfio_pci\"\\n{step}\\n' > /etc/vfioctl.d/50.toml"
    );
    let fault = format!("{}:probe:errno=EIO:once", VFS[1]);
    let ran = script(
        "connectx",
        &[&fault],
        &format!("{rule}; modprobe mlx5_vfio_pci; vfioctl sriov 3b:00.0 4; ls /run/0000:* 2>/dev/null"),
    );
    assert!(ran.stderr.contains("put back"), "{} {}", ran.stdout, ran.stderr);
    assert!(!ran.stdout.contains("/run/0000:"), "{} {}", ran.stdout, ran.stderr);
}

/// Bound by 'vfioctl apply' of the unit that udev starts, before this command comes to them.
#[test]
fn the_unit_and_the_command_do_not_get_in_each_others_way() {
    let policy = "mkdir -p /etc/vfioctl.d; printf '[[device]]\\npf = \"3b:00.0\"\\ndriver = \"auto\"\\n' > /etc/vfioctl.d/50.toml";
    let unit = "unit() { while ! test -e /sys/bus/pci/devices/0000:3b:00.7; do sleep 0.02; done; vfioctl apply 3b:00.7 3b:00.1 >&2; }";
    let ran =
        script("connectx", &["*:probe:delay=50"], &format!("{policy}; {unit}; unit & vfioctl sriov {PF} 8; wait $!"));
    ran.assert_status(0);
    assert_eq!(ran.stdout, format!("{PF}: 8 VFs made (there were 4), 8 on mlx5_vfio_pci\n"));
    for vf in ["0000:3b:00.1", "0000:3b:00.7"] {
        assert_eq!(probed(&ran, vf), ["mlx5_vfio_pci"], "once");
        assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    }
    assert!(!ran.writes().iter().any(|write| write.contains("unbind")), "{:?}", ran.writes());
}

/// All VFs at once in less than a fifth of the time that one after the other takes. The probes last, so that what the
/// simulation itself takes is little beside them, also on a busy machine.
#[test]
fn hundreds_of_vfs_are_bound_at_once() {
    const COUNT: u32 = 256;
    const SAMPLE: u32 = 16;
    let host = copy("connectx");
    fs::write(pf(host.path()).join("sriov_totalvfs"), format!("{COUNT}\n")).unwrap();
    let times = format!(
        "now() {{ date +%s%N; }}; vfioctl() {{ {} \"$@\" >&2 || exit 9; }}
         vfioctl sriov {PF} {SAMPLE}
         a=$(now); for vf in /sys/bus/pci/devices/{PF}/virtfn*; do
             vfioctl bind --no-save --driver vfio-pci $(basename $(readlink $vf)); done; b=$(now)
         vfioctl sriov {PF} 0; c=$(now); vfioctl sriov {PF} {COUNT} --driver vfio-pci; d=$(now)
         echo $(((b - a) / 1000000)) $(((d - c) / 1000000))",
        support::VFIOCTL
    );
    let ran = on(host.path(), &["*:probe:delay=200"], &["sh", "-c", &times]);
    ran.assert_status(0);
    let last = ran.stdout.lines().last().unwrap();
    let times: Vec<u64> = last.split(' ').map(|time| time.parse().unwrap()).collect();
    let (one_by_one, at_once) = (times[0] * u64::from(COUNT / SAMPLE), times[1]);
    println!("{COUNT} VFs: {at_once} ms at once, {one_by_one} ms one after the other");
    assert!(at_once * 5 < one_by_one, "{at_once} ms at once, {one_by_one} ms one after the other");
    let devices = ran.journal["after"]["devices"].as_object().unwrap();
    assert_eq!(devices.values().filter(|device| device["driver"] == "vfio-pci").count(), COUNT as usize);
}

/// A copy of the host whose PF can have this many VFs.
fn with_vfs(count: u32) -> tempfile::TempDir {
    let host = copy("connectx");
    fs::write(pf(host.path()).join("sriov_totalvfs"), format!("{count}\n")).unwrap();
    host
}

/// Each probe is under the lock of its VF alone: all of them are in the kernel before any has come to its end.
#[test]
fn all_probes_are_in_the_kernel_at_once() {
    const COUNT: u32 = 256;
    let host = with_vfs(COUNT);
    let text = format!(
        "modprobe mlx5_vfio_pci; {} sriov {PF} {COUNT} --driver auto & pid=$!
         for turn in $(seq 600); do
             [ $(simhost ctl blocked | grep -c probe) = {COUNT} ] && echo all && break; sleep 0.1; done
         simhost ctl release >/dev/null; wait $pid",
        support::VFIOCTL
    );
    let ran = on(host.path(), &["*:probe:block"], &["sh", "-c", &text]);
    ran.assert_status(0);
    assert!(ran.stdout.starts_with("all\n"), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains(&format!("{COUNT} on mlx5_vfio_pci")), "{}", ran.stdout);
}

/// Beside whoever makes the same writes by hand, as many at a time as the kernel takes, with nothing looked at before or after.
/// The simulation takes longer for a look than the kernel, and whoever compiles beside this makes it longer still.
#[test]
fn binding_hundreds_takes_little_longer_than_the_writes() {
    const COUNT: u32 = 256;
    let host = with_vfs(COUNT);
    let text = format!(
        "now() {{ date +%s%3N; }}; modprobe mlx5_vfio_pci; cd /sys/bus/pci/devices/{PF}
         by_hand() {{ echo 0 >sriov_numvfs; echo 0 >sriov_drivers_autoprobe; echo {COUNT} >sriov_numvfs
             for vf in virtfn*; do
                 {{ echo mlx5_vfio_pci >$vf/driver_override; vf=$(readlink $vf)
                    echo ${{vf##*/}} >/sys/bus/pci/drivers/mlx5_vfio_pci/bind; }} &
             done; wait; echo 1 >sriov_drivers_autoprobe; }}
         by_us() {{ echo 0 >sriov_numvfs; {} sriov {PF} {COUNT} --driver auto >/dev/null || exit 9; }}
         for turn in 1 2 3; do
             a=$(now); by_hand; b=$(now); by_us; c=$(now); echo $((b - a)) $((c - b))
         done",
        support::VFIOCTL
    );
    let ran = on(host.path(), &["*:probe:delay=20"], &["sh", "-c", &text]);
    ran.assert_status(0);
    let pairs = ran.stdout.lines().map(|line| line.split_once(' ').unwrap());
    let mut times: Vec<(f64, f64)> = pairs.map(|(hand, us)| (hand.parse().unwrap(), us.parse().unwrap())).collect();
    times.sort_by(|(a, b), (c, d)| (b / a).total_cmp(&(d / c)));
    let (hand, us) = times[1];
    println!("{COUNT} VFs, probes of 20 ms: {hand} ms by hand, {us} ms by us: {:.2}", us / hand);
    assert!(us < 4.0 * hand, "{times:?}");
}

/// What is the same for all VFs is asked for once a run: what one more VF costs does not grow with their number.
#[test]
fn what_a_vf_costs_does_not_grow_with_their_number() {
    const COUNTS: [u32; 3] = [32, 128, 256];
    let host = with_vfs(COUNTS[2]);
    let mut text = "modprobe mlx5_vfio_pci\n".to_string();
    for count in COUNTS {
        text += &format!(
            "echo 0 >/sys/bus/pci/devices/{PF}/sriov_numvfs
             strace -f -c -U name,calls -o /run/calls {} sriov {PF} {count} --driver auto >/dev/null || exit 9
             sed \"s/^/{count} /\" /run/calls\n",
            support::VFIOCTL
        );
    }
    let ran = on(host.path(), &["*:probe:delay=20"], &["sh", "-c", &text]);
    ran.assert_status(0);
    // How often threads wait for each other, and how many there are, is chance.
    const CHANCE: [&str; 16] = [
        "futex",
        "total",
        "clone3",
        "rt_sigaction",
        "rt_sigprocmask",
        "sigaltstack",
        "mmap",
        "munmap",
        "mprotect",
        "madvise",
        "set_robust_list",
        "rseq",
        "sched_getaffinity",
        "gettid",
        "prlimit64",
        "ppoll",
    ];
    let calls = |count: u32, is_counted: &dyn Fn(&str) -> bool| -> u64 {
        let lines = ran.stdout.lines().filter_map(|line| line.strip_prefix(&format!("{count} ")));
        let rows = lines.filter_map(|line| Some((line.split_whitespace().next()?, line.split_whitespace().nth(1)?)));
        rows.filter(|(name, _)| is_counted(name)).filter_map(|(_, calls)| calls.parse::<u64>().ok()).sum()
    };
    let [few, some, many] = COUNTS.map(|count| calls(count, &|name| !CHANCE.contains(&name)));
    let (first, last) = ((some - few) / 96, (many - some) / 128);
    println!("system calls a VF: {first} up to {}, {last} beyond", COUNTS[1]);
    assert!(last < 160, "{last}\n{}", ran.stdout);
    assert!(last * 2 < first * 3, "{first} a VF, and then {last}\n{}", ran.stdout);
    // A process a call that waits at a time, not one a VF.
    let programs = calls(COUNTS[2], &|name| name == "execve");
    assert!(programs <= 128, "{programs} processes for {} VFs", COUNTS[2]);
}
