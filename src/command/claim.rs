// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl claim`: before any driver is loaded, `driver_override` is set wherever the policy is about a device, so that no
//! native driver ever touches it. `apply` binds it.

use anyhow::Result;

use super::apply::{decide, named_by};
use super::bind::{Binder, held};
use super::context::Context;
use crate::address::Address;
use crate::apply::Job;
use crate::cli;
use crate::gather;
use crate::outcome::{DeviceResult, Failure, Kind, State};
use crate::plan::{self, Action, Binding, Facts, Manner, Step, Wanted};
use crate::policy::{Decision, Policy};
use crate::report;
use crate::sysfs::{Device, VfRange};

/// Claims every device that the policy is about and no driver has; or tells udev about one.
pub fn run(context: &Context, options: &cli::Claim) -> Result<u8> {
    let (policy, errors) = context.policy();
    if let Some(address) = options.udev {
        return tell_udev(context, policy, address);
    }
    let mut status = u8::from(!errors.is_empty());
    if !context.is_dry_run {
        // Without them the devices that come later are found by nobody but `apply`. udev reads them when it starts: it must
        // not be waited for, since it waits for us.
        if let Err(error) = context.write_udev_rules() {
            context.output.warn(&format!("{error:#}"));
            status = 1;
        }
    }
    let addresses = named_by(context, policy)?;
    let binder = Binder { context, chooser: context.chooser()?.with_modules(), together: addresses.clone() };
    context.refuse_other_kernel(&binder.chooser)?;
    let results = context.each(&addresses, |address| claim(&binder, address));
    Ok(status.max(context.conclude("claim", &results)?))
}

fn claim(binder: &Binder<'_>, address: Address) -> Result<DeviceResult, Failure> {
    let context = binder.context;
    context.device(address)?;
    let observe = |address: Address, text: &str| context.observe(address, text);
    let setting = context.setting(&observe);
    let job = if context.is_dry_run { None } else { Some(Job::start(&setting, address)?) };
    let device = context.device(address)?;
    if let Some(driver) = &device.driver {
        let warnings = vec![format!("{driver} has it already: that is for 'vfioctl apply'")];
        return Ok(DeviceResult { warnings, ..context.unchanged(address) });
    }
    let Some(Claim { facts, steps, warnings }) = look(binder, context.policy_now(address).decide(&device), device)?
    else {
        return Ok(context.unchanged(address));
    };
    Ok(match job {
        Some(job) => job.claim(&facts, &steps, warnings),
        // The override was not read.
        None => {
            let before = State { driver_override: None, ..State::from(&Binding::from(&facts)) };
            let after = plan::foresee(&before, &steps);
            context.planned_from(address, (before, after), &steps, warnings)
        }
    })
}

/// What there is to do before a driver comes.
struct Claim {
    facts: Facts,
    steps: Vec<Step>,
    warnings: Vec<String>,
}

/// `None`: no rule is about the device.
fn look(binder: &Binder<'_>, decision: Option<Decision<'_>>, device: Device) -> Result<Option<Claim>, Failure> {
    let Some(request) = decide(binder.context, decision, &device, Manner::default())? else {
        return Ok(None);
    };
    let (wanted, doubts) = match binder.wanted(&device, &request) {
        // What is required may be there once the PF is up. Until then no driver is to have the device, a native one least of
        // all.
        Err(failure) if failure.kind == Kind::Requirement => (Wanted::NoDriver, vec![failure.message]),
        wanted => wanted?,
    };
    let address = device.address;
    // What the override is now does not matter, and on older kernels reading it can wait for a probe.
    let facts = gather::surroundings(&binder.context.host, device, None)
        .map_err(|error| held(&binder.context.host, address, error))?;
    let facts = gather::with_users(&binder.context.host, facts, &binder.together)
        .map_err(|error| held(&binder.context.host, address, error))?;
    let mut plan = plan::bind(&facts, &wanted, request.manner)?;
    plan.warnings.extend(doubts);
    Ok(Some(Claim { facts, steps: plan::claim(&plan), warnings: plan.warnings }))
}

/// For `IMPORT{program}`: whether native drivers are to keep off, and the driver to be written, if no driver has the device
/// yet. The unit that the rule also starts does the rest, and says what is wrong where something is.
fn tell_udev(context: &Context, policy: &Policy, address: Address) -> Result<u8> {
    match claimed_for(context, policy, address) {
        Ok(None) => Ok(0),
        Ok(Some(driver)) => {
            report::udev_property(context.output, "VFIOCTL_CLAIMED", "1")?;
            if let Some(driver) = driver {
                report::udev_property(context.output, "VFIOCTL_DRIVER", &driver)?;
            }
            Ok(0)
        }
        Err(failure) => context.refuse("claim", &failure),
    }
}

/// `None`: the device is not claimed; `Some(None)`: a VFIO driver has it.
fn claimed_for(context: &Context, policy: &Policy, address: Address) -> Result<Option<Option<String>>, Failure> {
    let failed = |error: &dyn std::fmt::Display| Failure::plain(Kind::Failed, format!("{address}: {error}"));
    let mut device = context.device(address)?;
    if device.driver.is_some() {
        // Or it is being probed by one: then the override comes too late.
        let is_vfio_device = Device::is_vfio_device(&context.host, address).map_err(|error| failed(&error))?;
        return Ok(is_vfio_device.then_some(None));
    }
    // A VF that has just been announced is not linked to its PF yet.
    if device.pf.is_none() {
        device.pf = VfRange::pf_of(&context.host, address).map_err(|error| failed(&error))?;
    }
    let chooser = context.chooser().map_err(|error| failed(&error))?;
    let binder = Binder { context, chooser: chooser.with_modules(), together: vec![address] };
    let step = look(&binder, policy.decide(&device), device)?.and_then(|claim| claim.steps.into_iter().next());
    Ok(step.and_then(|step| match step.action {
        Action::Override(driver) => Some(Some(driver)),
        _ => None,
    }))
}
