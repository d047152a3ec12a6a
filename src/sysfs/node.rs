// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of sysfs and the attributes in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use sysfs_class::SysClass;

use crate::file;

/// A directory of sysfs, under any root.
#[derive(Clone, Debug)]
pub struct Node {
    path: PathBuf,
}

/// An attribute or link that could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl ReadError {
    /// Is it that the file is not there? For a device's attribute: the device is gone (ENODEV while it goes).
    pub fn is_absent(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
            || self.source.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
    }
}

impl Node {
    /// The directory at `path`, which need not be there.
    pub fn new(path: PathBuf) -> Node {
        Node { path }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An attribute, without the newline at its end.
    pub fn read(&self, name: &str) -> Result<String, ReadError> {
        // Under another root anything may lie there.
        let read = || file::text(file::read_open(&mut file::open_at_once(&self.path.join(name))?, file::ATTRIBUTE)?);
        match read() {
            Ok(mut text) => {
                if text.ends_with('\n') {
                    text.pop();
                }
                Ok(text)
            }
            Err(source) => Err(ReadError { path: self.path.join(name), source }),
        }
    }

    /// An attribute that a device may lack.
    pub fn read_if_there(&self, name: &str) -> Result<Option<String>, ReadError> {
        absent_is_none(self.read(name))
    }

    /// The last component of what a link points to, `None` where there is no such link.
    pub fn link_name(&self, name: &str) -> Result<Option<String>, ReadError> {
        let path = self.path.join(name);
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            Err(source) => return absent_is_none(Err(ReadError { path, source })),
        };
        Ok(target.file_name().map(|name| name.to_string_lossy().into_owned()))
    }

    /// The names in the directory `name` below this one, sorted; none where it is not there.
    pub fn names_in(&self, name: &str) -> Result<Vec<String>, ReadError> {
        let path = self.path.join(name);
        let read = || -> io::Result<Vec<String>> {
            fs::read_dir(&path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        let mut names =
            absent_is_none(read().map_err(|source| ReadError { path: path.clone(), source }))?.unwrap_or_default();
        names.sort();
        Ok(names)
    }
}

fn absent_is_none<T>(result: Result<T, ReadError>) -> Result<Option<T>, ReadError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The trait's own constructors know only /sys itself; its writing of attributes serves under any root, and
/// opens without O_CREAT, which sysfs answers with EACCES where the file is missing.
impl SysClass for Node {
    fn base() -> &'static str {
        "bus/pci"
    }

    fn class() -> &'static str {
        "devices"
    }

    // Nothing unsafe is done: the trait declares it so.
    #[allow(unsafe_code)]
    unsafe fn from_path_unchecked(path: PathBuf) -> Node {
        Node { path }
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
