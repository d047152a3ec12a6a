// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arguments in, exit status out.

use std::ffi::OsString;
use std::io;
use std::process::{self, ExitCode};

use anstream::eprintln;
use clap::Parser;
use vfioctl::cli::{Cli, completion, driverctl};
use vfioctl::command;
use vfioctl::printable::{is_plain, printable, printable_lines};
use vfioctl::privilege;
use vfioctl::sysfs::attendant;
use vfioctl::vfio::prober;

/// The first file descriptor behind standard input, output and error.
const FIRST_OWN: i32 = 3;
/// Exit status of what the user may not do.
const NOT_PERMITTED: u8 = 6;

fn main() -> ExitCode {
    // What we were given by whoever started us is for nobody that we start: stuck in the kernel, it would keep the other end
    // of a pipe waiting, or a file locked.
    close_fds::set_fds_cloexec(FIRST_OWN, &[]);
    if privilege::is_lent() {
        eprintln!(
            "vfioctl: refused: it was started with rights that its user does not have (set-user-ID, set-group-ID or \
             capabilities of its file); take these from the file, and give it to whom may be root (sudo, doas)"
        );
        return ExitCode::from(NOT_PERMITTED);
    }
    // Not commands of the user's, and no argument parser's work.
    let word = std::env::args_os().nth(1);
    let served = match word.as_ref().and_then(|word| word.to_str()) {
        Some(attendant::ARGUMENT) => Some(attendant::serve(io::stdin())),
        Some(completion::ARGUMENT) => Some(command::complete::run(std::env::args_os().skip(2))),
        Some(prober::ARGUMENT) => Some(prober::serve(io::stdin().lock(), io::stdout().lock())),
        _ => None,
    };
    if let Some(result) = served {
        return if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let typed = match driverctl::is_our_name() {
        true => driverctl::Standalone::try_parse().map(Cli::from),
        false => Cli::parse_typed(std::env::args_os()),
    };
    let cli = typed.unwrap_or_else(|error| refuse(&error));
    let result = command::run(cli);
    attendant::dismiss();
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            // Our errors name their causes themselves.
            eprintln!("vfioctl: {}", printable_lines(&error.to_string()));
            ExitCode::from(command::exit_status(&error))
        }
    }
}

/// Says what is wrong with what was typed, or gives the help that was asked for, and ends. The parser repeats arguments as they
/// are, and these may be foreign: libvirt's hook is called with a domain's name.
fn refuse(error: &clap::Error) -> ! {
    let is_plain = |argument: OsString| argument.to_str().is_some_and(|text| text.chars().all(is_plain));
    if std::env::args_os().all(is_plain) {
        error.exit();
    }
    for line in error.render().to_string().lines() {
        eprintln!("{}", printable(line));
    }
    process::exit(error.exit_code())
}
