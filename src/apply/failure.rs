// SPDX-License-Identifier: MIT OR Apache-2.0
//! Steps that did not work: what happened, which kind of failure that is, and what to do next.

use std::io;

use rustix::io::Errno;

use super::prepare::PrepareError;
use crate::address::Address;
use crate::kernel_name::DriverName;
use crate::lock::LockError;
use crate::modules::LoadError;
use crate::outcome::{Failure, Kind};
use crate::policy::StoreError;
use crate::process::RunError;
use crate::sysfs::ReadError;
use crate::sysfs::control::WriteError;

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
    #[error("bound to {0}, which has made no VFIO device of it")]
    NotVfio(DriverName),
}

impl StepError {
    /// What to tell the user, and what to do next.
    pub fn failure(self, address: Address) -> Failure {
        let message = format!("{address}: {self}");
        let log = format!("the kernel log may say more: dmesg | grep {address}");
        match &self {
            StepError::Write(WriteError::TimedOut { .. }) => Failure::stuck(message, stuck_hint(address)),
            StepError::Write(WriteError::NotOpened { errno, .. }) if is_permission(*errno) => {
                Failure::new(Kind::Permission, message, permission_hint())
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
            StepError::Load(LoadError::Run(error)) => match error {
                RunError::TimedOut { .. } => {
                    Failure::stuck(message, "the kernel log may say what the module waits for")
                }
                RunError::Start { .. } => Failure::new(Kind::Module, message, "is the package kmod installed?"),
            },
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
            StepError::Gone => Failure::plain(Kind::NoDevice, message),
            StepError::Interrupted => Failure::plain(Kind::Interrupted, message),
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

/// A lock that could not be had, and what to do about it.
pub fn lock_failure(address: Address, error: LockError) -> Failure {
    let message = format!("{address}: {error}");
    match &error {
        LockError::Held { .. } => {
            Failure::stuck(message, "wait for it, or look what it waits for: ps -C vfioctl -o pid,stat,wchan:32,args")
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

/// The next step for someone who may not.
pub fn permission_hint() -> String {
    "this is for root; in a container or a sandboxed service /sys and /run may be read-only".to_string()
}

fn stuck_hint(address: Address) -> String {
    format!(
        "the kernel goes on when it can: a probe may be slow, or somebody may use the device (fuser -v /dev/vfio/*); \
         then see 'vfioctl show {address}'"
    )
}
