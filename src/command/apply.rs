// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl apply`: at boot, by udev, or by hand.

use anyhow::Result;

use super::bind::{Binder, Request};
use super::context::{Context, distinct};
use crate::address::Address;
use crate::outcome::{Failure, Kind};
use crate::plan::Manner;
use crate::policy::{self, Choice, Decision, Policy, Rule};
use crate::sysfs::Device;

/// Does what the policy says, to all devices or to those named.
pub fn run(context: &Context, addresses: &[Address]) -> Result<u8> {
    let (policy, has_errors) = context.policy();
    let addresses = match addresses {
        [] => named_by(context, &policy)?,
        named => distinct(named),
    };
    let chooser = context.chooser()?.with_modules();
    context.refuse_other_kernel(&chooser)?;
    let binder = Binder { context, chooser, together: &addresses };
    let results = context.each(&addresses, |address| {
        binder.bind(address, |device| {
            // Read again under the lock: an unbind that was faster has its way.
            let (policy, _) = Policy::read(&context.host);
            decide(context, &policy, device)
        })
    });
    let status = context.conclude("apply", &results)?;
    // A rule that could not be read may have been about any device.
    Ok(if has_errors { status.max(1) } else { status })
}

/// The devices that the policy is about.
fn named_by(context: &Context, policy: &Policy) -> Result<Vec<Address>> {
    let devices = context.list()?;
    for rule in &policy.rules {
        if let Some(address) = rule.address().filter(|address| devices.iter().all(|device| device.address != *address))
        {
            context.output.warn(&format!("{}: no device {address} here", rule.file.display()));
        }
    }
    Ok(devices.iter().filter(|device| policy.decide(device).is_some()).map(|device| device.address).collect())
}

fn decide(context: &Context, policy: &Policy, device: &Device) -> Result<Option<Request>, Failure> {
    match policy.decide(device) {
        Some(Decision::Rule(rule)) => Ok(Some(request(rule))),
        Some(Decision::OtherDevice(rule)) => {
            let address = device.address;
            Err(Failure::new(
                Kind::Identity,
                format!("{address}: {}: it was left alone", rule.mismatch(device)),
                match policy::has_own_file(&context.host, address) {
                    true => format!(
                        "'vfioctl bind {address}' to take this one instead, 'vfioctl unbind {address}' to forget the other"
                    ),
                    false => format!("mend the rule in {}", rule.file.display()),
                },
            ))
        }
        None => Ok(None),
    }
}

/// A driver that the policy names was the administrator's decision already: it is not asked for again.
fn request(rule: &Rule) -> Request {
    let any_driver = matches!(rule.driver, Choice::Named(_));
    Request {
        choice: rule.driver.clone(),
        manner: Manner { any_driver, ..Manner::default() },
        is_saving: false,
        must_be_vfio: false,
    }
}
