// SPDX-License-Identifier: MIT OR Apache-2.0
//! The only keyboard.

use super::below::Below;
use super::finding::{Finding, Use};
use super::going::Going;
use crate::host::Host;
use crate::sysfs::{Node, ReadError};

/// The keys from `KEY_ESC` to `KEY_S` (`include/uapi/linux/input-event-codes.h`): what has them all is a keyboard, as udev has
/// it (`src/udev/udev-builtin-input_id.c`), and what has but some is a power button or a remote control.
const KEYS: u64 = 0xffff_fffe;

/// The keyboards of the device, if there is no other.
pub fn findings(host: &Host, below: &[Below], going: &Going<'_>) -> Result<Vec<Finding>, ReadError> {
    let mut ours = Vec::new();
    for below in below.iter().filter(|below| below.subsystem == "input") {
        if is_keyboard(&below.node())? {
            ours.push(below);
        }
    }
    if ours.is_empty() {
        return Ok(Vec::new());
    }
    for name in Node::new(host.class("input")).names_in("")? {
        let is_it = |below: &Below| below.subsystem == "input" && below.name == name;
        let is_left =
            !ours.iter().any(|below| is_it(below)) && is_keyboard(&Node::new(host.class("input").join(&name)))?;
        if is_left && !going.below()?.iter().any(is_it) {
            return Ok(Vec::new());
        }
    }
    let mut findings = Vec::new();
    for below in ours {
        let name = below.node().read_if_there("name")?.unwrap_or_default();
        findings.push(Finding::new(Use::Input, format!("no keyboard is left without {} ({name})", below.name)));
    }
    Ok(findings)
}

/// The first keys are in the last word.
fn is_keyboard(node: &Node) -> Result<bool, ReadError> {
    let keys = node.read_if_there("capabilities/key")?;
    let last = keys.as_deref().and_then(|words| words.split_whitespace().next_back());
    let last = last.and_then(|word| u64::from_str_radix(word, 16).ok());
    Ok(last.is_some_and(|word| word & KEYS == KEYS))
}
