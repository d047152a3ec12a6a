// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only writes to sysfs.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::attendant::{Answer, Attendant, AttendantError, GivenUp};
use super::node::ReadError;
use super::stuck;
use crate::address::Address;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::lock::DeviceLock;

/// The writes a device's binding needs, on one host, each given up on after a while.
pub struct Control<'a> {
    host: &'a Host,
    timeout: Duration,
    attendant: Attendant,
}

/// A write that did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The attribute could not be opened for writing: the caller may not, or it is not there.
    #[error("cannot open {path} for writing: {}", describe(*.errno))]
    NotOpened {
        /// The attribute.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// The kernel said no.
    #[error("writing {value:?} to {path}: {}", describe(*.errno))]
    Refused {
        /// The attribute.
        path: PathBuf,
        /// What was written.
        value: String,
        /// The kernel's answer; for a bind the probe's own.
        errno: Errno,
    },
    /// The kernel has not answered.
    #[error(
        "{}writing {value:?} to {path} still waits in the kernel after {:.1} s{} (pid {})",
        if .given_up.is_interrupted { "interrupted; " } else { "" },
        .after.as_secs_f32(),
        stuck::in_words(.given_up.within.as_slice()),
        .given_up.pid
    )]
    TimedOut {
        /// The attribute.
        path: PathBuf,
        /// What was written.
        value: String,
        /// How long it was given.
        after: Duration,
        /// What is left behind, and where.
        given_up: GivenUp,
    },
    /// The process that writes could not be started, or ended.
    #[error("the process that writes to sysfs: {0}")]
    Attendant(#[from] io::Error),
}

impl WriteError {
    /// The kernel's answer to the write itself, if there was one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            WriteError::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }
}

/// `EBUSY (Device or resource busy)`, for the errnos that binding, drivers and VFIO give; the number for any other.
pub fn describe(errno: Errno) -> String {
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
        Errno::NOSPC => "ENOSPC",
        Errno::RANGE => "ERANGE",
        Errno::TIME => "ETIME",
        Errno::TIMEDOUT => "ETIMEDOUT",
        Errno::OPNOTSUPP => "EOPNOTSUPP",
        Errno::NOTTY => "ENOTTY",
        Errno::NXIO => "ENXIO",
        Errno::FAULT => "EFAULT",
        Errno::EXIST => "EEXIST",
        Errno::INTR => "EINTR",
        Errno::NOSYS => "ENOSYS",
        Errno::NODATA => "ENODATA",
        Errno::PROTO => "EPROTO",
        Errno::CONNREFUSED => "ECONNREFUSED",
        Errno::CANCELED => "ECANCELED",
        _ => "an errno that drivers seldom give",
    };
    let text = io::Error::from(errno).to_string();
    format!("{name} ({})", text.replace(" (os error ", ", os error ").trim_end_matches(')'))
}

impl<'a> Control<'a> {
    /// Each write is given up on after `timeout`, and keeps `lock` until it is over. That there can be nobody at all to make the
    /// calls is found out here, before anything is touched.
    pub fn new(host: &'a Host, timeout: Duration, lock: &DeviceLock) -> io::Result<Control<'a>> {
        Attendant::check(timeout)?;
        let mut attendant = Attendant::default();
        attendant.hold(lock.share()?);
        Ok(Control { host, timeout, attendant })
    }

    /// From now on, gives up on a write after `timeout`.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// From now on, writes put things back: who wishes to stop wishes for these too.
    pub fn set_undoing(&mut self) {
        self.attendant.set_undoing();
    }

    /// How long it waits.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Sets `driver_override`: from now on, this driver alone may have the device.
    pub fn set_override(&mut self, address: Address, driver: &str) -> Result<(), WriteError> {
        self.write(address, self.host.device(address), "driver_override", driver)
    }

    /// Clears `driver_override`. A zero-length write would do nothing (`fs/sysfs/file.c`, `sysfs_kf_write`); a newline
    /// clears it.
    pub fn clear_override(&mut self, address: Address) -> Result<(), WriteError> {
        self.write(address, self.host.device(address), "driver_override", "\n")
    }

    /// Takes the device from its driver.
    pub fn unbind(&mut self, address: Address, driver: &DriverName) -> Result<(), WriteError> {
        self.write(address, self.host.driver(driver), "unbind", &address.to_string())
    }

    /// Gives the device to a driver; the errno is the probe's own, which `drivers_probe` would hide.
    pub fn bind(&mut self, address: Address, driver: &DriverName) -> Result<(), WriteError> {
        self.write(address, self.host.driver(driver), "bind", &address.to_string())
    }

    /// Lets the kernel choose among the registered drivers. Success says nothing about whether one took the device.
    pub fn probe(&mut self, address: Address) -> Result<(), WriteError> {
        self.write(address, self.host.pci_bus(), "drivers_probe", &address.to_string())
    }

    /// Says whether VFs that a PF gets are probed when they appear.
    pub fn set_vf_autoprobe(&mut self, pf: Address, on: bool) -> Result<(), WriteError> {
        self.write(pf, self.host.device(pf), "sriov_drivers_autoprobe", if on { "1" } else { "0" })
    }

    /// Has a PF's driver make VFs, or remove them: under the PF's lock, and with the probes of those that may be probed.
    pub fn set_vf_count(&mut self, pf: Address, count: u16) -> Result<(), WriteError> {
        self.write(pf, self.host.device(pf), "sriov_numvfs", &count.to_string())
    }

    /// How many VFs a PF has: waits for its lock, so that none is being made or removed at that moment. An error of kind
    /// `TimedOut`: the lock is held.
    pub fn vf_count(&mut self, pf: Address) -> Result<u16, ReadError> {
        let (directory, attribute) = (self.host.device(pf), "sriov_numvfs");
        let error = match self.attendant.read(&directory, attribute, self.timeout) {
            Ok(Answer::Done(text)) => match text.trim_end().parse() {
                Ok(count) => return Ok(count),
                Err(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            },
            Ok(Answer::NotOpened(errno) | Answer::Refused(errno)) => io::Error::from_raw_os_error(errno),
            Err(AttendantError::TimedOut(_)) => io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "no answer after {:.1} s: the PF's lock is held, as while VFs are made or removed, or a driver is bound",
                    self.timeout.as_secs_f32()
                ),
            ),
            Err(AttendantError::Process(error)) => error,
        };
        Err(ReadError { path: directory.join(attribute), source: error })
    }

    fn write(&mut self, address: Address, directory: PathBuf, attribute: &str, value: &str) -> Result<(), WriteError> {
        let path = directory.join(attribute);
        let value = value.to_string();
        let started = Instant::now();
        let device = self.host.device(address);
        match self.attendant.write(&directory, attribute, &value, &device, self.timeout) {
            Ok(Answer::Done(_)) => Ok(()),
            Ok(Answer::NotOpened(errno)) => Err(WriteError::NotOpened { path, errno: Errno::from_raw_os_error(errno) }),
            Ok(Answer::Refused(errno)) => {
                Err(WriteError::Refused { path, value, errno: Errno::from_raw_os_error(errno) })
            }
            Err(AttendantError::TimedOut(given_up)) => {
                Err(WriteError::TimedOut { path, value, after: started.elapsed(), given_up })
            }
            Err(AttendantError::Process(error)) => Err(WriteError::Attendant(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errnos_have_their_names() {
        assert_eq!(describe(Errno::NODEV), "ENODEV (No such device, os error 19)");
    }
}
