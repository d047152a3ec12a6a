// SPDX-License-Identifier: MIT OR Apache-2.0
//! `probe` up to the point where a device is opened, and what becomes of it when the nodes are none: simulated hosts have
//! empty files for nodes. What real kernels and devices answer is in `tests/vm/cases/probe.py`. And which nodes and holders
//! `show` names.

mod support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::ran::{Ran, copy, script, vfioctl};

const VF: &str = "0000:3b:00.1";
/// Its group.
const NODE: &str = "/dev/vfio/7";

/// Runs a script after `3b:00.1` was bound, which all of it leaves as it is.
fn bound(text: &str) -> Ran {
    let ran = script("connectx", &[], &format!("vfioctl bind --no-save 3b:00.1 >/dev/null\n{text}"));
    assert_eq!(ran.writes().len(), 3, "{:?}", ran.writes());
    assert_eq!(ran.device("after", VF)["driver"], "mlx5_vfio_pci");
    ran
}

#[track_caller]
fn assert_refused(ran: &Ran, status: i32, words: &[&str]) {
    ran.assert_status(status);
    assert_eq!(ran.stdout, "");
    for word in words {
        assert!(ran.stderr.contains(word), "{word}: {}", ran.stderr);
    }
}

/// No such device, none to ask, and usage.
#[test]
fn what_cannot_be_asked() {
    for (arguments, status, words) in [
        (&["probe", "99:00.0"][..], 3, &["no PCI device 0000:99:00.0"][..]),
        (&["probe", "3b:00.3"], 4, &["0000:3b:00.3 is on no driver", "'vfioctl bind 0000:3b:00.3'"]),
        (&["probe", "3b:00.1"], 4, &["on mlx5_core, which is no VFIO driver", "'vfioctl bind 0000:3b:00.1'"]),
        (&["probe", "3a:00.0"], 4, &["0000:3a:00.0 is a bridge"]),
        (&["probe", "3b:00.1", "--vf-token", "secret"], 2, &["--vf-token", "secret"]),
        (&["probe", "3b:00.1", "--root", "/proc"], 2, &["--root /proc", "--dry-run"]),
    ] {
        let ran = vfioctl("connectx", &[], arguments);
        assert_refused(&ran, status, words);
        ran.assert_as_before();
        assert!(!ran.stderr.contains("warning"), "nothing was opened: {}", ran.stderr);
    }
    let ran = vfioctl("connectx", &[], &["probe", "--json", "3b:00.3"]);
    assert_eq!((ran.status, &ran.json()["command"]), (4, &json!("probe")));
    assert_eq!(ran.json()["error"]["kind"], "unsafe");
}

#[test]
fn what_would_be_opened() {
    let ran = bound("vfioctl probe --dry-run 3b:00.1");
    ran.assert_status(0);
    let expected = format!("{VF}: would open {NODE} and /dev/vfio/vfio, which resets it, ask, and let go\n");
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (expected.as_str(), ""));

    // The device's own node where there is one, but not with a token: older kernels take none there.
    let cdev = "mkdir -p /dev/vfio/devices; touch /dev/iommu /dev/vfio/devices/$(ls /sys/bus/pci/devices/0000:3b:00.1/vfio-dev)";
    let answers = |options: &str| {
        let ran = bound(&format!("{cdev}; vfioctl probe --dry-run --json 3b:00.1 {options}"));
        ran.assert_status(0);
        ran.json()
    };
    let expected = json!({
        "schema": 1, "command": "probe", "address": VF, "driver": "mlx5_vfio_pci", "interface": "cdev",
        "nodes": ["/dev/vfio/devices/vfio0", "/dev/iommu"], "vf_token_required": false,
    });
    assert_eq!(answers(""), expected);
    let with_token = answers("--vf-token bd8d9d2b-5a5f-4f5a-a211-f591514ba1f3");
    assert_eq!((&with_token["interface"], &with_token["nodes"][0]), (&json!("group"), &json!(NODE)));

    let ran = bound("rm /dev/vfio/vfio; vfioctl probe --dry-run 3b:00.1");
    assert_refused(&ran, 1, &["no nodes"]);
}

#[test]
fn a_device_in_use_is_not_opened() {
    let ran = bound(&format!("exec 3<{NODE}; vfioctl probe 3b:00.1"));
    assert_refused(&ran, 4, &["0000:3b:00.1 is in use: sh (pid ", &format!("has {NODE} open")]);
    assert!(!ran.stderr.contains("warning"), "{}", ran.stderr);
    // Nor is one whose twin in the group is.
    let ran = bound(&format!("exec 3<{NODE}; vfioctl show --json 3b:00.1"));
    let holder = &ran.json()["holders"][0];
    assert_eq!((&holder["command"], &holder["node"]), (&json!("sh"), &json!(NODE)));
    assert_eq!(holder["has_device"], Value::Null);
}

#[test]
fn what_the_kernel_refuses_is_named() {
    let ran = bound("vfioctl probe 3b:00.1");
    assert_refused(&ran, 1, &["VFIO_GROUP_GET_STATUS on /dev/vfio/7: ENOTTY", "dmesg | grep 0000:3b:00.1"]);
    assert!(ran.stderr.starts_with("vfioctl: warning: 0000:3b:00.1: opening it resets it"), "{}", ran.stderr);
    let ran = bound("mkdir -p /dev/vfio/devices; touch /dev/iommu /dev/vfio/devices/vfio0; vfioctl probe 3b:00.1");
    assert_refused(&ran, 1, &["VFIO_DEVICE_BIND_IOMMUFD on /dev/vfio/devices/vfio0: ENOTTY"]);
}

/// A lease on a file makes whoever opens it wait, as a device's reset does.
#[test]
fn what_does_not_come_back_is_given_up() {
    let lease = "import fcntl, os, signal, time; signal.signal(signal.SIGIO, signal.SIG_IGN); \
        file = os.open('/dev/vfio/vfio', os.O_RDWR); fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK); \
        open('/run/leased', 'w'); time.sleep(30)";
    let started = Instant::now();
    let ran = bound(&format!(
        "python3 -c \"{lease}\" & \n\
         while ! [ -e /run/leased ]; do sleep 0.05; done\n\
         vfioctl probe --timeout 1 3b:00.1; status=$?; kill $!; exit $status"
    ));
    assert_refused(&ran, 7, &["0000:3b:00.1: no answer from the kernel within 1 s", "dmesg | grep 0000:3b:00.1"]);
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn it_waits_for_whoever_binds_the_device() {
    let ran = bound(
        "flock /run/vfioctl/0000:3b:00.1.lock sleep 20 & sleep 0.5\n\
         vfioctl probe --timeout 0.5 3b:00.1; status=$?; kill $!; exit $status",
    );
    assert_refused(&ran, 7, &["another vfioctl has worked on this device"]);
}

/// Under another root: the nodes as that host's processes spell them, and its processes.
#[test]
fn show_names_nodes_and_holders() {
    let host = copy("debian");
    let put = |name: &str, text: &str| {
        let path = host.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let group = fs::read_link(host.path().join("sys/bus/pci/devices/0000:3b:00.1/iommu_group")).unwrap();
    let group = group.file_name().unwrap().to_str().unwrap();
    let show = |arguments: &[&str]| {
        let mut command = Command::new(support::VFIOCTL);
        let output = support::run(command.arg("--root").arg(host.path()).args(arguments).arg(VF));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let json = || serde_json::from_str::<Value>(&show(&["show", "--json"])).unwrap();
    assert_eq!((&json()["nodes"], &json()["holders"]), (&json!([]), &json!([])));
    assert!(!show(&["show"]).contains("nodes"));

    for name in [&format!("vfio/{group}"), "vfio/vfio", "vfio/devices/vfio0", "iommu"] {
        put(&format!("dev/{name}"), "");
    }
    let node = format!("/dev/vfio/{group}");
    assert_eq!(json()["nodes"], json!([node, "/dev/vfio/vfio", "/dev/vfio/devices/vfio0", "/dev/iommu"]));
    let text = show(&["show"]);
    let line = format!("  nodes        {node} and /dev/vfio/vfio, or /dev/vfio/devices/vfio0 and /dev/iommu\n");
    assert!(text.contains(&line) && !text.contains("held by"), "{text}");

    put("proc/4711/comm", "qemu-system-x86\n");
    put("proc/4711/fdinfo/9", &format!("pos:\t0\nvfio-device-syspath: /sys/devices/pci0000:3a/0000:3a:00.0/{VF}\n"));
    let descriptor = host.path().join("proc/4711/fd/9");
    fs::create_dir_all(descriptor.parent().unwrap()).unwrap();
    symlink(Path::new("/dev/vfio/devices/vfio0"), descriptor).unwrap();
    let holder = json!({
        "pid": 4711, "command": "qemu-system-x86", "node": "/dev/vfio/devices/vfio0", "has_device": true,
    });
    assert_eq!(json()["holders"], json!([holder]));
    assert!(show(&["show"]).contains("  held by      qemu-system-x86 (pid 4711) has /dev/vfio/devices/vfio0 open\n"));
    let mut command = Command::new(support::VFIOCTL);
    let output = support::run(command.arg("--root").arg(host.path()).args(["probe", "--dry-run", VF]));
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}
