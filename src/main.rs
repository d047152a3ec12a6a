// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments in, exit status out.

use std::io;
use std::process::ExitCode;

use anstream::eprintln;
use clap::Parser;
use vfioctl::cli::Cli;
use vfioctl::command;

fn main() -> ExitCode {
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
