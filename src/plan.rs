// SPDX-License-Identifier: MIT OR Apache-2.0
//! From facts to a plan, or a refusal. Pure: every rule about what may and what should be done to a device is here, and a
//! plan is a value that can be shown, tested and thrown away.

use std::collections::BTreeSet;
use std::fmt;

use crate::address::Address;
use crate::catalog::Catalog;
use crate::guard::{Finding, Holder, Use, Uses};
use crate::kernel_name::{DriverName, ModuleName};
use crate::modules::ModuleState;
use crate::outcome::{Failure, Kind, State};
use crate::prepare::Preparation;
use crate::sysfs::{Device, Group};
use crate::topology;
use crate::verdict::{Candidate, Verdict, to_mend};

/// What is known of a device before anything is done to it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The device.
    pub device: Device,
    /// `driver_override`; `None` when unset. The kernel takes any text, so it need not be a driver's name.
    pub driver_override: Option<String>,
    /// Has its driver made a VFIO device of it?
    pub is_vfio_device: bool,
    /// The names of that in `vfio-dev/`; before 6.1 there are none.
    pub vfio_devices: Vec<String>,
    /// Its IOMMU group.
    pub group: Option<Group>,
    /// The other devices of its group.
    pub siblings: Vec<Sibling>,
    /// The processes that hold it, or its group, through VFIO.
    pub holders: Vec<Holder>,
    /// What this host would lose without it, the most harmful first.
    pub findings: Vec<Finding>,
    /// May VFIO do without an IOMMU here (`enable_unsafe_noiommu_mode`)?
    pub may_lack_iommu: bool,
}

impl Facts {
    /// Is the device on a driver of the VFIO family, or on one that its override put it on? Then giving it back means
    /// taking it from there; a native driver keeps it.
    pub fn is_on_vfio_driver(&self) -> bool {
        self.device.driver.as_ref().is_some_and(|driver| {
            Catalog::bundled().by_driver(driver.as_str()).is_some()
                || self.driver_override.as_deref() == Some(driver.as_str())
        })
    }

    /// The members of its group that keep it from a guest.
    pub fn blockers(&self) -> impl Iterator<Item = &Sibling> {
        self.siblings.iter().filter(|sibling| sibling.blocks_group())
    }

    fn is_on(&self, driver: &str) -> bool {
        self.device.driver.as_ref().is_some_and(|current| current.as_str() == driver)
    }

    fn has_override(&self, text: &str) -> bool {
        self.driver_override.as_deref() == Some(text)
    }
}

/// Another device in the same IOMMU group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sibling {
    /// Where it is.
    pub address: Address,
    /// Its driver.
    pub driver: Option<DriverName>,
    /// Is it a VFIO device?
    pub is_vfio_device: bool,
}

impl Sibling {
    /// Does it keep the group from being given to a guest?
    pub fn blocks_group(&self) -> bool {
        topology::blocks_group(self.driver.as_ref(), self.is_vfio_device)
    }
}

impl fmt::Display for Sibling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {}", self.address, self.driver.as_ref().map_or("no driver", DriverName::as_str))
    }
}

/// A driver to bind to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// Its module, unless it is registered already and came from none.
    pub module: Option<ModuleName>,
    /// Its name; `None` where only loading the module tells.
    pub driver: Option<DriverName>,
    /// How the module stands.
    pub state: ModuleState,
    /// Must it make a VFIO device? A policy may also name a native driver.
    pub is_vfio: bool,
    /// Why this one.
    pub reason: String,
}

impl Target {
    /// The driver's name, or what stands for it until it is known: the module's name. No driver of another name can take
    /// the device while that is its override.
    pub fn name(&self) -> &str {
        match (&self.driver, &self.module) {
            (Some(driver), _) => driver.as_str(),
            (None, Some(module)) => module.as_str(),
            (None, None) => unreachable!("a target has a driver or a module"),
        }
    }

    fn needs_loading(&self) -> bool {
        !matches!(self.state, ModuleState::Loaded | ModuleState::BuiltIn)
    }
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Write `driver_override`.
    Override(String),
    /// Clear `driver_override`.
    ClearOverride,
    /// Take the device from its driver.
    Unbind(DriverName),
    /// Run a program that sets the device up for its driver.
    Prepare(Preparation),
    /// Run the program that puts that back.
    Unprepare(Preparation),
    /// Load a module by its name.
    Load(ModuleName),
    /// Load the native drivers that the modalias names, if there are any.
    LoadNative,
    /// Bind to this driver, and verify it.
    Bind(Target),
    /// Bind to a driver it was on before.
    Rebind(DriverName),
    /// Let the kernel choose.
    Probe,
}

/// An action and why it is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What.
    pub action: Action,
    /// Why.
    pub reason: String,
}

impl Step {
    fn new(action: Action, reason: impl Into<String>) -> Step {
        Step { action, reason: reason.into() }
    }
}

/// What is to be done to bind a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BindPlan {
    /// The drivers to try, best first, each with its steps. Empty: it is on the right one already.
    pub attempts: Vec<Attempt>,
    /// What to tell besides.
    pub warnings: Vec<String>,
    /// What this host may lose with the device, whichever driver is tried.
    pub acknowledged: Uses,
}

/// One driver to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The driver; `None` where the device is to be kept off all drivers.
    pub target: Option<Target>,
    /// How.
    pub steps: Vec<Step>,
}

impl Attempt {
    /// Puts these steps where the device is on no driver any more and not yet on the next, which may read only then how it
    /// is set up; loading the module can already bind it.
    pub fn prepare(&mut self, preparations: Vec<Preparation>) {
        let is_after = |step: &Step| matches!(step.action, Action::Load(_) | Action::Bind(_));
        let at = self.steps.iter().position(is_after).unwrap_or(self.steps.len());
        let steps = preparations.into_iter().map(|preparation| {
            let reason = match preparation.is_done {
                true => format!("already so, not run again: {}", preparation.what),
                false => preparation.what.clone(),
            };
            Step::new(Action::Prepare(preparation), reason)
        });
        self.steps.splice(at..at, steps);
    }

    /// Is there anything of that kind to be done?
    pub fn is_prepared(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.action, Action::Prepare(_)))
    }
}

/// What was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// The candidates, best first, with how their modules stand.
    Best(Vec<(Candidate, ModuleState)>),
    /// This driver and no other.
    Named(Target),
    /// No driver at all.
    NoDriver,
}

impl Wanted {
    /// The names that may come to be the device's driver or override: of drivers, or of modules that stand for theirs.
    pub fn names(&self) -> BTreeSet<String> {
        match self {
            Wanted::Best(candidates) => candidates.iter().map(|(candidate, _)| candidate.name().to_string()).collect(),
            Wanted::Named(target) => BTreeSet::from([target.name().to_string()]),
            Wanted::NoDriver => BTreeSet::from([DriverName::none().to_string()]),
        }
    }
}

/// How it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manner {
    /// No other driver when the best cannot be used or fails.
    pub is_strict: bool,
    /// Also a driver that does not list the device.
    pub any_driver: bool,
    /// Also a device that another framework has made a VFIO device of.
    pub take_over: bool,
    /// Also what this host would lose with it.
    pub acknowledged: Uses,
    /// Up to the driver, but not to it: the device is left on none, for whoever probes it next.
    pub is_unprobed: bool,
}

/// Plans a bind.
pub fn bind(facts: &Facts, wanted: &Wanted, manner: Manner) -> Result<BindPlan, Failure> {
    let device = &facts.device;
    if !matches!(wanted, Wanted::Named(target) if !target.is_vfio) {
        check_no_bridge(device)?;
    }
    let targets = match wanted {
        Wanted::NoDriver => return keep_off(facts, manner.acknowledged),
        Wanted::Named(target) => vec![target.clone()],
        Wanted::Best(candidates) => best_targets(device, candidates, manner.is_strict)?,
    };
    let first = &targets[0];
    // The link alone says little: it shows before the probe is over (`drivers/base/dd.c`, `really_probe`).
    let is_on_first = facts.is_on(first.name()) && (!first.is_vfio || facts.is_vfio_device);
    if is_on_first {
        return Ok(BindPlan { attempts: Vec::new(), warnings: doubts(wanted), acknowledged: manner.acknowledged });
    }
    if first.is_vfio {
        check_fit(facts, manner)?;
    }
    if first.state == ModuleState::Missing {
        return Err(missing_module(device.address, first));
    }
    check_may_leave(facts, manner.acknowledged, "bind")?;

    let mut warnings = doubts(wanted);
    warnings.extend(losses(facts));
    warnings.extend(group_warning(facts).filter(|_| first.is_vfio));
    if manner.is_unprobed {
        let attempt = Attempt { steps: steps_short_of(facts, first)?, target: Some(first.clone()) };
        return Ok(BindPlan { attempts: vec![attempt], warnings, acknowledged: manner.acknowledged });
    }
    let attempts =
        targets.into_iter().map(|target| Attempt { steps: steps_to(facts, &target), target: Some(target) }).collect();
    Ok(BindPlan { attempts, warnings, acknowledged: manner.acknowledged })
}

/// The driver that is tried first, as far as no more than the device's ids is known; `None`: none is to have it.
pub fn first_choice(device: &Device, wanted: &Wanted, manner: Manner) -> Result<Option<String>, Failure> {
    let first = match wanted {
        Wanted::NoDriver => return Ok(None),
        Wanted::Named(target) => target.clone(),
        Wanted::Best(candidates) => best_targets(device, candidates, manner.is_strict)?.swap_remove(0),
    };
    match first.state {
        ModuleState::Missing => Err(missing_module(device.address, &first)),
        _ => Ok(Some(first.name().to_string())),
    }
}

/// The part of a plan that comes before any driver does: the override, with which no other driver can take the device.
pub fn claim(plan: &BindPlan) -> Vec<Step> {
    let steps = plan.attempts.first().map(|attempt| attempt.steps.as_slice()).unwrap_or_default();
    steps.iter().filter(|step| matches!(step.action, Action::Override(_))).cloned().collect()
}

fn best_targets(
    device: &Device,
    candidates: &[(Candidate, ModuleState)],
    is_strict: bool,
) -> Result<Vec<Target>, Failure> {
    let address = device.address;
    let blocked = candidates.iter().map(|(candidate, _)| candidate).find(|c| c.verdict == Verdict::Blocked);
    let is_best_blocked = candidates.first().is_some_and(|(first, _)| first.verdict == Verdict::Blocked);
    if let Some(candidate) = blocked.filter(|_| is_strict && is_best_blocked) {
        return Err(Failure::new(
            Kind::Unsafe,
            format!(
                "{address}: the best driver, {}, cannot be used: {}",
                candidate.name(),
                candidate.reasons.join("; ")
            ),
            format!(
                "{}, or leave --strict out to take the next best",
                to_mend(&candidate.mend).unwrap_or("mend that".to_string())
            ),
        )
        .mended_by(&candidate.mend));
    }
    let mut targets =
        candidates.iter().filter(|(candidate, _)| candidate.verdict != Verdict::Blocked).map(|(candidate, state)| {
            Target {
                module: Some(candidate.module.clone()),
                driver: candidate.driver.clone(),
                state: *state,
                is_vfio: true,
                reason: candidate.claim(),
            }
        });
    let Some(best) = targets.next() else {
        let why = blocked.map_or(String::new(), |candidate| {
            format!(" and can be used: {}: {}", candidate.name(), candidate.doubt())
        });
        return Err(Failure::new(
            Kind::NoDriver,
            format!("{address}: no VFIO driver matches {}{why}", device.modalias.as_str()),
            "see 'vfioctl drivers' for what this kernel has",
        )
        .mended_by(blocked.map_or(&[], |candidate| &candidate.mend)));
    };
    // A fallback that is not there is none.
    let fallbacks = targets.filter(|target| !is_strict && target.state != ModuleState::Missing);
    Ok(std::iter::once(best).chain(fallbacks).collect())
}

/// What the chosen driver falls short of, and what better one was passed over.
fn doubts(wanted: &Wanted) -> Vec<String> {
    let Wanted::Best(candidates) = wanted else { return Vec::new() };
    let mut doubts = Vec::new();
    for (candidate, _) in candidates {
        match candidate.verdict {
            Verdict::Blocked => {
                doubts.push(format!("{} passed over: {}", candidate.name(), candidate.doubt()));
            }
            Verdict::Limited => doubts.push(format!("{}: {}", candidate.name(), candidate.doubt())),
            Verdict::Best | Verdict::Fallback => {}
        }
        if candidate.verdict != Verdict::Blocked {
            break;
        }
    }
    doubts
}

fn group_warning(facts: &Facts) -> Option<String> {
    let group = facts.group.as_ref()?;
    let blockers: Vec<String> = facts.blockers().map(Sibling::to_string).collect();
    (!blockers.is_empty()).then(|| {
        format!(
            "IOMMU group {} cannot be given to a guest yet: it also holds {}; bind or unbind these too",
            group.number,
            blockers.join(", ")
        )
    })
}

/// What must not or cannot be bound to VFIO, whatever the driver.
fn check_fit(facts: &Facts, manner: Manner) -> Result<(), Failure> {
    let device = &facts.device;
    let address = device.address;
    if let Some(driver) = device.driver.as_ref().filter(|_| facts.is_vfio_device && !manner.take_over) {
        if !facts.is_on_vfio_driver() {
            return Err(Failure::new(
                Kind::Unsafe,
                format!("{address} is a VFIO device already, made by driver {driver}: it was left alone"),
                "give it to the guest as it is, or take it with --force=vfio",
            ));
        }
    }
    match &facts.group {
        None if facts.may_lack_iommu => Ok(()),
        None => Err(Failure::new(
            Kind::Unsafe,
            format!("{address} has no IOMMU group: VFIO needs an IOMMU"),
            "turn it on in the firmware (VT-d, AMD-Vi, SMMU) and, on Intel, with intel_iommu=on on the kernel command line",
        )),
        Some(group) if group.is_direct_mapped => Err(Failure::new(
            Kind::Unsafe,
            format!(
                "{address}: firmware has asked for a fixed mapping in IOMMU group {} (a 'direct' line in its \
                 reserved_regions): VFIO cannot have it",
                group.number
            ),
            "look for a firmware setting that shares this device with the management controller (RMRR), and turn it off",
        )),
        Some(_) => Ok(()),
    }
}

/// No VFIO driver takes a bridge, whoever asks.
pub fn check_no_bridge(device: &Device) -> Result<(), Failure> {
    if !device.is_bridge() {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Unsafe,
        format!("{} is a bridge: no VFIO driver takes one", device.address),
        "bind the devices behind it; a bridge on pcieport does not keep its IOMMU group from being used",
    ))
}

/// May another driver be tried, now that the device was back on its own? Whoever uses it by then may be another than before.
pub fn may_try_again(facts: &Facts, acknowledged: Uses) -> Result<(), Failure> {
    check_may_leave(facts, acknowledged, "bind")
}

/// What must not be taken from the driver it is on, whoever is to have it then; `verb` is what can be told to do it in spite of
/// what the host would lose.
fn check_may_leave(facts: &Facts, acknowledged: Uses, verb: &str) -> Result<(), Failure> {
    let device = &facts.device;
    let address = device.address;
    let Some(driver) = &device.driver else { return Ok(()) };
    check_no_bridge(device)?;
    if !device.vfs.is_empty() {
        return Err(Failure::new(
            Kind::Unsafe,
            format!(
                "{address} is a PF with {} VFs enabled: taking its driver away would destroy them",
                device.vfs.len()
            ),
            format!("'vfioctl sriov {address} 0' removes them; or bind its VFs instead"),
        ));
    }
    if !facts.holders.is_empty() {
        let holders: Vec<String> = facts.holders.iter().map(Holder::to_string).collect();
        return Err(Failure::new(
            Kind::Unsafe,
            format!("{address} is in use: {}; taking {driver} away would wait for them", holders.join(", ")),
            "stop the VM or program that has it, then try again",
        ));
    }
    check_findings(address, &facts.findings, acknowledged, &|force| format!("vfioctl {verb} {force} {address}"))
}

/// Each kind of loss has to be acknowledged by its name; `command` is what does it in spite of them, given that option.
pub fn check_findings(
    address: Address,
    findings: &[Finding],
    acknowledged: Uses,
    command: &dyn Fn(&str) -> String,
) -> Result<(), Failure> {
    let open: Vec<Finding> =
        findings.iter().filter(|finding| !acknowledged.contains(finding.used_as)).cloned().collect();
    let Some(worst) = open.first() else { return Ok(()) };
    let messages: Vec<&str> = open.iter().map(|finding| finding.message.as_str()).collect();
    let mut kinds: Vec<&str> = open.iter().map(|finding| finding.used_as.name()).collect();
    kinds.dedup();
    let mend: Vec<String> = open.iter().filter_map(|finding| finding.mend.clone()).collect();
    let end_it = match mend.as_slice() {
        [] => "end that first".to_string(),
        commands => format!("end that first: {}", commands.join(" && ")),
    };
    let force = format!("'{}'", command(&format!("--force={}", kinds.join(","))));
    let (lost, hint) = match worst.used_as {
        Use::RootDisk => ("this system would not live on without it", format!("only {force} takes it")),
        Use::Session => ("nobody could reach this host from here any more", format!("only {force} takes it")),
        _ => ("nothing was touched", format!("{end_it}; {force} takes it all the same")),
    };
    Err(Failure {
        findings: open.clone(),
        ..Failure::new(Kind::Unsafe, format!("{address} is in use: {}; {lost}", messages.join("; ")), hint)
            .mended_by(&mend)
    })
}

/// What was acknowledged is said once more.
fn losses(facts: &Facts) -> Vec<String> {
    facts.findings.iter().map(|finding| format!("taken away in use: {}", finding.message)).collect()
}

fn missing_module(address: Address, target: &Target) -> Failure {
    let module = target.module.as_ref().map_or(target.name(), ModuleName::as_str);
    Failure::new(
        Kind::Module,
        format!(
            "{address}: the alias table names module {module}, but this kernel has no such module; nothing was touched"
        ),
        "run 'depmod -a', or install the package that has the module, or choose another with --driver",
    )
}

/// Override, unbind, load, bind: what is so already is left out.
fn steps_to(facts: &Facts, target: &Target) -> Vec<Step> {
    let name = target.name();
    let needs_loading = target.needs_loading();
    let mut steps = Vec::new();
    if !facts.has_override(name) {
        let reason = match &target.driver {
            None => "keeps other drivers off until the module has told its driver's name",
            Some(_) if needs_loading => {
                "before the module is loaded: loading it may load a native driver, which would take the device"
            }
            Some(_) => "lets this driver alone have the device",
        };
        steps.push(Step::new(Action::Override(name.to_string()), reason));
    }
    if let Some(driver) = &facts.device.driver {
        steps.push(Step::new(Action::Unbind(driver.clone()), "a device has one driver at a time"));
    }
    if let Some(module) = target.module.as_ref().filter(|_| needs_loading) {
        steps.push(Step::new(Action::Load(module.clone()), format!("has driver {name}")));
    }
    steps.push(Step::new(Action::Bind(target.clone()), target.reason.clone()));
    steps
}

/// All but the binding. Loading a module that registers a driver probes the devices that are on none, so meanwhile no
/// driver may have it.
fn steps_short_of(facts: &Facts, target: &Target) -> Result<Vec<Step>, Failure> {
    let name = target.name();
    let mut steps = Vec::new();
    let mut is_override_set = facts.has_override(name);
    if let Some(module) = target.module.as_ref().filter(|_| target.needs_loading()) {
        if target.driver.is_none() {
            return Err(Failure::new(
                Kind::Module,
                format!("{}: what driver module {module} has is known only once it is loaded", facts.device.address),
                format!("'modprobe {module}', then try again"),
            ));
        }
        let none = DriverName::none();
        if !facts.has_override(none.as_str()) {
            steps.push(Step::new(
                Action::Override(none.to_string()),
                "keeps all drivers off while the module is loaded",
            ));
        }
        is_override_set = false;
        steps.push(Step::new(Action::Load(module.clone()), format!("has driver {name}")));
    }
    if let Some(driver) = &facts.device.driver {
        steps.push(Step::new(Action::Unbind(driver.clone()), "a device has one driver at a time"));
    }
    if !is_override_set {
        steps.push(Step::new(Action::Override(name.to_string()), "for whoever probes the device"));
    }
    Ok(steps)
}

/// `none`: an override that is no driver's name, and no driver.
fn keep_off(facts: &Facts, acknowledged: Uses) -> Result<BindPlan, Failure> {
    check_may_leave(facts, acknowledged, "bind --driver none")?;
    let none = DriverName::none();
    let mut steps = Vec::new();
    if !facts.has_override(none.as_str()) {
        steps.push(Step::new(Action::Override(none.to_string()), "no driver has this name"));
    }
    if let Some(driver) = &facts.device.driver {
        steps.push(Step::new(Action::Unbind(driver.clone()), "no driver is wanted"));
    }
    let attempts = if steps.is_empty() { Vec::new() } else { vec![Attempt { target: None, steps }] };
    Ok(BindPlan { attempts, warnings: losses(facts), acknowledged })
}

/// Plans giving a device back to the kernel's own choice, or to `driver`.
pub fn unbind(facts: &Facts, driver: Option<&Target>, acknowledged: Uses) -> Result<Vec<Step>, Failure> {
    let steps = match driver {
        Some(target) => move_to(facts, target)?,
        None => give_back(facts),
    };
    if steps.iter().any(|step| matches!(step.action, Action::Unbind(_))) {
        check_may_leave(facts, acknowledged, "unbind")?;
    }
    Ok(steps)
}

fn give_back(facts: &Facts) -> Vec<Step> {
    let driver = &facts.device.driver;
    let mut steps = Vec::new();
    if facts.driver_override.is_some() {
        steps.push(Step::new(Action::ClearOverride, "any driver may have the device again"));
    }
    let is_ours = facts.is_on_vfio_driver();
    if let Some(current) = driver.as_ref().filter(|_| is_ours) {
        steps.push(Step::new(Action::Unbind(current.clone()), "gives the device back"));
    }
    if is_ours || driver.is_none() {
        steps.push(Step::new(Action::LoadNative, "the native driver may not be loaded yet"));
        steps.push(Step::new(Action::Probe, "lets the kernel choose"));
    }
    steps
}

/// To a native driver by name, without an override: so the kernel holds the driver to its own table.
fn move_to(facts: &Facts, target: &Target) -> Result<Vec<Step>, Failure> {
    let (address, name) = (facts.device.address, target.name());
    if target.is_vfio {
        return Err(Failure::new(
            Kind::Unsafe,
            format!("{address}: {name} is a VFIO driver, and 'unbind' gives devices back"),
            format!("'vfioctl bind --driver {name} {address}' binds it"),
        ));
    }
    let mut steps = Vec::new();
    if facts.driver_override.is_some() {
        steps.push(Step::new(Action::ClearOverride, "no choice is kept"));
    }
    if facts.is_on(name) {
        return Ok(steps);
    }
    if let Some(current) = &facts.device.driver {
        steps.push(Step::new(Action::Unbind(current.clone()), "a device has one driver at a time"));
    }
    if let Some(module) = target.module.as_ref().filter(|_| target.needs_loading()) {
        steps.push(Step::new(Action::Load(module.clone()), format!("has driver {name}")));
    }
    steps.push(Step::new(Action::Bind(target.clone()), "as asked for"));
    Ok(steps)
}

/// How a device is bound: what putting it back has to restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Its driver.
    pub driver: Option<DriverName>,
    /// Its override.
    pub driver_override: Option<String>,
}

impl From<&Binding> for State {
    fn from(binding: &Binding) -> State {
        State {
            driver: Some(binding.driver.as_ref().map(DriverName::to_string)),
            driver_override: Some(binding.driver_override.clone()),
            persisted: None,
        }
    }
}

/// How a device will be bound once these steps are taken, as far as that is known before.
pub fn foresee(before: &State, steps: &[Step]) -> State {
    let mut state = before.clone();
    for step in steps {
        match &step.action {
            Action::Override(name) => state.driver_override = Some(Some(name.clone())),
            Action::ClearOverride => state.driver_override = Some(None),
            Action::Unbind(_) => state.driver = Some(None),
            Action::Bind(target) => state.driver = target.driver.as_ref().map(|driver| Some(driver.to_string())),
            Action::Rebind(driver) => state.driver = Some(Some(driver.to_string())),
            // The kernel's choice, once what it may choose is loaded.
            Action::Probe => state.driver = None,
            Action::Prepare(_) | Action::Unprepare(_) | Action::Load(_) | Action::LoadNative => {}
        }
    }
    state
}

impl From<&Facts> for Binding {
    fn from(facts: &Facts) -> Binding {
        Binding { driver: facts.device.driver.clone(), driver_override: facts.driver_override.clone() }
    }
}

/// Plans giving a device back to whom it was taken from, what was `prepared` for it undone. A native driver that is no longer
/// registered is loaded first.
pub fn give_back_to(
    facts: &Facts,
    before: &Binding,
    prepared: &[Preparation],
    is_registered: bool,
) -> Result<Vec<Step>, Failure> {
    let mut steps = restore(before, &Binding::from(facts), prepared);
    if steps.iter().any(|step| matches!(step.action, Action::Unbind(_))) {
        check_may_leave(facts, Uses::NONE, "unbind")?;
    }
    if !is_registered && steps.iter().any(|step| matches!(step.action, Action::Rebind(_))) {
        steps.insert(0, Step::new(Action::LoadNative, "the driver it was on is not loaded any more"));
    }
    Ok(steps)
}

/// The steps from how it is `now` to how it was `before`. What was `prepared` since is put back in reverse, and while the
/// device is on no driver, as it was done.
pub fn restore(before: &Binding, now: &Binding, prepared: &[Preparation]) -> Vec<Step> {
    const REASON: &str = "as it was before";
    let set = |text: &Option<String>| match text {
        Some(text) => Step::new(Action::Override(text.clone()), REASON),
        None => Step::new(Action::ClearOverride, REASON),
    };
    let undone = prepared.iter().rev().filter(|preparation| preparation.undo.is_some());
    let undone = undone.map(|preparation| Step::new(Action::Unprepare(preparation.clone()), REASON));
    let mut steps = Vec::new();
    if now.driver == before.driver {
        steps.extend(undone);
        if now.driver_override != before.driver_override {
            steps.push(set(&before.driver_override));
        }
        return steps;
    }
    if let Some(driver) = &now.driver {
        steps.push(Step::new(Action::Unbind(driver.clone()), REASON));
    }
    steps.extend(undone);
    let mut current = now.driver_override.clone();
    if let Some(driver) = &before.driver {
        // Its own table need not list the device: an override, or an id that is gone since, may have brought it there.
        let during = Some(driver.to_string());
        if current != during {
            steps.push(set(&during));
            current = during;
        }
        steps.push(Step::new(Action::Rebind(driver.clone()), REASON));
    }
    if current != before.driver_override {
        steps.push(set(&before.driver_override));
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::Source;
    use crate::verdict::Ability;

    const VF: &str = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00";
    const BRIDGE: &str = "pci:v00008086d00002030sv00008086sd00000000bc06sc04i00";

    fn driver(name: &str) -> DriverName {
        name.parse().unwrap()
    }

    fn facts(modalias: &str, on: Option<&str>, driver_override: Option<&str>) -> Facts {
        Facts {
            device: Device {
                address: "0000:3b:00.1".parse().unwrap(),
                modalias: modalias.parse().unwrap(),
                driver: on.map(driver),
                iommu_group: Some(7),
                pf: None,
                vfs: Vec::new(),
            },
            driver_override: driver_override.map(str::to_string),
            is_vfio_device: on.is_some_and(|name| name.contains("vfio")),
            vfio_devices: Vec::new(),
            group: Some(Group { number: 7, ..Group::default() }),
            siblings: Vec::new(),
            holders: Vec::new(),
            findings: Vec::new(),
            may_lack_iommu: false,
        }
    }

    fn candidate(name: &str, verdict: Verdict, state: ModuleState) -> (Candidate, ModuleState) {
        let candidate = Candidate {
            module: name.parse().unwrap(),
            driver: Some(driver(name)),
            alias: "vfio_pci:x".to_string(),
            wildcards: 5,
            source: Source::ModulesAlias,
            verdict,
            reasons: vec!["a reason".to_string()],
            mend: vec!["a command".to_string()],
            migration: Ability::Depends,
            dirty_tracking: Ability::No,
        };
        (candidate, state)
    }

    fn mlx5_and_generic(state: ModuleState) -> Wanted {
        Wanted::Best(vec![
            candidate("mlx5_vfio_pci", Verdict::Best, state),
            candidate("vfio-pci", Verdict::Fallback, ModuleState::Loaded),
        ])
    }

    /// A plan as one line: attempts separated by ` | `.
    fn shown(steps: &[Step]) -> String {
        let words = steps.iter().map(|step| {
            let record = crate::apply::step_record(step);
            record.target.map_or(record.step.to_string(), |target| format!("{}={target}", record.step))
        });
        words.collect::<Vec<_>>().join(" ")
    }

    fn planned(facts: &Facts, wanted: &Wanted, manner: Manner) -> Result<String, Kind> {
        let plan = bind(facts, wanted, manner).map_err(|failure| failure.kind)?;
        Ok(plan.attempts.iter().map(|attempt| shown(&attempt.steps)).collect::<Vec<_>>().join(" | "))
    }

    const STRICT: Manner =
        Manner { is_strict: true, any_driver: false, take_over: false, acknowledged: Uses::NONE, is_unprobed: false };

    /// What is foreseen of a plan is what its steps come to, and of the kernel's own choice nothing.
    #[test]
    fn what_steps_come_to_is_foreseen_as_far_as_it_is_known() {
        let before = facts(VF, Some("mlx5_core"), None);
        let foreseen = |steps: &[Step]| foresee(&State::from(&Binding::from(&before)), steps);
        assert_eq!(foreseen(&[]), State::from(&Binding::from(&before)));

        let wanted = mlx5_and_generic(ModuleState::Installed);
        let plan = bind(&before, &wanted, STRICT).unwrap();
        let bound = Some(Some("mlx5_vfio_pci".to_string()));
        let expected = State { driver: bound.clone(), driver_override: bound, persisted: None };
        assert_eq!(foreseen(&plan.attempts[0].steps), expected);

        let bound = facts(VF, Some("vfio-pci"), Some("vfio-pci"));
        let steps = unbind(&bound, None, Uses::NONE).unwrap();
        let given_back = foresee(&State::from(&Binding::from(&bound)), &steps);
        assert_eq!(given_back, State { driver: None, driver_override: Some(None), persisted: None });
    }

    #[test]
    fn the_override_comes_first_and_the_fallback_last() {
        let wanted = mlx5_and_generic(ModuleState::Installed);
        let facts = facts(VF, Some("mlx5_core"), None);
        let variant = "override=mlx5_vfio_pci unbind=mlx5_core load=mlx5_vfio_pci bind=mlx5_vfio_pci";
        let generic = "override=vfio-pci unbind=mlx5_core bind=vfio-pci";
        assert_eq!(planned(&facts, &wanted, Manner::default()), Ok(format!("{variant} | {generic}")));
        assert_eq!(planned(&facts, &wanted, STRICT), Ok(variant.to_string()));
    }

    #[test]
    fn what_is_not_probed_is_on_no_driver_and_nothing_can_take_it_meanwhile() {
        let unprobed = Manner { is_unprobed: true, ..Manner::default() };
        let case = |on, text, state| planned(&facts(VF, on, text), &mlx5_and_generic(state), unprobed).unwrap();
        use ModuleState::{Installed, Loaded};
        assert_eq!(case(Some("mlx5_core"), None, Loaded), "unbind=mlx5_core override=mlx5_vfio_pci");
        let loading = "override=none load=mlx5_vfio_pci";
        assert_eq!(
            case(Some("mlx5_core"), None, Installed),
            format!("{loading} unbind=mlx5_core override=mlx5_vfio_pci")
        );
        assert_eq!(case(None, Some("mlx5_vfio_pci"), Installed), format!("{loading} override=mlx5_vfio_pci"));
        assert_eq!(case(None, Some("none"), Installed), "load=mlx5_vfio_pci override=mlx5_vfio_pci");
        assert_eq!(case(None, Some("mlx5_vfio_pci"), Loaded), "");
        assert_eq!(case(Some("mlx5_vfio_pci"), Some("mlx5_vfio_pci"), Loaded), "");
    }

    #[test]
    fn what_is_so_already_is_left_out() {
        let wanted = mlx5_and_generic(ModuleState::Loaded);
        let case = |on, text| planned(&facts(VF, on, text), &wanted, STRICT).unwrap();
        assert_eq!(case(None, None), "override=mlx5_vfio_pci bind=mlx5_vfio_pci");
        assert_eq!(case(None, Some("mlx5_vfio_pci")), "bind=mlx5_vfio_pci");
        assert_eq!(case(Some("mlx5_vfio_pci"), None), "");
        // The link alone is not enough: a probe may be going on.
        let mut probing = facts(VF, Some("mlx5_vfio_pci"), Some("mlx5_vfio_pci"));
        probing.is_vfio_device = false;
        assert_eq!(planned(&probing, &wanted, STRICT).unwrap(), "unbind=mlx5_vfio_pci bind=mlx5_vfio_pci");
        assert_eq!(
            case(Some("vfio-pci"), Some("vfio-pci")),
            "override=mlx5_vfio_pci unbind=vfio-pci bind=mlx5_vfio_pci"
        );
    }

    #[test]
    fn a_driver_whose_name_is_not_known_yet_is_waited_for_under_its_modules_name() {
        let target = Target {
            module: Some("new_vfio_pci".parse().unwrap()),
            driver: None,
            state: ModuleState::Installed,
            is_vfio: true,
            reason: String::new(),
        };
        assert_eq!(
            planned(&facts(VF, None, None), &Wanted::Named(target), STRICT),
            Ok("override=new_vfio_pci load=new_vfio_pci bind=new_vfio_pci".to_string())
        );
    }

    #[test]
    fn what_is_refused() {
        let wanted = mlx5_and_generic(ModuleState::Loaded);
        let usual = facts(VF, Some("mlx5_core"), None);
        let refused = |facts: &Facts| planned(facts, &wanted, Manner::default()).unwrap_err();

        assert_eq!(refused(&facts(BRIDGE, Some("pcieport"), None)), Kind::Unsafe);
        let no_group = Facts { group: None, ..usual.clone() };
        assert_eq!(refused(&no_group), Kind::Unsafe);
        assert!(planned(&Facts { may_lack_iommu: true, ..no_group }, &wanted, Manner::default()).is_ok());
        let mut reserved = usual.clone();
        reserved.group.as_mut().unwrap().is_direct_mapped = true;
        assert_eq!(refused(&reserved), Kind::Unsafe);
        let mut with_vfs = usual.clone();
        with_vfs.device.vfs.push("0000:3b:00.2".parse().unwrap());
        assert_eq!(refused(&with_vfs), Kind::Unsafe);
        let mut foreign = facts(VF, Some("nvidia"), None);
        foreign.is_vfio_device = true;
        assert_eq!(refused(&foreign), Kind::Unsafe);
        assert!(planned(&foreign, &wanted, Manner { take_over: true, ..Manner::default() }).is_ok());
    }

    #[test]
    fn what_is_right_already_is_not_refused() {
        let mut device = facts(VF, Some("mlx5_vfio_pci"), None);
        device.group = None;
        assert_eq!(planned(&device, &mlx5_and_generic(ModuleState::Loaded), STRICT), Ok(String::new()));
    }

    #[test]
    fn a_missing_module_fails_before_anything_is_touched() {
        let device = facts(VF, None, None);
        assert_eq!(planned(&device, &mlx5_and_generic(ModuleState::Missing), Manner::default()), Err(Kind::Module));
        // As a fallback it is simply not there.
        let wanted = Wanted::Best(vec![
            candidate("mlx5_vfio_pci", Verdict::Best, ModuleState::Loaded),
            candidate("vfio-pci", Verdict::Fallback, ModuleState::Missing),
        ]);
        assert_eq!(
            planned(&device, &wanted, Manner::default()),
            Ok("override=mlx5_vfio_pci bind=mlx5_vfio_pci".to_string())
        );
    }

    #[test]
    fn a_blocked_best_is_passed_over_unless_strict() {
        let wanted = Wanted::Best(vec![
            candidate("qat_vfio_pci", Verdict::Blocked, ModuleState::Loaded),
            candidate("vfio-pci", Verdict::Best, ModuleState::Loaded),
        ]);
        let device = facts(VF, None, None);
        assert_eq!(planned(&device, &wanted, Manner::default()), Ok("override=vfio-pci bind=vfio-pci".to_string()));
        let refused = bind(&device, &wanted, STRICT).unwrap_err();
        assert_eq!(refused.kind, Kind::Unsafe);
        assert!(refused.message.contains("qat_vfio_pci, cannot be used: a reason"), "{}", refused.message);
        assert!(refused.hint.as_ref().unwrap().starts_with("to mend: a command, or leave --strict out"), "{refused:?}");
        assert_eq!(refused.mend, ["a command"]);
        let warnings = bind(&device, &wanted, Manner::default()).unwrap().warnings;
        assert_eq!(warnings, ["qat_vfio_pci passed over: a reason; to mend: a command"]);
        let none = Wanted::Best(vec![candidate("qat_vfio_pci", Verdict::Blocked, ModuleState::Loaded)]);
        assert_eq!(planned(&device, &none, Manner::default()), Err(Kind::NoDriver));
        assert_eq!(planned(&device, &Wanted::Best(Vec::new()), Manner::default()), Err(Kind::NoDriver));
    }

    #[test]
    fn siblings_on_native_drivers_are_warned_of() {
        let mut device = facts(VF, None, None);
        let sibling = |address: &str, on: Option<&str>, is_vfio_device| Sibling {
            address: address.parse().unwrap(),
            driver: on.map(driver),
            is_vfio_device,
        };
        device.siblings = vec![
            sibling("0000:3a:00.0", Some("pcieport"), false),
            sibling("0000:3b:00.2", None, false),
            sibling("0000:3b:00.3", Some("nvidia"), true),
        ];
        let warnings = |facts: &Facts| bind(facts, &mlx5_and_generic(ModuleState::Loaded), STRICT).unwrap().warnings;
        assert!(warnings(&device).is_empty());
        device.siblings.push(sibling("0000:3b:00.4", Some("snd_hda_intel"), false));
        assert_eq!(warnings(&device).len(), 1);
        assert!(warnings(&device)[0].contains("0000:3b:00.4 on snd_hda_intel"));
    }

    #[test]
    fn what_a_vm_holds_is_not_taken_away() {
        let mut device = facts(VF, Some("vfio-pci"), Some("vfio-pci"));
        device.holders =
            vec![Holder { pid: 41, command: "qemu".to_string(), node: Some("/dev/vfio/7".into()), has_device: None }];
        let failure = unbind(&device, None, Uses::NONE).unwrap_err();
        assert_eq!(failure.kind, Kind::Unsafe);
        assert!(failure.message.contains("qemu (pid 41) has /dev/vfio/7 open"), "{}", failure.message);
        assert_eq!(planned(&device, &mlx5_and_generic(ModuleState::Loaded), STRICT), Err(Kind::Unsafe));
        assert_eq!(planned(&device, &Wanted::NoDriver, STRICT), Err(Kind::Unsafe));
        // What need not be moved may be held.
        device.device.driver = Some(driver("mlx5_vfio_pci"));
        assert_eq!(planned(&device, &mlx5_and_generic(ModuleState::Loaded), STRICT), Ok(String::new()));
    }

    #[test]
    fn what_this_host_lives_on_is_not_taken_away_unasked() {
        let disk = || Finding::new(Use::Disk, "/srv is mounted from nvme0n1p1").mended_by("umount /srv");
        let root = || Finding::new(Use::RootDisk, "/ is mounted from nvme0n1p2");
        let wanted = mlx5_and_generic(ModuleState::Loaded);
        for (findings, acknowledged, hint) in [
            (
                vec![disk()],
                &[][..],
                Some("end that first: umount /srv; 'vfioctl bind --force=disk 0000:3b:00.1' takes it all the same"),
            ),
            (vec![disk()], &[Use::Disk], None),
            (vec![root(), disk()], &[Use::Disk], Some("only 'vfioctl bind --force=root-disk 0000:3b:00.1' takes it")),
            (vec![root(), disk()], &[], Some("only 'vfioctl bind --force=root-disk,disk 0000:3b:00.1' takes it")),
            (vec![root(), disk()], &[Use::RootDisk, Use::Disk], None),
        ] {
            let facts = Facts { findings: findings.clone(), ..facts(VF, Some("nvme"), None) };
            let manner = Manner { acknowledged: acknowledged.iter().copied().collect(), ..Manner::default() };
            let failure = bind(&facts, &wanted, manner).err();
            assert_eq!(failure.as_ref().and_then(|failure| failure.hint.as_deref()), hint, "{findings:?}");
            if let Some(failure) = &failure {
                assert_eq!(failure.kind, Kind::Unsafe);
                assert!(failure.findings.iter().all(|finding| failure.message.contains(&finding.message)));
            }
            assert_eq!(failure.is_some(), bind(&facts, &Wanted::NoDriver, manner).is_err(), "{findings:?}");
            if failure.is_none() {
                // What was lost is said.
                let warnings = bind(&facts, &wanted, manner).unwrap().warnings;
                assert!(findings.iter().all(|finding| warnings.iter().any(|text| text.contains(&finding.message))));
            }
        }
        // Where nothing is taken, nothing is lost.
        let on_none = Facts { findings: vec![root()], ..facts(VF, None, None) };
        assert!(bind(&on_none, &wanted, Manner::default()).is_ok());
    }

    #[test]
    fn keeping_all_drivers_off() {
        let case = |on, text| planned(&facts(VF, on, text), &Wanted::NoDriver, STRICT).unwrap();
        assert_eq!(case(Some("mlx5_core"), None), "override=none unbind=mlx5_core");
        assert_eq!(case(None, Some("none")), "");
        let mut pf = facts(VF, Some("mlx5_core"), None);
        pf.device.vfs.push("0000:3b:00.2".parse().unwrap());
        assert_eq!(planned(&pf, &Wanted::NoDriver, STRICT), Err(Kind::Unsafe));
        assert_eq!(planned(&facts(BRIDGE, Some("pcieport"), None), &Wanted::NoDriver, STRICT), Err(Kind::Unsafe));
    }

    #[test]
    fn giving_back() {
        let case = |on, text| shown(&unbind(&facts(VF, on, text), None, Uses::NONE).unwrap());
        assert_eq!(case(Some("vfio-pci"), Some("vfio-pci")), "clear-override unbind=vfio-pci load-native probe");
        assert_eq!(case(Some("vfio-pci"), None), "unbind=vfio-pci load-native probe");
        assert_eq!(case(None, Some("none")), "clear-override load-native probe");
        assert_eq!(case(Some("pci-stub"), Some("pci-stub")), "clear-override unbind=pci-stub load-native probe");
        // A native driver keeps its device; so does a framework of its own.
        assert_eq!(case(Some("mlx5_core"), None), "");
        assert_eq!(case(Some("mlx5_core"), Some("vfio-pci")), "clear-override");
        assert_eq!(case(Some("nvidia"), None), "");
    }

    #[test]
    fn giving_to_a_native_driver_by_name() {
        let target = |driver: Option<&str>, state| Target {
            module: Some("e1000e".parse().unwrap()),
            driver: driver.map(self::driver),
            state,
            is_vfio: false,
            reason: String::new(),
        };
        let case = |facts: &Facts, target: &Target| shown(&unbind(facts, Some(target), Uses::NONE).unwrap());
        let bound = facts(VF, Some("vfio-pci"), Some("vfio-pci"));
        let expected = "clear-override unbind=vfio-pci load=e1000e bind=e1000e";
        assert_eq!(case(&bound, &target(Some("e1000e"), ModuleState::Installed)), expected);
        // What an unloaded module registers is not known yet.
        assert_eq!(case(&bound, &target(None, ModuleState::Installed)), expected);
        let loaded = target(Some("e1000e"), ModuleState::Loaded);
        assert_eq!(case(&facts(VF, Some("e1000e"), None), &loaded), "");
        assert_eq!(case(&facts(VF, Some("e1000e"), Some("e1000e")), &loaded), "clear-override");
        let vfio = Target { is_vfio: true, ..loaded.clone() };
        assert_eq!(unbind(&bound, Some(&vfio), Uses::NONE).unwrap_err().kind, Kind::Unsafe);
        let mut pf = facts(VF, Some("mlx5_core"), None);
        pf.device.vfs.push("0000:3b:00.2".parse().unwrap());
        assert_eq!(unbind(&pf, Some(&loaded), Uses::NONE).unwrap_err().kind, Kind::Unsafe);
    }

    #[test]
    fn putting_back_from_wherever_it_stopped() {
        let at = |on: Option<&str>, text: Option<&str>| Binding {
            driver: on.map(driver),
            driver_override: text.map(str::to_string),
        };
        let native = at(Some("mlx5_core"), None);
        for (before, now, expected) in [
            (&native, at(Some("mlx5_core"), None), ""),
            (&native, at(Some("mlx5_core"), Some("v")), "clear-override"),
            (&native, at(None, Some("v")), "override=mlx5_core bind=mlx5_core clear-override"),
            (&native, at(Some("v"), Some("v")), "unbind=v override=mlx5_core bind=mlx5_core clear-override"),
            (&at(None, None), at(Some("v"), Some("v")), "unbind=v clear-override"),
            (&at(None, Some("x")), at(Some("v"), Some("v")), "unbind=v override=x"),
            (&at(Some("x"), Some("x")), at(None, Some("v")), "override=x bind=x"),
            // Bound to one driver with another's override: first the one that lets it bind, then the one it had.
            (&at(Some("y"), Some("x")), at(None, Some("v")), "override=y bind=y override=x"),
            (&at(Some("y"), Some("x")), at(Some("y"), Some("v")), "override=x"),
        ] {
            assert_eq!(shown(&restore(before, &now, &[])), expected, "{before:?} from {now:?}");
        }
    }

    fn preparation(command: &str, undo: Option<&str>) -> Preparation {
        let words = |text: &str| text.split(' ').map(str::to_string).collect();
        Preparation {
            what: "sets it up".to_string(),
            command: words(command),
            undo: undo.map(words),
            timeout: None,
            is_done: false,
            variables: Vec::new(),
        }
    }

    #[test]
    fn preparing_comes_between_the_drivers() {
        use ModuleState::{Installed, Loaded};
        for (on, driver_override, state, expected) in [
            (
                Some("mlx5_core"),
                None,
                Installed,
                "override=mlx5_vfio_pci unbind=mlx5_core prepare=/x prepare='/y' load=mlx5_vfio_pci bind=mlx5_vfio_pci",
            ),
            (
                Some("mlx5_core"),
                None,
                Loaded,
                "override=mlx5_vfio_pci unbind=mlx5_core prepare=/x prepare='/y' bind=mlx5_vfio_pci",
            ),
            (None, Some("mlx5_vfio_pci"), Loaded, "prepare=/x prepare='/y' bind=mlx5_vfio_pci"),
        ] {
            let wanted = mlx5_and_generic(state);
            let mut plan = bind(&facts(VF, on, driver_override), &wanted, STRICT).unwrap();
            let attempt = &mut plan.attempts[0];
            attempt.prepare(vec![preparation("/x", None), Preparation { is_done: true, ..preparation("/y", None) }]);
            assert_eq!(shown(&attempt.steps), expected.replace('\'', ""));
            let reasons: Vec<&str> = attempt.steps.iter().map(|step| step.reason.as_str()).collect();
            assert!(reasons.contains(&"sets it up") && reasons.contains(&"already so, not run again: sets it up"));
        }
    }

    #[test]
    fn what_was_prepared_is_put_back_in_reverse_between_the_drivers() {
        let at = |on: Option<&str>, text: Option<&str>| Binding {
            driver: on.map(driver),
            driver_override: text.map(str::to_string),
        };
        let prepared = [preparation("/a", Some("/c")), preparation("/b", None), preparation("/d e", Some("/f g"))];
        let native = at(Some("n"), None);
        for (before, now, expected) in [
            (&native, at(None, Some("v")), "unprepare='/f g' unprepare=/c override=n bind=n clear-override"),
            (
                &native,
                at(Some("v"), Some("v")),
                "unbind=v unprepare='/f g' unprepare=/c override=n bind=n clear-override",
            ),
            (&at(None, None), at(None, Some("v")), "unprepare='/f g' unprepare=/c clear-override"),
            (&at(None, None), at(Some("v"), Some("v")), "unbind=v unprepare='/f g' unprepare=/c clear-override"),
        ] {
            assert_eq!(shown(&restore(before, &now, &prepared)), expected.replace('\'', ""), "{before:?} from {now:?}");
        }
    }
}
