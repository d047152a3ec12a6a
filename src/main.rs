// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments in, exit status out.

use std::io;
use std::process::ExitCode;

use anstream::eprintln;
use clap::Parser;
use vfioctl::cli::Cli;
use vfioctl::command;
use vfioctl::sysfs::control;

fn main() -> ExitCode {
    // Not a command of the user's, and no argument parser's work.
    if std::env::args_os().nth(1).is_some_and(|word| word == control::WRITER_COMMAND) {
        return match control::serve(io::stdin().lock(), io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    match command::run(Cli::parse()) {
        Ok(status) => ExitCode::from(status),
        // A reader that has seen enough is no failure.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vfioctl: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}
