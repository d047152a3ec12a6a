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
use vfioctl::vfio::prober;

/// The first file descriptor behind standard input, output and error.
const FIRST_OWN: i32 = 3;

fn main() -> ExitCode {
    // What we were given by whoever started us is for nobody that we start: stuck in the kernel, it would keep the other end
    // of a pipe waiting, or a file locked.
    close_fds::set_fds_cloexec(FIRST_OWN, &[]);
    // Not commands of the user's, and no argument parser's work.
    let word = std::env::args_os().nth(1);
    let served = match word.as_ref().and_then(|word| word.to_str()) {
        Some(attendant::ARGUMENT) => Some(attendant::serve(io::stdin().lock(), io::stdout().lock())),
        Some(prober::ARGUMENT) => Some(prober::serve(io::stdin().lock(), io::stdout().lock())),
        _ => None,
    };
    if let Some(result) = served {
        return if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let cli = if driverctl::is_our_name() { driverctl::Standalone::parse().into() } else { Cli::parse() };
    let result = command::run(cli);
    attendant::dismiss();
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // Our errors name their causes themselves.
            eprintln!("vfioctl: {error}");
            ExitCode::from(command::exit_status(&error))
        }
    }
}
