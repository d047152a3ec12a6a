// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a kernel's alias tables, and what modprobe.d adds to them and takes away.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::config::{self, Blacklist, Config};
use super::index::{self, Entry};
use super::state::{Modules, built_in, is_running};
use crate::catalog::Catalog;
use crate::file;
use crate::host::{Host, HostError};
use crate::kernel_name::{DriverName, ModuleName};
use crate::matcher::{Source, Table};
use crate::sysfs::{self, ReadError};

/// A kernel's `vfio_pci:` aliases from every source.
#[derive(Debug)]
pub struct Tables {
    /// The kernel release.
    pub release: String,
    /// Is it the kernel that runs? Then what /sys says counts too.
    pub is_running: bool,
    /// The aliases.
    pub table: Table,
    /// What modprobe would not load for an alias.
    pub blacklist: Blacklist,
    /// What of modprobe.d could not be read.
    pub warnings: Vec<String>,
    /// `modules.alias`, if neither it nor its index is there: the kernel's variants are then unknown.
    pub missing: Option<PathBuf>,
}

/// Why the tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The release is not known.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A kernel that is neither running nor installed.
    #[error("there is no kernel {release} here: {directory} is not a directory")]
    NoKernel {
        /// Its release.
        release: String,
        /// Where its modules would be.
        directory: PathBuf,
    },
    /// A table is there, but cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Tables {
    /// Reads all of them. No `modules.alias`, nor its index, is no error: the generic driver is taken to be there, and `missing`
    /// says so.
    pub fn read(host: &Host) -> Result<Tables, TableError> {
        let release = host.release()?;
        let is_running = is_running(host, &release);
        let directory = host.modules(&release);
        // The kernel that runs may have come without modules; another one was named by the user.
        if !is_running && !directory.is_dir() {
            return Err(TableError::NoKernel { release, directory });
        }
        let mut table = Table::default();

        // kmod's own order: configuration, then what depmod found.
        let Config { blacklist, mut warnings } = config::read(host, &mut table);
        let mut is_indexed = |name: &str, source, table: &mut Table| {
            let path = directory.join(name);
            add_indexed(&path, source, table).unwrap_or_else(|error| {
                let hint = match error.kind() {
                    io::ErrorKind::InvalidData => format!("; 'depmod {release}' makes it anew"),
                    _ => String::new(),
                };
                warnings.push(format!("{}: {error}{hint}", path.display()));
                false
            })
        };
        let aliases = directory.join("modules.alias");
        let is_there = is_indexed("modules.alias.bin", Source::ModulesAlias, &mut table)
            || read_if_there(&aliases, |file| table.read_modules_alias(file))?;
        let missing = (!is_there).then_some(aliases);
        if !is_indexed("modules.builtin.alias.bin", Source::BuiltinModinfo, &mut table) {
            read_if_there(&directory.join("modules.builtin.modinfo"), |file| table.read_builtin_modinfo(file))?;
        }
        add_unlisted(host, &directory, is_running, &mut table);
        if missing.is_some() && !table.names("vfio_pci") {
            table.add_assumed_generic();
        }
        Ok(Tables { release, is_running, table, blacklist, warnings, missing })
    }

    /// The driver that a module of this kernel registers: as [`Modules::driver`] if it runs, else what the catalogue knows.
    pub fn driver(&self, host: &Host, module: &ModuleName) -> Result<Option<DriverName>, ReadError> {
        match self.is_running {
            true => Modules::driver(host, module),
            false => Ok(Modules::driver_by_catalogue(module)),
        }
    }
}

/// A variant built into a kernel before 6.18, or inserted by hand, is in no alias table. If it is registered, or for a
/// kernel that does not run, if it is among what is built in, the catalogue knows its ids.
fn add_unlisted(host: &Host, directory: &Path, is_running: bool, table: &mut Table) {
    // The list is long, and for the kernel that runs it is not needed.
    let built_in = if is_running { Default::default() } else { built_in(directory) };
    for driver in Catalog::bundled().drivers() {
        if table.names(driver.module) {
            continue;
        }
        let is_there = match is_running {
            true => driver.driver.parse().is_ok_and(|name| sysfs::is_registered(host, &name)),
            false => driver.module.parse().is_ok_and(|name| built_in.contains(&name)),
        };
        if is_there {
            for pattern in driver.alias_patterns() {
                table.add_registered(driver.module, &pattern);
            }
        }
    }
}

/// Adds what an index has; `false` where there is none. A whole table is read in its place, as it is where somebody has taken
/// a host's tables along and not its indexes.
fn add_indexed(path: &Path, source: Source, table: &mut Table) -> io::Result<bool> {
    let mut index = match index::open(path) {
        Ok(index) => index,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    for Entry { key, value } in index.starting_with(b"vfio_pci:")? {
        table.add_indexed(source, &key, &value);
    }
    Ok(true)
}

/// Reads a file; `false` where there is none.
fn read_if_there(path: &Path, read: impl FnOnce(File) -> io::Result<()>) -> Result<bool, TableError> {
    match file::open_within(path, file::TABLE).and_then(read) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(TableError::Read { path: path.to_path_buf(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A host whose running kernel 6.1.0 has vfio-pci and mlx5_vfio_pci built in and registered; a 6.2.0 beside it.
    fn root() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for directory in [
            "sys/bus/pci/drivers/vfio-pci",
            "sys/bus/pci/drivers/mlx5_vfio_pci",
            "proc/sys/kernel",
            "lib/modules/6.1.0",
            "lib/modules/6.2.0",
        ] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("proc/sys/kernel/osrelease"), "6.1.0\n").unwrap();
        for release in ["6.1.0", "6.2.0"] {
            fs::write(root.path().join("lib/modules").join(release).join("modules.alias"), "# Aliases\n").unwrap();
        }
        root
    }

    fn modules(tables: &Tables) -> Vec<&str> {
        let mut names: Vec<&str> = tables.table.entries.iter().map(|entry| entry.module.as_str()).collect();
        names.dedup();
        names
    }

    #[test]
    fn what_is_registered_counts_for_the_kernel_that_runs() {
        let root = root();
        for kernel in [None, Some("6.1.0".to_string())] {
            let tables = Tables::read(&Host::new(root.path(), kernel).unwrap()).unwrap();
            assert!(tables.is_running);
            assert_eq!(modules(&tables), ["vfio_pci", "mlx5_vfio_pci"]);
        }
        let other = Host::new(root.path(), Some("6.2.0".to_string())).unwrap();
        let tables = Tables::read(&other).unwrap();
        assert!(!tables.is_running);
        assert!(tables.table.entries.is_empty());

        let builtin = root.path().join("lib/modules/6.2.0/modules.builtin");
        fs::write(builtin, "kernel/drivers/vfio/pci/vfio-pci.ko\n").unwrap();
        assert_eq!(modules(&Tables::read(&other).unwrap()), ["vfio_pci"]);
    }

    #[test]
    fn the_driver_of_a_module_is_the_live_one_for_the_kernel_that_runs() {
        let root = root();
        fs::create_dir_all(root.path().join("sys/module/xe_vfio_pci/drivers/pci:xe_other")).unwrap();
        let module = "xe_vfio_pci".parse().unwrap();
        for (kernel, expected) in [(None, "xe_other"), (Some("6.2.0".to_string()), "xe-vfio-pci")] {
            let host = Host::new(root.path(), kernel).unwrap();
            let driver = Tables::read(&host).unwrap().driver(&host, &module).unwrap();
            assert_eq!(driver.unwrap().as_str(), expected);
        }
    }

    #[test]
    fn where_an_index_is_damaged_the_table_is_read_and_that_is_said() {
        let root = root();
        let directory = root.path().join("lib/modules/6.2.0");
        fs::write(directory.join("modules.alias"), "alias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n").unwrap();
        fs::write(directory.join("modules.alias.bin"), "alias").unwrap();
        let other = Host::new(root.path(), Some("6.2.0".to_string())).unwrap();
        let tables = Tables::read(&other).unwrap();
        assert_eq!(modules(&tables), ["vfio_pci"]);
        assert!(tables.warnings[0].contains("modules.alias.bin: not an index of depmod's"), "{:?}", tables.warnings);
        assert!(tables.warnings[0].ends_with("'depmod 6.2.0' makes it anew"), "{:?}", tables.warnings);

        // So depmod leaves it where it had nothing to make it from.
        fs::write(directory.join("modules.alias.bin"), "").unwrap();
        let tables = Tables::read(&other).unwrap();
        assert_eq!((modules(&tables), tables.warnings.len()), (vec!["vfio_pci"], 0));
    }

    #[test]
    fn an_index_is_enough() {
        let root = root();
        let directory = root.path().join("lib/modules/6.2.0");
        fs::remove_file(directory.join("modules.alias")).unwrap();
        // One node, of all flags but children: "vfio_pci:v*" → vfio_pci, of the first module.
        let node = b"\xb0\x07\xf4\x57\0\x02\0\x01\xc0\0\0\x0cvfio_pci:v*\0\0\0\0\x01\0\0\0\0vfio_pci\0";
        fs::write(directory.join("modules.alias.bin"), node).unwrap();
        let other = Host::new(root.path(), Some("6.2.0".to_string())).unwrap();
        let tables = Tables::read(&other).unwrap();
        assert_eq!(modules(&tables), ["vfio_pci"]);
        assert_eq!((tables.missing, tables.warnings.len()), (None, 0));
    }

    #[test]
    fn a_kernel_that_is_not_there_is_an_error_unless_it_runs() {
        let root = root();
        let error = Tables::read(&Host::new(root.path(), Some("nope".to_string())).unwrap()).unwrap_err();
        assert!(error.to_string().contains("no kernel nope"), "{error}");

        fs::remove_dir_all(root.path().join("lib")).unwrap();
        let tables = Tables::read(&Host::new(root.path(), None).unwrap()).unwrap();
        assert!(tables.missing.is_some());
    }
}
