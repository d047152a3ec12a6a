// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl unbind`.

use anyhow::Result;

use super::bind::{Binder, refuse_other_kernel};
use super::context::{Context, distinct};
use crate::address::Address;
use crate::apply::{self, Job};
use crate::cli::Unbind;
use crate::gather;
use crate::outcome::{DeviceResult, Failure, Kind, Outcome};
use crate::plan::{self, Step};
use crate::policy::{self, Decision};
use crate::sysfs::Device;

/// Gives devices back.
pub fn run(context: &Context, options: &Unbind) -> Result<u8> {
    let chooser = context.chooser()?;
    refuse_other_kernel(context, &chooser)?;
    let binder = Binder::new(context, chooser);
    let addresses = distinct(&options.addresses);
    let results = context.each(&addresses, |address| unbind(context, &binder, address, options));
    context.conclude("unbind", &results)
}

fn unbind(context: &Context, binder: &Binder<'_>, address: Address, options: &Unbind) -> Result<DeviceResult, Failure> {
    let target = options.driver.as_ref().map(|driver| binder.resolve(driver)).transpose()?;
    let plan = || -> Result<(Device, Vec<Step>, Vec<String>), Failure> {
        let device = context.device(address)?;
        let unreadable = |error| Failure::plain(Kind::Failed, format!("{address}: {error}"));
        let facts = gather::facts(&context.host, device).map_err(unreadable)?;
        let steps = plan::unbind(&facts, target.as_ref())?;
        let mut warnings = Vec::new();
        if let Some(driver) = facts.device.driver.as_ref().filter(|_| facts.is_vfio_device && steps.is_empty()) {
            warnings.push(format!("driver {driver} has made it a VFIO device by itself: it was left alone"));
        }
        Ok((facts.device, steps, warnings))
    };
    if context.is_dry_run {
        let (device, steps, warnings) = plan()?;
        let mut result = context.planned(&device, &steps, warnings);
        if result.persisted && !options.no_save {
            result.steps.push(apply::forget_record(&context.host, address));
        }
        return Ok(result);
    }
    // A choice for a device that is gone can be forgotten all the same.
    if let (Err(failure), true) = (context.device(address), policy::has_own_file(&context.host, address)) {
        if !options.no_save {
            return forget_absent(context, address, failure);
        }
    }
    context.device(address)?;
    let observe = |address: Address, text: &str| context.observe(address, text);
    let job = Job::start(&context.host, address, context.timeout, &observe)?;
    let (device, steps, warnings) = plan()?;
    let mut result = job.unbind(&device, &steps, !options.no_save, warnings);
    if result.outcome == Outcome::Unbound {
        result.warnings.extend(remarks(context, &device, &result));
    }
    Ok(result)
}

/// What the user may not expect after a device was given back.
fn remarks(context: &Context, before: &Device, result: &DeviceResult) -> Vec<String> {
    let mut remarks = Vec::new();
    if result.driver.is_none() && before.driver.is_some() {
        remarks.push("no native driver took it: none that this kernel has loaded knows the device".to_string());
    }
    let (policy, _) = context.policy();
    if let Some(Decision::Rule(rule)) = policy.decide(before) {
        remarks.push(format!(
            "{} still names it: 'vfioctl apply' gives it driver {} again",
            rule.file.display(),
            rule.driver
        ));
    }
    remarks
}

fn forget_absent(context: &Context, address: Address, failure: Failure) -> Result<DeviceResult, Failure> {
    let mut result = context.untouched(address, failure);
    match policy::forget(&context.host, address) {
        Ok(_) => {
            result.outcome = Outcome::Unbound;
            result.persisted = false;
            result.error = None;
            result.warnings.push("the device is not there; the choice kept for it is forgotten".to_string());
            Ok(result)
        }
        Err(error) => Err(Failure::plain(Kind::Failed, format!("{address}: {error}"))),
    }
}
