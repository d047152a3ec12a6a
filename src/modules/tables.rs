// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading a kernel's alias tables, and what modprobe.d adds to them and takes away.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::config::{self, Blacklist, ConfigError};
use crate::catalog::Catalog;
use crate::host::{Host, HostError};
use crate::matcher::Table;
use crate::sysfs::{self, ReadError};

/// A kernel's `vfio_pci:` aliases from every source.
#[derive(Debug)]
pub struct Tables {
    /// The kernel release.
    pub release: String,
    /// The aliases.
    pub table: Table,
    /// What modprobe would not load for an alias.
    pub blacklist: Blacklist,
    /// `modules.alias`, if it is not there: the kernel's variants are then unknown.
    pub missing: Option<PathBuf>,
}

/// Why the tables could not be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The release is not known.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A table is there, but cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// modprobe.d cannot be read.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The registered drivers could not be read.
    #[error(transparent)]
    Sysfs(#[from] ReadError),
}

impl Tables {
    /// Reads all of them. No `modules.alias` is no error: the generic driver is taken to be there, and `missing` says so.
    pub fn read(host: &Host) -> Result<Tables, TableError> {
        let release = host.release()?;
        let directory = host.modules(&release);
        let mut table = Table::default();

        // kmod's own order: configuration, then what depmod found.
        let blacklist = config::read(host, &mut table)?;
        let aliases = directory.join("modules.alias");
        let is_there = read_if_there(&aliases, |file| table.read_modules_alias(file))?;
        let missing = (!is_there).then_some(aliases);
        read_if_there(&directory.join("modules.builtin.modinfo"), |file| table.read_builtin_modinfo(file))?;
        add_registered(host, &mut table)?;
        if missing.is_some() && !table.names("vfio_pci") {
            table.add_assumed_generic();
        }
        Ok(Tables { release, table, blacklist, missing })
    }
}

/// A variant built into a kernel before 6.18, or inserted by hand, is in no table; if it is registered, the catalogue
/// knows its ids.
fn add_registered(host: &Host, table: &mut Table) -> Result<(), TableError> {
    for driver in Catalog::bundled().drivers() {
        if table.names(driver.module) {
            continue;
        }
        let Ok(name) = driver.driver.parse() else { continue };
        if sysfs::is_registered(host, &name) {
            for pattern in driver.alias_patterns() {
                table.add_registered(driver.module, &pattern);
            }
        }
    }
    Ok(())
}

/// Reads a file; `false` where there is none.
fn read_if_there(path: &Path, read: impl FnOnce(File) -> io::Result<()>) -> Result<bool, TableError> {
    match File::open(path).and_then(read) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(TableError::Read { path: path.to_path_buf(), source }),
    }
}
