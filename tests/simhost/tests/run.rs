// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program as a whole: shell commands on a host, through the real VFS.

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{Fixture, RELEASE, command, succeed};

/// Variables for the scripts below.
const NAMES: &str = "NIC=0000:00:02.0 TWIN=0000:00:03.0 PF=0000:01:00.0 VF=0000:01:10.0
D=/sys/bus/pci/devices P=/sys/bus/pci/drivers
fails() { reason=$1; shift; \"$@\" 2>&1 | grep -q \"$reason\" || { echo \"not '$reason': $*\"; exit 1; }; }
put() { echo \"$1\" >\"$2\"; }
";

fn sh(options: &[&str], script: &str) -> String {
    Fixture::new().sh(options, &format!("{NAMES}{script}"))
}

/// Waits for what a background process should bring about.
fn eventually(what: &str, mut test: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !test() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The mounts of the machine that come from simhost.
fn mounts() -> Vec<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    mounts.lines().filter(|line| line.contains("simhost")).map(str::to_owned).collect()
}

#[test]
fn a_shell_binds_and_unbinds() {
    let printed = sh(
        &[],
        "set -e
        modprobe vfio-pci
        echo $NIC >$D/$NIC/driver/unbind
        test ! -e $D/$NIC/driver
        printf vfio-pci >$D/$NIC/driver_override
        cat $D/$NIC/driver_override
        echo $NIC >$P/vfio-pci/bind
        readlink $D/$NIC/driver
        basename $(readlink -f $D/$NIC/driver/module)
        ls $D/$NIC/vfio-dev /dev/vfio
        cd $(readlink -f $D/$NIC) && cat vfio-dev/vfio0/device/vendor
        grep DRIVER $D/$NIC/uevent",
    );
    assert_eq!(
        printed,
        "vfio-pci\n../../../bus/pci/drivers/vfio-pci\nvfio_pci\n/dev/vfio:\n2\nvfio\n\n\
         /sys/bus/pci/devices/0000:00:02.0/vfio-dev:\nvfio0\n0x8086\nDRIVER=vfio-pci\n"
    );
}

#[test]
fn errors_reach_the_writer() {
    sh(
        &[],
        "fails 'No such device' put 0000:7f:00.0 $P/e1000e/bind
        fails 'busy' put $NIC $P/e1000e/bind
        fails 'out of range' put 9 $D/$PF/sriov_numvfs
        fails 'Invalid argument' put many $D/$PF/sriov_numvfs
        fails 'Permission denied' put 1 $D/$NIC/vendor
        fails 'Permission denied' put 1 $D/$NIC/nothing
        fails 'Permission denied' cat $P/e1000e/bind
        fails 'No such file' cat $D/$NIC/nothing
        fails 'not permitted' rm $D/$NIC/driver
        fails 'not permitted' mkdir $D/$NIC/new
        printf '' >$D/$NIC/driver_override
        printf '\\0' >$D/$NIC/driver_override",
    );
}

#[test]
fn the_namespace_looks_like_the_host() {
    let fixture = Fixture::new();
    fixture.file("etc/vfioctl.d/a.toml", "x = 1\n");
    fixture.file("etc/modprobe.d/b.conf", "blacklist b\n");
    let script = "set -e
        cat /proc/sys/kernel/osrelease; ls /lib/modules
        cat /etc/vfioctl.d/a.toml; ls /etc/driverctl.d /etc/modprobe.d /run/vfioctl
        echo more >>/etc/vfioctl.d/a.toml; echo y >/etc/vfioctl.d/new.toml; mkdir /etc/other
        command -v modprobe
        test \"$(stat -f -c %T /sys)\" = fuseblk || test \"$(stat -f -c %T /sys)\" = fuse";
    let printed = fixture.sh(&[], script);
    assert_eq!(
        printed,
        format!(
            "{RELEASE}\n{RELEASE}\nx = 1\n/etc/driverctl.d:\n\n/etc/modprobe.d:\nb.conf\n\n/run/vfioctl:\n\
             /run/simhost/bin/modprobe\n"
        )
    );
    let kept = fs::read_to_string(fixture.path().join("etc/vfioctl.d/a.toml")).unwrap();
    assert_eq!(kept, "x = 1\n", "the fixture is not written to");
    assert!(!Path::new("/etc/other").exists(), "nor is the machine");
    assert_eq!(mounts(), Vec::<String>::new());
}

#[test]
fn the_commands_exit_status_is_simhosts() {
    let fixture = Fixture::new();
    for (script, status) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)] {
        assert_eq!(fixture.run(&[], script).status.code(), Some(status), "{script}");
    }
    let missing = Command::new(env!("CARGO_BIN_EXE_simhost"))
        .arg("run")
        .arg(fixture.path())
        .args(["--", "/no/such/program"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(127));
}

#[test]
fn wrong_faults_and_hosts_are_refused() {
    let fixture = Fixture::new();
    for (options, reason) in [
        (vec!["--fault", "0000:00:02.0:dance:block"], "is not a step"),
        (vec!["--fault", "0000:00:02.0:bind:errno=EWHAT"], "EWHAT"),
    ] {
        let output = fixture.run(&options, "true");
        assert!(!output.status.success());
        assert!(String::from_utf8_lossy(&output.stderr).contains(reason), "{output:?}");
    }
    let output = support::run(Path::new("/no/such/host"), &[], "true");
    assert_eq!(output.status.code(), Some(125));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/host"));
}

#[test]
fn the_journal_tells_what_was_done() {
    let fixture = Fixture::new();
    let journal = fixture.path().join("journal.json");
    let script = format!(
        "{NAMES}modprobe vfio-pci; echo $NIC >$P/e1000e/unbind; echo vfio-pci >$D/$NIC/driver_override
        echo $NIC >$P/vfio-pci/bind; put $NIC $P/vfio-pci/bind 2>/dev/null; echo a >/etc/vfioctl.d/x.toml"
    );
    fixture.sh(&["--journal", journal.to_str().unwrap()], &script);
    let document: Value = serde_json::from_str(&fs::read_to_string(journal).unwrap()).unwrap();
    let (before, after) = (&document["before"], &document["after"]);
    let device = |state: &Value| state["devices"]["0000:00:02.0"].clone();
    assert_eq!(
        device(before),
        serde_json::json!({"exists": true, "driver": "e1000e", "driver_override": null, "iommu_group": 2,
            "vfio_dev": [], "sriov_numvfs": null, "sriov_drivers_autoprobe": null})
    );
    assert_eq!(
        device(after),
        serde_json::json!({"exists": true, "driver": "vfio-pci", "driver_override": "vfio-pci", "iommu_group": 2,
            "vfio_dev": ["vfio0"], "sriov_numvfs": null, "sriov_drivers_autoprobe": null})
    );
    assert_eq!(before["policy"], serde_json::json!({}));
    assert_eq!(after["policy"], serde_json::json!({"x.toml": "a\n"}));
    assert_eq!(after["modules"], serde_json::json!(["e1000e", "igb", "vfio", "vfio_pci", "vfio_pci_core"]));
    let operations: Vec<(String, String, i64, Value)> = document["operations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|operation| {
            let text = |name: &str| operation[name].as_str().unwrap().to_owned();
            (text("path"), text("data"), operation["result"].as_i64().unwrap(), operation["error"].clone())
        })
        .collect();
    let nic = "0000:00:02.0\n".to_owned();
    let well = Value::Null;
    assert_eq!(
        operations,
        [
            ("modprobe".into(), "vfio-pci".into(), 0, well.clone()),
            ("/sys/bus/pci/drivers/e1000e/unbind".into(), nic.clone(), 0, well.clone()),
            ("/sys/devices/pci0000:00/0000:00:02.0/driver_override".into(), "vfio-pci\n".into(), 0, well.clone()),
            ("/sys/bus/pci/drivers/vfio-pci/bind".into(), nic.clone(), 0, well),
            ("/sys/bus/pci/drivers/vfio-pci/bind".into(), nic, 16, "EBUSY".into()),
        ]
    );
    assert_eq!(document["operations"][1]["command"], "bash");
}

#[test]
fn errors_come_when_they_are_asked_for() {
    sh(
        &[
            "--fault",
            "0000:00:02.0:unbind:errno=EIO:once",
            "--fault",
            "0000:00:03.0:bind:errno=EIO:nth=2",
            "--fault",
            "0000:00:02.0:override:errno=ENOMEM",
            "--fault",
            "0000:01:00.0:sriov:errno=ENOSPC",
            "--fault",
            "0000:00:02.0:probe:errno=ENXIO",
            "--fault",
            "0000:00:03.0:drivers_probe:errno=EINVAL:once",
        ],
        "fails 'Input/output' put $NIC $P/e1000e/unbind
        test -e $D/$NIC/driver || exit 1
        put $NIC $P/e1000e/unbind || exit 1
        fails 'No such device or address' put $NIC $P/e1000e/bind
        test ! -e $D/$NIC/driver || exit 1
        put $NIC /sys/bus/pci/drivers_probe || exit 1
        fails 'allocate memory' put x $D/$NIC/driver_override
        fails 'No space' put 1 $D/$PF/sriov_numvfs
        fails 'Invalid argument' put $TWIN /sys/bus/pci/drivers_probe
        put $TWIN $P/e1000e/bind && put $TWIN $P/e1000e/unbind || exit 1
        fails 'Input/output' put $TWIN $P/e1000e/bind
        put $TWIN $P/e1000e/bind",
    );
}

#[test]
fn a_deferred_probe_is_eagain_or_einval() {
    sh(
        &["--fault", "0000:00:03.0:probe:errno=EPROBE_DEFER"],
        "fails 'temporarily unavailable' put $TWIN $P/e1000e/bind
        fails 'Invalid argument' put $TWIN /sys/bus/pci/drivers_probe",
    );
}

#[test]
fn a_blocked_unbind_shows_what_the_kernel_shows_and_holds_nothing_else_up() {
    let printed = sh(
        &["--fault", "0000:00:02.0:unbind:block"],
        "modprobe vfio-pci
        put $NIC $P/e1000e/unbind & writer=$!
        while [ -e $D/$NIC/driver ]; do sleep 0.01; done
        simhost ctl blocked
        cat $D/$NIC/driver_override
        grep DRIVER $D/$NIC/uevent
        put $NIC /sys/bus/pci/drivers_probe && echo probed
        put vfio-pci $D/$NIC/driver_override
        fails 'No such device' put $NIC $P/e1000e/bind
        put $TWIN $P/e1000e/bind && put $TWIN $P/e1000e/unbind && echo others work
        timeout 0.2 cat $D/$PF/sriov_numvfs
        put $NIC $P/vfio-pci/bind & binder=$!
        sleep 0.1; kill -0 $binder && echo bind waits
        kill -9 $writer; sleep 0.05; grep State /proc/$writer/status
        simhost ctl release $NIC
        wait $binder && echo bound
        basename $(readlink $D/$NIC/driver)",
    );
    assert_eq!(
        printed,
        "[\n  \"0000:00:02.0:unbind\"\n]\n(null)\nDRIVER=e1000e\nprobed\nothers work\n0\nbind waits\n\
         State:\tD (disk sleep)\n[\n  \"0000:00:02.0:unbind\"\n]\nbound\nvfio-pci\n"
    );
}

#[test]
fn old_kernels_make_readers_wait_for_the_device_lock() {
    let fixture = Fixture::with_release("6.1.0-56-amd64");
    let script = "put $NIC $P/e1000e/unbind &
        while [ -e $D/$NIC/driver ]; do sleep 0.01; done
        cat $D/$NIC/driver_override >/run/one & one=$!
        cat $D/$NIC/uevent >/run/two & two=$!
        sleep 0.1; kill -0 $one && kill -0 $two && echo they wait
        cat $D/$NIC/vendor
        simhost ctl release >/run/three; wait; cat /run/one; cat /run/two";
    let printed = fixture.sh(&["--fault", "0000:00:02.0:unbind:block"], &format!("{NAMES}{script}"));
    assert!(printed.starts_with("they wait\n0x8086\n(null)\nPCI_SLOT_NAME"), "{printed}");
}

#[test]
fn a_slow_probe_shows_its_link_and_takes_its_time() {
    let printed = sh(
        &["--fault", "0000:00:03.0:probe:delay=300"],
        "put $TWIN $P/e1000e/bind & writer=$!
        while [ ! -e $D/$TWIN/driver ]; do sleep 0.01; done
        test -e $D/$TWIN/net && echo too early
        kill -0 $writer && echo under way
        wait $writer; ls $D/$TWIN/net",
    );
    assert_eq!(printed, "under way\neth0\n");
}

#[test]
fn a_device_that_vanishes_is_gone_and_comes_back_by_a_rescan() {
    let printed = sh(
        &["--fault", "*:unbind:vanish:once"],
        "put $NIC $P/e1000e/unbind; echo $?
        ls $D; ls -d $P/e1000e/$NIC 2>&1 | grep -c 'No such'
        put 1 /sys/bus/pci/rescan; basename $(readlink $D/$NIC/driver)",
    );
    assert_eq!(printed, "0\n0000:00:01.0\n0000:00:03.0\n0000:00:04.0\n0000:01:00.0\n1\ne1000e\n");
}

#[test]
fn a_file_of_a_device_that_went_is_enodev() {
    sh(
        &[],
        "exec 3>$D/$NIC/driver_override 4<$D/$NIC/vendor
        put 1 $D/$NIC/remove
        fails 'No such device' bash -c 'echo x >&3'
        fails 'No such device' cat <&4",
    );
}

#[test]
fn modprobe_is_kmods() {
    let fixture = Fixture::new();
    fixture.file("etc/modprobe.d/x.conf", "blacklist vf_vfio_pci\nalias nick vfio-pci\n");
    let script = "
        A=vfio_pci:v00008086d00001520sv00000000sd00000000bc02sc00i00
        modprobe -R $A
        modprobe -n -v vfio-pci nointxmask=1
        ls /sys/module
        modprobe nick; modprobe -b vf_vfio_pci; modprobe $A; ls /sys/module
        modprobe pcieport; echo $?
        modprobe -q foo; echo $?
        modprobe foo 2>&1; echo $?
        modprobe -a -q foo igbvf; echo $?
        modprobe -r vfio 2>&1; echo $?
        modprobe -r vfio-pci; echo $?
        modprobe -r pcieport 2>&1; echo $?
        env -i /sbin/modprobe vfio; echo $?
        ls /sys/module";
    let printed = fixture.sh(&[], script);
    let path = format!("/lib/modules/{RELEASE}");
    assert_eq!(
        printed,
        format!(
            "vfio_pci\nvf_vfio_pci\ninsmod {path}/kernel/vfio.ko \ninsmod {path}/kernel/vfio-pci-core.ko \n\
             insmod {path}/kernel/vfio-pci.ko nointxmask=1\ne1000e\nigb\n\
             e1000e\nigb\nvfio\nvfio_pci\nvfio_pci_core\n0\n1\n\
             modprobe: FATAL: Module foo not found in directory {path}\n1\n1\n\
             modprobe: FATAL: Module vfio is in use.\n1\n0\nmodprobe: FATAL: Module pcieport is builtin.\n1\n0\n\
             e1000e\nigb\nigbvf\nvfio\n"
        )
    );
}

#[test]
fn a_module_that_will_not_load_says_so() {
    let printed = sh(
        &["--fault", "module=vfio-pci-core:errno=EPERM:once"],
        "modprobe vfio-pci 2>&1; echo $?; ls /sys/module; modprobe vfio-pci; echo $?",
    );
    assert_eq!(
        printed,
        "modprobe: ERROR: could not insert 'vfio_pci_core': Operation not permitted\n1\ne1000e\nigb\nvfio\n0\n"
    );
}

#[test]
fn tests_may_act_in_the_middle() {
    let printed = sh(
        &[],
        "simhost ctl fault $TWIN:bind:errno=EIO
        fails 'Input/output' put $TWIN $P/e1000e/bind
        simhost ctl state | grep -c driver_override
        simhost ctl journal | grep -c EIO
        simhost ctl fault nonsense 2>&1; echo $?",
    );
    assert_eq!(printed, "5\n1\nsimhost: fault \"nonsense\": too short: WHERE:KIND[:WHEN]\n125\n");
}

#[test]
fn others_act_before_and_after_a_step() {
    let printed = sh(
        &["--fault", "*:override:errno=EIO"],
        "simhost ctl mend
        simhost ctl fault '0000:00:03.0:override:after=echo e1000e >/sys/bus/pci/devices/$DEVICE/driver_override:once'
        simhost ctl fault '0000:00:03.0:bind:before=cat /sys/bus/pci/devices/$DEVICE/driver_override >/run/seen; modprobe vfio-pci'
        simhost ctl fault 'module=vfio-pci:after=echo 1 >/sys/bus/pci/devices/0000:00:02.0/remove:once'
        put vfio-pci $D/$TWIN/driver_override; cat $D/$TWIN/driver_override
        put $TWIN $P/e1000e/bind; cat /run/seen; ls $D/$NIC 2>&1 | grep -c 'No such'",
    );
    assert_eq!(printed, "[]\ne1000e\ne1000e\n1\n");
}

#[test]
fn who_is_killed_at_a_step_has_begun_it() {
    let printed = sh(
        &["--fault", "0000:00:02.0:unbind:kill:once", "--fault", "module=vfio-pci:kill:once"],
        "sh -c \"sh -c 'echo $NIC >$P/e1000e/unbind; echo not said'; echo not said either\"; echo $?
        ls $D/$NIC/driver 2>&1 | grep -c 'No such'
        sh -c \"modprobe vfio-pci; echo not said\"; echo $?; ls -d $P/vfio-pci",
    );
    assert_eq!(printed, "137\n1\n137\n/sys/bus/pci/drivers/vfio-pci\n");
}

/// A run that has got to the point where it prints a line.
fn started(fixture: &Fixture, options: &[&str], script: &str) -> (Child, String) {
    let script = format!("{NAMES}{script}");
    let mut command = command(fixture.path(), options, &script);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    (child, line.trim().to_owned())
}

fn is_alive(pid: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    !status.is_empty() && !status.contains("State:\tZ")
}

#[test]
fn killed_it_leaves_no_mount_and_no_process() {
    let fixture = Fixture::new();
    for signal in ["KILL", "TERM", "HUP"] {
        let script = "put $NIC $P/e1000e/unbind & writer=$!
            while [ -e $D/$NIC/driver ]; do sleep 0.01; done; echo $writer; wait";
        let (mut child, writer) = started(&fixture, &["--fault", "*:unbind:block"], script);
        assert!(is_alive(&writer));
        let pid = child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{signal}"), &pid]).status().unwrap().success());
        let status = child.wait().unwrap();
        assert!(!status.success(), "{signal}: {status}");
        eventually("the blocked writer ends", || !is_alive(&writer));
        assert_eq!(mounts(), Vec::<String>::new(), "{signal}");
    }
}

#[test]
fn what_a_command_leaves_behind_ends_with_it() {
    let fixture = Fixture::new();
    let script = "put $NIC $P/e1000e/unbind >/dev/null 2>&1 &
        while [ -e $D/$NIC/driver ]; do sleep 0.01; done
        setsid sleep 60 >/dev/null 2>&1 & echo $!; exit 3";
    let (mut child, pid) = started(&fixture, &["--fault", "*:unbind:block"], script);
    let mut rest = String::new();
    child.stdout.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    eventually("the sleeper ends", || !is_alive(&pid));
}

#[test]
fn two_hosts_at_once_do_not_see_each_other() {
    let fixture = Fixture::new();
    let (mut first, _) = started(&fixture, &[], "put $NIC $P/e1000e/unbind; echo on; exec sleep 60");
    let printed = succeed(fixture.run(&[], &format!("{NAMES}basename $(readlink $D/$NIC/driver)")));
    assert_eq!(printed, "e1000e\n");
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn every_fixture_of_the_repository_runs() {
    for host in support::fixtures() {
        let printed = succeed(support::run(&host, &[], "ls /sys/bus/pci/devices | wc -l; find /sys -type f | wc -l"));
        assert!(printed.lines().all(|count| count != "0"), "{}: {printed}", host.display());
    }
}
