// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the kernel's messages go to, other than a screen. What takes a crash dump is not among it: the kernel that is started
//! for one finds its devices anew, whoever had them before.

use super::below::Below;
use super::finding::{Finding, Use};
use super::going::Going;
use super::interfaces::Interfaces;
use super::network::names;
use super::patient;
use crate::host::Host;
use crate::sysfs::{Node, ReadError};

/// The consoles on the device, and those over its interfaces.
pub fn findings(host: &Host, below: &[Below], going: &Going<'_>) -> Result<Vec<Finding>, ReadError> {
    let mut findings = Vec::new();
    let lines: Vec<&str> = below.iter().filter(|b| b.subsystem == "tty").map(|b| b.name.as_str()).collect();
    if !lines.is_empty() {
        // It waits for whoever prints (`drivers/tty/tty_io.c`, `show_cons_active`).
        let active = patient::read(host, &Node::new(host.class("tty").join("console")), "active")?.unwrap_or_default();
        let consoles = active.split_whitespace().filter(|name| lines.contains(name));
        findings.extend(consoles.map(|name| Finding::new(Use::Console, format!("{name} is a console of the kernel"))));
    }
    if names(below).next().is_some() {
        findings.extend(over_network(host, below, going)?);
    }
    Ok(findings)
}

/// netconsole's targets (`drivers/net/netconsole.c`). Those of its module parameter show on newer kernels alone.
fn over_network(host: &Host, below: &[Below], going: &Going<'_>) -> Result<Vec<Finding>, ReadError> {
    let mut findings = Vec::new();
    for target in Node::new(host.netconsole()).names_in("")? {
        let node = Node::new(host.netconsole().join(&target));
        let Some(sender) = node.read_if_there("dev_name")? else { continue };
        if node.read_if_there("enabled")?.as_deref() != Some("1") {
            continue;
        }
        let interfaces = Interfaces::read(host, going)?;
        for name in names(below) {
            if let Some(how) = interfaces.goes_through(&sender, name)? {
                let message = format!("the kernel's messages go out by {how} (netconsole {target})");
                findings.push(Finding::new(Use::Console, message));
            }
        }
    }
    Ok(findings)
}
