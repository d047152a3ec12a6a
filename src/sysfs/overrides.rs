// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading `driver_override`, which on older kernels waits for the device's lock, behind a slow probe or a stuck unbind
//! (`drivers/pci/pci-sysfs.c`, `driver_override_show`; generic, and without that lock, from 7.1 on).

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::attendant::{Answer, Attendant, AttendantError};
use super::node::{Directory, ReadError};
use super::stuck::{self, Waiter};
use crate::address::Address;
use crate::catalog::KernelVersion;
use crate::host::Host;

/// The first kernel on which the attribute is read without the device's lock. Some older ones have the change as well, in
/// stable updates that their version does not tell.
const NEVER_BLOCKS: KernelVersion = KernelVersion::new(7, 1);

/// The attribute.
const NAME: &str = "driver_override";

/// How long a device is waited for when all patience is gone. One that is not locked answers in a fraction of that.
const AT_LEAST: Duration = Duration::from_millis(25);

/// Reads overrides, of one device or of all.
pub struct Overrides<'a> {
    host: &'a Host,
    /// What is left of it, for all devices together.
    patience: Duration,
    may_block: bool,
    attendant: Attendant,
}

/// Our own processes that wait for a device's override already, from earlier on: one more would wait beside them. By the
/// directory of processes; looked for when the first override is read, and anew once one more was left behind. One that has
/// come since costs a process, and no more: that it still waits is looked at each time.
static WAITING: Mutex<BTreeMap<PathBuf, BTreeMap<Address, Waiter>>> = Mutex::new(BTreeMap::new());

fn waiting() -> MutexGuard<'static, BTreeMap<PathBuf, BTreeMap<Address, Waiter>>> {
    WAITING.lock().expect("no thread panics with it")
}

impl<'a> Overrides<'a> {
    /// Waits for at most `patience`, all devices together.
    pub fn new(host: &'a Host, patience: Duration) -> Overrides<'a> {
        // Another root's attributes are files, if its /sys is not this kernel's.
        let running = host.running().ok().and_then(|release| KernelVersion::parse(&release));
        let may_block = running.is_none_or(|version| version < NEVER_BLOCKS);
        Overrides { host, patience, may_block, attendant: Attendant::default() }
    }

    /// A device's override; `None` when unset. An error of kind `TimedOut`: the device's lock is held.
    pub fn read(&mut self, address: Address) -> Result<Option<String>, ReadError> {
        match Directory::open(self.host.device(address))? {
            Some(directory) => self.read_of(&directory, address),
            None => Ok(None),
        }
    }

    /// The same of one whose directory is open.
    pub fn read_of(&mut self, directory: &Directory, address: Address) -> Result<Option<String>, ReadError> {
        let text = match self.may_block {
            true => self.ask(address, directory.path()),
            false => directory.bytes(NAME).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        };
        match text {
            Ok(text) => {
                let text = text.strip_suffix('\n').unwrap_or(&text);
                // So the kernel prints an unset string.
                Ok(Some(text.to_string()).filter(|text| text != "(null)"))
            }
            Err(source) => {
                let error = ReadError { path: directory.path().join(NAME), source };
                // Absent before 3.16, and when the device is gone.
                if error.is_absent() { Ok(None) } else { Err(error) }
            }
        }
    }

    fn ask(&mut self, address: Address, directory: &std::path::Path) -> io::Result<String> {
        let begun = Instant::now();
        self.let_go(address)?;
        match self.attendant.read(directory, NAME, self.patience.max(AT_LEAST)) {
            Ok(Answer::Done(text)) => Ok(text),
            Ok(Answer::NotOpened(errno) | Answer::Refused(errno)) => Err(Errno::from_raw_os_error(errno).into()),
            // That one is left behind; whoever is next gets another, and the time that is left.
            Err(AttendantError::TimedOut(_)) => {
                waiting().remove(&self.host.processes());
                self.patience = self.patience.saturating_sub(begun.elapsed());
                Err(locked(""))
            }
            Err(AttendantError::Process(error)) => Err(error),
        }
    }

    /// Waits for one of ours that waits for that device's override, left behind or another vfioctl's.
    fn let_go(&mut self, address: Address) -> io::Result<()> {
        let host = self.host;
        let look = || -> BTreeMap<Address, Waiter> {
            let own = stuck::own_waiters(host).into_iter();
            own.filter(Waiter::is_looking).filter_map(|waiter| Some((waiter.device?, waiter))).collect()
        };
        let known = waiting().entry(host.processes()).or_insert_with(look).get(&address).cloned();
        let Some(waiter) = known else { return Ok(()) };
        let begun = Instant::now();
        while stuck::is_waiting(host, &waiter) {
            if begun.elapsed() >= self.patience {
                let error = locked(&format!(": {waiter}"));
                self.patience = Duration::ZERO;
                return Err(error);
            }
            std::thread::sleep(AT_LEAST / 5);
        }
        self.patience = self.patience.saturating_sub(begun.elapsed());
        Ok(())
    }
}

fn locked(by: &str) -> io::Error {
    let text = format!("the device's lock is held: something is being bound or unbound{by}");
    io::Error::new(io::ErrorKind::TimedOut, text)
}
