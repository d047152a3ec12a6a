// SPDX-License-Identifier: MIT OR Apache-2.0
//! From facts to a plan, or a refusal. Pure: every rule about what may and what should be done to a device is here, and a
//! plan is a value that can be shown, tested and thrown away.

use crate::address::Address;
use crate::catalog::Catalog;
use crate::kernel_name::{DriverName, ModuleName};
use crate::modules::ModuleState;
use crate::outcome::{Failure, Kind};
use crate::sysfs::{Device, Group};
use crate::verdict::{self, Candidate, Verdict};

/// What is known of a device before anything is done to it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The device.
    pub device: Device,
    /// Has its driver made a VFIO device of it (`vfio-dev/`)?
    pub is_vfio_device: bool,
    /// Its IOMMU group.
    pub group: Option<Group>,
    /// The other devices of its group.
    pub siblings: Vec<Sibling>,
    /// May VFIO do without an IOMMU here (`enable_unsafe_noiommu_mode`)?
    pub may_lack_iommu: bool,
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
    /// Does it keep the group from being given to a guest? What is unbound or on VFIO does not; nor do the two native
    /// drivers that leave DMA alone (`driver_managed_dma` in `drivers/pci/pcie/portdrv.c` and `drivers/pci/pci-stub.c`).
    pub fn blocks_group(&self) -> bool {
        let harmless = |driver: &DriverName| ["pcieport", "pci-stub"].contains(&driver.as_str());
        !self.is_vfio_device && self.driver.as_ref().is_some_and(|driver| !harmless(driver))
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
    /// Load a module by its name.
    Load(ModuleName),
    /// Load the native drivers that the modalias names.
    LoadNative,
    /// Bind to this driver and verify it.
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
}

/// One driver to try.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attempt {
    /// The driver.
    pub target: Target,
    /// How.
    pub steps: Vec<Step>,
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

/// How it was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Manner {
    /// No other driver when the best cannot be used or fails.
    pub is_strict: bool,
    /// The user insists.
    pub is_forced: bool,
}

/// Plans a bind.
pub fn bind(facts: &Facts, wanted: &Wanted, manner: Manner) -> Result<BindPlan, Failure> {
    let device = &facts.device;
    let targets = match wanted {
        Wanted::NoDriver => return Ok(keep_off(device)),
        Wanted::Named(target) => vec![target.clone()],
        Wanted::Best(candidates) => best_targets(device, candidates, manner.is_strict)?,
    };
    let first = &targets[0];
    let is_on_first = device.driver.is_some() && device.driver == first.driver;
    if !is_on_first {
        check(facts, manner)?;
    }
    if first.state == ModuleState::Missing {
        return Err(missing_module(device.address, first));
    }

    let mut warnings = Vec::new();
    if let Wanted::Best(candidates) = wanted {
        warnings.extend(doubts(candidates));
    }
    warnings.extend(group_warning(facts));
    let attempts = match is_on_first {
        true => Vec::new(),
        false => targets.into_iter().map(|target| attempt(device, target)).collect(),
    };
    Ok(BindPlan { attempts, warnings })
}

fn best_targets(
    device: &Device,
    candidates: &[(Candidate, ModuleState)],
    is_strict: bool,
) -> Result<Vec<Target>, Failure> {
    let usable: Vec<Target> = candidates
        .iter()
        .filter(|(candidate, _)| candidate.verdict != Verdict::Blocked)
        .map(|(candidate, state)| Target {
            module: Some(candidate.module.clone()),
            driver: candidate.driver.clone(),
            state: *state,
            reason: choice_reason(candidate),
        })
        .collect();
    let blocked = candidates.iter().find(|(candidate, _)| candidate.verdict == Verdict::Blocked);
    if is_strict {
        if let (Some((candidate, _)), Some((first, _))) = (blocked, candidates.first()) {
            if candidate.module == first.module {
                let why = candidate.reasons.join("; ");
                return Err(Failure::new(
                    Kind::Unsafe,
                    format!("{}: the best driver, {}, cannot be used: {why}", device.address, candidate.name()),
                    "mend that, or leave --strict out to take the next best".to_string(),
                ));
            }
        }
    }
    if usable.is_empty() {
        let why = match blocked {
            Some((candidate, _)) => format!(" that can be used: {}: {}", candidate.name(), candidate.reasons.join("; ")),
            None => String::new(),
        };
        return Err(Failure::new(
            Kind::NoDriver,
            format!("{}: no VFIO driver matches {}{why}", device.address, device.modalias.as_str()),
            "see 'vfioctl drivers' for what this kernel has",
        ));
    }
    let count = if is_strict { 1 } else { usable.len() };
    Ok(usable.into_iter().take(count).collect())
}

fn choice_reason(candidate: &Candidate) -> String {
    format!("matches {} ({} of 7 fields open)", candidate.alias, candidate.wildcards)
}

/// What the chosen driver falls short of, and what better one was passed over.
fn doubts(candidates: &[(Candidate, ModuleState)]) -> Vec<String> {
    let mut doubts = Vec::new();
    for (candidate, _) in candidates {
        match candidate.verdict {
            Verdict::Blocked => doubts.push(format!("{} passed over: {}", candidate.name(), candidate.reasons.join("; "))),
            Verdict::Limited => doubts.push(format!("{}: {}", candidate.name(), candidate.reasons.join("; "))),
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
    let blockers: Vec<String> = facts
        .siblings
        .iter()
        .filter(|sibling| sibling.blocks_group())
        .map(|sibling| format!("{} on {}", sibling.address, sibling.driver.as_ref().map_or("", DriverName::as_str)))
        .collect();
    (!blockers.is_empty()).then(|| {
        format!(
            "IOMMU group {} cannot be given to a guest yet: it also holds {}; bind or unbind these too",
            group.number,
            blockers.join(", ")
        )
    })
}

/// What must not or cannot be bound to VFIO, whatever the driver.
fn check(facts: &Facts, manner: Manner) -> Result<(), Failure> {
    let device = &facts.device;
    let address = device.address;
    if let Some(driver) = device.driver.as_ref().filter(|_| facts.is_vfio_device && !manner.is_forced) {
        if !is_vfio_driver(device) {
            return Err(Failure::new(
                Kind::Unsafe,
                format!("{address} is a VFIO device already, made by driver {driver}: it was left alone"),
                "give it to the guest as it is, or name a driver with --driver and --force",
            ));
        }
    }
    if device.is_bridge() {
        return Err(Failure::new(
            Kind::Unsafe,
            format!("{address} is a bridge: no VFIO driver takes one"),
            "bind the devices behind it; a bridge on pcieport does not keep its IOMMU group from being used",
        ));
    }
    if !device.vfs.is_empty() {
        return Err(Failure::new(
            Kind::Unsafe,
            format!("{address} is a PF with {} VFs enabled: taking its driver away would destroy them", device.vfs.len()),
            format!("write 0 to /sys/bus/pci/devices/{address}/sriov_numvfs first, or bind its VFs instead"),
        ));
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
                "{address}: firmware has asked for a fixed mapping in IOMMU group {} (a 'direct' line in its reserved_regions): \
                 VFIO cannot have it",
                group.number
            ),
            "look for a firmware setting that shares this device with the management controller (RMRR), and turn it off",
        )),
        Some(_) => Ok(()),
    }
}

fn missing_module(address: Address, target: &Target) -> Failure {
    let module = target.module.as_ref().map_or(target.name(), ModuleName::as_str);
    Failure::new(
        Kind::Module,
        format!("{address}: the alias table names module {module}, but this kernel has no such module; nothing was touched"),
        "run 'depmod -a', or install the package that has the module, or choose another with --driver",
    )
}

fn attempt(device: &Device, target: Target) -> Attempt {
    let name = target.name().to_string();
    let mut steps = Vec::new();
    if device.driver_override.as_deref() != Some(name.as_str()) {
        let reason = match (&target.driver, target.state) {
            (None, _) => "keeps other drivers off until the module has told its driver's name",
            (Some(_), ModuleState::Installed) => {
                "before the module is loaded: loading it may load a native driver, which would take the device"
            }
            (Some(_), _) => "lets this driver alone have the device",
        };
        steps.push(Step::new(Action::Override(name.clone()), reason));
    }
    if let Some(driver) = &device.driver {
        steps.push(Step::new(Action::Unbind(driver.clone()), "a device has one driver at a time"));
    }
    if let (ModuleState::Installed, Some(module)) = (target.state, &target.module) {
        steps.push(Step::new(Action::Load(module.clone()), format!("has driver {name}")));
    }
    steps.push(Step::new(Action::Bind(target.clone()), target.reason.clone()));
    Attempt { target, steps }
}

/// `none`: an override that is no driver's name, and no driver.
fn keep_off(device: &Device) -> BindPlan {
    let none = DriverName::none();
    let mut steps = Vec::new();
    if device.driver_override.as_deref() != Some(none.as_str()) {
        steps.push(Step::new(Action::Override(none.to_string()), "no driver has this name"));
    }
    if let Some(driver) = &device.driver {
        steps.push(Step::new(Action::Unbind(driver.clone()), "no driver is wanted"));
    }
    let target =
        Target { module: None, driver: Some(none), state: ModuleState::Loaded, reason: "no driver is wanted".into() };
    let attempts = if steps.is_empty() { Vec::new() } else { vec![Attempt { target, steps }] };
    BindPlan { attempts, warnings: Vec::new() }
}

/// Plans giving a device back to the kernel's own choice, or to `driver`.
pub fn unbind(facts: &Facts, driver: Option<&Target>) -> Vec<Step> {
    let device = &facts.device;
    match driver {
        Some(target) => move_to(device, target),
        None => give_back(device),
    }
}

fn give_back(device: &Device) -> Vec<Step> {
    let is_ours = is_vfio_driver(device);
    let mut steps = Vec::new();
    if device.driver_override.is_some() {
        steps.push(Step::new(Action::ClearOverride, "any driver may have the device again"));
    }
    if let Some(current) = device.driver.as_ref().filter(|_| is_ours) {
        steps.push(Step::new(Action::Unbind(current.clone()), "gives the device back"));
    }
    if is_ours || device.driver.is_none() {
        steps.push(Step::new(Action::LoadNative, "the native driver may not be loaded yet"));
        steps.push(Step::new(Action::Probe, "lets the kernel choose"));
    }
    steps
}

fn move_to(device: &Device, target: &Target) -> Vec<Step> {
    let Some(driver) = &target.driver else { return Vec::new() };
    if device.driver.as_ref() == Some(driver) {
        return Vec::new();
    }
    let mut steps = vec![Step::new(Action::Override(driver.to_string()), "lets this driver alone have the device")];
    if let Some(current) = &device.driver {
        steps.push(Step::new(Action::Unbind(current.clone()), "a device has one driver at a time"));
    }
    if let (ModuleState::Installed, Some(module)) = (target.state, &target.module) {
        steps.push(Step::new(Action::Load(module.clone()), format!("has driver {driver}")));
    }
    steps.push(Step::new(Action::Rebind(driver.clone()), "as asked for"));
    steps.push(Step::new(Action::ClearOverride, "no choice is kept"));
    steps
}

/// Is the device on a driver of the VFIO family, or on one that its override put it on? Then giving it back means taking
/// it from there; a native driver keeps it.
pub fn is_vfio_driver(device: &Device) -> bool {
    device.driver.as_ref().is_some_and(|driver| {
        Catalog::bundled().by_driver(driver.as_str()).is_some()
            || device.driver_override.as_deref() == Some(driver.as_str())
    })
}

/// How a device is bound: what putting it back has to restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Binding {
    /// Its driver.
    pub driver: Option<DriverName>,
    /// Its override.
    pub driver_override: Option<String>,
}

impl From<&Device> for Binding {
    fn from(device: &Device) -> Binding {
        Binding { driver: device.driver.clone(), driver_override: device.driver_override.clone() }
    }
}

/// The steps from how it is `now` to how it was `before`.
pub fn restore(before: &Binding, now: &Binding) -> Vec<Step> {
    const REASON: &str = "as it was before";
    let set = |text: &Option<String>| match text {
        Some(text) => Step::new(Action::Override(text.clone()), REASON),
        None => Step::new(Action::ClearOverride, REASON),
    };
    let mut steps = Vec::new();
    if now.driver == before.driver {
        if now.driver_override != before.driver_override {
            steps.push(set(&before.driver_override));
        }
        return steps;
    }
    if let Some(driver) = &now.driver {
        steps.push(Step::new(Action::Unbind(driver.clone()), REASON));
    }
    let mut current = &now.driver_override;
    let wanted = before.driver.as_ref().map(|driver| Some(driver.to_string()));
    if let Some(driver) = &before.driver {
        // With no override any driver that knows the device may have it; with another driver's, this one may not.
        let allows = before.driver_override.is_none() || Some(&before.driver_override) == wanted.as_ref();
        let during = if allows { &before.driver_override } else { wanted.as_ref().unwrap_or(&None) };
        if current != during {
            steps.push(set(during));
            current = during;
        }
        steps.push(Step::new(Action::Rebind(driver.clone()), REASON));
    }
    if current != &before.driver_override {
        steps.push(set(&before.driver_override));
    }
    steps
}

/// The candidate that would be taken, for those who only ask.
pub fn best(device: &Device, candidates: &[Candidate]) -> Option<Candidate> {
    if device.is_bridge() { None } else { verdict::chosen(candidates).cloned() }
}
