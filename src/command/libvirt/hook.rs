// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl libvirt hook`: before a domain starts, its devices are bound to what libvirt would take, so that libvirt leaves
//! them alone; when it has ended, they are given back to whom they were taken from.
//!
//! libvirt waits for it and prints its standard error where the start of a domain fails. It is called with what the domain
//! is at (`docs/hooks.rst` there); all but `prepare` and `release` is none of our business. What a hook prints at `migrate` and
//! `restore` would become the domain's XML, so nothing is printed.

use std::collections::BTreeSet;
use std::io;

use anyhow::Result;

use super::wanted::Wishes;
use crate::address::Address;
use crate::apply::{Job, lock_failure, put_back};
use crate::cli::libvirt::Hook;
use crate::command::apply;
use crate::command::bind::{self, Binder};
use crate::command::context::{Context, UsageError};
use crate::gather;
use crate::libvirt::{Domain, Held, HostDevice, State, StateError, Uuid, Version};
use crate::lock::DeviceLock;
use crate::outcome::{DeviceResult, Failure, Kind, Outcome};
use crate::plan::{self, Binding, Manner};
use crate::policy::{Decision, Policy};
use crate::prepare::Preparation;
use crate::report;
use crate::sysfs::{self, Device, Overrides};
use crate::unfinished::Unfinished;

/// Does what libvirt asks for.
pub fn run(context: &Context, options: &Hook) -> Result<u8> {
    let read = || super::read(io::stdin().lock(), "the domain's XML");
    let done = match (options.operation.as_str(), options.sub_operation.as_str()) {
        ("prepare", "begin") => read().and_then(|domain| prepare(context, domain, options.libvirt_version)),
        ("release", "end") => read().and_then(|domain| release(context, domain)),
        _ => {
            // What is not read would be a broken pipe to libvirt.
            io::copy(&mut io::stdin().lock(), &mut io::sink())?;
            Ok(0)
        }
    };
    done.or_else(|error| context.refuse("libvirt-hook", &error.downcast::<Failure>()?))
}

fn uuid_of(domain: &Domain) -> Result<Uuid> {
    Ok(domain.uuid.clone().ok_or_else(|| UsageError("the domain's XML has no <uuid>".to_string()))?)
}

fn prepare(context: &Context, domain: Domain, version: Option<Version>) -> Result<u8> {
    let devices: Vec<&HostDevice> = domain.devices.iter().filter(|device| device.other_backend.is_none()).collect();
    if devices.is_empty() && domain.uuid.is_none() {
        return Ok(0);
    }
    let uuid = uuid_of(&domain)?;
    let stale = forgiving(context, State::read(&context.host, &uuid));
    if devices.is_empty() && stale.is_none() {
        return Ok(0);
    }
    let stale = stale.map(|state| state.devices).unwrap_or_default();
    let addresses: Vec<Address> = devices.iter().map(|device| device.address).collect();
    let _locks = lock(context, addresses.iter().copied().chain(stale.iter().map(|held| held.address)))?;

    let chooser = context.chooser()?.with_modules();
    context.refuse_other_kernel(&chooser)?;
    let binder = Binder { context, chooser, together: addresses.clone() };
    let (policy, _) = context.policy();
    let (version, _) = super::version(context, version);
    let wishes = Wishes { binder: &binder, policy, version };
    let others = others(context, &uuid);

    // A domain that ended without our hearing of it; what it had and does not ask for now goes back.
    let (again, left): (Vec<Held>, Vec<Held>) = stale.into_iter().partition(|held| addresses.contains(&held.address));
    let given_back = give_back(context, &binder, policy, &others, &left);
    let left: Vec<Held> = left.into_iter().filter(|held| is_left_over(held, &given_back, |_| true)).collect();
    let mut state = State { uuid: uuid.clone(), name: domain.name.unwrap_or_default(), devices: Vec::new() };
    for address in &addresses {
        state.devices.push(look(context, *address, &again)?);
    }
    state.devices.extend(left.iter().cloned());
    // Written before anything is done: should this process be killed, `release` knows what there is to put back.
    if !context.is_dry_run {
        state.write(&context.host)?;
    }
    let mut results = context.each(&addresses, |address| {
        let asked = devices.iter().find(|device| device.address == address).expect("one of the domain's devices");
        binder.bind(address, |device| wishes.of(asked, device).map(|wish| Some(wish.request)))
    });
    for (held, result) in state.devices.iter_mut().zip(&results).filter(|(_, result)| result.error.is_none()) {
        let elsewhere = others.iter().filter_map(|other| other.held(held.address, held.incarnation));
        let earlier: Vec<&Held> = again.iter().chain(elsewhere).collect();
        let taken = (result.outcome == Outcome::Bound).then_some(result.prepared.as_slice());
        held.settle(result.driver.clone(), taken, &earlier);
    }
    if results.iter().any(|result| result.error.is_some()) && !context.is_dry_run {
        let is_taken = |held: &Held, result: &DeviceResult| result.error.is_none() || again.iter().any(|a| a == held);
        let taken = state.devices.iter().zip(&results).filter(|(held, result)| is_taken(held, result));
        let taken: Vec<Held> = taken.map(|(held, _)| held.clone()).filter(|held| held.before.is_some()).collect();
        let back = give_back(context, &binder, policy, &others, &taken);
        // Whatever else failed was put back at once.
        let is_stuck = |failure: &Failure| failure.kind == Kind::NotRestored || failure.is_stuck;
        state.devices.retain(|held| {
            left.contains(held) || is_left_over(held, &back, |_| true) || is_left_over(held, &results, is_stuck)
        });
        results.extend(back);
    }
    if !context.is_dry_run {
        keep(context, &state)?;
    }
    // That an earlier domain's device cannot be given back is no reason against this one's start.
    for result in &given_back {
        report::remarks(context.output, result);
    }
    conclude(context, &results)
}

fn release(context: &Context, domain: Domain) -> Result<u8> {
    let uuid = uuid_of(&domain)?;
    let state = State::read(&context.host, &uuid)?;
    let is_held = |address| state.iter().flat_map(|state| &state.devices).any(|held| held.address == address);
    // libvirt calls no hook when a device is plugged in, and lists it when the domain has ended.
    let plugged = domain.devices.iter().filter(|device| device.is_managed && device.other_backend.is_none());
    let plugged: Vec<Address> = plugged.map(|device| device.address).filter(|&address| !is_held(address)).collect();
    if state.is_none() && plugged.is_empty() {
        return Ok(0);
    }
    let mut state = state.unwrap_or(State { uuid, name: String::new(), devices: Vec::new() });
    let uuid = state.uuid.clone();
    let mut addresses: Vec<Address> = state.devices.iter().map(|held| held.address).collect();
    addresses.extend(&plugged);
    let _locks = lock(context, addresses.iter().copied())?;
    let chooser = context.chooser()?.with_modules();
    context.refuse_other_kernel(&chooser)?;
    let binder = Binder { context, chooser, together: addresses.clone() };
    let (policy, _) = context.policy();
    let others = others(context, &uuid);
    let mut results = give_back(context, &binder, policy, &others, &state.devices);
    results.extend(apply_again(context, &binder, policy, &others, &plugged));
    if !context.is_dry_run {
        // What could not be given back is tried again when the domain is started next.
        state.devices.retain(|held| is_left_over(held, &results, |_| true));
        keep(context, &state)?;
    }
    conclude(context, &results)
}

/// Is a device neither as the domain wants it nor as it was before? So it is where something failed, in a way that `is_so`.
fn is_left_over(held: &Held, results: &[DeviceResult], is_so: impl Fn(&Failure) -> bool) -> bool {
    let result = results.iter().find(|result| result.address == held.address);
    result.and_then(|result| result.error.as_ref()).is_some_and(is_so)
}

fn keep(context: &Context, state: &State) -> Result<(), StateError> {
    match state.devices.is_empty() {
        true => State::remove(&context.host, &state.uuid),
        false => state.write(&context.host),
    }
}

/// Says what went wrong, and nothing else, unless one looks on.
fn conclude(context: &Context, results: &[DeviceResult]) -> Result<u8> {
    if context.is_dry_run || context.output.is_json {
        return context.conclude("libvirt-hook", results);
    }
    for result in results {
        report::remarks(context.output, result);
    }
    Ok(results.iter().map(DeviceResult::exit_status).max().unwrap_or(0))
}

/// A state that cannot be read is lost: that is said, and keeps no domain from starting.
fn forgiving(context: &Context, state: Result<Option<State>, StateError>) -> Option<State> {
    state.unwrap_or_else(|error| {
        context.output.warn(&format!("{error}: what it says is not given back"));
        None
    })
}

fn others(context: &Context, uuid: &Uuid) -> Vec<State> {
    let (others, errors) = State::of_others(&context.host, Some(uuid));
    for error in errors {
        context.output.warn(&error.to_string());
    }
    others
}

/// Two domains that want one device come one after the other, and in the same order to all of their devices.
fn lock(context: &Context, addresses: impl Iterator<Item = Address>) -> Result<Vec<DeviceLock>> {
    if context.is_dry_run {
        return Ok(Vec::new());
    }
    let addresses: BTreeSet<Address> = addresses.collect();
    let take = |address| {
        DeviceLock::take_for_domain(&context.host, address, context.timeout)
            .map_err(|error| lock_failure(address, error))
    };
    Ok(addresses.into_iter().map(take).collect::<Result<_, Failure>>()?)
}

/// How a device is before it is taken. What a domain has taken earlier and never gave back was another's before that.
fn look(context: &Context, address: Address, again: &[Held]) -> Result<Held> {
    let incarnation = Device::incarnation(&context.host, address);
    if let Some(held) = again.iter().find(|held| held.address == address && held.incarnation == incarnation) {
        if held.before.is_some() {
            return Ok(held.clone());
        }
    }
    // What an earlier run was killed at is put back before anything else is done.
    let killed = Unfinished::abandoned(&context.host, address).filter(|found| found.incarnation == incarnation);
    if let Some(before) = killed.and_then(|found| found.before()) {
        return Ok(Held { address, incarnation, driver: None, before: Some(before), prepared: Vec::new() });
    }
    let driver = gather::driver_of(&context.host, address)?;
    let driver_override = Overrides::new(&context.host, context.timeout)
        .read(address)
        .map_err(|error| bind::held(&context.host, address, error))?;
    let before = Some(Binding { driver, driver_override });
    Ok(Held { address, incarnation, driver: None, before, prepared: Vec::new() })
}

/// Gives back what was taken, but for what another domain has by now.
fn give_back(
    context: &Context,
    binder: &Binder<'_>,
    policy: &Policy,
    others: &[State],
    devices: &[Held],
) -> Vec<DeviceResult> {
    let is_there = |held: &&Held| {
        held.incarnation.is_some() && Device::incarnation(&context.host, held.address) == held.incarnation
    };
    let is_free = |held: &&Held| others.iter().all(|other| other.held(held.address, held.incarnation).is_none());
    let devices: Vec<&Held> = devices.iter().filter(is_there).filter(is_free).collect();
    let addresses: Vec<Address> = devices.iter().map(|held| held.address).collect();
    context.each(&addresses, |address| {
        let held = devices.iter().find(|held| held.address == address).expect("one of these devices");
        give_one_back(context, binder, policy, held).or_else(|failure| match failure.kind.is_refusal() {
            // Somebody has it, or it went away meanwhile: then it is not ours to give.
            true => {
                Ok(DeviceResult { warnings: vec![format!("not given back: {failure}")], ..context.unchanged(address) })
            }
            false => Err(failure),
        })
    })
}

fn give_one_back(
    context: &Context,
    binder: &Binder<'_>,
    policy: &Policy,
    held: &Held,
) -> Result<DeviceResult, Failure> {
    let address = held.address;
    // Half-way it is neither as it was left nor as anybody else has made it.
    if !context.is_dry_run && Unfinished::abandoned(&context.host, address).is_some() {
        let observe = |address: Address, text: &str| context.observe(address, text);
        put_back(&context.setting(&observe), address)?;
    }
    let device = context.device(address)?;
    let is_as_left = held.driver.is_none() || device.driver == held.driver;
    match &held.before {
        Some(before) if is_as_left => restore(context, address, before, &held.prepared),
        None if is_as_left => Ok(context.unchanged(address)),
        // libvirt has given it to its native driver, with the override cleared, and so without what is kept for it.
        _ => match policy.decide(&device) {
            Some(Decision::Rule(_)) => {
                binder.bind(address, |device| apply::decide_now(context, device, Manner::default()))
            }
            _ => Ok(context.unchanged(address)),
        },
    }
}

/// Does what is kept for devices that libvirt has bound by itself and given to their native drivers.
fn apply_again(
    context: &Context,
    binder: &Binder<'_>,
    policy: &Policy,
    others: &[State],
    addresses: &[Address],
) -> Vec<DeviceResult> {
    let is_given_away = |address: &&Address| {
        let incarnation = Device::incarnation(&context.host, **address);
        let is_free = others.iter().all(|other| other.held(**address, incarnation).is_none());
        let is_kept = context.device(**address).is_ok_and(|device| policy.decide(&device).is_some());
        is_free && is_kept && Device::is_vfio_device(&context.host, **address).is_ok_and(|is_vfio| !is_vfio)
    };
    let addresses: Vec<Address> = addresses.iter().filter(is_given_away).copied().collect();
    context.each(&addresses, |address| {
        binder.bind(address, |device| apply::decide_now(context, device, Manner::default()))
    })
}

fn restore(
    context: &Context,
    address: Address,
    before: &Binding,
    prepared: &[Preparation],
) -> Result<DeviceResult, Failure> {
    let is_registered = before.driver.as_ref().is_none_or(|driver| sysfs::is_registered(&context.host, driver));
    let plan = || {
        let facts = gather::facts(&context.host, context.device(address)?, context.timeout)
            .map_err(|error| bind::held(&context.host, address, error))?;
        let steps = plan::give_back_to(&facts, before, prepared, is_registered)?;
        Ok::<_, Failure>((facts, steps))
    };
    if context.is_dry_run {
        let (facts, steps) = plan()?;
        return Ok(context.planned(address, &Binding::from(&facts), &steps, Vec::new()));
    }
    let observe = |address: Address, text: &str| context.observe(address, text);
    let setting = context.setting(&observe);
    let job = Job::start(&setting, address)?;
    let (facts, steps) = plan()?;
    Ok(job.unbind(&facts, &steps, false, Vec::new()))
}
