// SPDX-License-Identifier: MIT OR Apache-2.0
//! A host that several programs work on at once: locks to wait for, faults, and a journal of what was done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::fault::{Fault, Kind, Moment};
use crate::model::{
    Address, Attribute, Core, Errno, Host, Lock, Place, Result, State, insert_module, unload_module, vanish, write,
};
use crate::world;

/// A host, shared between threads. No lock is held while an operation waits.
pub struct Machine {
    inner: Mutex<Inner>,
    changed: Condvar,
    /// For those who only let time go by: each unlocking would wake hundreds of them for nothing.
    closing: Condvar,
    observer: Observer,
}

/// Told of the host after every operation and before its result is.
pub type Observer = Box<dyn Fn(&Host) + Send + Sync>;

struct Inner {
    host: Host,
    faults: Vec<Fault>,
    held: BTreeSet<Lock>,
    blocked: BTreeMap<u64, Place>,
    tickets: u64,
    closed: bool,
    journal: Vec<Operation>,
    probes: Vec<(Address, String)>,
    passed: Vec<Place>,
}

/// Something that a program did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Operation {
    /// The file that was written to, below `/sys/devices` where it is a device's; or `modprobe`.
    pub path: String,
    /// What was written, or modprobe's arguments.
    pub data: String,
    /// 0, the error number, or modprobe's exit status; null while it lasts.
    pub result: Option<i32>,
    /// The error's name.
    pub error: Option<&'static str>,
    /// The program's name.
    pub command: String,
    /// Its process.
    pub pid: u32,
}

impl Operation {
    /// One that has just begun.
    pub fn new(path: &str, data: &[u8], pid: u32) -> Self {
        let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        Self {
            path: path.to_owned(),
            data: String::from_utf8_lossy(data).into_owned(),
            result: None,
            error: None,
            command: command.trim_end().to_owned(),
            pid,
        }
    }
}

impl Machine {
    /// A machine on which these faults strike.
    pub fn new(host: Host, faults: Vec<Fault>, observer: Observer) -> Self {
        let inner = Inner {
            host,
            faults,
            held: BTreeSet::new(),
            blocked: BTreeMap::new(),
            tickets: 0,
            closed: false,
            journal: Vec::new(),
            probes: Vec::new(),
            passed: Vec::new(),
        };
        Self { inner: Mutex::new(inner), changed: Condvar::new(), closing: Condvar::new(), observer }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the host, which stands still meanwhile.
    pub fn look<T>(&self, at: impl FnOnce(&Host) -> T) -> T {
        at(&self.inner().host)
    }

    /// Runs an operation of a process to its end, however long it is held up.
    fn run<T>(&self, pid: u32, operation: impl FnOnce(&mut Pass<'_>) -> T) -> T {
        let mut pass = Pass { machine: self, inner: Some(self.inner()), pid };
        let result = operation(&mut pass);
        (self.observer)(pass.host());
        result
    }

    /// Writes to an attribute and notes it.
    pub fn write(&self, attribute: &Attribute, data: &[u8], operation: Operation) -> Result<()> {
        let pid = operation.pid;
        let place = self.look(|host| attribute.place(host, data));
        self.let_act(place.as_ref(), Moment::Before);
        let number = self.begin(operation);
        let result = self.run(pid, |pass| write(pass, attribute, data));
        self.end(number, result.err().map_or(0, Errno::number), result.err().map(Errno::name));
        self.let_act(place.as_ref(), Moment::After);
        result
    }

    /// Lets others do what is to be done at this place. No lock is held: they may do as they please.
    fn let_act(&self, place: Option<&Place>, moment: Moment) {
        let Some(place) = place else { return };
        let kinds =
            strikes(&mut self.inner().faults, place, |kind| matches!(kind, Kind::Act(when, _) if *when == moment));
        for kind in kinds {
            if let Kind::Act(_, command) = kind {
                world::act(place, &command);
            }
        }
    }

    /// Reads an attribute, which may have to wait for the device's lock.
    pub fn read(&self, attribute: &Attribute) -> Result<Vec<u8>> {
        let locked = self.look(|host| attribute.read_locks(host.release()));
        let Some(address) = locked else {
            return self.look(|host| host.read(attribute));
        };
        let mut pass = Pass { machine: self, inner: Some(self.inner()), pid: 0 };
        pass.wait(|inner| !inner.held.contains(&Lock::Device(address)))?;
        pass.host().read(attribute)
    }

    /// Inserts one module, for a process.
    pub fn insert_module(&self, name: &str, pid: u32) -> Result<()> {
        let place = Place::Module(crate::model::modules::normalise(name));
        self.let_act(Some(&place), Moment::Before);
        let result = self.run(pid, |pass| insert_module(pass, name));
        self.let_act(Some(&place), Moment::After);
        result
    }

    /// Removes one module, for a process.
    pub fn remove_module(&self, name: &str, pid: u32) -> Result<()> {
        self.run(pid, |pass| unload_module(pass, name))
    }

    /// Notes that an operation has begun.
    pub fn begin(&self, operation: Operation) -> usize {
        let mut inner = self.inner();
        inner.journal.push(operation);
        inner.journal.len() - 1
    }

    /// Notes how it ended.
    pub fn end(&self, number: usize, result: i32, error: Option<&'static str>) {
        if let Some(operation) = self.inner().journal.get_mut(number) {
            operation.result = Some(result);
            operation.error = error;
        }
    }

    /// What was done so far, in the order in which it began.
    pub fn journal(&self) -> Vec<Operation> {
        self.inner().journal.clone()
    }

    /// The drivers' probes that were called, in their order.
    pub fn probes(&self) -> Vec<(Address, String)> {
        self.inner().probes.clone()
    }

    /// The places that operations have come to, in their order.
    pub fn passed(&self) -> Vec<Place> {
        self.inner().passed.clone()
    }

    /// The state as it is now.
    pub fn state(&self) -> State {
        self.look(Host::state)
    }

    /// From now on this goes wrong too.
    pub fn add_fault(&self, fault: Fault) {
        self.inner().faults.push(fault);
    }

    /// From now on nothing goes wrong any more, and what is blocked goes on.
    pub fn mend(&self) -> Vec<Place> {
        self.inner().faults.clear();
        self.release(None)
    }

    /// Lets what is blocked go on: with this device, or everything. Says what it was.
    pub fn release(&self, address: Option<Address>) -> Vec<Place> {
        let mut inner = self.inner();
        let wanted = |place: &Place| match (address, place) {
            (None, _) => true,
            (Some(address), Place::Device(at, _)) => address == *at,
            (Some(_), Place::Module(_)) => false,
        };
        let (free, blocked) = std::mem::take(&mut inner.blocked).into_iter().partition(|(_, place)| wanted(place));
        inner.blocked = blocked;
        self.changed.notify_all();
        let free: BTreeMap<u64, Place> = free;
        free.into_values().collect()
    }

    /// What is blocked now.
    pub fn blocked(&self) -> Vec<Place> {
        self.inner().blocked.values().cloned().collect()
    }

    /// Ends whatever waits, now and from now on, with EIO.
    pub fn close(&self) {
        self.inner().closed = true;
        self.changed.notify_all();
        self.closing.notify_all();
    }
}

/// An operation under way.
struct Pass<'a> {
    machine: &'a Machine,
    inner: Option<MutexGuard<'a, Inner>>,
    /// Who asked for it; 0: nobody that could be killed for it.
    pid: u32,
}

/// The faults that strike now, of those a test picks.
fn strikes(faults: &mut [Fault], place: &Place, pick: impl Fn(&Kind) -> bool) -> Vec<Kind> {
    let here = faults.iter_mut().filter(|fault| fault.is_at(place) && pick(fault.kind()));
    here.filter_map(|fault| fault.strikes().then(|| fault.kind().clone())).collect()
}

impl<'a> Pass<'a> {
    fn inner(&mut self) -> &mut Inner {
        self.inner.as_mut().expect("taken only while it waits")
    }

    /// Lets others go on until it is ready.
    fn wait(&mut self, ready: impl Fn(&Inner) -> bool) -> Result<()> {
        let inner = self.inner.take().expect("taken only while it waits");
        let waits = |inner: &mut Inner| !inner.closed && !ready(inner);
        let inner = self.machine.changed.wait_while(inner, waits).unwrap_or_else(PoisonError::into_inner);
        self.go_on(inner)
    }

    /// Unless the machine is closed.
    fn go_on(&mut self, inner: MutexGuard<'a, Inner>) -> Result<()> {
        let closed = inner.closed;
        self.inner = Some(inner);
        if closed { Err(Errno::EIO) } else { Ok(()) }
    }
}

impl Core for Pass<'_> {
    fn host(&mut self) -> &mut Host {
        &mut self.inner().host
    }

    fn lock(&mut self, lock: Lock) -> Result<()> {
        self.wait(|inner| !inner.held.contains(&lock))?;
        self.inner().held.insert(lock);
        Ok(())
    }

    fn unlock(&mut self, lock: Lock) {
        self.inner().held.remove(&lock);
        self.machine.changed.notify_all();
    }

    fn begin(&mut self, place: &Place) -> Result<()> {
        let inner = self.inner();
        inner.passed.push(place.clone());
        match strikes(&mut inner.faults, place, |kind| matches!(kind, Kind::Errno(_))).first() {
            Some(Kind::Errno(errno)) => Err(*errno),
            _ => Ok(()),
        }
    }

    fn dwell(&mut self, place: &Place) -> Result<()> {
        let is_meanwhile = |kind: &Kind| !matches!(kind, Kind::Errno(_) | Kind::Act(..));
        for kind in strikes(&mut self.inner().faults, place, is_meanwhile) {
            match (kind, place) {
                (Kind::Kill, _) => world::kill(self.pid),
                (Kind::Delay(time), _) => self.rest(time)?,
                (Kind::Block, _) => {
                    let inner = self.inner();
                    inner.tickets += 1;
                    let ticket = inner.tickets;
                    inner.blocked.insert(ticket, place.clone());
                    self.wait(|inner| !inner.blocked.contains_key(&ticket))?;
                }
                (Kind::Vanish, Place::Device(address, _)) => vanish(self.host(), *address),
                (Kind::Vanish, Place::Module(_)) | (Kind::Errno(_) | Kind::Act(..), _) => {}
            }
        }
        Ok(())
    }

    fn note_probe(&mut self, driver: &str, address: Address) {
        self.inner().probes.push((address, driver.to_owned()));
    }

    fn rest(&mut self, time: Duration) -> Result<()> {
        if time.is_zero() {
            return Ok(());
        }
        let inner = self.inner.take().expect("taken only while it waits");
        let rested = self.machine.closing.wait_timeout_while(inner, time, |inner| !inner.closed);
        self.go_on(rested.unwrap_or_else(PoisonError::into_inner).0)
    }
}
