// SPDX-License-Identifier: MIT OR Apache-2.0
//! Other processes, as procfs tells of them: their names, their parents, and what they have open.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Statx, StatxFlags, statx};

use crate::host::Host;

/// A process that has a node open.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Opener {
    /// Its process id.
    pub pid: u32,
    /// Its name.
    pub command: String,
    /// The node, as the process sees it.
    pub node: PathBuf,
}

impl std::fmt::Display for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (pid {}) has {} open", self.command, self.pid, self.node.display())
    }
}

/// All that there are, by process id, each with its directory; none where procfs is not to be read. One may end at any moment.
pub fn all(host: &Host) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(host.processes()).into_iter().flatten().flatten();
    let mut all: Vec<(u32, PathBuf)> =
        entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect();
    all.sort_unstable();
    all
}

/// A process's directory.
pub fn directory(host: &Host, pid: u32) -> PathBuf {
    host.processes().join(pid.to_string())
}

/// Who has started a process, or taken it over from whoever did (proc_pid_status(5)); `None` for the first.
pub fn parent(host: &Host, pid: u32) -> Option<u32> {
    let status = fs::read_to_string(directory(host, pid).join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    line.trim().parse().ok().filter(|&parent| parent != 0)
}

/// The processes that have a file open that `is_wanted`, by process id, each with every such file once.
///
/// Links are read and nothing is opened, so that a file that hangs hangs nobody. What a caller may not see (another user's
/// processes) is not found.
pub fn openers(host: &Host, is_wanted: impl Fn(&Path) -> bool) -> Vec<Opener> {
    let openers = openers_of(host, |_, target| is_wanted(target).then_some(()));
    openers.into_iter().map(|(opener, ())| opener).collect()
}

/// The same, with what `which` says of the open file, by the descriptor's path and the node's; `None`: not wanted.
pub fn openers_of<T: Ord>(host: &Host, which: impl Fn(&Path, &Path) -> Option<T>) -> Vec<(Opener, T)> {
    let mut openers = Vec::new();
    for (pid, process) in all(host) {
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { continue };
        let paths = descriptors.flatten().map(|descriptor| descriptor.path());
        let links = paths.filter_map(|path| Some((fs::read_link(&path).ok()?, path)));
        let mut nodes: Vec<(PathBuf, T)> =
            links.filter_map(|(target, descriptor)| which(&descriptor, &target).map(|what| (target, what))).collect();
        nodes.sort();
        nodes.dedup();
        if !nodes.is_empty() {
            let command = command(&process);
            openers
                .extend(nodes.into_iter().map(|(node, what)| (Opener { pid, command: command.clone(), node }, what)));
        }
    }
    openers
}

/// A process names itself; what would steer a terminal is left out.
pub fn command(process: &Path) -> String {
    let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
    command.chars().filter(|c| !c.is_control()).collect()
}

/// Is what a process has open by this name the node that has it here? In a mount namespace of their own, others may call
/// anything so. Where there is no such node here, the name is all there is.
pub fn is_ours(target: &Path, descriptor: &Path) -> bool {
    let (Some(ours), Some(theirs)) = (known(target), known(descriptor)) else { return true };
    match (number_of(&ours), number_of(&theirs)) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => {
            let file = |known: &Statx| (known.stx_dev_major, known.stx_dev_minor, known.stx_ino);
            file(&ours) == file(&theirs)
        }
    }
}

/// The number of the node that a process has open, and whether that is a block device's.
pub fn number(descriptor: &Path) -> Option<(bool, String)> {
    number_of(&known(descriptor)?)
}

fn number_of(known: &Statx) -> Option<(bool, String)> {
    let kind = FileType::from_raw_mode(known.stx_mode.into());
    let is_block = kind == FileType::BlockDevice;
    let is_node = is_block || kind == FileType::CharacterDevice;
    is_node.then(|| (is_block, format!("{}:{}", known.stx_rdev_major, known.stx_rdev_minor)))
}

/// What is known of a file without asking a file system that may have to ask another machine or a process, and wait for ever:
/// what it is and where it is never changes, and is filled in unasked (`fs/stat.c`, `generic_fillattr`), while a file system
/// would ask for what is wanted (`fs/fuse/dir.c`, `fuse_update_get_attr`).
fn known(path: &Path) -> Option<Statx> {
    statx(CWD, path, AtFlags::STATX_DONT_SYNC, StatxFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_called_so_elsewhere_is_another_node() {
        let descriptor =
            |file: &fs::File| PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(file)));
        let [null, zero] = ["/dev/null", "/dev/zero"].map(|name| fs::File::open(name).unwrap());
        assert!(is_ours(Path::new("/dev/null"), &descriptor(&null)));
        assert!(!is_ours(Path::new("/dev/null"), &descriptor(&zero)));
        let [one, other] = [(); 2].map(|()| tempfile::NamedTempFile::new().unwrap());
        assert!(is_ours(one.path(), &descriptor(one.as_file())));
        assert!(!is_ours(one.path(), &descriptor(other.as_file())));
        assert!(is_ours(Path::new("/dev/vfio/no-such-group"), &descriptor(&null)));
    }

    #[test]
    fn numbers_of_nodes() {
        for (path, expected) in [("/dev/null", Some((false, "1:3".to_string()))), ("/proc", None), ("/no-such", None)] {
            assert_eq!(number(Path::new(path)), expected, "{path}");
        }
    }
}
