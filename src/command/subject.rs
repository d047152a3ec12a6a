// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl match` and `vfioctl explain`: what fits a device, or a modalias in place of one.

use anyhow::Result;

use super::context::Context;
use crate::address::Address;
use crate::cli::Subject;
use crate::consumers;
use crate::gather::Chooser;
use crate::matcher::{Modalias, OddityKind};
use crate::outcome::{Failure, Kind};
use crate::report;
use crate::sysfs::Device;
use crate::verdict::{self, Candidate};

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
    /// Why there is no best driver.
    fn failure(&self) -> Failure {
        let subject = self.subject();
        let message = format!("no VFIO driver of kernel {} can be used for {subject}", self.release);
        let argument = if self.device.is_some() { subject } else { format!("--modalias {subject}") };
        Failure::new(Kind::NoDriver, message, format!("'vfioctl explain {argument}' says why"))
    }

    fn subject(&self) -> String {
        self.device.as_ref().map_or(self.modalias.as_str().to_string(), |device| device.address.to_string())
    }

    fn address(&self) -> Option<Address> {
        self.device.as_ref().map(|device| device.address)
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
        (None, Some(modalias)) => (None, modalias.clone(), chooser.for_modalias(modalias)?),
        (None, None) => unreachable!("clap asks for one of them"),
    };
    let tables = chooser.tables;
    let lower_case = tables
        .table
        .oddities
        .iter()
        .filter(|oddity| oddity.kind == OddityKind::LowerCaseHex)
        .map(|oddity| oddity.to_string())
        .collect();
    Ok(Ok(Found { device, modalias, candidates, release: tables.release, lower_case }))
}

/// Prints the best driver's name.
pub fn run_match(context: &Context, subject: &Subject) -> Result<u8> {
    let found = match find(context, subject, context.chooser()?)? {
        Ok(found) => found,
        Err(failure) => return context.refuse("match", &failure),
    };
    let best = verdict::chosen(&found.candidates);
    if let Some(best) = best.filter(|best| best.driver.is_none()) {
        context
            .output
            .warn(&format!("{} is the module's name: the driver's is known once the module is loaded", best.module));
    }
    report::show_match(context.output, found.address(), found.modalias.as_str(), best)?;
    if best.is_none() {
        context.output.fail(&found.failure());
    }
    Ok(exit_status(best))
}

/// Shows all that matches, and why.
pub fn run_explain(context: &Context, subject: &Subject) -> Result<u8> {
    let found = match find(context, subject, context.chooser()?.with_modules())? {
        Ok(found) => found,
        Err(failure) => return context.refuse("explain", &failure),
    };
    if !context.output.is_verbose {
        for line in &found.lower_case {
            context.output.warn(line);
        }
    }
    let best = verdict::chosen(&found.candidates);
    let (modalias, release) = (found.modalias.as_str(), found.release.as_str());
    let warnings = match (&found.device, best) {
        (Some(device), Some(best)) => consumers::remarks(&context.host, device, best.name()),
        _ => Vec::new(),
    };
    report::explain(context.output, found.address(), modalias, release, best, &found.candidates, &warnings)?;
    Ok(exit_status(best))
}

fn exit_status(best: Option<&Candidate>) -> u8 {
    if best.is_some() { 0 } else { Kind::NoDriver.exit_status() }
}
