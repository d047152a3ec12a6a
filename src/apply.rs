// SPDX-License-Identifier: MIT OR Apache-2.0
//! Carrying out a plan, step by step: each step is checked, and what fails is undone.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::address::Address;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::lock::{DeviceLock, LockError};
use crate::modules::{self, LoadError, Modules};
use crate::outcome::{DeviceResult, Failure, Kind, Outcome, StepRecord};
use crate::plan::{self, Action, Attempt, Binding, Step, Target};
use crate::policy::{self, Draft, StoreError};
use crate::process::RunError;
use crate::sysfs::control::{Control, WriteError};
use crate::sysfs::{Device, ReadError};

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
        let lock = DeviceLock::take(host, address, timeout)
            .map_err(|error| lock_failure(address, error))?;
        let control = Control::start(host, timeout).map_err(|error| {
            Failure::plain(
                Kind::Failed,
                format!("{address}: cannot start the process that writes to sysfs: {error}"),
            )
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
        let mut result = DeviceResult {
            address: self.address,
            outcome: if attempts.is_empty() { Outcome::Unchanged } else { Outcome::Bound },
            driver: before.driver.clone(),
            previous_driver: before.driver.clone(),
            persisted: policy::has_own_file(self.host, self.address),
            steps: Vec::new(),
            warnings,
            error: None,
        };
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
        let mut result = DeviceResult {
            address: self.address,
            outcome: if steps.is_empty() { Outcome::Unchanged } else { Outcome::Unbound },
            driver: before.driver.clone(),
            previous_driver: before.driver.clone(),
            persisted: policy::has_own_file(self.host, self.address),
            steps: Vec::new(),
            warnings,
            error: None,
        };
        match self.run_all(steps) {
            Ok(()) if is_forgetting && result.persisted => match self.forget() {
                Ok(()) => {
                    result.persisted = false;
                    result.outcome = Outcome::Unbound;
                }
                Err(error) => result.error = Some(self.failure(error)),
            },
            Ok(()) => {}
            Err(error) => result.error = Some(self.undo(&Binding::from(before), error)),
        }
        if result.error.is_some() {
            result.outcome = Outcome::Failed;
        }
        self.finish(result)
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
        let mut record = record(step);
        self.announce(&record);
        let result = self.act(&step.action, &mut record);
        record.done = result.is_ok();
        self.steps.push(record);
        result
    }

    fn announce(&self, record: &StepRecord) {
        let target =
            record.target.as_deref().map(|target| format!(" {target}")).unwrap_or_default();
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
            Err(error)
                if error.errno() == Some(Errno::NODEV) && self.device()?.driver.is_none() =>
            {
                Ok(())
            }
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
                Err(error)
                    if error.errno() == Some(Errno::BUSY)
                        && self.device()?.driver.as_ref() == Some(driver) =>
                {
                    break;
                }
                Err(error)
                    if error.errno() == Some(Errno::AGAIN) && started.elapsed() < DEFERRED =>
                {
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

    fn store(
        &mut self,
        mut record: StepRecord,
        act: impl FnOnce() -> Result<(), StoreError>,
    ) -> Result<(), StepError> {
        self.announce(&record);
        let result = act();
        record.done = result.is_ok();
        self.steps.push(record);
        Ok(result?)
    }

    /// Puts the device back after `error`, and says how that went.
    fn undo(&mut self, before: &Binding, error: StepError) -> Failure {
        let mut failure = self.failure(error);
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
            return Failure::plain(
                Kind::NoDevice,
                format!("{}; the device went away meanwhile", failure.message),
            );
        }
        (self.observe)(self.address, &format!("{}; putting it back", failure.message));
        let restored = self.device().and_then(|now| {
            let steps = plan::restore(before, &Binding::from(&now));
            self.run_all(&steps)
        });
        if let Err(second) = restored {
            let second = self.failure(second);
            let state = match Device::read(self.host, self.address) {
                Ok(Some(now)) => describe(&Binding::from(&now)),
                Ok(None) => "it is gone".to_string(),
                Err(error) => error.to_string(),
            };
            failure.kind =
                if second.kind == Kind::Timeout { Kind::Timeout } else { Kind::NotRestored };
            failure.message = format!(
                "{}; putting it back failed as well: {}; now {state}",
                failure.message, second.message
            );
            failure.hint = Some(format!(
                "'vfioctl unbind {}' gives it back to the kernel's own choice",
                self.address
            ));
        }
        failure
    }

    fn failure(&self, error: StepError) -> Failure {
        let address = self.address;
        let message = format!("{address}: {error}");
        let log = format!("the kernel log may say more: dmesg | grep {address}");
        match error {
            StepError::Write(WriteError::TimedOut { .. }) => {
                Failure::new(Kind::Timeout, message, stuck_hint(address))
            }
            StepError::Write(ref write) => match write.errno() {
                Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                    Failure::new(Kind::Permission, message, permission_hint())
                }
                _ => Failure::new(Kind::Failed, message, log),
            },
            StepError::Load(LoadError::Run(RunError::TimedOut { .. }))
            | StepError::Run(RunError::TimedOut { .. }) => Failure::new(
                Kind::Timeout,
                message,
                "the kernel log may say what the module waits for",
            ),
            StepError::Load(_) | StepError::NoDriver(_) | StepError::NotRegistered(_) => {
                Failure::new(Kind::Module, message, "the kernel log may say more: dmesg | tail")
            }
            StepError::Store(ref store) => match store.source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Failure::new(
                        Kind::Permission,
                        message,
                        "--no-save leaves the persisted choice alone",
                    )
                }
                _ => Failure::new(
                    Kind::Failed,
                    message,
                    "--no-save leaves the persisted choice alone",
                ),
            },
            StepError::Gone => Failure::plain(Kind::NoDevice, message),
            StepError::Run(_) => {
                Failure::new(Kind::Module, message, "is the package kmod installed?")
            }
            StepError::WrongDriver { .. } | StepError::NotVfio(_) | StepError::Read(_) => {
                Failure::new(Kind::Failed, message, log)
            }
        }
    }
}

/// A step that did not work.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("the device went away meanwhile")]
    Gone,
    #[error("module {0} is loaded, but has registered no PCI driver")]
    NoDriver(String),
    #[error("driver {0} is not registered")]
    NotRegistered(DriverName),
    #[error("the kernel reported success, but the device is on {}, not on {wanted}", .now.as_ref().map_or("no driver", DriverName::as_str))]
    WrongDriver { wanted: DriverName, now: Option<DriverName> },
    #[error("bound to {0}, which has made no VFIO device of it")]
    NotVfio(DriverName),
}

/// What a step is called, in reports.
pub fn record(step: &Step) -> StepRecord {
    let (name, target) = match &step.action {
        Action::Override(driver) => ("override", Some(driver.clone())),
        Action::ClearOverride => ("clear-override", None),
        Action::Unbind(driver) => ("unbind", Some(driver.to_string())),
        Action::Load(module) => ("load", Some(module.to_string())),
        Action::LoadNative => ("load-native", None),
        Action::Bind(target) => ("bind", Some(target.name().to_string())),
        Action::Rebind(driver) => ("bind", Some(driver.to_string())),
        Action::Probe => ("probe", None),
    };
    StepRecord { step: name, target, reason: step.reason.clone(), done: false }
}

/// Keeping a choice, as a step.
pub fn save_record(host: &Host, address: Address) -> StepRecord {
    store_record(host, address, "save", "for 'vfioctl apply', at boot or by hand")
}

/// Forgetting one.
pub fn forget_record(host: &Host, address: Address) -> StepRecord {
    store_record(host, address, "forget", "no choice is kept")
}

fn store_record(host: &Host, address: Address, step: &'static str, reason: &str) -> StepRecord {
    let path = policy::own_file(host, address);
    StepRecord {
        step,
        target: Some(path.display().to_string()),
        reason: reason.to_string(),
        done: false,
    }
}

/// Several attempts, one failure: the first is about the best driver, and its kind decides.
fn combine(failures: Vec<Failure>) -> Option<Failure> {
    let mut failures = failures.into_iter();
    let mut combined = failures.next()?;
    for failure in failures {
        if failure.kind.exit_status() > combined.kind.exit_status() {
            combined.kind = failure.kind;
            combined.hint = failure.hint;
        }
        combined.message = format!("{}; then {}", combined.message, failure.message);
    }
    Some(combined)
}

fn lock_failure(address: Address, error: LockError) -> Failure {
    match &error {
        LockError::Held { .. } => Failure::new(
            Kind::Timeout,
            format!("{address}: {error}"),
            "wait for it, or look what it waits for: ps -C vfioctl -o pid,stat,wchan:32,args",
        ),
        LockError::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            Failure::new(Kind::Permission, format!("{address}: {error}"), permission_hint())
        }
        LockError::File { .. } => Failure::plain(Kind::Failed, format!("{address}: {error}")),
    }
}

/// The next step for someone who may not.
pub fn permission_hint() -> String {
    "binding is for root; in a container or a sandboxed service /sys may be read-only".to_string()
}

fn stuck_hint(address: Address) -> String {
    format!(
        "somebody may still use the device (fuser -v /dev/vfio/*); the kernel goes on when they let go of it; see 'vfioctl show {address}' then"
    )
}

fn describe(binding: &Binding) -> String {
    let driver =
        binding.driver.as_ref().map_or("on no driver".to_string(), |driver| format!("on {driver}"));
    let text = binding
        .driver_override
        .as_ref()
        .map_or("no override".to_string(), |text| format!("override {text:?}"));
    format!("it is {driver}, {text}")
}
