// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl import-driverctl`: what driverctl keeps becomes policy.
//!
//! Per device the policy is written first, then driverctl's file is set aside. While both are there the device is
//! driverctl's: our `apply` leaves it alone. Stopped in between, the next import finds the policy written and does the rest.

use anyhow::{Context as _, Result};

use super::context::Context;
use super::driverctl::means_the_best;
use crate::address::Address;
use crate::apply::{lock_failure, save_record, set_aside_record, store_failure};
use crate::gather::Chooser;
use crate::guard::Uses;
use crate::kernel_name::DriverName;
use crate::lock::DeviceLock;
use crate::outcome::{DeviceResult, Failure, Kind, Outcome};
use crate::policy::driverctl::{self, Override};
use crate::policy::{self, Choice, Decision, Draft, Policy, PolicyError, Rule, Terms};
use crate::report::{self, Import};
use crate::sysfs::{Device, ReadError};
use crate::target;
use crate::verdict::{self, Candidate};

/// Takes over what driverctl keeps, or says what that would be.
pub fn run(context: &Context, is_asked_for: bool) -> Result<u8> {
    let directory = context.host.driverctl_directory();
    let (overrides, left) =
        driverctl::read(&context.host).with_context(|| format!("cannot read {}", directory.display()))?;
    // What a file says that cannot be read as policy is not known, nor whether it is about one of these devices.
    context.policy();
    let chooser = context.chooser()?.with_modules();
    let is_doing = is_asked_for && !context.is_dry_run;
    let imports: Vec<Import> =
        overrides.iter().map(|found| import(context, &chooser, found, is_doing)).collect::<Result<_, _>>()?;
    report::imports(context.output, &imports, &left)?;
    context.remind_of_initramfs(imports.iter().map(|import| &import.result));
    if imports.is_empty() {
        context.output.note(&format!("{} has nothing to take over", directory.display()));
    } else if !is_doing && imports.iter().any(|import| import.result.error.is_none()) {
        context.output.note("nothing was changed: 'vfioctl import-driverctl --yes' does it");
    }
    Ok(imports.iter().map(|import| import.result.exit_status()).max().unwrap_or(0))
}

fn import(context: &Context, chooser: &Chooser<'_>, found: &Override, is_doing: bool) -> Result<Import, ReadError> {
    let address = found.address;
    let device = Device::read(&context.host, address)?;
    let candidates = device.as_ref().map(|device| chooser.for_device(device)).transpose()?;
    let (choice, mut warnings) = translate(context, chooser, found, device.as_ref(), candidates.as_deref());
    let best = candidates.as_deref().and_then(verdict::chosen).map(|best| best.name().to_string());
    let result = take_over(context, found, device.as_ref(), &choice, is_doing);
    let mut result = result.unwrap_or_else(|failure| context.untouched(address, failure));
    if result.error.is_none() {
        result.warnings.append(&mut warnings);
    }
    Ok(Import { overridden: found.driver.clone(), choice, best, result })
}

/// The choice that an override is, and what should be known of it.
fn translate(
    context: &Context,
    chooser: &Chooser<'_>,
    found: &Override,
    device: Option<&Device>,
    candidates: Option<&[Candidate]>,
) -> (Choice, Vec<String>) {
    let (address, driver) = (found.address, &found.driver);
    let mut warnings = Vec::new();
    if device.is_none() {
        warnings
            .push("no such device is here now, so the choice is kept for whatever will be at its address".to_string());
    }
    if means_the_best(driver) {
        match candidates.map(verdict::chosen) {
            Some(Some(best)) if best.name() != "vfio-pci" => warnings.push(format!(
                "{driver} becomes the best VFIO driver, now {}; 'vfioctl bind --driver vfio-pci {address}' keeps vfio-pci",
                best.name()
            )),
            Some(None) => warnings.push("no VFIO driver of this kernel can be used for it".to_string()),
            Some(Some(_)) | None => {}
        }
        return (Choice::Auto, warnings);
    }
    if *driver == DriverName::none() {
        return (Choice::None, warnings);
    }
    // As typed, where nothing better is known.
    let mut named = driver.clone();
    match candidates.and_then(|candidates| target::among(candidates, chooser, driver)) {
        Some((target, doubt)) => {
            named = target.driver.unwrap_or(named);
            warnings.extend(doubt);
        }
        None => match target::resolve(&context.host, chooser, driver) {
            Ok(target) => {
                let check = device.zip(candidates).map(|(device, candidates)| {
                    match target.is_vfio || chooser.lists_vfio_devices(&target) {
                        true => Err(target::not_for_device(device, &target, candidates)),
                        false => target::check_native(&context.host, chooser, device, &target),
                    }
                });
                warnings.extend(check.and_then(Result::err).map(|failure| without_address(address, &failure)));
                named = target.driver.unwrap_or(named);
            }
            Err(failure) => warnings.push(without_address(address, &failure)),
        },
    }
    (Choice::Named(named), warnings)
}

/// A failure's words, where the address stands before them already.
fn without_address(address: Address, failure: &Failure) -> String {
    failure.message.replace(&format!("{address}: "), "")
}

fn take_over(
    context: &Context,
    found: &Override,
    device: Option<&Device>,
    choice: &Choice,
    is_doing: bool,
) -> Result<DeviceResult, Failure> {
    let (host, address) = (&context.host, found.address);
    let _lock = match is_doing {
        true => Some(DeviceLock::take(host, address, context.timeout).map_err(|error| lock_failure(address, error))?),
        false => None,
    };
    let is_written = check_policy(context, found, device, choice)?;
    let mut save = save_record(host, address);
    save.reason = match device {
        Some(device) => {
            format!("driver = \"{choice}\" for {}:{} here", device.modalias.vendor(), device.modalias.device())
        }
        None => format!("driver = \"{choice}\""),
    };
    let mut steps = if is_written { Vec::new() } else { vec![save] };
    steps.push(set_aside_record(&found.path));
    let mut result = DeviceResult { steps, outcome: Outcome::Planned, ..context.unchanged(address) };
    result.changed = true;
    if !is_doing {
        return Ok(result);
    }

    let failed = |error: &policy::StoreError| {
        let mut failure = store_failure(address, error);
        failure.hint = None;
        failure.message.push_str("; driverctl keeps the device");
        failure
    };
    if !is_written {
        // The file that is written outranks the rule that would have counted without driverctl: what that has run, it has too.
        let (policy, errors) = Policy::read(host);
        if let Some(error) = errors.iter().find(|error| matches!(error, PolicyError::Distrusted { .. })) {
            let failure = Failure::plain(Kind::Unsafe, format!("{address}: {error}; driverctl keeps the device"));
            return Err(Failure { hint: error.hint(), ..failure });
        }
        let rule = match device.and_then(|device| policy.decide(device)) {
            Some(Decision::Rule(rule)) if *choice != Choice::None => Some(rule),
            _ => None,
        };
        let recipe = rule.and_then(Rule::recipe);
        // A driver that was named was so whatever it gives.
        let require = rule.filter(|_| *choice == Choice::Auto).map_or(&[][..], |rule| &rule.require);
        let acknowledged = rule.map_or(Uses::NONE, |rule| rule.acknowledged);
        let terms = Terms { driver: choice, require, acknowledged, recipe };
        let draft = Draft::import(host, address, device.map(|device| &device.modalias), terms);
        draft.and_then(Draft::commit).map_err(|error| failed(&error))?;
    }
    if let Err(error) = driverctl::set_aside(&found.path) {
        let mut failure = failed(&error);
        // As it was: two claims on one device are none.
        if !is_written {
            if let Err(second) = policy::forget(host, address) {
                failure.kind = Kind::NotRestored;
                failure.message = format!("{}; and {second}", failure.message);
            }
        }
        return Err(failure);
    }
    for step in &mut result.steps {
        step.done = true;
    }
    result.outcome = Outcome::Imported;
    result.persisted = policy::has_own_file(host, address);
    Ok(result)
}

/// Does the policy say the same already, as after an import that was stopped half-way? Anything else that it says of this
/// one device is for the administrator to choose from.
fn check_policy(
    context: &Context,
    found: &Override,
    device: Option<&Device>,
    choice: &Choice,
) -> Result<bool, Failure> {
    let address = found.address;
    let conflict = |message: String| {
        Failure::new(
            Kind::Conflict,
            format!("{address}: {message}, and {} another choice: both were left as they are", found.path.display()),
            "remove the file that is not wanted, then try again",
        )
    };
    let (policy, _) = Policy::read(&context.host);
    let rule = policy.rules.iter().rev().find(|rule| rule.address() == Some(address));
    let is_about_another = device.is_some_and(|device| matches!(policy.decide(device), Some(Decision::OtherDevice(_))));
    match rule {
        Some(rule) if rule.driver == *choice && !is_about_another => Ok(true),
        Some(rule) => Err(conflict(format!("{} has driver {} for it", rule.file.display(), rule.driver))),
        None if policy::own_file(&context.host, address).symlink_metadata().is_ok() => Err(conflict(format!(
            "{} is there, and is no rule for it",
            policy::own_file(&context.host, address).display()
        ))),
        None => Ok(false),
    }
}
