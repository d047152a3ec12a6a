// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps as reports name them.

use std::path::Path;

use crate::address::Address;
use crate::host::Host;
use crate::outcome::{ProgramRecord, StepRecord};
use crate::plan::{Action, Step};
use crate::policy;
use crate::prepare::{Preparation, shown};

/// A step of a plan, not done yet.
pub fn step_record(step: &Step) -> StepRecord {
    let (name, target) = match &step.action {
        Action::Override(driver) => ("override", Some(driver.clone())),
        Action::ClearOverride => ("clear-override", None),
        Action::Unbind(driver) => ("unbind", Some(driver.to_string())),
        Action::Prepare(preparation) => ("prepare", Some(shown(&preparation.command))),
        Action::Unprepare(preparation) => ("unprepare", preparation.undo.as_ref().map(|undo| shown(undo))),
        Action::Load(module) => ("load", Some(module.to_string())),
        Action::LoadNative => ("load-native", None),
        Action::Bind(target) => ("bind", Some(target.name().to_string())),
        Action::Rebind(driver) => ("bind", Some(driver.to_string())),
        Action::Probe => ("probe", None),
    };
    let program = match &step.action {
        Action::Prepare(preparation) => Some(program(preparation, &preparation.command, preparation.undo.as_ref())),
        Action::Unprepare(preparation) => preparation.undo.as_ref().map(|undo| program(preparation, undo, None)),
        _ => None,
    };
    StepRecord { step: name, target, reason: step.reason.clone(), done: false, program }
}

fn program(preparation: &Preparation, command: &[String], undo: Option<&Vec<String>>) -> ProgramRecord {
    ProgramRecord {
        command: command.to_vec(),
        undo: undo.cloned(),
        already: preparation.is_done,
        exit_status: None,
        signal: None,
        timed_out: false,
        output: None,
    }
}

/// Keeping a choice, as a step.
pub fn save_record(host: &Host, address: Address) -> StepRecord {
    store_record(host, address, "save", "for 'vfioctl apply', at boot or by hand")
}

/// Forgetting one.
pub fn forget_record(host: &Host, address: Address) -> StepRecord {
    store_record(host, address, "forget", "no choice is kept")
}

/// Putting a file of driverctl's where that does not look for it.
pub fn set_aside_record(path: &Path) -> StepRecord {
    let name = policy::driverctl::aside(path).file_name().unwrap_or_default().to_string_lossy().into_owned();
    StepRecord {
        step: "set-aside",
        target: Some(path.display().to_string()),
        reason: format!("renamed to {name}, it is no longer looked for"),
        done: false,
        program: None,
    }
}

fn store_record(host: &Host, address: Address, step: &'static str, reason: &str) -> StepRecord {
    let path = policy::own_file(host, address);
    StepRecord {
        step,
        target: Some(path.display().to_string()),
        reason: reason.to_string(),
        done: false,
        program: None,
    }
}
