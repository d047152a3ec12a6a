// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a file that anything may lie in place of: a FIFO, which would be waited for; a device, to which opening may do
//! something; or more than anybody has written by hand. And how many can be open at a time.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The most that is read of a file of settings: a policy of ten thousand devices is a tenth of it.
pub const SETTINGS: u64 = 16 << 20;

/// The most that is read of a table or the configuration of a kernel: the longest are 4 MB.
pub const TABLE: u64 = 256 << 20;

/// The most that is read of an attribute of sysfs: the kernel's own text attributes are a page at most.
pub const ATTRIBUTE: u64 = 1 << 20;

/// How much of an attribute is read at a time.
const PAGE: usize = 4096;

/// Opens a regular file, and nothing else; links are followed.
pub fn open(path: &Path) -> io::Result<File> {
    Ok(open_regular(path)?.0)
}

/// The same with its length.
fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    // Asked before, since opening may do something, and after, since something else may lie there by then.
    check_regular(&fs::metadata(path)?)?;
    let file = open_at_once(path)?;
    let data = file.metadata()?;
    check_regular(&data)?;
    Ok((file, data.len()))
}

/// The same of at most `limit` bytes.
pub fn open_within(path: &Path, limit: u64) -> io::Result<File> {
    match open_regular(path)? {
        (_, length) if length > limit => Err(too_long(limit)),
        (file, _) => Ok(file),
    }
}

fn too_long(limit: u64) -> io::Error {
    io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {limit} bytes"))
}

/// What keeps opening from waiting for anybody.
pub const AT_ONCE: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY);

/// Opens whatever is there without waiting for anybody.
pub fn open_at_once(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(AT_ONCE.bits() as i32).open(path)
}

fn check_regular(data: &fs::Metadata) -> io::Result<()> {
    match data.is_file() {
        true => Ok(()),
        false if data.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Reads a regular file of at most `limit` bytes.
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    read_open(&mut open(path)?, limit)
}

/// The same of text.
pub fn read_to_string(path: &Path, limit: u64) -> io::Result<String> {
    text(read(path, limit)?)
}

/// Reads an open file to its end, which is to come within `limit` bytes.
pub fn read_open(file: &mut File, limit: u64) -> io::Result<Vec<u8>> {
    // An attribute's size says nothing; a table is read in one go.
    let expected = file.metadata()?.len().min(limit);
    let mut bytes = Vec::with_capacity(usize::try_from(expected).map_or(0, |expected| expected + 1));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit {
        true => Err(too_long(limit)),
        false => Ok(bytes),
    }
}

/// Reads an attribute of sysfs, or what lies in its place. The kernel gives what it has in one go, so that a page that is not
/// filled is the end (`fs/kernfs/file.c`; of a file elsewhere that is true as well), which need not be asked for.
pub fn read_attribute(file: impl AsFd) -> io::Result<Vec<u8>> {
    let mut page = [MaybeUninit::uninit(); PAGE];
    let mut bytes = Vec::new();
    loop {
        let (read, _) = match rustix::io::read(&file, &mut page[..]) {
            Err(Errno::INTR) => continue,
            read => read?,
        };
        bytes.extend_from_slice(read);
        if bytes.len() as u64 > ATTRIBUTE {
            return Err(too_long(ATTRIBUTE));
        }
        if read.len() < PAGE {
            return Ok(bytes);
        }
    }
}

/// Sees to it that so many files can be open at a time, as far as may be: the usual limit is 1024, and a process may have more if
/// it asks. Gives how many can.
pub fn allow_open(wanted: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let files = |limit: Option<u64>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if files(limit.current) >= wanted {
        return files(limit.current);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => files(limit.maximum),
        Err(_) => files(limit.current),
    }
}

/// Bytes as text.
pub fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn regular_files_alone_are_read_and_not_too_much_of_them() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::write(path("file"), "four").unwrap();
        symlink("file", path("link")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        symlink("/dev/zero", path("device")).unwrap();
        symlink("loop", path("loop")).unwrap();
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for name in ["file", "link"] {
            assert_eq!(read(&path(name), 4).unwrap(), b"four", "{name}");
            assert_eq!(read(&path(name), 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge, "{name}");
        }
        assert_eq!(read(&path("dangling"), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read(root.path(), 4).unwrap_err().kind(), io::ErrorKind::IsADirectory);
        for (length, text) in [(0, ""), (54, "a"), (PAGE, "b"), (PAGE + 1, "c"), (3 * PAGE, "d")] {
            let expected = text.repeat(length);
            fs::write(path("attribute"), &expected).unwrap();
            assert_eq!(read_attribute(open_at_once(&path("attribute")).unwrap()).unwrap(), expected.as_bytes());
        }
        let endless = read_attribute(open_at_once(&path("device")).unwrap()).unwrap_err();
        assert_eq!(endless.kind(), io::ErrorKind::FileTooLarge);
        for name in ["device", "fifo"] {
            assert_eq!(read(&path(name), 4).unwrap_err().to_string(), "not a regular file", "{name}");
        }
        assert!(read(&path("loop"), 4).is_err());
        // Nobody writes to it, and it is not waited for.
        assert_eq!(read_open(&mut open_at_once(&path("fifo")).unwrap(), 4).unwrap(), b"");
        assert_eq!(read_attribute(open_at_once(&path("fifo")).unwrap()).unwrap(), b"");
    }
}
