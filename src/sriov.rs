// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a PF and the number of VFs it shall have to steps, or a refusal. Pure, as [`crate::plan`] is for one device; putting
//! things back is steps too.

use crate::address::Address;
use crate::guard::{Finding, Holder, Uses};
use crate::kernel_name::DriverName;
use crate::outcome::{DeviceResult, Failure, Kind};
use crate::plan::{Binding, check_findings};
use crate::sysfs::Device;

/// What is known of a PF before anything is done to it.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where it is.
    pub pf: Address,
    /// Its driver.
    pub driver: Option<DriverName>,
    /// Has that made a VFIO device of it?
    pub is_vfio_device: bool,
    /// How many VFs it can have, with this driver.
    pub total: u16,
    /// How many it has.
    pub count: u16,
    /// Are VFs probed when they appear?
    pub is_autoprobed: bool,
    /// Its VFs.
    pub vfs: Vec<Vf>,
}

/// A VF as it is.
#[derive(Clone, Debug)]
pub struct Vf {
    /// Its number among the PF's.
    pub number: u16,
    /// The device.
    pub device: Device,
    /// Its override.
    pub driver_override: Option<String>,
    /// Has its driver made a VFIO device of it?
    pub is_vfio_device: bool,
    /// The processes that hold it, or its group, through VFIO.
    pub holders: Vec<Holder>,
    /// What this host uses it for, where that was asked for.
    pub uses: Vec<Finding>,
    /// The libvirt domain that the hook has bound it for: it may not have opened it yet.
    pub domain: Option<String>,
}

impl Vf {
    /// How it is bound: what putting it back has to restore.
    pub fn binding(&self) -> Binding {
        Binding { driver: self.device.driver.clone(), driver_override: self.driver_override.clone() }
    }
}

/// One thing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Say whether VFs are probed when they appear.
    Autoprobe(bool),
    /// Have the PF's driver make so many VFs, or remove them.
    Count(u16),
    /// Bind the VFs that `--driver` or the policy is about.
    Bind,
    /// Let the kernel choose for the others.
    Probe,
    /// Bind VFs as they were bound before.
    Restore(Vec<(Address, Binding)>),
}

/// An action and why it is done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// What.
    pub action: Action,
    /// Why.
    pub reason: &'static str,
}

/// How a PF stands while it is worked on: what we did, not what is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct State {
    /// How many VFs it has.
    pub count: u16,
    /// Are VFs probed when they appear?
    pub is_autoprobed: bool,
    /// Are its VFs others than before?
    pub is_remade: bool,
    /// Has any been bound?
    pub is_bound: bool,
}

impl From<&Facts> for State {
    fn from(facts: &Facts) -> State {
        State { count: facts.count, is_autoprobed: facts.is_autoprobed, is_remade: false, is_bound: false }
    }
}

/// Plans giving a PF `count` VFs; VFs that this host uses only go where that use is `acknowledged`.
pub fn plan(facts: &Facts, count: u16, acknowledged: Uses) -> Result<Vec<Step>, Failure> {
    let step = |action, reason| Step { action, reason };
    let bind = step(Action::Bind, "each VF to the driver chosen for it");
    if count == facts.count {
        return Ok(if count == 0 { Vec::new() } else { vec![bind] });
    }
    check_number(facts, count)?;
    check_unused(facts.pf, &facts.vfs, count, acknowledged)?;
    if count == 0 {
        return Ok(vec![step(Action::Count(0), "no VFs are wanted")]);
    }
    let mut steps = Vec::new();
    if facts.is_autoprobed {
        steps.push(step(Action::Autoprobe(false), "no driver is to take a VF before the one chosen for it"));
    }
    if facts.count > 0 {
        steps.push(step(Action::Count(0), "the kernel changes the number by way of 0 only"));
    }
    steps.push(step(Action::Count(count), "the VFs wanted"));
    steps.push(bind);
    if facts.is_autoprobed {
        steps.push(step(Action::Autoprobe(true), BEFORE));
        steps.push(step(Action::Probe, "the kernel's own choice, for VFs without another"));
    }
    Ok(steps)
}

const BEFORE: &str = "as it was before";

/// How a PF was: what putting it back has to restore.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Before {
    /// How many VFs it had.
    pub count: u16,
    /// Were VFs probed when they appeared?
    pub is_autoprobed: bool,
    /// How its VFs were bound.
    pub vfs: Vec<(Address, Binding)>,
}

impl From<&Facts> for Before {
    fn from(facts: &Facts) -> Before {
        let vfs = facts.vfs.iter().map(|vf| (vf.device.address, vf.binding())).collect();
        Before { count: facts.count, is_autoprobed: facts.is_autoprobed, vfs }
    }
}

/// The steps from how a PF is `now` back to how it was. With `is_stuck` a VF or the PF waits in the kernel, and whatever is
/// about VFs would wait behind it.
pub fn put_back(before: &Before, now: &State, is_stuck: bool) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut add = |action| steps.push(Step { action, reason: BEFORE });
    let mut is_autoprobed = now.is_autoprobed;
    if !is_stuck {
        let is_other = now.is_remade || now.count != before.count;
        if is_other && now.count > 0 {
            add(Action::Count(0));
        }
        if is_other && before.count > 0 {
            if is_autoprobed {
                add(Action::Autoprobe(false));
                is_autoprobed = false;
            }
            add(Action::Count(before.count));
        }
        if (is_other || now.is_bound) && !before.vfs.is_empty() {
            add(Action::Restore(before.vfs.clone()));
        }
    }
    if is_autoprobed != before.is_autoprobed {
        add(Action::Autoprobe(before.is_autoprobed));
    }
    steps
}

/// A function that is no PF.
pub fn not_a_pf(device: &Device) -> Failure {
    let address = device.address;
    let hint = "'vfioctl sriov' lists the PFs";
    match device.pf {
        Some(pf) => Failure::new(
            Kind::Unsafe,
            format!("{address} is a VF, of PF {pf}: only a PF has VFs"),
            format!("'vfioctl sriov {pf}' shows that one"),
        ),
        None => Failure::new(
            Kind::Unsafe,
            format!("{address} is no PF: it cannot have VFs (it has no sriov_totalvfs)"),
            format!("{hint}; SR-IOV may be off in the firmware, or in the device's own"),
        ),
    }
}

/// May this PF have so many VFs?
fn check_number(facts: &Facts, count: u16) -> Result<(), Failure> {
    let (pf, total) = (facts.pf, facts.total);
    if count > total {
        return Err(Failure::new(
            Kind::Unsafe,
            format!("{pf} can have {total} VFs at most: {count} are too many"),
            "a number from 0 to that; the device's firmware may have a setting for more",
        ));
    }
    match &facts.driver {
        None => Err(Failure::new(
            Kind::Unsafe,
            format!("{pf} is on no driver: only a PF's driver can make or remove its VFs"),
            format!("'vfioctl unbind {pf}' gives it to its native driver; pci-pf-stub is for PFs that need none"),
        )),
        // What has the PF would have to agree (`drivers/vfio/pci/vfio_pci_core.c`, `vfio_pci_core_sriov_configure`).
        Some(driver) if facts.is_vfio_device && count > 0 => Err(Failure::new(
            Kind::Unsafe,
            format!("{pf} is given to VFIO, on {driver}: no VFs are made of a PF that a guest can have"),
            format!("'vfioctl unbind {pf}' gives it back to its native driver, which can make them"),
        )),
        Some(_) => Ok(()),
    }
}

/// What this host uses VFs for, the most harmful to lose first.
fn findings(vfs: &[Vf]) -> Vec<Finding> {
    let of_vf = |vf: &Vf, finding: &Finding| Finding {
        message: format!("{}: {}", vf.device.address, finding.message),
        ..finding.clone()
    };
    let mut findings: Vec<Finding> =
        vfs.iter().flat_map(|vf| vf.uses.iter().map(move |finding| of_vf(vf, finding))).collect();
    findings.sort();
    findings
}

/// VFs that somebody holds are not to be taken away for there to be `count`, nor those that this host uses, unless that is
/// `acknowledged`.
pub fn check_unused(pf: Address, vfs: &[Vf], count: u16, acknowledged: Uses) -> Result<(), Failure> {
    check_unheld(pf, vfs)?;
    check_findings(pf, &findings(vfs), acknowledged, &|force| format!("vfioctl sriov {force} {pf} {count}"))
}

/// VFs that somebody holds are not to be taken away: a removal would wait for those that hold one through VFIO.
pub fn check_unheld(pf: Address, vfs: &[Vf]) -> Result<(), Failure> {
    let held: Vec<String> = vfs
        .iter()
        .flat_map(|vf| vf.holders.iter().map(move |holder| (vf.device.address, holder)))
        .map(|(vf, holder)| format!("{vf}: {holder}"))
        .collect();
    if !held.is_empty() {
        return Err(Failure::new(
            Kind::Unsafe,
            format!("{pf}: VFs are in use: {}; removing them would wait for that", held.join(", ")),
            "stop the VMs or programs that have them, then try again",
        ));
    }
    let domains = vfs.iter().filter_map(|vf| Some(format!("{}: domain {}", vf.device.address, vf.domain.as_ref()?)));
    let domains: Vec<String> = domains.collect();
    if !domains.is_empty() {
        return Err(Failure::new(
            Kind::Unsafe,
            format!("{pf}: VFs are those of libvirt's domains: {}", domains.join(", ")),
            "shut these down, then try again",
        ));
    }
    Ok(())
}

/// Several VFs' failures as one of the PF: the gravest kind decides.
pub fn could_not(pf: Address, total: usize, failures: &[&DeviceResult]) -> Option<Failure> {
    let kinds = || failures.iter().filter_map(|result| result.error.as_ref()).map(|failure| failure.kind);
    if kinds().any(|kind| kind == Kind::Interrupted) {
        return Some(Failure::plain(Kind::Interrupted, format!("{pf}: interrupted")));
    }
    // A VF that went away leaves the PF where it is.
    let of_pf = |kind| if kind == Kind::NoDevice { Kind::Failed } else { kind };
    let kind = kinds().map(of_pf).max_by_key(|kind| kind.exit_status())?;
    let names: Vec<String> = failures.iter().map(|result| result.address.to_string()).collect();
    let message = format!("{pf}: {} of {total} VFs could not be bound: {}", names.len(), names.join(", "));
    let is_stuck = failures.iter().filter_map(|result| result.error.as_ref()).any(|failure| failure.is_stuck);
    Some(Failure { is_stuck, ..Failure::plain(kind, message) })
}

/// Several VFs that could not be put back, as one failure of the PF: one that is stuck decides.
pub fn not_restored(failures: Vec<Failure>) -> Result<(), Failure> {
    let messages: Vec<&str> = failures.iter().map(|failure| failure.message.as_str()).collect();
    let message = messages.join("; ");
    match failures.into_iter().max_by_key(|failure| failure.is_stuck) {
        None => Ok(()),
        Some(worst) if worst.is_stuck => Err(Failure { message, ..worst }),
        Some(_) => Err(Failure::plain(Kind::NotRestored, message)),
    }
}

/// What a VF that is not there yet will be, as far as its PF tells; its subsystem and class are taken to be the PF's.
pub fn predicted(pf: &Device, vf: Address, vf_device: &str) -> Option<Device> {
    let modalias = pf.modalias.with_device(vf_device).ok()?;
    Some(Device { address: vf, modalias, driver: None, iommu_group: None, pf: Some(pf.address), vfs: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Use;

    fn address(function: u16) -> Address {
        format!("0000:3b:00.{function}").parse().unwrap()
    }

    fn vf(number: u16, driver: Option<&str>) -> Vf {
        let device = Device {
            address: address(number + 1),
            modalias: "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00".parse().unwrap(),
            driver: driver.map(|name| name.parse().unwrap()),
            iommu_group: None,
            pf: Some(address(0)),
            vfs: Vec::new(),
        };
        let (holders, uses) = (Vec::new(), Vec::new());
        Vf { number, device, driver_override: None, is_vfio_device: false, holders, uses, domain: None }
    }

    fn facts(count: u16) -> Facts {
        Facts {
            pf: address(0),
            driver: Some("mlx5_core".parse().unwrap()),
            is_vfio_device: false,
            total: 16,
            count,
            is_autoprobed: true,
            vfs: (0..count).map(|number| vf(number, Some("mlx5_core"))).collect(),
        }
    }

    fn actions(steps: &[Step]) -> Vec<String> {
        steps
            .iter()
            .map(|step| match &step.action {
                Action::Restore(vfs) => format!("Restore({})", vfs.len()),
                action => format!("{action:?}"),
            })
            .collect()
    }

    #[test]
    fn from_one_number_to_another() {
        let manual = |count| Facts { is_autoprobed: false, ..facts(count) };
        for (facts, count, expected) in [
            (facts(0), 0, &[][..]),
            (facts(4), 4, &["Bind"]),
            (facts(4), 0, &["Count(0)"]),
            (facts(0), 2, &["Autoprobe(false)", "Count(2)", "Bind", "Autoprobe(true)", "Probe"]),
            (facts(4), 2, &["Autoprobe(false)", "Count(0)", "Count(2)", "Bind", "Autoprobe(true)", "Probe"]),
            // The administrator wants no probing: the kernel's own choice is none.
            (manual(0), 2, &["Count(2)", "Bind"]),
            (manual(4), 2, &["Count(0)", "Count(2)", "Bind"]),
        ] {
            assert_eq!(actions(&plan(&facts, count, Uses::NONE).unwrap()), expected, "{} to {count}", facts.count);
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        let holder = |command: &str| {
            let (command, node) = (command.to_string(), Some("/dev/vfio/12".into()));
            Holder { pid: 7, command, node, has_device: None }
        };
        let mut held = facts(2);
        held.vfs[1].holders.push(holder("qemu-system-x86"));
        let mut up = facts(2);
        up.vfs[0].uses.push(Finding::new(Use::Network, "network interface eth4 is up"));
        let vfio = Facts { driver: Some("vfio-pci".parse().unwrap()), is_vfio_device: true, ..facts(0) };
        for (facts, count, words) in [
            (facts(0), 17, "at most"),
            (Facts { driver: None, ..facts(0) }, 2, "on no driver"),
            (Facts { driver: None, ..facts(2) }, 0, "on no driver"),
            (vfio, 2, "given to VFIO, on vfio-pci"),
            (held.clone(), 0, "0000:3b:00.2: qemu-system-x86 (pid 7) has /dev/vfio/12 open"),
            (held.clone(), 4, "in use"),
            (up.clone(), 0, "0000:3b:00.1: network interface eth4 is up"),
        ] {
            let failure = plan(&facts, count, Uses::NONE).unwrap_err();
            assert!(failure.kind == Kind::Unsafe && failure.message.contains(words), "{words}: {failure:?}");
            assert!(failure.hint.is_some(), "{failure:?}");
        }
        assert!(plan(&up, 0, [Use::Network].into_iter().collect()).is_ok());
        assert!(plan(&held, 0, [Use::Network].into_iter().collect()).is_err());
        // Nothing is taken from anyone.
        assert!(plan(&held, 2, Uses::NONE).is_ok());
        // Those of a PF that a guest was given can go.
        assert!(plan(&Facts { is_vfio_device: true, ..facts(2) }, 0, Uses::NONE).is_ok());
    }

    #[test]
    fn putting_back_from_each_step() {
        let state = |count, is_autoprobed, is_remade, is_bound| State { count, is_autoprobed, is_remade, is_bound };
        let remade = ["Count(4)", "Restore(4)", "Autoprobe(true)"];
        let cases: [(u16, State, &[&str]); 10] = [
            (0, state(0, true, false, false), &[]),
            (0, state(0, false, false, false), &["Autoprobe(true)"]),
            (0, state(2, false, true, true), &["Count(0)", "Autoprobe(true)"]),
            (0, state(2, true, true, true), &["Count(0)"]),
            (4, state(4, false, false, false), &["Autoprobe(true)"]),
            (4, state(0, false, true, false), &remade),
            (4, state(2, false, true, true), &["Count(0)", remade[0], remade[1], remade[2]]),
            (4, state(2, true, true, true), &["Count(0)", "Autoprobe(false)", remade[0], remade[1], remade[2]]),
            // The same number, and yet others.
            (4, state(4, false, true, false), &["Count(0)", remade[0], remade[1], remade[2]]),
            (4, state(4, true, false, true), &["Restore(4)"]),
        ];
        for (count, now, expected) in cases {
            let before = Before::from(&facts(count));
            assert_eq!(actions(&put_back(&before, &now, false)), expected, "{count}, {now:?}");
            let autoprobe = if now.is_autoprobed { &[][..] } else { &["Autoprobe(true)"] };
            assert_eq!(actions(&put_back(&before, &now, true)), autoprobe, "{count}, {now:?}, stuck");
        }
    }

    #[test]
    fn one_vf_that_is_stuck_makes_the_pf_stuck() {
        assert_eq!(not_restored(Vec::new()), Ok(()));
        let (one, other) = (Failure::plain(Kind::Failed, "a"), Failure::plain(Kind::Unsafe, "c"));
        let stuck = Failure::stuck("b", "wait").waiting(Some(7), &[]);
        let failure = not_restored(vec![one.clone(), stuck, other.clone()]).unwrap_err();
        assert_eq!((failure.kind, failure.is_stuck, failure.message.as_str()), (Kind::Timeout, true, "a; b; c"));
        assert_eq!(failure.wait.unwrap().waiting_pid, Some(7));
        let failure = not_restored(vec![one, other]).unwrap_err();
        assert_eq!((failure.kind, failure.is_stuck, failure.message.as_str()), (Kind::NotRestored, false, "a; c"));
    }

    #[test]
    fn a_vf_is_told_by_its_pf() {
        let mut pf = vf(0, None).device;
        pf.address = address(0);
        pf.modalias = "pci:v000015B3d00001021sv000015B3sd00000023bc02sc00i00".parse().unwrap();
        let told = predicted(&pf, address(1), "101e").unwrap();
        assert_eq!(told.modalias.as_str(), "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00");
        assert_eq!((told.address, told.pf), (address(1), Some(address(0))));
    }
}
