// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lock a device: two vfioctl at once wait for each other on one device, and not on two.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::address::Address;
use crate::host::Host;
use crate::interrupt;
use crate::private;
use crate::processes;
use crate::sysfs::stuck::{self, Waiter};

/// Held until dropped, or until the process ends, however it ends.
#[derive(Debug)]
pub struct DeviceLock {
    file: File,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Its file cannot be made.
    #[error("cannot lock {path}: {source}")]
    File {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another vfioctl has held it all the time.
    #[error("another vfioctl has worked on this device for {} s ({path} is locked)", .after.as_secs_f32())]
    Held {
        /// The lock file.
        path: PathBuf,
        /// How long it was waited for.
        after: Duration,
    },
    /// One of our own processes still waits in the kernel for what an earlier vfioctl began.
    #[error("an earlier vfioctl gave up on this device, and the kernel has not finished: {waiter}")]
    Stuck {
        /// The process.
        waiter: Waiter,
    },
    /// The wish to stop came first.
    #[error("interrupted while another vfioctl worked on this device; nothing was touched")]
    Interrupted,
}

impl DeviceLock {
    /// Takes a device's lock, waiting for at most `timeout`, or until the user wishes to stop.
    pub fn take(host: &Host, address: Address, timeout: Duration) -> Result<DeviceLock, LockError> {
        DeviceLock::take_from_all(host, address, timeout, interrupt::is_wanted)
    }

    /// The same to put something back, whoever wishes to stop.
    pub fn take_to_undo(host: &Host, address: Address, timeout: Duration) -> Result<DeviceLock, LockError> {
        DeviceLock::take_from_all(host, address, timeout, interrupt::is_undoing_over)
    }

    /// A process that an earlier one left behind in the kernel holds the lock still.
    fn take_from_all(
        host: &Host,
        address: Address,
        timeout: Duration,
        is_stopped: impl Fn() -> bool,
    ) -> Result<DeviceLock, LockError> {
        DeviceLock::take_at(host, DeviceLock::path(host.locks(), address), timeout, is_stopped).map_err(|error| {
            match error {
                LockError::Held { .. } => {
                    left_behind(host, address).map_or(error, |waiter| LockError::Stuck { waiter })
                }
                error => error,
            }
        })
    }

    /// Takes the lock under which a device goes from one libvirt domain to another. Whoever holds it may take the device's
    /// lock as well, not the other way round.
    pub fn take_for_domain(host: &Host, address: Address, timeout: Duration) -> Result<DeviceLock, LockError> {
        DeviceLock::take_at(host, DeviceLock::path(host.libvirt_domains(), address), timeout, interrupt::is_wanted)
    }

    /// Takes the lock under which udev's rules are written, which are about no device in particular.
    pub fn take_for_rules(host: &Host, timeout: Duration) -> Result<DeviceLock, LockError> {
        DeviceLock::take_at(host, host.locks().join("udev-rules.lock"), timeout, interrupt::is_wanted)
    }

    /// For another process, which holds the lock too, until it closes this.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Does nobody hold a device's lock? Where that cannot be told, somebody may.
    pub fn is_free(host: &Host, address: Address) -> bool {
        let file = File::open(DeviceLock::path(host.locks(), address));
        file.is_ok_and(|file| flock(file, FlockOperation::NonBlockingLockShared).is_ok())
    }

    fn path(directory: PathBuf, address: Address) -> PathBuf {
        directory.join(format!("{address}.lock"))
    }

    fn take_at(
        host: &Host,
        path: PathBuf,
        timeout: Duration,
        is_stopped: impl Fn() -> bool,
    ) -> Result<DeviceLock, LockError> {
        let directory = path.parent().expect("a lock is in a directory");
        let fail = |source| LockError::File { path: path.clone(), source };
        // For root alone: whoever may open the file for reading may hold the lock, and keep everyone waiting.
        private::make_directory(host, directory).map_err(fail)?;
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
        let mut options = OpenOptions::new();
        let file = options.create(true).append(true).mode(0o600).custom_flags(flags).open(&path).map_err(fail)?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(DeviceLock { file }),
                Err(Errno::WOULDBLOCK) if is_stopped() => return Err(LockError::Interrupted),
                Err(Errno::WOULDBLOCK) if started.elapsed() < timeout => thread::sleep(Duration::from_millis(20)),
                Err(Errno::WOULDBLOCK) => return Err(LockError::Held { path, after: timeout }),
                Err(errno) => return Err(fail(errno.into())),
            }
        }
    }
}

/// One of our processes that waits in the kernel for this device.
fn left_behind(host: &Host, address: Address) -> Option<Waiter> {
    let waiters = stuck::own_waiters(host);
    let is_alone = |waiter: &&Waiter| !is_attended(host, waiter.pid);
    let mut here = waiters.iter().filter(|waiter| waiter.device == Some(address)).filter(is_alone);
    // One that only reads waits for the others.
    here.clone().find(|waiter| !waiter.is_looking()).or(here.next()).cloned()
}

/// Is the vfioctl that has started this process still there? Left behind, it has another parent (credentials(7)).
fn is_attended(host: &Host, pid: u32) -> bool {
    let parent = processes::parent(host, pid);
    parent.is_some_and(|parent| processes::command(&processes::directory(host, parent)) == "vfioctl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_its_place_is_neither_followed_nor_waited_for() {
        use rustix::fs::{CWD, FileType, Mode, mknodat, symlink};
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        private::make_directory(&host, &host.locks()).unwrap();
        let place = |address: &str| host.locks().join(format!("{address}.lock"));
        mknodat(CWD, place("0000:3b:00.1"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        symlink(root.path().join("made-by-root"), place("0000:3b:00.2")).unwrap();
        for address in ["0000:3b:00.1", "0000:3b:00.2"] {
            let error = DeviceLock::take(&host, address.parse().unwrap(), Duration::from_secs(1)).unwrap_err();
            assert!(matches!(error, LockError::File { .. }), "{error}");
        }
        assert!(!root.path().join("made-by-root").exists());
    }

    #[test]
    fn one_device_one_holder() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let [one, other] = ["0000:3b:00.1", "0000:3b:00.2"].map(|text| text.parse().unwrap());
        let short = Duration::from_millis(50);
        let held = DeviceLock::take(&host, one, short).unwrap();
        assert!(matches!(DeviceLock::take(&host, one, short), Err(LockError::Held { .. })));
        DeviceLock::take(&host, other, short).unwrap();
        assert!(!DeviceLock::is_free(&host, one) && DeviceLock::is_free(&host, other));
        let shared = held.share().unwrap();
        drop(held);
        assert!(!DeviceLock::is_free(&host, one), "another process has it still");
        drop(shared);
        DeviceLock::take(&host, one, short).unwrap();
    }
}
