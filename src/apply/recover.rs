// SPDX-License-Identifier: MIT OR Apache-2.0
//! Putting back what an earlier run was killed at, before anything else is done to the device.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use super::failure::StepError;
use super::{Job, PfJob, Setting, explain_wait, lock_failure, unreadable};
use crate::address::Address;
use crate::gather;
use crate::kernel_name::is_same_name;
use crate::lock::DeviceLock;
use crate::outcome::{Failure, Kind, StepRecord};
use crate::plan::{self, Binding, Facts};
use crate::policy;
use crate::sysfs::{self, Device};
use crate::unfinished::{Unfinished, Work};

/// How often putting a device back is tried: a module that the earlier run had begun to load may take the device meanwhile.
const ATTEMPTS: usize = 3;

/// What was put back of earlier runs, device by device, until that is reported.
#[derive(Debug, Default)]
pub struct Recoveries(Mutex<BTreeMap<Address, Recovery>>);

/// What became of one.
#[derive(Debug, Default)]
pub struct Recovery {
    /// What was done.
    pub steps: Vec<StepRecord>,
    /// What there is to say.
    pub warnings: Vec<String>,
    /// Why it could not be put back.
    pub failure: Option<Failure>,
}

impl Recoveries {
    /// Takes a device's out, to be reported.
    pub fn take(&self, address: Address) -> Option<Recovery> {
        self.0.lock().expect("no thread panics with them").remove(&address)
    }

    fn add(&self, address: Address, recovery: Recovery) {
        self.0.lock().expect("no thread panics with them").insert(address, recovery);
    }
}

impl Recovery {
    /// `end` says how the device stands.
    pub(super) fn new(found: &Unfinished, mut steps: Vec<StepRecord>, failure: Option<Failure>, end: &str) -> Recovery {
        let warning = format!("an earlier 'vfioctl {}' was killed: {end}", found.verb);
        steps.push(StepRecord {
            step: "put-back",
            target: None,
            reason: warning.clone(),
            done: failure.is_none(),
            program: None,
        });
        Recovery { steps, warnings: vec![warning], failure }
    }
}

/// Sees to it that nothing on a device is half done.
pub fn put_back(setting: &Setting<'_>, address: Address) -> Result<(), Failure> {
    enter(setting, address, false).map(drop)
}

/// Takes a device's lock, and sees to it that nothing on it is half done.
pub(super) fn enter(setting: &Setting<'_>, address: Address, is_undoing: bool) -> Result<DeviceLock, Failure> {
    let host = setting.host;
    let take = if is_undoing { DeviceLock::take_to_undo } else { DeviceLock::take };
    let lock = take(host, address, setting.timeout)
        .map_err(|error| explain_wait(host, address, lock_failure(address, error)))?;
    let found = Unfinished::read(host, address);
    let is_over = found.as_ref().is_ok_and(|found| found.as_ref().is_some_and(|found| found.is_over(host, address)));
    Unfinished::sweep(host, address);
    policy::sweep(host, address);
    let found = match found {
        Ok(None) => return Ok(lock),
        Ok(Some(found)) => found,
        Err(error) => {
            let warning = match error.set_aside() {
                Ok(aside) => {
                    format!("{error}: what an earlier run was at is not put back; the file is {} now", aside.display())
                }
                Err(second) => format!("{error}: what an earlier run was at is not put back ({second})"),
            };
            let warnings = vec![warning];
            setting.recoveries.add(address, Recovery { warnings, ..Recovery::default() });
            return Ok(lock);
        }
    };
    let (lock, recovery) = match found.work {
        _ if !found.is_about(host, address) => {
            let end = "that device is gone, and nothing is left to put back";
            (lock, Recovery::new(&found, Vec::new(), None, end))
        }
        _ if is_over => (lock, Recovery::new(&found, Vec::new(), None, "all was done by then")),
        Work::Device { .. } => Job::new(setting, address, lock)?.recover(&found)?,
        Work::Pf { .. } => PfJob::new(setting, address, lock)?.recover(&found)?,
    };
    setting.recoveries.add(address, recovery);
    Unfinished::remove(host, address).map_err(|error| Failure::plain(Kind::Failed, format!("{address}: {error}")))?;
    Ok(lock)
}

impl Job<'_> {
    /// Puts the device back, unless it is not as that run can have left it, or in use by now. An error: it is stuck, and has
    /// to be put back later.
    fn recover(mut self, found: &Unfinished) -> Result<(DeviceLock, Recovery), Failure> {
        let Work::Device { before, names, prepared, .. } = &found.work else { unreachable!("asked by its work") };
        let before = Binding::from(before);
        self.prepared.clone_from(prepared);
        self.unfinished = Some(found.clone());
        self.control.set_undoing();
        (self.setting.observe)(self.address, &format!("putting back what 'vfioctl {}' was killed at", found.verb));
        let mut failure = None;
        for _ in 0..ATTEMPTS {
            let Some(facts) = self.look()? else {
                return Ok(self.recovered(found, None, "the device is gone"));
            };
            let now = Binding::from(&facts);
            if failure.is_none() && !may_be_left_by(found, &now) {
                let end = format!("{}, which is not its doing: it was left so", super::describe(&now));
                return Ok(self.recovered(found, None, &end));
            }
            let is_registered =
                before.driver.as_ref().is_none_or(|driver| sysfs::is_registered(self.setting.host, driver));
            let steps = match plan::give_back_to(&facts, &before, &self.prepared, is_registered) {
                Ok(steps) => steps,
                Err(refused) => {
                    return Ok(self.recovered(found, None, &format!("it was left so: {}", refused.message)));
                }
            };
            self.driver_override.clone_from(&facts.driver_override);
            match self.run_each(&steps).and_then(|()| self.check_not_taken(&before, names)) {
                Ok(()) => {
                    let end = format!("put back: {}", super::describe(&before));
                    return Ok(self.recovered(found, None, &end));
                }
                Err(error) => {
                    let error = self.failure(error);
                    if error.is_stuck {
                        return Err(error);
                    }
                    failure = Some(error);
                }
            }
        }
        let mut failure = failure.expect("each attempt failed");
        failure.kind = Kind::NotRestored;
        failure.message.push_str(&self.still_prepared());
        let end = format!("it could not be put back: {}", failure.message);
        Ok(self.recovered(found, Some(failure), &end))
    }

    /// A driver whose module was begun to be loaded can take the device between the look and the write that clears its override.
    /// After that it cannot.
    fn check_not_taken(&self, before: &Binding, names: &BTreeSet<String>) -> Result<(), StepError> {
        match self.driver()? {
            Some(now)
                if before.driver.as_ref() != Some(&now)
                    && names.iter().any(|name| is_same_name(name, now.as_str())) =>
            {
                Err(StepError::Taken(Some(now)))
            }
            _ => Ok(()),
        }
    }

    fn recovered(self, found: &Unfinished, failure: Option<Failure>, end: &str) -> (DeviceLock, Recovery) {
        (self.lock, Recovery::new(found, self.steps, failure, end))
    }

    pub(super) fn look(&self) -> Result<Option<Facts>, Failure> {
        let (host, address) = (self.setting.host, self.address);
        let Some(device) = Device::read(host, address).map_err(|error| unreadable(address, &error))? else {
            return Ok(None);
        };
        match gather::facts(host, device, self.setting.timeout) {
            Ok(facts) => Ok(Some(facts)),
            Err(error) => Err(unreadable(address, &error)),
        }
    }
}

/// Can the run that was killed have left the device so? Whoever has chosen something else since is not to lose it.
fn may_be_left_by(found: &Unfinished, now: &Binding) -> bool {
    let Work::Device { before, names, is_probed, .. } = &found.work else { return false };
    is_between(&Binding::from(before), names, *is_probed, now)
}

/// Can who puts a device on drivers of these `names`, or has it probed, have left it so?
pub(super) fn is_between(before: &Binding, names: &BTreeSet<String>, is_probed: bool, now: &Binding) -> bool {
    // Until a module is loaded its name stands for the driver's.
    let is_named = |name: &str| names.iter().any(|known| is_same_name(known, name));
    let is_known = |name: &str| is_named(name) || before.driver.as_ref().is_some_and(|d| d.as_str() == name);
    let is_override_known =
        now.driver_override == before.driver_override || now.driver_override.as_deref().is_none_or(is_known);
    let is_driver_known = is_probed || now.driver.as_ref().is_none_or(|driver| is_known(driver.as_str()));
    is_override_known && is_driver_known
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unfinished::Was;

    #[test]
    fn what_somebody_else_has_chosen_since_is_told() {
        let binding = |driver: &str, text: &str| Binding {
            driver: Some(driver).filter(|name| !name.is_empty()).map(|name| name.parse().unwrap()),
            driver_override: Some(text.to_string()).filter(|text| !text.is_empty()),
        };
        let found = |before: &Binding, is_probed| Unfinished {
            verb: "bind".to_string(),
            incarnation: Some(7),
            work: Work::Device {
                before: Was::from(before),
                names: BTreeSet::from(["vfio-pci".to_string()]),
                is_probed,
                prepared: Vec::new(),
                end: None,
            },
        };
        let (native, odd) = (binding("igb", ""), binding("igb", "odd one"));
        for (before, now, is_probed, expected) in [
            (&native, binding("igb", ""), false, true),
            (&native, binding("igb", "vfio-pci"), false, true),
            (&native, binding("", "vfio-pci"), false, true),
            (&native, binding("vfio-pci", "vfio-pci"), false, true),
            (&native, binding("", "vfio_pci"), false, true),
            // Killed while it was put back.
            (&native, binding("", "igb"), false, true),
            (&native, binding("igb", "igb"), false, true),
            (&odd, binding("", "odd one"), false, true),
            // Somebody has taken it.
            (&native, binding("", "pci-stub"), false, false),
            (&native, binding("pci-stub", ""), false, false),
            (&native, binding("igb", "odd one"), false, false),
            // Whoever the kernel chose.
            (&native, binding("e1000e", ""), true, true),
        ] {
            assert_eq!(may_be_left_by(&found(before, is_probed), &now), expected, "{before:?} {now:?}");
        }
    }
}
