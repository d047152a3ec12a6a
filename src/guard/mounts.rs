// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is mounted, in every mount namespace. All of it is text of /proc: no mount point is looked at, since behind one may be
//! a server that no longer answers.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::host::Host;
use crate::processes;
use crate::sysfs::ReadError;

/// So many mount namespaces are read besides the system's own.
const MOST_NAMESPACES: usize = 4096;

/// A line of /proc/PID/mountinfo (proc_pid_mountinfo(5)).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mount {
    /// `MAJOR:MINOR`; major 0 where the file system is on no block device, or on several.
    pub number: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its type.
    pub fs_type: String,
    /// What it is mounted from, in words of its own.
    pub source: String,
    /// The options of the file system, `NAME=VALUE` or `NAME`.
    pub options: Vec<(String, String)>,
}

impl Mount {
    /// The directories an overlay is made of (`fs/overlayfs/params.c`, `ovl_show_options`), as they were given at the mount.
    pub fn overlaid(&self) -> Vec<PathBuf> {
        let is_directory =
            |name: &str| ["lowerdir", "lowerdir+", "datadir+", "upperdir"].contains(&name) && self.fs_type == "overlay";
        let values = self.options.iter().filter(|(name, _)| is_directory(name)).map(|(_, value)| value);
        // A colon that is part of a name has a backslash before it; such a layer is cut short, and still on its file system.
        values.flat_map(|value| value.split(':')).filter(|part| part.starts_with('/')).map(PathBuf::from).collect()
    }

    /// An option's value.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find(|(option, _)| option == name).map(|(_, value)| value.as_str())
    }
}

/// What is mounted in one mount namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    /// A process that is in it, by its id and name; `None` for the system's own, and ours.
    pub member: Option<(u32, String)>,
    /// In the kernel's order.
    pub mounts: Vec<Mount>,
    by_point: HashMap<PathBuf, usize>,
}

impl Namespace {
    fn new(member: Option<(u32, String)>, text: &str) -> Namespace {
        let mounts = mounts(text);
        // Of several on one point the last is seen.
        let by_point = mounts.iter().enumerate().map(|(at, mount)| (mount.point.clone(), at)).collect();
        Namespace { member, mounts, by_point }
    }

    /// Is it the one the system, or the asker, lives in?
    pub fn is_own(&self) -> bool {
        self.member.is_none()
    }

    /// The mount that a path is on, by the path's text.
    pub fn of(&self, path: &Path) -> Option<usize> {
        path.ancestors().find_map(|ancestor| self.by_point.get(ancestor).copied())
    }
}

/// Every mount namespace that a process is in, our own and the first process's first.
///
/// One that only an open file or a bind mount of its own keeps is not found, nor what was unmounted lazily.
pub fn namespaces(host: &Host) -> Result<Vec<Namespace>, ReadError> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let ours = host.processes().join("self");
    match read(&ours) {
        Ok(text) => {
            seen.extend(namespace(&ours));
            found.push(Namespace::new(None, &text));
        }
        // A directory that is looked at as a host may hold no more than what is asked of it.
        Err(error) if error.is_absent() && !host.is_this_machine() => {}
        Err(error) => return Err(error),
    }
    let first = processes::directory(host, 1);
    if namespace(&first).is_none_or(|namespace| seen.insert(namespace)) {
        // Others' processes are not ours to read; in a tree there may be but one of the two.
        if let (Ok(text), true) = (read(&first), namespace(&first).is_some() || found.is_empty()) {
            found.push(Namespace::new(None, &text));
        }
    }
    for (pid, process) in processes::all(host) {
        if seen.len() > MOST_NAMESPACES {
            break;
        }
        // It may end at any moment, or be another user's.
        let Some(namespace) = namespace(&process) else { continue };
        if seen.contains(&namespace) {
            continue;
        }
        let Ok(text) = read(&process) else { continue };
        seen.insert(namespace);
        found.push(Namespace::new(Some((pid, processes::command(&process))), &text));
    }
    Ok(found)
}

/// Which one a process is in.
fn namespace(process: &Path) -> Option<PathBuf> {
    fs::read_link(process.join("ns/mnt")).ok()
}

fn read(process: &Path) -> Result<String, ReadError> {
    read_text(&process.join("mountinfo"))
}

/// A file as text, whatever is in it.
pub fn read_text(path: &Path) -> Result<String, ReadError> {
    let read = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    fs::read(path).map(read).map_err(|source: io::Error| ReadError { path: path.to_path_buf(), source })
}

/// The lines of a mountinfo; what is no such line is left out.
pub fn mounts(text: &str) -> Vec<Mount> {
    text.lines().filter_map(mount).collect()
}

fn mount(line: &str) -> Option<Mount> {
    // The fields before the hyphen vary in number; a hyphen alone stands nowhere else.
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(2);
    let (number, _root, point) = (fields.next()?, fields.next()?, fields.next()?);
    let mut fields = after.split(' ');
    let (fs_type, source, options) = (fields.next()?, fields.next()?, fields.next().unwrap_or_default());
    let option = |option: &str| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        (unescaped(name), unescaped(value))
    };
    Some(Mount {
        number: number.to_string(),
        point: unescaped(point).into(),
        fs_type: unescaped(fs_type),
        source: unescaped(source),
        options: options.split(',').map(option).collect(),
    })
}

/// What the kernel wrote with `\040` for a space and the like (`fs/seq_file.c`, `mangle_path`).
pub fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal =
            after.get(..3).filter(|digits| byte == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit)));
        let value = octal.map(|digits| digits.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0')));
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// What is swapped to, as paths: the first column of /proc/swaps.
pub fn swaps(text: &str) -> Vec<String> {
    let first = |line: &str| line.split([' ', '\t']).next().map(unescaped).filter(|path| path.starts_with('/'));
    let paths = text.lines().skip(1).filter_map(first);
    paths.map(|path| path.strip_suffix(" (deleted)").unwrap_or(&path).to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        for (line, expected) in [
            (
                "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue",
                Some(("98:0", "/mnt2", "ext3", "/dev/root")),
            ),
            ("27 1 254:0 / / rw - ext4 /dev/vda rw", Some(("254:0", "/", "ext4", "/dev/vda"))),
            (
                "40 27 0:41 / /srv/a\\040b\\134c rw shared:7 master:3 propagate_from:2 - fuse.x none rw",
                Some(("0:41", "/srv/a b\\c", "fuse.x", "none")),
            ),
            // A source may be empty, and a point may have a hyphen.
            ("41 27 0:42 / /srv/- rw - tmpfs  rw", Some(("0:42", "/srv/-", "tmpfs", ""))),
            ("41 27 0:42 / /srv rw", None),
            ("", None),
            ("41 - ext4", None),
        ] {
            let found = mount(line);
            let parts = found.as_ref().map(|mount| {
                (mount.number.as_str(), mount.point.to_str().unwrap(), mount.fs_type.as_str(), mount.source.as_str())
            });
            assert_eq!(parts, expected, "{line}");
        }
    }

    #[test]
    fn escapes() {
        for (text, expected) in [
            ("a\\040b", "a b"),
            ("\\", "\\"),
            ("\\04", "\\04"),
            ("\\048", "\\048"),
            ("\\777", "\\777"),
            ("\\303\\244", "ä"),
        ] {
            assert_eq!(unescaped(text), expected, "{text}");
        }
    }

    #[test]
    fn layers_of_overlays() {
        for (options, expected) in [
            ("rw,lowerdir=/a:/b\\040c,upperdir=/up,workdir=/work", &["/a", "/b c", "/up"][..]),
            ("rw,lowerdir+=/a,lowerdir+=/b,datadir+=/c,upperdir=/d", &["/a", "/b", "/c", "/d"]),
            ("ro,lowerdir=relative:/a::/data", &["/a", "/data"]),
            ("rw", &[]),
        ] {
            let mount = mount(&format!("1 0 0:9 / / rw - overlay overlay {options}")).unwrap();
            let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(mount.overlaid(), expected, "{options}");
        }
    }

    #[test]
    fn the_mount_of_a_path() {
        let text = "1 0 8:1 / / rw - ext4 a rw\n2 1 8:2 / /srv rw - ext4 b rw\n3 1 8:3 / /srv rw - ext4 c rw\n";
        let namespace = Namespace::new(None, text);
        for (path, expected) in [("/", 0), ("/srvice", 0), ("/srv", 2), ("/srv/a/b", 2)] {
            assert_eq!(namespace.of(Path::new(path)), Some(expected), "{path}");
        }
        assert_eq!(Namespace::new(None, "").of(Path::new("/")), None);
    }

    #[test]
    fn what_is_swapped_to() {
        let header = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
        for (lines, expected) in [
            ("", &[][..]),
            ("/dev/dm-1                               partition\t8388604\t\t0\t\t-2\n", &["/dev/dm-1"]),
            ("/swap\\040file file\t1\t0\t-2\n/x\\040(deleted) file\t1\t0\t-3\n", &["/swap file", "/x"]),
        ] {
            assert_eq!(swaps(&format!("{header}{lines}")), expected);
        }
    }
}
