// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl initramfs`: what an initramfs needs to keep native drivers off the policy's devices, resolved for the kernel that the
//! image is for. The image gets no policy and no program: both are on the real root, which does the rest.

use anyhow::Result;

use super::apply::decide;
use super::bind::Binder;
use super::context::Context;
use crate::cli::{self, InitramfsFormat};
use crate::guard::{self, Finding, Use};
use crate::initramfs::{self, Present};
use crate::kernel_name::DriverName;
use crate::outcome::{Failure, Kind};
use crate::plan::{self, Manner, Wanted};
use crate::policy::{Choice, Decision, Policy, Rule};
use crate::report::{self, InitramfsView};
use crate::sysfs::Device;
use crate::target;

/// Prints it.
pub fn run(context: &Context, options: &cli::Initramfs) -> Result<u8> {
    let (policy, unread) = context.policy();
    let chooser = context.chooser()?.with_modules();
    let release = chooser.tables.release.clone();
    let binder = Binder { context, chooser, together: Vec::new() };
    let devices = if policy.rules.is_empty() { Vec::new() } else { present(context)? };
    let mut failures = Vec::new();
    let mut decided = Vec::new();
    // Before their PF has a driver there are no VFs.
    for device in devices.iter().filter(|device| device.pf.is_none()) {
        let Some(decision) = policy.decide(device) else { continue };
        let outcome = choose(&binder, decision, device);
        if let Decision::Rule(rule) = decision {
            let is_vital = matches!(outcome, Err(Refusal { is_vital: true, .. }));
            decided.push(Present { device, rule, driver: outcome.as_ref().ok().cloned(), is_vital });
        }
        failures.extend(outcome.err().map(|refusal| refusal.failure));
    }
    remark(context, policy, &devices, &decided);
    let named = |rule: &Rule| match &rule.driver {
        // Which it is the device says, and the real root knows: until then it is to be no other.
        Choice::Auto | Choice::None => Some(DriverName::none()),
        Choice::Named(name) => {
            let found = target::resolve(&context.host, &binder.chooser, name);
            found.and_then(|target| plain(target.name())).map_err(|failure| failures.push(failure)).ok()
        }
    };
    let claims = initramfs::claims(policy, &devices, &decided, named);
    failures.dedup();
    let text = match options.format {
        InitramfsFormat::Script => initramfs::script(&claims),
        InitramfsFormat::Rules => initramfs::rules(&claims),
    };
    report::initramfs(context.output, &text, &InitramfsView { release: &release, claims: &claims, errors: &failures })?;
    let status = failures.iter().map(|failure| failure.kind.exit_status()).max().unwrap_or(0);
    // A file that could not be read may have been about any device.
    Ok(status.max(u8::from(!unread.is_empty())))
}

/// The devices that are here; none where no kernel shows any, as where a system is set up for another machine.
fn present(context: &Context) -> Result<Vec<Device>> {
    if context.host.devices().exists() {
        return context.list();
    }
    context
        .output
        .warn(&format!("{} is not there: the image goes by what the rules say", context.host.devices().display()));
    Ok(Vec::new())
}

/// What is not in the image, and why.
fn remark(context: &Context, policy: &Policy, devices: &[Device], decided: &[Present<'_>]) {
    for rule in &policy.rules {
        let Some(address) = rule.address().filter(|_| rule.selector().id.is_none()) else { continue };
        if devices.iter().all(|device| device.address != address) {
            context.output.warn(&format!(
                "{}: no device {address} here, and no id to know it by: it is not in the image",
                rule.file.display()
            ));
        }
    }
    let general = policy.rules.iter().filter(|rule| rule.address().is_none());
    for rule in general.filter(|rule| initramfs::is_about_vital(rule.selector(), decided)) {
        context.output.warn(&format!(
            "{}: it is about a device too that this host cannot do without: in the image it is about no others than are here now",
            rule.file.display()
        ));
    }
}

/// Why a device is not claimed.
struct Refusal {
    failure: Failure,
    /// Does this host live on it?
    is_vital: bool,
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        Refusal { failure, is_vital: false }
    }
}

/// The driver that `claim` would write at boot, when nobody uses the device yet.
fn choose(binder: &Binder<'_>, decision: Decision<'_>, device: &Device) -> Result<DriverName, Refusal> {
    let context = binder.context;
    let request = decide(context, Some(decision), device, Manner::default())?
        .expect("something is asked for where a rule is about the device");
    plan::check_no_bridge(device)?;
    spare_root(context, device)?;
    let wanted = match binder.wanted(device, &request) {
        // As for `claim`: what is required may be there later, and until then no driver is to have the device.
        Err(failure) if failure.kind == Kind::Requirement => Wanted::NoDriver,
        wanted => wanted?.0,
    };
    let driver = plan::first_choice(device, &wanted, request.manner)?;
    Ok(plain(driver.as_deref().unwrap_or(DriverName::none().as_str()))?)
}

/// A name that needs no quotes in a script and in rules.
fn plain(driver: &str) -> Result<DriverName, Failure> {
    let driver = DriverName::from_kernel(driver.to_string());
    match initramfs::is_plain(&driver) {
        true => Ok(driver),
        false => Err(Failure::plain(Kind::Failed, format!("no image can be told of a driver '{driver}'"))),
    }
}

/// What the host uses a device for now is no matter for its next start, but without its root there is none.
fn spare_root(context: &Context, device: &Device) -> Result<(), Refusal> {
    let address = device.address;
    if device.driver.is_none() {
        return Ok(());
    }
    let findings = guard::findings(&context.host, address, &[])
        .map_err(|error| Failure::plain(Kind::Failed, format!("{address}: {error}")))?;
    let findings: Vec<Finding> = findings.into_iter().filter(|finding| finding.used_as == Use::RootDisk).collect();
    let Some(first) = findings.first() else { return Ok(()) };
    let failure = Failure {
        findings: findings.clone(),
        ..Failure::new(
            Kind::Unsafe,
            format!("{address} ({}): {}: it is not in the image", Use::RootDisk.name(), first.message),
            "without it this host would not start: mend the rule that is about it",
        )
    };
    Err(Refusal { failure, is_vital: true })
}
