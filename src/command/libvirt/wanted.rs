// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a domain wants of one of its devices: the driver that libvirt would take, or leave it on.

use crate::catalog::Catalog;
use crate::command::apply;
use crate::command::bind::{Binder, Preparing, Request};
use crate::kernel_name::{DriverName, ModuleName};
use crate::libvirt::{self, HostDevice, Version};
use crate::matcher::Table;
use crate::outcome::{Failure, Kind};
use crate::plan::Manner;
use crate::policy::{Choice, Decision, Policy};
use crate::sysfs::Device;
use crate::verdict::{self, Candidate, Verdict};

/// What the domain's devices are bound to, and by whose wish.
pub struct Wishes<'a> {
    pub binder: &'a Binder<'a>,
    pub policy: &'a Policy,
    pub version: Version,
}

/// What is to be done for a device.
pub struct Wish {
    /// What to ask of the binder.
    pub request: Request,
    /// Why, in words that follow the driver's name.
    pub reason: String,
}

impl Wish {
    /// The driver it ends on, under its own name where that is known.
    pub fn driver(&self, candidates: &[Candidate]) -> Option<DriverName> {
        match &self.request.choice {
            Choice::Auto => verdict::chosen(candidates).map(|best| DriverName::from_kernel(best.name().to_string())),
            Choice::None => None,
            Choice::Named(name) => Some(match meant(candidates, name) {
                Some(candidate) => DriverName::from_kernel(candidate.name().to_string()),
                None => name.clone(),
            }),
        }
    }
}

impl Wishes<'_> {
    /// What is wanted for a device; a failure is why the domain could not have it.
    pub fn of(&self, asked: &HostDevice, device: &Device) -> Result<Wish, Failure> {
        let decision = self.policy.decide(device);
        if let Some(Decision::OtherDevice(rule)) = decision {
            return Err(Failure::new(
                Kind::Identity,
                format!("{}: {}: no guest is given the wrong device", device.address, rule.mismatch(device)),
                format!(
                    "if it is the right one: 'vfioctl unbind --no-save {0}', then mend {1}",
                    device.address,
                    rule.file.display()
                ),
            ));
        }
        if !asked.is_managed && asked.model.is_none() {
            if let Some(wish) = self.unmanaged(device)? {
                return Ok(wish);
            }
        }
        let table = &self.binder.chooser.tables.table;
        let choice = libvirt::choose(self.version, table, &device.modalias, asked.model.as_ref());
        let candidates = self.binder.chooser.for_device(device);
        let candidates =
            candidates.map_err(|error| Failure::plain(Kind::Failed, format!("{}: {error}", device.address)))?;
        if let Some(candidate) = meant(&candidates, &choice.name).filter(|found| found.verdict == Verdict::Blocked) {
            return Err(cannot_work(asked, candidate, &choice.reason));
        }
        let is_candidate = meant(&candidates, &choice.name).is_some();
        if !is_candidate && asked.model.is_some() && is_vfio_driver(&choice.name, table) {
            return Err(not_for_device(asked, device, &choice.name, &candidates));
        }
        // What must come with the driver must come with libvirt's too.
        let require = match decision {
            Some(Decision::Rule(rule)) => rule.require.clone(),
            _ => Vec::new(),
        };
        // A driver that no table knows was named by whoever wrote the domain: it is not asked for again.
        let request = Request { require, ..named(choice.name, !is_candidate) };
        Ok(Wish { request, reason: choice.reason })
    }

    /// For a device that libvirt takes as it is: what the policy says, or that it stays where it is, if libvirt takes that.
    fn unmanaged(&self, device: &Device) -> Result<Option<Wish>, Failure> {
        let context = self.binder.context;
        let file = match self.policy.decide(device) {
            Some(Decision::Rule(rule)) if rule.driver != Choice::None => Some(rule.file.display().to_string()),
            _ => None,
        };
        if let Some(file) = file {
            let request = apply::decide(context, self.policy.decide(device), device, Manner::default())?;
            let reason = format!("{file} says so");
            return Ok(request.map(|request| Wish { request: Request { must_be_vfio: true, ..request }, reason }));
        }
        let is_vfio_device = Device::is_vfio_device(&context.host, device.address)
            .map_err(|error| Failure::plain(Kind::Failed, format!("{}: {error}", device.address)))?;
        Ok(device.driver.clone().filter(|_| is_vfio_device).map(|driver| Wish {
            request: named(driver, true),
            reason: "it is a VFIO device already, which is all that libvirt asks of one with managed='no'".to_string(),
        }))
    }
}

/// Do the catalogue or the tables know for which devices this driver is?
fn is_vfio_driver(name: &DriverName, table: &Table) -> bool {
    let module = name.as_str().parse::<ModuleName>();
    Catalog::bundled().by_any_name(name.as_str()).is_some() || module.is_ok_and(|module| table.names(module.as_str()))
}

/// libvirt would bind it all the same, since the kernel does not hold a driver that is named to its own table.
fn not_for_device(asked: &HostDevice, device: &Device, model: &DriverName, candidates: &[Candidate]) -> Failure {
    let others: Vec<&str> = candidates.iter().map(Candidate::name).collect();
    Failure::new(
        Kind::NotForDevice,
        format!(
            "{}: the domain names driver {model} for it in line {}, which is not for {}:{}",
            asked.address,
            asked.line,
            device.modalias.vendor(),
            device.modalias.device()
        ),
        format!("what fits: {}", if others.is_empty() { "none".to_string() } else { others.join(", ") }),
    )
}

fn named(driver: DriverName, any_driver: bool) -> Request {
    Request {
        choice: Choice::Named(driver),
        preparing: Preparing::AsKept,
        require: Vec::new(),
        manner: Manner { any_driver, ..Manner::default() },
        is_saving: false,
        must_be_vfio: true,
    }
}

/// The candidate of this name, in whatever spelling.
pub fn meant<'c>(candidates: &'c [Candidate], name: &DriverName) -> Option<&'c Candidate> {
    let is_meant = |candidate: &&Candidate| {
        name.is_spelled_like(candidate.module.as_str()) || name.is_spelled_like(candidate.name())
    };
    candidates.iter().find(is_meant)
}

fn cannot_work(asked: &HostDevice, candidate: &Candidate, reason: &str) -> Failure {
    let message = format!(
        "{}: libvirt would take {} ({reason}), which cannot work: {}",
        asked.address,
        candidate.name(),
        candidate.reasons.join("; ")
    );
    match candidate.name() {
        "vfio-pci" => Failure::plain(Kind::Unsafe, message),
        _ => Failure::new(
            Kind::Unsafe,
            message,
            format!(
                "mend that, or write <driver name='vfio' model='vfio-pci'/> into the <{}> in line {}",
                asked.element, asked.line
            ),
        ),
    }
}
