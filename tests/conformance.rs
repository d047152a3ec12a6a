// SPDX-License-Identifier: MIT OR Apache-2.0
//! simhost answers the operations of `tests/conformance` as real kernels do. See its README.md.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde::Deserialize;

/// Some operations to which another result is expected than `expected.txt` has, and where.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Difference {
    on: Vec<String>,
    why: String,
    operations: BTreeMap<String, String>,
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance")
}

fn text(name: &str) -> String {
    let path = directory().join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn differences() -> Vec<Difference> {
    serde_json::from_str(&text("differences.json")).unwrap_or_else(|error| panic!("differences.json: {error}"))
}

/// Lines `NAME: RESULT` in their order.
fn read(text: &str) -> Vec<(&str, &str)> {
    let lines: Vec<(&str, &str)> = text
        .lines()
        .map(|line| line.split_once(": ").unwrap_or_else(|| panic!("not an operation and its result: {line}")))
        .collect();
    let names: BTreeSet<&str> = lines.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), lines.len(), "two operations of one name");
    lines
}

/// The directory, for the PATH, of the program that makes the operations.
fn programs() -> &'static Path {
    static PROGRAMS: LazyLock<PathBuf> = LazyLock::new(|| {
        let programs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance");
        fs::create_dir_all(&programs).unwrap();
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(programs.join("sysop"));
        let output = support::run(compiler.arg(directory().join("sysop.c")));
        assert!(output.status.success(), "{}", support::transcript(&output));
        programs
    });
    &PROGRAMS
}

/// What a host answers.
fn operate_on(host: &Path) -> String {
    let path = format!("{}:{}", programs().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(support::simhost());
    command.arg("run").arg(host).args(["--", "sh"]);
    let output = support::run(command.arg(directory().join("operations.sh")).env("PATH", path));
    assert!(output.status.success() && output.stderr.is_empty(), "{}", support::transcript(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Insists that a host answered as the systems named do, of which the later count for more.
fn compare(printed: &str, systems: &[&str]) {
    let found: BTreeMap<&str, &str> = read(printed).into_iter().collect();
    let expected = text("expected.txt");
    let order = read(&expected);
    let mut wanted: BTreeMap<&str, &str> = order.iter().copied().collect();
    let listed = differences();
    for system in systems {
        let here = listed.iter().filter(|one| one.on.iter().any(|on| on == system));
        wanted.extend(here.flat_map(|one| &one.operations).map(|(name, result)| (name.as_str(), result.as_str())));
    }
    let mut wrong = Vec::new();
    let names =
        order.iter().map(|(name, _)| *name).chain(found.keys().copied().filter(|name| !wanted.contains_key(name)));
    for name in names {
        let (found, wanted) = (found.get(name), wanted.get(name));
        if found != wanted {
            let found = found.unwrap_or(&"not there");
            wrong.push(format!("{name}: {found}\n    instead of {}", wanted.unwrap_or(&"nothing")));
        }
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

#[test]
fn simhost_answers_as_the_kernel_of_its_host_does() {
    compare(&operate_on(&support::fixtures().join("qemu-guest")), &["simhost"]);
}

/// The same host under a newer kernel, in which some things are otherwise.
#[test]
fn simhost_answers_as_a_newer_kernel_does() {
    const RELEASE: &str = "7.2.12+deb13-amd64";
    let copy = tempfile::tempdir().unwrap();
    let host = copy.path().join("qemu-guest");
    let mut command = Command::new("cp");
    let output = support::run(command.arg("-R").arg(support::fixtures().join("qemu-guest")).arg(&host));
    assert!(output.status.success(), "{}", support::transcript(&output));
    let file = host.join("proc/sys/kernel/osrelease");
    let older = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("{RELEASE}\n")).unwrap();
    let modules = host.join("lib/modules");
    fs::rename(modules.join(older.trim()), modules.join(RELEASE)).unwrap();
    compare(&operate_on(&host), &["7", "simhost"]);
}

#[test]
fn every_difference_is_of_a_known_system_and_operation_and_has_its_reason() {
    let expected = text("expected.txt");
    let wanted: BTreeMap<&str, &str> = read(&expected).into_iter().collect();
    let runner = fs::read_to_string(directory().join("../vm/kernels.py")).unwrap();
    let mut seen = BTreeSet::new();
    for Difference { on, why, operations } in differences() {
        assert!(!on.is_empty() && !why.is_empty() && !operations.is_empty(), "an entry with nothing in it: {why:?}");
        for system in &on {
            let known = system == "simhost" || runner.contains(&format!("\n    \"{system}\": ("));
            assert!(known, "{system}: neither simhost nor a kernel of tests/vm/kernels.py");
            for (name, result) in &operations {
                let expected = wanted.get(name.as_str()).unwrap_or_else(|| panic!("expected.txt has no {name}"));
                assert_ne!(expected, result, "{name}: no difference");
                assert!(seen.insert((system.clone(), name.clone())), "{name}: twice for {system}");
            }
        }
    }
}
