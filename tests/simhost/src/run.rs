// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a command on a host.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde_json::{Value, json};

use crate::control;
use crate::fault::Fault;
use crate::fixture;
use crate::fuse;
use crate::machine::{Machine, Observer};
use crate::model::{Address, Host, State};
use crate::namespace;

/// How long a command may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// How long what it left behind may take to end after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to run, and where.
pub struct Run {
    /// The host's directory.
    pub host: PathBuf,
    /// What goes wrong.
    pub faults: Vec<Fault>,
    /// Where to write what was done.
    pub journal: Option<PathBuf>,
    /// The command; none for a shell.
    pub command: Vec<OsString>,
}

/// The state with what is persisted beside it.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    state: State,
    policy: BTreeMap<String, String>,
}

/// Runs the command and gives its exit status. What it started ends with it.
pub fn run(run: Run) -> Result<u8> {
    let root = run.host.canonicalize().with_context(|| run.host.display().to_string())?;
    let host = Host::load(&root)?;
    let release = fixture::release(&root)?;
    let journal = run.journal.map(|path| {
        let file = File::create(&path).with_context(|| path.display().to_string());
        file.map(|file| (path, file))
    });
    let journal = journal.transpose()?;
    let directory = env::current_dir();

    // One thread yet: a user namespace is for such alone, and signals are to be blocked in all.
    let signals = signals();
    signals.thread_block().context("signals")?;
    let own = namespace::own_program()?;
    namespace::enter()?;
    namespace::furnish(&own, &root, &release)?;
    let observer = nodes_of_groups();
    observer(&host);
    let machine = Arc::new(Machine::new(host, run.faults, observer));
    let session = fuse::mount(machine.clone(), Path::new("/sys")).context("no FUSE file system on /sys")?;
    // Never unmounted: what outlives the command must not see what is below. The namespace takes it along.
    std::mem::forget(session);
    namespace::verify()?;
    let of = machine.clone();
    control::serve(machine.clone(), move || json!(whole(&of)))?;

    let before = whole(&machine);
    let status = watch(&machine, signals, command(run.command, directory.ok()))?;
    let after = whole(&machine);
    if let Some((path, file)) = journal {
        let probe = |(address, driver): &(Address, String)| json!({ "address": address.to_string(), "driver": driver });
        let probes: Vec<Value> = machine.probes().iter().map(probe).collect();
        let operations = machine.journal();
        let passed: Vec<String> = machine.passed().iter().map(ToString::to_string).collect();
        let document = json!({
            "before": before, "after": after, "operations": operations, "probes": probes, "passed": passed,
        });
        serde_json::to_writer_pretty(file, &document).with_context(|| path.display().to_string())?;
    }
    end_all(&machine);
    Ok(code(status))
}

/// The process that becomes the command: the last to look whether /sys is ours.
pub fn launch(command: &[OsString]) -> Result<u8> {
    // Set here and not by the parent, since a fork forgets it. If that is gone already, its file system is too.
    set_pdeathsig(Signal::SIGKILL).context("prctl")?;
    signals().thread_unblock().context("signals")?;
    namespace::verify()?;
    let Some((program, arguments)) = command.split_first() else {
        bail!("no command");
    };
    let error = Command::new(program).args(arguments).exec();
    eprintln!("simhost: {}: {error}", program.to_string_lossy());
    // As a shell has it.
    Ok(if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 })
}

fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect()
}

fn command(command: Vec<OsString>, directory: Option<PathBuf>) -> Command {
    let shell = || vec![env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into())];
    let command = if command.is_empty() { shell() } else { command };
    let mut path = OsString::from(namespace::PROGRAMS);
    path.push(":");
    path.push(env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()));
    let mut launch = Command::new(Path::new(namespace::PROGRAMS).join("simhost"));
    launch.arg("launch").arg("--").args(command);
    launch.env("PATH", path);
    launch.env(control::VARIABLE, control::SOCKET);
    // libudev wants to see sysfs's own magic number otherwise.
    launch.env("SYSTEMD_DEVICE_VERIFY_SYSFS", "0");
    if let Some(directory) = directory {
        launch.current_dir(directory);
    }
    launch
}

/// Starts the command, hands signals on, and waits. Asked to end, it ends the command whatever that is blocked at.
fn watch(machine: &Arc<Machine>, signals: SigSet, mut command: Command) -> Result<ExitStatus> {
    let mut child = command.spawn().context("the command cannot be started")?;
    let pid = Pid::from_raw(child.id() as i32);
    let machine = machine.clone();
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            let _ = kill(pid, signal);
            if signal != Signal::SIGINT {
                thread::sleep(GRACE);
                machine.close();
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
    });
    child.wait().context("the command cannot be waited for")
}

fn code(status: ExitStatus) -> u8 {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

fn whole(machine: &Machine) -> Whole {
    let mut policy = BTreeMap::new();
    for path in fs::read_dir("/etc/vfioctl.d").into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Ok(content) = fs::read(&path) {
            policy.insert(name, String::from_utf8_lossy(&content).into_owned());
        }
    }
    Whole { state: machine.state(), policy }
}

/// Keeps /dev/vfio as the host is: a node, here an empty file, for each group with a VFIO device.
fn nodes_of_groups() -> Observer {
    let shown = Mutex::new(BTreeSet::new());
    Box::new(move |host: &Host| {
        let devices = host.devices().filter(|device| device.vfio_dev.is_some());
        let mut wanted: BTreeSet<String> = devices.filter_map(|device| Some(device.group?.to_string())).collect();
        if host.node("class/vfio-dev").is_some() || host.loaded_modules().contains("vfio") {
            wanted.insert("vfio".to_owned());
        }
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        for name in wanted.difference(&shown) {
            let _ = File::create(Path::new(namespace::VFIO_NODES).join(name));
        }
        for name in shown.difference(&wanted) {
            let _ = fs::remove_file(Path::new(namespace::VFIO_NODES).join(name));
        }
        *shown = wanted;
    })
}

/// Ends every other process in the namespace, so that none lingers in a write that will never be answered.
fn end_all(machine: &Machine) {
    machine.close();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = others();
        if left.is_empty() || Instant::now() > deadline {
            return;
        }
        for pid in left {
            let _ = kill(pid, Signal::SIGKILL);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// The other processes in this mount namespace that have not ended yet.
fn others() -> Vec<Pid> {
    let Ok(own) = fs::read_link("/proc/self/ns/mnt") else {
        return Vec::new();
    };
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(|entry| {
        let name = entry.ok()?.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    let here = processes
        .filter(|pid| *pid != std::process::id())
        .filter(|pid| fs::read_link(format!("/proc/{pid}/ns/mnt")).is_ok_and(|namespace| namespace == own));
    here.map(|pid| Pid::from_raw(pid as i32)).collect()
}

/// Asks the machine that this process is on.
pub fn ctl(request: &control::Request) -> Result<()> {
    match control::Client::connect()?.ask(request)? {
        Ok(Value::Null) => {}
        Ok(value) => println!("{}", serde_json::to_string_pretty(&value)?),
        Err(errno) => bail!("{errno}"),
    }
    Ok(())
}
