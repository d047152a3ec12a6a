// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the whole machine relies on: its trusted platform module, and a watchdog that counts.

use super::below::Below;
use super::finding::{Finding, Use};
use crate::sysfs::ReadError;

/// Those of the device.
pub fn findings(below: &[Below]) -> Result<Vec<Finding>, ReadError> {
    let mut findings = Vec::new();
    for below in below {
        let name = &below.name;
        match below.subsystem.as_str() {
            "tpm" => findings.push(Finding::new(Use::Tpm, format!("{name} is the machine's trusted platform module"))),
            // Nobody would feed it, or it would not be there when the machine hangs (`drivers/watchdog/watchdog_dev.c`).
            "watchdog" if below.node().read_if_there("state")?.as_deref() == Some("active") => {
                findings
                    .push(Finding::new(Use::Watchdog, format!("{name} counts: the machine resets unless it is fed")));
            }
            _ => {}
        }
    }
    Ok(findings)
}
