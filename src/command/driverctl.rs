// SPDX-License-Identifier: MIT OR Apache-2.0
//! driverctl's verbs, put in the terms of our own.

use std::collections::BTreeMap;

use anyhow::Result;

use super::context::{Context, UsageError};
use super::list::PATIENCE;
use super::{apply, bind, unbind};
use crate::address::Address;
use crate::class::ClassFilter;
use crate::cli::driverctl::{Driverctl, Listed, Options, Verb};
use crate::guard::Uses;
use crate::kernel_name::DriverName;
use crate::names::Database;
use crate::outcome::{DeviceResult, Failure, Kind};
use crate::plan::Manner;
use crate::policy::{self, Choice, Decision};
use crate::report;
use crate::sysfs::{Device, Overrides};

/// Does what a user of driverctl has typed.
pub fn run(mut context: Context, driverctl: &Driverctl) -> Result<u8> {
    let Driverctl { verb, options } = driverctl;
    context.output.is_verbose |= options.debug;
    let context = &context;
    if context.output.is_json {
        anyhow::bail!(UsageError("driverctl's verbs print what driverctl does; vfioctl's own have --json".to_string()));
    }
    let bus = verb.device().map_or(options.bus.as_str(), |device| device.bus(&options.bus));
    if bus != "pci" {
        anyhow::bail!("bus {bus}: vfioctl is for PCI devices; driverctl itself knows other buses");
    }
    let address = verb.device().map(|device| device.address()).transpose();
    let address = address.map_err(|error| UsageError(error.to_string()))?;
    match (verb, address) {
        (Verb::SetOverride { driver, .. }, Some(address)) => set_override(context, address, driver, options),
        (Verb::UnsetOverride { .. }, Some(address)) => unset_override(context, address, options),
        (Verb::LoadOverride { .. }, Some(address)) => load_override(context, address, options),
        (Verb::ListDevices(listed), _) => list_devices(context, listed, false),
        (Verb::ListOverrides(listed), _) => list_devices(context, listed, true),
        (Verb::ListPersisted, _) => list_persisted(context),
        (_, None) => unreachable!("the other verbs are about a device"),
    }
}

/// Does this name, in either spelling, stand for the best VFIO driver?
pub fn means_the_best(driver: &DriverName) -> bool {
    driver.is_spelled_like("vfio-pci")
}

fn set_override(context: &Context, address: Address, driver: &DriverName, options: &Options) -> Result<u8> {
    let choice = if means_the_best(driver) { Choice::Auto } else { Choice::parse(driver.as_str())? };
    let is_best = choice == Choice::Auto;
    let manner = Manner { is_unprobed: options.noprobe, ..Manner::default() };
    let request = bind::Request {
        choice,
        preparing: bind::Preparing::AsKept,
        manner,
        is_saving: !options.nosave,
        require: Vec::new(),
        must_be_vfio: false,
    };
    let results = bind::bind_all(context, &[address], &request)?;
    for result in results.iter().filter(|result| is_best && result.error.is_none() && !context.is_dry_run) {
        if let Some(best) = result.driver.as_ref().filter(|best| best.as_str() != "vfio-pci") {
            context.output.note(&format!("{address}: {driver} stands for the best VFIO driver, here {best}"));
        }
    }
    conclude(context, &results, options)
}

fn unset_override(context: &Context, address: Address, options: &Options) -> Result<u8> {
    let request = unbind::Request {
        driver: None,
        is_forgetting: !options.nosave,
        is_unprobed: options.noprobe,
        acknowledged: Uses::NONE,
    };
    conclude(context, &unbind::unbind_all(context, &[address], &request)?, options)
}

fn load_override(context: &Context, address: Address, options: &Options) -> Result<u8> {
    let (policy, _) = context.policy();
    let device = match context.device(address) {
        Ok(device) => device,
        Err(failure) => return context.refuse("driverctl", &failure),
    };
    // driverctl fails here as well.
    if policy.decide(&device).is_none() {
        let failure = Failure::new(
            Kind::Failed,
            format!("{address}: no override is kept for it"),
            "'driverctl set-override' keeps one; 'vfioctl import-driverctl' takes over what driverctl keeps",
        );
        return context.refuse("driverctl", &failure);
    }
    let manner = Manner { is_unprobed: options.noprobe, ..Manner::default() };
    conclude(context, &apply::apply_to(context, &[address], manner)?, options)
}

/// driverctl prints nothing when all is well.
fn conclude(context: &Context, results: &[DeviceResult], options: &Options) -> Result<u8> {
    if context.is_dry_run {
        return context.conclude("driverctl", results);
    }
    for result in results {
        report::remarks(context.output, result);
        if options.noprobe && result.error.is_none() && result.driver.is_none() {
            let step = result.steps.iter().rev().find(|step| step.step == "override");
            let then =
                step.and_then(|step| step.target.as_ref()).map(|driver| format!(", and then for {driver} alone"));
            let text = format!("on no driver until it is probed{}", then.unwrap_or_default());
            context.output.note(&format!("{}: {text}", result.address));
        }
    }
    context.remind_of_initramfs(results.iter());
    Ok(results.iter().map(DeviceResult::exit_status).max().unwrap_or(0))
}

fn list_devices(context: &Context, listed: &Listed, only_overridden: bool) -> Result<u8> {
    let class: Option<ClassFilter> = match listed.kind.as_str() {
        "all" => None,
        kind => Some(kind.parse().map_err(UsageError)?),
    };
    let is_wanted = |device: &Device| class.as_ref().is_none_or(|class| class.matches(&device.modalias.class()));
    let mut reader = Overrides::new(&context.host, PATIENCE);
    let (devices, mut overrides) = context.list_with_overrides(&mut reader, is_wanted)?;
    if devices.is_empty() {
        anyhow::bail!("no PCI devices in {}", context.host.devices().display());
    }
    let names = context.output.is_verbose.then(Database::open);
    let mut lines = Vec::new();
    for device in &devices {
        let Some(read) = overrides.remove(&device.address) else { continue };
        let driver_override = read.unwrap_or_else(|error| {
            context.output.warn(&error.to_string());
            None
        });
        let is_overridden = driver_override.is_some_and(|text| !text.is_empty());
        if only_overridden && !is_overridden {
            continue;
        }
        let mut line = format!("{} {}", device.address, device.driver.as_ref().map_or("(none)", DriverName::as_str));
        if is_overridden && !only_overridden {
            line.push_str(" [*]");
        }
        if let Some(names) = &names {
            line.push_str(&format!(" ({})", names.look_up(&device.modalias).model.unwrap_or_default()));
        }
        lines.push(line);
    }
    report::lines(context.output, &lines)?;
    Ok(0)
}

/// What the policy says of single devices and of those that are here.
fn list_persisted(context: &Context) -> Result<u8> {
    let (policy, _) = context.policy();
    let mut kept: BTreeMap<Address, String> = BTreeMap::new();
    // A later rule wins.
    for rule in &policy.rules {
        if let Some(address) = rule.address() {
            kept.insert(address, spelled(&rule.driver));
        }
    }
    for device in context.list()? {
        match policy.decide(&device) {
            Some(Decision::Rule(rule)) => drop(kept.insert(device.address, spelled(&rule.driver))),
            Some(Decision::OtherDevice(rule)) => {
                kept.remove(&device.address);
                context.output.warn(&format!("{}: {}: not listed", device.address, rule.mismatch(&device)));
            }
            None => {}
        }
    }
    let lines: Vec<String> = kept.iter().map(|(address, driver)| format!("{address} {driver}")).collect();
    report::lines(context.output, &lines)?;
    let directory = context.host.driverctl_directory();
    match policy::driverctl::read(&context.host) {
        Ok((overrides, _)) if !overrides.is_empty() => context.output.warn(&format!(
            "{} has {} more, which are driverctl's own: 'vfioctl import-driverctl' takes them over",
            directory.display(),
            overrides.len()
        )),
        Ok(_) => {}
        Err(error) => context.output.warn(&format!("cannot read {}: {error}", directory.display())),
    }
    Ok(0)
}

/// A choice as driverctl would have kept it.
fn spelled(choice: &Choice) -> String {
    match choice {
        Choice::Auto => "vfio-pci".to_string(),
        choice => choice.to_string(),
    }
}
