// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl list`.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::context::{Context, Override, UsageError, policy_view};
use crate::address::Address;
use crate::changes::{Listed, changes};
use crate::cli::List;
use crate::gather::{BestOf, Chooser};
use crate::kernel_name::DriverName;
use crate::names::Database;
use crate::policy::Policy;
use crate::report::{self, DeviceView};
use crate::sysfs::{self, Device, Overrides, ReadError};
use crate::uevents::{Source, Uevents, Woken};
use crate::unfinished::Unfinished;

/// How long a listing waits for devices whose lock is held, all together.
pub const PATIENCE: Duration = Duration::from_millis(500);

/// Lists devices.
pub fn run(context: &Context, options: &List) -> Result<u8> {
    // Before the first look, so that nothing is missed.
    let uevents = options.watch.then(|| listen(context)).transpose()?;
    // Columns have no room for overrides, and on older kernels to read one may take the device's lock.
    let mut reader = context.output.is_json.then(|| Overrides::new(&context.host, PATIENCE));
    // Which are VFIO devices is found out below.
    let (devices, mut overrides) = match reader.as_mut().filter(|_| !options.vfio) {
        Some(reader) => context.list_with_overrides(reader, |device| is_wanted(options, device))?,
        None => (context.list()?, BTreeMap::new()),
    };
    let listed = listed(context, options, devices)?;
    let (policy, _) = context.policy();
    let mut viewer = Viewer::new(context, context.chooser()?, policy, reader);
    let mut views = Vec::new();
    for device in listed.wanted() {
        views.push(viewer.view(&listed, device, overrides.remove(&device.address))?);
    }
    match uevents {
        None => report::list(context.output, &views)?,
        Some(uevents) => {
            report::first_list(context.output, &views)?;
            drop(views);
            follow(context, options, &uevents, listed)?;
        }
    }
    Ok(0)
}

/// Hears of changes from now on.
fn listen(context: &Context) -> Result<Uevents> {
    if !context.host.is_this_machine() {
        bail!(UsageError("--watch: nobody announces what changes under another root; leave out --root".to_string()));
    }
    let source = if context.host.udev_control().exists() { Source::Udev } else { Source::Kernel };
    if source == Source::Kernel {
        context.output.warn(&format!(
            "no udev runs here ({} is not there): the kernel's own announcements are heard, which reach few containers",
            context.host.udev_control().display()
        ));
    }
    Uevents::listen(source).context("cannot listen for what changes")
}

/// Prints what changes, until nobody reads it.
fn follow(context: &Context, options: &List, uevents: &Uevents, mut before: Listed) -> Result<()> {
    let names = Database::open();
    while uevents.wait(io::stdout().as_fd()).context("cannot wait for what changes")? == Woken::Announced {
        let after = listed(context, options, look_again(context, &before)?)?;
        let changes = changes(&before, &after);
        if !changes.is_empty() && context.output.is_json {
            // What is the best for a device may be another by now.
            let (policy, _) = Policy::read(&context.host);
            let reader = Some(Overrides::new(&context.host, PATIENCE));
            let mut viewer = Viewer::new(context, Chooser::new(&context.host)?, &policy, reader);
            for change in changes {
                let view = change.after.map(|device| viewer.view(&after, device, None)).transpose()?;
                report::change_as_json(context.output, &change, view)?;
            }
        } else {
            for change in changes {
                let name = change.after.and_then(|device| names.device(&device.modalias));
                report::change(context.output, &change, name.as_deref())?;
            }
        }
        before = after;
    }
    Ok(())
}

/// The devices as they are now. One that cannot be read this once has not gone: it counts as it was.
fn look_again(context: &Context, before: &Listed) -> Result<Vec<Device>> {
    let sysfs::Listing { mut devices, errors } = sysfs::list(&context.host)?;
    if !errors.is_empty() {
        let has_place = |address| devices.binary_search_by_key(&address, |device| device.address).is_ok();
        let unread = before.devices.iter().filter(|device| !has_place(device.address));
        let unread: Vec<Device> =
            unread.filter(|device| context.host.device(device.address).exists()).cloned().collect();
        devices.extend(unread);
        devices.sort_by_key(|device| device.address);
    }
    for error in errors {
        context.output.warn(&error.to_string());
    }
    Ok(devices)
}

/// Devices, and which of them are shown.
fn listed(context: &Context, options: &List, devices: Vec<Device>) -> Result<Listed> {
    let is_shown = |device: &Device| {
        let is_vfio = || Device::is_vfio_device(&context.host, device.address);
        match is_wanted(options, device) {
            true if options.vfio => Ok(device.driver.is_some() && is_vfio()?),
            is_wanted => Ok(is_wanted),
        }
    };
    let is_wanted: Result<_, ReadError> = devices.iter().map(is_shown).collect();
    Ok(Listed { is_wanted: is_wanted?, devices })
}

/// What devices are shown with. What they have in common is found out once.
struct Viewer<'a> {
    context: &'a Context,
    best: BestOf<'a>,
    policy: &'a Policy,
    /// Reads overrides where these are shown.
    reader: Option<Overrides<'a>>,
    names: Database,
    unfinished: Vec<Address>,
}

impl<'a> Viewer<'a> {
    fn new(context: &'a Context, chooser: Chooser<'a>, policy: &'a Policy, reader: Option<Overrides<'a>>) -> Self {
        let unfinished = Unfinished::addresses(&context.host);
        let (best, names) = (BestOf::new(chooser), Database::open());
        Viewer { context, best, policy, reader, names, unfinished }
    }

    /// A device with all that is shown of it; `read`: its override, if that was read before.
    fn view<'b>(&mut self, listed: &Listed, device: &'b Device, read: Option<Override>) -> Result<DeviceView<'b>> {
        let pf_driver = device.pf.and_then(|pf| listed.get(pf)).and_then(|pf| pf.driver.as_ref());
        let best = self.best.name(device, pf_driver)?;
        let name = self.names.device(&device.modalias);
        let read = match (read, &mut self.reader) {
            (Some(read), _) => read,
            (None, Some(reader)) => reader.read(device.address),
            (None, None) => Ok(None),
        };
        let driver_override = read.unwrap_or_else(|error| {
            self.context.output.warn(&error.to_string());
            None
        });
        let is_begun = self.unfinished.binary_search(&device.address).is_ok();
        let verb = is_begun.then(|| self.context.unfinished(device.address)).flatten();
        let view = DeviceView::new(device, driver_override, name, best, policy_view(self.policy, device));
        Ok(view.with_unfinished(verb))
    }
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
