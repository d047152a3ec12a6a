// SPDX-License-Identifier: MIT OR Apache-2.0
//! One lock a device: two vfioctl at once wait for each other on one device, and not on two.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::address::Address;
use crate::host::Host;
use crate::interrupt;

/// Held until dropped, or until the process ends, however it ends.
#[derive(Debug)]
pub struct DeviceLock {
    _file: File,
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
    /// The wish to stop came first.
    #[error("interrupted while another vfioctl worked on this device; nothing was touched")]
    Interrupted,
}

impl DeviceLock {
    /// Takes a device's lock, waiting for at most `timeout`, or until the user wishes to stop.
    pub fn take(host: &Host, address: Address, timeout: Duration) -> Result<DeviceLock, LockError> {
        DeviceLock::take_in(host.locks(), address, timeout, interrupt::is_wanted)
    }

    /// The same to put something back, whoever wishes to stop.
    pub fn take_to_undo(host: &Host, address: Address, timeout: Duration) -> Result<DeviceLock, LockError> {
        DeviceLock::take_in(host.locks(), address, timeout, || false)
    }

    /// Takes the lock under which a device goes from one libvirt domain to another. Whoever holds it may take the device's
    /// lock as well, not the other way round.
    pub fn take_for_domain(host: &Host, address: Address, timeout: Duration) -> Result<DeviceLock, LockError> {
        DeviceLock::take_in(host.libvirt_domains(), address, timeout, interrupt::is_wanted)
    }

    fn take_in(
        directory: PathBuf,
        address: Address,
        timeout: Duration,
        is_stopped: impl Fn() -> bool,
    ) -> Result<DeviceLock, LockError> {
        let path = directory.join(format!("{address}.lock"));
        let fail = |source| LockError::File { path: path.clone(), source };
        // For root alone: whoever may open the file for reading may hold the lock, and keep everyone waiting.
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(fail)?;
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path).map_err(fail)?;
        let started = Instant::now();
        loop {
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(DeviceLock { _file: file }),
                Err(Errno::WOULDBLOCK) if is_stopped() => return Err(LockError::Interrupted),
                Err(Errno::WOULDBLOCK) if started.elapsed() < timeout => thread::sleep(Duration::from_millis(20)),
                Err(Errno::WOULDBLOCK) => return Err(LockError::Held { path, after: timeout }),
                Err(errno) => return Err(fail(errno.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_one_holder() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let [one, other] = ["0000:3b:00.1", "0000:3b:00.2"].map(|text| text.parse().unwrap());
        let short = Duration::from_millis(50);
        let held = DeviceLock::take(&host, one, short).unwrap();
        assert!(matches!(DeviceLock::take(&host, one, short), Err(LockError::Held { .. })));
        DeviceLock::take(&host, other, short).unwrap();
        drop(held);
        DeviceLock::take(&host, one, short).unwrap();
    }
}
