// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every verb, with every step of it going wrong in every way the kernel has: the cases are generated, and what holds after
//! each is computed from what the simulated host has seen and compared with what the report says.
//!
//! Where a verb passes is found out by running it once with nothing going wrong. `VFIOCTL_CASE='NAME'` runs one case alone.

mod support;

use std::collections::BTreeMap;
use std::env;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use support::trial::{Operation, Trace, Trial, in_parallel, since};

/// Most of the time is spent waiting for what is blocked or slow.
const THREADS: usize = 10;
/// What no case may take longer than: a call is given up on after two seconds, and three may come one after another; a
/// probe that is deferred is tried again for five seconds, also while it is put back.
const BOUND: Duration = Duration::from_secs(40);

const VF: &str = "0000:3b:00.1";
const UNBOUND_VF: &str = "0000:3b:00.3";
const PF: &str = "0000:3b:00.0";
const NIC: &str = "0000:02:00.0";

/// A verb as it is tried.
struct Verb {
    name: &'static str,
    /// What comes before.
    setup: &'static str,
    /// What is tried; `TIMEOUT` is where `--timeout` goes where something blocks.
    command: &'static str,
    /// What it is to come to.
    aim: Aim,
    /// The devices it is about, the first the one that faults strike.
    subjects: &'static [&'static str],
    /// Is every errno tried, or some?
    is_thorough: bool,
}

/// What a verb is to come to where all goes well.
#[derive(Clone, Copy, PartialEq)]
enum Aim {
    /// The devices are on one of these drivers, and the choice is kept as this, if it is to be kept.
    Bound { drivers: &'static [&'static str], kept: Option<&'static str> },
    /// They are on this driver, without override, and the choice is forgotten if it is to be.
    Unbound { driver: &'static str, is_forgetting: bool },
    /// The PF has so many VFs, on these drivers.
    Vfs { count: u64, drivers: &'static [&'static str] },
}

const AUTO: &[&str] = &["mlx5_vfio_pci", "vfio-pci"];
const LOADED: &str = "modprobe mlx5_vfio_pci";
const BOUND_BEFORE: &str = "vfioctl bind 3b:00.1";
const POLICY: &str =
    "printf '[[device]]\\naddress = \"0000:3b:00.1\"\\ndriver = \"auto\"\\n' >/etc/vfioctl.d/50-vfs.toml";
const SELECTOR: &str = "printf '[[device]]\\nid = \"15b3:101e\"\\ndriver = \"auto\"\\n' >/etc/vfioctl.d/50-vfs.toml";
const DOMAIN: &str = "cat >/run/domain <<'END'
<domain type='kvm' id='1'><name>guest</name><uuid>6b1f3c9a-8a3e-4c7e-9b8e-1f2d3c4b5a69</uuid><devices>
<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x1'/></source></hostdev>
<hostdev mode='subsystem' type='pci' managed='yes'><source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x3'/></source></hostdev>
</devices></domain>
END
hook() { vfioctl libvirt hook --json TIMEOUT --libvirt-version 11.3.0 -- guest $1 $2 - </run/domain; }";

fn verbs() -> Vec<Verb> {
    let bound = |drivers, kept| Aim::Bound { drivers, kept };
    let bind = |name, setup, command, drivers, kept, is_thorough| Verb {
        name,
        setup,
        command,
        aim: bound(drivers, kept),
        subjects: &[VF],
        is_thorough,
    };
    let unbind = |name, setup, command, is_forgetting, is_thorough| Verb {
        name,
        setup,
        command,
        aim: Aim::Unbound { driver: "mlx5_core", is_forgetting },
        subjects: &[VF],
        is_thorough,
    };
    let sriov = |name, setup, command, count, drivers, is_thorough| Verb {
        name,
        setup,
        command,
        aim: Aim::Vfs { count, drivers },
        subjects: &[PF],
        is_thorough,
    };
    let auto = Some("auto");
    vec![
        bind("bind, module loaded", LOADED, "vfioctl bind TIMEOUT --json 3b:00.1", AUTO, auto, true),
        bind("bind, module not loaded", "", "vfioctl bind TIMEOUT --json 3b:00.1", AUTO, auto, true),
        bind("bind --strict", LOADED, "vfioctl bind TIMEOUT --json --strict 3b:00.1", &AUTO[..1], auto, true),
        bind("bind --no-save", LOADED, "vfioctl bind TIMEOUT --json --no-save 3b:00.1", AUTO, None, false),
        bind(
            "bind --driver vfio-pci",
            "modprobe vfio_pci",
            "vfioctl bind TIMEOUT --json --driver vfio-pci 3b:00.1",
            &["vfio-pci"],
            Some("vfio-pci"),
            false,
        ),
        bind(
            "bind --driver none",
            "",
            "vfioctl bind TIMEOUT --json --driver none 3b:00.1",
            &["none"],
            Some("none"),
            false,
        ),
        bind(
            "bind from another VFIO driver",
            "modprobe mlx5_vfio_pci; vfioctl bind --driver vfio-pci 3b:00.1",
            "vfioctl bind TIMEOUT --json 3b:00.1",
            AUTO,
            auto,
            false,
        ),
        Verb {
            name: "bind of one on no driver, with an override",
            setup: "modprobe mlx5_vfio_pci; echo none >/sys/bus/pci/devices/0000:3b:00.3/driver_override",
            command: "vfioctl bind TIMEOUT --json 3b:00.3",
            aim: bound(AUTO, auto),
            subjects: &[UNBOUND_VF],
            is_thorough: false,
        },
        Verb {
            name: "bind of a NIC",
            setup: "",
            command: "vfioctl bind TIMEOUT --json 02:00.0",
            aim: bound(&["vfio-pci"], auto),
            subjects: &[NIC],
            is_thorough: false,
        },
        Verb {
            name: "bind of several",
            setup: LOADED,
            command: "vfioctl bind TIMEOUT --json 3b:00.1 3b:00.2 3b:00.3",
            aim: bound(AUTO, auto),
            subjects: &["0000:3b:00.2", VF, UNBOUND_VF],
            is_thorough: false,
        },
        unbind("unbind", BOUND_BEFORE, "vfioctl unbind TIMEOUT --json 3b:00.1", true, true),
        unbind("unbind --no-save", BOUND_BEFORE, "vfioctl unbind TIMEOUT --json --no-save 3b:00.1", false, false),
        unbind(
            "unbind --driver mlx5_core",
            BOUND_BEFORE,
            "vfioctl unbind TIMEOUT --json --driver mlx5_core 3b:00.1",
            true,
            true,
        ),
        bind("apply of one", POLICY, "vfioctl apply TIMEOUT --json 3b:00.1", AUTO, None, true),
        Verb {
            name: "apply of all",
            setup: SELECTOR,
            command: "vfioctl apply TIMEOUT --json",
            aim: bound(AUTO, None),
            subjects: &["0000:3b:00.2", VF, UNBOUND_VF, "0000:3b:00.4"],
            is_thorough: false,
        },
        sriov("sriov 2", "", "vfioctl sriov TIMEOUT --json 3b:00.0 2", 2, &["mlx5_core"], true),
        sriov("sriov 0", "", "vfioctl sriov TIMEOUT --json 3b:00.0 0", 0, &[], true),
        sriov("sriov 2 --driver auto", LOADED, "vfioctl sriov TIMEOUT --json 3b:00.0 2 --driver auto", 2, AUTO, true),
        sriov(
            "sriov 3 --driver auto, from none",
            "modprobe mlx5_vfio_pci; vfioctl sriov 3b:00.0 0",
            "vfioctl sriov TIMEOUT --json 3b:00.0 3 --driver auto",
            3,
            AUTO,
            false,
        ),
        sriov(
            "sriov 4 --driver auto, as many as there are",
            LOADED,
            "vfioctl sriov TIMEOUT --json 3b:00.0 4 --driver auto",
            4,
            AUTO,
            false,
        ),
        Verb {
            name: "hook, prepare",
            setup: LOADED,
            command: "DOMAIN; hook prepare begin",
            aim: bound(AUTO, None),
            subjects: &[VF, UNBOUND_VF],
            is_thorough: false,
        },
        Verb {
            name: "hook, release",
            setup: "DOMAIN; hook prepare begin",
            command: "DOMAIN; hook release end",
            aim: Aim::Unbound { driver: "mlx5_core", is_forgetting: false },
            subjects: &[VF, UNBOUND_VF],
            is_thorough: false,
        },
    ]
}

impl Verb {
    fn trial(&self, faults: Vec<String>) -> Trial {
        let waits = faults.iter().any(|fault| fault.contains(":block"));
        let timeout = if waits { "--timeout 2" } else { "" };
        let text = |text: &str| text.replace("DOMAIN", DOMAIN).replace("TIMEOUT", timeout);
        let afterwards = match self.aim {
            // What the report says gives it back does so, once nothing goes wrong any more.
            Aim::Bound { .. } | Aim::Unbound { .. } => {
                let subjects = self.subjects.join(" ");
                format!(
                    "case $status in 7|8) simhost ctl mend; {SETTLED}; vfioctl unbind {subjects}; echo given back: $?;; esac"
                )
            }
            Aim::Vfs { .. } => {
                "case $status in 7|8) simhost ctl mend; sleep 0.5; vfioctl sriov 3b:00.0 0; echo removed: $?;; esac"
                    .to_string()
            }
        };
        Trial { host: "connectx".to_string(), setup: text(self.setup), faults, command: text(self.command), afterwards }
    }

    fn is_sriov(&self) -> bool {
        matches!(self.aim, Aim::Vfs { .. })
    }
}

// ---- what goes wrong

/// The errnos of a step: those that the kernel gives there, and those of drivers, of a device that went, of a sandbox.
fn errnos(step: &str, is_thorough: bool) -> &'static [&'static str] {
    let all: &[&str] = match step {
        "override" => &["EINVAL", "ENODEV", "ENOMEM", "EPERM", "EACCES", "EROFS", "EIO"],
        "unbind" => &["ENODEV", "EBUSY", "EIO", "EPERM", "EINVAL"],
        "bind" => &["ENODEV", "EBUSY", "EINVAL", "EAGAIN", "EPERM", "ENOENT", "EIO"],
        "probe" => &[
            "ENODEV",
            "EIO",
            "EINVAL",
            "ENOMEM",
            "EBUSY",
            "EPROBE_DEFER",
            "EPERM",
            "ENOENT",
            "ETIMEDOUT",
            "EOPNOTSUPP",
            "ENXIO",
            "ENOSPC",
            "EACCES",
        ],
        "drivers_probe" => &["ENODEV", "EINVAL", "EIO", "EPERM"],
        "sriov" => &["EBUSY", "ENOENT", "ERANGE", "EINVAL", "ENOMEM", "ENOSPC", "EIO", "ENODEV", "EPERM", "ENOSYS"],
        "vf_autoprobe" => &["EINVAL", "ENODEV", "EPERM", "EIO"],
        "module" => &["ENOENT", "EPERM", "ENOEXEC", "ENOMEM", "EKEYREJECTED", "EINVAL", "EBUSY", "EIO"],
        other => panic!("no errnos are known for step {other}"),
    };
    if is_thorough { all } else { &all[..2] }
}

/// One thing that goes wrong in one run, by its name.
struct Case<'a> {
    verb: &'a Verb,
    name: String,
    faults: Vec<String>,
}

/// Where a verb passes when nothing goes wrong: the place, and how often.
fn places(verb: &Verb) -> Vec<(String, usize)> {
    let trial = verb.trial(Vec::new());
    let whole = trial.run();
    assert_eq!(whole.status, 0, "{}: with nothing going wrong\n{}", verb.name, whole.shown());
    let broken = check(verb, &trial, &whole);
    assert!(broken.is_empty(), "{}: with nothing going wrong: {broken:?}\n{}", verb.name, whole.shown());
    let before = Trial { command: "true".to_string(), ..trial }.run().passed.len();
    let mut places: Vec<(String, usize)> = Vec::new();
    for place in &whole.passed[before..] {
        // The modules that a driver's own needs all fail alike: one stands for them.
        let is_needed = ["module=irqbypass", "module=iommufd", "module=vfio", "module=vfio_iommu_type1"];
        let is_other = !verb.is_sriov() && !place.starts_with("module=") && !place.starts_with(verb.subjects[0]);
        // Of VFs the second stands for all.
        let is_other_vf = verb.is_sriov()
            && !place.starts_with("module=")
            && !place.starts_with(PF)
            && !place.starts_with("0000:3b:00.2");
        if is_needed.contains(&place.as_str()) || is_other || is_other_vf {
            continue;
        }
        match places.iter_mut().find(|(known, _)| known == place) {
            Some((_, times)) => *times += 1,
            None => places.push((place.clone(), 1)),
        }
    }
    places
}

fn step_of(place: &str) -> &str {
    if place.starts_with("module=") { "module" } else { place.rsplit(':').next().unwrap() }
}

/// Every single fault, then those that strike again while the first is undone, then the policy's.
fn cases<'a>(verb: &'a Verb, places: &[(String, usize)]) -> Vec<Case<'a>> {
    let mut all: Vec<Vec<String>> = Vec::new();
    for (place, times) in places {
        let step = step_of(place);
        for errno in errnos(step, verb.is_thorough) {
            all.push(vec![format!("{place}:errno={errno}:once")]);
        }
        for nth in 2..=*times {
            all.push(vec![format!("{place}:errno=EIO:nth={nth}")]);
        }
        // Again and again: while it is undone, and with the next driver.
        all.push(vec![format!("{place}:errno=EIO")]);
        if verb.is_thorough {
            all.push(vec![format!("{place}:errno={}", errnos(step, false)[0])]);
            all.push(vec![format!("{place}:delay=300")]);
        }
        if step == "bind" && verb.is_thorough {
            all.push(vec![format!("{place}:errno=EAGAIN")]);
        }
        all.push(vec![format!("{place}:block:once")]);
        if step != "module" {
            all.push(vec![format!("{place}:vanish:once")]);
        }
    }
    all.extend(while_undoing(verb, places));
    all.extend(policy_faults(verb, places));
    let named =
        all.into_iter().map(|faults| Case { verb, name: format!("{}; {}", verb.name, faults.join("; ")), faults });
    named.collect()
}

/// The last step fails, and then one of those that put things back.
fn while_undoing(verb: &Verb, places: &[(String, usize)]) -> Vec<Vec<String>> {
    let times = |place: &str| places.iter().find(|(known, _)| known == place).map_or(0, |(_, times)| *times);
    let device = if verb.is_sriov() { "0000:3b:00.2" } else { verb.subjects[0] };
    let mut all = Vec::new();
    let last = ["probe", "drivers_probe"].map(|step| format!("{device}:{step}"));
    for first in last.iter().filter(|place| times(place) > 0).take(1) {
        let steps: &[&str] =
            if verb.is_sriov() { &["sriov", "vf_autoprobe"] } else { &["override", "unbind", "bind", "probe"] };
        for step in steps {
            let place = if verb.is_sriov() { format!("{PF}:{step}") } else { format!("{device}:{step}") };
            let next = times(&place) + 1;
            let later = if verb.is_thorough { next..=next + 1 } else { next..=next };
            for nth in later {
                for kind in ["errno=EIO", "errno=ENODEV", "block", "vanish"] {
                    all.push(vec![format!("{first}:errno=EIO:once"), format!("{place}:{kind}:nth={nth}")]);
                }
            }
        }
    }
    // The PF's own step fails, and one that puts it back.
    if verb.is_sriov() {
        for (first, second) in [("sriov", "sriov"), ("sriov", "vf_autoprobe"), ("vf_autoprobe", "sriov")] {
            let (first, second) = (format!("{PF}:{first}"), format!("{PF}:{second}"));
            let (last, next) = (times(&first), times(&second) + usize::from(first != second));
            for kind in ["errno=EIO", "block"] {
                if last > 0 {
                    all.push(vec![
                        format!("{first}:errno=EIO:nth={last}"),
                        format!("{second}:{kind}:nth={}", next.max(1)),
                    ]);
                    all.push(vec![
                        format!("{first}:errno=EIO:nth={last}"),
                        format!("{second}:{kind}:nth={}", next + 1),
                    ]);
                }
            }
        }
    }
    all
}

/// The choice can be written, and then not be put in force; or not be removed.
fn policy_faults(verb: &Verb, places: &[(String, usize)]) -> Vec<Vec<String>> {
    let is_kept = matches!(verb.aim, Aim::Bound { kept: Some(_), .. });
    let is_forgotten = matches!(verb.aim, Aim::Unbound { is_forgetting: true, .. });
    // The first write of all, which every such verb has.
    let Some((place, _)) = places.iter().find(|(place, _)| place.ends_with(":override")) else { return Vec::new() };
    let mut all = Vec::new();
    if is_kept {
        let file = format!("/etc/vfioctl.d/{}.toml", verb.subjects[0]);
        let in_the_way = format!("{place}:after=rm -f {file}; mkdir {file}:once");
        all.push(vec![in_the_way.clone()]);
        all.push(vec![in_the_way.clone(), format!("{place}:errno=EIO:nth=2")]);
        all.push(vec![in_the_way, format!("{place}:block:nth=2")]);
        all.push(vec![format!("{place}:after=rm -f /etc/vfioctl.d/.*.toml /etc/vfioctl.d/.0*:once")]);
    }
    if is_kept || is_forgotten {
        all.push(vec![format!("{place}:after=mount -o remount,bind,ro /etc/vfioctl.d:once")]);
    }
    all
}

// ---- what must hold

/// The kinds of failure and their exit status, as vfioctl(8) has it.
fn status_of(kind: &str) -> i64 {
    match kind {
        "failed" | "interrupted" | "module" | "preparation" => 1,
        "no-device" => 3,
        "unsafe" | "not-for-device" | "identity" | "conflict" | "requirement" => 4,
        "no-driver" => 5,
        "permission" => 6,
        "timeout" => 7,
        "not-restored" => 8,
        other => panic!("{other} is no kind of failure that the manual has a status for"),
    }
}

/// What does not hold.
fn check(verb: &Verb, trial: &Trial, trace: &Trace) -> Vec<String> {
    let mut broken = Vec::new();
    let mut insist = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let text = format!("{}{}", trace.stdout, trace.stderr);
    insist(!text.contains("panicked") && !text.contains("RUST_BACKTRACE"), "it panicked".to_string());
    insist(!text.contains("an errno that") && !text.contains("Unknown error"), "an errno without its name".to_string());
    insist(trace.took < BOUND, format!("it took {:?}", trace.took));
    insist((0..=8).contains(&trace.status), format!("exit status {}", trace.status));
    let can_be_removed = !trial.faults.iter().any(|fault| fault.contains("remount"));
    for (name, text) in Trace::policy(&trace.after) {
        insist(
            name.ends_with(".toml") && !name.starts_with('.') || !can_be_removed,
            format!("a file was left: {name}"),
        );
        let is_whole = text.ends_with('\n') && text.parse::<toml::Table>().is_ok();
        insist(is_whole, format!("{name} is not whole: {text:?}"));
    }
    others_untouched(verb, trial, trace, &mut insist);
    match trace.document() {
        None => insist(false, "no report".to_string()),
        Some(document) if verb.is_sriov() => check_pf(verb, trace, &document, &mut insist),
        Some(document) => check_devices(verb, trial, trace, &document, &mut insist),
    }
    broken
}

type Insist<'a> = &'a mut dyn FnMut(bool, String);

fn others_untouched(verb: &Verb, trial: &Trial, trace: &Trace, insist: Insist<'_>) {
    let vanished = trial.faults.iter().any(|fault| fault.contains(":vanish"));
    let is_about = |address: &str| {
        verb.subjects.contains(&address) || verb.is_sriov() && address.starts_with("0000:3b:0")
            // A PF whose VF was pulled out has one less.
            || vanished && address == PF
    };
    for (address, before) in trace.before["devices"].as_object().unwrap() {
        let after = Trace::device(&trace.after, address);
        insist(is_about(address) || before == after, format!("{address} changed: {before} to {after}"));
    }
    let is_own = |name: &str| verb.subjects.iter().any(|address| name == format!("{address}.toml"));
    for (name, before) in Trace::policy(&trace.before) {
        let after = trace.after["policy"][name].as_str();
        insist(is_own(name) || after == Some(before), format!("{name} changed: {before:?} to {after:?}"));
    }
}

fn check_devices(verb: &Verb, trial: &Trial, trace: &Trace, document: &Value, insist: Insist<'_>) {
    let Some(results) = document["results"].as_array() else {
        let kind = document["error"]["kind"].as_str();
        insist(
            kind.is_some_and(|kind| status_of(kind) == i64::from(trace.status)),
            format!("refused, status {}: {document}", trace.status),
        );
        for address in verb.subjects {
            let (before, after) = (Trace::device(&trace.before, address), Trace::device(&trace.after, address));
            insist(before == after, format!("{address}: refused, and changed from {before} to {after}"));
        }
        return;
    };
    let kinds = results.iter().filter_map(|result| result["error"]["kind"].as_str());
    let worst = kinds.map(status_of).max().unwrap_or(0);
    insist(worst == i64::from(trace.status), format!("exit status {}, and the results say {worst}", trace.status));
    // What was undone because of another device comes last.
    let last: BTreeMap<&str, &Value> =
        results.iter().map(|result| (result["address"].as_str().unwrap(), result)).collect();
    let all: Vec<&str> = verb.subjects.iter().copied().filter(|address| !last.contains_key(address)).collect();
    insist(all.is_empty(), format!("no results for {all:?}"));
    for (address, result) in last {
        let is_undone = results.iter().filter(|result| result["address"] == address).count() > 1;
        let mut of_device = |holds: bool, what: String| insist(holds, format!("{address}: {what}; result {result}"));
        check_result(verb, trial, trace, address, result, is_undone, worst, &mut of_device);
    }
    if matches!(trace.status, 7 | 8)
        && verb.subjects.iter().all(|address| trace.after["devices"][address]["exists"] == true)
    {
        insist(trace.afterwards.contains("given back: 0"), "what is said to give it back does not".to_string());
        for address in verb.subjects {
            let state = Trace::device(&trace.finally, address);
            let is_back = state["driver"].is_string()
                && state["vfio_dev"] == Value::Array(Vec::new())
                && state["driver_override"].is_null();
            insist(is_back, format!("{address}: not given back: {state}"));
        }
    }
}

#[allow(clippy::too_many_arguments)]
fn check_result(
    verb: &Verb,
    trial: &Trial,
    trace: &Trace,
    address: &str,
    result: &Value,
    is_undone: bool,
    worst: i64,
    insist: Insist<'_>,
) {
    let (before, after) = (Trace::device(&trace.before, address), Trace::device(&trace.after, address));
    let own = format!("{address}.toml");
    let (kept_before, kept) = (trace.before["policy"][&own].as_str(), trace.after["policy"][&own].as_str());
    let is_in_the_way = trial.faults.iter().any(|fault| fault.contains("mkdir")) && kept.is_none();
    let message = result["error"]["message"].as_str().unwrap_or_default();
    let outcome = result["outcome"].as_str().unwrap();

    insist(result["driver"] == after["driver"], format!("driver is {}", after["driver"]));
    insist(is_undone || result["previous_driver"] == before["driver"], format!("it was on {}", before["driver"]));
    let is_kept = kept.is_some_and(|text| text.starts_with("# Written by 'vfioctl"));
    insist(result["persisted"] == is_kept, format!("kept: {kept:?}"));
    let has_failed = matches!(outcome, "failed" | "refused");
    insist(has_failed == result["error"].is_object(), "outcome and error do not agree".to_string());
    insist(!has_failed || message.contains(address), "the message does not name the device".to_string());
    let has_hint = result["error"]["hint"].is_string();
    let kind = result["error"]["kind"].as_str().unwrap_or_default();
    insist(!has_failed || has_hint || matches!(kind, "no-device" | "interrupted"), "no hint".to_string());
    errnos_are_told(trace, address, result, insist);
    if !is_undone {
        steps_are_true(trace, address, result, before, after, insist);
    }

    let as_before = before["driver"] == after["driver"] && before["driver_override"] == after["driver_override"];
    match (outcome, verb.aim) {
        ("bound", Aim::Bound { drivers, kept: wanted }) => {
            let driver = after["driver"].as_str().unwrap_or("none");
            insist(drivers.contains(&driver), format!("bound to {driver}"));
            insist(after["driver_override"] == driver, format!("the override is {}", after["driver_override"]));
            let vfio = after["vfio_dev"].as_array().unwrap().len();
            insist(vfio == usize::from(driver != "none"), format!("{vfio} VFIO devices"));
            match wanted {
                Some(wanted) => {
                    let line = format!("driver = \"{wanted}\"\n");
                    insist(kept.is_some_and(|text| text.contains(&line)), format!("kept: {kept:?}"));
                }
                None => insist(kept == kept_before, format!("policy changed from {kept_before:?} to {kept:?}")),
            }
        }
        // The hook has given back what it had taken, since another device could not be had.
        ("unbound", Aim::Bound { kept: None, .. }) if is_undone => {
            insist(as_before, format!("it is {after}, was {before}"));
        }
        ("unbound", Aim::Unbound { driver, is_forgetting }) => {
            insist(after["driver_override"].is_null(), format!("the override is {}", after["driver_override"]));
            let warnings = result["warnings"].as_array().unwrap().len();
            // One that was on none before the domain had it goes back to none.
            let is_back = after["driver"] == driver || address == UNBOUND_VF && after["driver"].is_null();
            insist(is_back || after["driver"].is_null() && warnings > 0, format!("on {}", after["driver"]));
            insist(kept.is_none() || !is_forgetting, format!("still kept: {kept:?}"));
            insist(is_forgetting || kept == kept_before, format!("policy changed from {kept_before:?} to {kept:?}"));
        }
        ("unchanged", _) => insist(before == after && kept == kept_before, format!("it is {after}, was {before}")),
        ("failed" | "refused", _) => {
            insist(kept == kept_before || is_in_the_way, format!("policy changed from {kept_before:?} to {kept:?}"));
            match kind {
                "no-device" => insist(after["exists"] != true, format!("it is there: {after}")),
                "timeout" => {
                    let override_ = after["driver_override"].as_str().map_or("unset".to_string(), str::to_string);
                    let is_told = message.contains(&format!("driver_override is {override_} now"))
                        || message.contains(&described(after));
                    insist(
                        as_before || is_told || before["driver_override"] == after["driver_override"],
                        format!("not told: {after}"),
                    );
                }
                "not-restored" => {
                    insist(message.contains(&described(after)), format!("not told: {}", described(after)))
                }
                _ => insist(as_before, format!("it is {after}, was {before}")),
            }
        }
        _ => insist(false, format!("outcome {outcome}")),
    }
    insist(worst == 0 || has_failed || verb.subjects.len() > 1, "it went well, and yet".to_string());
}

/// A device's state in the report's words.
fn described(state: &Value) -> String {
    let driver = state["driver"].as_str().map_or("on no driver".to_string(), |driver| format!("on {driver}"));
    let override_ =
        state["driver_override"].as_str().map_or("no override".to_string(), |text| format!("override {text:?}"));
    format!("it is {driver}, {override_}")
}

/// What the kernel said no with is named, but where that came to nothing.
fn errnos_are_told(trace: &Trace, address: &str, result: &Value, insist: Insist<'_>) {
    let text = format!("{} {}", result["error"]["message"], result["warnings"]);
    let ours = trace.operations.iter().filter(|operation| operation.is_ours && operation.path != "modprobe");
    for operation in ours.filter(|operation| {
        ["driver_override", "unbind", "bind", "drivers_probe"].iter().any(|name| operation.is_of(address, name))
    }) {
        let Some(error) = &operation.error else { continue };
        let is_harmless = match (error.as_str(), operation.path.rsplit('/').next()) {
            // Tried again; off it all the same; on it already; gone, which is said otherwise.
            ("EAGAIN", _) => result["error"].is_null(),
            ("ENODEV", Some("unbind")) | ("EBUSY", Some("bind")) => true,
            ("ENODEV", _) if result["error"]["kind"] == "no-device" => true,
            // What an override that could not be put back has led to.
            ("ENODEV", Some("bind")) => result["error"]["kind"] == "not-restored",
            _ => false,
        };
        insist(is_harmless || text.contains(error.as_str()), format!("{error} is not told"));
    }
}

/// The steps that are said to be done lead from how the device was to how it is, and the kernel has seen them.
fn steps_are_true(trace: &Trace, address: &str, result: &Value, before: &Value, after: &Value, insist: Insist<'_>) {
    let of = |attribute: &str| -> Vec<&Operation> {
        trace.operations.iter().filter(|operation| operation.is_ours && operation.is_of(address, attribute)).collect()
    };
    let steps = result["steps"].as_array().unwrap();
    let count = |names: &[&str]| {
        steps.iter().filter(|step| step["done"] == true && names.contains(&step["step"].as_str().unwrap())).count()
    };
    let done = |attribute: &str| of(attribute).iter().filter(|operation| operation.is_done()).count();
    let said = count(&["override", "clear-override"]);
    insist(
        said == done("driver_override"),
        format!("{} overrides were written, {said} are said", done("driver_override")),
    );
    let off = of("unbind").iter().filter(|operation| operation.error.as_deref() == Some("ENODEV")).count();
    let said = count(&["unbind"]);
    insist(
        (done("unbind")..=done("unbind") + off).contains(&said),
        format!("{} unbinds were done, {said} are said", done("unbind")),
    );
    let said = count(&["probe"]);
    insist(said == done("drivers_probe"), format!("{} probes were done, {said} are said", done("drivers_probe")));
    let tried = steps.iter().filter(|step| step["step"] == "bind").count();
    insist(done("bind") <= tried, format!("{} binds were done, {tried} are said", done("bind")));

    // Played through. What a step that failed, a probe or a module has led to is known from the next step on.
    let (mut driver, mut override_) = (Some(before["driver"].clone()), before["driver_override"].clone());
    for step in steps {
        let target = step["target"].clone();
        match (step["step"].as_str().unwrap(), step["done"] == true) {
            ("override", true) => override_ = target,
            ("clear-override", true) => override_ = Value::Null,
            ("unbind", true) => driver = Some(Value::Null),
            ("bind", true) => driver = Some(target),
            ("unbind" | "bind", false) | ("probe" | "load", _) => driver = None,
            _ => {}
        }
    }
    if after["exists"] == true {
        insist(
            after["driver_override"] == override_,
            format!("by its steps its override is {override_}, not {}", after["driver_override"]),
        );
        insist(
            driver.as_ref().is_none_or(|driver| *driver == after["driver"]),
            format!("by its steps it is on {driver:?}, not {}", after["driver"]),
        );
    }
}

fn check_pf(verb: &Verb, trace: &Trace, document: &Value, insist: Insist<'_>) {
    let Aim::Vfs { count, drivers } = verb.aim else { unreachable!("checked for sriov alone") };
    let (before, after) = (Trace::device(&trace.before, PF), Trace::device(&trace.after, PF));
    let error = &document["error"];
    let kind = error["kind"].as_str();
    let (message, vfs) = (error["message"].as_str().unwrap_or_default(), vfs(&trace.after));
    let results = document["results"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_vfs = results.iter().filter_map(|result| result["error"]["kind"].as_str()).map(status_of).max().unwrap_or(0);
    let expected = kind.map_or(of_vfs, status_of);
    insist(
        expected == i64::from(trace.status),
        format!("exit status {}, and the report says {expected}: {error}", trace.status),
    );
    insist(error.is_null() || message.contains(PF), format!("the message does not name the PF: {error}"));
    let shown = &document["pf"];
    let as_before = before == after && self::vfs(&trace.before) == vfs;
    if document["outcome"].is_null() {
        insist(kind.is_some() && as_before, format!("refused, and now it is {after} with {vfs:?}: {document}"));
        return;
    }
    insist(
        document["previous_vfs"] == before["sriov_numvfs"],
        format!("it had {} VFs: {document}", before["sriov_numvfs"]),
    );
    if after["exists"] == true {
        insist(shown["num_vfs"] == after["sriov_numvfs"], format!("it has {} VFs: {shown}", after["sriov_numvfs"]));
        insist(
            shown["autoprobe"] == after["sriov_drivers_autoprobe"],
            format!("autoprobe is {}: {shown}", after["sriov_drivers_autoprobe"]),
        );
        for vf in document["vfs"].as_array().unwrap() {
            let state = Trace::device(&trace.after, vf["address"].as_str().unwrap());
            let is_so = vf["driver"] == state["driver"] && vf["driver_override"] == state["driver_override"];
            insist(is_so, format!("{vf} is {state}"));
        }
    } else {
        insist(shown.is_null() && kind == Some("no-device"), format!("the PF is gone: {document}"));
    }
    let steps = document["steps"].as_array().unwrap();
    for (name, attribute) in [("vf-count", "sriov_numvfs"), ("vf-autoprobe", "sriov_drivers_autoprobe")] {
        let said = steps.iter().filter(|step| step["step"] == name && step["done"] == true).count();
        let ours = trace.operations.iter().filter(|operation| operation.is_ours && operation.is_of(PF, attribute));
        let done = ours.clone().filter(|operation| operation.is_done()).count();
        insist(
            said == done || attribute == "sriov_numvfs" && said < done,
            format!("{done} {name} were done, {said} are said"),
        );
        for error in ours.filter_map(|operation| operation.error.as_deref()) {
            let is_gone = after["exists"] == false;
            // Without a driver that makes VFs there is a sentence for it.
            let is_told = message.contains(error) || error == "ENOENT" && message.contains("cannot make or remove VFs");
            insist(is_told || is_gone, format!("{error} is not told: {message}"));
        }
    }
    match (document["outcome"].as_str().unwrap(), kind) {
        ("made" | "bound" | "removed" | "unchanged", None) => {
            insist(after["sriov_numvfs"] == count && vfs.len() as u64 == count, format!("{} VFs", vfs.len()));
            insist(
                after["sriov_drivers_autoprobe"] == before["sriov_drivers_autoprobe"],
                "autoprobe was changed".to_string(),
            );
            for (vf, state) in &vfs {
                let driver = state["driver"].as_str().unwrap_or("none");
                // A native driver that will not have a VF is the kernel's affair: it shows no driver.
                let is_native = drivers == ["mlx5_core"];
                insist(drivers.contains(&driver) || is_native && driver == "none", format!("{vf} is on {driver}"));
                let wanted =
                    if driver == "mlx5_core" || driver == "none" { Value::Null } else { state["driver"].clone() };
                insist(state["driver_override"] == wanted, format!("{vf} has override {}", state["driver_override"]));
            }
        }
        ("failed" | "refused", Some("timeout")) => {
            let number = format!(
                "it has {} VFs, sriov_drivers_autoprobe {}",
                vfs.len(),
                u8::from(after["sriov_drivers_autoprobe"] == true)
            );
            insist(as_before || message.contains(&number), format!("not told: {number}: {message}"));
        }
        ("failed", Some("not-restored")) => {
            let number = format!(
                "it has {} VFs, sriov_drivers_autoprobe {}",
                vfs.len(),
                u8::from(after["sriov_drivers_autoprobe"] == true)
            );
            insist(message.contains(&number), format!("not told: {number}: {message}"));
        }
        ("failed" | "refused", Some("no-device")) => {
            let is_gone = |address: &str| trace.after["devices"][address]["exists"] != true;
            insist(is_gone(PF) || is_gone("0000:3b:00.2"), format!("nothing is gone: {message}"));
        }
        ("failed" | "refused", Some(_)) => {
            insist(as_before, format!("it is {after} with {vfs:?}, was {before} with {:?}", self::vfs(&trace.before)));
        }
        (outcome, kind) => insist(false, format!("outcome {outcome} and {kind:?}")),
    }
    if matches!(trace.status, 7 | 8) && after["exists"] == true {
        insist(trace.afterwards.contains("removed: 0"), "its VFs cannot be removed afterwards".to_string());
    }
}

/// The VFs that are there, and how each is.
fn vfs(state: &Value) -> BTreeMap<&str, &Value> {
    let devices = state["devices"].as_object().unwrap();
    let is_vf = |address: &str| address.starts_with("0000:3b:") && address != PF;
    devices
        .iter()
        .filter(|(address, state)| is_vf(address) && state["exists"] == true)
        .map(|(address, state)| (address.as_str(), state))
        .collect()
}

// ---- the run

#[test]
fn whatever_goes_wrong_the_report_is_true() {
    let verbs = verbs();
    let started = Instant::now();
    let only = env::var("VFIOCTL_CASE").ok();
    let wanted: Vec<&Verb> = verbs
        .iter()
        .filter(|verb| only.as_ref().is_none_or(|only| only.starts_with(&format!("{};", verb.name))))
        .collect();
    let places = in_parallel(THREADS, &wanted, |verb| places(verb));
    let mut all: Vec<Case<'_>> = wanted.iter().zip(&places).flat_map(|(verb, places)| cases(verb, places)).collect();
    if let Some(only) = &only {
        all.retain(|case| case.name == *only);
    }
    assert!(!all.is_empty(), "there is no case {only:?}");
    let failures = in_parallel(THREADS, &all, |case| {
        let trial = case.verb.trial(case.faults.clone());
        let trace = trial.run();
        if only.is_some() {
            say(&format!("{}\n{}\n", trace.shown(), trace.stdout));
        }
        let broken = check(case.verb, &trial, &trace);
        if broken.is_empty() {
            return 0;
        }
        let number = broken.len();
        say(&format!(
            "\n{}\n  {}\n{}\n  again: VFIOCTL_CASE='{}' cargo test --test faults\n",
            case.name,
            broken.join("\n  "),
            trace.shown(),
            case.name
        ));
        number
    });
    let broken: usize = failures.iter().sum();
    say(&format!("fault matrix: {} cases, invariants broken: {broken} ({})\n", all.len(), since(started)));
    assert_eq!(broken, 0, "{} cases", failures.iter().filter(|number| **number > 0).count());
}

// ---- killed

/// At every step that a verb takes it is killed, with the process that writes for it. The next run, of the same verb or of
/// `apply`, puts that right.
#[test]
fn who_is_killed_is_put_right_by_the_next_run() {
    let verbs = verbs();
    let started = Instant::now();
    let only = env::var("VFIOCTL_CASE").ok();
    let places = in_parallel(THREADS, &verbs.iter().collect::<Vec<_>>(), |verb| places(verb));
    let mut cases: Vec<(Case<'_>, bool)> = Vec::new();
    for (verb, places) in verbs.iter().zip(&places) {
        for (place, times) in places {
            for nth in 1..=*times {
                let fault = format!("{place}:kill:nth={nth}");
                for is_applied in [false, true].into_iter().take(if verb.is_sriov() { 1 } else { 2 }) {
                    let next = if is_applied { "then apply" } else { "then again" };
                    let name = format!("{}; {fault}; {next}", verb.name);
                    cases.push((Case { verb, name, faults: vec![fault.clone()] }, is_applied));
                }
            }
        }
    }
    cases.retain(|(case, _)| only.as_ref().is_none_or(|only| case.name == *only));
    assert!(!cases.is_empty(), "there is no case {only:?}");
    let passed_by = AtomicUsize::new(0);
    let broken: usize = in_parallel(THREADS, &cases, |(case, is_applied)| {
        let trial = case.verb.trial(case.faults.clone());
        let apply = format!("vfioctl apply --json {}", case.verb.subjects.join(" "));
        let next = if *is_applied { &apply } else { &trial.command };
        let command = format!(
            "{{ {}\n}} >$work/first 2>&1; echo first $? >&2; simhost ctl mend >/dev/null; {SETTLED}\n{next}",
            trial.command
        );
        let trace = Trial { command, afterwards: String::new(), ..trial.clone() }.run();
        passed_by.fetch_add(usize::from(is_passed_by(case.verb, &trace)), Ordering::Relaxed);
        let broken = check_after_kill(case.verb, *is_applied, &trace);
        if !broken.is_empty() || only.is_some() {
            let (shown, name) = (trace.shown(), &case.name);
            say(&format!(
                "\n{name}\n  {}\n{shown}\n  again: VFIOCTL_CASE='{name}' cargo test --test faults killed\n",
                broken.join("\n  ")
            ));
        }
        broken.len()
    })
    .iter()
    .sum();
    let passed_by = passed_by.into_inner();
    let killed = cases.len() - passed_by;
    say(&format!("fault matrix: {killed} kills, invariants broken: {broken} ({})\n", since(started)));
    assert_eq!(broken, 0);
    assert!(only.is_some() || passed_by * 20 <= cases.len(), "{passed_by} of {} were not killed", cases.len());
}

/// Of several devices at once, the one that a module is loaded for may be bound by that and another by hand: which one takes a
/// step is not the same each time.
fn is_passed_by(verb: &Verb, trace: &Trace) -> bool {
    verb.subjects.len() > 1 && trace.stderr.contains("first 0")
}

fn check_after_kill(verb: &Verb, is_applied: bool, trace: &Trace) -> Vec<String> {
    let mut broken = Vec::new();
    let mut insist = |holds: bool, what: String| {
        if !holds {
            broken.push(what);
        }
    };
    let is_killed = trace.stderr.contains("first 137");
    insist(is_killed || is_passed_by(verb, trace), "it was not killed".to_string());
    insist(!trace.stderr.contains("panicked"), "it panicked".to_string());
    insist(trace.status == 0, format!("the next run's exit status is {}", trace.status));
    for (name, text) in Trace::policy(&trace.after) {
        let is_whole = !name.starts_with('.') && text.ends_with('\n') && text.parse::<toml::Table>().is_ok();
        insist(is_whole, format!("a file was left: {name}: {text:?}"));
    }
    others_untouched(verb, &Trial::default(), trace, &mut insist);
    if let Aim::Vfs { count, drivers } = verb.aim {
        let (before, after) = (Trace::device(&trace.before, PF), Trace::device(&trace.after, PF));
        insist(after["sriov_numvfs"] == count, format!("it has {} VFs", after["sriov_numvfs"]));
        let is_so = after["sriov_drivers_autoprobe"] == before["sriov_drivers_autoprobe"];
        insist(is_so, format!("autoprobe is {}", after["sriov_drivers_autoprobe"]));
        for (vf, state) in vfs(&trace.after) {
            let driver = state["driver"].as_str().unwrap_or("none");
            insist(drivers.contains(&driver), format!("{vf} is on {driver}"));
            let wanted = if driver == "mlx5_core" { Value::Null } else { state["driver"].clone() };
            insist(state["driver_override"] == wanted, format!("{vf} has override {}", state["driver_override"]));
        }
        return broken;
    }
    for address in verb.subjects {
        let (before, after) = (Trace::device(&trace.before, address), Trace::device(&trace.after, address));
        let own = format!("{address}.toml");
        let (kept_before, kept) = (trace.before["policy"][&own].as_str(), trace.after["policy"][&own].as_str());
        let driver = after["driver"].as_str().unwrap_or("none");
        let is_as_before = before["driver"] == after["driver"]
            && before["driver_override"] == after["driver_override"]
            && kept_before == kept;
        let is_met = match verb.aim {
            Aim::Bound { drivers, kept: wanted } => {
                let is_kept = match wanted {
                    Some(wanted) => kept.is_some_and(|text| text.contains(&format!("driver = \"{wanted}\"\n"))),
                    None => kept == kept_before,
                };
                drivers.contains(&driver) && after["driver_override"] == driver && is_kept
            }
            Aim::Unbound { driver: native, is_forgetting } => {
                let is_back = driver == native || *address == UNBOUND_VF && driver == "none";
                is_back && after["driver_override"].is_null() && kept.is_none_or(|_| !is_forgetting)
            }
            Aim::Vfs { .. } => unreachable!("seen to above"),
        };
        insist(is_met || is_applied && is_as_before, format!("{address}: it is {after}, kept {kept:?}; was {before}"));
    }
    broken
}

/// Shell words that wait until the kernel has come to the end of all that was begun.
const SETTLED: &str = "for i in 1 2 3 4 5 6 7 8 9; do
    [ \"$(simhost ctl journal | grep -c '\"result\": null')\" != 0 ] || break; sleep 0.2
done";

/// Past the test runner, which would keep it to itself.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
