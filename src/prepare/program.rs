// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the programs of steps are, and what they find around them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, access};

use crate::environment;

/// The program that a first word names; `None`: there is none that can be run.
pub fn resolve(word: &str, directories: &[PathBuf]) -> Option<PathBuf> {
    let is_program = |path: &Path| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if word.starts_with('/') {
        return Some(PathBuf::from(word)).filter(|path| is_program(path));
    }
    directories.iter().map(|directory| directory.join(word)).find(|path| is_program(path))
}

/// A command with an environment of its own, and nothing else of ours: no directory, and no open file.
pub fn command<'a>(program: &OsStr, variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Command {
    // Ours are closed on exec anyway; those that we were given by whoever started us may not be.
    close_fds::set_fds_cloexec_threadsafe(3, &[]);
    let mut command = environment::command(program);
    command.envs(variables);
    command
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_that_can_be_run_is_taken() {
        let root = tempfile::tempdir().unwrap();
        let directories: Vec<PathBuf> = ["a", "b", "c"].map(|name| root.path().join(name)).to_vec();
        for (directory, mode) in directories.iter().zip([0o644, 0o755, 0o755]) {
            fs::create_dir(directory).unwrap();
            fs::write(directory.join("tool"), "").unwrap();
            fs::set_permissions(directory.join("tool"), Permissions::from_mode(mode)).unwrap();
        }
        fs::create_dir(directories[0].join("directory")).unwrap();
        assert_eq!(resolve("tool", &directories), Some(directories[1].join("tool")));
        assert_eq!(resolve("directory", &directories), None);
        assert_eq!(resolve("none", &directories), None);
        let path = |name: &str| root.path().join(name).to_str().unwrap().to_string();
        assert_eq!(resolve(&path("c/tool"), &[]), Some(directories[2].join("tool")));
        assert_eq!(resolve(&path("a/tool"), &[]), None);
    }

    #[test]
    fn a_program_finds_nothing_of_ours() {
        let output = command(OsStr::new("/usr/bin/env"), [("VFIOCTL_ADDRESS", "0000:3b:00.1")]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ["LANG", "PATH", "VFIOCTL_ADDRESS"], "{text}");
    }
}
