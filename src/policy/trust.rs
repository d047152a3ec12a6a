// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a file can be changed by root alone. Only such a file may say which driver root binds a device to, and what it is
//! to run. That is asked of this machine's own files; another root's are whoever's, and are taken for what they say.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::file;
use crate::host::Host;

/// How many links are followed, as the kernel has it (`include/linux/namei.h`, `MAXSYMLINKS`).
const LINKS: usize = 40;

/// Why a file is not to be trusted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Distrust {
    /// Somebody else has it.
    #[error("{} belongs to uid {uid}", .path.display())]
    Owner {
        /// The file, a directory above it, or a link on the way.
        path: PathBuf,
        /// Whose it is.
        uid: u32,
        /// Is it a link?
        is_link: bool,
    },
    /// Others may write to it.
    #[error("{} may be written by {} (mode {mode:04o})", .path.display(), writers(*.mode))]
    Mode {
        /// The file, or a directory above it.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It was replaced, or it cannot be looked at.
    #[error("{} cannot be looked at: {reason}", .path.display())]
    Unseen {
        /// What.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

impl Distrust {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            Distrust::Owner { path, is_link: false, .. } => {
                format!("look at what it says, then: chown root:root {}", path.display())
            }
            Distrust::Owner { path, is_link: true, .. } => {
                format!("look at what it says, then: chown -h root:root {}", path.display())
            }
            Distrust::Mode { path, .. } => format!("look at what it says, then: chmod go-w {}", path.display()),
            Distrust::Unseen { .. } => "try again".to_string(),
        }
    }
}

fn writers(mode: u32) -> &'static str {
    match (mode & 0o020 != 0, mode & 0o002 != 0) {
        (_, true) => "everybody",
        (true, false) => "its group",
        (false, false) => "nobody else",
    }
}

/// Looks at a directory and at all that leads to it; one that is not there is nobody's.
pub fn check_directory(host: &Host, path: &Path) -> Result<(), Distrust> {
    match file::open_at_once(path) {
        Ok(directory) => check(host, &directory, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(unseen(path, error)),
    }
}

/// Looks at an open file, and at all that leads to it: its directories, and the links and their directories.
pub fn check(host: &Host, file: &File, path: &Path) -> Result<(), Distrust> {
    match host.is_this_machine() {
        true => check_all(file, path),
        false => Ok(()),
    }
}

fn unseen(path: &Path, error: io::Error) -> Distrust {
    Distrust::Unseen { path: path.to_path_buf(), reason: error.to_string() }
}

fn check_all(file: &File, path: &Path) -> Result<(), Distrust> {
    let path = std::path::absolute(path).map_err(|error| unseen(path, error))?;
    let opened = file.metadata().map_err(|error| unseen(&path, error))?;
    judge(&path, &opened)?;
    let mut ahead: VecDeque<OsString> = names(&path);
    let mut here = PathBuf::from("/");
    judge(&here, &fs::symlink_metadata(&here).map_err(|error| unseen(&here, error))?)?;
    let mut links = 0;
    let mut last = None;
    while let Some(name) = ahead.pop_front() {
        if name == ".." {
            here.pop();
            continue;
        }
        let next = here.join(name);
        let data = fs::symlink_metadata(&next).map_err(|error| unseen(&next, error))?;
        judge(&next, &data)?;
        if !data.is_symlink() {
            here = next;
            last = Some((data.dev(), data.ino()));
            continue;
        }
        links += 1;
        if links > LINKS {
            return Err(Distrust::Unseen { path: next, reason: "too many links".to_string() });
        }
        let target = fs::read_link(&next).map_err(|error| unseen(&next, error))?;
        if target.is_absolute() {
            here = PathBuf::from("/");
        }
        for name in names(&target).into_iter().rev() {
            ahead.push_front(name);
        }
    }
    // What was read is what lies there, where nobody but root can have put it.
    if last != Some((opened.dev(), opened.ino())) {
        return Err(Distrust::Unseen { path, reason: "it is another file than the one that was read".to_string() });
    }
    Ok(())
}

fn names(path: &Path) -> VecDeque<OsString> {
    let name = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(name).collect()
}

fn judge(path: &Path, data: &Metadata) -> Result<(), Distrust> {
    verdict(path, data.uid(), data.mode() & 0o7777, data.is_symlink())
}

/// The sticky bit does not help: in such a directory, too, anybody can make what is not there.
fn verdict(path: &Path, uid: u32, mode: u32, is_link: bool) -> Result<(), Distrust> {
    // Whoever has the root directory has this program as well; in a user namespace that is nobody known.
    if uid != 0 && path != Path::new("/") {
        return Err(Distrust::Owner { path: path.to_path_buf(), uid, is_link });
    }
    // An initramfs is a tmpfs, whose root directory is everybody's, with the sticky bit (`mm/shmem.c`, `shmem_fill_super`). What
    // leads on from there is there already, and nobody but root can put anything else in its place.
    if path == Path::new("/") && mode & 0o1000 != 0 {
        return Ok(());
    }
    // A link's own mode says nothing (symlink(7)).
    if !is_link && mode & 0o022 != 0 {
        return Err(Distrust::Mode { path: path.to_path_buf(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn owner_and_mode_decide() {
        for (path, uid, mode, is_link, expected) in [
            ("/etc/vfioctl.d/x.toml", 0, 0o644, false, None),
            ("/etc/vfioctl.d/x.toml", 0, 0o600, false, None),
            ("/etc/vfioctl.d/x.toml", 1000, 0o600, false, Some("chown root:root /etc/vfioctl.d/x.toml")),
            ("/etc/vfioctl.d/x.toml", 0, 0o664, false, Some("chmod go-w /etc/vfioctl.d/x.toml")),
            ("/etc/vfioctl.d/x.toml", 0, 0o646, false, Some("chmod go-w /etc/vfioctl.d/x.toml")),
            ("/tmp", 0, 0o1777, false, Some("chmod go-w /tmp")),
            ("/srv", 0, 0o1775, false, Some("chmod go-w /srv")),
            ("/etc/vfioctl.d", 2, 0o755, false, Some("chown root:root /etc/vfioctl.d")),
            ("/etc/vfioctl.d/x.toml", 0, 0o777, true, None),
            ("/etc/vfioctl.d/x.toml", 7, 0o777, true, Some("chown -h root:root /etc/vfioctl.d/x.toml")),
            ("/", 65534, 0o755, false, None),
            ("/", 0, 0o775, false, Some("chmod go-w /")),
            ("/", 0, 0o1777, false, None),
        ] {
            let found = verdict(Path::new(path), uid, mode, is_link).err();
            match expected {
                None => assert_eq!(found, None),
                Some(hint) => assert!(found.unwrap().hint().ends_with(hint), "{path} {uid} {mode:o}"),
            }
        }
    }

    #[test]
    fn each_directory_and_link_on_the_way_counts() {
        // Whoever runs this: it is below a directory that anybody can write to, or is another user's.
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let path = root.path().join("x.toml");
        fs::write(&path, "x").unwrap();
        let [here, elsewhere] =
            ["/", root.path().to_str().unwrap()].map(|root| Host::new(Path::new(root), None).unwrap());
        let error = check(&here, &File::open(&path).unwrap(), &path).unwrap_err();
        assert!(matches!(&error, Distrust::Owner { .. } | Distrust::Mode { .. }), "{error}");
        let error = check_directory(&here, root.path()).unwrap_err();
        assert!(matches!(&error, Distrust::Owner { .. } | Distrust::Mode { .. }), "{error}");
        check(&elsewhere, &File::open(&path).unwrap(), &path).unwrap();
        check_directory(&here, &root.path().join("none")).unwrap();
    }
}
