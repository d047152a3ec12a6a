// SPDX-License-Identifier: MIT OR Apache-2.0
//! What others on the host do while a program is at work: they act at a step of it, or kill it there.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;

use crate::control;
use crate::model::Place;
use crate::namespace::PROGRAMS;

/// Runs a shell command to its end. A host's own programs come first in its PATH, and `simhost launch` sees to its signals.
pub fn act(place: &Place, command: &str) {
    let mut path = std::ffi::OsString::from(PROGRAMS);
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
    let mut launch = Command::new(Path::new(PROGRAMS).join("simhost"));
    launch.args(["launch", "--", "sh", "-c", command]).env("PATH", path).env(control::VARIABLE, control::SOCKET);
    if let Place::Device(address, _) = place {
        launch.env("DEVICE", address.to_string());
    }
    // What it prints is not to be taken for the command's that the host was made for.
    match launch.stdin(Stdio::null()).stdout(Stdio::null()).status() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("simhost: at {place}: {command}: {status}"),
        Err(error) => eprintln!("simhost: at {place}: {command}: {error}"),
    }
}

/// Kills a process and the one that started it. Both are in the kernel's hands at once: neither sees the other's end.
pub fn kill(pid: u32) {
    if pid == 0 {
        return;
    }
    for pid in parent(pid).into_iter().chain([pid]) {
        // Who has ended need not be killed.
        let _ = send(Pid::from_raw(pid as i32), Signal::SIGKILL);
    }
}

/// Who started a process.
pub fn parent(pid: u32) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:"))?;
    parent.trim().parse().ok()
}
