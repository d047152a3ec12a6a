// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl list`.

use std::collections::BTreeMap;
use std::rc::Rc;
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
    // Columns have no room for overrides, and on older kernels to read one may take the device's lock.
    let mut reader = context.output.is_json.then(|| Overrides::new(&context.host, PATIENCE));
    // Which are VFIO devices is found out below.
    let (devices, mut overrides) = match reader.as_mut().filter(|_| !options.vfio) {
        Some(reader) => context.list_with_overrides(reader, |device| is_wanted(options, device))?,
        None => (context.list()?, BTreeMap::new()),
    };
    let driver = |address: Address| {
        let found = devices.binary_search_by_key(&address, |device| device.address).ok()?;
        devices[found].driver.as_ref()
    };
    let mut best = BestOf::new(context.chooser()?);
    let (policy, _) = context.policy();
    let names = Database::open();
    let mut known: BTreeMap<&str, Option<Rc<str>>> = BTreeMap::new();
    let unfinished = Unfinished::addresses(&context.host);

    let mut views = Vec::new();
    for device in devices.iter().filter(|device| is_wanted(options, device)) {
        if options.vfio && !(device.driver.is_some() && Device::is_vfio_device(&context.host, device.address)?) {
            continue;
        }
        let best = best.name(device, device.pf.and_then(driver))?;
        let name = known.entry(device.modalias.as_str()).or_insert_with(|| {
            let name = names.look_up(&device.modalias).device;
            name.map(Rc::from)
        });
        let read = match (overrides.remove(&device.address), &mut reader) {
            (Some(read), _) => read,
            (None, Some(reader)) => reader.read(device.address),
            (None, None) => Ok(None),
        };
        let driver_override = read.unwrap_or_else(|error| {
            context.output.warn(&error.to_string());
            None
        });
        let is_begun = unfinished.binary_search(&device.address).is_ok();
        let verb = is_begun.then(|| context.unfinished(device.address)).flatten();
        let view = DeviceView::new(device, driver_override, name.clone(), best, policy_view(policy, device));
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
