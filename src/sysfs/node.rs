// SPDX-License-Identifier: MIT OR Apache-2.0
//! A directory of sysfs and the attributes in it.

use std::ffi::{CStr, OsStr};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};
use rustix::path::Arg;
use sysfs_class::SysClass;

use crate::file;

/// A directory of sysfs, under any root.
#[derive(Clone, Debug)]
pub struct Node {
    path: PathBuf,
}

/// A directory of sysfs that is open. What is read of it is of one device, whatever comes to be in its place; and the way to it,
/// which leads over a link, is gone once, where several attributes are read.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    path: PathBuf,
}

/// How much room is given to names that are read at a time.
const ENTRIES: usize = 1 << 15;

/// The longest that a link can be (`include/uapi/linux/limits.h`).
const PATH_MAX: usize = 4096;

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
        let path = self.path.join(name);
        file::open_at_once(&path)
            .and_then(file::read_attribute)
            .and_then(line)
            .map_err(|source| ReadError { path, source })
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
        Ok(last_component(&target))
    }

    /// The names in the directory `name` below this one, sorted; none where it is not there.
    pub fn names_in(&self, name: &str) -> Result<Vec<String>, ReadError> {
        let path = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        let mut names = Vec::new();
        let add = |name: &CStr| names.push(name.to_string_lossy().into_owned());
        let read = each_entry(&path, add).map_err(|source| ReadError { path, source });
        absent_is_none(read)?;
        names.sort();
        Ok(names)
    }
}

impl Directory {
    /// Opens the directory at `path`, as a place and no more: who has a device's directory open otherwise is at work on it
    /// ([`super::stuck`]). `None` where there is none.
    pub fn open(path: PathBuf) -> Result<Option<Directory>, ReadError> {
        Directory::open_at(CWD, path.clone(), path)
    }

    /// Opens `name` below another directory, which is open as `parent` and has this path.
    pub fn open_below(parent: BorrowedFd<'_>, path: &Path, name: &str) -> Result<Option<Directory>, ReadError> {
        Directory::open_at(parent, name, path.join(name))
    }

    fn open_at(parent: BorrowedFd<'_>, name: impl Arg, path: PathBuf) -> Result<Option<Directory>, ReadError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        absent_is_none(match openat(parent, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Directory { fd, path }),
            Err(errno) => Err(ReadError { path, source: errno.into() }),
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An attribute, without the newline at its end; `None` where there is none.
    pub fn read_if_there(&self, name: &str) -> Result<Option<String>, ReadError> {
        let read = || line(self.bytes(name)?);
        absent_is_none(read().map_err(|source| self.error(name, source)))
    }

    /// An attribute, whatever is in it.
    pub fn bytes(&self, name: impl Arg) -> io::Result<Vec<u8>> {
        let flags = file::AT_ONCE | OFlags::RDONLY | OFlags::CLOEXEC;
        file::read_attribute(openat(&self.fd, name, flags, Mode::empty())?)
    }

    /// The last component of what a link points to, `None` where there is no such link.
    pub fn link_name(&self, name: &str) -> Result<Option<String>, ReadError> {
        let mut target = [MaybeUninit::uninit(); PATH_MAX];
        match readlinkat_raw(&self.fd, name, &mut target) {
            Ok((target, _)) => Ok(last_component(Path::new(OsStr::from_bytes(target)))),
            Err(errno) => absent_is_none(Err(self.error(name, errno.into()))),
        }
    }

    fn error(&self, name: &str, source: io::Error) -> ReadError {
        ReadError { path: self.path.join(name), source }
    }
}

/// Goes through the names in the directory at `path`, and gives that. What they are is not asked.
pub fn each_entry(path: &Path, mut each: impl FnMut(&CStr)) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty())?;
    let mut space = Vec::with_capacity(ENTRIES);
    let mut entries = RawDir::new(&directory, space.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            each(entry.file_name());
        }
    }
    Ok(directory)
}

/// An attribute's text, without the newline at its end.
fn line(bytes: Vec<u8>) -> io::Result<String> {
    let mut text = file::text(bytes)?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

fn last_component(target: &Path) -> Option<String> {
    target.file_name().map(|name| name.to_string_lossy().into_owned())
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
