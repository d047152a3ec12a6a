// SPDX-License-Identifier: MIT OR Apache-2.0
//! Writes a snapshot, whole or not at all: beside its place first, for nobody else to read, and then by a rename.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use tar::{Builder, EntryType, Header};

use super::tree::{Entry, Tree};
use crate::interrupt;

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// A directory.
    Directory,
    /// A tar archive in Zstandard's format.
    Archive,
}

impl Form {
    /// By the end of the path's name.
    pub fn of(path: &Path) -> Form {
        let is_archive = path.file_name().is_some_and(|name| name.as_encoded_bytes().ends_with(b".tar.zst"));
        if is_archive { Form::Archive } else { Form::Directory }
    }
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Something has that name.
    #[error("{0} is there already")]
    Exists(PathBuf),
    /// Ctrl-C.
    #[error("interrupted; nothing was written")]
    Interrupted,
    /// It cannot be written there.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The snapshot.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Writes it where nothing is yet, and tells how many bytes that takes.
pub fn write(tree: &Tree, path: &Path) -> Result<u64, WriteError> {
    refuse_existing(path)?;
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => WriteError::Exists(path.to_path_buf()),
        io::ErrorKind::Interrupted => WriteError::Interrupted,
        _ => WriteError::Write { path: path.to_path_buf(), source },
    };
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vfioctl-snapshot.");
    match Form::of(path) {
        Form::Archive => {
            let mut file = builder.tempfile_in(parent).map_err(failed)?;
            write_archive(tree, path, file.as_file_mut()).map_err(failed)?;
            let file = file.persist_noclobber(path).map_err(|error| failed(error.error))?;
            file.metadata().map(|data| data.len()).map_err(failed)
        }
        Form::Directory => {
            let directory =
                builder.permissions(fs::Permissions::from_mode(0o700)).tempdir_in(parent).map_err(failed)?;
            write_directory(tree, directory.path()).map_err(failed)?;
            renameat_with(CWD, directory.path(), CWD, path, RenameFlags::NOREPLACE)
                .map_err(|errno| failed(errno.into()))?;
            // It has another name now.
            let _ = directory.keep();
            Ok(tree.bytes() as u64)
        }
    }
}

/// Before a host is read for nothing.
pub fn refuse_existing(path: &Path) -> Result<(), WriteError> {
    match path.symlink_metadata() {
        Ok(_) => Err(WriteError::Exists(path.to_path_buf())),
        Err(_) => Ok(()),
    }
}

fn go_on() -> io::Result<()> {
    if interrupt::is_wanted() { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
}

fn write_directory(tree: &Tree, root: &Path) -> io::Result<()> {
    for (path, entry) in tree.iter() {
        go_on()?;
        let path = root.join(path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        match entry {
            Entry::Directory => fs::create_dir_all(&path)?,
            Entry::Link(target) => symlink(target, &path)?,
            Entry::File(bytes) => {
                let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
                file.write_all(bytes)?;
            }
        }
    }
    Ok(())
}

/// All is below a directory of the archive's name, so that it unpacks into one.
fn write_archive(tree: &Tree, path: &Path, file: &mut File) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let top = Path::new(name.strip_suffix(".tar.zst").filter(|name| !name.is_empty()).unwrap_or("snapshot"));
    let mut archive = Builder::new(Vec::with_capacity(tree.bytes() + tree.files() * 1024));
    let header = |kind: EntryType, mode: u32| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        header
    };
    archive.append_data(&mut header(EntryType::Directory, 0o755), top, io::empty())?;
    for (path, entry) in tree.iter() {
        go_on()?;
        let path = top.join(path);
        match entry {
            Entry::Directory => archive.append_data(&mut header(EntryType::Directory, 0o755), path, io::empty())?,
            Entry::Link(target) => archive.append_link(&mut header(EntryType::Symlink, 0o777), path, target)?,
            Entry::File(bytes) => {
                let mut header = header(EntryType::Regular, 0o644);
                header.set_size(bytes.len() as u64);
                archive.append_data(&mut header, path, bytes.as_slice())?;
            }
        }
    }
    let archive = archive.into_inner()?;
    go_on()?;
    // Into memory: the encoder cannot say that a disk is full.
    file.write_all(&compress_to_vec(archive.as_slice(), CompressionLevel::Fastest))
}
