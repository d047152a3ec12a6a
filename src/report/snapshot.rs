// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was written down of a host.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use serde::Serialize;

use super::Output;
use crate::printable::printable;
use crate::snapshot::Kind;

/// A snapshot.
#[derive(Serialize, Debug)]
pub struct SnapshotView {
    /// Where it is.
    pub path: PathBuf,
    /// One file, not a directory?
    pub is_archive: bool,
    /// Was it written? Not with --dry-run.
    pub is_written: bool,
    /// How many PCI devices are in it.
    pub devices: usize,
    /// How many files and links.
    pub files: usize,
    /// How many bytes an archive has, or the files of a directory.
    pub bytes: u64,
    /// How many values of each kind were masked.
    pub masked: BTreeMap<Kind, usize>,
    /// What could not be read.
    pub unread: Vec<Unread>,
    /// What is left out on purpose, and why.
    pub left_out: Vec<String>,
}

/// Something that could not be read.
#[derive(Serialize, Debug)]
pub struct Unread {
    /// Where it is.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// Shows what there is; what is missing, and what to do before it is sent, on standard error.
pub fn snapshot(output: Output, view: &SnapshotView) -> io::Result<()> {
    for Unread { path, reason } in &view.unread {
        output.warn(&format!("not in it: {}: {reason}", path.display()));
    }
    for remark in &view.left_out {
        output.warn(remark);
    }
    if output.is_json {
        return output.print_json("snapshot", view);
    }
    let masked: Vec<String> = view.masked.iter().map(|(kind, number)| kind.counted(*number)).collect();
    let masked = if masked.is_empty() { "nothing".to_string() } else { masked.join(", ") };
    let path = printable(&view.path.to_string_lossy());
    let devices = if view.devices == 1 { "1 device".to_string() } else { format!("{} devices", view.devices) };
    output.print(&format!("{path}: {devices}, {} files, {} bytes\nmasked: {masked}\n", view.files, view.bytes))?;
    if view.is_written {
        output.note("look through it before you send it: names that you gave to things may be in it");
    }
    Ok(())
}
