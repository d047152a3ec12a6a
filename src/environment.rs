// SPDX-License-Identifier: MIT OR Apache-2.0
//! What another program finds around it: a fixed environment, nothing of ours. modprobe alone would heed `MODPROBE_OPTIONS`,
//! what it runs of modprobe.d `IFS`, `ENV` and `BASH_ENV`, and all of them `LD_PRELOAD` and the language.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::Command;

/// Also looked in, since a PATH as after `su` lacks the administrator's.
const USUAL: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// What every program finds, besides PATH.
const FIXED: [(&str, &str); 1] = [("LANG", "C.UTF-8")];

/// The directories that programs are looked for in, and that they look in themselves: those of PATH that are absolute, then
/// the usual ones.
pub fn search_path() -> Vec<PathBuf> {
    directories(&env::var_os("PATH").unwrap_or_default())
}

fn directories(path: &OsStr) -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in env::split_paths(path).chain(USUAL.map(PathBuf::from)) {
        if directory.is_absolute() && !directories.contains(&directory) {
            directories.push(directory);
        }
    }
    directories
}

/// A command with an environment of its own, started in the root directory. A program without a slash is looked for in
/// [`search_path`].
pub fn command(program: &OsStr) -> Command {
    let path = env::join_paths(search_path()).unwrap_or_else(|_| OsString::from(USUAL.join(":")));
    let mut command = Command::new(program);
    command.env_clear().env("PATH", path).envs(FIXED).current_dir("/");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_directories_are_left_out_and_the_usual_ones_come_last() {
        let found = directories(OsStr::new("/opt/x:.::bin:/usr/bin:/opt/x"));
        let found: Vec<&str> = found.iter().map(|path| path.to_str().unwrap()).collect();
        assert_eq!(found, ["/opt/x", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/sbin", "/bin"]);
        assert_eq!(directories(OsStr::new("")).len(), USUAL.len());
    }

    #[test]
    fn a_program_finds_nothing_of_ours() {
        let output = command(OsStr::new("env")).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
        names.sort_unstable();
        assert_eq!(names, ["LANG", "PATH"], "{text}");
    }
}
