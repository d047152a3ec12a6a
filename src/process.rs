// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running another program, but not for longer than one is willing to wait.

use std::io;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A program that came to its end.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard error, trimmed.
    pub stderr: String,
}

/// A program that did not.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started.
    #[error("cannot run {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It was still running at the end of the time; it was sent SIGKILL, which a program stuck in the kernel sees late.
    #[error("{program} still ran after {} s", .after.as_secs_f32())]
    TimedOut {
        /// The program.
        program: String,
        /// How long it was given.
        after: Duration,
    },
}

/// Runs a command with nothing on its standard input, its standard output thrown away.
pub fn run(command: &mut Command, timeout: Duration) -> Result<Finished, RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source| RunError::Start { program: program.clone(), source };
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().map_err(start)?;
    let pid = Pid::from_child(&child);
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(child.wait_with_output()));
    match result.recv_timeout(timeout) {
        Ok(Ok(output)) => {
            Ok(Finished { status: output.status, stderr: String::from_utf8_lossy(&output.stderr).trim().to_string() })
        }
        Ok(Err(source)) => Err(start(source)),
        Err(_) => {
            // It may end by itself at this very moment; then there is no one to kill.
            let _ = kill_process(pid, Signal::KILL);
            Err(RunError::TimedOut { program, after: timeout })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_standard_error_come_back() {
        let finished = run(Command::new("sh").args(["-c", "echo no >&2; exit 3"]), Duration::from_secs(10)).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.stderr, "no");
    }

    #[test]
    fn a_long_one_is_given_up() {
        let started = std::time::Instant::now();
        let error = run(Command::new("sleep").arg("30"), Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }));
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_missing_one_is_named() {
        let error = run(&mut Command::new("no-such-program"), Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("no-such-program"));
    }
}
