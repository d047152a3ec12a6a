// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device nodes that processes have open: screens and compute engines, sound, serial lines, cameras, USB devices given to a
//! guest, and whatever else drivers make nodes for.

use std::fs;
use std::path::{Component, Path, PathBuf};

use super::below::Below;
use super::finding::{Finding, Use};
use crate::address::Address;
use crate::host::Host;
use crate::processes;
use crate::sysfs::{Node, ReadError};

/// How many processes are named for one use; hundreds may compute on one device.
const NAMED: usize = 8;

/// Who has nodes of the device open.
pub fn findings(host: &Host, device: Address, below: &[Below]) -> Result<Vec<Finding>, ReadError> {
    let mut nodes: Vec<(PathBuf, Use)> = Vec::new();
    for below in below {
        let Some(used_as) = use_of(below) else { continue };
        let Some(number) = below.number()? else { continue };
        nodes.extend(node(host, &number).map(|node| (node, used_as)));
    }
    nodes.extend(nvidia(host, device)?.map(|node| (node, Use::Display)));
    if nodes.is_empty() {
        return Ok(Vec::new());
    }
    let of_node = |path: &Path| nodes.iter().find(|(node, _)| node == path).map(|(_, used_as)| *used_as);
    let is_live = host.is_this_machine();
    let which = |descriptor: &Path, target: &Path| {
        of_node(target).filter(|_| !is_live || processes::is_ours(target, descriptor))
    };
    let openers = processes::openers_of(host, which);
    let uses: Vec<(Use, String)> = openers.iter().map(|(opener, used_as)| (*used_as, opener.to_string())).collect();
    let mut findings = Vec::new();
    for used_as in [Use::Network, Use::Display, Use::Console, Use::Sound, Use::Process] {
        let openers = || uses.iter().filter(|(found, _)| *found == used_as).map(|(_, opener)| opener);
        findings.extend(openers().take(NAMED).map(|opener| Finding::new(used_as, opener.as_str())));
        let more = openers().skip(NAMED).count();
        if more > 0 {
            findings.push(Finding::new(used_as, format!("{more} more have its nodes open")));
        }
    }
    Ok(findings)
}

/// What an open node of a class or bus is; `None` where others look after it, or where it says nothing.
fn use_of(below: &Below) -> Option<Use> {
    match below.subsystem.as_str() {
        // Disks.
        "block" | "bsg" | "nvme" | "nvme-generic" | "nvme-subsystem" | "scsi_generic" => None,
        // Open on every desktop; and the only keyboard is looked for.
        "input" | "hidraw" => None,
        // Whoever has them open or not.
        "tpm" | "tpmrm" | "watchdog" => None,
        "vfio" | "vfio-dev" => None,
        "drm" | "graphics" | "accel" => Some(Use::Display),
        // The mixer is open wherever there is a desktop, whether it plays or not.
        "sound" if below.name.starts_with("control") => None,
        "sound" => Some(Use::Sound),
        "tty" => Some(Use::Console),
        "infiniband_verbs" | "infiniband_mad" | "infiniband_cm" | "ptp" | "wwan" => Some(Use::Network),
        _ => Some(Use::Process),
    }
}

/// The node of a character device, as processes name it, where udev has made one.
fn node(host: &Host, number: &str) -> Option<PathBuf> {
    let target = fs::read_link(host.character_device(number)).ok()?;
    // `../dri/card0`, and nothing above it.
    let names = target.components().filter(|component| matches!(component, Component::Normal(_)));
    let is_below = target.starts_with("..") && target.components().filter(|c| *c == Component::ParentDir).count() == 1;
    is_below.then(|| Path::new("/dev").join(names.collect::<PathBuf>()))
}

/// The node of a GPU on NVIDIA's own driver, which makes it in no class (`nv-procfs.c`, `nv_procfs_read_gpu_info`).
fn nvidia(host: &Host, device: Address) -> Result<Option<PathBuf>, ReadError> {
    let information = Node::new(host.nvidia(device)).read_if_there("information")?;
    let minor = information.as_deref().and_then(|text| {
        let value = text.lines().find_map(|line| line.strip_prefix("Device Minor:"))?;
        value.trim().parse::<u32>().ok()
    });
    Ok(minor.map(|minor| Path::new("/dev").join(format!("nvidia{minor}"))))
}
