// SPDX-License-Identifier: MIT OR Apache-2.0
//! What other processes have to do with devices: VFIO nodes and other nodes of devices that they have open, packet sockets, and
//! what is mounted where they are. Of processes that have nothing to do with devices nothing is kept, and of none its arguments,
//! its environment, or other files.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::network;
use super::reader::Reader;
use super::reduce;
use super::tree::Entry;
use crate::guard;
use crate::processes;

/// File systems without files that anything could be made of.
const WITHOUT_FILES: [&str; 20] = [
    "autofs",
    "binfmt_misc",
    "bpf",
    "cgroup",
    "cgroup2",
    "configfs",
    "debugfs",
    "devpts",
    "efivarfs",
    "fusectl",
    "hugetlbfs",
    "mqueue",
    "nsfs",
    "proc",
    "pstore",
    "rpc_pipefs",
    "securityfs",
    "selinuxfs",
    "sysfs",
    "tracefs",
];

/// Options of mounts that are read (`guard/mounts.rs`, `guard/network.rs`, `guard/disk/layers.rs`).
const OPTIONS: [&str; 7] = ["addr", "lowerdir", "lowerdir+", "datadir+", "upperdir", "logdev", "rtdev"];

/// Keeps all of that; what devices there are is known.
pub fn keep(reader: &mut Reader<'_>) {
    for (name, reduce) in network::TABLES {
        let path = reader.host.network_table(name);
        if let (Some(text), Some(place)) = (reader.read_text(&path), reader.place(&path)) {
            let text = reduce(&text, &mut reader.mask);
            reader.add(place, Entry::File(text.into()));
        }
    }
    let sockets = packet_sockets(reader);
    let own = reader.host.processes().join("self");
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    keep_namespaces(reader, &own, &mut seen, true);
    let all = processes::all(reader.host);
    let mut unseen = 0;
    for (_, process) in &all {
        keep_namespaces(reader, process, &mut seen, false);
        if !keep_open(reader, process, &sockets) {
            unseen += 1;
        }
    }
    if unseen > 0 {
        let path = reader.host.processes();
        let reason = format!("what {unseen} processes have open is for root to see");
        reader.unread.insert(path, io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
}

fn packet_sockets(reader: &mut Reader<'_>) -> BTreeSet<PathBuf> {
    let text = fs::read_to_string(reader.host.network_table("packet")).unwrap_or_default();
    text.lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(8))
        .map(|inode| PathBuf::from(format!("socket:[{inode}]")))
        .collect()
}

/// Of each mount namespace what is mounted there, and of each network namespace that it is there, by the first process in it.
fn keep_namespaces(reader: &mut Reader<'_>, process: &Path, seen: &mut BTreeSet<PathBuf>, is_own: bool) {
    for kind in ["mnt", "net"] {
        let link = process.join("ns").join(kind);
        // Other users' are not ours to see. A tree may have a table of mounts and no namespaces.
        let namespace = fs::read_link(&link).ok();
        let is_new = namespace.as_ref().map_or(is_own, |namespace| seen.insert(namespace.clone()));
        if !is_new {
            continue;
        }
        if let (Some(namespace), Some(place)) = (namespace, reader.place(&link)) {
            reader.add(place, Entry::Link(namespace));
            keep_command(reader, process, is_own);
        }
        if kind == "mnt" {
            keep_mounts(reader, &process.join("mountinfo"));
        }
    }
}

fn keep_command(reader: &mut Reader<'_>, process: &Path, is_own: bool) {
    let path = process.join("comm");
    // Our own name says nothing.
    if let (false, Ok(text), Some(place)) = (is_own, fs::read_to_string(&path), reader.place(&path)) {
        reader.add_masked(place, &text);
    }
}

fn keep_mounts(reader: &mut Reader<'_>, path: &Path) {
    let (Some(text), Some(place)) = (reader.read_text(path), reader.place(path)) else { return };
    let mut kept = String::new();
    for line in text.lines() {
        let Some(line) = mount(line) else { continue };
        for path in line.split([' ', ',', '=']).filter(|word| word.starts_with("/dev/")) {
            keep_node_link(reader, path);
        }
        kept.push_str(&reader.mask.text(&line));
        kept.push('\n');
    }
    reader.add(place, Entry::File(kept.into()));
}

/// A line of a mountinfo with what is read of it; none of file systems without files.
fn mount(line: &str) -> Option<String> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ');
    let (id, parent, number, _root, point) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let mut fields = after.split(' ');
    let (fs_type, source, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    let is_read = |option: &&str| OPTIONS.contains(&option.split_once('=').map_or(*option, |(name, _)| name));
    let options: Vec<&str> = std::iter::once("rw").chain(options.split(',').filter(is_read)).collect();
    let line = format!("{id} {parent} {number} / {point} rw - {fs_type} {source} {}", options.join(","));
    (!WITHOUT_FILES.contains(&fs_type)).then_some(line)
}

/// A link of udev's that stands for a block device.
pub fn keep_node_link(reader: &mut Reader<'_>, path: &str) {
    let Some(name) = path.strip_prefix("/dev/") else { return };
    if let Ok(target) = fs::read_link(reader.host.device_nodes().join(name)) {
        // As the text that names it.
        let masked = reader.mask.text(path).trim_start_matches('/').to_string();
        reader.tree.add(masked.into(), Entry::Link(target));
    }
}

/// What a process has open that belongs to a device; `false`: that is not ours to see.
fn keep_open(reader: &mut Reader<'_>, process: &Path, sockets: &BTreeSet<PathBuf>) -> bool {
    let descriptors = match fs::read_dir(process.join("fd")) {
        Ok(descriptors) => descriptors,
        // It may end at any moment.
        Err(error) => return error.kind() != io::ErrorKind::PermissionDenied,
    };
    let mut open: Vec<(PathBuf, PathBuf)> = descriptors
        .flatten()
        .filter_map(|descriptor| Some((descriptor.path(), fs::read_link(descriptor.path()).ok()?)))
        .filter(|(descriptor, target)| is_of_device(reader, descriptor, target, sockets))
        .collect();
    open.sort();
    for (descriptor, target) in &open {
        keep_command(reader, process, false);
        if let Some(place) = reader.place(descriptor) {
            let target = PathBuf::from(reader.mask.text(&target.to_string_lossy()).into_owned());
            reader.add(place, Entry::Link(target));
        }
        let info = process.join("fdinfo").join(descriptor.file_name().unwrap_or_default());
        let text = fs::read_to_string(&info).map(|text| reduce::descriptor(&text)).unwrap_or_default();
        if let (false, Some(place)) = (text.is_empty(), reader.place(&info)) {
            reader.add(place, Entry::File(text.into()));
        }
    }
    true
}

fn is_of_device(reader: &Reader<'_>, descriptor: &Path, target: &Path, sockets: &BTreeSet<PathBuf>) -> bool {
    if target == Path::new(guard::DEVICE) || sockets.contains(target) {
        return true;
    }
    let is_node = target.starts_with(guard::NODES) || reader.nodes.contains(target);
    // In a mount namespace of its own a process may call anything so.
    is_node && (!reader.host.is_this_machine() || processes::is_ours(target, descriptor))
}
