// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is using a device, looked up before anything is done to it.

mod below;
mod console;
mod disk;
mod display;
mod finding;
mod going;
mod input;
mod interfaces;
mod mounts;
mod network;
mod nodes;
mod patient;
mod platform;
mod remote;
mod routes;
mod session;
#[cfg(test)]
mod tests;
mod vfio;

pub use below::{Below, below, under};
pub use disk::TELLING_PARTITIONS;
pub use display::is_boot_framebuffer;
pub use finding::{Finding, Use, Uses};
pub use interfaces::has_carrier;
pub use network::interfaces_in_use;
pub use patient::read as read_patiently;
pub use vfio::{DEVICE, Holder, NODES, holders, holding, users};

use crate::address::Address;
use crate::host::Host;
use crate::sysfs::ReadError;

use going::Going;

/// What this host would lose if the device went from its native driver, the most harmful first. What is below the devices
/// that go `together` with it is not counted on to carry on. What VFIO users hold is not among it: see [`holders`].
pub fn findings(host: &Host, address: Address, together: &[Address]) -> Result<Vec<Finding>, ReadError> {
    findings_for(host, address, together, std::process::id())
}

/// The same, asked for by a process.
fn findings_for(host: &Host, address: Address, together: &[Address], pid: u32) -> Result<Vec<Finding>, ReadError> {
    let going = Going::new(host, together);
    let below = below(host, address)?;
    let disks = [below.clone(), remote::disks(host, &below, &going)?].concat();
    let mut findings = disk::findings(host, &disks, &going)?;
    findings.extend(session::findings(host, pid, &below, &going)?);
    findings.extend(network::findings(host, address, &below, &going)?);
    findings.extend(display::findings(host, address, &below)?);
    findings.extend(console::findings(host, &below, &going)?);
    findings.extend(input::findings(host, &below, &going)?);
    findings.extend(platform::findings(&below)?);
    findings.extend(nodes::findings(host, address, &below)?);
    findings.sort();
    findings.dedup();
    Ok(findings)
}

/// Is the root file system seen on one of these devices, or to come by one? In a container it is not, nor where it is none of a disk.
pub fn is_root_seen(host: &Host, addresses: &[Address]) -> Result<bool, ReadError> {
    let going = Going::new(host, addresses);
    Ok(disk::is_root_on(host, &going.disks()?)? || network::is_root_by(host, going.below()?, &going)?)
}
