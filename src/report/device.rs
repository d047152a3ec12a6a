// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices: the list, and one in full.

use std::io;
use std::rc::Rc;

use serde::{Serialize, Serializer};

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

/// A device as every command shows it. Of thousands of devices each has one: what they have in common is there once.
#[derive(Debug)]
pub struct DeviceView<'a> {
    device: &'a Device,
    name: Option<Rc<str>>,
    driver_override: Option<String>,
    best: Option<Rc<str>>,
    policy: Option<Box<PolicyView>>,
    unfinished: Option<String>,
}

/// As it is written.
#[derive(Serialize)]
struct Written<'a> {
    address: Address,
    vendor: String,
    device: String,
    subsystem_vendor: String,
    subsystem_device: String,
    class: String,
    modalias: &'a str,
    name: Option<&'a str>,
    driver: Option<&'a DriverName>,
    driver_override: Option<&'a str>,
    iommu_group: Option<u32>,
    pf: Option<Address>,
    vfs: Option<&'a [Address]>,
    best: Option<&'a str>,
    policy: Option<&'a PolicyView>,
    /// The verb of an earlier run that was killed at it.
    #[serde(skip_serializing_if = "Option::is_none")]
    unfinished: Option<&'a str>,
}

impl Serialize for DeviceView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Device { address, modalias, driver, iommu_group, pf, vfs } = self.device;
        let written = Written {
            address: *address,
            vendor: modalias.vendor(),
            device: modalias.device(),
            subsystem_vendor: modalias.subsystem_vendor(),
            subsystem_device: modalias.subsystem_device(),
            class: modalias.class(),
            modalias: modalias.as_str(),
            name: self.name.as_deref(),
            driver: driver.as_ref(),
            driver_override: self.driver_override.as_deref(),
            iommu_group: *iommu_group,
            pf: *pf,
            vfs: Some(vfs.as_slice()).filter(|vfs| !vfs.is_empty()),
            best: self.best.as_deref(),
            policy: self.policy.as_deref(),
            unfinished: self.unfinished.as_deref(),
        };
        written.serialize(serializer)
    }
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

impl<'a> DeviceView<'a> {
    /// A device, its override, its name, its best driver and its policy.
    pub fn new(
        device: &'a Device,
        driver_override: Option<String>,
        name: Option<Rc<str>>,
        best: Option<Rc<str>>,
        policy: Option<PolicyView>,
    ) -> DeviceView<'a> {
        DeviceView { device, driver_override, name, best, policy: policy.map(Box::new), unfinished: None }
    }

    /// The same device, at which an earlier run was killed, if one was.
    pub fn with_unfinished(self, verb: Option<String>) -> DeviceView<'a> {
        DeviceView { unfinished: verb, ..self }
    }

    fn is_on_best(&self) -> bool {
        self.device.driver.is_some() && self.device.driver.as_ref().map(DriverName::as_str) == self.best.as_deref()
    }

    /// The name, or the ids of what has none.
    fn label(&self) -> String {
        match &self.name {
            Some(name) => printable(name),
            None => format!("{}:{}", self.device.modalias.vendor(), self.device.modalias.device()),
        }
    }
}

#[derive(Serialize)]
struct Devices<'a> {
    devices: &'a [DeviceView<'a>],
}

/// Shows a list.
pub fn list(output: Output, devices: &[DeviceView<'_>]) -> io::Result<()> {
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
    let row = |view: &DeviceView| {
        let device = view.device;
        let driver = device.driver.as_ref().map_or_else(dash, DriverName::to_string);
        let driver = if view.is_on_best() { styled(GOOD, &driver) } else { driver };
        let mut row = vec![
            device.address.to_string(),
            class::name(&device.modalias.class()).to_string(),
            device.iommu_group.map_or_else(dash, |group| group.to_string()),
            driver,
            view.best.as_deref().map_or_else(dash, printable),
        ];
        if has_policy {
            let policy = view.policy.as_ref().filter(|policy| policy.mismatch.is_none());
            row.push(policy.map_or_else(dash, |policy| policy.driver.to_string()));
        }
        row.push(view.label());
        row
    };
    let rows = devices.iter().map(row);
    output.print(&table::render(&headings, rows))
}

/// Shows a list that changes will follow: with --json it is on one line.
pub fn first_list(output: Output, devices: &[DeviceView<'_>]) -> io::Result<()> {
    match output.is_json {
        true => output.print_json_line("list", Devices { devices }),
        false => list(output, devices),
    }
}

/// A device and its surroundings.
#[derive(Serialize, Debug)]
pub struct ShowView<'a> {
    /// The device.
    pub device: DeviceView<'a>,
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
pub fn show(output: Output, view: &ShowView<'_>) -> io::Result<()> {
    if output.is_json {
        return output.print_json("show", view);
    }
    let (shown, device) = (&view.device, view.device.device);
    let modalias = &device.modalias;
    let none = || "none".to_string();
    let mut rows: Vec<(&str, String)> = vec![
        (
            "ids",
            format!(
                "{}:{}, subsystem {}:{}",
                modalias.vendor(),
                modalias.device(),
                modalias.subsystem_vendor(),
                modalias.subsystem_device()
            ),
        ),
        ("class", format!("{} {}", modalias.class(), printable(&view.class_name))),
        ("modalias", modalias.as_str().to_string()),
        ("driver", device.driver.as_ref().map_or_else(none, DriverName::to_string)),
        ("override", shown.driver_override.as_deref().map_or_else(none, printable)),
        ("policy", shown.policy.as_deref().map_or_else(none, policy_text)),
    ];
    if let Some(pf) = device.pf {
        let driver = view.pf_driver.as_ref().map_or_else(|| "no driver".to_string(), DriverName::to_string);
        rows.push(("VF of", format!("{pf}, on {driver}")));
    }
    if !device.vfs.is_empty() {
        rows.push(("VFs", join(&device.vfs)));
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
    let mut text = format!("{BOLD}{}{BOLD:#}  {}\n", device.address, shown.label());
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
