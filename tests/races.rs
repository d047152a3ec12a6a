// SPDX-License-Identifier: MIT OR Apache-2.0
//! What others do to a device between any two steps of ours: it is seen, told, and not trampled on. The simulated host lets
//! them act just before and just after each write, so that every order comes, and comes again.
//!
//! `VFIOCTL_CASE='NAME'` runs one case alone.

mod support;

use std::env;
use std::io::Write;
use std::time::Instant;

use serde_json::Value;

use support::trial::{Trace, Trial, in_parallel, since};

const THREADS: usize = 10;
const VF: &str = "0000:3b:00.1";
const PF: &str = "0000:3b:00.0";
const NIC: &str = "0000:02:00.0";

/// A verb, what comes before, and the device it is about.
const VERBS: [(&str, &str, &str, &str); 9] = [
    ("bind", "modprobe mlx5_vfio_pci", "vfioctl bind --json 3b:00.1", VF),
    ("bind, module not loaded", "", "vfioctl bind --json 3b:00.1", VF),
    ("bind --strict", "modprobe mlx5_vfio_pci", "vfioctl bind --json --strict 3b:00.1", VF),
    ("bind of a NIC", "modprobe vfio_pci", "vfioctl bind --json 02:00.0", NIC),
    ("bind --driver none", "", "vfioctl bind --json --driver none 3b:00.1", VF),
    ("unbind", "vfioctl bind 3b:00.1", "vfioctl unbind --json 3b:00.1", VF),
    ("unbind of a NIC", "vfioctl bind 02:00.0", "vfioctl unbind --json 02:00.0", NIC),
    ("apply", "vfioctl bind 3b:00.1; vfioctl unbind --no-save 3b:00.1", "vfioctl apply --json 3b:00.1", VF),
    ("apply of a NIC", "vfioctl bind 02:00.0; vfioctl unbind --no-save 02:00.0", "vfioctl apply --json 02:00.0", NIC),
];

const D: &str = "/sys/bus/pci/devices/$DEVICE";

/// What others do, by its name; in words of a shell.
fn deeds(address: &str) -> Vec<(&'static str, String)> {
    let off = format!("{{ echo {address} >{D}/driver/unbind; }} 2>/dev/null");
    let (native, d) = if address == NIC { ("igb", D) } else { ("mlx5_core", D) };
    let mut deeds = vec![
        ("sets another override", format!("echo none >{d}/driver_override")),
        ("clears the override", format!("echo >{d}/driver_override")),
        ("takes it from its driver", format!("{off}; true")),
        (
            "binds it to another driver",
            format!(
                "modprobe vfio_pci virtio_vfio_pci; modprobe virtio_vfio_pci; echo virtio_vfio_pci >{d}/driver_override; {off}; echo {address} >/sys/bus/pci/drivers/virtio_vfio_pci/bind"
            ),
        ),
        (
            "gives it to its native driver",
            format!(
                "echo >{d}/driver_override; {off}; {{ echo {address} >/sys/bus/pci/drivers/{native}/bind; }} 2>/dev/null; true"
            ),
        ),
        ("unloads the variant driver", "modprobe -r mlx5_vfio_pci 2>/dev/null; true".to_string()),
        ("unloads vfio-pci", "modprobe -r vfio_pci 2>/dev/null; true".to_string()),
        ("unloads the native driver", format!("modprobe -r {native} 2>/dev/null; true")),
        ("loads the other drivers", "modprobe vfio_pci; modprobe mlx5_vfio_pci; modprobe xe_vfio_pci".to_string()),
    ];
    if address == NIC {
        deeds.push(("removes the device", format!("echo 1 >{d}/remove")));
        deeds.push((
            "removes the device and finds it again",
            format!("echo 1 >{d}/remove; echo 1 >/sys/bus/pci/rescan"),
        ));
    } else {
        let numvfs = format!("/sys/bus/pci/devices/{PF}/sriov_numvfs");
        deeds.push(("destroys the VFs", format!("echo 0 >{numvfs}")));
        deeds.push(("destroys the VFs and makes them anew", format!("echo 0 >{numvfs}; echo 4 >{numvfs}")));
    }
    // At a module's loading no device is named.
    for (_, deed) in &mut deeds {
        *deed = deed.replace("$DEVICE", address);
    }
    deeds
}

struct Case {
    name: String,
    trial: Trial,
    address: &'static str,
    deed: &'static str,
}

fn trial(setup: &str, command: &str, faults: Vec<String>) -> Trial {
    Trial {
        host: "connectx".to_string(),
        setup: setup.to_string(),
        faults,
        command: command.to_string(),
        afterwards: String::new(),
    }
}

/// Every deed, before and after every step that the verb takes when left alone.
fn cases() -> Vec<Case> {
    let places = in_parallel(THREADS, &VERBS, |(name, setup, command, _)| {
        let whole = trial(setup, command, Vec::new()).run();
        assert_eq!(whole.status, 0, "{name}\n{}", whole.shown());
        let before = trial(setup, "true", Vec::new()).run().passed.len();
        let mut places: Vec<(String, usize)> = Vec::new();
        for place in &whole.passed[before..] {
            let is_needed = place.starts_with("module=") && !place.contains("_vfio_pci") && place != "module=vfio_pci";
            if place.ends_with(":probe") || is_needed {
                continue;
            }
            let nth = places.iter().filter(|(known, _)| known == place).count() + 1;
            places.push((place.clone(), nth));
        }
        places
    });
    let mut cases = Vec::new();
    for ((name, setup, command, address), places) in VERBS.iter().zip(&places) {
        for (place, nth) in places {
            for moment in ["before", "after"] {
                for (deed, words) in deeds(address) {
                    let fault = format!("{place}:{moment}={words}:nth={nth}");
                    cases.push(Case {
                        name: format!("{name}; {moment} {place} {nth} somebody else {deed}"),
                        trial: trial(setup, command, vec![fault]),
                        address,
                        deed,
                    });
                }
            }
        }
    }
    cases
}

fn check(case: &Case, trace: &Trace) -> Vec<String> {
    let mut broken = Vec::new();
    let mut insist = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    insist(!trace.stderr.contains("panicked"), "it panicked".to_string());
    let Some(document) = trace.document() else {
        insist(false, "no report".to_string());
        return broken;
    };
    let result = &document["results"][0];
    let address = case.address;
    let (before, after) = (Trace::device(&trace.before, address), Trace::device(&trace.after, address));
    let kind = result["error"]["kind"].as_str();
    let message = result["error"]["message"].as_str().unwrap_or_default();
    let status = match kind {
        None => 0,
        Some("failed" | "module" | "interrupted") => 1,
        Some("no-device") => 3,
        Some("unsafe" | "conflict" | "identity") => 4,
        Some("no-driver") => 5,
        Some("not-restored") => 8,
        Some(other) => {
            insist(false, format!("{other} is no kind for this"));
            trace.status
        }
    };
    insist(trace.status == status, format!("exit status {}, and the report says {status}", trace.status));
    insist(result["driver"] == after["driver"], format!("it is on {}: {result}", after["driver"]));
    let own = trace.after["policy"][format!("{address}.toml")].as_str();
    insist(result["persisted"] == own.is_some(), format!("kept: {own:?}: {result}"));
    for (name, text) in Trace::policy(&trace.after) {
        insist(!name.starts_with('.') && text.ends_with('\n'), format!("{name} is left: {text:?}"));
    }
    match result["outcome"].as_str().unwrap_or_default() {
        "bound" => {
            let driver = after["driver"].as_str().unwrap_or("none");
            let vfio = after["vfio_dev"].as_array().map_or(0, Vec::len);
            let is_chosen = ["mlx5_vfio_pci", "vfio-pci", "none"].contains(&driver);
            let is_so = is_chosen && after["driver_override"] == driver && vfio == usize::from(driver != "none");
            insist(is_so, format!("bound, and it is {after}"));
            insist(driver != "none" || case.name.contains("none;"), format!("bound, and it is {after}"));
        }
        "unbound" => {
            let is_so = after["driver_override"].is_null() && after["vfio_dev"] == Value::Array(Vec::new());
            insist(is_so, format!("unbound, and it is {after}"));
        }
        "unchanged" => insist(after["exists"] == true, format!("unchanged, and it is {after}")),
        "failed" | "refused" => {
            insist(message.contains(address), format!("the device is not named: {message}"));
            let policy = Trace::policy(&trace.before) == Trace::policy(&trace.after);
            insist(policy, format!("the policy changed: {}", trace.after["policy"]));
            match kind {
                Some("no-device") => insist(after["exists"] != true, format!("it is there: {after}")),
                Some("not-restored") => {
                    insist(message.contains(&described(after)), format!("not told: {}", described(after)))
                }
                _ => {
                    let is_as_before =
                        before["driver"] == after["driver"] && before["driver_override"] == after["driver_override"];
                    insist(is_as_before, format!("it is {after}, was {before}: {result}"));
                }
            }
        }
        other => insist(false, format!("outcome {other}: {result}")),
    }
    // An override that another tool set after one of ours is that tool's, and stays.
    let overrides: Vec<bool> = trace
        .operations
        .iter()
        .filter(|operation| operation.is_of(address, "driver_override") && operation.is_done())
        .map(|operation| operation.is_ours)
        .collect();
    let first = overrides.iter().position(|is_ours| *is_ours);
    let others =
        first.and_then(|first| overrides.iter().skip(first).position(|is_ours| !*is_ours).map(|at| first + at));
    let is_anew = case.deed.contains("anew") || case.deed.contains("again");
    if let Some(others) = others.filter(|_| !is_anew) {
        insist(
            overrides[others..].iter().all(|is_ours| !*is_ours),
            "another tool's override was written over".to_string(),
        );
    }
    broken
}

/// A device's state in the report's words.
fn described(state: &Value) -> String {
    let driver = state["driver"].as_str().map_or("on no driver".to_string(), |driver| format!("on {driver}"));
    let text = state["driver_override"].as_str().map_or("no override".to_string(), |text| format!("override {text:?}"));
    format!("it is {driver}, {text}")
}

#[test]
fn what_others_do_between_two_steps_is_seen_and_told() {
    let started = Instant::now();
    let only = env::var("VFIOCTL_CASE").ok();
    let mut cases = cases();
    cases.retain(|case| only.as_ref().is_none_or(|only| case.name == *only));
    assert!(!cases.is_empty(), "there is no case {only:?}");
    let broken: usize = in_parallel(THREADS, &cases, |case| {
        let trace = case.trial.run();
        let broken = check(case, &trace);
        if !broken.is_empty() || only.is_some() {
            let (shown, name) = (trace.shown(), &case.name);
            say(&format!(
                "\n{name}\n  {}\n{shown}\n  again: VFIOCTL_CASE='{name}' cargo test --test races\n",
                broken.join("\n  ")
            ));
        }
        broken.len()
    })
    .iter()
    .sum();
    say(&format!("races of the world: {} cases, invariants broken: {broken} ({})\n", cases.len(), since(started)));
    assert_eq!(broken, 0);
}

/// Past the test runner, which would keep it to itself.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
