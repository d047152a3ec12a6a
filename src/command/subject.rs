// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl match` and `vfioctl explain`: what fits a device, or a modalias in place of one.

use anyhow::Result;

use super::context::Context;
use crate::cli::Subject;
use crate::gather::Chooser;
use crate::matcher::{Modalias, OddityKind};
use crate::outcome::{Failure, Kind};
use crate::plan;
use crate::report;
use crate::sysfs::Device;
use crate::verdict::{self, Candidate, Position};

/// A subject with what matches it.
struct Found {
    device: Option<Device>,
    modalias: Modalias,
    candidates: Vec<Candidate>,
    release: String,
    /// Lines that look meant for a device, but can match none.
    lower_case: Vec<String>,
}

impl Found {
    fn best(&self) -> Option<Candidate> {
        match &self.device {
            Some(device) => plan::best(device, &self.candidates),
            None => verdict::chosen(&self.candidates).cloned(),
        }
    }

    fn exit_status(&self, context: &Context) -> u8 {
        if self.best().is_some() {
            return 0;
        }
        let failure = match &self.device {
            Some(device) if device.is_bridge() => {
                Failure::plain(Kind::NoDriver, format!("{} is a bridge: no VFIO driver takes one", device.address))
            }
            _ => Failure::new(
                Kind::NoDriver,
                format!("no VFIO driver of kernel {} can be used for {}", self.release, self.modalias.as_str()),
                "see 'vfioctl drivers' for what this kernel has",
            ),
        };
        context.output.fail(&failure);
        failure.kind.exit_status()
    }
}

fn find(context: &Context, subject: &Subject, chooser: Chooser<'_>) -> Result<Result<Found, Failure>> {
    let (device, modalias, candidates) = match (subject.address, &subject.modalias) {
        (Some(address), _) => {
            let device = match context.device(address) {
                Ok(device) => device,
                Err(failure) => return Ok(Err(failure)),
            };
            let candidates = chooser.for_device(&device)?;
            (Some(device.clone()), device.modalias, candidates)
        }
        (None, Some(modalias)) => (None, modalias.clone(), chooser.candidates(modalias, &Position::Unknown)?),
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let tables = chooser.tables;
    let lower_case = tables
        .table
        .oddities
        .iter()
        .filter(|oddity| oddity.kind == OddityKind::LowerCaseHex)
        .map(|oddity| format!("{}:{}: {}: {}", oddity.source, oddity.line, oddity.kind, oddity.text))
        .collect();
    Ok(Ok(Found { device, modalias, candidates, release: tables.release, lower_case }))
}

/// Prints the best driver's name.
pub fn run_match(context: &Context, subject: &Subject) -> Result<u8> {
    let found = match find(context, subject, context.chooser()?)? {
        Ok(found) => found,
        Err(failure) => return Ok(refuse(context, &failure)),
    };
    let best = found.best();
    if let Some(best) = best.as_ref().filter(|best| best.driver.is_none()) {
        context
            .output
            .warn(&format!("{} is the module's name: the driver's is known once the module is loaded", best.module));
    }
    report::show_match(
        context.output,
        found.device.as_ref().map(|d| d.address),
        found.modalias.as_str(),
        best.as_ref(),
    )?;
    Ok(found.exit_status(context))
}

/// Shows all that matches, and why.
pub fn run_explain(context: &Context, subject: &Subject) -> Result<u8> {
    let found = match find(context, subject, context.chooser()?.with_modules())? {
        Ok(found) => found,
        Err(failure) => return Ok(refuse(context, &failure)),
    };
    if !context.output.is_verbose {
        for line in &found.lower_case {
            context.output.warn(line);
        }
    }
    report::explain(
        context.output,
        found.device.as_ref().map(|device| device.address),
        found.modalias.as_str(),
        &found.release,
        found.best().as_ref(),
        &found.candidates,
    )?;
    Ok(found.exit_status(context))
}

fn refuse(context: &Context, failure: &Failure) -> u8 {
    context.output.fail(failure);
    failure.kind.exit_status()
}
