// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl apply`: at boot, by udev, or by hand.

use anyhow::Result;

use super::bind::{Binder, Request, refuse_other_kernel};
use super::context::{Context, distinct};
use crate::address::Address;
use crate::outcome::{DeviceResult, Failure, Kind};
use crate::plan::Manner;
use crate::policy::{Choice, Decision, Policy, Rule};
use crate::sysfs;

/// Does what the policy says, to all devices or to those named.
pub fn run(context: &Context, addresses: &[Address]) -> Result<u8> {
    let (policy, has_errors) = context.policy();
    let addresses = match addresses {
        [] => named_by(context, &policy)?,
        named => distinct(named),
    };
    let chooser = context.chooser()?;
    refuse_other_kernel(context, &chooser)?;
    let binder = Binder::new(context, chooser);
    let results = context.each(&addresses, |address| apply(context, &binder, &policy, address));
    let status = context.conclude("apply", &results)?;
    // A rule that could not be read may have been about any device.
    Ok(if has_errors { status.max(1) } else { status })
}

/// The devices that the policy is about.
fn named_by(context: &Context, policy: &Policy) -> Result<Vec<Address>> {
    let devices = sysfs::list(&context.host)?;
    for rule in &policy.rules {
        if let Some(address) = rule.address().filter(|address| devices.iter().all(|device| device.address != *address))
        {
            context.output.warn(&format!("{}: no device {address} here", rule.file.display()));
        }
    }
    Ok(devices.iter().filter(|device| policy.decide(device).is_some()).map(|device| device.address).collect())
}

fn apply(context: &Context, binder: &Binder<'_>, policy: &Policy, address: Address) -> Result<DeviceResult, Failure> {
    let device = context.device(address)?;
    match policy.decide(&device) {
        Some(Decision::Rule(rule)) => binder.bind(address, &request(rule)),
        Some(Decision::OtherDevice(rule)) => Err(Failure::new(
            Kind::Identity,
            format!(
                "{address}: {} is about {}, but {}:{} is there now: it was left alone",
                rule.file.display(),
                rule.id().map_or("another device".to_string(), |id| format!("device {id}")),
                device.modalias.vendor(),
                device.modalias.device()
            ),
            format!(
                "'vfioctl bind {address}' to take this one instead, 'vfioctl unbind {address}' to forget the other"
            ),
        )),
        None => {
            let warnings = vec!["no policy names this device".to_string()];
            Ok(DeviceResult { warnings, ..context.unchanged(address) })
        }
    }
}

/// A driver that the policy names was the administrator's decision already: it is not asked for again.
fn request(rule: &Rule) -> Request {
    let is_forced = matches!(rule.driver, Choice::Named(_));
    Request {
        choice: rule.driver.clone(),
        manner: Manner { is_strict: false, is_forced },
        is_saving: false,
        is_vfio: false,
    }
}
