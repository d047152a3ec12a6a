// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes and the device nodes they have open.

use std::fs;
use std::path::{Path, PathBuf};

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
    let Ok(processes) = fs::read_dir(host.processes()) else { return Vec::new() };
    let mut openers = Vec::new();
    for process in processes.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // It may end at any moment.
        let Ok(descriptors) = fs::read_dir(process.path().join("fd")) else { continue };
        let paths = descriptors.flatten().map(|descriptor| descriptor.path());
        let links = paths.filter_map(|path| Some((fs::read_link(&path).ok()?, path)));
        let mut nodes: Vec<(PathBuf, T)> =
            links.filter_map(|(target, descriptor)| which(&descriptor, &target).map(|what| (target, what))).collect();
        nodes.sort();
        nodes.dedup();
        if !nodes.is_empty() {
            let command = command(&process.path());
            openers
                .extend(nodes.into_iter().map(|(node, what)| (Opener { pid, command: command.clone(), node }, what)));
        }
    }
    openers.sort_by_key(|(opener, _)| opener.pid);
    openers
}

/// A process names itself; what would steer a terminal is left out.
pub fn command(process: &Path) -> String {
    let command = fs::read_to_string(process.join("comm")).unwrap_or_default();
    command.chars().filter(|c| !c.is_control()).collect()
}
