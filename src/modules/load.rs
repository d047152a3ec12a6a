// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading modules, by modprobe: it knows of `install` lines, options and soft dependencies.

use std::io;
use std::process::Command;
use std::time::Duration;

use crate::host::Host;
use crate::kernel_name::ModuleName;
use crate::matcher::Modalias;
use crate::process::{self, Finished, RunError};

/// Where modprobe is: in the PATH, or where a PATH without the administrator's directories (as after `su`) does not look.
const MODPROBE: [&str; 3] = ["modprobe", "/usr/sbin/modprobe", "/sbin/modprobe"];

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
    let Finished { status, stderr } = modprobe(host, &MODPROBE, &["--", module.as_str()], timeout)?;
    if status.success() {
        return Ok(());
    }
    let reason = if stderr.is_empty() { status.to_string() } else { stderr.replace('\n', "; ") };
    Err(LoadError::Refused { module: module.clone(), reason })
}

/// Loads whatever native drivers a device's own modalias names, blacklists respected: what udev does when the device
/// appears (`80-drivers.rules`). That there may be none is no error.
pub fn load_for_alias(host: &Host, modalias: &Modalias, timeout: Duration) -> Result<(), RunError> {
    modprobe(host, &MODPROBE, &["-q", "-b", "--", modalias.as_str()], timeout).map(|_| ())
}

/// Runs the first of `programs` that is there.
fn modprobe(host: &Host, programs: &[&str], arguments: &[&str], timeout: Duration) -> Result<Finished, RunError> {
    let mut absent = None;
    for program in programs {
        match process::run(command(host, program).args(arguments), timeout) {
            Err(RunError::Start { program, source }) if source.kind() == io::ErrorKind::NotFound => {
                absent.get_or_insert(RunError::Start { program, source });
            }
            result => return result,
        }
    }
    Err(absent.expect("there is a program to try"))
}

fn command(host: &Host, program: &str) -> Command {
    let mut command = Command::new(program);
    // Options from there would be added to ours (tools/modprobe.c, prepend_options_from_env).
    command.env_remove("MODPROBE_OPTIONS");
    if !host.is_this_machine() {
        command.arg("-d").arg(host.root());
    }
    command
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::path::Path;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn the_first_that_is_there_is_run() {
        let host = Host::new(Path::new("/"), None).unwrap();
        let programs = ["/nonexistent/modprobe", "sh", "/nonexistent/too"];
        let finished = modprobe(&host, &programs, &["-c", "echo no >&2; exit 1"], TIMEOUT).unwrap();
        assert_eq!((finished.status.code(), finished.stderr.as_str()), (Some(1), "no"));
    }

    #[test]
    fn none_at_all_is_told_by_the_first_name() {
        let host = Host::new(Path::new("/"), None).unwrap();
        let error = modprobe(&host, &["no-such-modprobe", "/nonexistent/modprobe"], &[], TIMEOUT).unwrap_err();
        assert!(matches!(&error, RunError::Start { program, .. } if program == "no-such-modprobe"), "{error}");
    }

    #[test]
    fn it_works_below_the_root_without_options_from_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let command = command(&Host::new(root.path(), None).unwrap(), "modprobe");
        assert_eq!(command.get_args().collect::<Vec<_>>(), [OsStr::new("-d"), root.path().as_os_str()]);
        assert_eq!(command.get_envs().collect::<Vec<_>>(), [(OsStr::new("MODPROBE_OPTIONS"), None)]);
    }
}
