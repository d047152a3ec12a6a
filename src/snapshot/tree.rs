// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a snapshot holds, before it is written: small files, all of them in memory, so that nothing is written until all is
//! read.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// An entry of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Entry {
    /// A directory that is to be there whether anything is in it or not.
    Directory,
    /// A regular file.
    File(Vec<u8>),
    /// A link, as it leads on the host.
    Link(PathBuf),
}

/// Entries by their paths, which are relative to the root. Directories that lead to an entry need none of their own.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tree {
    entries: BTreeMap<PathBuf, Entry>,
}

impl Tree {
    /// Adds one. What is there already stays: it may have been reached by another way.
    pub fn add(&mut self, path: PathBuf, entry: Entry) {
        match self.entries.get(&path) {
            Some(Entry::File(_) | Entry::Link(_)) => {}
            Some(Entry::Directory) | None => {
                self.entries.insert(path, entry);
            }
        }
    }

    /// Is there one of this path?
    pub fn has(&self, path: &Path) -> bool {
        self.entries.contains_key(path)
    }

    /// All of them, directories before what is in them.
    pub fn iter(&self) -> impl Iterator<Item = (&Path, &Entry)> {
        self.entries.iter().map(|(path, entry)| (path.as_path(), entry))
    }

    /// How many files and links there are.
    pub fn files(&self) -> usize {
        self.entries.values().filter(|entry| !matches!(entry, Entry::Directory)).count()
    }

    /// How many bytes the files have.
    pub fn bytes(&self) -> usize {
        let length = |entry: &Entry| if let Entry::File(bytes) = entry { bytes.len() } else { 0 };
        self.entries.values().map(length).sum()
    }
}
