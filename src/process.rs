// SPDX-License-Identifier: MIT OR Apache-2.0
//! Running another program, but not for longer than one is willing to wait.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::interrupt;
use crate::sysfs::stuck;

/// How often one looks whether a program has ended, at the longest.
const GLANCE: Duration = Duration::from_millis(10);
/// What a program has printed is all there when it has ended; longer than this is waited for nobody else who still holds
/// its standard error.
const LINGER: Duration = Duration::from_millis(100);

/// How long a program that was killed is waited for: one that is not gone by then waits in the kernel.
const DYING: Duration = Duration::from_millis(300);

/// How much is kept of a program's standard error: more than anyone will read.
const COMPLAINT: usize = 1 << 20;

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
    /// It was still running at the end of the time; it and what it had started were sent SIGKILL.
    #[error("{}{program} still ran after {} s{killed}", if .killed.is_interrupted { "interrupted; " } else { "" }, .after.as_secs_f32())]
    TimedOut {
        /// The program.
        program: String,
        /// How long it was given.
        after: Duration,
        /// How it was ended.
        killed: Killed,
    },
}

/// The end of a program that does not end by itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Killed {
    /// Did the wish to stop cut its time short?
    pub is_interrupted: bool,
    /// The process and the kernel's functions it is in, if it waits in the kernel, and so sees the signal late.
    pub left: Option<(u32, Vec<String>)>,
}

impl Killed {
    /// How long it was given that was begun then, for a message.
    pub fn after(&self, begun: Instant, timeout: Duration) -> Duration {
        let tenths = begun.elapsed().as_millis() as u64 / 100;
        if self.is_interrupted { Duration::from_millis(100 * tenths) } else { timeout }
    }
}

impl fmt::Display for Killed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.left {
            None => write!(f, ", and was killed"),
            Some((pid, within)) => {
                write!(
                    f,
                    ", and waits in the kernel{} (pid {pid}), where a signal does not end it",
                    stuck::in_words(within)
                )
            }
        }
    }
}

/// The last of what a program printed.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Printed {
    /// As it was printed.
    pub bytes: Vec<u8>,
    /// Was there more before it?
    pub is_cut: bool,
}

impl Printed {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).trim().to_string()
    }
}

/// A program whose standard output was asked for.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: Printed,
    /// What it printed on standard error, trimmed.
    pub stderr: String,
}

/// A program whose every word was listened to.
#[derive(Debug)]
pub struct Logged {
    /// How it ended; or it was still running at the end of the time, and was killed with all that it had started.
    pub status: Result<ExitStatus, Killed>,
    /// What it printed on standard output and standard error, in that order.
    pub printed: Printed,
}

/// Runs a command as [`run`] does, but with `input` on its standard input, and keeps the last `limit` bytes of its standard
/// output.
pub fn ask(command: &mut Command, input: &[u8], timeout: Duration, limit: usize) -> Result<Answer, RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source| RunError::Start { program: program.clone(), source };
    interrupt::check(false).map_err(start)?;
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(start)?;
    let stderr = Tail::of(child.stderr.take().expect("it was asked to be piped"), COMPLAINT);
    let stdout = Tail::of(child.stdout.take().expect("it was asked to be piped"), limit);
    // One that has ended by now has said what it had to say.
    let _ = child.stdin.take().expect("it was asked to be piped").write_all(input);
    let status = end_of(child, program, timeout)?;
    // It may be more than was read while it ran, and half an answer is none.
    Ok(Answer { status, stdout: stdout.end_within(timeout), stderr: stderr.end().text() })
}

/// Runs a command as [`run`] does, and keeps the last `limit` bytes of what it prints, also where it does not end.
pub fn log(command: &mut Command, timeout: Duration, limit: usize) -> Result<Logged, RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source| RunError::Start { program: program.clone(), source };
    interrupt::check(false).map_err(start)?;
    // One pipe, so that what was printed stays in its order.
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|errno| start(errno.into()))?;
    let second = writer.try_clone().map_err(start)?;
    command.stdin(Stdio::null()).stdout(writer).stderr(second).process_group(0);
    let spawned = command.spawn();
    // The command holds the pipe's other end as long as it is asked to.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let child = spawned.map_err(start)?;
    let tail = Tail::of(File::from(reader), limit);
    let status = wait(child, timeout).map_err(start)?;
    Ok(Logged { status, printed: tail.end() })
}

/// Runs a command with nothing on its standard input, its standard output thrown away. It gets a process group of its own:
/// Ctrl-C is for us, and what was begun is to come to its end.
pub fn run(command: &mut Command, timeout: Duration) -> Result<Finished, RunError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let start = |source| RunError::Start { program: program.clone(), source };
    interrupt::check(false).map_err(start)?;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
    let mut child = command.spawn().map_err(start)?;
    let stderr = Tail::of(child.stderr.take().expect("it was asked to be piped"), COMPLAINT);
    let status = end_of(child, program, timeout)?;
    Ok(Finished { status, stderr: stderr.end().text() })
}

/// Waits for a child's end; one that does not come to it is killed.
fn end_of(child: Child, program: String, timeout: Duration) -> Result<ExitStatus, RunError> {
    let begun = Instant::now();
    match wait(child, timeout) {
        Ok(Ok(status)) => Ok(status),
        Ok(Err(killed)) => Err(RunError::TimedOut { program, after: killed.after(begun, timeout), killed }),
        Err(source) => Err(RunError::Start { program, source }),
    }
}

/// Waits for a child's end, not for longer than `timeout`, nor than whoever wishes to stop grants it; then it is killed.
fn wait(mut child: Child, timeout: Duration) -> io::Result<Result<ExitStatus, Killed>> {
    let begun = Instant::now();
    let limit = begun + timeout;
    let mut pause = Duration::from_micros(250);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Ok(status));
        }
        let wished = interrupt::deadline(begun, false).filter(|wished| *wished < limit);
        let left = wished.unwrap_or(limit).saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(Err(kill(child, wished.is_some())));
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(GLANCE);
    }
}

/// Kills a child that was not seen to end, and what it has started. Its process id is its own until it is waited for,
/// which is done aside where it waits in the kernel, and so ends late.
fn kill(mut child: Child, is_interrupted: bool) -> Killed {
    // It may have ended by itself just now; then there may be no one to kill.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let killed = Instant::now();
    while killed.elapsed() < DYING {
        if !matches!(child.try_wait(), Ok(None)) {
            return Killed { is_interrupted, left: None };
        }
        thread::sleep(Duration::from_millis(2));
    }
    let left = Some((child.id(), stuck::within(child.id())));
    thread::spawn(move || child.wait());
    Killed { is_interrupted, left }
}

/// The end of what comes out of a pipe. It is read in a thread, which ends when nobody has the other end any more, or at the
/// next byte when nobody listens.
struct Tail {
    kept: Arc<Mutex<Kept>>,
    end: Receiver<()>,
}

#[derive(Default)]
struct Kept {
    bytes: VecDeque<u8>,
    is_cut: bool,
}

impl Tail {
    fn of(mut pipe: impl Read + Send + 'static, limit: usize) -> Tail {
        let kept = Arc::new(Mutex::new(Kept::default()));
        let listener = Arc::downgrade(&kept);
        let (sender, end) = mpsc::channel::<()>();
        thread::spawn(move || {
            // Dropped at the end: that is the message.
            let _sender = sender;
            let mut buffer = [0; 4096];
            loop {
                let read = match pipe.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(read) => read,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => break,
                };
                let Some(kept) = listener.upgrade() else { break };
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.bytes.extend(&buffer[..read]);
                let excess = kept.bytes.len().saturating_sub(limit);
                kept.is_cut |= excess > 0;
                kept.bytes.drain(..excess);
            }
        });
        Tail { kept, end }
    }

    /// What there is when the other end is closed, or in a short moment.
    fn end(self) -> Printed {
        self.end_within(LINGER)
    }

    fn end_within(self, moment: Duration) -> Printed {
        let _ = self.end.recv_timeout(moment);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Printed { bytes: std::mem::take(&mut kept.bytes).into(), is_cut: kept.is_cut }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use rustix::process::kill_process;

    use super::*;

    #[test]
    fn status_and_standard_error_come_back() {
        let finished = run(Command::new("sh").args(["-c", "echo no >&2; exit 3"]), Duration::from_secs(10)).unwrap();
        assert_eq!(finished.status.code(), Some(3));
        assert_eq!(finished.stderr, "no");
    }

    #[test]
    fn a_signal_is_a_status() {
        let finished = run(Command::new("sh").args(["-c", "kill -TERM $$"]), Duration::from_secs(10)).unwrap();
        assert_eq!(finished.status.signal(), Some(Signal::TERM.as_raw()));
        assert_eq!(finished.stderr, "");
    }

    #[test]
    fn all_of_a_long_standard_error_comes_back() {
        let finished =
            run(Command::new("sh").args(["-c", "seq 20000 >&2; printf end >&2"]), Duration::from_secs(10)).unwrap();
        assert_eq!(finished.stderr.lines().count(), 20001);
        assert!(finished.stderr.ends_with("\n20000\nend"));
    }

    #[test]
    fn a_grandchild_with_standard_error_open_is_not_waited_for() {
        for grandchild in ["exec sleep 30", "while sleep 0.01; do echo noise >&2; done"] {
            let script = format!("echo begun >&2; ({grandchild}) & echo $! >&2");
            let started = Instant::now();
            let finished = run(Command::new("sh").args(["-c", &script]), Duration::from_secs(10)).unwrap();
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
            assert!(finished.status.success());
            let mut lines = finished.stderr.lines();
            assert_eq!(lines.next(), Some("begun"));
            let pid: i32 = lines.find_map(|line| line.parse().ok()).unwrap();
            // The one that writes ends of itself, now that nobody reads.
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }

    #[test]
    fn a_long_one_is_killed_with_its_children_and_reaped() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pids");
        let started = Instant::now();
        let script = "sleep 30 & echo $$ $! > \"$0\"; wait";
        let error = run(Command::new("sh").args(["-c", script]).arg(&file), Duration::from_millis(500)).unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }));
        assert!(started.elapsed() < Duration::from_secs(10));
        let pids = std::fs::read_to_string(file).unwrap();
        let pids: Vec<Pid> = pids.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap()).collect();
        assert_eq!(pids.len(), 2);
        // A zombie still has its directory; the second is for init to reap, which a container may lack.
        let is_gone = |pid: Pid| {
            let status = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
            status.map_or(true, |text| pid == pids[1] && text.contains(") Z "))
        };
        while !pids.iter().all(|&pid| is_gone(pid)) {
            assert!(started.elapsed() < Duration::from_secs(10), "{pids:?} still run");
            thread::sleep(Duration::from_millis(10));
        }
    }

    #[test]
    fn an_answer_and_what_was_said_besides_are_two() {
        const SECONDS: Duration = Duration::from_secs(10);
        let mut command = Command::new("sh");
        command.args(["-c", "read -r line; echo \"heard $line\"; echo but >&2; exit 2"]);
        let answer = ask(&mut command, b"a word\n", SECONDS, 100).unwrap();
        assert_eq!(answer.stdout, Printed { bytes: b"heard a word\n".to_vec(), is_cut: false });
        assert_eq!((answer.status.code(), answer.stderr.as_str()), (Some(2), "but"));
        // One that does not listen.
        assert_eq!(ask(&mut Command::new("true"), b"a word\n", SECONDS, 100).unwrap().stdout, Printed::default());
        let error = ask(Command::new("sleep").arg("30"), b"", Duration::from_millis(100), 100).unwrap_err();
        assert!(matches!(error, RunError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn the_last_of_what_is_printed_is_kept_in_its_order() {
        let script = "seq 20000; echo one >&2; echo two; printf three >&2";
        let logged = log(Command::new("sh").args(["-c", script]), Duration::from_secs(10), 19).unwrap();
        assert!(logged.status.unwrap().success());
        assert_eq!(String::from_utf8(logged.printed.bytes).unwrap(), "20000\none\ntwo\nthree");
        assert!(logged.printed.is_cut);
    }

    #[test]
    fn what_was_printed_before_it_was_killed_is_kept() {
        let started = Instant::now();
        let script = "echo begun; sleep 30 & wait";
        let logged = log(Command::new("sh").args(["-c", script]), Duration::from_millis(300), 4096).unwrap();
        assert_eq!(logged.status, Err(Killed { is_interrupted: false, left: None }));
        assert_eq!(logged.printed, Printed { bytes: b"begun\n".to_vec(), is_cut: false });
        assert!(started.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_grandchild_that_goes_on_printing_is_not_waited_for() {
        let script = "echo begun; (while sleep 0.01; do echo noise; done) & exit 0";
        let started = Instant::now();
        let logged = log(Command::new("sh").args(["-c", script]), Duration::from_secs(10), 4096).unwrap();
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        assert!(logged.status.unwrap().success());
        assert!(logged.printed.bytes.starts_with(b"begun\n"));
    }

    #[test]
    fn a_missing_one_is_named() {
        let error = run(&mut Command::new("no-such-program"), Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("no-such-program"));
    }
}
