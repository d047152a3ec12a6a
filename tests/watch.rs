// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl list --watch` on simulated hosts. These announce nothing, so each run has a network namespace of its own, in which
//! the test announces as udev does.

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use support::ran::{Ran, script};

/// Runs a script beside `vfioctl list --watch ARGUMENTS` on the host connectx. In it, `until N` waits until so many lines are
/// printed, `announce` is an announcement, and `vfioctl` is ours. What was printed comes back as lines; the journal's last word
/// is how the watch ended.
fn watch(arguments: &str, before: &str, beside: &str) -> (Vec<String>, Ran) {
    let uevent = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/uevent.py");
    let text = format!(
        r#"
        mkdir -p /run/udev && : > /run/udev/control
        cat > /run/script <<'END'
            vfioctl() {{ {program} "$@"; }}
            announce() {{ python3 {uevent} "$@"; }}
            until_lines() {{
                for _ in $(seq 500); do
                    [ "$(wc -l < /run/out)" -ge "$1" ] && return
                    sleep 0.02
                done
                echo "no line $1 in 10 s" >&2; cat /run/out >&2
            }}
            : > /run/out
            {before}
            {program} list --watch {arguments} > /run/out &
            watch=$!
            {beside}
            kill $watch 2>/dev/null
            wait $watch
            echo "ended $?" >&2
END
        unshare --net setsid sh /run/script
        cat /run/out
        "#,
        program = support::VFIOCTL,
        uevent = uevent.display(),
    );
    let ran = script("connectx", &[], &text);
    (ran.stdout.lines().map(str::to_string).collect(), ran)
}

/// Where the lines of changes begin: behind the headings and eleven devices.
const TABLE: usize = 12;

#[test]
fn each_change_is_a_line() {
    let (lines, ran) = watch(
        "",
        "",
        "until_lines 12
         vfioctl bind --no-save 3b:00.2 > /dev/null && announce pci
         until_lines 13
         vfioctl bind --no-save --driver none 3b:00.1 > /dev/null && vfioctl unbind --no-save 3b:00.2 > /dev/null && announce pci 5
         until_lines 15
         # About nothing that has changed, and about something else.
         announce pci; sleep 0.3; vfioctl bind --no-save 3b:00.3 > /dev/null; announce block
         sleep 0.3; wc -l < /run/out >&2",
    );
    assert!(lines[0].starts_with("ADDRESS"), "{lines:?}");
    let expected = [
        "0000:3b:00.2  driver    mlx5_core -> mlx5_vfio_pci",
        "0000:3b:00.1  driver    mlx5_core -> -",
        "0000:3b:00.2  driver    mlx5_vfio_pci -> mlx5_core",
    ];
    assert_eq!(lines[TABLE..], expected, "{}", ran.stderr);
    assert!(ran.stderr.contains("15\n") && ran.stderr.contains("ended 143"), "{}", ran.stderr);
}

#[test]
fn filters_hold_for_changes_as_well() {
    let (lines, ran) = watch(
        "--vfio",
        "",
        "until_lines 1
         vfioctl bind --no-save 3b:00.1 3b:00.2 > /dev/null && announce pci
         until_lines 3
         vfioctl unbind --no-save 3b:00.1 > /dev/null && announce pci
         until_lines 4",
    );
    let expected = [
        "0000:3b:00.1  listed    mlx5_core -> mlx5_vfio_pci",
        "0000:3b:00.2  listed    mlx5_core -> mlx5_vfio_pci",
        "0000:3b:00.1  unlisted  mlx5_vfio_pci -> mlx5_core",
    ];
    assert_eq!(lines[1..], expected, "{}", ran.stderr);
}

#[test]
fn devices_come_and_go() {
    let (lines, ran) = watch(
        "",
        "",
        "until_lines 12
         echo 0 > /sys/bus/pci/devices/0000:3b:00.0/sriov_numvfs && announce pci
         until_lines 16
         echo 1 > /sys/bus/pci/devices/0000:3b:00.0/sriov_numvfs && announce pci
         until_lines 17",
    );
    let expected = ["1  removed   mlx5_core", "2  removed   mlx5_core", "3  removed   -", "4  removed   -"];
    assert_eq!(lines[TABLE..TABLE + 4], expected.map(|line| format!("0000:3b:00.{line}")), "{}", ran.stderr);
    let added = &lines[TABLE + 4];
    assert!(added.starts_with("0000:3b:00.1  added     ") && added.contains(", ethernet: "), "{added}");
}

#[test]
fn as_json_each_line_is_a_document() {
    let (lines, ran) = watch(
        "--json --class network",
        "",
        "until_lines 1
         vfioctl bind --no-save 3b:00.2 > /dev/null && announce pci
         until_lines 2",
    );
    let documents: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(documents.len(), 2, "{}", ran.stderr);
    assert!(documents.iter().all(|document| document["schema"] == 1 && document["command"] == "list"), "{documents:?}");
    assert_eq!(documents[0]["devices"].as_array().unwrap().len(), 6);
    let event = &documents[1]["event"];
    assert_eq!((&event["change"], &event["address"]), (&"changed".into(), &"0000:3b:00.2".into()));
    assert_eq!((&event["previous_driver"], &event["previous_iommu_group"]), (&"mlx5_core".into(), &8.into()));
    // The device as a listing has it, but as it is now.
    let before = documents[0]["devices"].as_array().unwrap().iter().find(|device| device["address"] == "0000:3b:00.2");
    let (mut expected, device) = (before.unwrap().clone(), &event["device"]);
    expected["driver"] = "mlx5_vfio_pci".into();
    expected["driver_override"] = "mlx5_vfio_pci".into();
    assert_eq!(*device, expected);
}

/// More than the socket has room for: they are lost, and what has changed is told all the same.
#[test]
fn announcements_that_are_lost_cost_no_change() {
    let (lines, ran) = watch(
        "",
        "",
        "until_lines 12
         kill -STOP $watch
         announce pci 20000; vfioctl bind --no-save 3b:00.2 > /dev/null; announce pci
         kill -CONT $watch
         until_lines 13",
    );
    assert_eq!(lines[TABLE..], ["0000:3b:00.2  driver    mlx5_core -> mlx5_vfio_pci"], "{}", ran.stderr);
}

#[test]
fn it_ends_when_nobody_reads() {
    let (_, ran) = watch(
        "",
        "",
        "until_lines 12
         kill $watch; wait $watch
         (vfioctl list --watch; echo \"quietly $?\" > /run/ended) | head -n 3 > /run/out &
         for _ in $(seq 500); do [ -s /run/ended ] && break; sleep 0.02; done; cat /run/ended >&2",
    );
    assert!(ran.stderr.contains("quietly 0"), "{}", ran.stderr);
}

/// Where no udev runs, that is said; the kernel's announcements are no test's to make.
#[test]
fn without_udev_the_kernel_is_heard() {
    let (lines, ran) = watch("", "rm /run/udev/control", "until_lines 12");
    assert_eq!(lines.len(), TABLE, "{}", ran.stderr);
    assert!(ran.stderr.contains("no udev runs here (/run/udev/control is not there)"), "{}", ran.stderr);
}

#[test]
fn under_another_root_nothing_is_announced() {
    let root = support::fixtures().join("connectx");
    let output = support::run(Command::new(support::VFIOCTL).arg("--root").arg(root).args(["list", "--watch"]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty() && stderr.contains("leave out --root"), "{stderr}");
}
