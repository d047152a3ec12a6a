// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading `driver_override`, which on older kernels waits for the device's lock, behind a slow probe or a stuck unbind
//! (`drivers/pci/pci-sysfs.c`, `driver_override_show`; generic, and without that lock, from 7.1 on).

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use super::attendant::{Answer, Attendant, AttendantError};
use super::node::ReadError;
use crate::address::Address;
use crate::catalog::KernelVersion;
use crate::host::Host;

/// The first kernel on which the attribute is read without the device's lock. Some older ones have the change as well, in
/// stable updates that their version does not tell.
const NEVER_BLOCKS: KernelVersion = KernelVersion::new(7, 1);

/// Reads overrides, of one device or of all.
pub struct Overrides<'a> {
    host: &'a Host,
    patience: Duration,
    may_block: bool,
    attendant: Option<Attendant>,
}

impl<'a> Overrides<'a> {
    /// Waits for at most `patience` for a device.
    pub fn new(host: &'a Host, patience: Duration) -> Overrides<'a> {
        // Another root's attributes are files, if its /sys is not this kernel's.
        let running = host.running().ok().and_then(|release| KernelVersion::parse(&release));
        Overrides { host, patience, may_block: running.is_none_or(|version| version < NEVER_BLOCKS), attendant: None }
    }

    /// A device's override; `None` when unset. An error of kind `TimedOut`: the device's lock is held.
    pub fn read(&mut self, address: Address) -> Result<Option<String>, ReadError> {
        let directory = self.host.device(address);
        let text = match self.may_block {
            true => self.ask(&directory),
            false => std::fs::read(directory.join("driver_override"))
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        };
        match text {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                // So the kernel prints an unset string.
                Ok(Some(text.to_string()).filter(|text| text != "(null)"))
            }
            Err(source) => {
                let error = ReadError { path: directory.join("driver_override"), source };
                // Absent before 3.16, and when the device is gone.
                if error.is_absent() { Ok(None) } else { Err(error) }
            }
        }
    }

    fn ask(&mut self, directory: &std::path::Path) -> io::Result<String> {
        let mut attendant = match self.attendant.take() {
            Some(attendant) => attendant,
            None => Attendant::start()?,
        };
        match attendant.read(directory, "driver_override", self.patience) {
            Ok(answer) => {
                self.attendant = Some(attendant);
                match answer {
                    Answer::Done(text) => Ok(text),
                    Answer::NotOpened(errno) | Answer::Refused(errno) => Err(Errno::from_raw_os_error(errno).into()),
                }
            }
            // That one is left behind; whoever is next gets another, and less time.
            Err(AttendantError::TimedOut { .. }) => {
                self.patience = self.patience.min(Duration::from_millis(200));
                Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the device's lock is held: something is being bound or unbound",
                ))
            }
            Err(AttendantError::Process(error)) => Err(error),
        }
    }
}
