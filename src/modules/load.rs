// SPDX-License-Identifier: MIT OR Apache-2.0
//! Loading modules, by modprobe: it knows of `install` lines, options and soft dependencies.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::state::{Modules, built_in};
use crate::environment;
use crate::fresh::Fresh;
use crate::host::Host;
use crate::interrupt;
use crate::kernel_name::ModuleName;
use crate::matcher::Modalias;
use crate::process::{self, Finished, RunError};

/// Where modprobe is: in the PATH, or where a PATH without the administrator's directories (as after `su`) does not look.
const MODPROBE: [&str; 3] = ["modprobe", "/usr/sbin/modprobe", "/sbin/modprobe"];

/// EPERM in modprobe's words.
const NOT_PERMITTED: &str = "Operation not permitted";

/// EKEYREJECTED and ENOKEY in modprobe's words.
const UNSIGNED: [&str; 2] = ["Key was rejected by service", "Required key not available"];

/// Why a module was not loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// modprobe could not be run, or did not end.
    #[error(transparent)]
    Run(#[from] RunError),
    /// It is wished that this stops, and modprobe was not run.
    #[error("interrupted before modprobe {0}")]
    Interrupted(ModuleName),
    /// modprobe was given up on for another device, and may still be at it.
    #[error("modprobe {0} was given up on just now, for another device")]
    GivenUp(ModuleName),
    /// modprobe said no.
    #[error("modprobe {module}: {reason}")]
    Refused {
        /// The module.
        module: ModuleName,
        /// modprobe's own words, or its exit status.
        reason: String,
        /// What of this host's settings stands behind it.
        setting: Option<String>,
    },
    /// modprobe said yes, and the module is not there.
    #[error("modprobe {module} succeeded, but the module is not there")]
    Absent {
        /// The module.
        module: ModuleName,
    },
}

/// Loads a module by its name. Never by an alias: for `vfio_pci:` aliases modprobe loads every match, the generic driver
/// first.
pub fn load(host: &Host, module: &ModuleName, timeout: Duration) -> Result<(), LoadError> {
    // One more modprobe would wait behind the first, in the kernel.
    let mut turn = Turn::take(module, timeout).ok_or_else(|| LoadError::GivenUp(module.clone()))?;
    // While this waited for its turn, another thread has loaded it.
    if Modules::is_loaded(host, module) {
        return Ok(());
    }
    if interrupt::is_wanted() {
        return Err(LoadError::Interrupted(module.clone()));
    }
    let finished = modprobe(host, &MODPROBE, &["--", module.as_str()], timeout);
    turn.is_given_up = matches!(finished, Err(RunError::TimedOut { .. }));
    let Finished { status, stderr } = finished?;
    let module = module.clone();
    if status.success() {
        // An `install` line may say that nothing is to be done.
        return if is_in(host, &module) { Ok(()) } else { Err(LoadError::Absent { module }) };
    }
    let reason = if stderr.is_empty() { status.to_string() } else { stderr.replace('\n', "; ") };
    let setting = setting(host, &reason);
    Err(LoadError::Refused { module, reason, setting })
}

/// How much later whoever waits for a turn gives up than whoever has it.
const SLACK: Duration = Duration::from_secs(1);

/// Many devices at once want the same module: one thread loads it, and the others wait for that.
struct Turn<'a> {
    module: &'a ModuleName,
    /// Is it the first, whom others wait for?
    is_first: bool,
    is_given_up: bool,
}

/// The modules that are being loaded, and those that were given up on.
static LOADING: Mutex<BTreeSet<ModuleName>> = Mutex::new(BTreeSet::new());
static GIVEN_UP: Mutex<BTreeSet<ModuleName>> = Mutex::new(BTreeSet::new());
static LOADED: Condvar = Condvar::new();

impl<'a> Turn<'a> {
    /// Waits while another thread has it, once; after that whoever waited goes on. `None`: it was given up on.
    fn take(module: &'a ModuleName, timeout: Duration) -> Option<Turn<'a>> {
        let mut loading = LOADING.lock().expect("no thread panics with it");
        let is_first = loading.insert(module.clone());
        if !is_first {
            let is_loading = |loading: &mut BTreeSet<ModuleName>| loading.contains(module);
            // Whoever is first gives up by then, and for the sake of whoever wishes to stop before.
            drop(LOADED.wait_timeout_while(loading, timeout + SLACK, is_loading).expect("no thread panics with it"));
        }
        let turn = Turn { module, is_first, is_given_up: false };
        // Dropped where it is not wanted, so that the next is first again.
        (!GIVEN_UP.lock().expect("no thread panics with it").contains(module)).then_some(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.is_given_up {
            GIVEN_UP.lock().expect("no thread panics with it").insert(self.module.clone());
        }
        if self.is_first {
            LOADING.lock().expect("no thread panics with it").remove(self.module);
            LOADED.notify_all();
        }
    }
}

fn is_in(host: &Host, module: &ModuleName) -> bool {
    // What is built into an older kernel may have no directory there.
    host.module(module).is_dir()
        || host.running().is_ok_and(|release| built_in(&host.modules(&release)).contains(module))
}

/// What keeps modules from being loaded on this host, if modprobe's words are about that, and what to do.
fn setting(host: &Host, reason: &str) -> Option<String> {
    let is_refused = reason.contains(NOT_PERMITTED) || UNSIGNED.iter().any(|words| reason.contains(words));
    if !is_refused {
        return None;
    }
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    if read(host.modules_disabled()).trim_end() == "1" {
        return Some(
            "kernel.modules_disabled is 1: until the next boot no module can be loaded; have it loaded before that is \
             set (modules-load.d(5))"
                .to_string(),
        );
    }
    // `none [integrity] confidentiality`: what is in force stands in brackets.
    let lockdown = read(host.lockdown());
    let lockdown = lockdown.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map_or("none", |(word, _)| word);
    let is_locked = lockdown != "none" || UNSIGNED.iter().any(|words| reason.contains(words));
    is_locked.then(|| {
        format!(
            "this kernel may take modules only that are signed with a key it knows (lockdown: {lockdown}); sign the module, \
             and enrol the key with mokutil(1)"
        )
    })
}

/// Loads whatever native drivers a device's own modalias names, blacklists respected: what udev does when the device
/// appears (`80-drivers.rules`). That there may be none is no error. For devices that are alike, and given back at a time,
/// modprobe is run once.
pub fn load_for_alias(host: &Host, modalias: &Modalias, timeout: Duration) -> Arc<Result<(), RunError>> {
    type Loaded = Arc<Result<(), RunError>>;
    static LOADS: Fresh<Loaded> = Fresh::new();
    // Whoever waited for one that was given up on would wait as long for the next.
    static GIVEN_UP: Mutex<BTreeMap<PathBuf, Loaded>> = Mutex::new(BTreeMap::new());
    let given_up = || GIVEN_UP.lock().expect("no thread panics with it");

    let key = host.root().join(modalias.as_str());
    let load = || {
        if let Some(known) = given_up().get(&key) {
            return Arc::clone(known);
        }
        let loaded = modprobe(host, &MODPROBE, &["-q", "-b", "--", modalias.as_str()], timeout);
        let loaded = Arc::new(loaded.map(|_| ()));
        if let Err(RunError::TimedOut { .. }) = &*loaded {
            given_up().insert(key.clone(), Arc::clone(&loaded));
        }
        loaded
    };
    Arc::clone(&LOADS.get(&key, load))
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
    let mut command = environment::command(OsStr::new(program));
    if !host.is_this_machine() {
        // It starts elsewhere than we are.
        command.arg("-d").arg(std::path::absolute(host.root()).unwrap_or_else(|_| host.root().to_path_buf()));
    }
    command
}

#[cfg(test)]
mod tests {
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
    fn the_setting_behind_a_refusal_is_named() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let write = |path: std::path::PathBuf, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let refused = |words: &str| setting(&host, &format!("modprobe: ERROR: could not insert 'x': {words}"));
        assert_eq!(refused("Operation not permitted"), None, "a container may not, for one");
        assert!(refused("Key was rejected by service").unwrap().contains("lockdown: none"));
        write(host.lockdown(), "none [integrity] confidentiality\n");
        assert!(refused("Operation not permitted").unwrap().contains("lockdown: integrity"));
        assert_eq!(refused("Cannot allocate memory"), None);
        write(host.modules_disabled(), "1\n");
        assert!(refused("Operation not permitted").unwrap().contains("kernel.modules_disabled"));
    }

    #[test]
    fn it_works_below_the_root_without_options_from_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let command = command(&Host::new(root.path(), None).unwrap(), "modprobe");
        assert_eq!(command.get_args().collect::<Vec<_>>(), [OsStr::new("-d"), root.path().as_os_str()]);
        // What it has not here it does not inherit.
        let names: Vec<&OsStr> = command.get_envs().map(|(name, _)| name).collect();
        assert_eq!(names, ["LANG", "PATH"]);
    }
}
