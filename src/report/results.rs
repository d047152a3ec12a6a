// SPDX-License-Identifier: MIT OR Apache-2.0
//! What became of the devices that were bound, given back or had their policy applied.

use std::io;

use serde::Serialize;

use super::{GOOD, Output, printable, styled};
use crate::kernel_name::DriverName;
use crate::outcome::{DeviceResult, Outcome, StepRecord};
use crate::policy::PolicyError;

#[derive(Serialize)]
struct Results<'a> {
    changed: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<LeftOut>,
    results: &'a [DeviceResult],
}

/// A file that was no part of the policy.
#[derive(Serialize)]
struct LeftOut {
    file: Option<String>,
    message: String,
    hint: Option<String>,
}

/// Shows them; warnings and failures go to standard error, where the policy's `errors` are already.
pub fn results(output: Output, command: &str, results: &[DeviceResult], errors: &[PolicyError]) -> io::Result<()> {
    if output.is_json {
        let left_out = |error: &PolicyError| LeftOut {
            file: error.path().map(|path| path.display().to_string()),
            message: error.to_string(),
            hint: error.hint(),
        };
        let changed = results.iter().any(|result| result.changed);
        let left_out = errors.iter().map(left_out).collect();
        return output.print_json(command, Results { changed, left_out, results });
    }
    for result in results {
        show(output, result)?;
    }
    Ok(())
}

/// Shows one.
pub fn show(output: Output, result: &DeviceResult) -> io::Result<()> {
    remarks(output, result);
    match &result.error {
        Some(_) => Ok(()),
        None => output.print(&text(result)),
    }
}

/// What goes to standard error.
pub fn remarks(output: Output, result: &DeviceResult) {
    for warning in &result.warnings {
        output.warn(&format!("{}: {warning}", result.address));
    }
    if let Some(failure) = &result.error {
        output.fail(failure);
    }
}

/// A property as udev's `IMPORT{program}` reads it (udev(7)), whatever the format of the rest.
pub fn udev_property(output: Output, key: &str, value: &str) -> io::Result<()> {
    output.print(&format!("{key}={value}\n"))
}

fn text(result: &DeviceResult) -> String {
    let address = result.address;
    let name = |driver: &Option<DriverName>| driver.as_ref().map_or("no driver".to_string(), DriverName::to_string);
    let was = match result.previous_driver == result.driver {
        true => String::new(),
        false => format!(" (was on {})", name(&result.previous_driver)),
    };
    let mut text = String::new();
    match result.outcome {
        Outcome::Planned if result.steps.is_empty() => {
            text.push_str(&format!("{address}: nothing to do, it is on {}\n", name(&result.driver)));
        }
        Outcome::Planned => {
            text.push_str(&format!("{address}: on {}; would\n", name(&result.driver)));
            for (number, step) in (1..).zip(&result.steps) {
                text.push_str(&step_text(number, step));
            }
        }
        Outcome::Bound => {
            let programs = result.steps.iter().rev().take_while(|step| !matches!(step.step, "unprepare" | "put-back"));
            let programs: Vec<_> = programs.filter(|step| step.step == "prepare" && step.done).collect();
            for step in programs.into_iter().rev() {
                let target = printable(step.target.as_deref().unwrap_or_default());
                let was = step.program.as_ref().is_some_and(|program| program.already);
                text.push_str(&format!(
                    "{address}: {} {target}\n",
                    if was { "already prepared:" } else { "prepared:" }
                ));
            }
            let own = result.steps.iter().rev().take_while(|step| step.step != "put-back");
            if let Some(step) = own.into_iter().find(|step| step.step == "bind") {
                let target = step.target.as_deref().unwrap_or_default();
                text.push_str(&format!("{address}: {} {}\n", printable(target), printable(&step.reason)));
            }
            let bound = match &result.driver {
                Some(driver) => format!("bound to {driver}"),
                None => "kept off all drivers".to_string(),
            };
            text.push_str(&format!("{address}: {}{was}{}\n", styled(GOOD, &bound), saved(result)));
        }
        Outcome::Claimed => {
            for step in &result.steps {
                let target = step.target.as_deref().unwrap_or_default();
                text.push_str(&format!("{address}: {}\n", styled(GOOD, &format!("claimed for {}", printable(target)))));
            }
        }
        Outcome::Unbound => {
            let back = format!("given back, on {}", name(&result.driver));
            text.push_str(&format!("{address}: {}{was}{}\n", styled(GOOD, &back), saved(result)));
        }
        Outcome::Unchanged => {
            text.push_str(&format!("{address}: unchanged, on {}{}\n", name(&result.driver), saved(result)))
        }
        Outcome::PutBack => {
            let back = format!("put back, on {}", name(&result.driver));
            text.push_str(&format!("{address}: {}{}\n", styled(GOOD, &back), saved(result)));
        }
        Outcome::Imported => {
            text.push_str(&format!("{address}: {}{}\n", styled(GOOD, "taken over from driverctl"), saved(result)));
        }
        Outcome::Refused | Outcome::Failed => {}
    }
    text
}

/// A step that would be taken.
pub fn step_text(number: usize, step: &StepRecord) -> String {
    let target = step.target.as_deref().map(|target| format!(" {target}")).unwrap_or_default();
    format!("  {number}. {}{}: {}\n", step.step, printable(&target), printable(&step.reason))
}

fn saved(result: &DeviceResult) -> String {
    match result.steps.iter().find(|step| step.done && matches!(step.step, "save" | "forget")) {
        Some(step) if step.step == "save" => {
            format!(", saved in {}", step.target.as_deref().unwrap_or_default())
        }
        Some(_) => ", choice forgotten".to_string(),
        None => String::new(),
    }
}
