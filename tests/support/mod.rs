// SPDX-License-Identifier: MIT OR Apache-2.0
//! What several test files need. Each uses a part of it.
#![allow(dead_code)]

pub mod ran;
pub mod trial;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program under test.
pub const VFIOCTL: &str = env!("CARGO_BIN_EXE_vfioctl");

/// `tests/fixtures`.
pub fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// The fixture hosts' names, sorted.
pub fn hosts() -> Vec<String> {
    let entries = std::fs::read_dir(fixtures()).unwrap().map(|entry| entry.unwrap());
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().join("host.toml").exists())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 8, "the fixture hosts are gone: {names:?}");
    names
}

/// The `simhost` program, which the workspace's own build puts beside ours.
pub fn simhost() -> PathBuf {
    let path = Path::new(VFIOCTL).with_file_name("simhost");
    assert!(path.exists(), "{} is not built: run 'cargo build --workspace' first", path.display());
    path
}

/// A file of a real kernel's tables, unpacked.
pub fn table(kernel: &str, name: &str) -> Vec<u8> {
    let path = fixtures().join("tables").join(kernel).join(format!("{name}.xz"));
    let file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut bytes = Vec::new();
    lzma_rust2::XzReader::new(file, true)
        .read_to_end(&mut bytes)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    bytes
}

/// A command's standard output and error and its exit status, as one text.
pub fn transcript(output: &Output) -> String {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.stderr.is_empty() {
        text.push_str("--- standard error\n");
        text.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    match output.status.code() {
        Some(0) => {}
        Some(status) => text.push_str(&format!("--- exit status {status}\n")),
        None => text.push_str(&format!("--- {}\n", output.status)),
    }
    text
}

/// Runs a command and insists that it can be started.
pub fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Copies a program that is to be run. Not by this process: another test that starts one at that moment would hand it the open
/// file, and a program that is open for writing cannot be run (ETXTBSY).
pub fn copy_program(from: &Path, to: &Path) {
    let output = run(Command::new("cp").arg(from).arg(to));
    assert!(output.status.success(), "{}", transcript(&output));
}
