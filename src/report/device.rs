// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices: the list, and one in full.

use std::io;

use serde::Serialize;

use super::{BAD, BOLD, DOUBT, GOOD, Output, printable, styled, table};
use crate::address::Address;
use crate::class;
use crate::guard::{Finding, Holder, Use};
use crate::kernel_name::DriverName;
use crate::policy::Choice;
use crate::prepare::Recipe;
use crate::require::{Feature, names};
use crate::sysfs::Device;
use crate::verdict::{Candidate, Verdict};
use crate::vfio::nodes::Nodes;

/// A device as every command shows it.
#[derive(Serialize, Debug)]
pub struct DeviceView {
    address: Address,
    vendor: String,
    device: String,
    subsystem_vendor: String,
    subsystem_device: String,
    class: String,
    modalias: String,
    name: Option<String>,
    driver: Option<DriverName>,
    driver_override: Option<String>,
    iommu_group: Option<u32>,
    pf: Option<Address>,
    vfs: Option<Vec<Address>>,
    best: Option<String>,
    policy: Option<PolicyView>,
    /// The verb of an earlier run that was killed at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished: Option<String>,
}

/// What the policy says about a device.
#[derive(Serialize, Clone, Debug)]
pub struct PolicyView {
    /// The driver: `auto`, `none` or a name.
    pub driver: Choice,
    /// What must come with it.
    pub require: Vec<Feature>,
    /// What this host may lose with the device.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub force: Vec<Use>,
    /// Where that stands.
    pub file: String,
    /// Why it is not about this device, if the rule expects another one at its address.
    pub mismatch: Option<String>,
    /// What is to be done before the driver comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prepare: Option<Recipe>,
}

impl DeviceView {
    /// A device, its override, its name, its best driver and its policy.
    pub fn new(
        device: &Device,
        driver_override: Option<String>,
        name: Option<String>,
        best: Option<String>,
        policy: Option<PolicyView>,
    ) -> DeviceView {
        let modalias = &device.modalias;
        DeviceView {
            address: device.address,
            vendor: modalias.vendor(),
            device: modalias.device(),
            subsystem_vendor: modalias.subsystem_vendor(),
            subsystem_device: modalias.subsystem_device(),
            class: modalias.class(),
            modalias: modalias.as_str().to_string(),
            name,
            driver: device.driver.clone(),
            driver_override,
            iommu_group: device.iommu_group,
            pf: device.pf,
            vfs: (!device.vfs.is_empty()).then(|| device.vfs.clone()),
            best,
            policy,
            unfinished: None,
        }
    }

    /// The same device, at which an earlier run was killed, if one was.
    pub fn with_unfinished(self, verb: Option<String>) -> DeviceView {
        DeviceView { unfinished: verb, ..self }
    }

    fn is_on_best(&self) -> bool {
        self.driver.is_some() && self.driver.as_ref().map(DriverName::as_str) == self.best.as_deref()
    }

    /// The name, or the ids of what has none.
    fn label(&self) -> String {
        printable(self.name.as_deref().unwrap_or(&format!("{}:{}", self.vendor, self.device)))
    }
}

#[derive(Serialize)]
struct Devices<'a> {
    devices: &'a [DeviceView],
}

/// Shows a list.
pub fn list(output: Output, devices: &[DeviceView]) -> io::Result<()> {
    if output.is_json {
        return output.print_json("list", Devices { devices });
    }
    let has_policy = devices.iter().any(|device| device.policy.is_some());
    let mut headings = vec!["ADDRESS", "CLASS", "GROUP", "DRIVER", "BEST VFIO"];
    if has_policy {
        headings.push("POLICY");
    }
    headings.push("NAME");
    let dash = || "-".to_string();
    let rows = devices
        .iter()
        .map(|device| {
            let driver = device.driver.as_ref().map_or_else(dash, DriverName::to_string);
            let driver = if device.is_on_best() { styled(GOOD, &driver) } else { driver };
            let mut row = vec![
                device.address.to_string(),
                class::name(&device.class).to_string(),
                device.iommu_group.map_or_else(dash, |group| group.to_string()),
                driver,
                device.best.as_deref().map_or_else(dash, printable),
            ];
            if has_policy {
                row.push(
                    device
                        .policy
                        .as_ref()
                        .filter(|policy| policy.mismatch.is_none())
                        .map_or_else(dash, |p| p.driver.to_string()),
                );
            }
            row.push(device.label());
            row
        })
        .collect();
    output.print(&table::render(&headings, rows))
}

/// A device and its surroundings.
#[derive(Serialize, Debug)]
pub struct ShowView {
    /// The device.
    pub device: DeviceView,
    /// Its class in words.
    pub class_name: String,
    /// The driver of its PF.
    pub pf_driver: Option<DriverName>,
    /// Its IOMMU group.
    pub group: Option<GroupView>,
    /// The names in `vfio-dev/`.
    pub vfio_devices: Vec<String>,
    /// The device nodes that a VM needs.
    pub nodes: Nodes,
    /// The processes that hold it, or its group, through VFIO.
    pub holders: Vec<Holder>,
    /// What this host uses it for.
    pub in_use: Vec<Finding>,
    /// The VFIO drivers that match, best first.
    pub candidates: Vec<Candidate>,
}

/// An IOMMU group.
#[derive(Serialize, Debug)]
pub struct GroupView {
    /// Its number.
    pub number: u32,
    /// Its default domain's type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// All its devices.
    pub devices: Vec<Address>,
    /// Those whose drivers keep it from being given to a guest, as things are.
    pub blocked_by: Vec<Blocker>,
    /// Has firmware reserved a mapping that keeps VFIO out?
    pub is_direct_mapped: bool,
}

/// A device that keeps its group from being used.
#[derive(Serialize, Debug)]
pub struct Blocker {
    /// The device.
    pub address: Address,
    /// The driver it would have to leave.
    pub driver: DriverName,
}

/// Shows one device in full.
pub fn show(output: Output, view: &ShowView) -> io::Result<()> {
    if output.is_json {
        return output.print_json("show", view);
    }
    let device = &view.device;
    let none = || "none".to_string();
    let mut rows: Vec<(&str, String)> = vec![
        (
            "ids",
            format!(
                "{}:{}, subsystem {}:{}",
                device.vendor, device.device, device.subsystem_vendor, device.subsystem_device
            ),
        ),
        ("class", format!("{} {}", device.class, printable(&view.class_name))),
        ("modalias", device.modalias.clone()),
        ("driver", device.driver.as_ref().map_or_else(none, DriverName::to_string)),
        ("override", device.driver_override.as_deref().map_or_else(none, printable)),
        ("policy", device.policy.as_ref().map_or_else(none, policy_text)),
    ];
    if let Some(pf) = device.pf {
        let driver = view.pf_driver.as_ref().map_or_else(|| "no driver".to_string(), DriverName::to_string);
        rows.push(("VF of", format!("{pf}, on {driver}")));
    }
    if let Some(vfs) = &device.vfs {
        rows.push(("VFs", join(vfs)));
    }
    rows.push(("IOMMU group", view.group.as_ref().map_or_else(none, |group| group_text(group, device.address))));
    if !view.nodes.is_empty() {
        rows.push(("nodes", view.nodes.to_string()));
    }
    if !view.holders.is_empty() {
        let holders: Vec<String> = view.holders.iter().map(Holder::to_string).collect();
        rows.push(("held by", printable(&holders.join("; "))));
    }
    for (index, finding) in view.in_use.iter().enumerate() {
        let name = if index == 0 { "in use" } else { "" };
        rows.push((name, format!("{} ({})", printable(&finding.message), finding.used_as.name())));
    }
    let mut text = format!("{BOLD}{}{BOLD:#}  {}\n", device.address, device.label());
    for (name, value) in rows {
        text.push_str(&format!("  {name:<12} {value}\n"));
    }
    for (index, candidate) in view.candidates.iter().enumerate() {
        let name = if index == 0 { "VFIO drivers" } else { "" };
        text.push_str(&format!("  {name:<12} {}\n", candidate_text(candidate)));
    }
    if view.candidates.is_empty() {
        text.push_str("  VFIO drivers none matches\n");
    }
    output.print(&text)
}

fn policy_text(policy: &PolicyView) -> String {
    match &policy.mismatch {
        Some(mismatch) => format!("none: {mismatch}"),
        None => {
            let require = match policy.require.as_slice() {
                [] => String::new(),
                features => format!(", requires {}", names(features)),
            };
            let force = match policy.force.as_slice() {
                [] => String::new(),
                uses => format!(
                    ", although in use ({})",
                    uses.iter().map(|used_as| used_as.name()).collect::<Vec<_>>().join(", ")
                ),
            };
            let prepare = policy.prepare.as_ref().map(|recipe| format!(", prepare {recipe}")).unwrap_or_default();
            format!("{}{require}{force}, in {}{prepare}", policy.driver, policy.file)
        }
    }
}

fn candidate_text(candidate: &Candidate) -> String {
    let style = match candidate.verdict {
        Verdict::Best => GOOD,
        Verdict::Limited => DOUBT,
        Verdict::Blocked => BAD,
        Verdict::Fallback => anstyle::Style::new(),
    };
    let reasons = match candidate.reasons.is_empty() {
        true => String::new(),
        false => format!(": {}", printable(&candidate.reasons.join("; "))),
    };
    format!("{} {}{reasons}", candidate.name(), styled(style, super::candidates::word(candidate.verdict)))
}

fn group_text(group: &GroupView, own: Address) -> String {
    let mut text = group.number.to_string();
    if let Some(kind) = &group.kind {
        text.push_str(&format!(" ({})", printable(kind)));
    }
    let others: Vec<Address> = group.devices.iter().copied().filter(|address| *address != own).collect();
    if others.is_empty() {
        text.push_str(", this device alone");
    } else {
        text.push_str(&format!(", with {}", join(&others)));
    }
    if group.is_direct_mapped {
        text.push_str("; closed to VFIO: firmware has reserved a direct mapping");
    }
    if !group.blocked_by.is_empty() {
        let blockers: Vec<String> =
            group.blocked_by.iter().map(|blocker| format!("{} on {}", blocker.address, blocker.driver)).collect();
        text.push_str(&format!("; no guest can have it while {}", blockers.join(" and ")));
    }
    text
}

fn join(addresses: &[Address]) -> String {
    addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(", ")
}
