// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a domain's XML needs, and what would happen to the devices of a domain.

use std::io;

use serde::Serialize;

use super::{BAD, BOLD, Blocker, DIM, DOUBT, GOOD, Output, printable, styled};
use crate::address::Address;
use crate::guard::Holder;
use crate::kernel_name::DriverName;
use crate::libvirt::{HostDevice, Version};
use crate::outcome::{Failure, StepRecord};
use crate::verdict::Verdict;

/// What a domain's XML needs for a device.
#[derive(Serialize, Debug)]
pub struct SnippetView {
    /// The device.
    pub address: Address,
    /// What it is called.
    pub name: Option<String>,
    /// `hostdev` or `interface`.
    pub element: String,
    /// Is libvirt to take it from its driver, and to give it back?
    #[serde(rename = "managed")]
    pub is_managed: bool,
    /// The driver that is named in it.
    pub model: Option<DriverName>,
    /// The XML.
    pub xml: String,
}

#[derive(Serialize)]
struct Snippets<'a> {
    libvirt_version: Option<String>,
    devices: &'a [SnippetView],
}

/// Shows them, one after the other.
pub fn snippets(output: Output, version: Option<Version>, snippets: &[SnippetView]) -> io::Result<()> {
    if output.is_json {
        let libvirt_version = version.map(|version| version.to_string());
        return output.print_json("libvirt-xml", Snippets { libvirt_version, devices: snippets });
    }
    let lines = snippets.iter().flat_map(|snippet| snippet.xml.lines());
    output.print(&lines.flat_map(|line| [printable(line), "\n".to_string()]).collect::<String>())
}

/// What would happen if a domain were started.
#[derive(Serialize, Debug)]
pub struct StartView {
    /// Its name.
    pub domain: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// libvirt's version; null where it was not found, and the newest was taken.
    pub libvirt_version: Option<String>,
    /// Is our hook installed?
    #[serde(rename = "hook_installed")]
    pub has_hook: bool,
    /// Does no device keep it from starting?
    pub would_start: bool,
    /// Its PCI devices of the host.
    pub devices: Vec<CheckView>,
    /// Networks from which it has an interface.
    pub networks: Vec<String>,
}

/// What would happen to a device.
#[derive(Serialize, Debug, Default)]
pub struct CheckView {
    /// Where it is.
    pub address: String,
    /// What it is called.
    pub name: Option<String>,
    /// `hostdev`, `interface` or `disk`.
    pub element: String,
    /// The line on which it is asked for.
    pub line: usize,
    /// Is libvirt to take it from its driver, and to give it back?
    #[serde(rename = "managed")]
    pub is_managed: bool,
    /// The driver that the domain names.
    pub model: Option<DriverName>,
    /// The driver it is on.
    pub driver: Option<DriverName>,
    /// Its override.
    pub driver_override: Option<String>,
    /// Has its driver made a VFIO device of it?
    #[serde(rename = "vfio_device")]
    pub is_vfio_device: bool,
    /// Its IOMMU group.
    pub iommu_group: Option<u32>,
    /// Devices that the domain does not ask for, and that keep the group from it.
    pub blocked_by: Vec<Blocker>,
    /// Who has it open.
    pub holders: Vec<Holder>,
    /// The domain that has it.
    pub in_use_by: Option<String>,
    /// The driver that libvirt takes by itself; null with `managed='no'`.
    pub libvirt_driver: Option<DriverName>,
    /// Why that one.
    pub libvirt_reason: Option<String>,
    /// What that driver is good for on this device.
    pub verdict: Option<Verdict>,
    /// Why.
    pub reasons: Vec<String>,
    /// The driver that the hook binds it to.
    pub hook_driver: Option<DriverName>,
    /// Why that one.
    pub hook_reason: Option<String>,
    /// How the hook would do that; nothing, if it is so already.
    pub steps: Vec<StepRecord>,
    /// What to tell besides.
    pub notes: Vec<String>,
    /// Why the domain could not start.
    pub error: Option<Failure>,
}

impl CheckView {
    /// What the domain asks for; the rest is to be found out.
    pub fn new(asked: &HostDevice) -> CheckView {
        CheckView {
            address: asked.address.to_string(),
            element: asked.element.to_string(),
            line: asked.line,
            is_managed: asked.is_managed,
            model: asked.model.clone(),
            ..CheckView::default()
        }
    }
}

/// Shows what would happen.
pub fn start(output: Output, view: &StartView) -> io::Result<()> {
    if output.is_json {
        return output.print_json("libvirt-check", view);
    }
    let mut text: String = view.devices.iter().map(|device| device_text(device, view.has_hook)).collect();
    for network in &view.networks {
        text.push_str(&format!(
            "network {}: if it is a pool of VFs, libvirt chooses one after the hook has run, and binds it by itself\n",
            printable(network)
        ));
    }
    let name = printable(view.domain.as_deref().unwrap_or("the domain"));
    text.push_str(&match (view.devices.is_empty(), view.would_start) {
        (true, _) => format!("{name}: asks for no PCI device of the host\n"),
        (false, true) => format!("{name}: {}\n", styled(GOOD, "its devices would be there")),
        (false, false) => format!("{name}: {}\n", styled(BAD, "would not start")),
    });
    output.print(&text)
}

fn device_text(device: &CheckView, has_hook: bool) -> String {
    let managed = if device.is_managed { "yes" } else { "no" };
    let name = device.name.as_deref().map(|name| format!("  {}", printable(name))).unwrap_or_default();
    let mut text = format!("{BOLD}{}{BOLD:#}{name}\n", device.address);
    let mut row = |key: &str, value: String| text.push_str(&format!("  {key:<12} {value}\n"));
    let model = device.model.as_ref().map(|model| format!(", model='{model}'")).unwrap_or_default();
    row("asked for", format!("<{}> in line {}, managed='{managed}'{model}", device.element, device.line));
    let driver = device.driver.as_ref().map_or("no driver".to_string(), DriverName::to_string);
    row("now on", driver);
    if let Some(owner) = &device.in_use_by {
        row("in use by", format!("domain {}", printable(owner)));
    }
    for holder in &device.holders {
        row("in use", printable(&holder.to_string()));
    }
    if let Some(reason) = &device.libvirt_reason {
        let reason = printable(reason);
        row("libvirt", device.libvirt_driver.as_ref().map_or(reason.clone(), |driver| format!("{driver}: {reason}")));
    }
    if let Some(verdict) = device.verdict.filter(|_| !device.reasons.is_empty()) {
        let style = if verdict == Verdict::Blocked { BAD } else { DOUBT };
        let word = styled(style, super::candidates::word(verdict));
        row("verdict", format!("{word}: {}", printable(&device.reasons.join("; "))));
    }
    if let Some(driver) = &device.hook_driver {
        let is_so = device.steps.is_empty();
        let does = match (has_hook, is_so) {
            (_, true) => "nothing to do".to_string(),
            (true, false) => format!("binds it to {driver}"),
            (false, false) => format!("not installed; would bind it to {driver}"),
        };
        row("hook", format!("{does}: {}", printable(device.hook_reason.as_deref().unwrap_or_default())));
    }
    let outcome = match &device.error {
        None => styled(GOOD, "would work"),
        Some(failure) => format!("{}: {}", styled(BAD, "would fail"), printable(&failure.message)),
    };
    for note in &device.notes {
        row("note", printable(note));
    }
    row("start", outcome);
    if let Some(hint) = device.error.as_ref().and_then(|failure| failure.hint.as_ref()) {
        row("", styled(DIM, &printable(hint)));
    }
    text
}
