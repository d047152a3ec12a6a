// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process that opens a device and asks it: this program again. Opening waits for the device's reset, and for whoever
//! holds its lock; stuck there, the process is left behind.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use super::features::{self, Features};
use super::open::{self, Refused, Way};
use crate::process::{self, Killed, RunError};

/// The argument with which this program is that process.
pub const ARGUMENT: &str = "--attend-device";

/// An answer is shorter.
const ANSWER: usize = 1 << 16;

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The kernel refused a step.
    #[error("{0:?}")]
    Refused(Refused),
    /// Nothing came back in time. The process was sent SIGKILL, and lets go of the device when the kernel lets go of it.
    #[error("no answer from the kernel within {} s; the process that opened it still ran{killed}", .after.as_secs_f32())]
    TimedOut {
        /// How long it was waited for.
        after: Duration,
        /// How the process was ended.
        killed: Killed,
    },
    /// The process could not be started, or ended without a word.
    #[error("the process that opens the device: {0}")]
    Process(#[from] io::Error),
}

/// Opens the device, asks it, and lets go.
pub fn probe(way: &Way, timeout: Duration) -> Result<Features, ProbeError> {
    let mut command = Command::new("/proc/self/exe");
    let request = serde_json::to_vec(way).map_err(io::Error::from)?;
    // No file system is to stay in use for one that is stuck.
    command.arg0("vfioctl").arg(ARGUMENT).current_dir("/");
    let answer = match process::ask(&mut command, &request, timeout, ANSWER) {
        Ok(answer) => answer.stdout.bytes,
        Err(RunError::TimedOut { after, killed, .. }) => return Err(ProbeError::TimedOut { after, killed }),
        Err(RunError::Start { source, .. }) => return Err(source.into()),
    };
    if answer.is_empty() {
        return Err(io::Error::new(io::ErrorKind::BrokenPipe, "it has ended").into());
    }
    let answer: Result<Features, Refused> = serde_json::from_slice(&answer).map_err(io::Error::from)?;
    answer.map_err(ProbeError::Refused)
}

/// The process's own side: one request on standard input, one answer on standard output.
pub fn serve(mut request: impl Read, mut answer: impl Write) -> io::Result<()> {
    // Started through /proc/self/exe it would show as "exe" to someone who looks for what holds the device.
    rustix::thread::set_name(c"vfioctl")?;
    let mut text = Vec::new();
    request.read_to_end(&mut text)?;
    let way: Way = serde_json::from_slice(&text)?;
    let result = open::open(&way).and_then(|open| features::ask(&open));
    serde_json::to_writer(&mut answer, &result)?;
    answer.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vfio::open::{Interface, Step, at};
    use rustix::io::Errno;

    #[test]
    fn a_refusal_comes_back() {
        let way = Way {
            interface: Interface::Group,
            device: "/nonexistent/7".into(),
            iommu: "/nonexistent/vfio".into(),
            address: "0000:3b:00.1".to_string(),
            token: None,
        };
        let mut answer = Vec::new();
        serve(serde_json::to_vec(&way).unwrap().as_slice(), &mut answer).unwrap();
        let answer: Result<Features, Refused> = serde_json::from_slice(&answer).unwrap();
        assert_eq!(answer, Err(at(Step::OpenIommu)(Errno::NOENT)));
    }
}
