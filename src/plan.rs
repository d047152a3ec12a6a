// SPDX-License-Identifier: MIT OR Apache-2.0
//! From facts to a plan, or a refusal. Pure: every rule about what may and what should be done to a device is here, and a
//! plan is a value that can be shown, tested and thrown away.

use crate::address::Address;
use crate::catalog::Catalog;
use crate::guard::Holder;
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
    /// The processes that hold it, or its group, through VFIO.
    pub holders: Vec<Holder>,
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
        Wanted::NoDriver => {
            check_free(facts)?;
            return Ok(keep_off(device));
        }
        Wanted::Named(target) => vec![target.clone()],
        Wanted::Best(candidates) => best_targets(device, candidates, manner.is_strict)?,
    };
    let first = &targets[0];
    let is_on_first = device.driver.is_some() && device.driver == first.driver;
    if !is_on_first && first.is_vfio {
        check(facts, manner)?;
    }
    if first.state == ModuleState::Missing {
        return Err(missing_module(device.address, first));
    }

    if !is_on_first {
        check_free(facts)?;
    }

    let mut warnings = Vec::new();
    if let Wanted::Best(candidates) = wanted {
        warnings.extend(doubts(candidates));
    }
    warnings.extend(group_warning(facts).filter(|_| first.is_vfio));
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
            is_vfio: true,
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
            Some((candidate, _)) => {
                format!(" that can be used: {}: {}", candidate.name(), candidate.reasons.join("; "))
            }
            None => String::new(),
        };
        return Err(Failure::new(
            Kind::NoDriver,
            format!("{}: no VFIO driver matches {}{why}", device.address, device.modalias.as_str()),
            "see 'vfioctl drivers' for what this kernel has",
        ));
    }
    let mut targets = usable.into_iter();
    let best: Vec<Target> = targets.by_ref().take(1).collect();
    // A fallback that is not there is none.
    let fallbacks = targets.filter(|target| !is_strict && target.state != ModuleState::Missing);
    Ok(best.into_iter().chain(fallbacks).collect())
}

fn choice_reason(candidate: &Candidate) -> String {
    format!("matches {} ({} of 7 fields open)", candidate.alias, candidate.wildcards)
}

/// What the chosen driver falls short of, and what better one was passed over.
fn doubts(candidates: &[(Candidate, ModuleState)]) -> Vec<String> {
    let mut doubts = Vec::new();
    for (candidate, _) in candidates {
        match candidate.verdict {
            Verdict::Blocked => {
                doubts.push(format!("{} passed over: {}", candidate.name(), candidate.reasons.join("; ")))
            }
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
            format!(
                "{address} is a PF with {} VFs enabled: taking its driver away would destroy them",
                device.vfs.len()
            ),
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

/// Nobody may hold it through VFIO when its driver is to be taken away.
fn check_free(facts: &Facts) -> Result<(), Failure> {
    let Some(driver) = facts.device.driver.as_ref().filter(|_| !facts.holders.is_empty()) else {
        return Ok(());
    };
    let holders: Vec<String> = facts
        .holders
        .iter()
        .map(|holder| format!("{} (pid {}) has {} open", holder.command, holder.pid, holder.node.display()))
        .collect();
    Err(Failure::new(
        Kind::Unsafe,
        format!("{} is in use: {}; taking {driver} away would wait for them", facts.device.address, holders.join(", ")),
        "stop the VM or program that has it, then try again",
    ))
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
    let target = Target {
        module: None,
        driver: Some(none),
        state: ModuleState::Loaded,
        is_vfio: false,
        reason: "no driver is wanted".into(),
    };
    let attempts = if steps.is_empty() { Vec::new() } else { vec![Attempt { target, steps }] };
    BindPlan { attempts, warnings: Vec::new() }
}

/// Plans giving a device back to the kernel's own choice, or to `driver`.
pub fn unbind(facts: &Facts, driver: Option<&Target>) -> Result<Vec<Step>, Failure> {
    let device = &facts.device;
    let steps = match driver {
        Some(target) => move_to(device, target),
        None => give_back(device),
    };
    if steps.iter().any(|step| matches!(step.action, Action::Unbind(_))) {
        check_free(facts)?;
    }
    Ok(steps)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matcher::Source;

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
                driver_override: driver_override.map(str::to_string),
                iommu_group: Some(7),
                pf: None,
                vfs: Vec::new(),
            },
            is_vfio_device: on.is_some_and(|name| name.contains("vfio")),
            group: Some(Group { number: 7, kind: None, devices: Vec::new(), is_direct_mapped: false }),
            siblings: Vec::new(),
            holders: Vec::new(),
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

    const STRICT: Manner = Manner { is_strict: true, is_forced: false };

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
    fn what_is_so_already_is_left_out() {
        let wanted = mlx5_and_generic(ModuleState::Loaded);
        let case = |on, text| planned(&facts(VF, on, text), &wanted, STRICT).unwrap();
        assert_eq!(case(None, None), "override=mlx5_vfio_pci bind=mlx5_vfio_pci");
        assert_eq!(case(None, Some("mlx5_vfio_pci")), "bind=mlx5_vfio_pci");
        assert_eq!(case(Some("mlx5_vfio_pci"), None), "");
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
        assert!(planned(&foreign, &wanted, Manner { is_strict: false, is_forced: true }).is_ok());
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
        assert_eq!(planned(&device, &wanted, STRICT), Err(Kind::Unsafe));
        let warnings = bind(&device, &wanted, Manner::default()).unwrap().warnings;
        assert_eq!(warnings, ["qat_vfio_pci passed over: a reason"]);
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
        device.holders = vec![Holder { pid: 41, command: "qemu".to_string(), node: "/dev/vfio/7".into() }];
        let failure = unbind(&device, None).unwrap_err();
        assert_eq!(failure.kind, Kind::Unsafe);
        assert!(failure.message.contains("qemu (pid 41) has /dev/vfio/7 open"), "{}", failure.message);
        assert_eq!(planned(&device, &mlx5_and_generic(ModuleState::Loaded), STRICT), Err(Kind::Unsafe));
        assert_eq!(planned(&device, &Wanted::NoDriver, STRICT), Err(Kind::Unsafe));
        // What need not be moved may be held.
        device.device.driver = Some(driver("mlx5_vfio_pci"));
        assert_eq!(planned(&device, &mlx5_and_generic(ModuleState::Loaded), STRICT), Ok(String::new()));
    }

    #[test]
    fn keeping_all_drivers_off() {
        let case = |on, text| planned(&facts(VF, on, text), &Wanted::NoDriver, STRICT).unwrap();
        assert_eq!(case(Some("mlx5_core"), None), "override=none unbind=mlx5_core");
        assert_eq!(case(None, Some("none")), "");
    }

    #[test]
    fn giving_back() {
        let case = |on, text| shown(&unbind(&facts(VF, on, text), None).unwrap());
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
    fn giving_to_a_driver_leaves_no_override() {
        let target = Target {
            module: Some("e1000e".parse().unwrap()),
            driver: Some(driver("e1000e")),
            state: ModuleState::Installed,
            is_vfio: true,
            reason: String::new(),
        };
        assert_eq!(
            shown(&unbind(&facts(VF, Some("vfio-pci"), Some("vfio-pci")), Some(&target)).unwrap()),
            "override=e1000e unbind=vfio-pci load=e1000e bind=e1000e clear-override"
        );
        assert_eq!(shown(&unbind(&facts(VF, Some("e1000e"), None), Some(&target)).unwrap()), "");
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
            (&native, at(None, Some("v")), "clear-override bind=mlx5_core"),
            (&native, at(Some("v"), Some("v")), "unbind=v clear-override bind=mlx5_core"),
            (&at(None, None), at(Some("v"), Some("v")), "unbind=v clear-override"),
            (&at(None, Some("x")), at(Some("v"), Some("v")), "unbind=v override=x"),
            (&at(Some("x"), Some("x")), at(None, Some("v")), "override=x bind=x"),
            // Bound to one driver with another's override: first the one that lets it bind, then the one it had.
            (&at(Some("y"), Some("x")), at(None, Some("v")), "override=y bind=y override=x"),
            (&at(Some("y"), Some("x")), at(Some("y"), Some("v")), "override=x"),
        ] {
            assert_eq!(shown(&restore(before, &now)), expected, "{before:?} from {now:?}");
        }
    }
}
