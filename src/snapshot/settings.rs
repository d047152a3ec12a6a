// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the administrator has written: policy, driverctl's files, modprobe.d. All of each file, masked. What is not believed
//! here, since others than root could change it, is left out: elsewhere nobody would ask.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::tree::Entry;
use crate::drop_in;
use crate::file;
use crate::policy::trust;

/// Keeps all of it.
pub fn keep(reader: &mut Reader<'_>) {
    for directory in reader.host.policy_directories() {
        keep_directory(reader, &directory, ".toml", true);
    }
    let directory = reader.host.driverctl_directory();
    keep_directory(reader, &directory, "", true);
    let mut seen = BTreeSet::new();
    for directory in reader.host.modprobe_directories() {
        // /lib is often /usr/lib.
        if fs::metadata(&directory).is_ok_and(|data| seen.insert((data.dev(), data.ino()))) {
            keep_directory(reader, &directory, ".conf", false);
        }
    }
}

fn keep_directory(reader: &mut Reader<'_>, directory: &Path, suffix: &str, must_be_roots: bool) {
    if must_be_roots {
        if let Err(distrust) = trust::check_directory(reader.host, directory) {
            return left_out(reader, directory, &distrust.to_string());
        }
    }
    for name in reader.names_in(directory) {
        let path = directory.join(&name);
        if name.starts_with('.') || !name.ends_with(suffix) || path.is_dir() {
            continue;
        }
        let Some(place) = reader.place(&path) else { continue };
        if drop_in::is_mask(&path) {
            reader.add(place, Entry::File(Vec::new()));
        } else if !must_be_roots || is_believed(reader, &path) {
            if let Some(text) = reader.read_text(&path) {
                reader.add_masked(place, &text);
            }
        }
    }
}

fn is_believed(reader: &mut Reader<'_>, path: &PathBuf) -> bool {
    // What cannot be opened is said when it is read.
    let Ok(opened) = file::open(path) else { return true };
    match trust::check(reader.host, &opened, path) {
        Ok(()) => true,
        Err(distrust) => {
            left_out(reader, path, &distrust.to_string());
            false
        }
    }
}

fn left_out(reader: &mut Reader<'_>, path: &Path, reason: &str) {
    reader.remarks.push(format!("{}: left out, as it is here: {reason}", path.display()));
}
