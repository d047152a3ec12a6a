// SPDX-License-Identifier: MIT OR Apache-2.0
//! Work on a PF: the number of its VFs, and whether they are probed. What is done to the VFs themselves is handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustix::io::Errno;

use super::failure::{StepError, no_attendant, permission_hint};
use super::recover::{Recovery, enter, is_between};
use super::{Job, Setting, describe, explain_wait, lock_failure, unreadable};
use crate::address::Address;
use crate::file;
use crate::gather;
use crate::guard::Uses;
use crate::interrupt;
use crate::libvirt;
use crate::lock::DeviceLock;
use crate::outcome::{Failure, Kind, Outcome, StepRecord};
use crate::plan::Binding;
use crate::sriov::{self, Action, Before, Facts, State, Step};
use crate::sysfs::control::{Control, WriteError};
use crate::sysfs::{Device, Pf, ReadError};
use crate::unfinished::{Unfinished, Was, WasVf, Work};

/// What making or removing one VF may take on top, where the user has not said how long to wait.
const PER_VF: Duration = Duration::from_secs(1);

/// What binding a VF may make of it.
#[derive(Clone, Default, Debug)]
pub struct Intent {
    /// The drivers that come into question.
    pub names: BTreeSet<String>,
    /// Is anything prepared for it?
    pub is_prepared: bool,
}

/// Work on one PF, under its lock.
pub struct PfJob<'a> {
    setting: &'a Setting<'a>,
    pf: Address,
    control: Control<'a>,
    state: State,
    is_undoing: bool,
    /// What was done, or tried.
    pub steps: Vec<StepRecord>,
    lock: DeviceLock,
}

impl<'a> PfJob<'a> {
    /// Locks the PF, and puts back what an earlier run was killed at.
    pub fn start(setting: &'a Setting<'a>, pf: Address) -> Result<PfJob<'a>, Failure> {
        PfJob::new(setting, pf, enter(setting, pf, false)?)
    }

    pub(super) fn new(setting: &'a Setting<'a>, pf: Address, lock: DeviceLock) -> Result<PfJob<'a>, Failure> {
        let control = Control::new(setting.host, setting.timeout, &lock).map_err(|error| no_attendant(pf, &error))?;
        let state = State { count: 0, is_autoprobed: true, is_remade: false, is_bound: false };
        Ok(PfJob { setting, pf, control, state, is_undoing: false, steps: Vec::new(), lock })
    }

    /// How many VFs the kernel says it has: waits until none is being made or removed.
    pub fn count(&mut self) -> Result<u16, ReadError> {
        self.control.vf_count(self.pf)
    }

    /// Takes all steps. `work` does what is about VFs, and what it may make of those that are there are `intents`; on a failure
    /// all is put back, as far as that can be.
    pub fn run(
        &mut self,
        before: &Facts,
        steps: &[Step],
        intents: &BTreeMap<Address, Intent>,
        work: &mut dyn FnMut(&Action) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        self.state = State::from(before);
        if steps.is_empty() {
            return Ok(());
        }
        self.begin(before, steps, intents)?;
        let result = steps.iter().try_for_each(|step| match interrupt::is_wanted() {
            true => Err(Failure::plain(Kind::Interrupted, format!("{}: interrupted", self.pf))),
            false => self.take(step, work),
        });
        let result = result.map_err(|failure| self.put_back(before, failure, work));
        match Unfinished::remove(self.setting.host, self.pf) {
            Err(error) if result.is_ok() => Err(Failure::new(
                Kind::NotRestored,
                format!("{}: {error}: all was done", self.pf),
                "remove that file, or the next run puts the VFs back",
            )),
            _ => result,
        }
    }

    /// Writes down what is about to be done. An error: nothing of it was.
    fn begin(&self, before: &Facts, steps: &[Step], intents: &BTreeMap<Address, Intent>) -> Result<(), Failure> {
        let (host, pf) = (self.setting.host, self.pf);
        let count = |step: &Step| match step.action {
            Action::Count(count) => Some(count),
            _ => None,
        };
        let wanted = steps.iter().rev().find_map(count).unwrap_or(before.count);
        let vfs = before.vfs.iter().map(|vf| {
            let address = vf.device.address;
            let incarnation = Device::incarnation(host, address);
            let Intent { names, is_prepared } = intents.get(&address).cloned().unwrap_or_default();
            WasVf { address, incarnation, binding: Was::from(&vf.binding()), names, is_prepared }
        });
        let vfs = vfs.collect();
        let work = Work::Pf { count: before.count, wanted, is_autoprobed: before.is_autoprobed, vfs };
        let incarnation = Device::incarnation(host, pf);
        let unfinished = Unfinished { verb: "sriov".to_string(), incarnation, work };
        unfinished.write(host, pf).map_err(|error| {
            let mut failure = StepError::from(error).failure(pf);
            failure.message.push_str("; nothing was touched");
            failure
        })
    }

    /// Puts the PF and its VFs back, as far as nobody uses them by now. An error: something is stuck, and has to be put back
    /// later.
    pub(super) fn recover(mut self, found: &Unfinished) -> Result<(DeviceLock, Recovery), Failure> {
        let Work::Pf { count, wanted, is_autoprobed, vfs: was } = &found.work else {
            unreachable!("asked by its work")
        };
        let (setting, address) = (self.setting, self.pf);
        (setting.observe)(address, &format!("putting back what 'vfioctl {}' was killed at", found.verb));
        self.is_undoing = true;
        self.control.set_undoing();
        // Whoever goes on with what was begun makes or removes none now.
        self.count().map_err(|error| unreadable(address, &error))?;
        let pf = self.read()?;
        let (mut vfs, errors) =
            gather::vfs(setting.host, &pf, setting.timeout).map_err(|error| self.unreadable(&error))?;
        if let Some(error) = errors.first() {
            return Err(unreadable(address, error));
        }
        libvirt::name_domains(setting.host, &mut vfs);
        let bindings = was.iter().map(|vf| (vf.address, Binding::from(&vf.binding))).collect();
        let before = Before { count: *count, is_autoprobed: *is_autoprobed, vfs: bindings };
        let incarnations = was.iter().map(|vf| (vf.address, vf.incarnation));
        let now = vfs.iter().map(|vf| (vf.device.address, Device::incarnation(setting.host, vf.device.address)));
        self.state = State {
            count: u16::try_from(vfs.len()).unwrap_or(u16::MAX),
            is_autoprobed: pf.is_autoprobed,
            is_remade: !incarnations.eq(now),
            is_bound: !before
                .vfs
                .iter()
                .eq(&vfs.iter().map(|vf| (vf.device.address, vf.binding())).collect::<Vec<_>>()),
        };
        let mut steps = sriov::put_back(&before, &self.state, false);
        let is_removing = steps.iter().any(|step| matches!(step.action, Action::Count(_)));
        let unknown = if is_removing { gather::add_uses(setting.host, &mut vfs).err() } else { None };
        let refused = match self.state.count {
            _ if unknown.is_some() => unknown.map(|error| format!("who uses them is not known: {error}")),
            count if is_removing && ![before.count, *wanted, 0].contains(&count) => {
                Some(format!("{count} VFs are not its doing"))
            }
            _ if is_removing => {
                sriov::check_unused(address, &vfs, before.count, Uses::NONE).err().map(|refused| refused.message)
            }
            _ => None,
        };
        if refused.is_some() {
            steps = sriov::put_back(&before, &self.state, true);
        }
        let is_idle = steps.is_empty();
        // Those of the same number are others then.
        let is_remaking = is_removing && refused.is_none();
        let mut left = Vec::new();
        let failure = self.take_back(&steps, &mut |action| match action {
            Action::Restore(_) => restore(setting, was, is_remaking, &mut left),
            _ => unreachable!("only these are part of putting back"),
        });
        if let Some(failure) = failure.as_ref().filter(|failure| failure.is_stuck) {
            return Err(failure.clone());
        }
        let failure = failure.map(|failure| Failure { kind: Kind::NotRestored, ..failure });
        let had = format!("it had {} VFs and was to have {wanted}", before.count);
        let end = match (&failure, refused) {
            (Some(failure), _) => {
                format!("{had}; it could not be put back: {}; {}", failure.message, self.describe())
            }
            (None, Some(refused)) => format!("{had}; the VFs were left as they are: {refused}; {}", self.describe()),
            (None, None) if is_idle => format!("{had}; nothing was left to put back; {}", self.describe()),
            (None, None) => format!("{had}; put back: {}", self.describe()),
        };
        let end: Vec<String> = [end].into_iter().chain(left).collect();
        let recovery = Recovery::new(found, self.steps, failure, &end.join("; "));
        Ok((self.lock, recovery))
    }

    /// Takes steps of putting back; the first error comes back.
    fn take_back(&mut self, steps: &[Step], work: &mut dyn FnMut(&Action) -> Result<(), Failure>) -> Option<Failure> {
        let mut first: Option<Failure> = None;
        for step in steps {
            // Whatever became of the VFs: later ones are not to be kept from their drivers.
            if first.is_some() && !matches!(step.action, Action::Autoprobe(_)) {
                continue;
            }
            if let Err(error) = self.take(step, work) {
                first = first.or(Some(error));
            }
        }
        first
    }

    fn put_back(
        &mut self,
        before: &Facts,
        mut failure: Failure,
        work: &mut dyn FnMut(&Action) -> Result<(), Failure>,
    ) -> Failure {
        if !self.setting.host.device(self.pf).exists() {
            failure.message.push_str("; the PF went away meanwhile");
            failure.kind = Kind::NoDevice;
            return failure;
        }
        self.is_undoing = true;
        self.control.set_undoing();
        let is_stuck = failure.is_stuck;
        let is_touched = State::from(before) != self.state;
        let second = self.take_back(&sriov::put_back(&Before::from(before), &self.state, is_stuck), work);
        let now = self.describe();
        match second {
            Some(second) => {
                failure.kind = if second.is_stuck { Kind::Timeout } else { Kind::NotRestored };
                failure.is_stuck |= second.is_stuck;
                failure.wait = failure.wait.or(second.wait);
                failure.message =
                    format!("{}; putting it back failed as well: {}; {now}", failure.message, second.message);
                failure.hint = Some(format!("'vfioctl sriov {}' shows how it stands", self.pf));
            }
            None if is_stuck && (self.state.is_remade || self.state.is_bound) => {
                failure.message = format!(
                    "{}; the VFs were left as they are, since removing them would wait as well; {now}",
                    failure.message
                );
            }
            None if is_touched => {
                failure.message = format!("{}; put back: {now}", failure.message);
                // A VF that could not be put back by itself went with the others.
                if failure.kind == Kind::NotRestored {
                    failure.kind = Kind::Failed;
                }
            }
            None => failure.message = format!("{}; nothing was changed", failure.message),
        }
        failure
    }

    fn describe(&self) -> String {
        // What the links say is what there is, whatever the kernel answered.
        let count = Pf::read(self.setting.host, self.pf).ok().flatten().map(|pf| pf.vfs.len());
        let count = count.map_or("VFs unknown".to_string(), |count| format!("{count} VFs"));
        format!("it has {count}, sriov_drivers_autoprobe {}", u8::from(self.state.is_autoprobed))
    }

    fn take(&mut self, step: &Step, work: &mut dyn FnMut(&Action) -> Result<(), Failure>) -> Result<(), Failure> {
        let mut record = record(step);
        let target = record.target.as_deref().map(|target| format!(" {target}")).unwrap_or_default();
        (self.setting.observe)(self.pf, &format!("{}{target}: {}", record.step, record.reason));
        let result = self.act(&step.action, work);
        record.done = result.is_ok();
        self.steps.push(record);
        result
    }

    fn act(&mut self, action: &Action, work: &mut dyn FnMut(&Action) -> Result<(), Failure>) -> Result<(), Failure> {
        match action {
            Action::Autoprobe(on) => {
                let result = self.control.set_vf_autoprobe(self.pf, *on);
                result.map_err(|error| self.failure(error))?;
                self.state.is_autoprobed = *on;
                Ok(())
            }
            Action::Count(count) => self.set_count(*count),
            Action::Bind | Action::Probe | Action::Restore(_) => {
                self.state.is_bound = true;
                work(action)
            }
        }
    }

    fn set_count(&mut self, count: u16) -> Result<(), Failure> {
        let vfs = self.read()?.vfs;
        // A lock is an open file. Where there may be too few, the one that is too many says so.
        file::allow_open(4 * vfs.len());
        // Who binds one of them is to come to an end first, and who wants to begin finds it gone.
        let take = if self.is_undoing { DeviceLock::take_to_undo } else { DeviceLock::take };
        let lock = |&(_, vf): &(u16, Address)| {
            take(self.setting.host, vf, self.setting.timeout)
                .map_err(|error| explain_wait(self.setting.host, vf, lock_failure(vf, error)))
        };
        let _locks: Vec<DeviceLock> = vfs.iter().map(lock).collect::<Result<_, _>>()?;
        if !vfs.is_empty() {
            // A VM that was faster: the removal would wait for it.
            let pf = self.read()?;
            let (vfs, _) =
                gather::vfs(self.setting.host, &pf, self.setting.timeout).map_err(|e| self.unreadable(&e))?;
            sriov::check_unheld(self.pf, &vfs)?;
        }
        if !self.setting.is_timeout_fixed {
            let number = u32::from(count).max(u32::try_from(vfs.len()).unwrap_or(u32::MAX));
            self.control.set_timeout(self.setting.timeout + PER_VF * number);
        }
        let result = self.control.set_vf_count(self.pf, count);
        self.control.set_timeout(self.setting.timeout);
        let made = Pf::count(self.setting.host, self.pf).map_err(|error| self.unreadable(&error))?;
        let made = made.ok_or_else(|| self.gone())?;
        self.state.is_remade |= result.is_ok() || made != vfs.len();
        self.state.count = u16::try_from(made).unwrap_or(u16::MAX);
        result.map_err(|error| self.failure(error))?;
        if made != usize::from(count) {
            // The driver's own answer goes to the kernel log (`drivers/pci/iov.c`, `sriov_numvfs_store`).
            return Err(Failure::new(
                Kind::Failed,
                format!("{}: {count} VFs were asked for, and there are {made}", self.pf),
                log_hint(self.pf),
            ));
        }
        Ok(())
    }

    fn read(&self) -> Result<Pf, Failure> {
        match Pf::read(self.setting.host, self.pf) {
            Ok(Some(pf)) => Ok(pf),
            Ok(None) => Err(self.gone()),
            Err(error) => Err(self.unreadable(&error)),
        }
    }

    fn gone(&self) -> Failure {
        Failure::plain(Kind::NoDevice, format!("no PCI device {}", self.pf))
    }

    fn unreadable(&self, error: &ReadError) -> Failure {
        Failure::plain(Kind::Failed, format!("{}: {error}", self.pf))
    }

    fn failure(&mut self, error: WriteError) -> Failure {
        let pf = self.pf;
        let driver = gather::driver_of(self.setting.host, pf).ok().flatten();
        let on = driver.map_or("no driver".to_string(), |driver| driver.to_string());
        let message = format!("{pf}: {error}");
        match &error {
            WriteError::TimedOut { given_up, .. } => {
                // It may be made all the same, later.
                self.state.is_remade = true;
                let hint = format!(
                    "the PF's driver, {on}, may be slow, or somebody may use a VF; then see 'vfioctl sriov {pf}'"
                );
                let failure = Failure::stuck(message, hint).waiting(Some(given_up.pid), &given_up.within);
                explain_wait(self.setting.host, pf, failure)
            }
            // `sriov_numvfs_store`: no driver, or one without sriov_configure.
            WriteError::Refused { errno: Errno::NOENT, .. } => Failure::new(
                Kind::Unsafe,
                format!("{pf}: its driver, {on}, cannot make or remove VFs (it has no sriov_configure)"),
                "the device's native driver may; pci-pf-stub can, and vfio-pci with its parameter enable_sriov",
            ),
            WriteError::Refused { errno: Errno::NOMEM | Errno::NOSPC, .. } => Failure::new(
                Kind::Failed,
                message,
                format!(
                    "firmware may have left no room for the VFs' memory or buses: look for its SR-IOV setting, or try \
                     pci=realloc on the kernel command line; {}",
                    log_hint(pf)
                ),
            ),
            WriteError::NotOpened { errno: Errno::NOENT | Errno::NODEV, .. }
            | WriteError::Refused { errno: Errno::NODEV, .. }
                if !self.setting.host.device(pf).exists() =>
            {
                StepError::Gone.failure(pf)
            }
            WriteError::NotOpened { errno: Errno::ACCESS | Errno::PERM | Errno::ROFS, .. } => {
                Failure::new(Kind::Permission, message, permission_hint())
            }
            _ => Failure::new(Kind::Failed, message, log_hint(pf)),
        }
    }
}

/// Binds VFs as they were bound before, as far as they are as that run can have left them and nobody uses them by now. What
/// there is to say of the others is added to `left`.
fn restore(setting: &Setting<'_>, vfs: &[WasVf], is_remade: bool, left: &mut Vec<String>) -> Result<(), Failure> {
    let mut failures = Vec::new();
    for vf in vfs {
        match restore_one(setting, vf, is_remade) {
            Ok(remark) => left.extend(remark),
            Err(failure) => failures.push(failure),
        }
        // It is all tried again once that is over.
        if failures.last().is_some_and(|failure| failure.is_stuck) {
            break;
        }
    }
    sriov::not_restored(failures)
}

fn restore_one(setting: &Setting<'_>, was: &WasVf, is_remade: bool) -> Result<Option<String>, Failure> {
    let (host, vf, before) = (setting.host, was.address, Binding::from(&was.binding));
    let job = Job::start_undoing(setting, vf)?;
    let Some(device) = Device::read(host, vf).map_err(|error| unreadable(vf, &error))? else {
        return Err(Failure::plain(Kind::NotRestored, format!("no PCI device {vf}")));
    };
    let facts = gather::facts_but_users(host, device, setting.timeout).map_err(|error| unreadable(vf, &error))?;
    let now = Binding::from(&facts);
    if now == before {
        return Ok(None);
    }
    if let Some(domain) = libvirt::domain_of(host, vf) {
        return Ok(Some(format!("left as it is: {vf} is that of libvirt's domain {domain}")));
    }
    if !is_remade && (was.names.is_empty() || !is_between(&before, &was.names, false, &now)) {
        return Ok(Some(format!("left as it is: {vf}: {}, which is not its doing", describe(&now))));
    }
    let result = job.restore(facts, &before, &[]);
    match result.error {
        Some(refused) if result.outcome == Outcome::Refused => Ok(Some(refused.message)),
        Some(failure) => Err(failure),
        None if was.is_prepared && !is_remade => {
            Ok(Some(format!("what may have been prepared for {vf} was not undone")))
        }
        None => Ok(None),
    }
}

/// A step as reports name it, not done yet.
pub fn record(step: &Step) -> StepRecord {
    let (name, target) = match &step.action {
        Action::Autoprobe(on) => ("vf-autoprobe", Some(u8::from(*on).to_string())),
        Action::Count(count) => ("vf-count", Some(count.to_string())),
        Action::Bind => ("bind-vfs", None),
        Action::Probe => ("probe-vfs", None),
        Action::Restore(vfs) => ("restore-vfs", Some(vfs.len().to_string())),
    };
    StepRecord { step: name, target, reason: step.reason.to_string(), done: false, program: None }
}

fn log_hint(pf: Address) -> String {
    format!("the kernel log may say more: dmesg | grep {pf}")
}
