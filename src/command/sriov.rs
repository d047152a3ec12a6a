// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl sriov`: PFs and their VFs, and how many there shall be.

use std::collections::BTreeMap;

use anyhow::Result;

use super::bind::{Binder, Preparing, Request};
use super::context::{Context, policy_view};
use super::list::PATIENCE;
use super::vfs::{Done, VfWork};
use crate::address::Address;
use crate::cli::{Force, Sriov};
use crate::gather;
use crate::names::Database;
use crate::outcome::{DeviceResult, Failure, Kind, Outcome};
use crate::plan::Manner;
use crate::policy::{Choice, Policy, PolicyError};
use crate::report::{self, PfView, SriovOutcome, SriovView, VfView};
use crate::sriov;
use crate::sysfs::{Device, Node, Pf, ReadError};

/// Shows PFs, or one with its VFs, or sets the number of its VFs.
pub fn run(context: &Context, options: &Sriov) -> Result<u8> {
    let Some(address) = options.pf else {
        let names = Database::open();
        let pfs = Pf::list(&context.host)?;
        let views = pfs.iter().map(|pf| pf_view(context, Some(&names), pf)).collect::<Result<Vec<_>, _>>()?;
        report::sriov_list(context.output, &views)?;
        return Ok(0);
    };
    let (pf, device) = match read(context, address) {
        Ok(found) => found,
        Err(failure) => return context.refuse("sriov", &failure),
    };
    match options.count {
        None => {
            context.unfinished(address);
            let (pf, vfs) = views(context, context.policy().0, &pf, true)?;
            report::sriov_show(context.output, &pf, &vfs)?;
            Ok(0)
        }
        Some(count) => set(context, &device, count, options),
    }
}

/// A PF that must be there.
pub fn read(context: &Context, address: Address) -> Result<(Pf, Device), Failure> {
    let device = context.device(address)?;
    match Pf::read(&context.host, address) {
        Ok(Some(pf)) => Ok((pf, device)),
        Ok(None) => Err(sriov::not_a_pf(&device)),
        Err(error) => Err(Failure::plain(Kind::Failed, format!("{address}: {error}"))),
    }
}

fn pf_view(context: &Context, names: Option<&Database>, pf: &Pf) -> Result<PfView, ReadError> {
    // All of the device would be read with its VFs.
    let modalias = Node::new(context.host.device(pf.address)).read_if_there("modalias")?;
    let modalias = modalias.and_then(|text| text.parse().ok());
    let name = names.zip(modalias).and_then(|(names, modalias)| names.look_up(&modalias).device);
    Ok(PfView {
        address: pf.address,
        name,
        driver: gather::driver_of(&context.host, pf.address)?,
        total_vfs: pf.range.total,
        num_vfs: pf.vfs.len(),
        autoprobe: pf.is_autoprobed,
        vf_vendor: pf.range.vendor.clone(),
        vf_device: pf.range.device.clone(),
    })
}

fn views(context: &Context, policy: &Policy, pf: &Pf, with_uses: bool) -> Result<(PfView, Vec<VfView>), ReadError> {
    let (mut vfs, mut errors) = gather::vfs(&context.host, pf, context.timeout.min(PATIENCE))?;
    if with_uses {
        errors.extend(gather::add_uses(&context.host, &mut vfs).err());
    }
    for error in &errors {
        context.output.warn(&error.to_string());
    }
    let vf_view = |vf: sriov::Vf| {
        let policy = policy_view(policy, &vf.device);
        VfView::new(vf, policy)
    };
    Ok((pf_view(context, Some(&Database::open()), pf)?, vfs.into_iter().map(vf_view).collect()))
}

/// All that is said of hundreds of VFs in a line: which drivers they are on, by what this run has seen last of each.
fn drivers(context: &Context, pf: &Pf, results: &[DeviceResult]) -> Result<(PfView, Vec<VfView>), ReadError> {
    let seen: BTreeMap<Address, &DeviceResult> = results.iter().map(|result| (result.address, result)).collect();
    let vf_view = |&(number, vf): &(u16, Address)| {
        let driver = match seen.get(&vf) {
            Some(result) => result.driver.clone(),
            None => gather::driver_of(&context.host, vf)?,
        };
        Ok(VfView::on_driver(number, vf, driver))
    };
    Ok((pf_view(context, None, pf)?, pf.vfs.iter().map(vf_view).collect::<Result<_, _>>()?))
}

/// Sets the number of VFs, and binds them.
fn set(context: &Context, device: &Device, count: u16, options: &Sriov) -> Result<u8> {
    context.take_signals();
    if context.is_dry_run {
        context.unfinished(device.address);
    }
    let chooser = context.chooser()?.with_modules();
    context.refuse_other_kernel(&chooser)?;
    let (_, errors) = context.policy();
    // What is left out may be about these very VFs, and the old ones would be gone.
    if let Some(error) = errors.iter().find(|error| matches!(error, PolicyError::Distrusted { .. })) {
        let failure = Failure::plain(Kind::Unsafe, format!("{}: {error}; nothing was touched", device.address));
        return context.refuse("sriov", &Failure { hint: error.hint(), ..failure });
    }
    let manner = Manner {
        any_driver: options.force.contains(&Force::Driver),
        take_over: options.force.contains(&Force::Vfio),
        acknowledged: Force::uses(&options.force),
        ..Manner::default()
    };
    let choice = options.driver.as_ref().map(|driver| Choice::parse(driver.as_str())).transpose()?;
    let request = choice.map(|choice| Request {
        choice,
        preparing: Preparing::AsKept,
        manner,
        is_saving: false,
        require: Vec::new(),
        must_be_vfio: true,
    });
    let binder = Binder { context, chooser, together: Vec::new() };
    let mut work = VfWork::new(context, binder, device.address, request, options.keep_going);
    let done = work.set(device, count, manner.acknowledged);
    context.progress.clear();
    let (mut earlier, mut earlier_failure) = (Vec::new(), None);
    if let Some(recovery) = context.recoveries.take(device.address) {
        for warning in &recovery.warnings {
            context.output.warn(&format!("{}: {warning}", device.address));
        }
        (earlier, earlier_failure) = (recovery.steps, recovery.failure);
    }
    let Done { previous, mut steps, mut result } = match done {
        Ok(done) => done,
        Err(failure) => return context.refuse("sriov", &failure),
    };
    steps.splice(0..0, earlier);
    let mut results = work.results;
    let is_untouched = |result: &DeviceResult| matches!(result.outcome, Outcome::Unchanged | Outcome::PutBack);
    let is_unchanged = count == previous && results.iter().all(is_untouched);
    // What is asked for can make good what failed.
    if let (true, Ok(()), Some(failure)) = (is_unchanged, &result, earlier_failure) {
        result = Err(failure);
    }
    if let Err(failure) = &mut result {
        // The VFs are as they were before this run; one that an earlier run has left half-way is not as it was before that.
        let mut errors = results.iter().filter_map(|result| result.error.as_ref());
        let left = errors.find(|error| error.kind == Kind::NotRestored);
        if let Some(left) = left.filter(|left| left.kind.exit_status() > failure.kind.exit_status()) {
            failure.kind = left.kind;
            failure.message = format!("{}; {}", failure.message, left.message);
        }
    }
    if result.is_err() {
        // What became of the others was undone.
        results.retain(|result| result.error.is_some());
    }
    let outcome = match &result {
        Err(failure) if failure.kind.is_refusal() => SriovOutcome::Refused,
        Err(_) => SriovOutcome::Failed,
        Ok(()) if context.is_dry_run => SriovOutcome::Planned,
        Ok(()) if count != previous && count == 0 => SriovOutcome::Removed,
        Ok(()) if count != previous => SriovOutcome::Made,
        Ok(()) if results.iter().any(|result| result.outcome != Outcome::Unchanged) => SriovOutcome::Bound,
        Ok(()) => SriovOutcome::Unchanged,
    };
    let status = match &result {
        Err(failure) => failure.kind.exit_status(),
        Ok(()) => results.iter().map(DeviceResult::exit_status).max().unwrap_or(0),
    };
    let now = Pf::read(&context.host, device.address).and_then(|pf| {
        match pf {
            Some(pf) if context.output.is_json => views(context, &context.policy_read().0, &pf, true),
            Some(pf) => drivers(context, &pf, &results),
            None => return Ok((None, Vec::new())),
        }
        .map(|(pf, vfs)| (Some(pf), vfs))
    });
    let (pf, vfs) = now.unwrap_or_else(|error| {
        context.output.warn(&error.to_string());
        (None, Vec::new())
    });
    let error = result.err();
    let view = SriovView { outcome, pf, vfs, previous_vfs: previous, steps, results, error };
    match report::sriov_set(context.output, &view) {
        // What became of the VFs counts for more than that it could not be shown.
        Err(error) if status > 0 => context.output.note(&format!("cannot write the results: {error}")),
        shown => shown?,
    }
    // A file of policy that could not be read may have been about any VF.
    Ok(if errors.is_empty() { status } else { status.max(1) })
}
