// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl unbind`.

use anyhow::Result;

use super::bind::held;
use super::context::{Context, distinct};
use crate::address::Address;
use crate::apply::{Job, forget_record, store_failure};
use crate::cli::Unbind;
use crate::gather::{self, Chooser};
use crate::guard::Uses;
use crate::kernel_name::DriverName;
use crate::modules;
use crate::outcome::{DeviceResult, Failure, Kind, Outcome, State};
use crate::plan::{self, Action, Binding, Facts, Step, Target};
use crate::policy::{self, Decision};
use crate::sysfs::Device;
use crate::target;

/// Gives devices back.
pub fn run(context: &Context, options: &Unbind) -> Result<u8> {
    let request = Request {
        driver: options.driver.clone(),
        is_forgetting: !options.no_save,
        is_unprobed: false,
        acknowledged: options.force.iter().copied().collect(),
    };
    let results = unbind_all(context, &distinct(&options.addresses), &request)?;
    context.conclude("unbind", &results)
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// To this driver, not to the kernel's own choice.
    pub driver: Option<DriverName>,
    /// Is the choice that is kept to be forgotten?
    pub is_forgetting: bool,
    /// Is the device to be left on no driver, for whoever probes it next?
    pub is_unprobed: bool,
    /// What this host may lose with it.
    pub acknowledged: Uses,
}

/// Does to each of these devices what is asked for.
pub fn unbind_all(context: &Context, addresses: &[Address], request: &Request) -> Result<Vec<DeviceResult>> {
    let chooser = context.chooser()?.with_modules();
    context.refuse_other_kernel(&chooser)?;
    Ok(context.each(addresses, |address| unbind(context, &chooser, (address, addresses), request)))
}

fn unbind(
    context: &Context,
    chooser: &Chooser<'_>,
    (address, together): (Address, &[Address]),
    request: &Request,
) -> Result<DeviceResult, Failure> {
    let is_forgetting = request.is_forgetting && policy::has_own_file(&context.host, address);
    match context.device(address) {
        Err(failure) if failure.kind == Kind::NoDevice && is_forgetting => {
            return forget_absent(context, address, failure);
        }
        Err(failure) => return Err(failure),
        Ok(_) => {}
    }
    let target = request.driver.as_ref().map(|driver| target::resolve(&context.host, chooser, driver)).transpose()?;
    if context.is_dry_run {
        let (facts, steps, warnings) = plan(context, (address, together), target.as_ref(), request)?;
        let mut result = planned(context, &chooser.tables.release, &facts, &steps, warnings)?;
        if is_forgetting {
            result.steps.push(forget_record(&context.host, address));
            result = result.keeping(false, true);
        }
        return Ok(result);
    }
    if is_forgetting {
        policy::check_forgettable(&context.host, address).map_err(|error| {
            let mut failure = store_failure(address, &error);
            failure.message.push_str("; nothing was touched");
            failure
        })?;
    }
    let observe = |address: Address, text: &str| context.observe(address, text);
    let setting = context.setting(&observe);
    let job = Job::start(&setting, address)?;
    let (facts, steps, warnings) = plan(context, (address, together), target.as_ref(), request)?;
    let is_given_away = !request.is_forgetting && policy::has_own_file(&context.host, address);
    let store = |error: std::io::Error| {
        let path = context.host.given_away(address);
        Failure::plain(
            Kind::Failed,
            format!("{address}: cannot write {}: {error}; nothing was touched", path.display()),
        )
    };
    // Before the first event that says so.
    if is_given_away {
        policy::give_away(&context.host, address).map_err(store)?;
    }
    let mut result = job.unbind(&facts, &steps, request.is_forgetting, warnings);
    if result.error.is_some() && is_given_away {
        context.forget_given_away(address);
    }
    if result.error.is_none() {
        result.warnings.extend(remarks(context, &facts.device, &result, request));
    }
    Ok(result)
}

fn plan(
    context: &Context,
    (address, together): (Address, &[Address]),
    target: Option<&Target>,
    request: &Request,
) -> Result<(Facts, Vec<Step>, Vec<String>), Failure> {
    let device = context.device(address)?;
    let facts = gather::facts_but_users(&context.host, device, context.timeout)
        .and_then(|facts| gather::with_users(&context.host, facts, together))
        .map_err(|error| held(&context.host, address, error))?;
    let mut steps = plan::unbind(&facts, target, request.acknowledged)?;
    if request.is_unprobed {
        steps.retain(|step| !matches!(step.action, Action::LoadNative | Action::Probe));
    }
    let mut warnings = Vec::new();
    if let Some(driver) = facts.device.driver.as_ref().filter(|_| facts.is_vfio_device && steps.is_empty()) {
        warnings.push(format!("driver {driver} has made it a VFIO device by itself: it was left alone"));
    }
    Ok((facts, steps, warnings))
}

/// What `--dry-run` has to say. That a device on no driver is probed changes nothing where there is no driver for it.
fn planned(
    context: &Context,
    release: &str,
    facts: &Facts,
    steps: &[Step],
    warnings: Vec<String>,
) -> Result<DeviceResult, Failure> {
    let address = facts.device.address;
    let before = State::from(&Binding::from(facts));
    let mut after = plan::foresee(&before, steps);
    if facts.device.driver.is_none() && after.driver.is_none() {
        let has_native = modules::may_have_native(&context.host, release, &facts.device.modalias);
        if !has_native.map_err(|error| Failure::plain(Kind::Failed, format!("{address}: {error}")))? {
            after.driver = Some(None);
        }
    }
    Ok(context.planned_from(address, (before, after), steps, warnings))
}

/// What the user may not expect after a device was given back.
fn remarks(context: &Context, before: &Device, result: &DeviceResult, request: &Request) -> Vec<String> {
    let mut remarks = Vec::new();
    let is_expecting = result.outcome == Outcome::Unbound && before.driver.is_some() && !request.is_unprobed;
    if is_expecting && result.driver.is_none() {
        remarks.push(format!(
            "no native driver took it; if there is one, the kernel log may say why: dmesg | grep {}",
            before.address
        ));
    }
    let policy = context.policy_now(before.address);
    match policy.decide(before) {
        Some(Decision::Rule(rule)) => remarks.push(format!(
            "{} still names it: 'vfioctl apply' gives it driver {} again",
            rule.file.display(),
            rule.driver
        )),
        Some(Decision::OtherDevice(rule)) => remarks.push(rule.mismatch(before)),
        None => {}
    }
    if let Some(path) = policy::driverctl::claim(&context.host, before.address) {
        remarks.push(format!("driverctl still keeps an override for it in {}", path.display()));
    }
    remarks
}

fn forget_absent(context: &Context, address: Address, absent: Failure) -> Result<DeviceResult, Failure> {
    let warning = format!("{}; the choice that was kept for it is forgotten", absent.message);
    let mut result = DeviceResult { warnings: vec![warning], ..context.unchanged(address) };
    if context.is_dry_run {
        result.outcome = Outcome::Planned;
        result.steps.push(forget_record(&context.host, address));
        return Ok(result.keeping(false, true));
    }
    policy::forget(&context.host, address).map_err(|error| store_failure(address, &error))?;
    result.outcome = Outcome::Unbound;
    result = result.keeping(false, true);
    result.persisted = false;
    Ok(result)
}
