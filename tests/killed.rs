// SPDX-License-Identifier: MIT OR Apache-2.0
//! The program killed by SIGKILL at any point of its work: the next run puts right what was left half done, and says so.
//!
//! The sweeps have strace kill it before one system call after the other, from the device's lock on. Those that are killed at
//! a step hang there (a fault of the simulated host), so that it is known where.

mod support;

use std::panic;
use std::thread;

use support::ran::{Ran, on};

const VF: &str = "0000:3b:00.1";
const PF: &str = "0000:3b:00.0";

/// What the scripts have in common. `state DEVICE` prints its driver, its override, the files of policy and what is left of
/// runs; `until_so TEST` waits; `killed COMMAND` runs one until something hangs, and kills it.
const COMMON: &str = r#"
S=/sys/bus/pci/devices
left() { ls -A "$1" 2>/dev/null | tr '\n' ' ' | sed 's/ $//; s/ /,/g'; }
state() {
    d=$(readlink $S/$1/driver); d=${d##*/}
    echo "${d:-none} $(cat $S/$1/driver_override) policy=$(left /etc/vfioctl.d) left=$(left /run/vfioctl/unfinished)"
}
until_so() {
    n=0
    until eval "$1"; do
        n=$((n + 1)); [ $n -lt 1000 ] || { echo "waited in vain for $1" >&2; exit 99; }
        sleep 0.01
    done
}
killed() {
    "$@" >/dev/null 2>&1 & pid=$!
    until_so 'simhost ctl blocked | grep [a-z] >/dev/null'
    kill -9 $pid; wait $pid 2>/dev/null
}
"#;

fn script(host: &str, faults: &[&str], script: &str) -> Ran {
    let text = format!("vfioctl={}\n{COMMON}{script}", support::VFIOCTL);
    on(&support::fixtures().join(host), faults, &["sh", "-c", &text])
}

/// Which system calls it is killed at.
enum Points {
    /// All.
    All,
    /// Those that leave something behind.
    Lasting,
    /// Those of them that are about devices and records.
    Steps,
}

/// What is swept.
struct Sweep<'a> {
    host: &'a str,
    device: &'a str,
    /// Done before the run that is killed.
    before: &'a str,
    killed: &'a str,
    next: &'a str,
    /// Makes all as it was at first.
    after: &'a str,
    points: Points,
}

/// How one run was left, and what the next made of it.
#[derive(Debug)]
struct Point {
    _place: String,
    left: String,
    status: String,
    state: String,
    said: String,
}

/// Kills a run at each point. All points are many: parts of them are gone through beside each other.
fn sweep(sweep: &Sweep) -> Vec<Point> {
    let parts = if matches!(sweep.points, Points::All) { 3 } else { 1 };
    let points: Vec<Point> = thread::scope(|scope| {
        let parts: Vec<_> = (0..parts).map(|part| scope.spawn(move || sweep_part(sweep, part, parts))).collect();
        parts.into_iter().flat_map(|part| part.join().unwrap_or_else(|panic| panic::resume_unwind(panic))).collect()
    });
    let (killed, half) =
        (count(&points, "137"), points.iter().filter(|point| point.left.contains(sweep.device)).count());
    assert!(killed >= 8 && half >= 3, "{killed} {half}");
    points
}

/// The same of one part of the points. The last run is one that came to its end.
fn sweep_part(sweep: &Sweep, part: usize, parts: usize) -> Vec<Point> {
    let Sweep { host, device, before, killed, next, after, points } = sweep;
    let filter = match points {
        Points::All => ".",
        Points::Steps => "^(sendmsg|rename|unlink) ",
        Points::Lasting => "^(sendmsg|rename|renameat|unlink|mkdir|fsync|write|clone3|exit_group) ",
    };
    let text = format!(
        r#"
        set -u
        {{ {before}; }} >&2
        strace -o /run/log $vfioctl {killed} >/dev/null 2>&1 || exit 9
        {{ {next}; }} >/dev/null 2>&1
        {{ {after}; }} >&2
        # Each call counts by itself; the first flock is the device's lock. Of calls in a row that only look, the first and
        # the last stand for all: between them nothing changes for anybody (what is closed the end of the process closes too).
        awk -F'(' '/^[a-z0-9_]+\(/ {{
                n[$1]++
                if ($1 == "flock") on = 1
                if (!on) next
                looks = $1 ~ /^(read|pread64|close|statx|readlink|getdents64|newfstatat|lseek)$/ ||
                    ($1 == "openat" && !/O_WRONLY|O_RDWR|O_CREAT/)
                if (looks && looked) {{ last = $1 " " n[$1]; next }}
                if (last) print last
                last = ""; looked = looks
                print $1, n[$1]
            }}
            END {{ if (last) print last }}' /run/log | grep -E '{filter}' |
            awk 'NR % {parts} == {part}' >/run/points
        # A point that is never come to: the run ends.
        echo 'flock 100' >>/run/points
        while read -r call number; do
            {{ {before}; }} >&2
            strace -o /dev/null -e trace=$call -e inject=$call:signal=SIGKILL:when=$number $vfioctl {killed} >/dev/null 2>&1
            killed=$?
            left=$(left /run/vfioctl/unfinished)
            {{ {next}; }} >/run/said 2>&1
            status=$?
            echo "$call $number|$killed $left|$status|$(state {device})|$(tr '\n' ' ' </run/said)"
            {{ {after}; }} >&2
        done </run/points"#
    );
    let ran = script(host, &[], &text);
    ran.assert_status(0);
    let points: Vec<Point> = ran
        .stdout
        .lines()
        .map(|line| {
            let parts: Vec<String> = line.splitn(5, '|').map(str::to_string).collect();
            let [_place, left, status, state, said] = parts.try_into().unwrap_or_else(|_| panic!("{line}"));
            Point { _place, left, status, state, said }
        })
        .collect();
    let last = points.last().unwrap_or_else(|| panic!("nothing was killed: {}", ran.stderr));
    assert!(last.left.starts_with("0 "), "{last:?}");
    for point in &points {
        assert!(point.left.starts_with("137") || point.left.trim() == "0", "{point:?}");
        assert_eq!(point.status, "0", "{point:?}");
        assert!(point.state.ends_with(" left="), "{point:?}");
        // What was left half done is spoken of, and nothing else.
        let has_record = point.left.split([' ', ',']).any(|name| name == *device);
        assert_eq!(point.said.contains("was killed"), has_record, "{point:?}");
    }
    points
}

fn count(points: &[Point], status: &str) -> usize {
    points.iter().filter(|point| point.left.starts_with(status)).count()
}

#[track_caller]
fn assert_states(points: &[Point], expected: &[&str]) {
    for point in points {
        assert!(expected.contains(&point.state.as_str()), "{point:?}");
    }
    // Each of them does occur.
    for state in expected {
        assert!(points.iter().any(|point| point.state == *state), "{state}");
    }
}

const NATIVE: &str = "mlx5_core (null) policy= left=";
const BOUND: &str = "mlx5_vfio_pci mlx5_vfio_pci policy=0000:3b:00.1.toml left=";

// ---- at any point

#[test]
fn a_bind_killed_at_any_point_is_finished_by_the_next() {
    let points = sweep(&Sweep {
        host: "connectx",
        device: VF,
        before: "true",
        killed: "bind 3b:00.1",
        next: "$vfioctl bind 3b:00.1",
        after: "$vfioctl unbind 3b:00.1",
        points: Points::All,
    });
    assert!(points.len() > 80, "{}", points.len());
    assert_states(&points, &[BOUND]);
}

#[test]
fn a_bind_killed_at_any_point_is_undone_by_apply() {
    let points = sweep(&Sweep {
        host: "connectx",
        device: VF,
        before: "true",
        killed: "bind 3b:00.1",
        next: "$vfioctl apply",
        after: "$vfioctl unbind 3b:00.1",
        points: Points::Lasting,
    });
    // All of it or nothing: what was chosen is in force once its file is, and not before.
    assert_states(&points, &[NATIVE, BOUND]);
}

#[test]
fn a_bind_killed_at_any_point_can_be_given_back() {
    let points = sweep(&Sweep {
        host: "connectx",
        device: VF,
        before: "true",
        killed: "bind 3b:00.1",
        next: "$vfioctl unbind 3b:00.1",
        after: "true",
        points: Points::Lasting,
    });
    assert_states(&points, &[NATIVE]);
}

fn unbind_killed(next: &str, expected: &[&str]) {
    let points = sweep(&Sweep {
        host: "connectx",
        device: VF,
        before: "$vfioctl bind 3b:00.1",
        killed: "unbind 3b:00.1",
        next: &format!("$vfioctl {next}"),
        after: "$vfioctl unbind 3b:00.1",
        points: Points::Lasting,
    });
    assert_states(&points, expected);
}

#[test]
fn an_unbind_killed_at_any_point_is_undone_by_apply() {
    unbind_killed("apply", &[BOUND, NATIVE]);
}

#[test]
fn an_unbind_killed_at_any_point_is_finished_by_the_next() {
    unbind_killed("unbind 3b:00.1", &[NATIVE]);
}

#[test]
fn after_an_unbind_killed_at_any_point_the_device_can_be_bound() {
    unbind_killed("bind 3b:00.1", &[BOUND]);
}

#[test]
fn an_apply_killed_at_any_point_is_finished_by_the_next() {
    let points = sweep(&Sweep {
        host: "connectx",
        device: VF,
        before: "printf '[[device]]\\naddress = \"0000:3b:00.1\"\\ndriver = \"vfio-pci\"\\n' >/etc/vfioctl.d/50-x.toml",
        killed: "apply",
        next: "$vfioctl apply",
        after: "$vfioctl unbind 3b:00.1 2>&1",
        points: Points::Lasting,
    });
    assert_states(&points, &["vfio-pci vfio-pci policy=50-x.toml left="]);
}

fn vfs_half_made(next: &str, expected: &[&str]) {
    let vfs = "$(echo $(for v in $S/0000:3b:00.0/virtfn*; do d=$(readlink $v/driver); echo ${d##*/}:$(cat $v/driver_override); done))";
    let points = sweep(&Sweep {
        host: "connectx",
        device: PF,
        before: "$vfioctl sriov 3b:00.0 0 --force=interface && $vfioctl sriov 3b:00.0 3 && \
                 $vfioctl bind --no-save --driver vfio-pci 3b:00.3",
        killed: "sriov 3b:00.0 2 --driver vfio-pci --force=interface",
        next: &format!(
            "{{ $vfioctl {next}; status=$?; echo \"<$(cat $S/{PF}/sriov_numvfs) \
             $(cat $S/{PF}/sriov_drivers_autoprobe) {vfs}>\"; [ $status = 0 ]; }}"
        ),
        after: "true",
        points: Points::Steps,
    });
    for point in &points {
        let shown = point.said.split_once('<').and_then(|(_, rest)| rest.split_once('>')).unwrap().0;
        assert!(expected.contains(&shown), "{point:?}");
    }
}

#[test]
fn vfs_half_made_are_made_anew() {
    vfs_half_made("sriov 3b:00.0 2 --driver vfio-pci", &["2 1 vfio-pci:vfio-pci vfio-pci:vfio-pci"]);
}

#[test]
fn vfs_half_made_are_put_back() {
    vfs_half_made(
        "apply",
        &["3 1 mlx5_core:(null) mlx5_core:(null) vfio-pci:vfio-pci", "2 1 vfio-pci:vfio-pci vfio-pci:vfio-pci"],
    );
}

// ---- while the kernel or a program is at it

#[test]
fn what_the_killed_run_had_the_kernel_do_is_waited_for() {
    let writes = ["driver_override mlx5_vfio_pci", "mlx5_core/unbind 0000:3b:00.1"];
    let ran = script(
        "connectx",
        &["0000:3b:00.1:unbind:block:once"],
        "killed $vfioctl bind 3b:00.1
         $vfioctl apply --json & sleep 0.7
         simhost ctl journal | grep -c '\"data\"' >&2
         simhost ctl release >/dev/null; wait $!; state 0000:3b:00.1 >&2",
    );
    ran.assert_status(0);
    // The device's lock is held by whoever is still at it: meanwhile the next has written nothing.
    assert_eq!(ran.stderr.lines().collect::<Vec<_>>(), ["2", NATIVE], "{}", ran.stderr);
    assert_eq!(ran.writes()[..2], writes);
    assert_eq!(ran.writes()[2..], ["driver_override mlx5_core", "mlx5_core/bind 0000:3b:00.1", "driver_override"]);
    let result = ran.result();
    assert_eq!(result["outcome"], "put-back");
    let steps: Vec<&str> = result["steps"].as_array().unwrap().iter().map(|s| s["step"].as_str().unwrap()).collect();
    assert_eq!(steps, ["override", "bind", "clear-override", "put-back"]);
    let warning = result["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("an earlier 'vfioctl bind' was killed: put back: it is on mlx5_core, no override"),
        "{warning}"
    );
    ran.assert_as_before();
}

#[test]
fn a_device_that_is_still_stuck_is_not_touched_and_put_back_later() {
    let ran = script(
        "connectx",
        &["0000:3b:00.1:unbind:block:once"],
        "killed $vfioctl bind 3b:00.1
         $vfioctl apply --timeout 1 3b:00.1; echo $?; ls /run/vfioctl/unfinished
         simhost ctl release >/dev/null; $vfioctl apply; state 0000:3b:00.1",
    );
    ran.assert_status(0);
    assert!(ran.stderr.contains("the kernel has not finished: vfioctl (pid "), "{}", ran.stderr);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines, ["7", "0000:3b:00.1", "0000:3b:00.1: put back, on mlx5_core", NATIVE], "{}", ran.stderr);
}

#[test]
fn a_module_that_is_being_loaded_does_not_take_the_device_afterwards() {
    let ran = script(
        "connectx",
        &["module=mlx5_vfio_pci:block:once"],
        "killed $vfioctl bind 3b:00.1; state 0000:3b:00.1
         $vfioctl apply >/dev/null; state 0000:3b:00.1
         simhost ctl release >/dev/null
         until_so '[ -e /sys/bus/pci/drivers/mlx5_vfio_pci ]'
         state 0000:3b:00.1; $vfioctl bind 3b:00.1 >/dev/null; state 0000:3b:00.1",
    );
    ran.assert_status(0);
    let half = "none mlx5_vfio_pci policy=.0000:3b:00.1.draft left=0000:3b:00.1";
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), [half, NATIVE, NATIVE, BOUND], "{}", ran.stderr);
}

#[test]
fn what_was_prepared_is_undone_also_if_it_was_killed_meanwhile() {
    // The second step is killed while it runs: it may have done its work.
    let policy = "[[device]]\naddress = \"0000:3b:00.1\"\ndriver = \"auto\"\nprepare = [\
        { run = [\"/run/x/do\", \"1\"], undo = [\"/run/x/undo\", \"1\"] }, \
        { run = [\"/run/x/do\", \"2\"], undo = [\"/run/x/undo\", \"2\"] }, \
        { run = [\"/run/x/do\", \"3\"], undo = [\"/run/x/undo\", \"3\"] }]\n";
    let ran = script(
        "connectx",
        &[],
        &format!(
            "mkdir /run/x; cat >/etc/vfioctl.d/50-x.toml <<'END'\n{policy}END\n
             printf '#!/bin/sh\\necho do $1 >>/run/x/log; [ $1 != 2 ] || exec sleep 30\\n' >/run/x/do
             printf '#!/bin/sh\\necho undo $1 >>/run/x/log\\n' >/run/x/undo
             chmod +x /run/x/do /run/x/undo
             $vfioctl apply >/dev/null 2>&1 & pid=$!
             until_so 'grep -qs do.2 /run/x/log'
             kill -9 $pid; wait $pid
             rm /etc/vfioctl.d/50-x.toml
             $vfioctl apply; cat /run/x/log; state 0000:3b:00.1"
        ),
    );
    ran.assert_status(0);
    let lines: Vec<&str> = ran.stdout.lines().collect();
    let put_back = "0000:3b:00.1: put back, on mlx5_core";
    assert_eq!(lines, [put_back, "do 1", "do 2", "undo 2", "undo 1", NATIVE], "{}", ran.stderr);
}

/// A module that the killed run has begun to load takes the device just before its override is cleared.
#[test]
fn what_is_taken_while_it_is_put_back_is_put_back_as_well() {
    let faults = ["0000:3b:00.3:override:kill:nth=1", "0000:3b:00.3:override:before=modprobe mlx5_vfio_pci:nth=2"];
    let ran = script("connectx", &faults, "$vfioctl bind 3b:00.3 >/dev/null 2>&1; $vfioctl apply");
    ran.assert_status(0);
    assert!(ran.stderr.contains("put back: it is on no driver"), "{}", ran.stderr);
    assert!(ran.writes().iter().any(|write| write == "mlx5_vfio_pci/unbind 0000:3b:00.3"), "{:?}", ran.writes());
    ran.assert_as_before();
}

#[test]
fn a_pf_killed_while_its_vfs_are_made_is_put_back_once_that_is_over() {
    let ran = script(
        "connectx",
        &["0000:3b:00.0:sriov:block:nth=2"],
        "killed $vfioctl sriov 3b:00.0 6
         (sleep 0.5; simhost ctl release >/dev/null) &
         $vfioctl sriov 3b:00.0 >&2
         $vfioctl apply; state 0000:3b:00.0; cat $S/0000:3b:00.0/sriov_numvfs $S/0000:3b:00.0/sriov_drivers_autoprobe",
    );
    ran.assert_status(0);
    let warning = "an earlier 'vfioctl sriov' was killed: it had 4 VFs and was to have 6; put back: it has 4 VFs, \
                   sriov_drivers_autoprobe 1";
    assert!(ran.stderr.contains(warning), "{}", ran.stderr);
    assert!(ran.stdout.ends_with("\n4\n1\n"), "{}", ran.stdout);
    // With their drivers, as far as they had some.
    ran.assert_as_before();
}

#[test]
fn vfs_that_are_used_by_now_stay() {
    let ran = script(
        "connectx",
        &["0000:3b:00.0:vf_autoprobe:block:nth=2"],
        "$vfioctl sriov 3b:00.0 0 >/dev/null
         killed $vfioctl sriov 3b:00.0 2 --driver vfio-pci; simhost ctl release >/dev/null
         exec 3<>/dev/vfio/$(basename $(readlink $S/0000:3b:00.1/iommu_group))
         $vfioctl apply; cat $S/0000:3b:00.0/sriov_numvfs $S/0000:3b:00.0/sriov_drivers_autoprobe; ls /run/vfioctl/unfinished",
    );
    ran.assert_status(0);
    assert!(ran.stderr.contains("the VFs were left as they are: 0000:3b:00.0: VFs are in use"), "{}", ran.stderr);
    assert!(ran.stdout.ends_with("\n2\n1\n"), "{}", ran.stdout);
}

/// Binds the four VFs that there are, two of them native ones, and is killed when three are done. The driver is there before:
/// else it is its module's loading that comes to the fourth and blocks, for all of them.
const KILLED_BINDING_VFS: &str = r#"
modprobe vfio-pci
$vfioctl sriov 3b:00.0 4 --driver vfio-pci >/dev/null 2>&1 & pid=$!
D=/sys/bus/pci/drivers/vfio-pci
until_so '[ -e $D/0000:3b:00.1 ] && [ -e $D/0000:3b:00.2 ] && [ -e $D/0000:3b:00.3 ]'
until_so '[ "$(left /run/vfioctl/unfinished)" = 0000:3b:00.0,0000:3b:00.4 ] && simhost ctl blocked | grep [a-z] >/dev/null'
kill -9 $pid; wait $pid 2>/dev/null
simhost ctl release >/dev/null; flock /run/vfioctl/0000:3b:00.4.lock true
"#;
const LAST_VF_BLOCKS: &str = "0000:3b:00.4:probe:block:once";

#[test]
fn vfs_that_were_only_bound_go_back_but_for_those_that_somebody_has_taken_since() {
    let text = format!(
        "{KILLED_BINDING_VFS}
         cat >/run/domain <<'END'
<domain type='kvm'><name>guest</name><uuid>c7a5fdbd-edaf-9455-926a-d65c16db1809</uuid><devices>
<hostdev mode='subsystem' type='pci' managed='yes'>
<source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x4'/></source></hostdev>
</devices></domain>
END
         $vfioctl bind --no-save --driver mlx5_vfio_pci 3b:00.1 >&2
         $vfioctl libvirt hook --libvirt-version 11.3.0 -- guest prepare begin - </run/domain >&2
         of_guest=$(state 0000:3b:00.4)
         exec 3<>/dev/vfio/$(basename $(readlink $S/0000:3b:00.2/iommu_group))
         $vfioctl apply 3b:00.0; for vf in 1 2 3; do state 0000:3b:00.$vf; done
         [ \"$(state 0000:3b:00.4)\" = \"${{of_guest%left=*}}left=\" ]"
    );
    let ran = script("connectx", &[LAST_VF_BLOCKS], &text);
    ran.assert_status(0);
    let states: Vec<&str> = ran.stdout.lines().filter(|line| line.contains("policy=")).collect();
    let expected = ["mlx5_vfio_pci mlx5_vfio_pci", "vfio-pci vfio-pci", "none (null)"];
    assert_eq!(states, expected.map(|state| format!("{state} policy= left=")), "{}", ran.stderr);
    for words in [
        "an earlier 'vfioctl sriov' was killed: it had 4 VFs and was to have 4; put back: ",
        "left as it is: 0000:3b:00.1: it is on mlx5_vfio_pci, override \"mlx5_vfio_pci\", which is not its doing",
        "left as it is: 0000:3b:00.2 is in use: sh (pid ",
        "left as it is: 0000:3b:00.4 is that of libvirt's domain guest",
    ] {
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
}

#[test]
fn vfs_that_nobody_has_taken_all_go_back() {
    let ran = script("connectx", &[LAST_VF_BLOCKS], &format!("{KILLED_BINDING_VFS} $vfioctl apply"));
    ran.assert_status(0);
    assert!(!ran.stderr.contains("left as it is"), "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn what_the_policy_had_prepared_for_vfs_is_spoken_of() {
    let text = format!(
        "cat >/etc/vfioctl.d/50-x.toml <<'END'
[[device]]
address = \"0000:3b:00.1\"
driver = \"vfio-pci\"
prepare = [[\"true\"]]
END
         {KILLED_BINDING_VFS} rm /etc/vfioctl.d/50-x.toml; $vfioctl apply"
    );
    let ran = script("connectx", &[LAST_VF_BLOCKS], &text);
    ran.assert_status(0);
    let words = "what may have been prepared for 0000:3b:00.";
    assert_eq!(ran.stderr.matches(words).count(), 1, "{}", ran.stderr);
    assert!(ran.stderr.contains(&format!("{words}1 was not undone")), "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn a_vf_that_is_stuck_while_its_pf_is_put_back_is_put_back_later() {
    let text = format!(
        "{KILLED_BINDING_VFS}
         simhost ctl fault 0000:3b:00.2:unbind:block:once
         $vfioctl apply --timeout 1 3b:00.0; echo $?; left /run/vfioctl/unfinished; echo
         simhost ctl release >/dev/null; flock /run/vfioctl/0000:3b:00.2.lock true; $vfioctl apply >&2; echo $?"
    );
    let ran = script("connectx", &[LAST_VF_BLOCKS], &text);
    ran.assert_status(0);
    assert_eq!(ran.stdout.lines().collect::<Vec<_>>(), ["7", "0000:3b:00.0,0000:3b:00.4", "0"], "{}", ran.stderr);
    ran.assert_as_before();
}

#[test]
fn a_pf_that_could_not_be_put_back_is_no_success_of_the_next_sriov() {
    let text = format!(
        "{KILLED_BINDING_VFS} simhost ctl fault 0000:3b:00.1:bind:errno=EIO
         $vfioctl sriov 3b:00.0 4 --json; status=$?; left /run/vfioctl/unfinished >&2; exit $status"
    );
    let ran = script("connectx", &[LAST_VF_BLOCKS], &text);
    ran.assert_status(8);
    let document = ran.json();
    assert_eq!((&document["outcome"], &document["error"]["kind"]), (&"failed".into(), &"not-restored".into()));
    let message = document["error"]["message"].as_str().unwrap();
    assert!(message.contains("0000:3b:00.1: writing"), "{message}");
}

// ---- what is not put back

#[test]
fn what_somebody_else_has_done_since_is_left_so() {
    for (since, expected, words) in [
        (
            "echo igb >$S/0000:3b:00.1/driver_override",
            "none igb policy= left=",
            "it is on no driver, override \"igb\", which is not its doing: it was left so",
        ),
        // Another device is at that address.
        (
            "echo 0 >$S/0000:3b:00.0/sriov_numvfs; echo 4 >$S/0000:3b:00.0/sriov_numvfs; \
             echo vfio-pci >$S/0000:3b:00.1/driver_override",
            "mlx5_core vfio-pci policy= left=",
            "that device is gone, and nothing is left to put back",
        ),
        // A guest has it.
        (
            "modprobe vfio-pci; echo 0000:3b:00.1 >/sys/bus/pci/drivers_probe; \
             exec 3<>/dev/vfio/$(basename $(readlink $S/0000:3b:00.1/iommu_group))",
            "vfio-pci vfio-pci policy= left=",
            "it was left so: 0000:3b:00.1 is in use: sh (pid",
        ),
    ] {
        let text = format!(
            "killed $vfioctl bind --driver vfio-pci 3b:00.1; simhost ctl release >/dev/null
             until_so '[ ! -e $S/0000:3b:00.1/driver ]'
             {since}; $vfioctl apply; state 0000:3b:00.1"
        );
        let ran = script("connectx", &["0000:3b:00.1:unbind:block:once"], &text);
        ran.assert_status(0);
        assert_eq!(ran.stdout.lines().last(), Some(expected), "{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
    }
}

#[test]
fn a_record_that_others_could_have_written_is_set_aside() {
    for (spoil, words) in [
        ("chmod 666 $record", "may be written by others than root (mode 0666)"),
        ("chown 1000 $record", "is not root's"),
        ("echo '{' >$record", "EOF while parsing"),
        ("sed -i 's/\"schema\":1/\"schema\":9/' $record", "schema 9 is not known"),
    ] {
        let text = format!(
            "killed $vfioctl bind 3b:00.1; simhost ctl release >/dev/null
             until_so '[ ! -e $S/0000:3b:00.1/driver ]'
             record=/run/vfioctl/unfinished/0000:3b:00.1; {spoil}
             $vfioctl apply; state 0000:3b:00.1; $vfioctl unbind 3b:00.1; state 0000:3b:00.1"
        );
        let ran = script("connectx", &["0000:3b:00.1:unbind:block:once"], &text);
        ran.assert_status(0);
        assert!(ran.stderr.contains(words), "{words}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("the file is /run/vfioctl/unfinished/0000:3b:00.1.set-aside now"),
            "{}",
            ran.stderr
        );
        let states: Vec<&str> = ran.stdout.lines().filter(|line| line.contains("left=")).collect();
        let left = "left=0000:3b:00.1.set-aside";
        assert_eq!(states, [format!("none mlx5_vfio_pci policy= {left}"), format!("mlx5_core (null) policy= {left}")]);
    }
}

#[test]
fn what_cannot_be_put_back_is_said_and_does_not_stand_in_the_way() {
    let ran = script(
        "connectx",
        &["0000:3b:00.1:unbind:block:once", "0000:3b:00.1:probe:errno=EIO:once"],
        "killed $vfioctl bind 3b:00.1; simhost ctl release >/dev/null
         simhost ctl fault 0000:3b:00.1:bind:errno=EIO
         $vfioctl apply; echo $?; state 0000:3b:00.1; $vfioctl apply",
    );
    ran.assert_status(0);
    assert!(ran.stderr.contains("was killed: it could not be put back: 0000:3b:00.1: writing"), "{}", ran.stderr);
    assert!(ran.stdout.starts_with("8\nnone "), "{}", ran.stdout);
    assert!(ran.stdout.contains(" left=\n"), "{}", ran.stdout);
}

// ---- what is shown

#[test]
fn unfinished_work_shows_and_work_under_way_does_not() {
    let shown = "$vfioctl show --json 3b:00.1 | grep unfinished; $vfioctl list --json | grep -c unfinished
                 $vfioctl bind --dry-run 3b:00.1 | tail -n 1; echo end";
    let ran = script(
        "connectx",
        &["0000:3b:00.1:unbind:block:once"],
        &format!(
            "$vfioctl bind 3b:00.1 & pid=$!
             until_so 'simhost ctl blocked | grep [a-z] >/dev/null'
             {shown}
             kill -9 $pid; simhost ctl release >/dev/null; flock /run/vfioctl/0000:3b:00.1.lock true
             {shown}; state 0000:3b:00.1"
        ),
    );
    ran.assert_status(0);
    let (before, after) = ran.stdout.split_once("end\n").unwrap();
    assert!(before.starts_with("0\n"), "{before}");
    assert!(after.contains("\"unfinished\": \"bind\"\n1\n"), "{after}");
    let hint = "0000:3b:00.1: an earlier 'vfioctl bind' was killed at it: 'vfioctl apply 0000:3b:00.1' puts it back";
    assert_eq!(ran.stderr.matches(hint).count(), 2, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches("it is put back first, and these steps are from how it is now").count(), 1);
    // Who looks changes nothing.
    assert!(after.ends_with("none mlx5_vfio_pci policy=.0000:3b:00.1.draft left=0000:3b:00.1\n"), "{after}");
}

#[test]
fn work_that_comes_to_an_end_leaves_no_record() {
    for (faults, command, status) in [
        (&[][..], "bind 3b:00.1", 0),
        (&["0000:3b:00.1:probe:errno=EIO"][..], "bind --strict 3b:00.1", 8),
        (&["0000:3b:00.1:override:errno=EIO:once"][..], "bind --strict 3b:00.1", 1),
        (&["0000:3b:00.1:unbind:block"][..], "bind --timeout 1 3b:00.1", 7),
        (&["0000:3b:00.0:sriov:errno=EIO:nth=2"][..], "sriov 3b:00.0 6", 1),
        (&[][..], "sriov 3b:00.0 6", 0),
    ] {
        let ran = script(
            "connectx",
            faults,
            &format!("$vfioctl {command}; status=$?; left /run/vfioctl/unfinished; exit $status"),
        );
        ran.assert_status(status);
        assert!(!ran.stdout.ends_with("00.1") && !ran.stdout.ends_with("00.0"), "{command}: {}", ran.stdout);
    }
}
