// SPDX-License-Identifier: MIT OR Apache-2.0
//! Our own directory below /run: for root alone, so that nobody else can put anything there, or hold a lock.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use rustix::process::geteuid;

use crate::host::Host;

/// Makes a directory there, if it is not there yet. One that is somebody else's, or that others may write to, is an error: what
/// is in it is theirs.
pub fn make_directory(host: &Host, directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    let own = host.locks();
    for path in directory.ancestors().take_while(|path| path.starts_with(&own)) {
        let data = fs::symlink_metadata(path)?;
        let is_safe = data.is_dir() && data.mode() & 0o022 == 0;
        if is_safe && data.uid() == 0 && !geteuid().is_root() {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::ACCESS.raw_os_error()));
        }
        if !is_safe || data.uid() != geteuid().as_raw() {
            let mode = data.mode() & 0o7777;
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!(
                    "{} is no directory of root's alone (uid {}, mode {mode:04o}); remove it",
                    path.display(),
                    data.uid()
                ),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn it_is_made_for_us_alone_and_nobody_elses_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let (own, below) = (host.locks(), host.libvirt_domains());
        make_directory(&host, &below).unwrap();
        make_directory(&host, &below).unwrap();
        for path in [&own, &below] {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o777, 0o700, "{}", path.display());
        }
        let set_mode = |mode| fs::set_permissions(&own, fs::Permissions::from_mode(mode)).unwrap();
        set_mode(0o755);
        make_directory(&host, &below).unwrap();
        set_mode(0o1777);
        assert!(make_directory(&host, &below).unwrap_err().to_string().contains("mode 1777"));
        set_mode(0o700);
        // A link to where others may be at home.
        fs::remove_dir(&below).unwrap();
        fs::create_dir(root.path().join("elsewhere")).unwrap();
        symlink(root.path().join("elsewhere"), &below).unwrap();
        assert!(make_directory(&host, &below).is_err());
    }
}
