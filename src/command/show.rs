// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl show`.

use std::time::Duration;

use anyhow::Result;

use super::bind::held;
use super::context::{Context, policy_view};
use crate::address::Address;
use crate::class;
use crate::gather;
use crate::names::Database;
use crate::plan::Facts;
use crate::report::{self, Blocker, DeviceView, GroupView, ShowView};
use crate::verdict;
use crate::vfio::nodes::Nodes;

/// How long a device whose lock is held is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shows everything about one device.
pub fn run(context: &Context, address: Address) -> Result<u8> {
    let device = match context.device(address) {
        Ok(device) => device,
        Err(failure) => return context.refuse("show", &failure),
    };
    let candidates = context.chooser()?.with_modules().for_device(&device)?;
    let (policy, _) = context.policy();
    let names = Database::open().look_up(&device.modalias);
    let best = verdict::chosen(&candidates).map(|candidate| candidate.name().to_string());
    let pf_driver = match device.pf {
        Some(pf) => gather::driver_of(&context.host, pf)?,
        None => None,
    };
    let class_name = names.class.unwrap_or_else(|| class::name(&device.modalias.class()).to_string());
    let policy = policy_view(&policy, &device);
    let facts = match gather::facts(&context.host, device, context.timeout.min(PATIENCE)) {
        Ok(facts) => facts,
        Err(error) => return context.refuse("show", &held(address, error)),
    };
    let driver_override = facts.driver_override.clone();
    let view = DeviceView::new(&facts.device, driver_override, names.device, best, policy);
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
    Ok(0)
}
