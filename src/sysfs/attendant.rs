// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that reads and writes attributes for us, and can be left behind.
//!
//! A write to `bind` or `unbind` can sleep in the kernel for ever, and on older kernels so can a read of `driver_override`.
//! A thread stuck there keeps its whole process from ending, SIGKILL or not. So such calls are made by a child process,
//! this program again: it is told one at a time and answers with what came of it.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sysfs_class::SysClass;

use super::node::Node;
use super::stuck;
use crate::file;
use crate::interrupt;

/// The argument with which this program is the attendant.
pub const ARGUMENT: &str = "--attend-attributes";

/// How often one looks whether the user wishes to stop.
const GLANCE: Duration = Duration::from_millis(100);

/// How long the end of those that have nothing to do is waited for.
const FAREWELL: Duration = Duration::from_secs(2);

/// The other process.
pub struct Attendant {
    /// `None`: it was left behind in the kernel, and the next call wants another.
    channel: Option<Channel>,
    is_undoing: bool,
}

/// The way to it and back.
struct Channel {
    pid: u32,
    requests: ChildStdin,
    answers: Receiver<io::Result<Answer>>,
}

/// Those that have nothing to do: for hundreds of devices in turn, starting one each would be most of the work.
static IDLE: Mutex<Vec<Channel>> = Mutex::new(Vec::new());

#[derive(Serialize, Deserialize)]
struct Request {
    directory: PathBuf,
    attribute: String,
    /// What to write; to read, if there is nothing.
    value: Option<String>,
    /// The device that is written about: held open meanwhile, so that it shows who waits for what.
    device: Option<PathBuf>,
}

/// What came of a request.
#[derive(Serialize, Deserialize, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was written, or this was read.
    Done(String),
    /// The attribute could not be opened.
    NotOpened(i32),
    /// It was opened, but the kernel refused the call itself.
    Refused(i32),
}

/// No answer.
#[derive(Debug, thiserror::Error)]
pub enum AttendantError {
    /// Not in time. The process is left behind: it ends when the kernel lets go of it.
    #[error("no answer from the kernel{}", stuck::in_words(.0.within.as_slice()))]
    TimedOut(GivenUp),
    /// The process could not be started, or ended.
    #[error("the process that reads and writes sysfs: {0}")]
    Process(#[from] io::Error),
}

/// A call that was given up on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenUp {
    /// Did the wish to stop cut the time short?
    pub is_interrupted: bool,
    /// The process that is left behind.
    pub pid: u32,
    /// The kernel's functions it is in, as far as that is told.
    pub within: Vec<String>,
}

impl Channel {
    fn open() -> io::Result<Channel> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("vfioctl")
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A pipe of the caller's that a stuck process held open would make the caller wait as well.
            .stderr(Stdio::null())
            // Nor is a file system to stay in use for it.
            .current_dir("/")
            // Ctrl-C is for us: a call that was begun is to come to its end.
            .process_group(0)
            .spawn()?;
        let pid = child.id();
        let requests = child.stdin.take().expect("it was asked to be piped");
        let output = child.stdout.take().expect("it was asked to be piped");
        let (sender, answers) = mpsc::channel();
        // It ends with its input; a stuck one when the kernel lets go of it.
        thread::Builder::new().spawn(move || {
            for line in BufReader::new(output).lines() {
                if sender.send(line.and_then(|line| Ok(serde_json::from_str(&line)?))).is_err() {
                    break;
                }
            }
            let _ = child.wait();
        })?;
        Ok(Channel { pid, requests, answers })
    }
}

impl Drop for Attendant {
    fn drop(&mut self) {
        IDLE.lock().expect("no thread panics with it").extend(self.channel.take());
    }
}

/// One with nothing to do, or a new one.
fn channel() -> io::Result<Channel> {
    let idle = IDLE.lock().expect("no thread panics with it").pop();
    idle.map_or_else(Channel::open, Ok)
}

impl Attendant {
    /// Starts the process, unless there is one with nothing to do.
    pub fn start() -> io::Result<Attendant> {
        Ok(Attendant { channel: Some(channel()?), is_undoing: false })
    }

    /// From now on, calls put something back: who wishes to stop wishes for these too.
    pub fn set_undoing(&mut self) {
        self.is_undoing = true;
    }

    /// Writes `value` to an attribute, on behalf of the device with the directory `device`.
    pub fn write(
        &mut self,
        directory: &Path,
        attribute: &str,
        value: &str,
        device: &Path,
        timeout: Duration,
    ) -> Result<Answer, AttendantError> {
        self.ask(directory, attribute, Some(value.to_string()), Some(device), timeout)
    }

    /// Reads an attribute. What is not UTF-8 in it is replaced.
    pub fn read(&mut self, directory: &Path, attribute: &str, timeout: Duration) -> Result<Answer, AttendantError> {
        self.ask(directory, attribute, None, None, timeout)
    }

    fn ask(
        &mut self,
        directory: &Path,
        attribute: &str,
        value: Option<String>,
        device: Option<&Path>,
        timeout: Duration,
    ) -> Result<Answer, AttendantError> {
        interrupt::check(self.is_undoing)?;
        // The process is in another directory than we.
        let (directory, device) = (path::absolute(directory)?, device.map(path::absolute).transpose()?);
        let attribute = attribute.to_string();
        let mut line = serde_json::to_vec(&Request { directory, attribute, value, device }).map_err(io::Error::from)?;
        line.push(b'\n');
        // Back in its place only with an answer.
        let mut channel = self.channel.take().map_or_else(channel, Ok)?;
        channel.requests.write_all(&line)?;
        let begun = Instant::now();
        let limit = begun + timeout;
        loop {
            let wished = interrupt::deadline(begun, self.is_undoing).filter(|wished| *wished < limit);
            let left = wished.unwrap_or(limit).saturating_duration_since(Instant::now());
            match channel.answers.recv_timeout(left.min(GLANCE)) {
                Ok(answer) => {
                    self.channel = Some(channel);
                    return Ok(answer?);
                }
                Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
                Err(RecvTimeoutError::Timeout) => {
                    let (is_interrupted, pid) = (wished.is_some(), channel.pid);
                    let within = stuck::within(pid);
                    return Err(AttendantError::TimedOut(GivenUp { is_interrupted, pid, within }));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, "it has ended").into());
                }
            }
        }
    }
}

/// Ends those that have nothing to do, and waits for that: what is left when a service's main process ends, systemd kills,
/// and says so.
pub fn dismiss() {
    let idle: Vec<Channel> = IDLE.lock().expect("no thread panics with it").drain(..).collect();
    let answers: Vec<_> = idle.into_iter().map(|Channel { answers, .. }| answers).collect();
    let started = Instant::now();
    for ended in answers {
        // No answer comes any more: the other end is gone once the process is.
        let _ = ended.recv_timeout(FAREWELL.saturating_sub(started.elapsed()));
    }
}

/// The process's own side: does what standard input says, answers on standard output, ends with its input.
pub fn serve(requests: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    // A service that is stopped has the signal sent to all its processes: what was begun, and putting it back, goes on.
    interrupt::take_over()?;
    // Started through /proc/self/exe it would show as "exe" to someone who looks for what is stuck.
    rustix::thread::set_name(c"vfioctl")?;
    for line in requests.lines() {
        let request: Request = serde_json::from_str(&line?)?;
        serde_json::to_writer(&mut answers, &attend(&request))?;
        answers.write_all(b"\n")?;
        answers.flush()?;
    }
    Ok(())
}

fn attend(request: &Request) -> Answer {
    // A call that failed without an errno was cut short.
    let errno = |error: io::Error| error.raw_os_error().unwrap_or(Errno::IO.raw_os_error());
    let node = Node::new(request.directory.clone());
    let path = request.directory.join(&request.attribute);
    // One that has gone needs no one to wait for it.
    let _device = request.device.as_ref().and_then(|device| File::open(device).ok());
    let result = match &request.value {
        // Opened without O_CREAT: what the kernel has not made is ENOENT, not EACCES.
        Some(value) => node.write_file(&request.attribute, value).map(|()| String::new()),
        None => file::open_at_once(&path)
            .and_then(|mut attribute| file::read_open(&mut attribute, file::ATTRIBUTE))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    };
    let error = match result {
        Ok(text) => return Answer::Done(text),
        Err(error) => error,
    };
    // Which of the two failed is asked only now: to open it once more does nothing to the device.
    match OpenOptions::new().read(request.value.is_none()).write(request.value.is_some()).open(&path) {
        Ok(_) => Answer::Refused(errno(error)),
        Err(error) => Answer::NotOpened(errno(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_writes_and_answers() {
        let root = tempfile::tempdir().unwrap();
        let attribute = root.path().join("driver_override");
        std::fs::write(&attribute, "(null)\n").unwrap();
        let request = |attribute: &str, value: Option<&str>| {
            let request = Request {
                directory: root.path().to_path_buf(),
                attribute: attribute.to_string(),
                value: value.map(str::to_string),
                device: None,
            };
            serde_json::to_string(&request).unwrap() + "\n"
        };
        let input = request("driver_override", None)
            + &request("driver_override", Some("vfio-pci"))
            + &request("no_such_attribute", Some("x"));
        let mut output = Vec::new();
        serve(input.as_bytes(), &mut output).unwrap();
        let answers: Vec<Answer> =
            String::from_utf8(output).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let missing = Answer::NotOpened(Errno::NOENT.raw_os_error());
        assert_eq!(answers, [Answer::Done("(null)\n".into()), Answer::Done(String::new()), missing]);
        assert!(std::fs::read_to_string(attribute).unwrap().starts_with("vfio-pci"));
        assert!(!root.path().join("no_such_attribute").exists());
    }
}
