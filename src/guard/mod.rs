// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is using a device, looked up before anything is done to it.

mod below;
mod disk;
mod finding;
mod network;
mod processes;
mod vfio;

pub use finding::{Finding, Use, Uses};
pub use network::interfaces_in_use;
pub use vfio::{Holder, holders, holding, users};

use crate::address::Address;
use crate::host::Host;
use crate::sysfs::ReadError;

/// What this host would lose if the device went from its native driver, the most harmful first. What VFIO users hold is
/// not among it: see [`holders`].
pub fn findings(host: &Host, address: Address) -> Result<Vec<Finding>, ReadError> {
    let below = below::below(host, address)?;
    let mut findings = disk::findings(host, &below)?;
    findings.sort();
    findings.dedup();
    Ok(findings)
}
