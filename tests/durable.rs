// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is kept is on disk whole or not at all, whatever happens in between; and where nothing can be written, nothing is
//! half done.

mod support;

use support::ran::{Ran, on};

const VF: &str = "0000:3b:00.1";

fn script(faults: &[&str], script: &str) -> Ran {
    let text = format!("vfioctl={}\n{script}", support::VFIOCTL);
    on(&support::fixtures().join("connectx"), faults, &["sh", "-c", &text])
}

// ---- power cuts

/// The calls of one run that change what is in a directory or have it on disk, in order, with the files' names for their
/// descriptors.
fn calls(before: &str, run: &str, directory: &str) -> Vec<String> {
    let directory_ = directory;
    let ran = script(
        &[],
        &format!(
            "{{ {before}; }} >&2
             strace -f -y -e trace=openat,write,fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir \
                 -o /run/log $vfioctl {run} >&2 || exit 9
             cat /run/log"
        ),
    );
    ran.assert_status(0);
    let mut calls = Vec::new();
    for line in ran.stdout.lines().filter(|line| line.contains(directory_) && !line.contains("= -1 ")) {
        // The rest of a call that another thread's came in between: its beginning has counted.
        let call = line.split_once(' ').unwrap().1.trim_start();
        if call.starts_with("<... ") {
            continue;
        }
        let (name, rest) = call.split_once('(').unwrap_or_else(|| panic!("{line}"));
        // Paths are quoted, descriptors' are in angle brackets.
        let paths: Vec<&str> = rest.split(['"', '<', '>']).filter(|part| part.starts_with(directory_)).collect();
        let names: Vec<&str> = paths.iter().map(|path| path.strip_prefix(directory_).unwrap()).collect();
        match name {
            "openat" if !rest.contains("O_CREAT") => {}
            "openat" => calls.push(format!("create {}", names[0])),
            _ => calls.push(format!("{name} {}", names.join(" ")).trim_end().to_string()),
        }
    }
    calls
}

#[test]
fn a_choice_is_written_beside_its_place_and_is_on_disk_before_and_after_it_is_in_force() {
    let draft = format!("/.{VF}.draft");
    let saved = [
        format!("create {draft}"),
        format!("write {draft}"),
        format!("fsync {draft}"),
        format!("renameat {draft} /{VF}.toml"),
        "fsync".to_string(),
    ];
    assert_eq!(calls("true", "bind 3b:00.1", "/etc/vfioctl.d"), saved);
    // Also over one that is there.
    assert_eq!(calls("$vfioctl bind 3b:00.1", "bind --driver vfio-pci 3b:00.1", "/etc/vfioctl.d"), saved);
    let import = "echo vfio-pci >/etc/driverctl.d/pci-0000:3b:00.1";
    assert_eq!(calls(import, "import-driverctl --yes", "/etc/vfioctl.d"), saved);
    let aside = "renameat /pci-0000:3b:00.1 /imported-by-vfioctl.pci-0000:3b:00.1";
    let renamed = calls(import, "import-driverctl --yes", "/etc/driverctl.d");
    assert_eq!(renamed, [&aside.replace("renameat", "rename"), "fsync"]);
}

#[test]
fn a_choice_is_forgotten_for_good() {
    let forgotten = calls("$vfioctl bind 3b:00.1", "unbind 3b:00.1", "/etc/vfioctl.d");
    assert_eq!(forgotten, [format!("unlink /{VF}.toml"), "fsync".to_string()]);
}

#[test]
fn a_directory_that_is_made_lasts_as_well() {
    let made = calls("rm -rf /etc/vfioctl.d; umount /etc/vfioctl.d; rmdir /etc/vfioctl.d", "bind 3b:00.1", "/etc");
    let of_directory: Vec<&str> =
        made.iter().map(String::as_str).filter(|call| *call == "mkdir /vfioctl.d" || *call == "fsync").collect();
    assert_eq!(of_directory, ["mkdir /vfioctl.d", "fsync"], "{made:?}");
    assert_eq!(made.last().unwrap(), "fsync /vfioctl.d");
}

#[test]
fn nothing_below_run_waits_for_a_disk() {
    let policy = "printf '[[device]]\\nid = \"15b3:101e\"\\ndriver = \"vfio-pci\"\\n' >/etc/vfioctl.d/50-x.toml";
    let made = calls(policy, "apply", "/run");
    assert!(
        made.iter().any(|call| call.starts_with("rename") && call.contains("04-vfioctl-selectors.rules")),
        "{made:?}"
    );
    assert!(made.iter().any(|call| call.starts_with("rename /vfioctl/unfinished/")), "{made:?}");
    assert!(!made.iter().any(|call| call.contains("sync")), "{made:?}");
}

#[test]
fn what_a_killed_run_has_left_is_no_policy_and_goes_with_the_next() {
    for next in ["bind 3b:00.1", "unbind 3b:00.1", "apply", "apply 3b:00.1"] {
        let ran = script(
            &[],
            &format!(
                "printf '[[device]]\\naddress = \"{VF}\"\\ndriver = \"vfio-pci\"\\n' >/etc/vfioctl.d/.{VF}.draft
                 $vfioctl show {VF} | grep policy; $vfioctl {next} >&2; ls -A /etc/vfioctl.d"
            ),
        );
        ran.assert_status(0);
        assert!(ran.stdout.starts_with("  policy       none\n"), "{}", ran.stdout);
        assert!(!ran.stdout.contains("draft"), "{next}: {}", ran.stdout);
    }
}

// ---- nothing can be written

/// A file system of one page that is full.
fn full(at: &str) -> String {
    format!("mount -t tmpfs -o size=4k,mode=755 x {at}; head -c 4096 /dev/zero >{at}/filled")
}

fn read_only(at: &str) -> String {
    format!("mount --bind {at} {at} && mount -o remount,ro,bind {at}")
}

/// Runs a command where something cannot be written: the error names it and has this kind, and all is as before.
#[track_caller]
fn refused(before: &str, spoil: &str, command: &str, kind: &str, words: &str) {
    let seen = "cat $S/*/driver_override $S/*/sriov_numvfs $S/*/sriov_drivers_autoprobe; ls -l $S/*/driver | sed 's/.*-> //'; \
                ls -A /etc/vfioctl.d; cat /etc/vfioctl.d/*.toml; ls -A /run/vfioctl/unfinished";
    let ran = script(
        &[],
        &format!(
            "S=/sys/bus/pci/devices; {{ {before}; {spoil}; }} >&2
             seen() {{ {{ {seen}; }} 2>/dev/null; }}
             seen >/tmp/before.$$; $vfioctl --json {command}; status=$?
             seen >/tmp/after.$$; diff /tmp/before.$$ /tmp/after.$$ >&2 || status=99
             rm -f /tmp/before.$$ /tmp/after.$$; exit $status"
        ),
    );
    let document = ran.json();
    let results = document["results"].as_array().filter(|results| !results.is_empty());
    let error = results.map_or(&document["error"], |results| &results[0]["error"]);
    let is_named = error["message"].as_str().is_some_and(|message| message.contains(words));
    assert!(error["kind"] == kind && is_named, "{spoil}: {command}: {document:#}\n{}", ran.stderr);
    ran.assert_status(if kind == "permission" { 6 } else { 1 });
}

const KEEP: &str = "printf '[[device]]\\naddress = \"0000:3b:00.1\"\\ndriver = \"auto\"\\n' >/etc/vfioctl.d/50-x.toml";
const BOUND: &str = "$vfioctl bind 3b:00.1";

#[test]
fn a_full_disk_is_told_before_anything_is_touched() {
    let policy = full("/etc/vfioctl.d");
    refused("true", &policy, "bind 3b:00.1", "failed", "cannot write /etc/vfioctl.d/0000:3b:00.1.toml: No space left");
    let run = full("/run/vfioctl");
    for (before, command) in [
        ("true", "bind 3b:00.1"),
        ("true", "bind --no-save 3b:00.1"),
        (BOUND, "unbind 3b:00.1"),
        (KEEP, "apply 3b:00.1"),
        ("true", "sriov 3b:00.0 6"),
    ] {
        let address = if command.starts_with("sriov") { "0000:3b:00.0" } else { VF };
        let words = format!("cannot write /run/vfioctl/unfinished/{address}: No space left");
        refused(before, &run, command, "failed", &words);
    }
}

#[test]
fn what_is_read_only_is_told_before_anything_is_touched() {
    let policy = read_only("/etc/vfioctl.d");
    refused("true", &policy, "bind 3b:00.1", "permission", "/etc/vfioctl.d/0000:3b:00.1.toml: Read-only");
    refused(
        BOUND,
        &policy,
        "unbind 3b:00.1",
        "permission",
        "cannot remove /etc/vfioctl.d/0000:3b:00.1.toml: Read-only",
    );
    let run = read_only("/run/vfioctl");
    let sys = "mount -o remount,ro,bind /sys";
    for (before, command) in
        [("true", "bind 3b:00.1"), (BOUND, "unbind 3b:00.1"), (KEEP, "apply 3b:00.1"), ("true", "sriov 3b:00.0 6")]
    {
        refused(before, &run, command, "permission", "cannot lock /run/vfioctl/0000:3b:00.");
        refused(before, sys, command, "permission", "EROFS (Read-only file system");
    }
}

#[test]
fn a_read_only_etc_is_none_of_what_keeps_nothing() {
    let ran = script(
        &[],
        &format!(
            "{}; {}; $vfioctl apply 3b:00.1 && $vfioctl sriov 3b:00.0 6 --force=interface && $vfioctl bind --no-save 3b:00.3",
            KEEP,
            read_only("/etc/vfioctl.d")
        ),
    );
    ran.assert_status(0);
}

#[test]
fn who_may_not_is_told() {
    for (before, command) in
        [("true", "bind 3b:00.1"), (BOUND, "unbind 3b:00.1"), (KEEP, "apply 3b:00.1"), ("true", "sriov 3b:00.0 6")]
    {
        let ran = script(
            &[],
            &format!(
                "cp $vfioctl /run/copy; chmod 755 /run/copy; {{ {before}; }} >&2
                 setpriv --reuid=65534 --regid=65534 --clear-groups /run/copy {command}"
            ),
        );
        ran.assert_status(6);
        let named = ["/run/vfioctl", "/etc/vfioctl.d/0000:3b:00.1.toml"].iter().any(|name| ran.stderr.contains(name));
        assert!(named && ran.stderr.contains("Permission denied"), "{command}: {}", ran.stderr);
        assert!(ran.stderr.contains("this is for root"), "{}", ran.stderr);
    }
}

#[test]
fn the_record_is_for_root_alone() {
    let ran = script(
        &["0000:3b:00.1:unbind:delay=300"],
        "rm -rf /run/vfioctl; umask 000
         $vfioctl bind 3b:00.1 >&2 & sleep 0.2
         stat -c '%a' /run/vfioctl /run/vfioctl/unfinished /run/vfioctl/unfinished/*; wait $!",
    );
    ran.assert_status(0);
    assert_eq!(ran.stdout, "700\n700\n600\n", "{}", ran.stderr);
}
