// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl apply`: at boot, by udev, or by hand.

use anyhow::Result;

use super::bind::{Binder, Preparing, Request, leave_to_driverctl};
use super::context::{Context, UsageError, distinct};
use crate::address::Address;
use crate::apply;
use crate::cli::Apply;
use crate::outcome::{DeviceResult, Failure, Kind};
use crate::plan::Manner;
use crate::policy::{self, Choice, Decision, Policy, Rule};
use crate::sysfs::Device;
use crate::unfinished::Unfinished;

/// How often a device may go and come again while it is worked on, until that is left to the next event.
const REINCARNATIONS: usize = 5;

/// Does what the policy says, to all devices or to those named.
pub fn run(mut context: Context, options: &Apply) -> Result<u8> {
    if let Some(directory) = &options.policy {
        if !context.is_dry_run {
            anyhow::bail!(UsageError("--policy without --dry-run: what is in force is in /etc/vfioctl.d".into()));
        }
        if !directory.is_dir() {
            anyhow::bail!(UsageError(format!("--policy {}: it is not a directory", directory.display())));
        }
        context.host = context.host.supposing(directory);
    }
    apply(&context, &options.addresses)
}

fn apply(context: &Context, addresses: &[Address]) -> Result<u8> {
    let (policy, errors) = context.policy();
    let mut has_errors = !errors.is_empty();
    // Whoever has edited the policy says so by applying it.
    if addresses.is_empty() && !context.is_dry_run {
        match context.write_udev_rules() {
            Ok(false) => {}
            Ok(true) => {
                if let Err(error) = policy::reload_rules(&context.host) {
                    context.output.warn(&format!("udev will see the policy's selectors only in some seconds: {error}"));
                }
            }
            Err(error) => {
                context.output.warn(&format!("{error:#}"));
                has_errors = true;
            }
        }
    }
    let (earlier, addresses) = match addresses {
        [] => {
            // First: it may make or remove VFs that the policy names.
            let earlier = put_back(context);
            (earlier, named_by(context, policy)?)
        }
        named => (Vec::new(), distinct(named)),
    };
    let mut results = apply_to(context, &addresses, Manner::default())?;
    for result in earlier {
        match results.iter_mut().find(|other| other.address == result.address) {
            Some(other) => {
                other.changed |= result.changed;
                other.steps.splice(0..0, result.steps);
                other.warnings.splice(0..0, result.warnings);
            }
            None => results.push(result),
        }
    }
    let status = context.conclude("apply", &results)?;
    // A rule that could not be read may have been about any device.
    Ok(if has_errors { status.max(1) } else { status })
}

/// Puts back what earlier runs were killed at, whatever the policy says of these devices.
fn put_back(context: &Context) -> Vec<DeviceResult> {
    let host = &context.host;
    // What somebody is at now will have come to its end when the device can be locked.
    let addresses = [Unfinished::addresses(host), policy::drafts(host)].concat();
    let mut results = context.each(&distinct(&addresses), |address| {
        if !context.is_dry_run {
            let observe = |address: Address, text: &str| context.observe(address, text);
            apply::put_back(&context.setting(&observe), address)?;
        }
        Ok(context.unchanged(address))
    });
    results.retain(|result| result.error.is_some() || !result.warnings.is_empty());
    results
}

/// Does what the policy says to these devices, in the manner given.
pub fn apply_to(context: &Context, addresses: &[Address], manner: Manner) -> Result<Vec<DeviceResult>> {
    let chooser = context.chooser()?.with_modules();
    context.refuse_other_kernel(&chooser)?;
    let binder = Binder { context, chooser, together: addresses.to_vec() };
    let apply = |address| {
        binder.bind(address, |device| {
            // Read again under the lock: an unbind that was faster has its way.
            decide_now(context, device, manner)
        })
    };
    Ok(context.each(addresses, |address| {
        let mut incarnation = Device::incarnation(&context.host, address);
        let mut result = apply(address);
        // A VF that was made anew meanwhile: systemd has merged its start of the unit into this one.
        for _ in 0..REINCARNATIONS {
            let now = Device::incarnation(&context.host, address);
            if now.is_none() || now == incarnation {
                break;
            }
            incarnation = now;
            result = apply(address);
        }
        let mut result = result.unwrap_or_else(|failure| context.untouched(address, failure));
        say_how_to_give_back(&mut result);
        context.take_again(&result);
        Ok(result)
    }))
}

/// A claimed device is out of its native driver's reach, also if its own driver cannot be had.
fn say_how_to_give_back(result: &mut DeviceResult) {
    let DeviceResult { address, driver: None, error: Some(failure), .. } = result else { return };
    if matches!(failure.kind, Kind::NoDevice | Kind::Identity | Kind::Conflict) {
        return;
    }
    let hint =
        format!("it is on no driver; 'vfioctl unbind --no-save {address}' gives it to its native driver for now");
    failure.hint = Some(match failure.hint.take() {
        Some(first) => format!("{first}; {hint}"),
        None => hint,
    });
}

/// The devices that the policy is about.
pub fn named_by(context: &Context, policy: &Policy) -> Result<Vec<Address>> {
    let devices = context.list()?;
    for rule in &policy.rules {
        if let Some(address) = rule.address().filter(|address| devices.iter().all(|device| device.address != *address))
        {
            context.output.warn(&format!("{}: no device {address} here", rule.file.display()));
        }
    }
    Ok(devices.iter().filter(|device| policy.decide(device).is_some()).map(|device| device.address).collect())
}

/// What the policy asks for a device whose lock is held; `None`: nothing.
pub fn decide_now(context: &Context, device: &Device, manner: Manner) -> Result<Option<Request>, Failure> {
    decide(context, context.policy_now(device.address).decide(device), device, manner)
}

/// What the policy asks for a device by what it has decided; `None`: nothing.
pub fn decide(
    context: &Context,
    decision: Option<Decision<'_>>,
    device: &Device,
    manner: Manner,
) -> Result<Option<Request>, Failure> {
    match decision {
        Some(Decision::Rule(rule)) => {
            // Both would have their way with it, in an order that nobody has chosen.
            leave_to_driverctl(context, device.address)?;
            Ok(Some(request(rule, manner)))
        }
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
fn request(rule: &Rule, manner: Manner) -> Request {
    let any_driver = matches!(rule.driver, Choice::Named(_));
    Request {
        choice: rule.driver.clone(),
        preparing: Preparing::OfRule(Box::new(rule.clone())),
        manner: Manner { any_driver, acknowledged: manner.acknowledged.and(rule.acknowledged), ..manner },
        is_saving: false,
        require: rule.require.clone(),
        must_be_vfio: false,
    }
}
