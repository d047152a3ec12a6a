// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading modules, by modprobe: it knows of `install` lines, options and soft dependencies.

use std::process::Command;
use std::time::Duration;

use crate::host::Host;
use crate::kernel_name::ModuleName;
use crate::matcher::Modalias;
use crate::process::{self, Finished, RunError};

/// Why a module was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// modprobe could not be run, or did not end.
    #[error(transparent)]
    Run(#[from] RunError),
    /// modprobe said no.
    #[error("modprobe {module}: {reason}")]
    Refused {
        /// The module.
        module: ModuleName,
        /// modprobe's own words, or its exit status.
        reason: String,
    },
}

/// Loads a module by its name. Never by an alias: for `vfio_pci:` aliases modprobe loads every match, the generic driver
/// first.
pub fn load(host: &Host, module: &ModuleName, timeout: Duration) -> Result<(), LoadError> {
    let Finished { status, stderr } = process::run(modprobe(host).args(["--", module.as_str()]), timeout)?;
    if status.success() {
        return Ok(());
    }
    let reason = if stderr.is_empty() { status.to_string() } else { stderr.replace('\n', "; ") };
    Err(LoadError::Refused { module: module.clone(), reason })
}

/// Loads whatever native drivers a device's own modalias names, blacklists respected: what udev does when the device
/// appears (`80-drivers.rules`). That there may be none is no error.
pub fn load_for_alias(host: &Host, modalias: &Modalias, timeout: Duration) -> Result<(), RunError> {
    process::run(modprobe(host).args(["-q", "-b", "--", modalias.as_str()]), timeout).map(|_| ())
}

fn modprobe(host: &Host) -> Command {
    let mut command = Command::new("modprobe");
    if !host.is_this_machine() {
        command.arg("-d").arg(host.root());
    }
    command
}
