// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl list`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::context::{Context, policy_view};
use crate::address::Address;
use crate::cli::List;
use crate::gather::BestOf;
use crate::kernel_name::DriverName;
use crate::names::Database;
use crate::report::{self, DeviceView};
use crate::sysfs::{Device, Overrides};
use crate::unfinished::Unfinished;

/// How long a listing waits for devices whose lock is held, all together.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// Lists devices.
pub fn run(context: &Context, options: &List) -> Result<u8> {
    let devices = context.list()?;
    let drivers: BTreeMap<Address, Option<DriverName>> =
        devices.iter().map(|device| (device.address, device.driver.clone())).collect();
    let mut best = BestOf::new(context.chooser()?);
    let (policy, _) = context.policy();
    let names = Database::open();
    let unfinished = Unfinished::addresses(&context.host);
    let mut overrides = Overrides::new(&context.host, PATIENCE);

    let mut views = Vec::new();
    for device in devices.iter().filter(|device| is_wanted(options, device)) {
        if options.vfio && !(device.driver.is_some() && Device::is_vfio_device(&context.host, device.address)?) {
            continue;
        }
        let pf_driver = device.pf.and_then(|pf| drivers.get(&pf)?.as_ref());
        let best = best.name(device, pf_driver)?;
        let name = names.look_up(&device.modalias).device;
        let driver_override = overrides.read(device.address).unwrap_or_else(|error| {
            context.output.warn(&error.to_string());
            None
        });
        let verb = unfinished.contains(&device.address).then(|| context.unfinished(device.address)).flatten();
        let view = DeviceView::new(device, driver_override, name, best, policy_view(&policy, device));
        views.push(view.with_unfinished(verb));
    }
    report::list(context.output, &views)?;
    Ok(0)
}

fn is_wanted(options: &List, device: &Device) -> bool {
    let has_driver = |wanted: &DriverName| match &device.driver {
        Some(driver) => driver.is_spelled_like(wanted.as_str()),
        None => wanted.as_str() == "none",
    };
    options.class.as_ref().is_none_or(|class| class.matches(&device.modalias.class()))
        && options.driver.as_ref().is_none_or(has_driver)
        && options.group.is_none_or(|group| device.iommu_group == Some(group))
}
