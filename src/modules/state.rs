// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which modules can be had on a host, and which drivers they register.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use serde::Serialize;

use super::index::{self, Index};
use crate::catalog::Catalog;
use crate::file;
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
    /// There is no modules.dep to tell; modprobe has the last word.
    Unknown,
    /// Nowhere.
    Missing,
}

/// The modules of one kernel release: what `modules.dep` and `modules.builtin` say.
pub struct Modules<'a> {
    host: &'a Host,
    /// Is it the kernel that runs? Then what /sys says counts too.
    is_running: bool,
    directory: PathBuf,
    installed: Installed,
    built_in: BTreeSet<ModuleName>,
}

/// Which modules have a file.
enum Installed {
    /// In depmod's index, from which those few that are asked for are read.
    Index(Mutex<Index<File>>),
    /// In `modules.dep`, where there is no index.
    Table(BTreeMap<ModuleName, PathBuf>),
    /// That cannot be told.
    Unknown,
}

impl Installed {
    fn read(directory: &Path) -> Installed {
        if let Ok(index) = index::open(&directory.join("modules.dep.bin")) {
            return Installed::Index(Mutex::new(index));
        }
        match file::read_to_string(&directory.join("modules.dep"), file::TABLE) {
            Ok(text) => Installed::Table(files_in_dep(&text, directory)),
            Err(_) => Installed::Unknown,
        }
    }
}

impl<'a> Modules<'a> {
    /// Reads the two lists for `release`.
    pub fn read(host: &'a Host, release: &str) -> Modules<'a> {
        let directory = host.modules(release);
        let (installed, built_in) = (Installed::read(&directory), built_in(&directory));
        Modules { host, is_running: is_running(host, release), directory, installed, built_in }
    }

    /// How `module` stands.
    pub fn state(&self, module: &ModuleName) -> ModuleState {
        if self.built_in.contains(module) {
            return ModuleState::BuiltIn;
        }
        if self.is_running && Modules::is_loaded(self.host, module) {
            return ModuleState::Loaded;
        }
        if self.is_running && is_built_in_unlisted(self.host, module) {
            return ModuleState::BuiltIn;
        }
        match self.file(module) {
            Err(Untold) => ModuleState::Unknown,
            // A file that modules.dep names may be gone since.
            Ok(Some(path)) if path.exists() => ModuleState::Installed,
            Ok(_) => ModuleState::Missing,
        }
    }

    /// The file that has `module`.
    fn file(&self, module: &ModuleName) -> Result<Option<PathBuf>, Untold> {
        match &self.installed {
            Installed::Unknown => Err(Untold),
            Installed::Table(files) => Ok(files.get(module).cloned()),
            Installed::Index(index) => {
                let mut index = index.lock().expect("no thread panics with the index");
                // `kernel/x.ko.zst: kernel/y.ko.zst`, as in the table. Where it is damaged, modprobe cannot read it either.
                let line = index.get(module.as_str().as_bytes()).map_err(|_| Untold)?;
                let path = line.as_deref().and_then(|line| line.split(|byte| *byte == b':').next());
                Ok(path.map(|path| self.directory.join(OsStr::from_bytes(path))))
            }
        }
    }

    /// Is a module in the kernel that runs, and done with loading? Before that, it may have registered nothing yet.
    pub fn is_loaded(host: &Host, module: &ModuleName) -> bool {
        let directory = host.module(module);
        match fs::read_to_string(directory.join("initstate")) {
            Ok(state) => state.trim_end() == "live",
            // One that is built in has no such file (kernel/module/main.c, modinfo_initstate).
            Err(error) => error.kind() == io::ErrorKind::NotFound && directory.is_dir(),
        }
    }

    /// Was a module of the kernel that runs loaded from a file? One that is built in has no state of its own.
    pub fn is_from_file(host: &Host, module: &ModuleName) -> bool {
        host.module(module).join("initstate").exists()
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
        if let Some(known) = Modules::driver_by_catalogue(module) {
            return Ok(Some(known));
        }
        // Built into a kernel before 6.12, it has no drivers directory; the driver may be there under either spelling.
        let spellings = [module.as_str().to_string(), module.as_str().replace('_', "-")];
        let found = spellings.iter().filter_map(|name| name.parse().ok()).find(|name| sysfs::is_registered(host, name));
        Ok(found)
    }

    /// The driver that `module` registers by the catalogue alone: all there is to ask about a kernel that does not run.
    pub fn driver_by_catalogue(module: &ModuleName) -> Option<DriverName> {
        Catalog::bundled().by_module(module.as_str())?.driver.parse().ok()
    }
}

/// Nobody can tell but modprobe.
struct Untold;

/// Is `release` the kernel that runs?
pub fn is_running(host: &Host, release: &str) -> bool {
    host.running().is_ok_and(|running| running == release)
}

/// Built into an old kernel, a module may have no trace but its driver.
fn is_built_in_unlisted(host: &Host, module: &ModuleName) -> bool {
    let driver = Modules::driver_by_catalogue(module);
    driver.is_some_and(|driver| sysfs::is_registered(host, &driver)) && !host.module(module).is_dir()
}

/// What `modules.builtin` lists.
pub fn built_in(directory: &Path) -> BTreeSet<ModuleName> {
    let list = file::read_to_string(&directory.join("modules.builtin"), file::TABLE).unwrap_or_default();
    list.lines().filter_map(module_of_path).collect()
}

/// The modules that a `modules.dep` with this text lists, and their files, below `directory` as depmod writes them.
pub fn files_in_dep(text: &str, directory: &Path) -> BTreeMap<ModuleName, PathBuf> {
    let paths = text.lines().filter_map(|line| line.split_once(':')).map(|(path, _)| path);
    paths.filter_map(|path| Some((module_of_path(path)?, directory.join(path)))).collect()
}

/// `kernel/drivers/vfio/pci/mlx5/mlx5-vfio-pci.ko.zst` is module `mlx5_vfio_pci`.
fn module_of_path(path: &str) -> Option<ModuleName> {
    let file = Path::new(path).file_name()?.to_str()?;
    file.split_once(".ko")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn states(root: &Path, release: &str) -> Vec<ModuleState> {
        let host = Host::new(root, None).unwrap();
        let modules = Modules::read(&host, release);
        let names = ["vfio_pci", "mlx5_vfio_pci", "qat_vfio_pci", "xe_vfio_pci", "ism_vfio_pci"];
        names.iter().map(|name| modules.state(&name.parse().unwrap())).collect()
    }

    #[test]
    fn states_are_the_live_ones_only_for_the_kernel_that_runs() {
        use ModuleState::{BuiltIn, Installed, Loaded, Missing, Unknown};
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, "proc/sys/kernel/osrelease", "7.0.0\n");
        // Built in and listed, live, coming, built in without a trace but the driver, nowhere.
        write(root, "lib/modules/7.0.0/modules.builtin", "kernel/drivers/vfio/pci/vfio-pci.ko\n");
        write(root, "sys/module/mlx5_vfio_pci/initstate", "live\n");
        write(root, "sys/module/qat_vfio_pci/initstate", "coming\n");
        fs::create_dir_all(root.join("sys/bus/pci/drivers/xe-vfio-pci")).unwrap();
        assert_eq!(states(root, "7.0.0"), [BuiltIn, Loaded, Unknown, BuiltIn, Unknown]);
        assert_eq!(states(root, "6.9.0"), [Unknown; 5]);

        let dep = "kernel/mlx5-vfio-pci.ko.zst:\nkernel/qat_vfio_pci.ko: kernel/x.ko\nkernel/ism-vfio-pci.ko:\n";
        for release in ["7.0.0", "6.9.0"] {
            write(root, &format!("lib/modules/{release}/modules.dep"), dep);
            for file in ["mlx5-vfio-pci.ko.zst", "qat_vfio_pci.ko"] {
                write(root, &format!("lib/modules/{release}/kernel/{file}"), "");
            }
        }
        assert_eq!(states(root, "7.0.0"), [BuiltIn, Loaded, Installed, BuiltIn, Missing]);
        assert_eq!(states(root, "6.9.0"), [Missing, Installed, Installed, Missing, Missing]);
    }

    #[test]
    fn one_that_is_built_in_has_no_initstate() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("sys/module/vfio_pci/parameters")).unwrap();
        let host = Host::new(root.path(), None).unwrap();
        assert!(Modules::is_loaded(&host, &"vfio_pci".parse().unwrap()));
        assert!(!Modules::is_loaded(&host, &"mlx5_vfio_pci".parse().unwrap()));
    }

    #[test]
    fn unknown_has_a_name_of_its_own() {
        assert_eq!(serde_json::to_string(&ModuleState::Unknown).unwrap(), "\"unknown\"");
    }
}
