// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl libvirt check`: what would happen to the PCI devices of a domain if it were started.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::Result;

use super::version;
use super::wanted::{Wishes, meant};
use crate::address::Address;
use crate::cli::libvirt::Check;
use crate::command::bind::{self, Binder};
use crate::command::context::Context;
use crate::gather;
use crate::kernel_name::DriverName;
use crate::libvirt::{self, Domain, HostDevice, Situation, State, is_hook_installed};
use crate::names::Database;
use crate::outcome::{Failure, Kind};
use crate::report::{self, Blocker, CheckView, StartView};
use crate::sysfs::Device;

/// Looks, and says what was found.
pub fn run(mut context: Context, options: &Check) -> Result<u8> {
    // What the hook would do is planned, never done.
    context.is_dry_run = true;
    let context = &context;
    let domain = read(&options.file)?;
    let (version, is_known) = version(context, options.libvirt_version);
    let addresses: Vec<Address> = domain.devices.iter().map(|device| device.address).collect();
    let binder = Binder { context, chooser: context.chooser()?.with_modules(), together: addresses };
    let (policy, _) = context.policy();
    let (states, errors) = State::of_others(&context.host, None);
    for error in errors {
        context.output.warn(&error.to_string());
    }
    let table = context.host.modules(&binder.chooser.tables.release).join("modules.alias");
    let table_length = fs::metadata(table).ok().map(|data| data.len());
    let wishes = Wishes { binder: &binder, policy, version };
    let checker = Checker {
        wishes,
        domain: &domain,
        states: &states,
        has_hook: is_hook_installed(&context.host),
        names: Database::open(),
        table_length,
    };
    let devices: Vec<CheckView> = domain.devices.iter().map(|asked| checker.check(asked)).collect();
    let status = devices.iter().filter_map(|device| device.error.as_ref()).map(|failure| failure.kind.exit_status());
    let status = status.max().unwrap_or(0);
    let view = StartView {
        domain: domain.name.clone(),
        uuid: domain.uuid.as_ref().map(ToString::to_string),
        libvirt_version: is_known.then(|| version.to_string()),
        has_hook: checker.has_hook,
        would_start: status == 0,
        devices,
        networks: domain.networks.clone(),
    };
    report::start(context.output, &view)?;
    Ok(status)
}

fn read(path: &Path) -> Result<Domain> {
    if path == Path::new("-") {
        return super::read(io::stdin().lock(), "standard input");
    }
    let name = path.display().to_string();
    super::read(File::open(path).map_err(|error| anyhow::anyhow!("cannot read {name}: {error}"))?, &name)
}

struct Checker<'a> {
    wishes: Wishes<'a>,
    domain: &'a Domain,
    states: &'a [State],
    has_hook: bool,
    names: Database,
    /// Of modules.alias, if there is one.
    table_length: Option<u64>,
}

impl Checker<'_> {
    fn check(&self, asked: &HostDevice) -> CheckView {
        let mut view = CheckView::new(asked);
        if let Err(failure) = self.fill(asked, &mut view) {
            view.error = Some(failure);
        }
        view
    }

    fn fill(&self, asked: &HostDevice, view: &mut CheckView) -> Result<(), Failure> {
        let Wishes { binder, policy: _, version } = &self.wishes;
        let (context, address) = (binder.context, asked.address);
        let device = context.device(address)?;
        view.name = self.names.look_up(&device.modalias).device;
        view.driver = device.driver.clone();
        if let Some(backend) = &asked.other_backend {
            view.notes.push(format!("it is {backend} that gives it to the guest, not VFIO: the hook leaves it alone"));
            return Ok(());
        }
        let incarnation = Device::incarnation(&context.host, address);
        let owner = self.states.iter().find(|state| state.held(address, incarnation).is_some());
        let is_own = owner.is_some_and(|owner| Some(&owner.uuid) == self.domain.uuid.as_ref());
        view.in_use_by = owner.map(|owner| owner.name.clone());

        let mut facts = gather::facts_but_users(&context.host, device.clone(), context.timeout)
            .and_then(|facts| gather::with_users(&context.host, facts, &binder.together))
            .map_err(|error| bind::held(&context.host, address, error))?;
        facts.siblings.retain(|sibling| !binder.together.contains(&sibling.address));
        view.driver_override = facts.driver_override.clone();
        view.is_vfio_device = facts.is_vfio_device;
        view.iommu_group = device.iommu_group;
        view.holders.clone_from(&facts.holders);
        let blockers = facts.blockers();
        view.blocked_by = blockers
            .filter_map(|sibling| Some(Blocker { address: sibling.address, driver: sibling.driver.clone()? }))
            .collect();

        let taken = libvirt::choose(*version, &binder.chooser.tables.table, &device.modalias, asked.model.as_ref());
        let candidates =
            binder.chooser.for_device(&device).map_err(|error| bind::held(&context.host, address, error))?;
        let candidate = meant(&candidates, &taken.name);
        let own_name = |name: &DriverName| {
            let candidate = meant(&candidates, name);
            candidate.map_or(name.clone(), |candidate| DriverName::from_kernel(candidate.name().to_string()))
        };
        view.libvirt_driver = asked.is_managed.then(|| own_name(&taken.name));
        view.libvirt_reason = Some(match asked.is_managed {
            true => taken.reason.clone(),
            false => "managed='no': it takes the device as it finds it, if that is on a VFIO driver".to_string(),
        });
        view.verdict = candidate.map(|candidate| candidate.verdict);
        view.reasons = candidate.map(|candidate| candidate.reasons.clone()).unwrap_or_default();
        if is_own {
            view.notes.push("the domain has it already".to_string());
            return Ok(());
        }

        let wish = self.wishes.of(asked, &device).and_then(|wish| {
            view.hook_reason = Some(wish.reason.clone());
            let planned = binder.bind(address, |_| Ok(Some(wish.request.clone())))?;
            Ok((wish, planned))
        });
        let driver = match wish {
            Ok((wish, planned)) => {
                view.steps = planned.steps;
                view.notes.extend(planned.warnings);
                view.hook_driver = wish.driver(&candidates);
                view.hook_driver.clone()
            }
            // What is ours to refuse libvirt does not know of; the rest holds for it as well.
            Err(failure)
                if !self.has_hook
                    && (!failure.findings.is_empty()
                        || matches!(
                            failure.kind,
                            Kind::Identity | Kind::Requirement | Kind::Preparation | Kind::Conflict
                        )) =>
            {
                view.notes.push(format!("the hook, which is not installed, would refuse that: {}", failure.message));
                None
            }
            Err(failure) => return Err(failure),
        };
        let driver = driver.unwrap_or_else(|| taken.name.clone());
        let situation = Situation {
            asked,
            facts: &facts,
            version: *version,
            driver: &driver,
            has_hook: self.has_hook,
            owner: owner.map(|owner| owner.name.as_str()),
            is_own,
            no_choice: libvirt::gives_up(*version, self.table_length),
        };
        view.error = situation.obstacle();
        Ok(())
    }
}
