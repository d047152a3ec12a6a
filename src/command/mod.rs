// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs, a file each: gather, choose, plan, apply, report.

mod apply;
mod bind;
mod claim;
pub mod complete;
mod context;
mod doctor;
mod driverctl;
mod drivers;
mod groups;
mod import_driverctl;
mod initramfs;
mod libvirt;
mod list;
mod probe;
mod show;
mod snapshot;
mod sriov;
mod subject;
mod unbind;
mod vfs;

use crate::cli::{Cli, Command};

use crate::host::HostError;
use context::{Context, UsageError};

/// Does what was typed; the exit status comes back. An error is one that concerns the whole command, not a device.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    let context = Context::new(&cli.common)?;
    match cli.command {
        Command::List(options) => list::run(&context, &options),
        Command::Show(options) => show::run(&context, options.address),
        Command::Match(subject) => subject::run_match(&context, &subject),
        Command::Explain(subject) => subject::run_explain(&context, &subject),
        Command::Bind(options) => bind::run(&context, &options),
        Command::Unbind(options) => unbind::run(&context, &options),
        Command::Apply(options) => apply::run(context, &options),
        Command::Claim(options) => claim::run(&context, &options),
        Command::Probe(options) => probe::run(&context, &options),
        Command::Sriov(options) => sriov::run(&context, &options),
        Command::Drivers => drivers::run(&context),
        Command::Groups(options) => groups::run(&context, &options),
        Command::Doctor => doctor::run(&context),
        Command::Snapshot(options) => snapshot::run(&context, &options),
        Command::Initramfs(options) => initramfs::run(&context, &options),
        Command::Libvirt(options) => libvirt::run(context, &options),
        Command::Driverctl(options) => driverctl::run(context, &options),
        Command::ImportDriverctl(options) => import_driverctl::run(&context, options.yes),
    }
}

/// The exit status for an error that concerns the whole command: 2 where what was typed names nothing, 1 otherwise.
pub fn exit_status(error: &anyhow::Error) -> u8 {
    let is_usage = error.is::<UsageError>() || error.is::<HostError>();
    if is_usage { 2 } else { 1 }
}
