// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the documents show as a session is what happens on a simulated host. UPDATE_EXPECTED=1 writes the output anew.
//!
//! A comment `<!-- on HOST -->` begins a session, which ends with the next comment; its commands, one after the other, are the
//! lines of code that begin with `$ ` or `# `. `<!-- below HOST -->`: not on the host, but with `--root` and `--dry-run`, since
//! simulated hosts have no processes, mounts or routes of their own.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The documents, and how many commands they show at least.
const DOCUMENTS: [(&str, usize); 5] = [
    ("README.md", 8),
    ("docs/choosing-a-driver.md", 1),
    ("docs/migration.md", 8),
    ("docs/from-driverctl.md", 3),
    ("docs/libvirt.md", 2),
];
const CODE: &str = "    ";
/// Goes before each command's output.
const MARK: &str = "==== session ====";

#[derive(Clone, Copy, PartialEq)]
enum Place<'a> {
    On(&'a str),
    Below(&'a str),
}

/// What a comment begins, if it is one of ours: a session, or the end of one.
fn begins(line: &str) -> Option<Option<Place<'_>>> {
    let comment = line.strip_prefix("<!-- ")?.strip_suffix(" -->")?;
    let place = match comment.split_once(' ') {
        Some(("on", host)) => Some(Place::On(host)),
        Some(("below", host)) => Some(Place::Below(host)),
        _ => None,
    };
    Some(place)
}

/// The document with each command's output as it is.
fn played(text: &str) -> (String, usize) {
    let mut result = String::new();
    let mut commands: Vec<&str> = Vec::new();
    let mut place: Option<Place> = None;
    let lines: Vec<&str> = text.lines().collect();
    // Where outputs go is known before they are: a session is run as a whole.
    let mut outputs: std::vec::IntoIter<String> = Vec::new().into_iter();
    let (mut at, mut shown) = (0, 0);
    while at < lines.len() {
        let line = lines[at];
        at += 1;
        result.push_str(line);
        result.push('\n');
        if let Some(begun) = begins(line) {
            assert!(outputs.next().is_none());
            place = begun;
            if let Some(place) = place {
                commands.clear();
                let session = lines[at..].iter().take_while(|line| begins(line).is_none());
                commands.extend(session.filter_map(|line| command(line)));
                assert!(!commands.is_empty(), "a session without a command: {line}");
                outputs = run(place, &commands).into_iter();
                shown += commands.len();
            }
        } else if place.is_some() && command(line).is_some() {
            for output in outputs.next().expect("an output for each command").lines() {
                assert!(!output.starts_with("# ") && !output.starts_with("$ "), "taken for a command: {output}");
                assert!(!output.starts_with("sh: "), "the shell has not run it: {output}");
                result.push_str(format!("{CODE}{output}").trim_end());
                result.push('\n');
            }
            at += output_lines(&lines[at..]);
        }
    }
    (result, shown)
}

fn command(line: &str) -> Option<&str> {
    let code = line.strip_prefix(CODE)?;
    code.strip_prefix("$ ").or(code.strip_prefix("# "))
}

/// How many lines of what follows are output: code, with blank lines in between, up to the next command.
fn output_lines(lines: &[&str]) -> usize {
    let is_output = |line: &str| line.starts_with(CODE) && command(line).is_none();
    let end = lines.iter().position(|line| !line.is_empty() && !is_output(line)).unwrap_or(lines.len());
    lines[..end].iter().rposition(|line| is_output(line)).map_or(0, |last| last + 1)
}

/// Each command's output, as a terminal shows it.
fn run(place: Place, commands: &[&str]) -> Vec<String> {
    let tools = tempfile::tempdir().unwrap();
    devlink(tools.path());
    let (host, function) = match place {
        Place::On(host) => (host, format!("{} \"$@\"", support::VFIOCTL)),
        Place::Below(host) => {
            let root = support::fixtures().join(host);
            (host, format!("{} --root {} --dry-run \"$@\"", support::VFIOCTL, root.display()))
        }
    };
    let played = commands.iter().map(|command| format!("echo '{MARK}'\n{command}\n")).collect::<Vec<_>>().join("");
    let path = tools.path().display();
    let script =
        format!("exec 2>&1\ncd {path}\nPATH={path}:$PATH; export PATH\nvfioctl() {{ {function}; }}\n{played}exit 0\n");
    let mut simhost = Command::new(support::simhost());
    simhost.arg("run").arg(support::fixtures().join(host)).args(["--", "sh", "-c", &script]);
    let output = support::run(&mut simhost);
    // Where devlink is on other hosts.
    let text = String::from_utf8(output.stdout.clone()).unwrap().replace(tools.path().to_str().unwrap(), "/usr/sbin");
    let outputs: Vec<String> =
        text.split(&format!("{MARK}\n")).skip(1).map(|output| output.trim_end().to_string()).collect();
    assert_eq!(outputs.len(), commands.len(), "{host}: {}", support::transcript(&output));
    outputs
}

/// The stand-in that is asked for a VF's port.
fn devlink(directory: &Path) {
    let path = directory.join("devlink");
    fs::write(&path, include_str!("support/devlink")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.join("mode"), "").unwrap();
    fs::write(directory.join("migratable"), "disable").unwrap();
}

fn document(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn sessions_are_real() {
    for (name, least) in DOCUMENTS {
        let text = fs::read_to_string(document(name)).unwrap();
        let (played, shown) = played(&text);
        assert!(shown >= least, "{name} shows {shown} commands");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(document(name), &played).unwrap();
            continue;
        }
        for (line, (expected, got)) in text.lines().zip(played.lines()).enumerate() {
            assert_eq!(expected, got, "{name}:{}: UPDATE_EXPECTED=1 writes it anew", line + 1);
        }
        assert_eq!(text.lines().count(), played.lines().count(), "{name}");
    }
}

/// A document that shows something else is found out.
#[test]
fn a_session_that_is_not_real_is_told() {
    let text = "<!-- on qat -->\n    $ vfioctl match 6b:00.1\n    vfio-pci\n\n    $ vfioctl match 75:00.1\n\n<!-- end -->\n    $ vfioctl bad\n    kept\n";
    let expected = "<!-- on qat -->\n    $ vfioctl match 6b:00.1\n    qat_vfio_pci\n\n    $ vfioctl match 75:00.1\n    vfio-pci\n\n<!-- end -->\n    $ vfioctl bad\n    kept\n";
    assert_eq!(played(text), (expected.to_string(), 2));
}
