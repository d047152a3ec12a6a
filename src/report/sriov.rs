// SPDX-License-Identifier: MIT OR Apache-2.0
//! PFs and their VFs.

use std::collections::BTreeMap;
use std::io;

use serde::Serialize;

use super::{BOLD, GOOD, Output, PolicyView, printable, results, styled, table};
use crate::address::Address;
use crate::guard::{Finding, Holder};
use crate::kernel_name::DriverName;
use crate::outcome::{DeviceResult, Failure, StepRecord};
use crate::sriov::Vf;

/// A PF as it is shown.
#[derive(Serialize, Debug)]
pub struct PfView {
    /// Where it is.
    pub address: Address,
    /// Its name.
    pub name: Option<String>,
    /// Its driver.
    pub driver: Option<DriverName>,
    /// How many VFs it can have.
    pub total_vfs: u16,
    /// How many it has.
    pub num_vfs: usize,
    /// Are VFs probed when they appear?
    pub autoprobe: bool,
    /// Its VFs' vendor id.
    pub vf_vendor: String,
    /// Its VFs' device id.
    pub vf_device: String,
}

/// A VF as it is shown.
#[derive(Serialize, Debug)]
pub struct VfView {
    number: u16,
    address: Address,
    driver: Option<DriverName>,
    driver_override: Option<String>,
    vfio: bool,
    iommu_group: Option<u32>,
    policy: Option<PolicyView>,
    holders: Vec<Holder>,
    uses: Vec<String>,
    in_use: Vec<Finding>,
}

impl VfView {
    /// A VF, and what the policy says of it.
    pub fn new(vf: Vf, policy: Option<PolicyView>) -> VfView {
        VfView {
            number: vf.number,
            address: vf.device.address,
            driver: vf.device.driver,
            driver_override: vf.driver_override,
            vfio: vf.is_vfio_device,
            iommu_group: vf.device.iommu_group,
            policy,
            holders: vf.holders,
            uses: vf.uses.iter().map(|finding| finding.message.clone()).collect(),
            in_use: vf.uses,
        }
    }
}

impl VfView {
    /// A VF of which nothing is to be shown but its driver.
    pub fn on_driver(number: u16, address: Address, driver: Option<DriverName>) -> VfView {
        VfView {
            number,
            address,
            driver,
            driver_override: None,
            vfio: false,
            iommu_group: None,
            policy: None,
            holders: Vec::new(),
            uses: Vec::new(),
            in_use: Vec::new(),
        }
    }
}

/// What became of a PF whose number of VFs was to be set.
#[derive(Serialize, Debug)]
pub struct SriovView {
    /// What became of it.
    pub outcome: SriovOutcome,
    /// How it is now; null where it is gone.
    pub pf: Option<PfView>,
    /// Its VFs as they are now.
    pub vfs: Vec<VfView>,
    /// How many it had.
    pub previous_vfs: u16,
    /// What was done to the PF, or with `--dry-run` would be.
    pub steps: Vec<StepRecord>,
    /// What was done to the VFs: to those that failed, if all was put back.
    pub results: Vec<DeviceResult>,
    /// Why it did not work.
    pub error: Option<Failure>,
}

/// What became of a PF.
#[derive(Serialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum SriovOutcome {
    /// It has VFs that it did not have.
    Made,
    /// It has none any more.
    Removed,
    /// It had that many, and some were bound.
    Bound,
    /// All was as asked for already.
    Unchanged,
    /// Nothing was done, on purpose.
    Refused,
    /// It was tried and did not work.
    Failed,
    /// `--dry-run`.
    Planned,
}

#[derive(Serialize)]
struct Pfs<'a> {
    pfs: &'a [PfView],
}

#[derive(Serialize)]
struct PfAndVfs<'a> {
    pf: &'a PfView,
    vfs: &'a [VfView],
}

fn dash() -> String {
    "-".to_string()
}

/// Shows all PFs.
pub fn sriov_list(output: Output, pfs: &[PfView]) -> io::Result<()> {
    if output.is_json {
        return output.print_json("sriov", Pfs { pfs });
    }
    let row = |pf: &PfView| {
        vec![
            pf.address.to_string(),
            pf.num_vfs.to_string(),
            pf.total_vfs.to_string(),
            format!("{}:{}", pf.vf_vendor, pf.vf_device),
            on_off(pf.autoprobe).to_string(),
            pf.driver.as_ref().map_or_else(dash, |driver| printable(driver.as_str())),
            pf.name.as_deref().map_or_else(dash, printable),
        ]
    };
    let headings = ["PF", "VFS", "TOTAL", "VF IDS", "AUTOPROBE", "DRIVER", "NAME"];
    output.print(&table::render(&headings, pfs.iter().map(row)))
}

/// Shows one PF with its VFs.
pub fn sriov_show(output: Output, pf: &PfView, vfs: &[VfView]) -> io::Result<()> {
    if output.is_json {
        return output.print_json("sriov", PfAndVfs { pf, vfs });
    }
    let ids = format!("{}:{}", pf.vf_vendor, pf.vf_device);
    let driver = pf.driver.as_ref().map_or("none".to_string(), |driver| printable(driver.as_str()));
    let mut text = format!("{BOLD}{}{BOLD:#}  {}\n", pf.address, pf.name.as_deref().map_or(String::new(), printable));
    for (name, value) in [
        ("driver", driver),
        ("VFs", format!("{} of {}, ids {ids}", pf.num_vfs, pf.total_vfs)),
        ("autoprobe", on_off(pf.autoprobe).to_string()),
    ] {
        text.push_str(&format!("  {name:<12} {value}\n"));
    }
    if !vfs.is_empty() {
        text.push_str(&table::render(&["VF", "ADDRESS", "GROUP", "DRIVER", "OVERRIDE", "POLICY", "IN USE"], rows(vfs)));
    }
    output.print(&text)
}

fn rows(vfs: &[VfView]) -> Vec<Vec<String>> {
    let row = |vf: &VfView| {
        let driver = vf.driver.as_ref().map_or_else(dash, |driver| printable(driver.as_str()));
        let policy = vf.policy.as_ref().filter(|policy| policy.mismatch.is_none());
        let held = vf.holders.iter().map(Holder::to_string);
        let uses: Vec<String> = held.chain(vf.uses.iter().cloned()).collect();
        vec![
            vf.number.to_string(),
            vf.address.to_string(),
            vf.iommu_group.map_or_else(dash, |group| group.to_string()),
            if vf.vfio { styled(GOOD, &driver) } else { driver },
            vf.driver_override.as_deref().map_or_else(dash, printable),
            policy.map_or_else(dash, |policy| policy.driver.to_string()),
            if uses.is_empty() { dash() } else { printable(&uses.join("; ")) },
        ]
    };
    vfs.iter().map(row).collect()
}

/// Shows what became of a PF; warnings and failures go to standard error.
pub fn sriov_set(output: Output, view: &SriovView) -> io::Result<()> {
    if output.is_json {
        return output.print_json("sriov", view);
    }
    for (text, others) in warnings(&view.results) {
        output.warn(&format!("{text}{}", likewise(others)));
    }
    for (mut failure, others) in failures(&view.results) {
        failure.message.push_str(&likewise(others));
        output.fail(&failure);
    }
    if let Some(failure) = &view.error {
        output.fail(failure);
        return Ok(());
    }
    let Some(pf) = &view.pf else { return Ok(()) };
    let address = pf.address;
    let text = match view.outcome {
        SriovOutcome::Planned if view.steps.is_empty() => {
            format!("{address}: nothing to do, it has {} VFs\n", view.previous_vfs)
        }
        SriovOutcome::Planned => {
            let mut text = format!("{address}: {} of {} VFs; would\n", view.previous_vfs, pf.total_vfs);
            for (number, step) in (1..).zip(&view.steps) {
                text.push_str(&results::step_text(number, step));
            }
            text
        }
        SriovOutcome::Made => {
            let made = styled(GOOD, &format!("{} VFs made", view.vfs.len()));
            format!("{address}: {made} (there were {}){}\n", view.previous_vfs, on(&view.vfs))
        }
        SriovOutcome::Removed => {
            format!("{address}: {}\n", styled(GOOD, &format!("{} VFs removed", view.previous_vfs)))
        }
        SriovOutcome::Bound => {
            format!("{address}: {}{}\n", styled(GOOD, &format!("{} VFs", view.vfs.len())), on(&view.vfs))
        }
        _ => format!("{address}: unchanged, {} VFs{}\n", view.vfs.len(), on(&view.vfs)),
    };
    output.print(&text)
}

/// What is so for hundreds of VFs alike is said once, of the first; with how many others.
fn warnings(results: &[DeviceResult]) -> Vec<(String, usize)> {
    let mut said: Vec<(&str, String, usize)> = Vec::new();
    for result in results {
        for warning in &result.warnings {
            match said.iter_mut().find(|(text, _, _)| text == warning) {
                Some((_, _, others)) => *others += 1,
                None => said.push((warning, format!("{}: {warning}", result.address), 0)),
            }
        }
    }
    said.into_iter().map(|(_, text, others)| (text, others)).collect()
}

/// The same of failures, which name their VF themselves.
fn failures(results: &[DeviceResult]) -> Vec<(Failure, usize)> {
    let mut said: Vec<(String, Failure, usize)> = Vec::new();
    for (result, failure) in results.iter().filter_map(|result| Some((result, result.error.as_ref()?))) {
        let text = failure.message.replace(&result.address.to_string(), "");
        match said.iter_mut().find(|(known, _, _)| *known == text) {
            Some((_, _, others)) => *others += 1,
            None => said.push((text, failure.clone(), 0)),
        }
    }
    said.into_iter().map(|(_, failure, others)| (failure, others)).collect()
}

fn likewise(others: usize) -> String {
    if others == 0 { String::new() } else { format!(" ({others} more VFs likewise)") }
}

/// `, 6 on vfio-pci, 1 on igbvf`
fn on(vfs: &[VfView]) -> String {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    for vf in vfs {
        *numbers.entry(vf.driver.as_ref().map_or("no driver", DriverName::as_str)).or_default() += 1;
    }
    numbers.iter().map(|(driver, number)| format!(", {number} on {}", printable(driver))).collect::<Vec<_>>().concat()
}

fn on_off(is_on: bool) -> &'static str {
    if is_on { "on" } else { "off" }
}
