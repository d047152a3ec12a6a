// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI drivers that are registered, and the modules they come from.

use super::node::{Node, ReadError};
use crate::host::Host;
use crate::kernel_name::{DriverName, ModuleName};

/// The drivers registered on the PCI bus, sorted.
pub fn registered(host: &Host) -> Result<Vec<DriverName>, ReadError> {
    // A name we would not write to a file is not one we could use.
    Ok(Node::new(host.drivers()).names_in("")?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Is this driver registered?
pub fn is_registered(host: &Host, driver: &DriverName) -> bool {
    host.driver(driver).is_dir()
}

/// The PCI drivers that a loaded module has registered: `/sys/module/M/drivers/pci:*`. Empty for a module that is not
/// there, and on kernels before 6.12 for most that are built in.
pub fn drivers_of_module(host: &Host, module: &ModuleName) -> Result<Vec<DriverName>, ReadError> {
    let names = Node::new(host.module(module)).names_in("drivers")?;
    Ok(names.iter().filter_map(|name| name.strip_prefix("pci:")?.parse().ok()).collect())
}

/// The module that registered a driver; `None` when it is built into a kernel that does not say.
pub fn module_of_driver(host: &Host, driver: &DriverName) -> Result<Option<ModuleName>, ReadError> {
    let name = Node::new(host.driver(driver)).link_name("module")?;
    Ok(name.and_then(|name| name.parse().ok()))
}
