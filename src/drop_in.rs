// SPDX-License-Identifier: MIT OR Apache-2.0
//! Drop-in directories, as UAPI.6 and kmod have them: a file of a name in a higher directory replaces the lower one's, an
//! empty file or a link to /dev/null masks it, and all are read in the order of their names.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

/// A directory that is there but could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {path}: {source}")]
pub struct DropInError {
    path: PathBuf,
    source: io::Error,
}

/// The files in force, by name; `directories` with the highest precedence first. Masked ones are left out.
pub fn files(directories: &[PathBuf], suffix: &str) -> Result<Vec<PathBuf>, DropInError> {
    let (files, errors) = readable_files(directories, suffix);
    match errors.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(files),
    }
}

/// As [`files`], but a directory that cannot be read is named, and the others count all the same.
pub fn readable_files(directories: &[PathBuf], suffix: &str) -> (Vec<PathBuf>, Vec<DropInError>) {
    let mut in_force: BTreeMap<Vec<u8>, PathBuf> = BTreeMap::new();
    let mut errors = Vec::new();
    for directory in directories {
        for entry in WalkDir::new(directory).min_depth(1).max_depth(1) {
            match entry {
                Ok(entry) => {
                    let name = entry.file_name().as_encoded_bytes().to_vec();
                    let hidden = name.starts_with(b".");
                    if !hidden && name.ends_with(suffix.as_bytes()) {
                        in_force.entry(name).or_insert_with(|| entry.into_path());
                    }
                }
                Err(error) => match error.io_error().map(io::Error::kind) {
                    Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                    _ => errors.push(DropInError { path: directory.clone(), source: into_io_error(error) }),
                },
            }
        }
    }
    (in_force.into_values().filter(|path| !is_mask(path)).collect(), errors)
}

/// Without walkdir's words about where it was: what it goes into says so. Without links followed, all its errors are of I/O.
fn into_io_error(error: walkdir::Error) -> io::Error {
    error.into_io_error().unwrap_or_else(|| io::ErrorKind::Other.into())
}

/// An empty file, or something that reads as one (a link to /dev/null). What cannot be looked at is no mask: reading it
/// will say why.
pub fn is_mask(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.len() == 0 && !data.is_dir())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn precedence_masks_and_order() {
        let root = tempfile::tempdir().unwrap();
        let [etc, run, usr] = ["etc", "run", "usr"].map(|name| root.path().join(name));
        for directory in [&etc, &usr] {
            fs::create_dir(directory).unwrap();
        }
        for (path, text) in [
            ("etc/20-b.toml", "etc"),
            ("usr/20-b.toml", "usr"),
            ("usr/10-a.toml", "usr"),
            ("usr/30-masked.toml", "usr"),
            ("etc/30-masked.toml", ""),
            ("usr/40-null.toml", "usr"),
            ("usr/50-c.toml.bak", "no"),
            ("usr/.60-hidden.toml", "no"),
        ] {
            fs::write(root.path().join(path), text).unwrap();
        }
        symlink("/dev/null", etc.join("40-null.toml")).unwrap();
        let found = files(&[etc.clone(), run, usr.clone()], ".toml").unwrap();
        assert_eq!(found, [usr.join("10-a.toml"), etc.join("20-b.toml")]);
    }

    #[test]
    fn what_cannot_be_read_is_named_once_and_the_rest_counts() {
        let root = tempfile::tempdir().unwrap();
        let [looped, good] = ["looped", "good"].map(|name| root.path().join(name));
        // A directory that even root cannot read.
        symlink("looped", &looped).unwrap();
        fs::create_dir(&good).unwrap();
        fs::write(good.join("a.toml"), "good").unwrap();
        let directories = [looped.clone(), good.clone()];
        let (found, errors) = readable_files(&directories, ".toml");
        assert_eq!(found, [good.join("a.toml")]);
        assert_eq!(errors.len(), 1);
        assert_eq!(errors[0].to_string().matches("looped").count(), 1, "{}", errors[0]);
        assert!(files(&directories, ".toml").is_err());
    }

    #[test]
    fn a_dangling_link_is_not_a_mask() {
        let root = tempfile::tempdir().unwrap();
        symlink("nowhere", root.path().join("a.toml")).unwrap();
        assert_eq!(files(&[root.path().to_path_buf()], ".toml").unwrap().len(), 1);
    }
}
