// SPDX-License-Identifier: MIT OR Apache-2.0
//! The whole program on simulated hosts: what it does to devices, and what is left when something fails.

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::ran::{copy, on, script, vfioctl};

const CONNECTX_VF: &str = "0000:3b:00.1";

// ---- the main job

#[test]
fn giving_away_for_a_while_is_written_down_until_the_next_bind() {
    let word = "test -e /run/vfioctl/given-away/0000:3b:00.1; echo $?";
    let ran = script(
        "connectx",
        &[],
        &format!(
            "vfioctl unbind --no-save 3b:00.1 >&2; {word}; vfioctl bind 3b:00.1 >&2; {word}; \
             vfioctl unbind --no-save 3b:00.1 >&2; {word}; vfioctl apply 3b:00.1 >&2; {word}; vfioctl unbind 3b:00.1 >&2; {word}"
        ),
    );
    ran.assert_status(0);
    // Of a device without a kept choice there is nothing to say.
    assert_eq!(ran.stdout, "1\n1\n0\n1\n1\n", "{}", ran.stderr);
}

#[test]
fn bind_changes_exactly_one_device() {
    let ran = vfioctl("connectx", &[], &["bind", CONNECTX_VF]);
    ran.assert_status(0);
    // Its twins, with the same ids, bound and unbound, are as they were.
    assert_eq!(ran.changed(), [CONNECTX_VF]);
    let device = ran.device("after", CONNECTX_VF);
    assert_eq!(device["driver"], "mlx5_vfio_pci");
    assert_eq!(device["driver_override"], "mlx5_vfio_pci");
    assert_eq!(device["vfio_dev"].as_array().unwrap().len(), 1);
    assert_eq!(ran.policy(), [format!("{CONNECTX_VF}.toml")]);
    let text = ran.journal["after"]["policy"][format!("{CONNECTX_VF}.toml")].as_str().unwrap();
    assert!(text.contains("driver = \"auto\"") && text.contains("id = \"15b3:101e\""), "{text}");
}

#[test]
fn the_override_is_set_before_the_module_is_loaded() {
    let ran = vfioctl("connectx", &[], &["bind", CONNECTX_VF]);
    assert_eq!(
        ran.writes(),
        ["driver_override mlx5_vfio_pci", "mlx5_core/unbind 0000:3b:00.1", "modprobe -- mlx5_vfio_pci"],
        "the driver takes the device when it is registered: no write to bind is needed"
    );
    // With the module in, the driver is told by hand, and its probe's errno would be known.
    let ran = script("connectx", &[], "modprobe mlx5_vfio_pci; vfioctl bind 3b:00.1");
    assert_eq!(
        ran.writes()[1..],
        ["driver_override mlx5_vfio_pci", "mlx5_core/unbind 0000:3b:00.1", "mlx5_vfio_pci/bind 0000:3b:00.1"]
    );
}

#[test]
fn unbind_leaves_no_trace() {
    let ran = script("connectx", &[], "vfioctl bind 3b:00.1 && vfioctl unbind 3b:00.1");
    ran.assert_status(0);
    ran.assert_as_before();
    assert!(ran.policy().is_empty());
}

#[test]
fn what_may_be_lost_is_kept_whatever_comes_before_the_driver() {
    let kept = "cat /etc/vfioctl.d/0000:3b:00.1.toml";
    let ran = script(
        "connectx",
        &[],
        &format!("vfioctl bind --force=network,root-disk 3b:00.1 >&2; vfioctl bind --no-prepare 3b:00.1 >&2; {kept}"),
    );
    ran.assert_status(0);
    assert!(ran.stdout.contains("force = [\"network\"]\n"), "{}", ran.stdout);
}

#[test]
fn a_second_bind_changes_nothing() {
    let ran = script("connectx", &[], "vfioctl bind 3b:00.1 >/dev/null; vfioctl bind --json 3b:00.1");
    ran.assert_status(0);
    assert_eq!(ran.result()["outcome"], "unchanged");
    assert_eq!(ran.result()["persisted"], true);
    assert_eq!(ran.writes().len(), 3, "{:?}", ran.writes());
}

#[test]
fn several_devices_at_once() {
    let ran = vfioctl("connectx", &[], &["bind", "--json", "3b:00.1", "3b:00.2", "3b:00.3", "3b:00.4", "3b:00.1"]);
    ran.assert_status(0);
    let document = ran.json();
    let addresses: Vec<&str> =
        document["results"].as_array().unwrap().iter().map(|result| result["address"].as_str().unwrap()).collect();
    assert_eq!(addresses, ["0000:3b:00.1", "0000:3b:00.2", "0000:3b:00.3", "0000:3b:00.4"]);
    assert_eq!(ran.changed().len(), 4);
}

#[test]
fn of_several_devices_the_highest_status_counts() {
    let ran = vfioctl("connectx", &[], &["bind", "--json", "3b:00.1", "3a:00.0", "99:00.0"]);
    ran.assert_status(4);
    let document = ran.json();
    let outcome = |index: usize| document["results"][index]["outcome"].as_str().unwrap().to_string();
    assert_eq!([outcome(0), outcome(1), outcome(2)], ["bound", "refused", "refused"]);
    assert_eq!(ran.changed(), [CONNECTX_VF]);
}

#[test]
fn devices_are_worked_on_in_parallel() {
    let faults: Vec<String> = (1..=4).map(|function| format!("0000:3b:00.{function}:probe:delay=1000")).collect();
    let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
    let started = Instant::now();
    let ran = script(
        "connectx",
        &faults,
        "modprobe vfio_pci; vfioctl bind --no-save --driver vfio-pci 3b:00.1 3b:00.2 3b:00.3 3b:00.4",
    );
    ran.assert_status(0);
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

// ---- which driver

#[test]
fn either_spelling_names_the_right_driver() {
    for (host, address, spelling, driver) in [
        ("xe", "03:00.1", "xe_vfio_pci", "xe-vfio-pci"),
        ("xe", "03:00.1", "xe-vfio-pci", "xe-vfio-pci"),
        ("xe", "03:00.1", "vfio_pci", "vfio-pci"),
        ("connectx", "3b:00.1", "vfio-pci", "vfio-pci"),
        ("connectx", "3b:00.1", "mlx5-vfio-pci", "mlx5_vfio_pci"),
    ] {
        let ran = vfioctl(host, &[], &["bind", "--driver", spelling, address]);
        ran.assert_status(0);
        assert_eq!(ran.device("after", &format!("0000:{address}"))["driver"], driver, "{spelling}");
        let policy = ran.journal["after"]["policy"][format!("0000:{address}.toml")].as_str().unwrap();
        assert!(policy.contains(&format!("driver = \"{driver}\"")), "{policy}");
    }
}

#[test]
fn every_host_gets_its_variant() {
    for (host, address, driver) in [
        ("qat", "6b:00.1", "qat_vfio_pci"),
        ("qat", "19:00.1", "pds_vfio_pci"),
        ("xe", "03:00.2", "xe-vfio-pci"),
        ("gh200", "0009:01:00.0", "nvgrace_gpu_vfio_pci"),
        ("kunpeng", "75:00.1", "hisi_acc_vfio_pci"),
        ("virtio-guest", "02:00.0", "virtio_vfio_pci"),
        ("debian", "3b:00.2", "vfio-pci"),
        ("gpu-shared-group", "01:00.0", "vfio-pci"),
        ("odd-tables", "00:14.0", "usb_vfio_pci"),
        ("odd-tables", "07:00.0", "built_vfio_pci"),
    ] {
        let ran = vfioctl(host, &[], &["bind", "--json", address]);
        ran.assert_status(0);
        assert_eq!(ran.result()["driver"], driver, "{host} {address}: {}", ran.stderr);
        assert_eq!(ran.changed().len(), 1, "{host}: {:?}", ran.changed());
    }
}

#[test]
fn a_name_that_only_the_loaded_module_tells() {
    let ran = vfioctl("odd-tables", &[], &["bind", "--driver", "exact_gpu_vfio_pci", "02:00.0"]);
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:02:00.0")["driver"], "exact-gpu-vfio-pci");
    assert_eq!(ran.device("after", "0000:02:00.0")["driver_override"], "exact-gpu-vfio-pci");
    let writes = ran.writes();
    assert_eq!(writes[0], "driver_override exact_gpu_vfio_pci", "the module's name keeps other drivers off meanwhile");
    assert!(writes.contains(&"driver_override exact-gpu-vfio-pci".to_string()), "{writes:?}");
}

#[test]
fn a_blocked_variant_is_passed_over_and_said() {
    let ran = vfioctl("qat", &[], &["bind", "75:00.1"]);
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:75:00.1")["driver"], "vfio-pci");
    assert!(ran.stderr.contains("qat_vfio_pci passed over") && ran.stderr.contains("pci-pf-stub"), "{}", ran.stderr);
    let ran = vfioctl("qat", &[], &["bind", "--strict", "75:00.1"]);
    ran.assert_status(4);
    ran.assert_as_before();
}

#[test]
fn a_driver_that_does_not_list_the_device_is_refused() {
    let ran = vfioctl("connectx", &[], &["bind", "--driver", "qat_vfio_pci", "3b:00.3"]);
    ran.assert_status(4);
    assert!(ran.stderr.contains("8086:4941") && ran.stderr.contains("mlx5_vfio_pci"), "{}", ran.stderr);
    assert!(ran.writes().is_empty());
    // The kernel would have let it: a driver_override always matches.
    let ran = vfioctl("connectx", &[], &["bind", "--driver", "virtio_vfio_pci", "--force", "3b:00.3"]);
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:3b:00.3")["driver"], "virtio_vfio_pci");
}

#[test]
fn a_forced_driver_must_make_a_vfio_device() {
    let ran = vfioctl("qat", &[], &["bind", "--driver", "pci-pf-stub", "--force", "6b:00.1"]);
    ran.assert_status(1);
    assert!(ran.stderr.contains("made no VFIO device"), "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn a_driver_that_does_not_exist() {
    let ran = vfioctl("connectx", &[], &["bind", "--driver", "no-such-driver", "3b:00.3"]);
    ran.assert_status(5);
    assert!(ran.writes().is_empty());
}

#[test]
fn a_module_that_only_the_table_knows_fails_before_anything_is_touched() {
    let ran = vfioctl("odd-tables", &[], &["bind", "05:00.0"]);
    ran.assert_status(1);
    assert!(ran.stderr.contains("gone_vfio_pci") && ran.stderr.contains("depmod"), "{}", ran.stderr);
    assert!(ran.writes().is_empty());
    ran.assert_as_before();
}

#[test]
fn no_modules_alias_means_plain_vfio_pci() {
    let host = copy("connectx");
    fs::remove_file(host.path().join("lib/modules/7.0.0-43-generic/modules.alias")).unwrap();
    let ran = on(host.path(), &[], &[support::VFIOCTL, "bind", CONNECTX_VF]);
    ran.assert_status(0);
    assert!(ran.stderr.contains("modules.alias is not there"), "{}", ran.stderr);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "vfio-pci");
}

#[test]
fn a_registered_driver_in_no_table_is_known_by_its_catalogue_entry() {
    let host = copy("connectx");
    let alias = host.path().join("lib/modules/7.0.0-43-generic/modules.alias");
    let text = fs::read_to_string(&alias).unwrap();
    let without: Vec<&str> = text.lines().filter(|line| !line.ends_with(" mlx5_vfio_pci")).collect();
    fs::write(&alias, without.join("\n")).unwrap();
    let bind = |first: &str| {
        on(host.path(), &[], &["sh", "-c", &format!("{first}; {} explain {CONNECTX_VF} --json", support::VFIOCTL)])
            .json()
    };
    assert_eq!(bind("true")["best"]["driver"], "vfio-pci");
    let explained = bind("modprobe mlx5_vfio_pci");
    assert_eq!(explained["best"]["driver"], "mlx5_vfio_pci");
    assert_eq!(explained["candidates"][0]["source"], "registered");
}

#[test]
fn modprobe_configuration_counts() {
    let host = copy("connectx");
    fs::create_dir_all(host.path().join("etc/modprobe.d")).unwrap();
    fs::write(host.path().join("etc/modprobe.d/local.conf"), "blacklist mlx5_vfio_pci\n").unwrap();
    let ran = on(host.path(), &[], &[support::VFIOCTL, "bind", CONNECTX_VF]);
    ran.assert_status(0);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "vfio-pci");
    assert!(ran.stderr.contains("blacklisted by /etc/modprobe.d/local.conf:1"), "{}", ran.stderr);
}

// ---- what is refused

#[test]
fn what_cannot_be_bound_is_refused_untouched() {
    for (host, address, status, word) in [
        ("connectx", "3a:00.0", 4, "bridge"),
        ("connectx", "3b:00.0", 4, "4 VFs"),
        ("debian", "04:00.0", 4, "fixed mapping"),
        ("no-iommu", "02:00.0", 4, "IOMMU"),
        ("connectx", "99:00.0", 3, "no PCI device"),
    ] {
        let ran = vfioctl(host, &[], &["bind", address]);
        ran.assert_status(status);
        assert!(ran.stderr.contains(word), "{}", ran.stderr);
        assert!(ran.stderr.lines().count() >= 2, "a hint is missing: {}", ran.stderr);
        assert!(ran.writes().is_empty(), "{:?}", ran.writes());
    }
}

#[test]
fn usage_mistakes_are_status_2() {
    for arguments in [
        &["bind"][..],
        &["bind", "ens1f0"],
        &["bind", "--driver", "../x", "3b:00.1"],
        &["list", "--timeout", "0"],
        &["match"],
        &["match", "3b:00.1", "--modalias", "pci:v*"],
        &["nonsense"],
    ] {
        let output = support::run(Command::new(support::VFIOCTL).args(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn without_root_nothing_is_done_and_the_status_is_6() {
    let ran = on(
        &support::fixtures().join("connectx"),
        &[],
        &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", support::VFIOCTL, "bind", CONNECTX_VF],
    );
    ran.assert_status(6);
    assert!(ran.stderr.contains("root"), "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn reading_writes_nothing() {
    let ran = script(
        "connectx",
        &[],
        "vfioctl list; vfioctl show 3b:00.1; vfioctl match 3b:00.1; vfioctl explain 3b:00.1; vfioctl drivers
         vfioctl bind --dry-run 3b:00.1; vfioctl unbind --dry-run 3b:00.1; vfioctl apply --dry-run",
    );
    ran.assert_status(0);
    assert!(ran.writes().is_empty(), "{:?}", ran.writes());
    ran.assert_as_before();
}

// ---- failure at every step: driver, override and policy as before

#[test]
fn a_failure_at_any_step_of_bind_is_undone() {
    for fault in [
        "0000:3b:00.1:override:errno=EINVAL:once",
        "0000:3b:00.1:unbind:errno=EBUSY:once",
        "module=mlx5_vfio_pci:errno=EPERM",
        "module=mlx5_vfio_pci:errno=ENOENT",
        "0000:3b:00.1:probe:errno=ENODEV:once",
        "0000:3b:00.1:probe:errno=EINVAL:once",
        "0000:3b:00.1:probe:errno=ENOMEM:once",
    ] {
        // Loaded beforehand, a module's failure is not met; then the probe's own errno is.
        let is_module = fault.starts_with("module=");
        let first = if is_module { "true" } else { "modprobe mlx5_vfio_pci" };
        let ran = script("connectx", &[fault], &format!("{first}; vfioctl bind --strict --json 3b:00.1"));
        let address = CONNECTX_VF;
        assert_eq!(ran.status, 1, "{fault}\n{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.device("before", address), ran.device("after", address), "{fault}");
        assert!(ran.policy().is_empty(), "{fault}");
        let result = ran.result();
        assert_eq!(result["outcome"], "failed", "{fault}");
        assert_eq!(result["driver"], "mlx5_core", "{fault}");
        assert_eq!(result["persisted"], false, "{fault}");
        assert!(result["error"]["message"].as_str().unwrap().contains(address), "{fault}");
        assert!(result["error"]["hint"].is_string(), "{fault}");
    }
}

#[test]
fn the_probes_errno_is_told() {
    let ran = script(
        "connectx",
        &["0000:3b:00.1:probe:errno=ENOMEM:once"],
        "modprobe mlx5_vfio_pci; vfioctl bind --strict 3b:00.1",
    );
    ran.assert_status(1);
    assert!(ran.stderr.contains("ENOMEM"), "{}", ran.stderr);
}

#[test]
fn a_failing_variant_gives_way_to_the_generic_driver() {
    for fault in ["module=mlx5_vfio_pci:errno=EPERM", "0000:3b:00.1:probe:errno=EIO:nth=1"] {
        let first = if fault.starts_with("module=") { "true" } else { "modprobe mlx5_vfio_pci" };
        let ran = script("connectx", &[fault], &format!("{first}; vfioctl bind 3b:00.1"));
        ran.assert_status(0);
        assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "vfio-pci", "{fault}");
        assert_eq!(ran.device("after", CONNECTX_VF)["driver_override"], "vfio-pci", "{fault}");
        assert!(ran.stderr.contains("mlx5_vfio_pci"), "{fault}: {}", ran.stderr);
        // What is kept is the wish for the best, not today's makeshift.
        let policy = ran.journal["after"]["policy"][format!("{CONNECTX_VF}.toml")].as_str().unwrap();
        assert!(policy.contains("auto"), "{policy}");
    }
}

#[test]
fn a_probes_own_errno_is_not_taken_for_the_callers() {
    for errno in ["EPERM", "EACCES", "ENOENT"] {
        let fault = format!("0000:3b:00.1:probe:errno={errno}:nth=1");
        let ran = script("connectx", &[&fault], "modprobe mlx5_vfio_pci; vfioctl bind 3b:00.1");
        ran.assert_status(0);
        assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "vfio-pci", "{errno}");
        assert!(ran.stderr.contains(errno), "{}", ran.stderr);
    }
}

#[test]
fn what_was_put_back_is_said() {
    let ran = script(
        "connectx",
        &["0000:3b:00.1:probe:errno=EIO:once"],
        "modprobe mlx5_vfio_pci; vfioctl bind --strict 3b:00.1",
    );
    ran.assert_status(1);
    assert!(
        ran.stderr.contains("EIO") && ran.stderr.contains("put back: it is on mlx5_core, no override"),
        "{}",
        ran.stderr
    );
}

#[test]
fn an_override_of_others_is_restored_too() {
    let ran = script(
        "connectx",
        &["0000:3b:00.3:probe:errno=EIO"],
        "echo none > /sys/bus/pci/devices/0000:3b:00.3/driver_override; vfioctl bind 3b:00.3",
    );
    ran.assert_status(1);
    assert_eq!(ran.device("after", "0000:3b:00.3")["driver_override"], "none");
    assert_eq!(ran.device("after", "0000:3b:00.3")["driver"], Value::Null);
}

/// A device can be on a driver that does not list it, and with no override left.
#[test]
fn a_driver_that_does_not_list_the_device_is_restored_too() {
    let ran = script(
        "connectx",
        &["0000:3b:00.1:probe:errno=EIO:nth=2"],
        "vfioctl bind --no-save --driver vfio-pci 3b:00.1; modprobe mlx5_vfio_pci
         echo > /sys/bus/pci/devices/0000:3b:00.1/driver_override; vfioctl bind --strict 3b:00.1",
    );
    ran.assert_status(1);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "vfio-pci");
    assert_eq!(ran.device("after", CONNECTX_VF)["driver_override"], Value::Null);
}

#[test]
fn a_deferred_probe_is_tried_again() {
    let ran =
        script("connectx", &["0000:3b:00.1:bind:errno=EAGAIN:nth=1"], "modprobe mlx5_vfio_pci; vfioctl bind 3b:00.1");
    ran.assert_status(0);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "mlx5_vfio_pci");
}

#[test]
fn a_failure_that_cannot_be_undone_is_status_8_with_the_state() {
    let ran =
        script("connectx", &["0000:3b:00.1:probe:errno=EIO"], "modprobe mlx5_vfio_pci; vfioctl bind --strict 3b:00.1");
    ran.assert_status(8);
    assert!(ran.stderr.contains("putting it back failed as well"), "{}", ran.stderr);
    assert!(ran.stderr.contains("it is on no driver, no override"), "{}", ran.stderr);
    assert!(ran.policy().is_empty());
}

#[test]
fn a_choice_that_cannot_be_kept_touches_nothing() {
    let ran = script("connectx", &[], "mount -o remount,bind,ro /etc/vfioctl.d && vfioctl bind 3b:00.1");
    ran.assert_status(6);
    assert!(ran.stderr.contains("--no-save"), "{}", ran.stderr);
    assert!(ran.writes().is_empty(), "{:?}", ran.writes());
    let ran = script("connectx", &[], "mount -o remount,bind,ro /etc/vfioctl.d && vfioctl bind --no-save 3b:00.1");
    ran.assert_status(0);
    assert_eq!(ran.changed(), [CONNECTX_VF]);
}

#[test]
fn a_device_that_vanishes_is_told_of() {
    for step in ["override", "unbind", "probe"] {
        let ran = script(
            "connectx",
            &[&format!("0000:02:00.0:{step}:vanish:once")],
            "modprobe vfio_pci; vfioctl bind --json 02:00.0",
        );
        assert_eq!(ran.status, 3, "{step}\n{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.result()["driver"], Value::Null, "{step}");
        assert!(ran.policy().is_empty(), "{step}");
    }
}

#[test]
fn a_failure_at_any_step_of_unbind_is_undone() {
    let ran = script(
        "connectx",
        &["0000:3b:00.1:override:errno=EINVAL:nth=2"],
        "vfioctl bind 3b:00.1 && vfioctl unbind 3b:00.1",
    );
    ran.assert_status(1);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "mlx5_vfio_pci");
    assert_eq!(ran.device("after", CONNECTX_VF)["driver_override"], "mlx5_vfio_pci");
    assert_eq!(ran.policy().len(), 1, "what was not given back is not forgotten");
}

/// Shell words that wait until a bind of the ConnectX VF is under way: its override is set, its unbind comes next.
const UNDER_WAY: &str = "until grep -q vfio /sys/bus/pci/devices/0000:3b:00.1/driver_override; do sleep 0.02; done";

/// Whoever runs the tests may ignore some signals (`nohup`), and a shell does so for what is in the background.
const DEFAULT: &str = "env --default-signal=INT,TERM,HUP";

#[test]
fn an_interrupted_bind_is_undone() {
    for signal in ["INT", "TERM", "HUP"] {
        let own = support::VFIOCTL;
        let ran = script(
            "connectx",
            &["0000:3b:00.1:unbind:delay=2000"],
            &format!(
                "exec 2>&1; {DEFAULT} {own} bind 3b:00.1 & {UNDER_WAY}; kill -{signal} $!; wait $!; echo status $?"
            ),
        );
        assert!(ran.stdout.contains("status 1") && ran.stdout.contains("interrupted"), "{signal}: {}", ran.stdout);
        ran.assert_as_before();
    }
}

/// As a service that is stopped has it: the process that writes is signalled too, and the call takes its time.
#[test]
fn an_interrupt_during_a_slow_call_is_undone_too() {
    let own = support::VFIOCTL;
    let ran = script(
        "connectx",
        &["0000:3b:00.1:unbind:delay=2500:nth=1"],
        &format!(
            "exec 2>&1; modprobe vfio_pci; {own} bind --strict --driver vfio-pci 3b:00.1 & own=$!
             {UNDER_WAY}; kill -TERM $own $(cat /proc/$own/task/*/children); wait $own; echo status $?"
        ),
    );
    assert!(ran.stdout.contains("status 1") && ran.stdout.contains("interrupted"), "{}", ran.stdout);
    assert!(ran.changed().is_empty() && ran.policy().is_empty(), "{:?}", ran.changed());
}

#[test]
fn an_interrupt_does_not_wait_for_ever_for_a_call_that_blocks() {
    let own = support::VFIOCTL;
    let started = Instant::now();
    let ran = script(
        "connectx",
        &["0000:3b:00.1:unbind:block"],
        &format!("exec 2>&1; {own} bind 3b:00.1 & {UNDER_WAY}; kill -TERM $!; wait $!; echo status $?"),
    );
    assert!(ran.stdout.contains("status 7") && ran.stdout.contains("interrupted"), "{}", ran.stdout);
    assert!(ran.stdout.contains("driver_override is mlx5_vfio_pci now"), "{}", ran.stdout);
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
}

#[test]
fn a_signal_that_was_ignored_stays_ignored() {
    let own = support::VFIOCTL;
    let ran = script(
        "connectx",
        &["0000:3b:00.1:unbind:delay=1000"],
        &format!("nohup {own} bind 3b:00.1 >/dev/null 2>&1 & {UNDER_WAY}; kill -HUP $!; wait $!"),
    );
    ran.assert_status(0);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "mlx5_vfio_pci");
}

// ---- what blocks

#[test]
fn a_call_that_blocks_is_given_up() {
    for step in ["override", "unbind", "bind"] {
        let started = Instant::now();
        let ran = script(
            "connectx",
            &[&format!("0000:3b:00.1:{step}:block")],
            "modprobe mlx5_vfio_pci; vfioctl bind --timeout 1 --json 3b:00.1",
        );
        assert_eq!(ran.status, 7, "{step}\n{}{}", ran.stdout, ran.stderr);
        assert!(started.elapsed() < Duration::from_secs(8), "{step}: {:?}", started.elapsed());
        let result = ran.result();
        assert_eq!(result["error"]["kind"], "timeout", "{step}");
        assert!(result["error"]["message"].as_str().unwrap().contains("still waits in the kernel"), "{step}");
    }
}

#[test]
fn a_probe_that_goes_on_is_not_taken_for_a_binding() {
    let ran = script(
        "connectx",
        &["0000:3b:00.1:probe:block"],
        "modprobe mlx5_vfio_pci; vfioctl bind --timeout 1 3b:00.1; vfioctl bind --timeout 1 --json 3b:00.1",
    );
    ran.assert_status(7);
    assert_eq!(ran.result()["error"]["kind"], "timeout");
    assert!(ran.policy().is_empty());
}

/// On kernels up to 6.1 even reading driver_override waits for the device's lock.
#[test]
fn an_old_kernels_locks_hold_nobody_up() {
    let host = copy("connectx");
    let modules = host.path().join("lib/modules");
    fs::rename(modules.join("7.0.0-43-generic"), modules.join("6.1.0-56-amd64")).unwrap();
    fs::write(host.path().join("proc/sys/kernel/osrelease"), "6.1.0-56-amd64\n").unwrap();
    let own = support::VFIOCTL;
    let started = Instant::now();
    let stuck = format!(
        "modprobe mlx5_vfio_pci; {own} bind --timeout 1 3b:00.1 3b:00.2; echo status $?
         {own} list --json; {own} show 3b:00.2; {own} match 3b:00.1; {own} bind --timeout 1 3b:00.1; echo status $?"
    );
    let ran = on(host.path(), &["0000:3b:00.1:unbind:block"], &["sh", "-c", &stuck]);
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(ran.stdout.matches("status 7").count(), 2, "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.device("after", "0000:3b:00.2")["driver"], "mlx5_vfio_pci");
    assert!(ran.stdout.contains("0000:5e:00.0"), "the list is whole: {}", ran.stdout);
    assert!(ran.stderr.contains("the device's lock is held"), "{}", ran.stderr);
}

#[test]
fn a_stuck_device_does_not_hold_up_another() {
    // With the module yet to be loaded it would: registering a driver takes the lock of every device that it matches.
    let ran = script(
        "connectx",
        &["0000:3b:00.1:unbind:block"],
        "modprobe mlx5_vfio_pci; vfioctl bind --timeout 1 3b:00.1 3b:00.2",
    );
    ran.assert_status(7);
    assert_eq!(ran.device("after", "0000:3b:00.2")["driver"], "mlx5_vfio_pci");
}

#[test]
fn a_module_that_does_not_load_is_given_up_and_the_device_put_back() {
    let ran = vfioctl("connectx", &["module=mlx5_vfio_pci:block"], &["bind", "--timeout", "1", CONNECTX_VF]);
    ran.assert_status(7);
    ran.assert_as_before();
}

#[test]
fn two_at_once_on_one_device_wait_for_each_other() {
    let ran = script(
        "connectx",
        &["0000:3b:00.1:probe:delay=300"],
        "for i in 1 2 3 4 5 6; do vfioctl bind 3b:00.1 || echo failed & done; wait",
    );
    assert!(!ran.stdout.contains("failed"), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.stdout.matches("bound to").count(), 1, "{}", ran.stdout);
    assert_eq!(ran.stdout.matches("unchanged").count(), 5, "{}", ran.stdout);
    assert_eq!(ran.changed(), [CONNECTX_VF]);
}

#[test]
fn what_a_vm_holds_is_left_alone_and_the_vm_named() {
    let ran = script(
        "connectx",
        &[],
        "vfioctl bind --no-save 3b:00.1; group=$(basename $(readlink /sys/bus/pci/devices/0000:3b:00.1/iommu_group))
         sleep 60 3< /dev/vfio/$group & sleep 0.2; vfioctl unbind 3b:00.1; status=$?; kill $!; exit $status",
    );
    ran.assert_status(4);
    assert!(ran.stderr.contains("sleep (pid ") && ran.stderr.contains("has /dev/vfio/7 open"), "{}", ran.stderr);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "mlx5_vfio_pci");
    assert_eq!(ran.writes().len(), 3, "{:?}", ran.writes());
}

// ---- giving back

#[test]
fn unbind_forgets_even_when_no_native_driver_is_left() {
    // The host has no driver for these VFs but VFIO's.
    let ran = script("qat", &[], "vfioctl bind 6b:00.1 && vfioctl unbind 6b:00.1");
    ran.assert_status(0);
    ran.assert_as_before();
    assert!(ran.stderr.contains("no native driver took it"), "{}", ran.stderr);
}

#[test]
fn unbind_forgets_a_device_that_is_gone() {
    let gone = "vfioctl bind 02:00.0 && echo 1 > /sys/bus/pci/devices/0000:02:00.0/remove && vfioctl unbind 02:00.0";
    let ran = script("connectx", &[], gone);
    ran.assert_status(0);
    assert!(ran.policy().is_empty(), "{:?}", ran.policy());
    assert!(ran.stderr.contains("no PCI device"), "{}", ran.stderr);
}

#[test]
fn unbind_no_save_keeps_the_choice() {
    let ran = script("connectx", &[], "vfioctl bind 3b:00.1 && vfioctl unbind --no-save 3b:00.1");
    ran.assert_status(0);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "mlx5_core");
    assert_eq!(ran.policy().len(), 1);
}

#[test]
fn unbind_to_a_driver_by_name() {
    let ran = script("connectx", &[], "vfioctl bind --no-save 3b:00.1 && vfioctl unbind --driver mlx5-core 3b:00.1");
    ran.assert_status(0);
    ran.assert_as_before();
}

#[test]
fn unbind_holds_a_driver_to_its_table_too() {
    let ran = vfioctl("gpu-shared-group", &[], &["unbind", "--driver", "nvme", "01:00.1"]);
    ran.assert_status(1);
    assert!(ran.stderr.contains("ENODEV"), "{}", ran.stderr);
    ran.assert_as_before();
    let ran = vfioctl("no-iommu", &[], &["unbind", "--driver", "vfio-pci", "01:00.0"]);
    ran.assert_status(4);
    assert!(ran.stderr.contains("vfioctl bind --driver vfio-pci"), "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn a_device_that_vanishes_while_it_is_given_back_is_told_of() {
    let ran = script(
        "connectx",
        &["0000:3b:00.1:probe:vanish:nth=2"],
        "vfioctl bind 3b:00.1; vfioctl --timeout 5 unbind 3b:00.1",
    );
    ran.assert_status(3);
    assert!(ran.stderr.contains("went away"), "{}", ran.stderr);
    assert_eq!(ran.policy().len(), 1, "what is gone may come back");
}

#[test]
fn unbind_leaves_native_drivers_alone() {
    let ran = vfioctl("connectx", &[], &["unbind", "--json", "3b:00.2"]);
    ran.assert_status(0);
    assert_eq!(ran.result()["outcome"], "unchanged");
    assert!(ran.writes().is_empty());
}

#[test]
fn unbind_to_a_driver_whose_module_is_not_loaded() {
    let ran = script("connectx", &[], "vfioctl bind 02:00.0; modprobe -r igb; vfioctl unbind --driver igb 02:00.0");
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:02:00.0")["driver"], "igb");
    assert_eq!(ran.device("after", "0000:02:00.0")["driver_override"], Value::Null);
    assert!(ran.policy().is_empty());
}

#[test]
fn a_native_module_that_does_not_load_does_not_hold_up_giving_back() {
    let ran = script(
        "connectx",
        &["module=igb:block"],
        "vfioctl bind 02:00.0 && modprobe -r igb && vfioctl unbind --timeout 1 02:00.0",
    );
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:02:00.0")["driver"], Value::Null);
    assert!(ran.stderr.contains("no native driver was loaded"), "{}", ran.stderr);
    assert!(ran.policy().is_empty());
}

#[test]
fn what_cannot_be_forgotten_is_not_given_back() {
    let ran = script(
        "connectx",
        &[],
        "vfioctl bind 3b:00.1 && mount -o remount,bind,ro /etc/vfioctl.d && vfioctl unbind 3b:00.1",
    );
    ran.assert_status(6);
    assert!(ran.stderr.contains("nothing was touched") && ran.stderr.contains("--no-save"), "{}", ran.stderr);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "mlx5_vfio_pci");
}

#[test]
fn a_pf_with_vfs_is_not_taken_from_its_driver_on_any_path() {
    for command in ["bind --driver none 3b:00.0", "unbind --driver igb 3b:00.0", "bind --driver vfio-pci 3b:00.0"] {
        let ran = script("connectx", &[], &format!("vfioctl {command}"));
        ran.assert_status(4);
        assert!(ran.stderr.contains("4 VFs"), "{command}: {}", ran.stderr);
        ran.assert_as_before();
    }
    let rule = "[[device]]\nid = \"15b3:1021\"\ndriver = \"none\"\n";
    let ran = script("connectx", &[], &format!("printf '{rule}' > /etc/vfioctl.d/10.toml; vfioctl apply"));
    ran.assert_status(4);
    assert!(ran.changed().is_empty());
}

// ---- policy

#[test]
fn a_choice_for_one_device_outranks_rules_for_many() {
    let rule = "[[device]]\nclass = \"network\"\ndriver = \"none\"\n";
    let ran = script(
        "connectx",
        &[],
        &format!("printf '{rule}' > /etc/vfioctl.d/10-net.toml; vfioctl bind 3b:00.1 && vfioctl apply --json 3b:00.1"),
    );
    ran.assert_status(0);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "mlx5_vfio_pci");
}

#[test]
fn a_file_of_the_administrators_is_neither_replaced_nor_removed() {
    let ran = script("debian", &[], "vfioctl bind 02:00.0");
    ran.assert_status(1);
    assert!(ran.stderr.contains("not by vfioctl's hand"), "{}", ran.stderr);
    ran.assert_as_before();
    vfioctl("debian", &[], &["bind", "--dry-run", "02:00.0"]).assert_status(1);
    let ran = script("debian", &[], "vfioctl bind --no-save 02:00.0 && vfioctl unbind 02:00.0");
    ran.assert_status(0);
    assert_eq!(ran.journal["before"]["policy"], ran.journal["after"]["policy"]);
}

#[test]
fn apply_does_what_the_policy_says() {
    let ran = vfioctl("qat", &[], &["apply"]);
    ran.assert_status(0);
    assert_eq!(ran.changed(), ["0000:6b:00.1", "0000:6b:00.2", "0000:6b:00.3", "0000:6b:00.4", "0000:75:00.1"]);
    assert_eq!(ran.device("after", "0000:6b:00.4")["driver"], "qat_vfio_pci");
    assert_eq!(ran.device("after", "0000:75:00.1")["driver"], "vfio-pci");
    let ran = script("qat", &[], "vfioctl apply >/dev/null; vfioctl apply --json 6b:00.1");
    assert_eq!(ran.result()["outcome"], "unchanged");
}

#[test]
fn a_persisted_choice_is_applied_after_a_reboot() {
    // What a reboot leaves: the policy, and nothing of the binding.
    let ran = script(
        "connectx",
        &[],
        "vfioctl bind 3b:00.1 && echo > /sys/bus/pci/devices/0000:3b:00.1/driver_override &&
         echo 0000:3b:00.1 > /sys/bus/pci/drivers/mlx5_vfio_pci/unbind && echo 0000:3b:00.1 > /sys/bus/pci/drivers_probe &&
         vfioctl apply 3b:00.1",
    );
    ran.assert_status(0);
    assert_eq!(ran.device("after", CONNECTX_VF)["driver"], "mlx5_vfio_pci");
}

#[test]
fn apply_leaves_another_device_at_the_address_alone() {
    let ran = vfioctl("debian", &[], &["apply"]);
    ran.assert_status(4);
    assert!(ran.stderr.contains("8086:1533, but 8086:10d3 is there now"), "{}", ran.stderr);
    assert!(ran.stderr.contains("no device 0000:81:00.0 here"), "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn a_broken_policy_file_costs_no_other_its_devices() {
    let ran = vfioctl("virtio-guest", &[], &["apply"]);
    ran.assert_status(1);
    assert!(ran.stderr.contains("30-mistake.toml"), "{}", ran.stderr);
}

#[test]
fn none_keeps_all_drivers_off() {
    let ran = vfioctl("connectx", &[], &["bind", "--driver", "none", "3b:00.2"]);
    ran.assert_status(0);
    let device = ran.device("after", "0000:3b:00.2");
    assert_eq!(device["driver"], Value::Null);
    assert_eq!(device["driver_override"], "none");
    let ran = script("connectx", &[], "vfioctl bind --driver none 3b:00.2 && vfioctl unbind 3b:00.2");
    ran.assert_status(0);
    ran.assert_as_before();
}

#[test]
fn a_reader_that_goes_away_does_not_change_the_status() {
    let ran = script("connectx", &[], "{ vfioctl bind 3b:00.1 99:00.0; echo status $? >&3; } 3>&2 | true");
    assert!(ran.stderr.contains("status 3") && ran.stderr.contains("no PCI device 0000:99:00.0"), "{}", ran.stderr);
}

#[test]
fn a_driver_of_an_odd_name_costs_no_other_its_place() {
    let host = copy("no-iommu");
    let odd = host.path().join("sys/bus/pci/drivers/budget dvb");
    fs::create_dir(&odd).unwrap();
    let device = host.path().join("sys/bus/pci/devices/0000:02:00.0/driver");
    fs::remove_file(&device).unwrap();
    std::os::unix::fs::symlink("../../../bus/pci/drivers/budget dvb", &device).unwrap();
    let output = support::run(Command::new(support::VFIOCTL).arg("--root").arg(host.path()).arg("list"));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains("budget dvb") && text.contains("0000:01:00.0"), "{text}");
}

#[test]
fn locks_are_roots() {
    let ran = script(
        "connectx",
        &[],
        "rmdir /run/vfioctl; vfioctl bind --no-save 3b:00.1 >&2; stat -c %a /run/vfioctl /run/vfioctl/*.lock",
    );
    assert_eq!(ran.stdout, "700\n600\n");
}

#[test]
fn a_variant_that_this_kernel_lacks_is_named() {
    let ran = vfioctl("debian", &[], &["bind", "3b:00.2", "--json"]);
    ran.assert_status(0);
    let result = ran.result();
    assert_eq!(result["driver"], "vfio-pci");
    let warning = result["warnings"][0].as_str().unwrap();
    assert!(warning.starts_with("mlx5_vfio_pci is made for it, but kernel 6.12"), "{warning}");
}

// ---- groups

#[test]
fn a_shared_group_is_warned_of_and_taken_whole_when_asked() {
    let ran = vfioctl("gpu-shared-group", &[], &["bind", "01:00.0"]);
    ran.assert_status(0);
    assert!(ran.stderr.contains("0000:01:00.1 on snd_hda_intel, 0000:02:00.0 on nvme"), "{}", ran.stderr);
    assert_eq!(ran.changed(), ["0000:01:00.0"]);
    let ran = vfioctl("gpu-shared-group", &[], &["bind", "--group", "01:00.0"]);
    ran.assert_status(0);
    assert_eq!(ran.changed(), ["0000:01:00.0", "0000:01:00.1", "0000:02:00.0"]);
    assert_eq!(ran.stderr, "", "all of it is being bound");
}

// ---- what is printed

#[test]
fn bind_says_what_and_why_in_two_lines_and_every_step_with_v() {
    let ran = vfioctl("connectx", &[], &["bind", "3b:00.1"]);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "0000:3b:00.1: mlx5_vfio_pci matches vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i* (5 of 7 fields open)",
            "0000:3b:00.1: bound to mlx5_vfio_pci (was on mlx5_core), saved in /etc/vfioctl.d/0000:3b:00.1.toml",
        ]
    );
    assert_eq!(ran.stderr, "");
    let ran = vfioctl("connectx", &[], &["bind", "-v", "3b:00.1"]);
    for step in ["override mlx5_vfio_pci", "unbind mlx5_core", "load mlx5_vfio_pci", "bind mlx5_vfio_pci", "save /etc"]
    {
        assert!(ran.stderr.contains(step), "{step}: {}", ran.stderr);
    }
}

#[test]
fn the_json_of_a_bind_has_the_documented_fields() {
    let ran = vfioctl("connectx", &[], &["bind", "--json", "3b:00.1"]);
    let document = ran.json();
    assert_eq!(document["schema"], 1);
    assert_eq!(document["command"], "bind");
    let result = ran.result();
    for field in ["address", "outcome", "driver", "previous_driver", "persisted", "steps", "warnings", "error"] {
        assert!(result.get(field).is_some(), "{field}");
    }
    let steps: Vec<&str> =
        result["steps"].as_array().unwrap().iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["override", "unbind", "load", "bind", "save"]);
    assert!(result["steps"].as_array().unwrap().iter().all(|step| step["done"] == true));
}

/// What `vfioctl ARGUMENTS` prints on a terminal 80 columns wide.
fn on_a_terminal(environment: &str, arguments: &str) -> String {
    let root = support::fixtures().join("connectx");
    let command =
        format!("stty rows 24 cols 80; {environment} {} --root {} {arguments}", support::VFIOCTL, root.display());
    let output = support::run(Command::new("script").args(["-qec", &command, "/dev/null"]).env("TERM", "xterm"));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn colour_is_for_terminals() {
    const ESCAPE: char = '\u{1b}';
    assert!(on_a_terminal("", "list").contains(ESCAPE));
    assert!(!on_a_terminal("NO_COLOR=1", "list").contains(ESCAPE));
    assert!(!on_a_terminal("", "list --color never").contains(ESCAPE));
    assert!(!vfioctl("connectx", &[], &["list"]).stdout.contains(ESCAPE));
    assert!(vfioctl("connectx", &[], &["list", "--color", "always"]).stdout.contains(ESCAPE));
}

#[test]
fn a_list_fits_the_terminal() {
    let text = on_a_terminal("", "list --color never");
    let longest = text.lines().map(|line| line.trim_end().chars().count()).max();
    assert_eq!(longest, Some(80), "{text}");
    assert!(text.contains('…'), "{text}");
}
