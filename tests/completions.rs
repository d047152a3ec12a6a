// SPDX-License-Identifier: MIT OR Apache-2.0
//! Completions in the real shells, on terminals of their own, on a simulated host: what Tab makes of what was typed, and what is
//! listed.

mod support;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::CommandFactory;
use vfioctl::cli::Cli;
use vfioctl::cli::completion::ARGUMENT;

/// As `tests/completions/type.py` has them, and what each needs.
const SHELLS: [(&str, &str, &str); 4] = [
    ("bash", "/bin/bash", "bash"),
    ("bash-completion", "/usr/share/bash-completion/bash_completion", "bash-completion"),
    ("zsh", "/bin/zsh", "zsh"),
    ("fish", "/usr/bin/fish", "fish"),
];

/// What is typed, `\t` being Tab, and the words that vfioctl is then run with: the same in each shell.
const INSERTED: [(&str, &str); 22] = [
    ("vfioctl exp\t", "explain"),
    ("vfioctl bind 0000:02\t", "bind,0000:02:00.0"),
    ("nice vfioctl bind 0000:02\t", "bind,0000:02:00.0"),
    ("vfioctl bind 0000:3\t1", "bind,0000:3b:00.1"),
    ("vfioctl bind 3b:0\t1", "bind,3b:00.1"),
    ("vfioctl bind 3b:00.1 5\t", "bind,3b:00.1,5e:00.0"),
    // Bridges are not bound, nor is a device twice.
    ("vfioctl bind 3a:\t", "bind,3a:"),
    ("vfioctl bind 5e:00.0 5e\t", "bind,5e:00.0,5e"),
    ("vfioctl bind 3b:00.1 --driver m\t", "bind,3b:00.1,--driver,mlx5_vfio_pci"),
    ("vfioctl bind 3b:00.1 --driver=m\t", "bind,3b:00.1,--driver=mlx5_vfio_pci"),
    ("vfioctl bind 5e:00.0 --driver m\t", "bind,5e:00.0,--driver,m"),
    ("vfioctl bind --force=root\t", "bind,--force=root-disk"),
    // The value comes right behind it.
    ("vfioctl bind --fo\ttpm,netw\t", "bind,--force=tpm,network"),
    ("vfioctl sriov \t", "sriov,0000:3b:00.0"),
    ("vfioctl --kernel 7\tlist", "--kernel,7.0.0-43-generic,list"),
    ("vfioctl list --root /usr/shar\tzoneinf\t", "list,--root,/usr/share/zoneinfo"),
    ("vfioctl list --root=/usr/shar\t", "list,--root=/usr/share"),
    ("vfioctl libvirt ch\t/etc/passw\t", "libvirt,check,/etc/passwd"),
    // What was quoted is one word.
    ("vfioctl --root 'host one' bind 0000:02\t", "--root,host one,bind,0000:02:00.0"),
    ("vfioctl --root host\\ one bind 0000:02\t", "--root,host one,bind,0000:02:00.0"),
    ("vfioctl --root=\"host one\" bind 0000:02\t", "--root=host one,bind,0000:02:00.0"),
    ("vfioctl --root \"it's \\\"one\\\"\" bind 0000:02\t", "--root,it's \"one\",bind,0000:02:00.0"),
];

/// What is typed, what is listed, and what is not.
const LISTED: [(&str, &[&str], &[&str]); 6] = [
    ("vfioctl bind 3b:00.", &["3b:00.0", "3b:00.1", "3b:00.2", "3b:00.3", "3b:00.4"], &[]),
    ("vfioctl bind 0000:3b:00.1 0000:3b:00.", &["3b:00.0", "3b:00.2", "3b:00.3"], &[]),
    ("vfioctl bind 3b:00.1 --driver ", &["mlx5_vfio_pci", "vfio-pci", "none"], &["pds_vfio_pci"]),
    ("vfioctl bind --driver ", &["mlx5_vfio_pci", "pds_vfio_pci", "none"], &[]),
    ("vfioctl unbind 0000:3b:00.", &["3b:00.3", "3b:00.4"], &["3b:00.1", "3b:00.2"]),
    ("vfioctl sriov 3b:00.0 4 --", &["--driver", "--force=", "--keep-going", "--json"], &["--strict"]),
];

/// Descriptions, where the shell shows any.
const DESCRIBED: [(&str, &str); 3] = [
    ("vfioctl bind 3b:00.", "mlx5_core, Mellanox Technologies ConnectX"),
    ("vfioctl bind 3b:00.1 --driver ", "NVIDIA/Mellanox ConnectX VFs"),
    ("vfioctl s", "Show everything about one device"),
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The completions as they are installed, and a vfioctl that says what it is run with.
fn install() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).args(["--no-print-directory", "install", "PREFIX="]);
    make.arg(format!("DESTDIR={}", home.path().display())).arg(format!("VFIOCTL={}", support::VFIOCTL));
    assert!(support::run(&mut make).status.success());
    for name in ["host one", "it's \"one\""] {
        std::os::unix::fs::symlink("/", home.path().join(name)).unwrap();
    }
    let program = home.path().join("sbin/vfioctl");
    let text = format!(
        "#!/bin/sh\n[ \"$1\" != {ARGUMENT} ] || exec {} \"$@\"\nIFS=,\nprintf 'GOT%s;\\n' \"$*\"\n",
        support::VFIOCTL
    );
    fs::remove_file(&program).unwrap();
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    home
}

/// Types all of these into a shell, and says what ran and what was on the screen.
fn typed(shell: &str, home: &Path, keys: &[String]) -> Vec<(String, String)> {
    let (share, program) = (home.join("share"), path("tests/completions/type.py"));
    let mut simhost = Command::new(support::simhost());
    simhost.arg("run").arg(support::fixtures().join("connectx")).args(["--", "sh", "-c"]);
    // Two of the VFs were bound before.
    simhost.arg(format!(
        "{} bind --no-save 3b:00.3 3b:00.4 >/dev/null 2>&1; PATH={}:$PATH exec python3 {} {shell} {}",
        support::VFIOCTL,
        home.join("sbin").display(),
        program.display(),
        share.display()
    ));
    simhost.env("HOME", home).current_dir(home).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = simhost.spawn().unwrap();
    child.stdin.take().unwrap().write_all(serde_json::to_string(keys).unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{shell}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn tab_does_in_each_shell_what_it_should() {
    let missing: Vec<&str> =
        SHELLS.iter().filter(|(_, file, _)| !Path::new(file).exists()).map(|(_, _, package)| *package).collect();
    assert!(missing.is_empty(), "not installed: {missing:?}; 'tests/prerequisites test' installs them");
    let home = install();
    std::thread::scope(|scope| {
        for (shell, ..) in SHELLS {
            let home = home.path();
            scope.spawn(move || check(shell, home));
        }
    });
}

fn check(shell: &str, home: &Path) {
    // Bash lists when asked twice; zsh would begin to choose then.
    let tabs = if shell.starts_with("bash") { "\t\t" } else { "\t" };
    let has_descriptions = !shell.starts_with("bash");
    // Bash lists what it would insert: the rest behind a colon.
    let shown = |word: &'static str| if has_descriptions { word } else { word.rsplit(':').next().unwrap() };
    let inserted = INSERTED.iter().map(|(keys, _)| keys.to_string());
    let listed = LISTED.iter().map(|(keys, ..)| format!("{keys}{tabs}"));
    let described = DESCRIBED.iter().map(|(keys, _)| format!("{keys}{tabs}"));
    let keys: Vec<String> = inserted.chain(listed).chain(described).collect();
    let mut results = typed(shell, home, &keys).into_iter();
    for ((keys, expected), (ran, screen)) in INSERTED.iter().zip(&mut results) {
        // Of what is behind another command's name bash knows by that package alone.
        if shell == "bash" && keys.starts_with("nice") {
            continue;
        }
        // zsh takes the slash away again.
        assert_eq!(ran.trim_end_matches('/'), *expected, "{shell}: {keys:?}\n{screen}");
    }
    for ((keys, expected, others), (_, screen)) in LISTED.iter().zip(&mut results) {
        // What was typed is on the screen as well.
        let list = screen.replace(keys, "");
        for word in *expected {
            let word = shown(word);
            assert!(list.contains(word), "{shell}: {keys:?}: no {word}\n{screen}");
        }
        for word in *others {
            let word = shown(word);
            assert!(!list.contains(word), "{shell}: {keys:?}: {word}\n{screen}");
        }
    }
    for ((keys, expected), (_, screen)) in DESCRIBED.iter().zip(&mut results) {
        assert_eq!(screen.contains(expected), has_descriptions, "{shell}: {keys:?}\n{screen}");
    }
}

/// What is offered for these words, and nothing on standard error.
fn offered(words: &[&str]) -> String {
    let output = support::run(Command::new(support::VFIOCTL).args([ARGUMENT, "vfioctl"]).args(words));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{words:?}");
    assert!(output.status.success(), "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_verb_and_option_of_the_parser_is_offered() {
    fn check(command: &clap::Command, words: &[&str]) {
        let all = offered(&[words, &[""]].concat());
        for verb in command.get_subcommands().filter(|verb| !verb.is_hide_set()) {
            assert!(all.lines().any(|line| line.split('\t').next() == Some(verb.get_name())), "{words:?}: {verb}");
            if verb.get_name() != "help" {
                check(verb, &[words, &[verb.get_name()]].concat());
            }
        }
        let all = offered(&[words, &["-"]].concat());
        for option in command.get_arguments().filter(|option| !option.is_hide_set()) {
            let Some(long) = option.get_long() else { continue };
            let word = |line: &str| line.split(['\t', '=']).next().unwrap() == format!("--{long}");
            let line = all.lines().find(|line| word(line)).unwrap_or_else(|| panic!("{words:?}: no --{long} in {all}"));
            assert!(line.split('\t').nth(1).is_some_and(|help| !help.is_empty()), "{words:?}: {line}");
        }
    }
    let mut cli = Cli::command();
    cli.build();
    check(&cli, &[]);
}

/// Whatever is typed: nothing but candidates, nothing that a shell would take for anything else, and quickly.
#[test]
fn what_cannot_be_read_is_not_offered() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    let devices = root.join("sys/bus/pci/devices/0000:01:00.0");
    fs::create_dir_all(&devices).unwrap();
    fs::write(devices.join("modalias"), "pci:v00008086d00001533sv00008086sd00000000bc02sc00i00\n").unwrap();
    for release in ["6.1.0", "6.1 $(reboot)", "6.1;x"] {
        fs::create_dir_all(root.join("lib/modules").join(release)).unwrap();
    }
    let root = root.to_str().unwrap();
    assert_eq!(offered(&["--root", root, "list", "--kernel", ""]), "6.1.0\tinstalled\n");
    assert_eq!(
        offered(&["--root", root, "bind", "01"]),
        "01:00.0\tno driver, Intel Corporation I210 Gigabit Network Connection\n"
    );
    let none = format!("{root}/nothing");
    for words in [
        &["--root", &none, "bind", ""][..],
        &["--root", root, "bind", "01:00.0", "x"],
        &["--root", root, "probe", ""],
        &["--root", root, "bind", "--kernel", "../..", ""],
        &["--timeout", ""],
        &["frobnicate", ""],
        &["show", "01:00.0", ""],
        &[],
    ] {
        assert_eq!(offered(words), "", "{words:?}");
    }
    let started = Instant::now();
    for _ in 0..20 {
        offered(&["bind", ""]);
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?} for 20", started.elapsed());
}
