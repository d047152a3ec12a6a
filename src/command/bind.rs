// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl bind`, and the part of it that `apply` needs too.

use anyhow::Result;

use super::context::{Context, distinct};
use crate::address::Address;
use crate::apply::{self, Job, permission_hint};
use crate::catalog::Catalog;
use crate::cli::{Bind, Force};
use crate::gather::{self, Chooser};
use crate::kernel_name::DriverName;
use crate::modules::{ModuleState, Modules};
use crate::outcome::{DeviceResult, Failure, Kind};
use crate::plan::{self, BindPlan, Manner, Target, Wanted};
use crate::policy::{Choice, Draft};
use crate::sysfs::{self, Device, ReadError};
use crate::verdict::Candidate;

/// Binds devices.
pub fn run(context: &Context, options: &Bind) -> Result<u8> {
    let chooser = context.chooser()?;
    refuse_other_kernel(context, &chooser)?;
    let mut addresses = distinct(&options.addresses);
    if options.group {
        addresses = with_groups(context, &addresses)?;
    }
    let request = Request {
        choice: match &options.driver {
            None => Choice::Auto,
            Some(driver) => Choice::parse(driver.as_str())?,
        },
        manner: Manner { is_strict: options.strict, is_forced: options.force.contains(&Force::Driver) },
        is_saving: !options.no_save,
        is_vfio: true,
    };
    let binder = Binder::new(context, chooser);
    let results = context.each(&addresses, |address| binder.bind(address, &request));
    context.conclude("bind", &results)
}

/// A module of another kernel cannot be loaded into this one.
pub fn refuse_other_kernel(context: &Context, chooser: &Chooser<'_>) -> Result<()> {
    let running = context.host.running()?;
    if !context.is_dry_run && chooser.tables.release != running {
        anyhow::bail!(
            "--kernel {}: kernel {running} runs here, and only its modules can be loaded; add --dry-run to see the plan",
            chooser.tables.release
        );
    }
    Ok(())
}

/// The members of the devices' groups, but for bridges.
fn with_groups(context: &Context, addresses: &[Address]) -> Result<Vec<Address>> {
    let mut all = Vec::new();
    for &address in addresses {
        all.push(address);
        let Ok(device) = context.device(address) else { continue };
        for sibling in gather::facts(&context.host, device)?.siblings {
            let is_bridge = context.device(sibling.address).is_ok_and(|device| device.is_bridge());
            if !is_bridge {
                all.push(sibling.address);
            }
        }
    }
    Ok(distinct(&all))
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Request {
    /// The driver.
    pub choice: Choice,
    /// How.
    pub manner: Manner,
    /// Is the choice to be kept?
    pub is_saving: bool,
    /// Must the driver be a VFIO driver? A policy may name any.
    pub is_vfio: bool,
}

/// Binds devices one by one, with one reading of the tables.
pub struct Binder<'a> {
    context: &'a Context,
    chooser: Chooser<'a>,
}

impl<'a> Binder<'a> {
    /// Reads what modules there are.
    pub fn new(context: &'a Context, chooser: Chooser<'a>) -> Binder<'a> {
        Binder { context, chooser: chooser.with_modules() }
    }

    /// Binds one device, or with `--dry-run` says how.
    pub fn bind(&self, address: Address, request: &Request) -> Result<DeviceResult, Failure> {
        let context = self.context;
        if context.is_dry_run {
            let (device, plan) = self.plan(address, request)?;
            let steps: Vec<_> = plan.attempts.into_iter().take(1).flat_map(|attempt| attempt.steps).collect();
            let mut result = context.planned(&device, &steps, plan.warnings);
            if request.is_saving {
                result.steps.push(apply::save_record(&context.host, address));
            }
            return Ok(result);
        }
        // A device that is not there needs no lock, nor root, to be told so.
        context.device(address)?;
        let observe = |address: Address, text: &str| context.observe(address, text);
        let job = Job::start(&context.host, address, context.timeout, &observe)?;
        // Only now, under the lock, is what is read what counts.
        let (device, plan) = self.plan(address, request)?;
        let draft = match request.is_saving {
            true => Some(self.draft(&device, &kept(&request.choice, &device, &plan))?),
            false => None,
        };
        Ok(job.bind(&device, &plan.attempts, draft, plan.warnings))
    }

    fn plan(&self, address: Address, request: &Request) -> Result<(Device, BindPlan), Failure> {
        let device = self.context.device(address)?;
        let unreadable = |error: ReadError| Failure::plain(Kind::Failed, format!("{address}: {error}"));
        let candidates = self.chooser.for_device(&device).map_err(unreadable)?;
        let wanted = match &request.choice {
            Choice::None => Wanted::NoDriver,
            Choice::Auto => Wanted::Best(
                candidates
                    .into_iter()
                    .map(|candidate| {
                        let state = self.chooser.state(&candidate.module);
                        (candidate, state)
                    })
                    .collect(),
            ),
            Choice::Named(driver) => Wanted::Named(self.named(&device, driver, &candidates, request)?),
        };
        let facts = gather::facts(&self.context.host, device).map_err(unreadable)?;
        let plan = plan::bind(&facts, &wanted, request.manner)?;
        Ok((facts.device, plan))
    }

    /// The driver that the user means, if the device is in its table or the user insists.
    fn named(
        &self,
        device: &Device,
        name: &DriverName,
        candidates: &[Candidate],
        request: &Request,
    ) -> Result<Target, Failure> {
        let is_meant = |candidate: &&Candidate| {
            name.is_spelled_like(candidate.module.as_str()) || name.is_spelled_like(candidate.name())
        };
        if let Some(candidate) = candidates.iter().find(is_meant) {
            return Ok(Target {
                module: Some(candidate.module.clone()),
                driver: candidate.driver.clone(),
                state: self.chooser.state(&candidate.module),
                is_vfio: true,
                reason: format!("as asked for; matches {} ({} of 7 fields open)", candidate.alias, candidate.wildcards),
            });
        }
        let target = self.resolve(name)?;
        if request.manner.is_forced {
            let is_vfio = request.is_vfio || Catalog::bundled().by_any_name(target.name()).is_some();
            return Ok(Target { is_vfio, reason: "as asked for, whatever the tables say".to_string(), ..target });
        }
        Err(not_for_device(device, &target, candidates))
    }

    /// A driver by either spelling, whether or not it fits any device.
    pub fn resolve(&self, name: &DriverName) -> Result<Target, Failure> {
        let known = Catalog::bundled().by_any_name(name.as_str());
        let module = known.map_or(name.as_str(), |driver| driver.module).parse();
        let module = module.map_err(|error| Failure::plain(Kind::NoDriver, format!("{error}")))?;
        let registered = sysfs::registered(&self.context.host).unwrap_or_default();
        let reason = "as asked for".to_string();
        if let Some(driver) = registered.into_iter().find(|driver| driver.is_spelled_like(name.as_str())) {
            return Ok(Target {
                module: Some(module),
                driver: Some(driver),
                state: ModuleState::Loaded,
                is_vfio: true,
                reason,
            });
        }
        let state = self.chooser.state(&module);
        if state == ModuleState::Missing {
            let kconfig = known.map(|driver| format!("; it is built with {}", driver.kconfig)).unwrap_or_default();
            return Err(Failure::new(
                Kind::NoDriver,
                format!(
                    "no driver {name}: none is registered, and kernel {} has no module {module}{kconfig}",
                    self.chooser.tables.release
                ),
                "see 'vfioctl drivers' for the VFIO drivers this kernel has",
            ));
        }
        let driver = Modules::driver(&self.context.host, &module).ok().flatten();
        Ok(Target { module: Some(module), driver, state, is_vfio: true, reason })
    }

    fn draft(&self, device: &Device, choice: &Choice) -> Result<Draft, Failure> {
        Draft::write(&self.context.host, device.address, &device.modalias, choice).map_err(|error| {
            let message = format!("{}: {error}; nothing was touched", device.address);
            match error.source.kind() {
                std::io::ErrorKind::PermissionDenied => Failure::new(Kind::Permission, message, permission_hint()),
                std::io::ErrorKind::ReadOnlyFilesystem => {
                    Failure::new(Kind::Permission, message, "--no-save binds without keeping the choice")
                }
                _ => Failure::new(Kind::Failed, message, "--no-save binds without keeping the choice"),
            }
        })
    }
}

/// The choice to keep: a driver that was named in another spelling under its own name, where that is known.
fn kept(choice: &Choice, device: &Device, plan: &BindPlan) -> Choice {
    let driver = match plan.attempts.first() {
        Some(attempt) => attempt.target.driver.as_ref(),
        None => device.driver.as_ref(),
    };
    match (choice, driver) {
        (Choice::Named(_), Some(driver)) => Choice::Named(driver.clone()),
        (choice, _) => choice.clone(),
    }
}

/// The kernel would not stop anyone: `driver_override` makes any driver match (`drivers/pci/pci-driver.c`,
/// `pci_match_device`). So the id table is held up here.
fn not_for_device(device: &Device, target: &Target, candidates: &[Candidate]) -> Failure {
    let modalias = &device.modalias;
    let ids = format!("{}:{}", modalias.vendor(), modalias.device());
    let table = match Catalog::bundled().by_any_name(target.name()) {
        Some(driver) => {
            let ids: Vec<String> = driver.ids.iter().map(|id| format!("{:04x}:{:04x}", id.vendor, id.device)).collect();
            format!("its table has {}", ids.join(", "))
        }
        None => "it is no VFIO driver that the alias tables name for this device".to_string(),
    };
    let others: Vec<&str> = candidates.iter().map(Candidate::name).collect();
    let others = if others.is_empty() { "none".to_string() } else { others.join(", ") };
    Failure::new(
        Kind::NotForDevice,
        format!("{}: driver {} is not for {ids}: {table}", device.address, target.name()),
        format!("what fits: {others}; --force binds it all the same"),
    )
}
