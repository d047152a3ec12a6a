// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl libvirt xml`: what a domain's XML needs for a device.

use anyhow::Result;

use super::version;
use super::wanted::meant;
use crate::catalog::Catalog;
use crate::cli::libvirt::{Managed, Xml};
use crate::command::context::{Context, distinct};
use crate::gather::Chooser;
use crate::kernel_name::DriverName;
use crate::libvirt::{self, Element, Snippet, Version};
use crate::names::Database;
use crate::outcome::{Failure, Kind};
use crate::policy::{Choice, Decision, Policy};
use crate::report::{self, SnippetView};
use crate::sysfs::Device;
use crate::verdict::{self, Candidate};

/// Prints it for each device, or for none.
pub fn run(context: &Context, options: &Xml) -> Result<u8> {
    let (version, is_known) = version(context, options.libvirt_version);
    let chooser = context.chooser()?.with_modules();
    let (policy, _) = context.policy();
    let names = Database::open();
    let element = if options.interface { Element::Interface } else { Element::Hostdev };
    let mut views = Vec::new();
    for address in distinct(&options.addresses) {
        let found = context.device(address).and_then(|device| {
            check(&device, element)?;
            let model = model(context, &chooser, policy, version, &device)?;
            Ok((device, model))
        });
        let (device, model) = match found {
            Ok(found) => found,
            Err(failure) => return context.refuse("libvirt-xml", &failure),
        };
        let name = names.look_up(&device.modalias).device;
        let is_managed = options.managed == Managed::Yes;
        let snippet = Snippet { address, element, is_managed, model: model.as_ref(), name: name.as_deref() };
        let xml = snippet.text();
        views.push(SnippetView { address, name, element: element.to_string(), is_managed, model, xml });
    }
    report::snippets(context.output, is_known.then_some(version), &views)?;
    Ok(0)
}

/// What no domain can have, or not so.
fn check(device: &Device, element: Element) -> Result<(), Failure> {
    let address = device.address;
    if device.is_bridge() {
        return Err(Failure::new(
            Kind::Unsafe,
            format!("{address} is a bridge: no guest can have it"),
            "ask for the devices behind it",
        ));
    }
    // `virPCIDeviceAddressIsEmpty`
    if address.domain() == 0 && address.routing_id() < 8 {
        return Err(Failure::plain(Kind::Unsafe, format!("{address}: to libvirt this address stands for none at all")));
    }
    // `virDomainNetDefValidate` and `virHostdevIsVirtualFunction`: for others libvirt could not set the MAC address.
    let is_network = device.modalias.class().starts_with("02");
    if element == Element::Interface && !(is_network && device.pf.is_some()) {
        let what = if is_network { "no VF" } else { "no network device" };
        return Err(Failure::new(
            Kind::NotForDevice,
            format!("{address} is {what}: libvirt takes VFs of network cards alone as an <interface>"),
            "leave --interface out",
        ));
    }
    Ok(())
}

/// The driver to name: the one that the policy names, or else the best, if that is not what libvirt would take unasked.
fn model(
    context: &Context,
    chooser: &Chooser<'_>,
    policy: &Policy,
    version: Version,
    device: &Device,
) -> Result<Option<DriverName>, Failure> {
    let address = device.address;
    let candidates = chooser.for_device(device);
    let candidates = candidates.map_err(|error| Failure::plain(Kind::Failed, format!("{address}: {error}")))?;
    let Some(best) = verdict::chosen(&candidates) else {
        return Err(Failure::new(
            Kind::NoDriver,
            format!("{address}: no VFIO driver of kernel {} can be used for it", chooser.tables.release),
            format!("'vfioctl explain {address}' says why"),
        ));
    };
    let wanted = match policy.decide(device) {
        Some(Decision::Rule(rule)) => named(&rule.driver, &candidates),
        Some(Decision::OtherDevice(rule)) => {
            context.output.warn(&format!("{address}: {}", rule.mismatch(device)));
            None
        }
        None => None,
    };
    let wanted = wanted.unwrap_or_else(|| DriverName::from_kernel(best.name().to_string()));
    let taken = libvirt::choose(version, &chooser.tables.table, &device.modalias, None).name;
    let taken = named(&Choice::Named(taken.clone()), &candidates).unwrap_or(taken);
    if wanted.is_spelled_like(taken.as_str()) {
        return Ok(None);
    }
    if !version.takes_variants() {
        context.output.warn(&format!(
            "{address}: libvirt {version} takes {taken} and cannot be told to take {wanted}: {}",
            match version.accepts_variants() {
                true => "with managed='no' it accepts the device as 'vfioctl bind' has bound it",
                false => "10.0 and newer can",
            }
        ));
        return Ok(None);
    }
    Ok(Some(wanted))
}

/// The VFIO driver that a rule names, under its own name.
fn named(choice: &Choice, candidates: &[Candidate]) -> Option<DriverName> {
    let Choice::Named(name) = choice else { return None };
    match meant(candidates, name) {
        Some(candidate) => Some(DriverName::from_kernel(candidate.name().to_string())),
        None => Catalog::bundled().by_any_name(name.as_str()).map(|_| name.clone()),
    }
}
