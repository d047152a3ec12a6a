// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which modules can be had on a host, and which drivers they register.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::catalog::Catalog;
use crate::host::Host;
use crate::kernel_name::{DriverName, ModuleName};
use crate::sysfs::{self, ReadError};

/// How a module stands on a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModuleState {
    /// In the kernel that runs.
    Loaded,
    /// Part of the kernel's image.
    BuiltIn,
    /// A file that modprobe can load.
    Installed,
    /// Nowhere.
    Missing,
}

/// The modules of one kernel release: `modules.dep` and `modules.builtin`, read once.
#[derive(Debug)]
pub struct Modules<'a> {
    host: &'a Host,
    /// No modules.dep at all: then what is there cannot be told.
    installed: Option<BTreeSet<ModuleName>>,
    built_in: BTreeSet<ModuleName>,
}

impl<'a> Modules<'a> {
    /// Reads the two lists for `release`.
    pub fn read(host: &'a Host, release: &str) -> Modules<'a> {
        let directory = host.modules(release);
        let list = |name: &str| fs::read_to_string(directory.join(name)).ok();
        Modules {
            host,
            installed: list("modules.dep").map(|text| {
                let paths = text.lines().filter_map(|line| line.split_once(':')).map(|(path, _)| path);
                // A file that modules.dep names may be gone since.
                paths.filter(|path| directory.join(path).exists()).filter_map(module_of_path).collect()
            }),
            built_in: list("modules.builtin").unwrap_or_default().lines().filter_map(module_of_path).collect(),
        }
    }

    /// How `module` stands.
    pub fn state(&self, module: &ModuleName) -> ModuleState {
        if self.built_in.contains(module) {
            ModuleState::BuiltIn
        } else if self.host.module(module).is_dir() {
            ModuleState::Loaded
        } else {
            match &self.installed {
                Some(installed) if !installed.contains(module) => ModuleState::Missing,
                // Without a list, modprobe has the last word.
                _ => ModuleState::Installed,
            }
        }
    }

    /// The driver that `module` registers: what the kernel says if the module is in, else what the catalogue knows; `None`
    /// when only loading it will tell.
    pub fn driver(host: &Host, module: &ModuleName) -> Result<Option<DriverName>, ReadError> {
        let registered = sysfs::drivers_of_module(host, module)?;
        // One that registers several (none does today) is asked for the one that is spelled like it.
        let own = registered.iter().find(|driver| driver.is_spelled_like(module.as_str()));
        if let Some(driver) = own.or(registered.first()) {
            return Ok(Some(driver.clone()));
        }
        if let Some(known) = Catalog::bundled().by_module(module.as_str()) {
            return Ok(known.driver.parse().ok());
        }
        // Built into a kernel before 6.12, it has no drivers directory; the driver may be there under either spelling.
        let spellings = [module.as_str().to_string(), module.as_str().replace('_', "-")];
        let found = spellings.iter().filter_map(|name| name.parse().ok()).find(|name| sysfs::is_registered(host, name));
        Ok(found)
    }
}

/// `kernel/drivers/vfio/pci/mlx5/mlx5-vfio-pci.ko.zst` is module `mlx5_vfio_pci`.
fn module_of_path(path: &str) -> Option<ModuleName> {
    let file = Path::new(path).file_name()?.to_str()?;
    file.split_once(".ko")?.0.parse().ok()
}
