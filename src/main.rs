// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments in, exit status out.

use std::io;
use std::process::ExitCode;

use anstream::eprintln;
use clap::Parser;
use vfioctl::cli::Cli;
use vfioctl::cli::driverctl;
use vfioctl::command;
use vfioctl::sysfs::attendant;

fn main() -> ExitCode {
    // Not a command of the user's, and no argument parser's work.
    if std::env::args_os().nth(1).is_some_and(|word| word == attendant::ARGUMENT) {
        return match attendant::serve(io::stdin().lock(), io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let cli = if driverctl::is_our_name() { driverctl::Standalone::parse().into() } else { Cli::parse() };
    match command::run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // Our errors name their causes themselves.
            eprintln!("vfioctl: {error}");
            ExitCode::from(command::exit_status(&error))
        }
    }
}
