// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl probe`: what a bound, idle device can do.

use anyhow::Result;
use rustix::io::Errno;
use uuid::Uuid;

use super::bind::held;
use super::context::{Context, UsageError};
use crate::address::Address;
use crate::apply::lock_failure;
use crate::cli::Probe;
use crate::gather;
use crate::kernel_name::ModuleName;
use crate::lock::DeviceLock;
use crate::modules;
use crate::outcome::{Failure, Kind};
use crate::plan::Facts;
use crate::report::{self, ProbeView};
use crate::vfio::features::Features;
use crate::vfio::nodes::Nodes;
use crate::vfio::open::{Refused, Step, Way};
use crate::vfio::prober::{self, ProbeError};
use crate::vfio::refusal;

/// Asks one device.
pub fn run(context: &Context, options: &Probe) -> Result<u8> {
    if !context.host.is_this_machine() && !context.is_dry_run {
        anyhow::bail!(UsageError(format!(
            "--root {}: only devices of the kernel that runs here can be asked; --dry-run says what would be opened",
            context.host.root().display()
        )));
    }
    context.take_signals();
    match probe(context, options.address, options.vf_token) {
        Ok(view) => {
            report::probe(context.output, &view)?;
            Ok(0)
        }
        Err(failure) => context.refuse("probe", &failure),
    }
}

fn probe(context: &Context, address: Address, token: Option<Uuid>) -> Result<ProbeView, Failure> {
    // A device that is not there needs no lock, nor root, to be told so.
    context.device(address)?;
    let _lock = match context.is_dry_run {
        true => None,
        false => {
            let lock = DeviceLock::take(&context.host, address, context.timeout);
            Some(lock.map_err(|error| lock_failure(address, error))?)
        }
    };
    // Only now, under the lock, is what is read what counts.
    let facts = facts(context, address)?;
    refusal::check(&facts, token.is_some())?;
    let nodes = Nodes::of(&context.host, facts.device.iommu_group, &facts.vfio_devices);
    let way = Way::choose(&nodes, address, token).ok_or_else(|| refusal::no_nodes(&facts))?;
    let features = match context.is_dry_run {
        true => None,
        false => Some(ask(context, &facts, &way)?),
    };
    Ok(ProbeView::new(&facts.device, &way, features))
}

fn ask(context: &Context, facts: &Facts, way: &Way) -> Result<Features, Failure> {
    let address = facts.device.address;
    context.output.warn(&format!("{address}: opening it resets it, and so does letting go of it"));
    let [node, iommu] = way.nodes();
    context.observe(address, &format!("open {} and {}", node.display(), iommu.display()));
    let mut result = prober::probe(way, context.timeout);
    if matches!(&result, Err(ProbeError::Refused(refused)) if lacks_iommu(refused)) {
        load_iommu(context, address)?;
        result = prober::probe(way, context.timeout);
    }
    match result {
        Ok(features) => {
            if context.output.is_verbose {
                for error in &features.errors {
                    context.output.note(&format!("{address}: {}: {}", error.feature, error.error));
                }
            }
            Ok(features)
        }
        // Who has it is known only now: it had not been opened before.
        Err(ProbeError::Refused(refused)) => Err(refusal::failure(&self::facts(context, address)?, way, refused)),
        Err(error @ ProbeError::TimedOut { .. }) => Err(refusal::timed_out(facts, &error)),
        Err(ProbeError::Process(error)) => {
            let message = format!("{address}: the process that opens the device: {error}");
            Err(Failure::plain(Kind::Failed, message))
        }
    }
}

fn facts(context: &Context, address: Address) -> Result<Facts, Failure> {
    gather::facts(&context.host, context.device(address)?, context.timeout)
        .map_err(|error| held(&context.host, address, error))
}

/// The container has no IOMMU driver: its module is a soft dependency of `vfio`, which some modprobes leave out.
fn lacks_iommu(refused: &Refused) -> bool {
    refused.step == Step::SetIommu && refused.errno == Errno::NODEV.raw_os_error()
}

fn load_iommu(context: &Context, address: Address) -> Result<(), Failure> {
    let module: ModuleName = "vfio_iommu_type1".parse().expect("a constant name");
    context.observe(address, &format!("load {module}: a container has no IOMMU without it"));
    modules::load(&context.host, &module, context.timeout).map_err(|error| {
        Failure::new(
            Kind::Module,
            format!("{address}: a container has no IOMMU without module {module}: {error}"),
            format!("modprobe {module}"),
        )
    })
}
