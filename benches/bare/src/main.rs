// SPDX-License-Identifier: MIT OR Apache-2.0
//! What vfioctl is measured against: the reads and writes of sysfs that its work cannot do without, and nothing else.
//!
//!     bare list [--overrides]          read what `vfioctl list` shows of each device, and print it as it is
//!     bare bind N DRIVER ADDR…         give devices a driver, N at once
//!     bare give-back DRIVER ADDR…      take the override away and give them this driver
//!     bare are-on DRIVER ADDR…         fail unless they are on it
//!     bare peak COMMAND…               run a command and print its greatest resident size, in KiB
//!
//! `peak` is here because a small process has to start the command: Linux lets a child begin with its parent's peak.

mod list;
mod write;

use std::env;
use std::io::{self, Error};
use std::process::{Command, ExitCode, Stdio};

use nix::sys::resource::{UsageWho, getrusage};

const GIVEN_BACK_AT_ONCE: usize = 64;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["list"] => list::list(false),
        ["list", "--overrides"] => list::list(true),
        ["bind", at_once, driver, addresses @ ..] => {
            number(at_once).and_then(|at_once| write::each(at_once, addresses, |address| write::bind(driver, address)))
        }
        ["give-back", driver, addresses @ ..] => {
            write::each(GIVEN_BACK_AT_ONCE, addresses, |address| write::give_back(driver, address))
        }
        ["are-on", driver, addresses @ ..] => write::are_on(driver, addresses),
        ["peak", program, arguments @ ..] => peak(program, arguments),
        _ => Err(Error::other("usage: bare list|bind|give-back|are-on|peak …; see its source")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bare: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(text: &str) -> io::Result<usize> {
    text.parse().map_err(|_| Error::other(format!("{text:?} is no number")))
}

/// What it prints is not wanted.
fn peak(program: &str, arguments: &[&str]) -> io::Result<()> {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status()?;
    if !status.success() {
        return Err(Error::other(format!("{program}: {status}")));
    }
    println!("{}", getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss());
    Ok(())
}
