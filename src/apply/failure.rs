// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps that did not work: what happened, which kind of failure that is, and what to do next.

use std::io;

use rustix::io::Errno;

use super::prepare::PrepareError;
use crate::address::Address;
use crate::gather;
use crate::guard;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::lock::LockError;
use crate::modules::LoadError;
use crate::outcome::{Failure, Kind};
use crate::policy::StoreError;
use crate::process::RunError;
use crate::sysfs::control::WriteError;
use crate::sysfs::{Device, ReadError, stuck};
use crate::unfinished::RecordError;

/// What to look at where somebody else has had their way with a device.
pub const OTHERS_AT_WORK: &str = "driverctl, libvirt or a rule of udev's may be at work on it as well";

/// A step that did not work.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    Write(#[from] WriteError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    #[error("the device went away meanwhile")]
    Gone,
    #[error("interrupted")]
    Interrupted,
    #[error("module {0} is loaded, but has registered no PCI driver")]
    NoDriver(String),
    #[error("driver {0} is not registered")]
    NotRegistered(DriverName),
    #[error("the kernel reported success, but the device is on {}, not on {wanted}", .now.as_ref().map_or("no driver", DriverName::as_str))]
    WrongDriver { wanted: DriverName, now: Option<DriverName> },
    #[error("somebody else has put it on {} meanwhile", .0.as_ref().map_or("no driver", DriverName::as_str))]
    Taken(Option<DriverName>),
    #[error("somebody else has {} meanwhile", .0.as_ref().map_or("cleared its override".to_string(), |text| format!("set its override to {text:?}")))]
    Overridden(Option<String>),
    #[error("bound to {0}, which has made no VFIO device of it")]
    NotVfio(DriverName),
}

impl StepError {
    /// What to tell the user, and what to do next.
    pub fn failure(self, address: Address) -> Failure {
        let message = format!("{address}: {self}");
        let log = format!("the kernel log may say more: dmesg | grep {address}");
        match &self {
            StepError::Write(WriteError::TimedOut { given_up, .. }) => {
                Failure::stuck(message, stuck_hint(address)).waiting(Some(given_up.pid), &given_up.within)
            }
            StepError::Write(WriteError::NotOpened { errno, .. }) if is_permission(*errno) => {
                Failure::new(Kind::Permission, message, permission_hint())
            }
            StepError::Prepare(PrepareError::TimedOut { killed, .. }) if killed.is_interrupted => {
                Failure::plain(Kind::Interrupted, message)
            }
            StepError::Prepare(PrepareError::TimedOut { .. }) => Failure::new(
                Kind::Timeout,
                message,
                "a step that takes longer can say so: timeout = SECONDS in vfioctl.d, or --timeout",
            ),
            StepError::Prepare(_) => Failure::new(
                Kind::Preparation,
                message,
                "run it by hand to see what is wrong; 'vfioctl bind --no-prepare' does without",
            ),
            StepError::Load(LoadError::Interrupted(_)) => Failure::plain(Kind::Interrupted, message),
            StepError::Load(LoadError::Run(error)) => match error {
                RunError::TimedOut { killed, .. } if killed.is_interrupted && killed.left.is_none() => {
                    Failure::plain(Kind::Interrupted, message)
                }
                RunError::TimedOut { .. } => {
                    Failure::stuck(message, "the kernel log may say what the module waits for")
                }
                RunError::Start { .. } => Failure::new(Kind::Module, message, "is the package kmod installed?"),
            },
            StepError::Load(LoadError::GivenUp(_)) => {
                Failure::stuck(message, "the kernel log may say what the module waits for")
            }
            StepError::Load(LoadError::Refused { setting: Some(setting), .. }) => {
                Failure::new(Kind::Module, message, setting.clone())
            }
            StepError::Load(LoadError::Absent { module }) => Failure::new(
                Kind::Module,
                message,
                format!("an 'install' line of modprobe.d may stand for it: modprobe --show-depends {module}"),
            ),
            StepError::Load(_) | StepError::NoDriver(_) | StepError::NotRegistered(_) => {
                Failure::new(Kind::Module, message, "the kernel log may say more: dmesg | tail")
            }
            StepError::Store(error) => store_failure(address, error),
            StepError::Record(error) => match error.source.kind() {
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                    Failure::new(Kind::Permission, message, permission_hint())
                }
                _ => Failure::new(
                    Kind::Failed,
                    message,
                    "make room in /run: without a record a killed run could not be put back",
                ),
            },
            StepError::Gone => Failure::plain(Kind::NoDevice, message),
            StepError::Interrupted => Failure::plain(Kind::Interrupted, message),
            StepError::Taken(_) | StepError::Overridden(_) => Failure::new(Kind::Failed, message, OTHERS_AT_WORK),
            StepError::Write(_) | StepError::WrongDriver { .. } | StepError::NotVfio(_) | StepError::Read(_) => {
                Failure::new(Kind::Failed, message, log)
            }
        }
    }
}

fn is_permission(errno: Errno) -> bool {
    matches!(errno, Errno::ACCESS | Errno::PERM | Errno::ROFS)
}

/// A policy file that could not be written or removed, and what to do about it.
pub fn store_failure(address: Address, error: &StoreError) -> Failure {
    let kind = match error.source.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Kind::Permission,
        _ => Kind::Failed,
    };
    let hint = match error.source.kind() {
        io::ErrorKind::PermissionDenied => permission_hint(),
        _ => "--no-save leaves what is kept in /etc alone".to_string(),
    };
    Failure::new(kind, format!("{address}: {error}"), hint)
}

/// Several attempts, one failure: the first is about the best driver, and its kind decides.
pub fn combine(failures: Vec<Failure>) -> Option<Failure> {
    let mut failures = failures.into_iter();
    let mut combined = failures.next()?;
    for failure in failures {
        if failure.kind.exit_status() > combined.kind.exit_status() {
            combined.kind = failure.kind;
            combined.hint = failure.hint;
        }
        combined.message = format!("{}; then {}", combined.message, failure.message);
    }
    Some(combined)
}

/// A device that cannot be looked at: its lock may be held.
pub fn unreadable(address: Address, error: &ReadError) -> Failure {
    let message = format!("{address}: {error}");
    match error.source.kind() {
        io::ErrorKind::TimedOut => {
            Failure::stuck(message, "wait until that is over; the kernel log may say what it waits for")
        }
        _ => Failure::plain(Kind::Failed, message),
    }
}

/// A lock that could not be had, and what to do about it.
pub fn lock_failure(address: Address, error: LockError) -> Failure {
    let message = format!("{address}: {error}");
    match &error {
        LockError::Held { .. } => {
            Failure::stuck(message, "wait for it, or look what it waits for: ps -C vfioctl -o pid,stat,wchan:32,args")
        }
        LockError::Stuck { waiter } => {
            Failure::stuck(message, stuck_hint(address)).waiting(Some(waiter.pid), &waiter.within)
        }
        LockError::Interrupted => Failure::plain(Kind::Interrupted, message),
        LockError::File { source, .. } => match source.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Failure::new(Kind::Permission, message, permission_hint())
            }
            _ => Failure::plain(Kind::Failed, message),
        },
    }
}

/// Nobody can be had who writes to sysfs for a job, under the device's lock.
pub fn no_attendant(address: Address, error: &io::Error) -> Failure {
    Failure::plain(Kind::Failed, format!("{address}: cannot start the process that writes to sysfs: {error}"))
}

/// The next step for someone who may not.
pub fn permission_hint() -> String {
    "this is for root; in a container or a sandboxed service /sys and /run may be read-only".to_string()
}

/// Where a call waits in the kernel: who has to do with that, as far as it can be known, and how the device stands. Nothing
/// that is read for it waits as well.
pub fn explain_wait(host: &Host, address: Address, mut failure: Failure) -> Failure {
    let Some(wait) = &mut failure.wait else { return failure };
    let group = Device::read(host, address).ok().flatten().and_then(|device| device.iommu_group);
    let vfio_devices = Device::vfio_devices(host, address).unwrap_or_default();
    wait.holders = guard::holders(host, address, group, &vfio_devices);
    wait.waiters = stuck::waiters(host);
    // One at an attribute of a driver may be at any of its devices.
    wait.waiters.retain(|waiter| waiter.device.is_none_or(|device| device == address));
    wait.waiters.retain(|waiter| Some(waiter.pid) != wait.waiting_pid && !waiter.is_looking());
    let text = &mut failure.message;
    text.extend(wait.holders.iter().map(|holder| format!("; {holder}")));
    text.extend(wait.waiters.iter().map(|waiter| format!("; {waiter}")));
    let driver = gather::driver_of(host, address).ok().flatten();
    let on = driver.map_or("no driver".to_string(), |driver| driver.to_string());
    let vfio = if vfio_devices.is_empty() { "no VFIO device".to_string() } else { vfio_devices.join(", ") };
    text.push_str(&format!("; now it is on {on}, with {vfio}"));
    failure
}

fn stuck_hint(address: Address) -> String {
    format!(
        "the kernel goes on when it can: a probe may be slow, or somebody may use the device (fuser -v /dev/vfio/*); \
         then see 'vfioctl show {address}'"
    )
}
