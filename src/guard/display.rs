// SPDX-License-Identifier: MIT OR Apache-2.0
//! Screens: where the console is shown. Who else draws has the device's nodes open, and is found by that.
//!
//! Nobody draws on a monitor that is merely connected, or on one that shows what was drawn last; taking such a GPU loses nothing.

use super::below::Below;
use super::finding::{Finding, Use};
use super::interfaces::text;
use super::patient;
use crate::address::Address;
use crate::host::Host;
use crate::sysfs::{Node, ReadError};

/// What the firmware's framebuffer is called among the device's memory, by the driver that has it, new and old
/// (`drivers/video/fbdev`, `drivers/gpu/drm/sysfb`, `arch/x86/kernel/sysfb_simplefb.c`).
const BOOT_FRAMEBUFFERS: [&str; 10] =
    ["BOOTFB", "efifb", "vesafb", "simplefb", "simpledrm", "efidrm", "vesadrm", "ofdrm", "offb", "simple-framebuffer"];

/// Is that the name of one?
pub fn is_boot_framebuffer(name: &str) -> bool {
    BOOT_FRAMEBUFFERS.iter().any(|known| name.starts_with(known))
}

/// `PCI_BASE_CLASS_DISPLAY` (`include/linux/pci_ids.h`).
const DISPLAY: &str = "0x03";

/// Where the kernel's console is shown, if it is on the device.
pub fn findings(host: &Host, device: Address, below: &[Below]) -> Result<Vec<Finding>, ReadError> {
    let node = Node::new(host.device(device));
    if node.read_if_there("class")?.is_none_or(|class| !class.starts_with(DISPLAY)) {
        return Ok(Vec::new());
    }
    let framebuffers = || below.iter().filter(|below| below.subsystem == "graphics").map(|below| below.name.as_str());
    let boot = boot_framebuffer(&text(host.memory_map())?, device);
    let is_vga = node.read_if_there("boot_vga")?.as_deref() == Some("1");
    if framebuffers().next().is_none() && boot.is_none() && !is_vga {
        return Ok(Vec::new());
    }
    let all = Node::new(host.class("graphics")).names_in("")?;
    // The console is on the first framebuffer until somebody moves it (`drivers/video/fbdev/core/fbcon.c`,
    // `con2fb_map_boot`); only the node's own ioctl tells where to.
    let first = first_framebuffer(all.iter().map(String::as_str));
    let on = match (&boot, first.filter(|first| framebuffers().any(|name| name == *first))) {
        (Some(name), _) => Some(format!("the firmware's framebuffer, {name}")),
        (None, Some(name)) if is_to_be_seen(below)? => Some(name.to_string()),
        _ => None,
    };
    let mut findings = Vec::new();
    for console in bound_consoles(host)? {
        let shown = match (&on, console.kind) {
            (Some(on), Kind::Framebuffer) => format!("the console is shown on it ({on}{})", lit(below)?),
            (_, Kind::Text) if is_vga && first.is_none() => "the console is shown on it (VGA text)".to_string(),
            _ => continue,
        };
        let finding = Finding::new(Use::Display, shown);
        findings.push(match console.kind {
            Kind::Framebuffer => finding.mended_by(format!("echo 0 >/sys/class/vtconsole/{}/bind", console.name)),
            // There is nothing that the console could go to.
            Kind::Text => finding,
        });
    }
    Ok(findings)
}

/// What draws a console.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Framebuffer,
    Text,
}

struct Console {
    name: String,
    kind: Kind,
}

/// What draws consoles at present (`drivers/tty/vt/vt.c`, `show_name`).
fn bound_consoles(host: &Host) -> Result<Vec<Console>, ReadError> {
    let mut bound = Vec::new();
    for name in Node::new(host.class("vtconsole")).names_in("")? {
        let node = Node::new(host.class("vtconsole").join(&name));
        let kind = match node.read_if_there("name")? {
            Some(text) if text.contains("frame buffer") => Kind::Framebuffer,
            Some(text) if text.contains("VGA") => Kind::Text,
            _ => continue,
        };
        // It waits for whoever prints or sets a mode (`show_bind`), and who does not come to an end is still drawing.
        let is_bound = match patient::read(host, &node, "bind") {
            Ok(bind) => bind.as_deref() == Some("1"),
            Err(error) if error.source.kind() == std::io::ErrorKind::TimedOut => true,
            Err(error) => return Err(error),
        };
        if is_bound {
            bound.push(Console { name, kind });
        }
    }
    Ok(bound)
}

/// The first of `fb0`, `fb1`, … among some names.
fn first_framebuffer<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let number = |name: &str| name.strip_prefix("fb").and_then(|number| number.parse::<u32>().ok());
    names.filter_map(|name| Some((number(name)?, name))).min().map(|(_, name)| name)
}

/// The device's connectors, and for each what is known of it; both attributes are what the kernel has in mind, and reading
/// them probes nothing (`drivers/gpu/drm/drm_sysfs.c`, `status_show`, `enabled_show`).
fn connectors(below: &[Below]) -> Result<Vec<(&str, bool, bool)>, ReadError> {
    let mut found = Vec::new();
    for below in below.iter().filter(|below| below.subsystem == "drm") {
        let Some(status) = below.node().read_if_there("status")? else { continue };
        let is_enabled = below.node().read_if_there("enabled")?.as_deref() == Some("enabled");
        // `card0-HDMI-A-1`
        let name = below.name.split_once('-').map_or(below.name.as_str(), |(_, name)| name);
        // Some cannot tell: `unknown`.
        found.push((name, status != "disconnected", is_enabled));
    }
    Ok(found)
}

/// Could there be somebody to look? A framebuffer without connectors is another driver's than DRM's.
fn is_to_be_seen(below: &[Below]) -> Result<bool, ReadError> {
    let connectors = connectors(below)?;
    Ok(connectors.is_empty() || connectors.iter().any(|(_, is_connected, _)| *is_connected))
}

/// The connectors that show something.
fn lit(below: &[Below]) -> Result<String, ReadError> {
    let connectors = connectors(below)?;
    let lit = connectors.iter().filter(|(_, is_connected, is_enabled)| *is_connected && *is_enabled);
    Ok(lit.map(|(name, ..)| format!(", {name}")).collect::<Vec<_>>().concat())
}

/// The firmware's framebuffer in a device's memory, out of `/proc/iomem`: what is inside of another range is indented more.
fn boot_framebuffer(iomem: &str, device: Address) -> Option<String> {
    let device = device.to_string();
    let mut inside = None;
    for line in iomem.lines() {
        let depth = line.len() - line.trim_start().len();
        let Some((_, name)) = line.split_once(" : ") else { continue };
        if inside.is_some_and(|outer| depth <= outer) {
            inside = None;
        }
        if inside.is_some() && is_boot_framebuffer(name) {
            return Some(name.to_string());
        }
        if inside.is_none() && name == device {
            inside = Some(depth);
        }
    }
    None
}
