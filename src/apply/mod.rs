// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carrying out a plan, step by step: each step is checked, and what fails is undone.

mod failure;
mod record;

pub use failure::permission_hint;
pub use record::{forget_record, save_record, step_record};

use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::address::Address;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::lock::DeviceLock;
use crate::modules::{self, Modules};
use crate::outcome::{DeviceResult, Failure, Kind, Outcome, StepRecord};
use crate::plan::{self, Action, Attempt, Binding, Step, Target};
use crate::policy::{self, Draft, StoreError};
use crate::sysfs::Device;
use crate::sysfs::control::Control;
use failure::{StepError, combine, lock_failure, stuck_hint};

/// How long a probe that asks to be tried again (EAGAIN: a supplier is missing yet) is given.
const DEFERRED: Duration = Duration::from_secs(5);

/// Work on one device, under its lock.
pub struct Job<'a> {
    host: &'a Host,
    address: Address,
    timeout: Duration,
    control: Control<'a>,
    steps: Vec<StepRecord>,
    observe: &'a (dyn Fn(Address, &str) + Sync),
    _lock: DeviceLock,
}

impl<'a> Job<'a> {
    /// Locks the device. `timeout` is for every call that can block; `observe` hears of each step as it begins.
    pub fn start(
        host: &'a Host,
        address: Address,
        timeout: Duration,
        observe: &'a (dyn Fn(Address, &str) + Sync),
    ) -> Result<Job<'a>, Failure> {
        let lock = DeviceLock::take(host, address, timeout).map_err(|error| lock_failure(address, error))?;
        let control = Control::start(host, timeout).map_err(|error| {
            Failure::plain(Kind::Failed, format!("{address}: cannot start the process that writes to sysfs: {error}"))
        })?;
        Ok(Job { host, address, timeout, control, steps: Vec::new(), observe, _lock: lock })
    }

    /// Tries the attempts in turn until one works, then puts `draft` in force. A failed attempt is undone before the next.
    pub fn bind(
        mut self,
        before: &Device,
        attempts: &[Attempt],
        draft: Option<Draft>,
        warnings: Vec<String>,
    ) -> DeviceResult {
        let mut result = self.result(before, warnings);
        if !attempts.is_empty() {
            result.outcome = Outcome::Bound;
        }
        let was = Binding::from(before);
        let mut failures: Vec<Failure> = Vec::new();
        let mut is_bound = attempts.is_empty();
        for attempt in attempts {
            match self.run_all(&attempt.steps) {
                Ok(()) => {
                    is_bound = true;
                    break;
                }
                Err(error) => {
                    let failure = self.undo(&was, error);
                    let is_final = !matches!(failure.kind, Kind::Failed | Kind::Module);
                    failures.push(failure);
                    if is_final {
                        break;
                    }
                }
            }
        }
        if is_bound {
            if let Some(draft) = draft {
                match self.save(draft) {
                    Ok(()) => result.persisted = true,
                    Err(error) => {
                        failures.push(self.undo(&was, error));
                        is_bound = false;
                    }
                }
            }
        }
        if is_bound {
            // A better driver that failed is worth a word; the device is bound all the same.
            result.warnings.extend(failures.iter().map(|failure| failure.message.clone()));
        } else {
            result.outcome = Outcome::Failed;
            result.error = combine(failures);
        }
        self.finish(result)
    }

    /// Takes the steps of giving a device back, then forgets the choice that was kept for it.
    pub fn unbind(
        mut self,
        before: &Device,
        steps: &[Step],
        is_forgetting: bool,
        warnings: Vec<String>,
    ) -> DeviceResult {
        let mut result = self.result(before, warnings);
        if !steps.is_empty() {
            result.outcome = Outcome::Unbound;
        }
        match self.run_all(steps) {
            Ok(()) if is_forgetting && result.persisted => match self.forget() {
                Ok(()) => {
                    result.persisted = false;
                    result.outcome = Outcome::Unbound;
                }
                Err(error) => result.error = Some(error.failure(self.address)),
            },
            Ok(()) => {}
            Err(error) => result.error = Some(self.undo(&Binding::from(before), error)),
        }
        if result.error.is_some() {
            result.outcome = Outcome::Failed;
        }
        self.finish(result)
    }

    fn result(&self, before: &Device, warnings: Vec<String>) -> DeviceResult {
        let is_kept = policy::has_own_file(self.host, self.address);
        DeviceResult { warnings, ..DeviceResult::unchanged(self.address, before.driver.clone(), is_kept) }
    }

    /// Says how the device stands now.
    fn finish(self, mut result: DeviceResult) -> DeviceResult {
        // A stuck device is not asked: on old kernels even reading its attributes waits for its lock.
        let is_stuck = result.error.as_ref().is_some_and(|failure| failure.kind == Kind::Timeout);
        if !is_stuck {
            if let Ok(device) = Device::read(self.host, self.address) {
                result.driver = device.and_then(|device| device.driver);
            }
        }
        result.steps = self.steps;
        result
    }

    fn run_all(&mut self, steps: &[Step]) -> Result<(), StepError> {
        steps.iter().try_for_each(|step| self.run(step))
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
        (self.observe)(self.address, &format!("{}{target}: {}", record.step, record.reason));
    }

    fn act(&mut self, action: &Action, record: &mut StepRecord) -> Result<(), StepError> {
        match action {
            Action::Override(driver) => Ok(self.control.set_override(self.address, driver)?),
            Action::ClearOverride => Ok(self.control.clear_override(self.address)?),
            Action::Unbind(driver) => self.unbind_from(driver),
            Action::Load(module) => Ok(modules::load(self.host, module, self.timeout)?),
            Action::LoadNative => {
                let device = self.device()?;
                Ok(modules::load_for_alias(self.host, &device.modalias, self.timeout)?)
            }
            Action::Bind(target) => {
                let driver = self.resolve(target)?;
                record.target = Some(driver.to_string());
                self.bind_to(&driver)?;
                if target.is_vfio { self.verify_vfio(&driver) } else { Ok(()) }
            }
            Action::Rebind(driver) => self.bind_to(driver),
            Action::Probe => Ok(self.control.probe(self.address)?),
        }
    }

    fn unbind_from(&mut self, driver: &DriverName) -> Result<(), StepError> {
        match self.control.unbind(self.address, driver) {
            // Somebody else was faster: what counts is that it is off.
            Err(error) if error.errno() == Some(Errno::NODEV) && self.device()?.driver.is_none() => Ok(()),
            result => Ok(result?),
        }
    }

    /// The driver's name, now that its module is in; sets the override anew where it had been guessed.
    fn resolve(&mut self, target: &Target) -> Result<DriverName, StepError> {
        if let Some(driver) = &target.driver {
            return Ok(driver.clone());
        }
        let module = target.module.as_ref().expect("a target without a driver has a module");
        let Some(driver) = Modules::driver(self.host, module)? else {
            return Err(StepError::NoDriver(module.to_string()));
        };
        if driver.as_str() != target.name() {
            self.control.set_override(self.address, driver.as_str())?;
        }
        Ok(driver)
    }

    /// Binds, unless the driver took the device when it was registered.
    fn bind_to(&mut self, driver: &DriverName) -> Result<(), StepError> {
        let started = Instant::now();
        loop {
            if self.device()?.driver.as_ref() == Some(driver) {
                return Ok(());
            }
            match self.control.bind(self.address, driver) {
                Ok(()) => break,
                // Between the look and the write it may have got its driver.
                Err(error) if error.errno() == Some(Errno::BUSY) && self.device()?.driver.as_ref() == Some(driver) => {
                    break;
                }
                Err(error) if error.errno() == Some(Errno::AGAIN) && started.elapsed() < DEFERRED => {
                    thread::sleep(Duration::from_millis(100));
                }
                Err(error) if error.errno() == Some(Errno::NOENT) => {
                    return Err(StepError::NotRegistered(driver.clone()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        // Believe nothing: the write's success is not the binding.
        match self.device()?.driver {
            Some(now) if now == *driver => Ok(()),
            now => Err(StepError::WrongDriver { wanted: driver.clone(), now }),
        }
    }

    fn verify_vfio(&self, driver: &DriverName) -> Result<(), StepError> {
        match Device::is_vfio_device(self.host, self.address)? {
            true => Ok(()),
            false => Err(StepError::NotVfio(driver.clone())),
        }
    }

    fn device(&self) -> Result<Device, StepError> {
        Device::read(self.host, self.address)?.ok_or(StepError::Gone)
    }

    fn save(&mut self, draft: Draft) -> Result<(), StepError> {
        self.store(save_record(self.host, self.address), || draft.commit().map(|_| ()))
    }

    fn forget(&mut self) -> Result<(), StepError> {
        let (host, address) = (self.host, self.address);
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
        let mut failure = error.failure(self.address);
        match failure.kind {
            // The device's lock is held in the kernel: another write would only wait behind it.
            Kind::Timeout if self.steps.last().is_some_and(|step| step.step != "load") => {
                failure.hint = Some(stuck_hint(self.address));
                return failure;
            }
            Kind::NoDevice => return failure,
            _ => {}
        }
        if matches!(self.device(), Err(StepError::Gone)) {
            return Failure::plain(Kind::NoDevice, format!("{}; the device went away meanwhile", failure.message));
        }
        (self.observe)(self.address, &format!("{}; putting it back", failure.message));
        let restored = self.device().and_then(|now| {
            let steps = plan::restore(before, &Binding::from(&now));
            self.run_all(&steps)
        });
        if let Err(second) = restored {
            let second = second.failure(self.address);
            let state = match Device::read(self.host, self.address) {
                Ok(Some(now)) => describe(&Binding::from(&now)),
                Ok(None) => "it is gone".to_string(),
                Err(error) => error.to_string(),
            };
            failure.kind = if second.kind == Kind::Timeout { Kind::Timeout } else { Kind::NotRestored };
            failure.message =
                format!("{}; putting it back failed as well: {}; now {state}", failure.message, second.message);
            failure.hint = Some(format!("'vfioctl unbind {}' gives it back to the kernel's own choice", self.address));
        }
        failure
    }
}

fn describe(binding: &Binding) -> String {
    let driver = binding.driver.as_ref().map_or("on no driver".to_string(), |driver| format!("on {driver}"));
    let text = binding.driver_override.as_ref().map_or("no override".to_string(), |text| format!("override {text:?}"));
    format!("it is {driver}, {text}")
}
