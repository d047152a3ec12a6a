// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl show`.

use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;

use super::context::{Context, policy_view};
use crate::address::Address;
use crate::class;
use crate::gather;
use crate::names::Database;
use crate::outcome::Kind;
use crate::plan::Facts;
use crate::report::{self, Blocker, DeviceView, GroupView, ShowView};
use crate::sysfs::{Overrides, stuck};
use crate::verdict;
use crate::vfio::nodes::Nodes;

/// How long a device whose lock is held is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Shows everything about one device.
pub fn run(context: &Context, address: Address) -> Result<u8> {
    let device = match context.device(address) {
        Ok(device) => device,
        Err(failure) => return context.refuse("show", &failure),
    };
    let candidates = context.chooser()?.with_modules().for_device(&device)?;
    let (policy, _) = context.policy();
    let names = Database::open().look_up(&device.modalias);
    let best = verdict::chosen(&candidates).map(|candidate| Rc::from(candidate.name()));
    let pf_driver = match device.pf {
        Some(pf) => gather::driver_of(&context.host, pf)?,
        None => None,
    };
    let class_name = names.class.unwrap_or_else(|| class::name(&device.modalias.class()).to_string());
    let policy = policy_view(policy, &device);
    let (driver_override, is_locked) = driver_override(context, address)?;
    let facts = gather::with_users(&context.host, gather::surroundings(&context.host, device, driver_override)?, &[])?;
    let view = DeviceView::new(&facts.device, facts.driver_override.clone(), names.device.map(Rc::from), best, policy)
        .with_unfinished(context.unfinished(address));
    // A sibling's driver may have opened the group of a device that is on none.
    let nodes = match facts.is_vfio_device {
        true => Nodes::of(&context.host, facts.device.iommu_group, &facts.vfio_devices),
        false => Nodes::default(),
    };
    let group = facts.group.as_ref().map(|group| GroupView {
        number: group.number,
        kind: group.kind.clone(),
        devices: group.devices.clone(),
        blocked_by: facts
            .blockers()
            .filter_map(|sibling| Some(Blocker { address: sibling.address, driver: sibling.driver.clone()? }))
            .collect(),
        is_direct_mapped: group.is_direct_mapped,
    });
    let Facts { vfio_devices, holders, findings: in_use, .. } = facts;
    let view =
        ShowView { device: view, class_name, pf_driver, group, vfio_devices, nodes, holders, in_use, candidates };
    report::show(context.output, &view)?;
    Ok(if is_locked { Kind::Timeout.exit_status() } else { 0 })
}

/// The override; and whether it could not be read because the device is locked, which is said. Then all the rest is worth
/// the more.
fn driver_override(context: &Context, address: Address) -> Result<(Option<String>, bool)> {
    let waiters = stuck::own_waiters(&context.host);
    for waiter in waiters.iter().filter(|waiter| waiter.device == Some(address)) {
        context.output.warn(&format!("{address}: {waiter}"));
    }
    match Overrides::new(&context.host, context.timeout.min(PATIENCE)).read(address) {
        Ok(driver_override) => Ok((driver_override, false)),
        Err(error) if error.source.kind() == ErrorKind::TimedOut => {
            context.output.warn(&format!("its override is not known: {error}"));
            Ok((None, true))
        }
        Err(error) => Err(error.into()),
    }
}
