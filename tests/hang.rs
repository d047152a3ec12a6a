// SPDX-License-Identifier: MIT OR Apache-2.0
//! What waits in the kernel for ever holds nobody up: every call can be given up on, what it waits for is said, and nothing
//! is left of it but the one process that the kernel has.

mod support;

use std::fs;
use std::path::Path;

use serde_json::Value;

use support::ran::{Ran, copy, on, script};

const VF: &str = "0000:3b:00.1";
const PF: &str = "0000:3b:00.0";

/// Words for a shell: milliseconds; and that a command came back in time.
const WATCH: &str = "now() { date +%s%3N; }
    within() { limit=$1; shift; begun=$(now); \"$@\"; status=$?; took=$(($(now) - begun));
               [ $took -lt $limit ] || echo \"LATE: $* took $took ms\"; return $status; }";

/// Whoever runs the tests may ignore some signals (`nohup`), and a shell does so for what is in the background.
const DEFAULT: &str = "env --default-signal=INT,TERM,HUP";

/// A host with the kernel of a fixture's host, or an older one, whose reads of `driver_override` wait for the device's lock.
fn host(release: Option<&str>) -> tempfile::TempDir {
    let host = copy("connectx");
    if let Some(release) = release {
        let modules = host.path().join("lib/modules");
        fs::rename(modules.join("7.0.0-43-generic"), modules.join(release)).unwrap();
        fs::write(host.path().join("proc/sys/kernel/osrelease"), format!("{release}\n")).unwrap();
    }
    host
}

const OLD: Option<&str> = Some("6.1.0-56-amd64");

/// Runs a script on a host; `vfioctl` is ours.
fn run(host: &Path, faults: &[&str], text: &str) -> Ran {
    let own = support::VFIOCTL;
    let text = format!("vfioctl() {{ {own} \"$@\"; }}\nown={own}\n{WATCH}\n{text}");
    let ran = on(host, faults, &["sh", "-c", &text]);
    assert!(!ran.stdout.contains("LATE"), "{}{}", ran.stdout, ran.stderr);
    ran
}

/// Words that wait until something is blocked at a step.
fn blocked(step: &str) -> String {
    until(&format!("simhost ctl blocked | grep -q {step}"))
}

/// Words that wait until something is so.
fn until(command: &str) -> String {
    format!(
        "for second in $(seq 30); do for turn in $(seq 20); do {command} && break 2; sleep 0.05; done
         [ $second -lt 30 ] || echo 'LATE: {step}'; done",
        step = command.replace('\'', "")
    )
}

fn message(failure: &Value) -> &str {
    failure["message"].as_str().unwrap_or_else(|| panic!("no message in {failure}"))
}

/// The kernel tells root the stack of a process; in a user namespace it does not.
fn tells_stacks() -> bool {
    fs::read_to_string("/proc/thread-self/stack").is_ok_and(|stack| !stack.is_empty())
}

// ---- giving up

#[test]
fn every_write_that_waits_is_given_up_on_and_named() {
    let vfio = "modprobe mlx5_vfio_pci; vfioctl bind 3b:00.1 >&2;";
    let bind = "bind --strict 3b:00.1";
    for (fault, before, command, attribute) in [
        ("override:block", "modprobe mlx5_vfio_pci;", bind, "0000:3b:00.1/driver_override"),
        ("unbind:block", "modprobe mlx5_vfio_pci;", bind, "mlx5_core/unbind"),
        ("bind:block", "modprobe mlx5_vfio_pci;", bind, "mlx5_vfio_pci/bind"),
        ("probe:block", "modprobe mlx5_vfio_pci;", bind, "mlx5_vfio_pci/bind"),
        ("override:block:nth=2", vfio, "unbind 3b:00.1", "0000:3b:00.1/driver_override"),
        ("unbind:block:nth=2", vfio, "unbind 3b:00.1", "mlx5_vfio_pci/unbind"),
        ("drivers_probe:block", vfio, "unbind 3b:00.1", "pci/drivers_probe"),
    ] {
        let fault = format!("{VF}:{fault}");
        let text = format!("{before} within 4000 vfioctl --timeout 1 --json {command}");
        let ran = run(host(None).path(), &[&fault], &text);
        assert_eq!(ran.status, 7, "{fault}: {}{}", ran.stdout, ran.stderr);
        let error = &ran.result()["error"];
        assert_eq!(error["kind"], "timeout", "{fault}");
        let text = message(error);
        assert!(text.contains(attribute) && text.contains("still waits in the kernel after 1."), "{fault}: {text}");
        assert!(text.contains(&format!("(pid {})", error["waiting_pid"])), "{fault}: {error}");
        assert!(text.contains("; now it is on "), "{fault}: {text}");
        if tells_stacks() {
            // So FUSE waits for simhost.
            let within = error["waiting_in"].as_array().unwrap();
            assert!(within.iter().any(|name| name == "request_wait_answer"), "{fault}: {error}");
            assert!(text.contains("request_wait_answer"), "{fault}: {text}");
        }
    }
}

#[test]
fn every_write_to_a_pf_that_waits_is_given_up_on_and_named() {
    for (fault, attribute) in [("sriov:block", "sriov_numvfs"), ("vf_autoprobe:block", "sriov_drivers_autoprobe")] {
        let fault = format!("{PF}:{fault}");
        // Removing them needs no autoprobe; making them does.
        let text = "echo 0 > /sys/bus/pci/devices/0000:3b:00.0/sriov_numvfs & sleep 0.3
                    within 8000 vfioctl --timeout 1 --json sriov 3b:00.0 2";
        let text = if attribute == "sriov_numvfs" { text.split_once('\n').unwrap().1 } else { text };
        let ran = run(host(None).path(), &[&fault], text);
        assert_eq!(ran.status, 7, "{fault}: {}{}", ran.stdout, ran.stderr);
        let document = ran.json();
        let error = &document["error"];
        assert!(message(error).contains(attribute) && error["waiting_pid"].is_u64(), "{fault}: {error}");
    }
}

/// Reads that take the lock are made by the process that can be left behind, too.
#[test]
fn no_read_waits_for_a_lock() {
    let host = host(OLD);
    // The PF is locked, and its driver's link is gone: where the VFs' driver cannot do without, the PF is looked at.
    let text = format!(
        "echo {PF} > /sys/bus/pci/drivers/mlx5_core/unbind & {}
         within 4000 vfioctl --timeout 1 --json show 3b:00.0; echo status $?
         within 2000 vfioctl show 3b:00.1 >/dev/null; echo status $?
         within 2000 vfioctl match 3b:00.1; echo status $?
         within 2000 vfioctl explain 3b:00.1 >/dev/null; echo status $?
         within 2000 vfioctl sriov >/dev/null; echo status $?
         within 2000 vfioctl sriov 3b:00.0 >/dev/null; echo status $?
         within 4000 vfioctl --timeout 1 sriov 3b:00.0 2 2>&1; echo status $?
         within 4000 vfioctl --timeout 1 bind --driver none 3b:00.0 2>&1; echo status $?",
        blocked("unbind")
    );
    let ran = run(host.path(), &[&format!("{PF}:unbind:block")], &text);
    let statuses: Vec<&str> = ran.stdout.lines().filter_map(|line| line.strip_prefix("status ")).collect();
    assert_eq!(statuses, ["7", "0", "0", "0", "0", "0", "7", "7"], "{}{}", ran.stdout, ran.stderr);
    // Whoever waits at the device is named, also one that is not ours.
    assert!(ran.stdout.contains("sh (pid ") && ran.stdout.contains("mlx5_core/unbind"), "{}", ran.stdout);
}

#[test]
fn a_module_that_does_not_load_is_given_up_on_once() {
    let text = "within 5000 vfioctl --timeout 2 bind --strict 3b:00.1 3b:00.2 3b:00.3 2>&1";
    let ran = run(host(None).path(), &["module=mlx5_vfio_pci:block"], text);
    ran.assert_status(7);
    ran.assert_as_before();
    let loads = ran.writes().iter().filter(|write| *write == "modprobe -- mlx5_vfio_pci").count();
    assert_eq!(loads, 1, "{:?}", ran.writes());
    assert!(ran.stdout.contains("modprobe still ran after 2 s, and was killed"), "{}", ran.stdout);
    assert!(ran.stdout.contains("was given up on just now, for another device"), "{}", ran.stdout);
}

/// A program that the kernel does not let end is left behind, and named.
#[test]
fn a_program_that_waits_in_the_kernel_is_left_behind() {
    let rule = r#"[[device]]\nid = "15b3:101e"\ndriver = "auto"\nprepare = [["sh", "-c", "echo x > /sys/bus/pci/devices/0000:3b:00.2/driver_override"]]\n"#;
    let text = format!(
        "printf '{rule}' > /etc/vfioctl.d/10.toml; modprobe mlx5_vfio_pci
         within 5000 vfioctl --timeout 1 apply --json 3b:00.1"
    );
    let ran = run(host(None).path(), &["0000:3b:00.2:override:block"], &text);
    ran.assert_status(7);
    let text = message(&ran.result()["error"]).to_string();
    assert!(text.contains("waits in the kernel") && text.contains("(pid "), "{text}");
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_core", "{text}");
}

// ---- what is told meanwhile

/// Several devices are stuck at once, by programs of others, and reading their overrides waits as well.
#[test]
fn what_only_looks_answers_at_once() {
    for release in [OLD, None] {
        let host = host(release);
        let stuck = ["0000:3b:00.1", "0000:3b:00.2", "0000:02:00.0", "0000:5e:00.0"];
        let faults: Vec<String> = stuck.iter().map(|address| format!("{address}:unbind:block")).collect();
        let faults: Vec<&str> = faults.iter().map(String::as_str).collect();
        // 2 s, and on a machine that has other work, what the same takes there with nothing stuck.
        let mut text = "begun=$(now); vfioctl list >/dev/null; limit=$((1500 + 5 * ($(now) - begun)))\n".to_string();
        for (address, driver) in stuck.iter().zip(["mlx5_core", "mlx5_core", "igb", "nvme"]) {
            text += &format!("echo {address} > /sys/bus/pci/drivers/{driver}/unbind &\n");
        }
        text += &format!("{}\n", until("[ $(simhost ctl blocked | grep -c unbind) = 4 ]"));
        for command in [
            "list",
            "list --json",
            "show 3b:00.3",
            "match 3b:00.3",
            "explain 3b:00.3",
            "sriov",
            "sriov 3b:00.0",
            "drivers",
            "list",
            "driverctl list-devices",
            "--dry-run apply",
            "--dry-run bind 3b:00.3",
        ] {
            text += &format!("within $limit vfioctl {command} || echo \"status $? of {command}\"\n");
        }
        // One process that reads is left at each, and no more with each listing.
        text += "echo left $(grep -lx vfioctl /proc/[0-9]*/comm | while read -r file; do
                   readlink ${file%comm}ns/mnt; done | grep -cxF \"$(readlink /proc/self/ns/mnt)\")\n";
        let ran = run(host.path(), &faults, &text);
        assert!(!ran.stdout.contains("status"), "{}{}", ran.stdout, ran.stderr);
        for address in ["0000:00:00.0", "0000:3b:00.1", "0000:5e:00.0"] {
            assert!(ran.stdout.matches(address).count() >= 3, "the lists are whole: {}", ran.stdout);
        }
        let left = ran.stdout.lines().find_map(|line| line.strip_prefix("left ")).unwrap();
        assert_eq!(left, if release.is_some() { "4" } else { "0" }, "{}", ran.stdout);
    }
}

/// What is stuck shows all the rest, and who waits.
#[test]
fn a_stuck_device_is_shown() {
    for (release, status) in [(OLD, 7), (None, 0)] {
        let text = "modprobe mlx5_vfio_pci; vfioctl --timeout 1 bind 3b:00.1 >/dev/null 2>&1
                    within 4000 vfioctl show --json 3b:00.1";
        let ran = run(host(release).path(), &[&format!("{VF}:unbind:block")], text);
        assert_eq!(ran.status, status, "{}{}", ran.stdout, ran.stderr);
        assert_eq!(ran.json()["device"]["iommu_group"], 7);
        assert!(ran.stderr.contains("vfioctl (pid ") && ran.stderr.contains("mlx5_core/unbind"), "{}", ran.stderr);
    }
}

#[test]
fn the_next_one_says_whom_it_waits_for() {
    for release in [OLD, None] {
        let text = "modprobe mlx5_vfio_pci
             vfioctl --timeout 1 --json bind 3b:00.1
             within 4000 vfioctl --timeout 1 unbind 3b:00.1 2>&1; echo status $?";
        let ran = run(host(release).path(), &[&format!("{VF}:unbind:block")], text);
        let (first, second) = ran.stdout.split_at(ran.stdout.find("\n}\n").unwrap() + 3);
        let first: Value = serde_json::from_str(first).unwrap();
        let pid = &first["results"][0]["error"]["waiting_pid"];
        assert!(second.contains("status 7") && second.contains("an earlier vfioctl gave up"), "{second}");
        assert!(second.contains(&format!("vfioctl (pid {pid}) waits in the kernel")), "{pid}: {second}");
        assert!(second.contains("mlx5_core/unbind"), "{second}");
    }
}

/// It goes on as soon as the kernel does, and finds the device as it is then.
#[test]
fn the_next_one_goes_on_when_the_kernel_does() {
    let text = "modprobe mlx5_vfio_pci; vfioctl --timeout 1 bind 3b:00.1 >/dev/null 2>&1
         (sleep 1; simhost ctl release) & within 10000 vfioctl unbind 3b:00.1";
    for release in [OLD, None] {
        let ran = run(host(release).path(), &[&format!("{VF}:unbind:block:once")], text);
        ran.assert_status(0);
        let device = ran.device("after", VF);
        assert_eq!((&device["driver"], &device["driver_override"]), (&"mlx5_core".into(), &Value::Null));
    }
}

#[test]
fn who_holds_the_device_is_named() {
    // One that opens it behind the guard's back: the fault is between the guard's look and the kernel's.
    let text = format!(
        "modprobe mlx5_vfio_pci; vfioctl bind 3b:00.4 >&2
         vfioctl --timeout 2 --json unbind 3b:00.4 & unbinder=$!
         {}
         sleep 60 3< /dev/vfio/10 & wait $unbinder; status=$?; kill $!; exit $status",
        blocked("unbind")
    );
    let ran = run(host(None).path(), &["0000:3b:00.4:unbind:block"], &text);
    ran.assert_status(7);
    let error = &ran.result()["error"];
    assert_eq!(error["holders"][0]["command"], "sleep");
    assert!(message(error).contains("has /dev/vfio/10 open"), "{error}");
}

// ---- what is left behind

#[test]
fn one_process_is_left_which_holds_nothing_of_the_callers() {
    let text = format!(
        "modprobe mlx5_vfio_pci; cd /etc; : > /run/lock/mine
         ( flock 9; {DEFAULT} $own --timeout 1 --json bind 3b:00.1 7>&1 8</dev/null ) 9> /run/lock/mine
         own_ones() {{ for comm in $(grep -lx vfioctl /proc/[0-9]*/comm); do
             [ \"$(readlink ${{comm%comm}}ns/mnt)\" = \"$(readlink /proc/self/ns/mnt)\" ] && basename ${{comm%/comm}}; done; }}
         left=$(own_ones); echo \"left $left\"; ls -l /proc/$left/fd | sed -n 's/.* \\([0-9]* -> .*\\)/fd \\1/p'
         echo cwd $(readlink /proc/$left/cwd); grep -H State /proc/$left/status
         flock -n /run/lock/mine echo free
         simhost ctl release >/dev/null; sleep 1; echo \"after $(own_ones)\""
    );
    let ran = run(host(None).path(), &[&format!("{VF}:unbind:block:once")], &text);
    let (document, rest) = ran.stdout.split_at(ran.stdout.find("\n}\n").unwrap() + 3);
    let document: Value = serde_json::from_str(document).unwrap();
    let pid = document["results"][0]["error"]["waiting_pid"].as_u64().unwrap();
    assert!(rest.contains(&format!("left {pid}\n")), "{rest}");
    let mut open: Vec<&str> =
        rest.lines().filter_map(|line| line.strip_prefix("fd ")?.split_once(" -> ")).map(|(_, to)| to).collect();
    open.retain(|target| !target.starts_with("pipe:") && !target.starts_with("socket:"));
    open.sort_unstable();
    open.dedup();
    // The device stays locked until the kernel is done with it.
    let [null, lock, attribute, device] = open.as_slice() else { panic!("{rest}") };
    let expected = ["/dev/null", "/run/vfioctl/0000:3b:00.1.lock", "/sys/bus/pci/drivers/mlx5_core/unbind"];
    assert_eq!([*null, *lock, *attribute], expected, "{rest}");
    assert!(device.ends_with("/0000:3b:00.1"), "{rest}");
    assert!(rest.contains("cwd /\n") && rest.contains("free\n") && rest.contains("after \n"), "{rest}");
}

// ---- Ctrl-C

/// What a service that is stopped gets, once: the call under way has its time, and no more.
#[test]
fn a_wish_to_stop_is_fulfilled_in_time() {
    let rule = r#"[[device]]\nid = "15b3:101e"\ndriver = "auto"\n"#;
    let text = format!(
        "printf '{rule}' > /etc/vfioctl.d/10.toml
         {DEFAULT} $own --timeout 300 apply {VF} 2>&1 & apply=$!
         {}; kill -TERM $apply; within 20000 wait $apply; echo status $?",
        blocked("unbind")
    );
    let ran = run(host(None).path(), &[&format!("{VF}:unbind:block")], &text);
    assert!(ran.stdout.contains("status 7") && ran.stdout.contains("interrupted; writing"), "{}", ran.stdout);
    assert!(ran.stdout.contains("now it is on "), "{}", ran.stdout);
}

#[test]
fn so_it_is_while_a_module_is_loaded() {
    let text = format!(
        "{DEFAULT} $own --timeout 300 bind --strict 3b:00.1 2>&1 & bind=$!
         {}; kill -INT $bind; within 20000 wait $bind; echo status $?",
        blocked("module=mlx5_vfio_pci")
    );
    let ran = run(host(None).path(), &["module=mlx5_vfio_pci:block"], &text);
    assert!(ran.stdout.contains("status 1") && ran.stdout.contains("interrupted; modprobe"), "{}", ran.stdout);
    assert!(ran.stdout.contains("and was killed") && ran.stdout.contains("put back"), "{}", ran.stdout);
    ran.assert_as_before();
}

/// A second Ctrl-C waits for nothing, and says how the device stands.
#[test]
fn a_second_wish_is_fulfilled_at_once() {
    for (fault, place) in
        [(format!("{VF}:unbind:block"), "unbind"), ("module=mlx5_vfio_pci:block".to_string(), "module")]
    {
        let text = format!(
            "{DEFAULT} $own bind --strict 3b:00.1 2>&1 & bind=$!
             {}; kill -INT $bind; sleep 1; kill -0 $bind && echo goes on
             kill -INT $bind; within 1500 wait $bind; echo status $?",
            blocked(place)
        );
        let ran = run(host(None).path(), &[&fault], &text);
        assert!(ran.stdout.contains("goes on") && ran.stdout.contains("interrupted; "), "{}", ran.stdout);
        assert!(ran.stdout.contains("it is on "), "{}", ran.stdout);
        let status = if place == "unbind" { "status 7" } else { "status 8" };
        assert!(ran.stdout.contains(status), "{fault}: {}", ran.stdout);
    }
}

/// Putting back is worth some time to whoever stops once, and none to whoever stops twice.
#[test]
fn putting_back_is_given_up_on_too() {
    let text = format!(
        "modprobe mlx5_vfio_pci; {DEFAULT} $own bind --strict 3b:00.1 2>&1 & bind=$!
         {}; kill -TERM $bind; sleep 1; kill -0 $bind && echo goes on
         kill -TERM $bind; within 1500 wait $bind; echo status $?",
        blocked("probe")
    );
    let faults = [&format!("{VF}:probe:errno=EIO:nth=1"), &format!("{VF}:probe:block:nth=2")];
    let ran = run(host(None).path(), &faults.map(String::as_str), &text);
    assert!(ran.stdout.contains("goes on") && ran.stdout.contains("status 7"), "{}", ran.stdout);
    assert!(ran.stdout.contains("EIO") && ran.stdout.contains("putting it back failed as well: "), "{}", ran.stdout);
    assert!(ran.stdout.contains("mlx5_core/bind") && ran.stdout.contains("; now it is on"), "{}", ran.stdout);
}

/// Signals that come together are one wish.
#[test]
fn two_signals_at_once_are_one_wish() {
    let text = format!(
        "{DEFAULT} $own bind --strict 3b:00.1 2>&1 & bind=$!
         {}; kill -TERM $bind; kill -HUP $bind; wait $bind; echo status $?",
        until("grep -q vfio /sys/bus/pci/devices/0000:3b:00.1/driver_override")
    );
    let ran = run(host(None).path(), &[&format!("{VF}:unbind:delay=2000")], &text);
    assert!(ran.stdout.contains("status 1") && ran.stdout.contains("put back"), "{}", ran.stdout);
    ran.assert_as_before();
}

/// systemd kills what takes longer than a unit says: vfioctl is to be done by then.
#[test]
fn units_give_the_time_that_stopping_takes() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/systemd");
    let mut count = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        if text.contains("\nExecStart=@sbindir@/vfioctl ") {
            count += 1;
            assert!(text.contains("\nTimeoutStopSec=90s\n") && text.contains("\nKillMode=mixed\n"), "{text}");
        }
    }
    assert!(count >= 2);
}

#[test]
fn a_command_that_is_late_fails_these_tests() {
    let ran = script("connectx", &[], &format!("{WATCH}\nwithin 100 sleep 0.3"));
    assert!(ran.stdout.contains("LATE: sleep 0.3"), "{}", ran.stdout);
}
