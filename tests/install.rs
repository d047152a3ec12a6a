// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `make install` puts where, and whether rule and units call what is there.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use walkdir::WalkDir;

/// Installs into a directory of its own.
fn install(variables: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    install_into(root.path(), "install", variables);
    root
}

/// Installs what `target` is about.
fn install_into(root: &Path, target: &str, variables: &[&str]) {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).args(["--no-print-directory", target]);
    make.arg(format!("DESTDIR={}", root.display())).arg(format!("VFIOCTL={}", support::VFIOCTL));
    let output = support::run(make.args(variables));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The files and links installed, as they will be called.
fn installed(root: &Path) -> Vec<PathBuf> {
    let entries =
        WalkDir::new(root).into_iter().map(|entry| entry.unwrap()).filter(|entry| !entry.file_type().is_dir());
    entries.map(|entry| Path::new("/").join(entry.path().strip_prefix(root).unwrap())).collect()
}

/// The absolute paths of programs that a rule or a unit starts.
fn programs(text: &str) -> Vec<&str> {
    let starts = ["ExecStart=", "IMPORT{program}=\"", "RUN+=\""];
    let commands = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| starts.iter().filter_map(move |start| line.split_once(start).map(|(_, command)| command)));
    commands.map(|command| command.split([' ', '"']).next().unwrap()).collect()
}

#[test]
fn rule_and_units_call_what_is_installed() {
    for (variables, sbindir, units, rules) in [
        (vec![], "/usr/local/sbin", "/usr/local/lib/systemd/system", "/usr/local/lib/udev/rules.d"),
        (vec!["PREFIX=/usr"], "/usr/sbin", "/usr/lib/systemd/system", "/usr/lib/udev/rules.d"),
        (
            vec!["PREFIX=/usr", "SBINDIR=/usr/bin", "UDEVDIR=/lib/udev", "UNITDIR=/lib/systemd/system"],
            "/usr/bin",
            "/lib/systemd/system",
            "/lib/udev/rules.d",
        ),
    ] {
        let root = install(&variables);
        let files = installed(root.path());
        let mut called = 0;
        for path in [
            format!("{units}/vfioctl@.service"),
            format!("{units}/vfioctl-claim.service"),
            format!("{rules}/05-vfioctl.rules"),
        ] {
            let text =
                fs::read_to_string(root.path().join(&path[1..])).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(!text.contains("@sbindir@"), "{path}");
            for program in programs(&text) {
                assert_eq!(program, format!("{sbindir}/vfioctl"), "{path}");
                assert!(files.contains(&PathBuf::from(program)), "{path} calls {program}, which is not installed");
                called += 1;
            }
        }
        assert_eq!(called, 4);
        // It has to be on without anybody's turning it on, in /etc or elsewhere.
        let wanted = root.path().join(&units[1..]).join("sysinit.target.wants/vfioctl-claim.service");
        assert!(fs::read_to_string(wanted).unwrap().contains("vfioctl claim"));
        assert!(files.iter().all(|path| !path.starts_with("/etc")), "{files:?}");
    }
}

#[test]
fn the_hook_for_libvirt_calls_what_is_installed() {
    for (variables, prefix) in [(vec![], "/usr/local"), (vec!["PREFIX=/usr"], "/usr")] {
        let root = install(&variables);
        let hook = root.path().join(&prefix[1..]).join("share/vfioctl/libvirt-hook");
        assert_eq!(fs::metadata(&hook).unwrap().permissions().mode() & 0o777, 0o755);
        let text = fs::read_to_string(&hook).unwrap();
        let program = format!("{prefix}/sbin/vfioctl");
        assert!(
            text.starts_with("#!/bin/sh\n") && text.contains(&format!("exec {program} libvirt hook -- \"$@\"")),
            "{text}"
        );
        assert!(installed(root.path()).contains(&PathBuf::from(&program)));
        // For whoever wants it, not in force by itself.
        let rule = hook.with_file_name("06-vfioctl-reattach.rules");
        assert!(fs::read_to_string(rule).unwrap().contains("vfioctl@$kernel.service"));
    }
}

/// Early boot is a decision: `make install` alone makes none. Each builder finds its files where it looks, whatever PREFIX is,
/// and what they call is there.
#[test]
fn early_boot_is_installed_by_its_own_targets() {
    let programs = ["/usr/share/initramfs-tools/hooks/vfioctl", "/usr/lib/dracut/modules.d/50vfioctl/module-setup.sh"];
    let early = [
        ("install-initramfs-tools", vec![programs[0]]),
        (
            "install-dracut",
            vec![
                programs[1],
                "/usr/lib/dracut/modules.d/50vfioctl/vfioctl-claim.sh",
                "/usr/lib/dracut/modules.d/50vfioctl/vfioctl-initramfs.service",
            ],
        ),
        (
            "install-mkinitcpio",
            vec![
                "/usr/lib/initcpio/hooks/vfioctl",
                "/usr/lib/initcpio/install/vfioctl",
                "/usr/local/lib/systemd/system/vfioctl-initramfs.service",
            ],
        ),
    ];
    let root = install(&[]);
    let mut files = installed(root.path());
    for (target, expected) in early {
        install_into(root.path(), target, &[]);
        let now = installed(root.path());
        let mut new: Vec<&Path> = now.iter().filter(|path| !files.contains(path)).map(PathBuf::as_path).collect();
        new.sort();
        assert_eq!(new, expected.iter().map(Path::new).collect::<Vec<_>>(), "{target}");
        for path in new {
            let installed = root.path().join(path.strip_prefix("/").unwrap());
            let text = fs::read_to_string(&installed).unwrap();
            for line in text.lines() {
                assert!(!line.contains("dir@"), "{path:?}: {line}");
            }
            // Whoever runs it gets it by name; mkinitcpio reads its own.
            let is_program = programs.map(Path::new).contains(&path) || path.ends_with("vfioctl-claim.sh");
            assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o111 != 0, is_program, "{path:?}");
        }
        files = now;
    }
    for path in [programs[0], programs[1], "/usr/lib/initcpio/install/vfioctl"] {
        let text = fs::read_to_string(root.path().join(&path[1..])).unwrap();
        assert!(text.contains("    /usr/local/sbin/vfioctl initramfs "), "{path}: {text}");
    }
    let variables = [
        "DRACUTDIR=/opt/dracut",
        "INITRAMFSTOOLSDIR=/opt/initramfs-tools",
        "INITCPIODIR=/opt/initcpio",
        "UNITDIR=/opt",
    ];
    let elsewhere = tempfile::tempdir().unwrap();
    for target in ["install-dracut", "install-initramfs-tools", "install-mkinitcpio"] {
        install_into(elsewhere.path(), target, &variables);
    }
    let files = installed(elsewhere.path());
    assert!(files.len() == 7 && files.iter().all(|path| path.starts_with("/opt")), "{files:?}");
}

/// Each distribution has a place of its own for zsh's.
#[test]
fn completions_are_where_shells_look() {
    for (variables, expected) in [
        (vec![], "/usr/local/share/zsh/site-functions/_vfioctl"),
        (vec!["PREFIX=/usr", "ZSHDIR=/usr/share/zsh/vendor-completions"], "/usr/share/zsh/vendor-completions/_vfioctl"),
    ] {
        let root = install(&variables);
        let text = fs::read_to_string(root.path().join(&expected[1..])).unwrap();
        assert!(text.starts_with("#compdef vfioctl"), "{expected}");
    }
}

#[test]
fn installing_twice_changes_nothing() {
    let root = install(&["PREFIX=/usr"]);
    let first = installed(root.path());
    let destdir = format!("DESTDIR={}", root.path().display());
    let vfioctl = format!("VFIOCTL={}", support::VFIOCTL);
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).args(["install", "PREFIX=/usr", &destdir, &vfioctl]);
    assert!(support::run(&mut make).status.success());
    assert_eq!(installed(root.path()), first);
}

/// The rule looks where the policy is read.
#[test]
fn the_rule_knows_every_policy_directory() {
    let rule = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/udev/05-vfioctl.rules.in")).unwrap();
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("data/systemd/vfioctl-claim.service.in"))
        .unwrap();
    let host = vfioctl::host::Host::new(Path::new("/"), None).unwrap();
    for directory in host.policy_directories() {
        let directory = directory.display();
        assert!(rule.contains(&format!("TEST==\"{directory}/$kernel.toml\"")), "{directory}");
        assert!(unit.contains(&format!("ConditionDirectoryNotEmpty=|{directory}\n")), "{directory}");
    }
}

/// systemd takes the units as they are, and finds as little to be had through them as was meant.
#[test]
fn units_are_sound_and_shut() {
    let root = install(&[]);
    let units = root.path().join("usr/local/lib/systemd/system");
    // As exposed, in tenths, as what they do makes necessary (systemd.exec(5)).
    for (name, exposure) in [("vfioctl-claim.service", 35), ("vfioctl@.service", 85)] {
        let unit = units.join(name);
        let text = fs::read_to_string(&unit).unwrap();
        // Verified by the name of a program that is here.
        let program = format!("ExecStart={}", support::VFIOCTL);
        fs::write(&unit, text.replace("ExecStart=/usr/local/sbin/vfioctl", &program)).unwrap();
        let output = support::run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit));
        let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !complaints.contains(name), "{complaints}");
        let threshold = format!("--threshold={exposure}");
        let mut analyze = Command::new("systemd-analyze");
        let output = support::run(analyze.args(["security", "--offline=true", "--no-pager", &threshold]).arg(&unit));
        assert!(output.status.success(), "{}", support::transcript(&output));
        // Each of these would keep it from its work, however good it looks in that list.
        for option in [
            "ProtectKernelTunables",
            "ProtectKernelModules",
            "ProtectProc",
            "ProcSubset",
            "PrivateTmp",
            "PrivateDevices",
            "ProtectClock",
            "DeviceAllow",
            "NoNewPrivileges",
            "PrivateUsers",
            "User",
            "DynamicUser",
        ] {
            assert!(!text.lines().any(|line| line.starts_with(&format!("{option}="))), "{name}: {option}");
        }
    }
}
