// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a driver would be good for here, and what mends it: `explain`, `--strict`, `--require`, and software that knows
//! vfio-pci alone. Where it is about what is done, on simulated hosts.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use support::ran::{copy, on, script, vfioctl};

/// Runs `vfioctl --root HOST ARGUMENTS`, which touches nothing; gives standard output and error, and the exit status.
fn look(host: &Path, arguments: &[&str]) -> (String, String, i32) {
    let output = support::run(Command::new(support::VFIOCTL).arg("--root").arg(host).args(arguments));
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr), output.status.code().unwrap())
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The first candidate for a device.
fn first(host: &Path, address: &str) -> Value {
    let (stdout, stderr, _) = look(host, &["explain", "--json", address]);
    let candidate = json(&stdout)["candidates"][0].clone();
    assert!(candidate.is_object(), "{address}: {stdout}{stderr}");
    candidate
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_string()).collect()
}

// ---- verdicts

#[test]
fn every_verdict_has_its_reason() {
    let half_ready = support::fixtures().join("half-ready");
    let qat = support::fixtures().join("qat");
    let down = copy("qat");
    fs::write(down.path().join("sys/bus/pci/devices/0000:6b:00.0/qat/state"), "down\n").unwrap();
    for (host, address, verdict, reason) in [
        (half_ready.as_path(), "3b:00.1", "limited", "the PF's core is not up"),
        (&half_ready, "4b:00.1", "limited", "is on no driver: bind that to mlx5_core first"),
        (&half_ready, "5b:00.1", "limited", "is on driver pci-pf-stub: bind that to mlx5_core first"),
        (&half_ready, "6b:00.1", "best", ""),
        (&half_ready, "7b:00.1", "limited", "live migration: the driver has that from kernel 6.13 on"),
        (&half_ready, "8b:00.1", "blocked", "its probe would fail with EINVAL: the PF is not on pds_core"),
        (&qat, "6b:00.1", "best", ""),
        (down.path(), "6b:00.1", "limited", "PF 0000:6b:00.0: qat/state is down"),
        (&qat, "75:00.1", "blocked", "is on driver pci-pf-stub: bind that to 4xxx first"),
        (&qat, "18:00.1", "blocked", "is on driver ionic, and is not a device of pds_core"),
        (&support::fixtures().join("xe"), "03:00.0", "limited", "adds something for VFs only"),
        (&support::fixtures().join("kunpeng"), "75:00.1", "best", ""),
    ] {
        let candidate = first(host, address);
        assert_eq!(candidate["verdict"], verdict, "{address}: {candidate}");
        let reasons = strings(&candidate["reasons"]).join("; ");
        assert!(reasons.contains(reason) && reasons.is_empty() == reason.is_empty(), "{address}: {reasons}");
        let migration = if verdict == "best" { "depends" } else { "no" };
        assert_eq!(candidate["migration"], migration, "{address}");
    }
}

/// The commands are run as they stand, and the verdict is the best then.
#[test]
fn what_is_said_to_mend_it_mends_it() {
    for (host, address) in
        [("half-ready", "4b:00.1"), ("half-ready", "5b:00.1"), ("half-ready", "8b:00.1"), ("qat", "75:00.1")]
    {
        let before = first(&support::fixtures().join(host), address);
        assert_ne!(before["verdict"], "best");
        let commands = strings(&before["mend"]).join(" && ");
        assert!(!commands.is_empty(), "{address}");
        let ran = script(host, &[], &format!("{{ {commands}; }} >/dev/null && vfioctl explain --json {address}"));
        ran.assert_status(0);
        assert_eq!(
            ran.json()["candidates"][0]["verdict"],
            "best",
            "{address}: {commands}\n{}{}",
            ran.stdout,
            ran.stderr
        );
    }
}

#[test]
fn explain_shows_the_commands_in_order() {
    let (text, _, _) = look(&support::fixtures().join("qat"), &["explain", "75:00.1"]);
    let commands = [
        "   to mend: echo 0 > /sys/bus/pci/devices/0000:75:00.0/sriov_numvfs\n",
        "       then: vfioctl unbind --driver qat_4xxx 0000:75:00.0\n",
        "       then: echo 2 > /sys/bus/pci/devices/0000:75:00.0/sriov_numvfs\n",
    ];
    assert!(text.contains(&commands.concat()), "{text}");
}

#[test]
fn a_pf_that_cannot_serve_is_not_said_to_be_mendable() {
    let candidate = first(&support::fixtures().join("qat"), "18:00.1");
    assert_eq!(strings(&candidate["mend"]), Vec::<String>::new());
}

#[test]
fn a_limited_driver_is_bound_with_a_warning_that_says_what_mends_it() {
    let ran = vfioctl("half-ready", &[], &["bind", "--json", "4b:00.1"]);
    ran.assert_status(0);
    assert_eq!(ran.result()["driver"], "mlx5_vfio_pci");
    let warnings = strings(&ran.result()["warnings"]).join("\n");
    assert!(warnings.contains("to mend: vfioctl unbind --driver mlx5_core 0000:4b:00.0"), "{warnings}");
}

#[test]
fn strict_says_what_mends_the_best() {
    let ran = vfioctl("qat", &[], &["bind", "--json", "--strict", "75:00.1"]);
    ran.assert_status(4);
    let error = &ran.result()["error"];
    assert!(
        error["message"].as_str().unwrap().contains("qat_vfio_pci, cannot be used: its probe would fail"),
        "{error}"
    );
    assert!(error["hint"].as_str().unwrap().contains("vfioctl unbind --driver qat_4xxx 0000:75:00.0"), "{error}");
    assert_eq!(error["mend"][1], "vfioctl unbind --driver qat_4xxx 0000:75:00.0");
    assert!(ran.writes().is_empty());
    ran.assert_as_before();
}

// ---- --require

#[test]
fn what_cannot_give_it_is_refused_before_anything_is_touched() {
    for (host, arguments, word) in [
        ("half-ready", ["--require", "migration", "3b:00.1"].as_slice(), "core is not up"),
        ("half-ready", &["--require", "migration", "4b:00.1"], "to mend: vfioctl unbind --driver mlx5_core"),
        ("half-ready", &["--require", "migration", "7b:00.1"], "from kernel 6.13 on"),
        ("half-ready", &["--require", "migration", "8b:00.1"], "vfio-pci: has no migration"),
        ("half-ready", &["--require", "migration", "--driver", "vfio-pci", "6b:00.1"], "vfio-pci: has no migration"),
        (
            "half-ready",
            &["--require", "migration", "--driver", "pds_vfio_pci", "--force", "6b:00.1"],
            "not a VFIO driver that lists",
        ),
        ("half-ready", &["--require", "dirty-tracking", "7b:00.1"], "left to the IOMMU, through IOMMUFD"),
        ("qat", &["--require=migration,dirty-tracking", "6b:00.1"], "qat_vfio_pci: has no dirty-tracking"),
        ("gh200", &["--require", "migration", "0019:01:00.0"], "nvgrace_gpu_vfio_pci: has no migration"),
        ("debian", &["--require", "migration", "3b:00.2"], "mlx5_vfio_pci is made for it, but kernel"),
    ] {
        let ran = vfioctl(host, &[], &[&["bind", "--json"], arguments].concat());
        ran.assert_status(4);
        let result = ran.result();
        assert_eq!(
            (&result["outcome"], &result["error"]["kind"]),
            (&"refused".into(), &"requirement".into()),
            "{result}"
        );
        let message = result["error"].to_string();
        assert!(message.contains(word) && message.contains("nothing was touched"), "{arguments:?}: {message}");
        assert!(ran.writes().is_empty(), "{:?}", ran.writes());
        ran.assert_as_before();
    }
}

#[test]
fn what_may_give_it_is_bound_and_kept_as_required() {
    let ran = vfioctl("connectx", &[], &["bind", "--json", "--require", "migration,dirty-tracking", "3b:00.1"]);
    ran.assert_status(0);
    assert_eq!(ran.result()["driver"], "mlx5_vfio_pci");
    let warnings = strings(&ran.result()["warnings"]).join("\n");
    assert!(warnings.contains("firmware capability: migration"), "{warnings}");
    assert!(warnings.contains("'vfioctl probe 0000:3b:00.1' tells"), "{warnings}");
    let kept = ran.journal["after"]["policy"]["0000:3b:00.1.toml"].as_str().unwrap();
    assert!(kept.ends_with("driver = \"auto\"\nrequire = [\"migration\", \"dirty-tracking\"]\n"), "{kept}");
}

#[test]
fn with_it_no_fallback_is_tried() {
    let faults = ["0000:3b:00.3:probe:errno=EIO"];
    let ran = vfioctl("connectx", &faults, &["bind", "--require", "migration", "3b:00.3"]);
    ran.assert_status(1);
    ran.assert_as_before();
    assert!(!ran.writes().iter().any(|write| write.contains("vfio-pci")), "{:?}", ran.writes());
    // Without it, vfio-pci is tried too.
    let ran = vfioctl("connectx", &faults, &["bind", "3b:00.3"]);
    assert!(ran.writes().iter().any(|write| write.contains("vfio-pci")), "{:?}", ran.writes());
}

#[test]
fn a_kept_requirement_counts_when_the_policy_is_applied() {
    let host = copy("half-ready");
    let policy = host.path().join("etc/vfioctl.d");
    fs::create_dir_all(&policy).unwrap();
    let rule =
        |address: &str| format!("[[device]]\naddress = \"{address}\"\ndriver = \"auto\"\nrequire = [\"migration\"]\n");
    fs::write(policy.join("10.toml"), rule("0000:4b:00.1") + &rule("0000:6b:00.1")).unwrap();
    let ran = on(host.path(), &[], &[support::VFIOCTL, "apply", "--json"]);
    ran.assert_status(4);
    let results = &ran.json()["results"];
    assert_eq!((&results[0]["outcome"], &results[0]["error"]["kind"]), (&"refused".into(), &"requirement".into()));
    assert_eq!(results[1]["driver"], "mlx5_vfio_pci");
    assert_eq!(ran.changed(), ["0000:6b:00.1"]);
    // Once it is mended the same rule binds it.
    let mended = "vfioctl unbind --driver mlx5_core 4b:00.0 >/dev/null && vfioctl apply --json 4b:00.1";
    let command = format!("vfioctl() {{ {} \"$@\"; }}\n{mended}", support::VFIOCTL);
    let ran = on(host.path(), &[], &["sh", "-c", &command]);
    ran.assert_status(0);
    assert_eq!(ran.result()["driver"], "mlx5_vfio_pci");
}

#[test]
fn a_device_whose_requirement_is_not_met_yet_is_kept_from_native_drivers() {
    let host = copy("half-ready");
    fs::create_dir_all(host.path().join("etc/vfioctl.d")).unwrap();
    let rule = "[[device]]\naddress = \"0000:8b:00.1\"\ndriver = \"auto\"\nrequire = [\"migration\"]\n";
    fs::write(host.path().join("etc/vfioctl.d/10.toml"), rule).unwrap();
    let ran = on(host.path(), &[], &[support::VFIOCTL, "claim", "--json"]);
    ran.assert_status(0);
    assert_eq!(ran.writes(), ["driver_override none"]);
    assert!(strings(&ran.result()["warnings"]).join("; ").contains("migration cannot be had"), "{}", ran.stdout);
    let (property, _, _) = look(host.path(), &["claim", "--udev", "8b:00.1"]);
    assert_eq!(property, "VFIOCTL_CLAIMED=1\nVFIOCTL_DRIVER=none\n");
}

#[test]
fn what_is_required_is_shown() {
    let host = copy("connectx");
    fs::create_dir_all(host.path().join("etc/vfioctl.d")).unwrap();
    let rule = "[[device]]\naddress = \"3b:00.1\"\ndriver = \"auto\"\nrequire = [\"migration\"]\n";
    fs::write(host.path().join("etc/vfioctl.d/10.toml"), rule).unwrap();
    let (text, _, _) = look(host.path(), &["show", "3b:00.1"]);
    assert!(text.contains("auto, requires migration, in "), "{text}");
    let (text, _, _) = look(host.path(), &["show", "--json", "3b:00.1"]);
    assert_eq!(json(&text)["device"]["policy"]["require"], Value::from(vec!["migration"]));
}

#[test]
fn no_driver_can_be_required_of_anything() {
    let ran = vfioctl("connectx", &[], &["bind", "--require", "migration", "--driver", "none", "3b:00.1"]);
    ran.assert_status(2);
    assert!(ran.writes().is_empty());
    let ran = vfioctl("connectx", &[], &["bind", "--require", "migrate", "3b:00.1"]);
    ran.assert_status(2);
    assert!(ran.stderr.contains("dirty-tracking"), "{}", ran.stderr);
}

// ---- who knows vfio-pci alone

#[test]
fn whoever_knows_vfio_pci_alone_is_named() {
    let half_ready = support::fixtures().join("half-ready");
    let said = "vfioctl bind --driver vfio-pci 0000:6b:00.1";
    let (_, stderr, _) = look(&half_ready, &["explain", "6b:00.1"]);
    assert!(stderr.contains("KubeVirt (") && stderr.contains(said), "{stderr}");
    let (stdout, stderr, _) = look(&half_ready, &["explain", "--json", "6b:00.1"]);
    assert!(json(&stdout)["warnings"][0].as_str().unwrap().contains(said) && stderr.is_empty(), "{stdout}{stderr}");
    let (stdout, _, status) = look(&half_ready, &["bind", "--dry-run", "--json", "6b:00.1"]);
    assert_eq!(status, 0);
    assert!(strings(&json(&stdout)["results"][0]["warnings"])[0].contains(said), "{stdout}");
    // vfio-pci, asked for or chosen, is what they know.
    for arguments in [["bind", "--dry-run", "--driver=vfio-pci", "6b:00.1"], ["bind", "--dry-run", "-v", "6b:00.0"]] {
        let (_, stderr, _) = look(&half_ready, &arguments);
        assert!(!stderr.contains("KubeVirt"), "{arguments:?}: {stderr}");
    }
    // No such software: not a word.
    let (_, stderr, _) = look(&support::fixtures().join("connectx"), &["explain", "3b:00.1"]);
    assert_eq!(stderr, "");
}

#[test]
fn what_a_rule_requires_is_kept_with_a_choice_that_is_made_anew() {
    let rule = "mkdir -p /etc/vfioctl.d; printf '[[device]]\\npf = \"3b:00.0\"\\ndriver = \"auto\"\\nrequire = [\"migration\"]\\n' \
                > /etc/vfioctl.d/50.toml";
    let own = "/etc/vfioctl.d/0000:3b:00.1.toml";
    let ran = script("connectx", &[], &format!("{rule}; vfioctl bind 3b:00.1 >/dev/null; grep require {own}"));
    assert_eq!(ran.stdout, "require = [\"migration\"]\n", "{}", ran.stderr);
    // Whoever names a driver has decided.
    let ran = script(
        "connectx",
        &[],
        &format!("{rule}; vfioctl bind --driver vfio-pci 3b:00.1 >/dev/null; grep -c require {own}"),
    );
    assert_eq!(ran.stdout, "0\n", "{}", ran.stderr);
}

#[test]
fn binding_names_them_too_and_binds() {
    let host = copy("connectx");
    fs::create_dir_all(host.path().join("etc/sriov-operator")).unwrap();
    let ran = on(host.path(), &[], &[support::VFIOCTL, "bind", "3b:00.1"]);
    ran.assert_status(0);
    assert_eq!(ran.device("after", "0000:3b:00.1")["driver"], "mlx5_vfio_pci");
    assert!(ran.stderr.contains("the SR-IOV network operator (/etc/sriov-operator)"), "{}", ran.stderr);
    let ran = on(host.path(), &[], &[support::VFIOCTL, "bind", "--driver", "vfio-pci", "3b:00.1"]);
    ran.assert_status(0);
    assert!(!ran.stderr.contains("sriov-operator"), "{}", ran.stderr);
}
