// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks: what is mounted from them or otherwise uses them, through whatever layers.

mod layers;
mod stored;
mod users;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use super::below::Below;
use super::finding::{Finding, Use};
use super::going::Going;
use super::mounts;
use crate::host::Host;
use crate::sysfs::ReadError;

pub use stored::TELLING_PARTITIONS;

use layers::{Affected, Harm, Kind, Layers};
use users::{User, plain, several};

/// Who uses the disks below a device.
pub fn findings(host: &Host, below: &[Below], going: &Going<'_>) -> Result<Vec<Finding>, ReadError> {
    const DISKS: [&str; 2] = ["block", "nvme"];
    if !below.iter().any(|below| DISKS.contains(&below.subsystem.as_str())) {
        return Ok(Vec::new());
    }
    let mut layers = Layers::above(host, below, mounts::namespaces(host)?, BTreeSet::new())?;
    if layers.devices.values().any(|device| device.harm == Harm::Weakened) {
        // It would go on with what may go together with this.
        let all = Layers::above(host, &[below, &going.disks()?].concat(), layers.namespaces, BTreeSet::new())?;
        let gone = all.lost();
        layers = Layers::above(host, below, all.namespaces, gone)?;
    }
    let users = users::users(&layers, below)?;
    let devices = users.iter().filter_map(|user| user.device.as_deref());
    let used: BTreeSet<String> = devices.flat_map(|device| layers.chain(device)).map(|d| d.name.clone()).collect();
    let idle = users::idle(&layers, &used);

    let mut findings = Vec::new();
    // What goes on, with less to fall back on, by where that begins.
    let mut weakened: BTreeMap<&str, Vec<&User>> = BTreeMap::new();
    for user in users.iter().chain(&idle) {
        let chain = user.device.as_deref().map(|device| layers.chain(device)).unwrap_or_default();
        match chain.iter().find(|device| device.harm == Harm::Weakened) {
            // That it is active need not be said of it.
            Some(first) if idle.iter().any(|idle| idle.device.as_ref() == Some(&first.name)) => {
                weakened.entry(&first.name).or_default();
            }
            Some(first) => weakened.entry(&first.name).or_default().push(user),
            None => findings.push(Finding {
                used_as: user.used_as,
                message: user.sentence.clone(),
                mend: user.mend.clone(),
                is_mounted: user.is_mounted,
            }),
        }
    }
    for (name, users) in weakened {
        findings.push(weaker(&layers, &layers.devices[name], &users)?);
    }
    Ok(findings)
}

/// Is the root file system on these disks, through whatever layers?
pub fn is_root_on(host: &Host, below: &[Below]) -> Result<bool, ReadError> {
    let layers = Layers::above(host, below, mounts::namespaces(host)?, BTreeSet::new())?;
    Ok(users::is_root_on(&layers))
}

/// An array or a multipath device that would go on.
fn weaker(layers: &Layers, device: &Affected, users: &[&User]) -> Result<Finding, ReadError> {
    let lost: Vec<String> = layers.lost_of(device);
    let kept: Vec<String> = device.keeps.iter().flatten().filter(|name| !lost.contains(name)).cloned().collect();
    let kept = several(&kept);
    let device_name = plain(&device.to_string());
    let is_raid = matches!(device.kind, Kind::Raid { .. });
    let what = several(&lost);
    let mut message = match is_raid {
        true if layers.would_miss(&device.name, &lost)? => {
            format!("{device_name} would lose {what} and go on degraded, with {kept}")
        }
        true => format!("{device_name} would lose its spare {what}"),
        false => format!("{device_name} would lose its path {what} and go on with {kept}"),
    };
    if let Some(user) = users.iter().min_by_key(|user| user.used_as) {
        message.push_str(&format!("; {}", user.sentence));
        if users.len() > 1 {
            message.push_str(&format!(", and there are {} more users", users.len() - 1));
        }
    }
    let finding = Finding::new(Use::Disk, message);
    Ok(match (is_raid, lost.as_slice()) {
        (true, [member]) => {
            finding.mended_by(format!("mdadm /dev/{} --fail /dev/{member} --remove /dev/{member}", device.name))
        }
        _ => finding,
    })
}
