// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads what is to be kept into a tree. What is not there is left out, and what cannot be read is named.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use super::contents::{ANY_DEVICE, DEVICES, Keep};
use super::mask::Mask;
use super::reduce;
use super::tree::{Entry, Tree};
use crate::file;
use crate::guard;
use crate::host::Host;
use crate::sysfs::{Node, ReadError};

/// What has been read so far.
pub struct Reader<'a> {
    /// Where from.
    pub host: &'a Host,
    /// The same without links.
    root: PathBuf,
    /// What is kept.
    pub tree: Tree,
    /// What is masked.
    pub mask: Mask,
    /// What could not be read, by path, and why.
    pub unread: BTreeMap<PathBuf, io::Error>,
    /// What is left out on purpose.
    pub remarks: Vec<String>,
    /// Nodes, as processes name them, that make a difference when somebody has them open.
    pub nodes: BTreeSet<PathBuf>,
    /// Devices that are done.
    done: BTreeSet<PathBuf>,
    /// Parts of paths, as masked.
    names: HashMap<String, String>,
}

impl<'a> Reader<'a> {
    /// Nothing yet.
    pub fn new(host: &'a Host) -> io::Result<Reader<'a>> {
        let name = file::read_to_string(&host.root().join("proc/sys/kernel/hostname"), file::ATTRIBUTE);
        Ok(Reader {
            host,
            root: fs::canonicalize(host.root())?,
            tree: Tree::default(),
            mask: Mask::new(&name.unwrap_or_default()),
            unread: BTreeMap::new(),
            remarks: Vec::new(),
            nodes: BTreeSet::new(),
            done: BTreeSet::new(),
            names: HashMap::new(),
        })
    }

    /// Keeps what a pattern finds below the root directory.
    pub fn keep_place(&mut self, pattern: &str, keep: Keep) {
        let root = self.root.clone();
        self.keep_below(&root, pattern, keep);
    }

    /// Keeps what a pattern finds below a directory.
    pub fn keep_below(&mut self, directory: &Path, pattern: &str, keep: Keep) {
        for path in self.matching(directory, pattern) {
            self.keep(&path, keep);
        }
    }

    /// Keeps what is at a path of this machine.
    pub fn keep(&mut self, path: &Path, keep: Keep) {
        let Some(place) = self.place(path) else { return };
        match keep {
            Keep::Whole => {
                if let Some(bytes) = self.read(path) {
                    self.add(place, Entry::File(bytes));
                }
            }
            Keep::Masked => {
                if let Some(text) = self.read_text(path) {
                    self.add_masked(place, &text);
                }
            }
            Keep::Reduced(reduce) => {
                let text = self.read_text(path).map(|text| reduce(&text));
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    self.add_masked(place, &text);
                }
            }
            Keep::Patiently => {
                let (Some(directory), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
                else {
                    return;
                };
                match guard::read_patiently(self.host, &Node::new(directory.to_path_buf()), name) {
                    Ok(Some(text)) => self.add_masked(place, &format!("{text}\n")),
                    Ok(None) => {}
                    Err(ReadError { path, source }) => self.cannot(&path, source),
                }
            }
            Keep::Presence => {
                if path.exists() && !path.is_dir() {
                    self.add(place, Entry::File(Vec::new()));
                }
            }
            Keep::Directory => {
                if path.is_dir() {
                    self.add(place, Entry::Directory);
                }
            }
            Keep::Link => {
                if let Ok(target) = fs::read_link(path) {
                    let target = self.masked(&target);
                    self.add(place, Entry::Link(target));
                }
            }
            Keep::Way => {
                self.keep(path, Keep::Link);
                let end = fs::canonicalize(path).ok().filter(|end| end.is_dir());
                if let Some(end) = end.and_then(|end| end.strip_prefix(&self.root).ok().map(Path::to_path_buf)) {
                    self.add(end, Entry::Directory);
                }
            }
        }
    }

    /// Keeps what is read of a device, whose directory may be told by a link; `kind` is its bus or class.
    pub fn device(&mut self, directory: &Path, kind: &str) {
        // It may go at any moment.
        let Ok(real) = fs::canonicalize(directory) else { return };
        let Some(place) = self.place(&real).filter(|_| self.done.insert(real.clone())) else { return };
        self.add(place, Entry::Directory);
        let own = DEVICES.iter().filter(|(known, _)| *known == kind).flat_map(|(_, own)| *own);
        for (pattern, keep) in ANY_DEVICE.iter().chain(own) {
            self.keep_below(&real, pattern, *keep);
        }
        let node = Node::new(real);
        let Ok(Some(number)) = node.read_if_there("dev") else { return };
        if let Ok(Some(text)) = node.read_if_there("uevent") {
            let names = text.lines().filter_map(|line| line.strip_prefix("DEVNAME="));
            self.nodes.extend(names.map(|name| Path::new("/dev").join(name)));
        }
        if kind != "block" {
            let link = self.host.character_device(&number);
            self.keep(&link, Keep::Link);
            let target = fs::read_link(link).ok();
            let below = target.as_deref().and_then(|target| target.strip_prefix("..").ok());
            self.nodes.extend(below.map(|name| Path::new("/dev").join(name)));
            return;
        }
        if let Ok(Some(name)) = node.read_if_there("dm/name") {
            self.nodes.insert(Path::new("/dev/mapper").join(name));
        }
        let data = self.host.udev_block_data(&number);
        let text = self.read_text(&data).map(|text| reduce::udev_properties(&text));
        if let (Some(text), Some(place)) = (text.filter(|text| !text.is_empty()), self.place(&data)) {
            self.add(place, Entry::File(text.into()));
        }
    }

    /// Where something is in the snapshot: in /sys, which is full of links, where it really is; elsewhere as it is asked for.
    pub fn place(&self, path: &Path) -> Option<PathBuf> {
        let asked = path.strip_prefix(&self.root).or_else(|_| path.strip_prefix(self.host.root())).ok()?;
        if !asked.starts_with("sys") {
            return Some(asked.to_path_buf());
        }
        let parent = fs::canonicalize(path.parent()?).ok()?;
        Some(parent.strip_prefix(&self.root).ok()?.join(path.file_name()?))
    }

    /// Adds an entry at a place, its names masked.
    pub fn add(&mut self, place: PathBuf, entry: Entry) {
        let place = self.masked(&place);
        self.tree.add(place, entry);
    }

    /// Adds a file with this text, masked.
    pub fn add_masked(&mut self, place: PathBuf, text: &str) {
        let text = self.mask.text(text).into_owned();
        self.add(place, Entry::File(text.into()));
    }

    /// A path whose parts are masked one by one.
    pub fn masked(&mut self, path: &Path) -> PathBuf {
        let mut masked = PathBuf::new();
        for component in path.components() {
            match (component, component.as_os_str().to_str()) {
                (Component::Normal(_), Some(name)) => {
                    let known = self.names.get(name).cloned();
                    let known = known.unwrap_or_else(|| self.mask.text(name).into_owned());
                    masked.push(&known);
                    self.names.entry(name.to_string()).or_insert(known);
                }
                (other, _) => masked.push(other),
            }
        }
        masked
    }

    /// A file's bytes; `None`: it is not there, or cannot be read, which is remembered.
    pub fn read(&mut self, path: &Path) -> Option<Vec<u8>> {
        match file::read(path, file::TABLE) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.cannot(path, error);
                None
            }
        }
    }

    /// The same as text.
    pub fn read_text(&mut self, path: &Path) -> Option<String> {
        self.read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Remembers that something cannot be read, unless it is not there.
    pub fn cannot(&mut self, path: &Path, error: io::Error) {
        let error = ReadError { path: path.to_path_buf(), source: error };
        if !error.is_absent() && error.source.kind() != io::ErrorKind::NotADirectory {
            self.unread.insert(error.path, error.source);
        }
    }

    /// The names in a directory, in order; none where there is no such directory.
    pub fn names_in(&mut self, directory: &Path) -> Vec<String> {
        match Node::new(directory.to_path_buf()).names_in("") {
            Ok(names) => names,
            Err(ReadError { path, source }) => {
                self.cannot(&path, source);
                Vec::new()
            }
        }
    }

    /// What a pattern finds below a directory; without a `*` it need not be there.
    pub fn matching(&mut self, directory: &Path, pattern: &str) -> Vec<PathBuf> {
        let mut found = vec![directory.to_path_buf()];
        for part in pattern.split('/') {
            found = match part.contains('*') {
                false => found.iter().map(|path| path.join(part)).collect(),
                true => {
                    let mut next = Vec::new();
                    for path in &found {
                        let names = self.names_in(path);
                        next.extend(names.iter().filter(|name| is_like(name, part)).map(|name| path.join(name)));
                    }
                    next
                }
            };
        }
        found
    }
}

/// Is a name like a pattern, in which `*` stands for anything?
fn is_like(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}
