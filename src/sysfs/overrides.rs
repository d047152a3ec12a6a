// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading `driver_override`, which on older kernels waits for the device's lock, behind a slow probe or a stuck unbind
//! (`drivers/pci/pci-sysfs.c`, `driver_override_show`; generic, and without that lock, from 7.1 on).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
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
        value(text, directory.path())
    }

    /// Can a read wait for a device's lock?
    pub fn may_block(&self) -> bool {
        self.may_block
    }

    /// The same of many, in their order; each is waited for as if it were asked for alone.
    pub fn read_all(&mut self, devices: &[Address]) -> Vec<Result<Option<String>, ReadError>> {
        let mut found = Vec::with_capacity(devices.len());
        while let Some(&address) = devices.get(found.len()) {
            // Those that nobody of ours waits for already.
            let rest = devices[found.len()..].iter();
            let free: Vec<PathBuf> = match self.may_block {
                true => rest
                    .take_while(|address| self.own_waiter(**address).is_none())
                    .map(|a| self.host.device(*a))
                    .collect(),
                false => Vec::new(),
            };
            if free.is_empty() {
                found.push(self.read(address));
                continue;
            }
            let patience = self.patience.max(AT_LEAST);
            let (answers, result) = self.attendant.read_several(&free, NAME, patience);
            found.extend(answers.into_iter().zip(&free).map(|(answer, directory)| value(text(answer), directory)));
            if let Err(error) = result {
                let source = self.given_up(error, patience);
                let directory = self.host.device(devices[found.len()]);
                found.push(value(Err(source), &directory));
            }
        }
        found
    }

    /// One of ours that waits for that device's override, left behind or another vfioctl's.
    fn own_waiter(&self, address: Address) -> Option<Waiter> {
        let look = || -> BTreeMap<Address, Waiter> {
            let own = stuck::own_waiters(self.host).into_iter();
            own.filter(Waiter::is_looking).filter_map(|waiter| Some((waiter.device?, waiter))).collect()
        };
        waiting().entry(self.host.processes()).or_insert_with(look).get(&address).cloned()
    }

    fn ask(&mut self, address: Address, directory: &Path) -> io::Result<String> {
        let begun = Instant::now();
        self.let_go(address)?;
        match self.attendant.read(directory, NAME, self.patience.max(AT_LEAST)) {
            Ok(answer) => text(answer),
            Err(error) => Err(self.given_up(error, begun.elapsed())),
        }
    }

    /// That one is left behind; whoever is next gets another, and the time that is left.
    fn given_up(&mut self, error: AttendantError, waited: Duration) -> io::Error {
        match error {
            AttendantError::TimedOut(_) => {
                waiting().remove(&self.host.processes());
                self.patience = self.patience.saturating_sub(waited);
                locked("")
            }
            AttendantError::Process(error) => error,
        }
    }

    /// Waits for one of ours that waits already.
    fn let_go(&mut self, address: Address) -> io::Result<()> {
        let host = self.host;
        let Some(waiter) = self.own_waiter(address) else { return Ok(()) };
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

fn text(answer: Answer) -> io::Result<String> {
    match answer {
        Answer::Done(text) => Ok(text),
        Answer::NotOpened(errno) | Answer::Refused(errno) => Err(Errno::from_raw_os_error(errno).into()),
    }
}

/// What was read of the device with this directory, or why not.
fn value(text: io::Result<String>, directory: &Path) -> Result<Option<String>, ReadError> {
    match text {
        Ok(text) => {
            let text = text.strip_suffix('\n').unwrap_or(&text);
            // So the kernel prints an unset string.
            Ok(Some(text.to_string()).filter(|text| text != "(null)"))
        }
        Err(source) => {
            let error = ReadError { path: directory.join(NAME), source };
            // Absent before 3.16, and when the device is gone.
            if error.is_absent() { Ok(None) } else { Err(error) }
        }
    }
}

fn locked(by: &str) -> io::Error {
    let text = format!("the device's lock is held: something is being bound or unbound{by}");
    io::Error::new(io::ErrorKind::TimedOut, text)
}
