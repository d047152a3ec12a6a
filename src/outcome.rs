// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of a device, and the exit status that says so.

use serde::Serialize;

use crate::address::Address;
use crate::guard::{Finding, Holder};
use crate::kernel_name::DriverName;
use crate::prepare::Preparation;
use crate::sysfs::stuck::Waiter;

/// The end of one device's bind, unbind or apply.
#[derive(Clone, Debug, Serialize)]
pub struct DeviceResult {
    /// The device.
    pub address: Address,
    /// What became of it.
    pub outcome: Outcome,
    /// The driver it is on now.
    pub driver: Option<DriverName>,
    /// The driver it was on before.
    pub previous_driver: Option<DriverName>,
    /// Is a choice for this device kept in /etc?
    pub persisted: bool,
    /// Is it, or with `--dry-run` would it be, another than before? So is a device of which that is not known.
    pub changed: bool,
    /// In what; `None`: in nothing that is looked at here.
    pub diff: Option<Diff>,
    /// What was done, or with `--dry-run` would be, in order.
    pub steps: Vec<StepRecord>,
    /// What went well enough, but should be known.
    pub warnings: Vec<String>,
    /// Why it did not work.
    pub error: Option<Failure>,
    /// What was done before its driver came, for whoever gives it back.
    #[serde(skip)]
    pub prepared: Vec<Preparation>,
}

/// What is another than it was.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Diff {
    /// How it was.
    pub before: State,
    /// How it is, or with `--dry-run` would be.
    pub after: State,
}

/// How a device is bound and what is kept for it. What is not known is `None`, and left out.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct State {
    /// Its driver's name, if it is on one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<Option<String>>,
    /// Its override, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_override: Option<Option<String>>,
    /// Is a choice for it kept in /etc?
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persisted: Option<bool>,
}

/// What became of a device.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is on the driver asked for, and was not before.
    Bound,
    /// No other driver than the one asked for can take it any more.
    Claimed,
    /// It was taken from its VFIO driver.
    Unbound,
    /// It was as asked for already.
    Unchanged,
    /// An earlier run was killed at it, and that was put back; nothing else was to be done.
    PutBack,
    /// Its override was taken over from driverctl.
    Imported,
    /// Nothing was done, on purpose.
    Refused,
    /// It was tried and did not work.
    Failed,
    /// `--dry-run`.
    Planned,
}

/// One step.
#[derive(Clone, Debug, Serialize)]
pub struct StepRecord {
    /// What: `override`, `clear-override`, `unbind`, `prepare`, `unprepare`, `load`, `load-native`, `bind`, `probe`, `save`, `forget`,
    /// `set-aside`, and behind what puts back a killed run's `put-back`; of a PF `vf-autoprobe`, `vf-count`, `bind-vfs`, `probe-vfs`, `restore-vfs`.
    pub step: &'static str,
    /// The driver, module or file it is about, if any.
    pub target: Option<String>,
    /// Why it is part of the plan.
    pub reason: String,
    /// Was it done? Never with `--dry-run`.
    pub done: bool,
    /// For `prepare` and `unprepare`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub program: Option<ProgramRecord>,
}

/// A program that was run, or is to be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ProgramRecord {
    /// Its words, as it is given them.
    pub command: Vec<String>,
    /// What would be run to put it back.
    pub undo: Option<Vec<String>>,
    /// It showed that what it does is done: it was not run.
    pub already: bool,
    /// How it ended; `None`: it was not run, or did not end by itself.
    pub exit_status: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Was it killed because it took too long?
    pub timed_out: bool,
    /// The last of what it printed on standard output and standard error; `None`: it was not run.
    pub output: Option<String>,
}

/// Why something did not work: what happened, and what to do next.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Which sort.
    pub kind: Kind,
    /// What happened, naming the thing and the reason.
    pub message: String,
    /// The next step, where there is one.
    pub hint: Option<String>,
    /// The commands that mend it, in order, as one would type them, where there are such.
    pub mend: Vec<String>,
    /// What this host uses the device for, where that is the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// Does somebody wait in the kernel for the device? Then whatever else is done to it waits as well.
    #[serde(skip)]
    pub is_stuck: bool,
    /// What it waits for, where a call into the kernel did not come back.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Box<Wait>>,
}

/// A call that waits in the kernel, and who else has to do with its device.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Wait {
    /// The process that was left behind with it.
    pub waiting_pid: Option<u32>,
    /// The kernel's functions that process is in, the innermost first; none where the kernel does not tell.
    pub waiting_in: Vec<String>,
    /// The processes that hold the device through VFIO.
    pub holders: Vec<Holder>,
    /// Other processes that wait in the kernel at an attribute of the device, or of a driver.
    pub waiters: Vec<Waiter>,
}

/// Sorts of failure. Each has an exit status.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing is at that address.
    NoDevice,
    /// It would do harm or cannot work.
    Unsafe,
    /// The driver named is not for this device.
    NotForDevice,
    /// The policy is about another device that was at this address.
    Identity,
    /// Another choice is kept for this device, by another tool or in another file.
    Conflict,
    /// What is required of the driver cannot be had here.
    Requirement,
    /// No VFIO driver matches.
    NoDriver,
    /// The kernel or the file system says the caller may not.
    Permission,
    /// A call did not come back in time.
    Timeout,
    /// A driver's module cannot be loaded.
    Module,
    /// A program that sets the device up failed; all is as before, but for what it left.
    Preparation,
    /// The kernel refused; all is as before.
    Failed,
    /// The user or the system wished to stop; all is as before.
    Interrupted,
    /// It failed, and so did putting things back.
    NotRestored,
}

impl Kind {
    /// The exit status for this sort.
    pub fn exit_status(self) -> u8 {
        match self {
            Kind::Failed | Kind::Interrupted | Kind::Module | Kind::Preparation => 1,
            Kind::NoDevice => 3,
            Kind::Unsafe | Kind::NotForDevice | Kind::Identity | Kind::Conflict | Kind::Requirement => 4,
            Kind::NoDriver => 5,
            Kind::Permission => 6,
            Kind::Timeout => 7,
            Kind::NotRestored => 8,
        }
    }

    /// Was nothing done on purpose?
    pub fn is_refusal(self) -> bool {
        matches!(
            self,
            Kind::NoDevice
                | Kind::Unsafe
                | Kind::NotForDevice
                | Kind::Identity
                | Kind::Conflict
                | Kind::Requirement
                | Kind::NoDriver
        )
    }
}

impl Failure {
    /// A failure with something to do about it.
    pub fn new(kind: Kind, message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..Failure::plain(kind, message) }
    }

    /// A failure that says all there is to say.
    pub fn plain(kind: Kind, message: impl Into<String>) -> Failure {
        Failure {
            kind,
            message: message.into(),
            hint: None,
            mend: Vec::new(),
            findings: Vec::new(),
            is_stuck: false,
            wait: None,
        }
    }

    /// A call into the kernel that did not come back.
    pub fn stuck(message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { is_stuck: true, ..Failure::new(Kind::Timeout, message, hint) }
    }

    /// The same failure, with the process that waits.
    pub fn waiting(self, pid: Option<u32>, within: &[String]) -> Failure {
        let wait = Wait { waiting_pid: pid, waiting_in: within.to_vec(), ..Wait::default() };
        Failure { wait: Some(Box::new(wait)), ..self }
    }

    /// The same failure, with the commands that mend it.
    pub fn mended_by(self, commands: &[String]) -> Failure {
        Failure { mend: commands.to_vec(), ..self }
    }
}

impl DeviceResult {
    /// The result for a device on `driver` to which nothing was done.
    pub fn unchanged(address: Address, driver: Option<DriverName>, persisted: bool) -> DeviceResult {
        DeviceResult {
            address,
            outcome: Outcome::Unchanged,
            driver: driver.clone(),
            previous_driver: driver,
            persisted,
            changed: false,
            diff: None,
            steps: Vec::new(),
            warnings: Vec::new(),
            error: None,
            prepared: Vec::new(),
        }
    }

    /// The same with how the device was and is, where that is not the same.
    pub fn compared(self, before: State, after: State) -> DeviceResult {
        match before == after {
            true => self,
            false => DeviceResult { changed: true, diff: Some(Diff { before, after }), ..self },
        }
    }

    /// The same with what becomes of the choice that is kept for the device: is there one then, and is it another?
    pub fn keeping(self, is_kept: bool, is_news: bool) -> DeviceResult {
        let changed = self.changed || is_news;
        let was = self.persisted;
        let diff = self.diff.clone().unwrap_or_default();
        let Diff { before, after } = diff;
        let before = State { persisted: Some(was), ..before };
        let after = State { persisted: Some(is_kept), ..after };
        DeviceResult { changed, ..self }.compared(before, after)
    }

    /// The exit status for this device.
    pub fn exit_status(&self) -> u8 {
        self.error.as_ref().map_or(0, |failure| failure.kind.exit_status())
    }
}
