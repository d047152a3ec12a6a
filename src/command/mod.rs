// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verbs, a file each: gather, choose, plan, apply, report.

mod apply;
mod bind;
mod context;
mod drivers;
mod list;
mod show;
mod subject;
mod unbind;

use crate::cli::{Cli, Command};

use context::Context;

/// Does what was typed; the exit status comes back. An error is one that concerns the whole command, not a device.
pub fn run(cli: Cli) -> anyhow::Result<u8> {
    let context = Context::new(&cli.common)?;
    match cli.command {
        Command::List(options) => list::run(&context, &options),
        Command::Show { address } => show::run(&context, address),
        Command::Match(subject) => subject::run_match(&context, &subject),
        Command::Explain(subject) => subject::run_explain(&context, &subject),
        Command::Bind(options) => bind::run(&context, &options),
        Command::Unbind(options) => unbind::run(&context, &options),
        Command::Apply { addresses } => apply::run(&context, &addresses),
        Command::Drivers => drivers::run(&context),
    }
}
