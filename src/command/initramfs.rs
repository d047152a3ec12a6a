// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl initramfs`: what an initramfs needs to keep native drivers off the policy's devices, resolved for the kernel that the
//! image is for. The image gets no policy and no program: both are on the real root, which does the rest.

use anyhow::Result;

use super::apply::decide;
use super::bind::Binder;
use super::context::Context;
use crate::address::Address;
use crate::cli::{self, InitramfsFormat};
use crate::guard::{self, Finding, Use, Uses};
use crate::initramfs::{self, Present, Withheld};
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
    let devices = if policy.rules.is_empty() { Vec::new() } else { present(context)? };
    // What carries on without one of them must not be what goes with another.
    let claimed = devices.iter().filter(|device| policy.decide(device).is_some());
    let binder = Binder { context, chooser, together: claimed.map(|device| device.address).collect() };
    let unseen = unseen_root(context, policy, &devices);
    let mut failures = withheld(policy, unseen.as_deref());
    let mut decided = Vec::new();
    // Before their PF has a driver there are no VFs.
    for device in devices.iter().filter(|device| device.pf.is_none()) {
        let Some(decision) = policy.decide(device) else { continue };
        if let (Decision::Rule(rule), Some(_)) = (decision, &unseen) {
            if initramfs::may_be_root(rule, device) {
                decided.push(Present { device, rule, driver: None, is_vital: false });
                continue;
            }
        }
        let outcome = choose(&binder, decision, device);
        if let Decision::Rule(rule) = decision {
            let is_vital = matches!(outcome, Err(Refusal { is_vital: true, .. }));
            decided.push(Present { device, rule, driver: outcome.as_ref().ok().cloned(), is_vital });
        }
        failures.extend(outcome.err().map(|refusal| refusal.failure));
    }
    remark(context, policy, &devices, &decided, unseen.is_none());
    let named = |rule: &Rule| match &rule.driver {
        // Which it is the device says, and the real root knows: until then it is to be no other.
        Choice::Auto | Choice::None => Some(DriverName::none()),
        Choice::Named(name) => {
            let found = target::resolve(&context.host, &binder.chooser, name);
            found.and_then(|target| plain(target.name())).map_err(|failure| failures.push(failure)).ok()
        }
    };
    let claims = initramfs::claims(policy, &devices, &decided, unseen.is_none(), named);
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

/// Why it is not known which device has the root file system, where a rule may be about that one; `None`: it is known, or no
/// matter.
fn unseen_root(context: &Context, policy: &Policy, devices: &[Device]) -> Option<String> {
    if !policy.rules.iter().any(|rule| initramfs::may_be_about_root(rule.selector())) {
        return None;
    }
    let addresses: Vec<Address> = devices.iter().map(|device| device.address).collect();
    match guard::is_root_seen(&context.host, &addresses) {
        Ok(true) => None,
        Ok(false) => Some("no device here is seen to have the root file system".to_string()),
        Err(error) => Some(format!("which device has the root file system cannot be seen: {error}")),
    }
}

/// A failure for each file with a rule that could be about the root file system's disk.
fn withheld(policy: &Policy, unseen: Option<&str>) -> Vec<Failure> {
    let Some(why) = unseen else { return Vec::new() };
    let rules = policy.rules.iter().filter(|rule| initramfs::may_be_about_root(rule.selector()));
    let failure = |rule: &Rule| {
        Failure::new(
            Kind::Unsafe,
            format!(
                "{}: {why}, and a rule without an address may be about it: nothing of that rule is in the image",
                rule.file.display()
            ),
            "make the image on the running system that it is for; or give an address for each device",
        )
    };
    let mut failures: Vec<Failure> = rules.map(failure).collect();
    failures.dedup();
    failures
}

/// What is not in the image, and why.
fn remark(context: &Context, policy: &Policy, devices: &[Device], decided: &[Present<'_>], is_root_seen: bool) {
    for rule in &policy.rules {
        let Some(address) = rule.address().filter(|_| rule.selector().id.is_none()) else { continue };
        if devices.iter().all(|device| device.address != address) {
            context.output.warn(&format!(
                "{}: no device {address} here, and no id to know it by: it is not in the image",
                rule.file.display()
            ));
        }
    }
    let is_about_vital =
        |rule: &&Rule| initramfs::withheld(rule.selector(), decided, is_root_seen) == Some(Withheld::Vital);
    for rule in policy.rules.iter().filter(is_about_vital) {
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
    let findings = spare(binder, device, request.manner.acknowledged)?;
    let wanted = match binder.wanted(device, &request) {
        // As for `claim`: what is required may be there later, and until then no driver is to have the device.
        Err(failure) if failure.kind == Kind::Requirement => Wanted::NoDriver,
        wanted => wanted?.0,
    };
    let driver = plan::first_choice(device, &wanted, request.manner)?;
    let driver = plain(driver.as_deref().unwrap_or(DriverName::none().as_str()))?;
    for Finding { used_as, message, .. } in findings {
        let address = device.address;
        context.output.warn(&format!("{address} ({}): {message}: it is in the image all the same", used_as.name()));
    }
    Ok(driver)
}

/// A name that needs no quotes in a script and in rules.
fn plain(driver: &str) -> Result<DriverName, Failure> {
    let driver = DriverName::from_kernel(driver.to_string());
    match initramfs::is_plain(&driver) {
        true => Ok(driver),
        false => Err(Failure::plain(Kind::Failed, format!("no image can be told of a driver '{driver}'"))),
    }
}

/// What the host uses a device for now is mostly no matter for its next start: that is returned. But without its root there is
/// none, and without what else it mounts at boot (fstab(5), without `nofail`) it ends in an emergency.
fn spare(binder: &Binder<'_>, device: &Device, acknowledged: Uses) -> Result<Vec<Finding>, Refusal> {
    let address = device.address;
    if device.driver.is_none() {
        return Ok(Vec::new());
    }
    let findings = guard::findings(&binder.context.host, address, &binder.together)
        .map_err(|error| Failure::plain(Kind::Failed, format!("{address}: {error}")))?;
    let open = findings.into_iter().filter(|finding| !acknowledged.contains(finding.used_as));
    let is_needed =
        |finding: &Finding| finding.used_as == Use::RootDisk || (finding.used_as == Use::Disk && finding.is_mounted);
    let (needed, others): (Vec<Finding>, Vec<Finding>) = open.partition(is_needed);
    let Some(first) = needed.first() else { return Ok(others) };
    let hint = match first.used_as {
        Use::RootDisk => "without it this host would not start: mend the rule that is about it",
        _ => {
            "if it is in fstab(5) this host would not start without it: unmount it and take it out of there; or have force = [\"disk\"] in the rule"
        }
    };
    let failure = Failure {
        findings: needed.clone(),
        ..Failure::new(
            Kind::Unsafe,
            format!("{address} ({}): {}: it is not in the image", first.used_as.name(), first.message),
            hint,
        )
    };
    Err(Refusal { failure, is_vital: true })
}
