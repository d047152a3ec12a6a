// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only writes to sysfs.
//!
//! A write to `bind` or `unbind` can sleep in the kernel for ever, and a thread stuck there keeps its whole process from
//! ending, SIGKILL or not. So the writes are made by a child process, this program again, that can be left behind: it is
//! told one write at a time and answers with the errno.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sysfs_class::SysClass;

use super::node::Node;
use crate::address::Address;
use crate::host::Host;
use crate::kernel_name::DriverName;

/// The argument with which this program is the writer.
pub const WRITER_COMMAND: &str = "--write-attributes";

/// The writes a device's binding needs, on one host.
pub struct Control<'a> {
    host: &'a Host,
    timeout: Duration,
    child: Child,
    requests: ChildStdin,
    answers: Receiver<io::Result<i32>>,
}

/// A write that did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The kernel said no.
    #[error("writing {value:?} to {path}: {}", describe(*.errno))]
    Refused {
        /// The attribute.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel has not answered.
    #[error("writing {value:?} to {path} still waits in the kernel after {} s", .after.as_secs_f32())]
    TimedOut {
        /// The attribute.
        path: PathBuf,
        /// What was written.
        value: String,
        /// How long it was given.
        after: Duration,
    },
    /// The process that writes could not be started, or ended.
    #[error("the process that writes to sysfs: {0}")]
    Writer(#[from] io::Error),
}

impl WriteError {
    /// The kernel's answer, if there was one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            WriteError::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// `EBUSY (Device or resource busy)`, for the errnos that binding gives; the number for any other.
fn describe(errno: Errno) -> String {
    let name = match errno {
        Errno::ACCESS => "EACCES",
        Errno::PERM => "EPERM",
        Errno::ROFS => "EROFS",
        Errno::NODEV => "ENODEV",
        Errno::NOENT => "ENOENT",
        Errno::BUSY => "EBUSY",
        Errno::INVAL => "EINVAL",
        Errno::AGAIN => "EAGAIN",
        Errno::IO => "EIO",
        Errno::NOMEM => "ENOMEM",
        Errno::TIME => "ETIME",
        Errno::TIMEDOUT => "ETIMEDOUT",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        _ => "errno",
    };
    let text = io::Error::from(errno).to_string();
    format!("{name} ({})", text.replace(" (os error ", ", os error ").trim_end_matches(')'))
}

#[derive(Serialize, Deserialize)]
struct Request {
    directory: PathBuf,
    attribute: String,
    value: String,
}

impl<'a> Control<'a> {
    /// Starts the writer. Each write is given up on after `timeout`.
    pub fn start(host: &'a Host, timeout: Duration) -> io::Result<Control<'a>> {
        let mut child = Command::new("/proc/self/exe")
            .arg0("vfioctl")
            .arg(WRITER_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A pipe of the caller's that a stuck writer held open would make the caller wait as well.
            .stderr(Stdio::null())
            // Ctrl-C is for us: a write that was begun is to come to its end.
            .process_group(0)
            .spawn()?;
        let requests = child.stdin.take().expect("it was asked to be piped");
        let output = child.stdout.take().expect("it was asked to be piped");
        let (sender, answers) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let answer = line.and_then(|line| line.parse().map_err(io::Error::other));
                if sender.send(answer).is_err() {
                    break;
                }
            }
        });
        Ok(Control { host, timeout, child, requests, answers })
    }

    /// Sets `driver_override`: from now on, this driver alone may have the device.
    pub fn set_override(&mut self, address: Address, driver: &str) -> Result<(), WriteError> {
        self.write(self.host.device(address), "driver_override", driver)
    }

    /// Clears `driver_override`. A zero-length write would do nothing (`fs/sysfs/file.c`, `sysfs_kf_write`); a newline
    /// clears it.
    pub fn clear_override(&mut self, address: Address) -> Result<(), WriteError> {
        self.write(self.host.device(address), "driver_override", "\n")
    }

    /// Takes the device from its driver.
    pub fn unbind(&mut self, address: Address, driver: &DriverName) -> Result<(), WriteError> {
        self.write(self.host.driver(driver), "unbind", &address.to_string())
    }

    /// Gives the device to a driver; the errno is the probe's own, which `drivers_probe` would hide.
    pub fn bind(&mut self, address: Address, driver: &DriverName) -> Result<(), WriteError> {
        self.write(self.host.driver(driver), "bind", &address.to_string())
    }

    /// Lets the kernel choose among the registered drivers. Success says nothing about whether one took the device.
    pub fn probe(&mut self, address: Address) -> Result<(), WriteError> {
        self.write(self.host.pci_bus(), "drivers_probe", &address.to_string())
    }

    fn write(&mut self, directory: PathBuf, attribute: &str, value: &str) -> Result<(), WriteError> {
        let path = directory.join(attribute);
        let request = Request { directory, attribute: attribute.to_string(), value: value.to_string() };
        let mut line = serde_json::to_vec(&request).map_err(io::Error::from)?;
        line.push(b'\n');
        self.requests.write_all(&line)?;
        let value = request.value;
        match self.answers.recv_timeout(self.timeout) {
            Ok(Ok(0)) => Ok(()),
            Ok(Ok(errno)) => Err(WriteError::Refused { path, value, errno: Errno::from_raw_os_error(errno) }),
            Ok(Err(error)) => Err(WriteError::Writer(error)),
            Err(RecvTimeoutError::Timeout) => {
                // It ends when the kernel lets go of it, and will not take another request.
                let _ = self.child.kill();
                Err(WriteError::TimedOut { path, value, after: self.timeout })
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(WriteError::Writer(io::Error::new(io::ErrorKind::BrokenPipe, "it has ended")))
            }
        }
    }
}

/// The writer's side: writes what standard input says, answers on standard output, ends with its input.
pub fn serve(requests: impl BufRead, mut answers: impl Write) -> io::Result<()> {
    // Started through /proc/self/exe it would show as "exe" to someone who looks for what is stuck.
    rustix::thread::set_name(c"vfioctl")?;
    for line in requests.lines() {
        let request: Request = serde_json::from_str(&line?)?;
        let node = Node::new(request.directory);
        let errno = match node.write_file(&request.attribute, &request.value) {
            Ok(()) => 0,
            // A write that the kernel took none of is reported without an errno.
            Err(error) => error.raw_os_error().unwrap_or(Errno::IO.raw_os_error()),
        };
        writeln!(answers, "{errno}")?;
        answers.flush()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writer_writes_and_answers() {
        let root = tempfile::tempdir().unwrap();
        let attribute = root.path().join("driver_override");
        std::fs::write(&attribute, "").unwrap();
        let request = |name: &str| {
            let request = Request {
                directory: root.path().to_path_buf(),
                attribute: name.to_string(),
                value: "vfio-pci".to_string(),
            };
            serde_json::to_string(&request).unwrap() + "\n"
        };
        let input = request("driver_override") + &request("no_such_attribute");
        let mut output = Vec::new();
        serve(input.as_bytes(), &mut output).unwrap();
        assert_eq!(String::from_utf8(output).unwrap(), format!("0\n{}\n", Errno::NOENT.raw_os_error()));
        assert_eq!(std::fs::read_to_string(attribute).unwrap(), "vfio-pci");
        // Opened without O_CREAT: what the kernel has not made is not made here either.
        assert!(!root.path().join("no_such_attribute").exists());
    }

    #[test]
    fn errnos_have_their_names() {
        assert_eq!(describe(Errno::NODEV), "ENODEV (No such device, os error 19)");
    }
}
