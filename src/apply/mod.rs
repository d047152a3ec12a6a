// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carrying out a plan, step by step: each step is checked, and what fails is undone.

mod failure;
mod pf;
mod prepare;
mod record;
mod recover;

pub use failure::{explain_wait, lock_failure, store_failure, unreadable};
pub use pf::{Intent, PfJob, record as pf_step_record};
pub use record::{forget_record, save_record, set_aside_record, step_record};
pub use recover::{Recoveries, Recovery, put_back};

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::address::Address;
use crate::catalog::Catalog;
use crate::gather;
use crate::guard::Uses;
use crate::host::Host;
use crate::interrupt;
use crate::kernel_name::DriverName;
use crate::lock::DeviceLock;
use crate::modules::{self, Modules};
use crate::outcome::{DeviceResult, Failure, Kind, Outcome, State, StepRecord};
use crate::plan::{self, Action, Attempt, BindPlan, Binding, Facts, Step, Target};
use crate::policy::{self, Draft, StoreError};
use crate::prepare::Preparation;
use crate::sysfs::control::{Control, WriteError};
use crate::sysfs::{self, Device, Overrides, ReadError};
use crate::unfinished::{End, RecordError, Unfinished};
use failure::{OTHERS_AT_WORK, StepError, combine, no_attendant};
use recover::enter;

/// How long a probe that asks to be tried again (EAGAIN: a supplier is missing yet) is given.
const DEFERRED: Duration = Duration::from_secs(5);

/// How long a driver that took the device by itself is given until its VFIO device shows.
const SETTLING: Duration = Duration::from_secs(5);

/// What a job needs besides its device.
pub struct Setting<'a> {
    /// The host.
    pub host: &'a Host,
    /// For every call that can block.
    pub timeout: Duration,
    /// Is that what the user asked for? If not, a driver that is known to take longer gets longer.
    pub is_timeout_fixed: bool,
    /// Hears of each step as it begins.
    pub observe: &'a (dyn Fn(Address, &str) + Sync),
    /// Where it is kept what was put back of runs that were killed.
    pub recoveries: &'a Recoveries,
}

impl Setting<'_> {
    /// For the calls of a bind to this driver.
    fn patience(&self, driver: Option<&str>) -> Duration {
        let known = driver.and_then(|name| Catalog::bundled().by_any_name(name)?.probe_seconds);
        match known {
            Some(seconds) if !self.is_timeout_fixed => self.timeout.max(Duration::from_secs(seconds.into()) + SETTLING),
            _ => self.timeout,
        }
    }
}

/// Work on one device, under its lock.
pub struct Job<'a> {
    setting: &'a Setting<'a>,
    address: Address,
    control: Control<'a>,
    /// How the device is bound, as far as it is our doing: reading the override could wait for the device's lock.
    driver_override: Option<String>,
    /// How it was found, for the report.
    found: State,
    /// What was done to the device besides, in order, and not put back.
    prepared: Vec<Preparation>,
    /// Has another tool had its way with the device? Then no other driver is tried on it.
    is_contested: bool,
    steps: Vec<StepRecord>,
    warnings: Vec<String>,
    /// What is written down, for whoever finds the device half-way.
    unfinished: Option<Unfinished>,
    lock: DeviceLock,
}

impl<'a> Job<'a> {
    /// Locks the device, and puts back what an earlier run was killed at.
    pub fn start(setting: &'a Setting<'a>, address: Address) -> Result<Job<'a>, Failure> {
        Job::new(setting, address, enter(setting, address, false)?)
    }

    /// The same to put the device back, whoever wishes to stop.
    pub fn start_undoing(setting: &'a Setting<'a>, address: Address) -> Result<Job<'a>, Failure> {
        let mut job = Job::new(setting, address, enter(setting, address, true)?)?;
        job.control.set_undoing();
        Ok(job)
    }

    fn new(setting: &'a Setting<'a>, address: Address, lock: DeviceLock) -> Result<Job<'a>, Failure> {
        let control =
            Control::new(setting.host, setting.timeout, &lock).map_err(|error| no_attendant(address, &error))?;
        Ok(Job {
            setting,
            address,
            control,
            driver_override: None,
            found: State::default(),
            prepared: Vec::new(),
            is_contested: false,
            steps: Vec::new(),
            warnings: Vec::new(),
            unfinished: None,
            lock,
        })
    }

    /// Tries the attempts in turn until one works, then puts `draft` in force. A failed attempt is undone before the next.
    pub fn bind(mut self, facts: &Facts, plan: BindPlan, draft: Option<Draft>) -> DeviceResult {
        let mut result = self.result(facts, plan.warnings);
        if !plan.attempts.is_empty() {
            result.outcome = Outcome::Bound;
        }
        let was = Binding::from(facts);
        let mut failures: Vec<Failure> = Vec::new();
        let mut is_bound = plan.attempts.is_empty();
        for (number, attempt) in plan.attempts.iter().enumerate() {
            if let Err(failure) = if number > 0 { self.look_again(plan.acknowledged) } else { Ok(()) } {
                failures.push(failure);
                break;
            }
            if let Err(failure) = self.begin("bind", &was, &attempt.steps, draft.as_ref().map(|_| End::Save)) {
                failures.push(failure);
                break;
            }
            self.set_patience(attempt);
            match self.run_all(&attempt.steps).and_then(|()| self.confirm(&attempt.steps)) {
                Ok(()) => {
                    is_bound = true;
                    break;
                }
                Err(error) => {
                    let failure = self.undo(&was, error);
                    result.changed |= !self.prepared.is_empty();
                    self.prepared.clear();
                    let is_final = self.is_contested || !matches!(failure.kind, Kind::Failed | Kind::Module);
                    failures.push(failure);
                    if is_final {
                        break;
                    }
                }
            }
        }
        if let Some(draft) = draft.filter(|_| is_bound) {
            let is_news = draft.is_news();
            match self.save(draft) {
                Ok(()) => result.changed |= is_news,
                Err(error) => {
                    let prepared = self.prepared.clone();
                    if let Err(error) = self.note(Unfinished::fail, &prepared) {
                        self.warnings.push(error.to_string());
                    }
                    failures.push(self.undo(&was, error));
                    is_bound = false;
                }
            }
        }
        if is_bound {
            result.prepared.clone_from(&self.prepared);
            // A better driver that failed is worth a word; the device is bound all the same.
            let own = format!("{}: ", self.address);
            result.warnings.extend(failures.into_iter().map(|failure| failure.message.replace(&own, "")));
        } else {
            result.outcome = Outcome::Failed;
            result.error = combine(failures);
        }
        self.finish(result)
    }

    /// May the next driver be tried? A native driver that has had the device again may have made something of it that this
    /// host uses.
    fn look_again(&self, acknowledged: Uses) -> Result<(), Failure> {
        match self.look()? {
            Some(facts) => plan::may_try_again(&facts, acknowledged),
            None => Err(StepError::Gone.failure(self.address)),
        }
    }

    /// Puts the device back to how it was, as far as it is not so, and what was `prepared` since; `facts` may be without its
    /// users. Refused where somebody uses it by now: then it is left as it is.
    pub fn restore(mut self, facts: Facts, before: &Binding, prepared: &[Preparation]) -> DeviceResult {
        let mut result = self.result(&facts, Vec::new());
        let now = Binding::from(&facts);
        let steps = match self.plan_restoring(facts, before, prepared) {
            Ok(steps) if steps.is_empty() => return self.finish(result),
            Ok(steps) => steps,
            Err(refused) => {
                result.outcome = Outcome::Refused;
                let message = format!("left as it is: {}", refused.message);
                result.error = Some(Failure { message, ..refused });
                return self.finish(result);
            }
        };
        // Half-way it is neither as found nor as before. That this cannot be written down is no reason to leave it so.
        self.unfinished = Some(self.record("bind", before, None));
        let names = now.driver.iter().map(DriverName::to_string).chain(now.driver_override);
        if let Err(error) = self.note(|record| record.name(names), prepared) {
            self.warnings.push(error.to_string());
        }
        if let Err(error) = self.run_each(&steps) {
            result.outcome = Outcome::Failed;
            result.error = Some(self.failure(error));
        }
        self.finish(result)
    }

    fn plan_restoring(&self, facts: Facts, before: &Binding, prepared: &[Preparation]) -> Result<Vec<Step>, Failure> {
        let (host, address) = (self.setting.host, self.address);
        let is_taken = |step: &Step| matches!(step.action, Action::Unbind(_));
        let facts = match plan::restore(before, &Binding::from(&facts), prepared).iter().any(is_taken) {
            // Whose users are not known is left to them.
            true => gather::with_users(host, facts, &[]).map_err(|error| {
                Failure::plain(Kind::Unsafe, format!("{address}: who uses it is not known: {error}"))
            })?,
            false => facts,
        };
        let is_registered = before.driver.as_ref().is_none_or(|driver| sysfs::is_registered(host, driver));
        plan::give_back_to(&facts, before, prepared, is_registered)
    }

    /// Takes the first steps of binding: those that keep other drivers off. That is one write, and nothing is ever half-way.
    pub fn claim(mut self, facts: &Facts, steps: &[Step], warnings: Vec<String>) -> DeviceResult {
        let mut result = self.result(facts, warnings);
        // It was not read.
        self.found.driver_override = None;
        match self.run_all(steps) {
            Ok(()) => result.outcome = Outcome::Claimed,
            Err(error) => {
                result.outcome = Outcome::Failed;
                result.error = Some(self.failure(error));
            }
        }
        self.finish(result)
    }

    /// Takes the steps of giving a device back, then forgets the choice that was kept for it.
    pub fn unbind(mut self, facts: &Facts, steps: &[Step], is_forgetting: bool, warnings: Vec<String>) -> DeviceResult {
        let mut result = self.result(facts, warnings);
        if !steps.is_empty() {
            result.outcome = Outcome::Unbound;
        }
        let is_forgetting = is_forgetting && result.persisted;
        let end = is_forgetting.then_some(End::Forget);
        if let Err(failure) = self.begin("unbind", &Binding::from(facts), steps, end) {
            result.outcome = Outcome::Failed;
            result.error = Some(failure);
            return self.finish(result);
        }
        let given = match self.run_all(steps).and_then(|()| self.confirm(steps)) {
            // Somebody else was faster.
            Err(StepError::Taken(Some(now))) if is_any_wanted(steps) && self.is_given_back() => {
                self.warnings.push(format!("somebody else has given it to {now} meanwhile"));
                Ok(())
            }
            given => given,
        };
        match given.and_then(|()| if is_forgetting { self.forget() } else { Ok(()) }) {
            Ok(()) if is_forgetting => result.outcome = Outcome::Unbound,
            Ok(()) => {}
            // A choice that is still kept would have its way again: all of it is undone.
            Err(error) => result.error = Some(self.undo(&Binding::from(facts), error)),
        }
        if result.error.is_some() {
            result.outcome = Outcome::Failed;
        }
        self.finish(result)
    }

    fn result(&mut self, before: &Facts, warnings: Vec<String>) -> DeviceResult {
        self.driver_override = before.driver_override.clone();
        let is_kept = policy::has_own_file(self.setting.host, self.address);
        self.found = State { persisted: Some(is_kept), ..State::from(&Binding::from(before)) };
        DeviceResult { warnings, ..DeviceResult::unchanged(self.address, before.device.driver.clone(), is_kept) }
    }

    /// Writes down what is about to be done, if anything is. An error: nothing of it was.
    fn begin(&mut self, verb: &str, before: &Binding, steps: &[Step], end: Option<End>) -> Result<(), Failure> {
        if steps.is_empty() {
            return Ok(());
        }
        let is_first = self.unfinished.is_none();
        if is_first {
            self.unfinished = Some(self.record(verb, before, end));
        }
        let names: Vec<String> = steps
            .iter()
            .filter_map(|step| match &step.action {
                Action::Override(name) => Some(name.clone()),
                Action::Bind(target) => Some(target.name().to_string()),
                Action::Rebind(driver) => Some(driver.to_string()),
                _ => None,
            })
            .collect();
        let is_probed = steps.iter().any(|step| matches!(step.action, Action::Probe));
        let prepared = self.prepared.clone();
        let noted = self.note(
            |record| {
                record.name(names);
                record.may_be_probed(is_probed);
            },
            &prepared,
        );
        noted.map_err(|error| {
            let mut failure = StepError::from(error).failure(self.address);
            if is_first {
                self.unfinished = None;
                failure.message.push_str("; nothing was touched");
            }
            failure
        })
    }

    fn record(&self, verb: &str, before: &Binding, end: Option<End>) -> Unfinished {
        let incarnation = Device::incarnation(self.setting.host, self.address);
        Unfinished::of_device(verb, incarnation, before, end)
    }

    /// Writes down what may have been done once the next step is begun.
    fn note(&mut self, change: impl FnOnce(&mut Unfinished), prepared: &[Preparation]) -> Result<(), RecordError> {
        let Some(record) = &mut self.unfinished else { return Ok(()) };
        change(record);
        record.set_prepared(prepared);
        record.write(self.setting.host, self.address)
    }

    /// A probe that is known to take its time gets it, unless the user has said otherwise.
    fn set_patience(&mut self, attempt: &Attempt) {
        let driver = attempt.target.as_ref().map(Target::name);
        self.control.set_timeout(self.setting.patience(driver));
    }

    /// Says how the device stands now.
    fn finish(mut self, mut result: DeviceResult) -> DeviceResult {
        match self.driver() {
            Ok(driver) => result.driver = driver,
            Err(StepError::Gone) => {
                result.driver = None;
                if result.error.is_none() {
                    result.outcome = Outcome::Failed;
                    result.error = Some(StepError::Gone.failure(self.address));
                }
            }
            // What is not known may be another.
            Err(_) => result.changed |= !self.steps.is_empty(),
        }
        result.persisted = policy::has_own_file(self.setting.host, self.address);
        if self.unfinished.is_some() {
            if let Err(error) = Unfinished::remove(self.setting.host, self.address) {
                self.warnings.push(format!("{error}: remove it, or the next run puts the device back"));
            }
        }
        let now = self.state(&result);
        // Programs have changed what is not looked at here, and a driver that probes the device anew has it set up anew. A probe
        // that the kernel is asked for may find no driver.
        result.changed |= !self.prepared.is_empty() || result.outcome == Outcome::Bound;
        result.steps = self.steps;
        result.warnings.extend(self.warnings);
        result.compared(self.found, now)
    }

    /// How the device stands, as far as that can be told without waiting for its lock.
    fn state(&self, result: &DeviceResult) -> State {
        let now = Binding { driver: result.driver.clone(), driver_override: self.driver_override.clone() };
        let mut state = State { persisted: Some(result.persisted), ..State::from(&now) };
        let is_stuck = result.error.as_ref().is_some_and(|failure| failure.kind == Kind::Timeout);
        let was_read = self.found.driver_override.is_some() || self.driver_override.is_some();
        if self.is_contested || !was_read || (is_stuck && !self.steps.is_empty()) {
            state.driver_override = None;
        }
        state
    }

    /// Is it as these steps have left it? Others can have their way with a device between two steps of ours, and none fails.
    fn confirm(&mut self, steps: &[Step]) -> Result<(), StepError> {
        if steps.is_empty() {
            return Ok(());
        }
        let now = self.driver()?;
        // An override says nothing of the driver, and after a probe that is the kernel's choice.
        let wanted = steps.iter().rev().find_map(|step| match &step.action {
            Action::Bind(Target { driver, .. }) => Some(driver.as_ref().map(Some)),
            Action::Rebind(driver) => Some(Some(Some(driver))),
            Action::Unbind(_) => Some(Some(None)),
            Action::Probe => Some(None),
            _ => None,
        });
        match wanted.flatten() {
            Some(wanted) if wanted != now.as_ref() => return Err(StepError::Taken(now)),
            _ => {}
        }
        match self.read_override() {
            Ok(now) if now == self.driver_override => Ok(()),
            Ok(now) => Err(StepError::Overridden(now)),
            // Before Linux 7.1 the device's lock is waited for, which somebody who has just opened the device may hold for long.
            Err(error) if error.source.kind() == io::ErrorKind::TimedOut => {
                self.warnings.push(format!("whether its override is as it was left could not be seen: {error}"));
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }

    fn read_override(&self) -> Result<Option<String>, ReadError> {
        Overrides::new(self.setting.host, self.control.timeout()).read(self.address)
    }

    /// Stops between two steps where that is wished for.
    fn run_all(&mut self, steps: &[Step]) -> Result<(), StepError> {
        steps
            .iter()
            .try_for_each(|step| if interrupt::is_wanted() { Err(StepError::Interrupted) } else { self.run(step) })
    }

    /// Takes every step, whatever became of the one before, but behind one that blocks; the first error comes back.
    fn run_each(&mut self, steps: &[Step]) -> Result<(), StepError> {
        let mut first = Ok(());
        for step in steps {
            // Who wishes to stop a second time does not wait for this either.
            let result = if interrupt::is_undoing_over() { Err(StepError::Interrupted) } else { self.run(step) };
            let is_over = matches!(result, Err(StepError::Write(WriteError::TimedOut { .. }) | StepError::Interrupted));
            first = first.and(result);
            if is_over {
                break;
            }
        }
        first
    }

    fn run(&mut self, step: &Step) -> Result<(), StepError> {
        let mut record = step_record(step);
        self.announce(&record);
        let result = self.act(&step.action, &mut record);
        record.done = result.is_ok();
        self.steps.push(record);
        result
    }

    fn announce(&self, record: &StepRecord) {
        let target = record.target.as_deref().map(|target| format!(" {target}")).unwrap_or_default();
        (self.setting.observe)(self.address, &format!("{}{target}: {}", record.step, record.reason));
    }

    fn act(&mut self, action: &Action, record: &mut StepRecord) -> Result<(), StepError> {
        let setting = self.setting;
        match action {
            Action::Override(driver) => self.set_override(driver),
            Action::ClearOverride => {
                self.control.clear_override(self.address)?;
                self.driver_override = None;
                Ok(())
            }
            Action::Unbind(driver) => self.unbind_from(driver),
            Action::Prepare(preparation) => self.prepare(preparation, record),
            Action::Unprepare(preparation) => self.unprepare(preparation, record),
            Action::Load(module) => Ok(modules::load(setting.host, module, self.control.timeout())?),
            Action::LoadNative => {
                self.load_native();
                Ok(())
            }
            Action::Bind(target) => {
                let driver = self.resolve(target)?;
                record.target = Some(driver.to_string());
                let is_ours = self.bind_to(&driver)?;
                if target.is_vfio { self.verify_vfio(&driver, is_ours) } else { Ok(()) }
            }
            Action::Rebind(driver) => self.bind_to(driver).map(|_| ()),
            Action::Probe => Ok(self.control.probe(self.address)?),
        }
    }

    fn set_override(&mut self, driver: &str) -> Result<(), StepError> {
        self.control.set_override(self.address, driver)?;
        self.driver_override = Some(driver.to_string());
        Ok(())
    }

    fn unbind_from(&mut self, driver: &DriverName) -> Result<(), StepError> {
        match self.control.unbind(self.address, driver) {
            // Somebody else was faster: what counts is that it is off.
            Err(error) if error.errno() == Some(Errno::NODEV) => match self.driver()? {
                None => Ok(()),
                Some(now) if now != *driver => Err(StepError::Taken(Some(now))),
                Some(_) => Err(error.into()),
            },
            result => Ok(result?),
        }
    }

    /// A native driver that cannot be loaded is no reason to keep the device.
    fn load_native(&mut self) {
        let host = self.setting.host;
        let device = match Device::read(host, self.address) {
            Ok(Some(device)) => device,
            Ok(None) => return,
            Err(error) => return self.warnings.push(format!("no native driver was loaded: {error}")),
        };
        if let Err(error) = &*modules::load_for_alias(host, &device.modalias, self.setting.timeout) {
            self.warnings.push(format!("no native driver was loaded: {error}"));
        }
    }

    /// The driver's name, now that its module is in; sets the override anew where it had been guessed.
    fn resolve(&mut self, target: &Target) -> Result<DriverName, StepError> {
        if let Some(driver) = &target.driver {
            return Ok(driver.clone());
        }
        let module = target.module.as_ref().expect("a target without a driver has a module");
        let Some(driver) = Modules::driver(self.setting.host, module)? else {
            return Err(StepError::NoDriver(module.to_string()));
        };
        if driver.as_str() != target.name() {
            let prepared = self.prepared.clone();
            self.note(|record| record.name([driver.to_string()]), &prepared)?;
            self.set_override(driver.as_str())?;
        }
        Ok(driver)
    }

    /// Binds, unless the driver took the device when it was registered; `true`: it was our doing, so its probe is over.
    fn bind_to(&mut self, driver: &DriverName) -> Result<bool, StepError> {
        let started = Instant::now();
        loop {
            if self.driver()?.as_ref() == Some(driver) {
                return Ok(false);
            }
            match self.control.bind(self.address, driver) {
                Ok(()) => break,
                // Between the look and the write it may have got its driver.
                Err(error) if error.errno() == Some(Errno::BUSY) && self.driver()?.as_ref() == Some(driver) => {
                    return Ok(false);
                }
                Err(error)
                    if error.errno() == Some(Errno::AGAIN)
                        && started.elapsed() < DEFERRED
                        && !interrupt::is_wanted() =>
                {
                    thread::sleep(Duration::from_millis(100));
                }
                Err(WriteError::NotOpened { errno: Errno::NOENT, .. }) => {
                    return Err(StepError::NotRegistered(driver.clone()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Believe nothing: the write's success is not the binding.
        match self.driver()? {
            Some(now) if now == *driver => Ok(true),
            now => Err(StepError::WrongDriver { wanted: driver.clone(), now }),
        }
    }

    /// A probe that somebody else began may not be over yet.
    fn verify_vfio(&self, driver: &DriverName, is_over: bool) -> Result<(), StepError> {
        let started = Instant::now();
        loop {
            if Device::is_vfio_device(self.setting.host, self.address)? {
                return Ok(());
            }
            if is_over || started.elapsed() > SETTLING || self.driver()?.as_ref() != Some(driver) {
                return Err(StepError::NotVfio(driver.clone()));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// The driver link: reading it waits for nothing.
    fn driver(&self) -> Result<Option<DriverName>, StepError> {
        let host = self.setting.host;
        match gather::driver_of(host, self.address)? {
            None if !Device::is_there(host, self.address) => Err(StepError::Gone),
            driver => Ok(driver),
        }
    }

    /// What to tell the user.
    fn failure(&self, error: StepError) -> Failure {
        explain_wait(self.setting.host, self.address, error.failure(self.address))
    }

    fn save(&mut self, draft: Draft) -> Result<(), StepError> {
        self.store(save_record(self.setting.host, self.address), || draft.commit().map(|_| ()))
    }

    fn forget(&mut self) -> Result<(), StepError> {
        let (host, address) = (self.setting.host, self.address);
        self.store(forget_record(host, address), || policy::forget(host, address).map(|_| ()))
    }

    fn store(&mut self, mut record: StepRecord, act: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StepError> {
        self.announce(&record);
        let result = act();
        record.done = result.is_ok();
        self.steps.push(record);
        Ok(result?)
    }

    /// Puts the device back after `error`, and says how that went.
    fn undo(&mut self, before: &Binding, error: StepError) -> Failure {
        // The device's lock is held in the kernel: another write would only wait behind it.
        let is_stuck = matches!(error, StepError::Write(WriteError::TimedOut { .. }));
        let is_taken = matches!(error, StepError::Taken(Some(_)));
        let mut failure = self.failure(error);
        if is_stuck && self.driver_override != before.driver_override {
            failure.message.push_str(&match &self.driver_override {
                Some(text) => format!("; driver_override is {text} now: 'vfioctl unbind' clears it"),
                None => "; driver_override is unset now".to_string(),
            });
        }
        if is_stuck || failure.kind == Kind::NoDevice {
            failure.message.push_str(&self.still_prepared());
            return failure;
        }
        self.control.set_undoing();
        // What another tool has made of it is that tool's: to put it back would be to have our way with that.
        if let Some(now) = self.left_by_others().or_else(|| if is_taken { self.binding().ok() } else { None }) {
            self.is_contested = true;
            failure.message =
                format!("{}; it is another tool's by now, and was left so; now {}", failure.message, describe(&now));
            if now != *before {
                failure.kind = Kind::NotRestored;
                failure.hint = Some(OTHERS_AT_WORK.to_string());
            }
            failure.message.push_str(&self.still_prepared());
            return failure;
        }
        (self.setting.observe)(self.address, "putting it back");
        let restored = self.driver().and_then(|driver| {
            let now = Binding { driver, driver_override: self.driver_override.clone() };
            let steps = plan::restore(before, &now, &self.prepared);
            // Whoever wishes to stop wishes for this too.
            self.run_each(&steps).map(|()| !steps.is_empty())
        });
        match restored {
            Ok(true) => {
                failure.message =
                    format!("{}; put back: {}{}", failure.message, describe(before), self.still_prepared());
            }
            // Nothing had been done yet, or nothing that can be undone.
            Ok(false) => failure.message.push_str(&self.still_prepared()),
            Err(_) if matches!(self.driver(), Err(StepError::Gone)) => {
                let message = format!("{}; the device went away meanwhile{}", failure.message, self.still_prepared());
                return Failure::plain(Kind::NoDevice, message);
            }
            Err(second) => {
                // A program that does not end leaves nothing stuck in the kernel.
                let is_stuck = matches!(second, StepError::Write(_));
                let second = self.failure(second);
                let state = match self.driver() {
                    Ok(driver) => describe(&Binding { driver, driver_override: self.driver_override.clone() }),
                    Err(error) => error.to_string(),
                };
                failure.kind = if second.kind == Kind::Timeout && is_stuck { Kind::Timeout } else { Kind::NotRestored };
                failure.message = format!(
                    "{}; putting it back failed as well: {}; now {state}{}",
                    failure.message,
                    second.message,
                    self.still_prepared()
                );
                failure.hint =
                    Some(format!("'vfioctl unbind {}' gives it back to the kernel's own choice", self.address));
            }
        }
        failure
    }

    /// How the device is, if its override is not what we made it.
    fn left_by_others(&self) -> Option<Binding> {
        self.binding().ok().filter(|now| now.driver_override != self.driver_override)
    }

    /// Is it without override, and not with VFIO?
    fn is_given_back(&self) -> bool {
        let is_free = self.read_override().is_ok_and(|text| text.is_none());
        is_free && Device::is_vfio_device(self.setting.host, self.address).is_ok_and(|is_vfio| !is_vfio)
    }

    fn binding(&self) -> Result<Binding, StepError> {
        Ok(Binding { driver: self.driver()?, driver_override: self.read_override()? })
    }
}

/// Is the device given to whatever driver the kernel chooses?
fn is_any_wanted(steps: &[Step]) -> bool {
    steps.last().is_some_and(|step| matches!(step.action, Action::Probe))
}

fn describe(binding: &Binding) -> String {
    let driver = binding.driver.as_ref().map_or("on no driver".to_string(), |driver| format!("on {driver}"));
    let text = binding.driver_override.as_ref().map_or("no override".to_string(), |text| format!("override {text:?}"));
    format!("it is {driver}, {text}")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_probe_that_is_known_to_take_long_gets_its_time() {
        let host = Host::new(Path::new("/"), None).unwrap();
        let patience = |driver, is_timeout_fixed| {
            let timeout = Duration::from_secs(60);
            Setting { host: &host, timeout, is_timeout_fixed, observe: &|_, _| {}, recoveries: &Recoveries::default() }
                .patience(driver)
                .as_secs()
        };
        // `drivers/vfio/pci/nvgrace-gpu/main.c` polls for up to 256 s.
        assert!(patience(Some("nvgrace_gpu_vfio_pci"), false) > 256);
        assert_eq!(patience(Some("nvgrace_gpu_vfio_pci"), true), 60);
        assert_eq!((patience(Some("vfio-pci"), false), patience(None, false)), (60, 60));
    }
}
