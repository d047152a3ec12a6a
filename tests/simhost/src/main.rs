// SPDX-License-Identifier: MIT OR Apache-2.0
//! simhost: arguments in, exit status out.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use simhost::control::Request;
use simhost::fault::{Fault, SYNTAX};
use simhost::{modprobe, run};

/// A PCI driver core in user space, shown as /sys over FUSE
#[derive(Parser)]
#[command(name = "simhost")]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Run a command on a host, with its /sys, /lib/modules and modprobe, in a mount namespace of its own
    #[command(after_help = SYNTAX)]
    Run {
        /// The host's directory
        host: PathBuf,
        /// What is to go wrong; may be given several times, see below
        #[arg(long = "fault", value_name = "FAULT")]
        faults: Vec<Fault>,
        /// When the command has ended, write there as JSON the state before and after, and every write to /sys
        #[arg(long, value_name = "FILE")]
        journal: Option<PathBuf>,
        /// The command; $SHELL when there is none
        #[arg(last = true)]
        command: Vec<OsString>,
    },
    /// Inside: look at the host, or act on it
    Ctl {
        #[command(subcommand)]
        request: Ctl,
    },
    /// What `run` starts, to become the command
    #[command(hide = true)]
    Launch {
        #[arg(last = true)]
        command: Vec<OsString>,
    },
}

#[derive(Subcommand)]
enum Ctl {
    /// Let what a fault blocks go on; prints what that was
    Release {
        /// With this device only
        address: Option<String>,
    },
    /// Let this go wrong too
    #[command(after_help = SYNTAX)]
    Fault {
        /// What
        fault: String,
    },
    /// Let nothing go wrong any more, and let what is blocked go on; prints what that was
    Mend,
    /// Print the state as JSON
    State,
    /// Print what was done so far as JSON
    Journal,
    /// Print what a fault blocks now
    Blocked,
}

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    match name.to_str() {
        Some("modprobe") => return modprobe::main(arguments),
        Some(other @ ("kmod" | "insmod" | "rmmod" | "lsmod" | "modinfo" | "depmod")) => {
            eprintln!("{other}: not on a simulated host, which has modprobe alone");
            return ExitCode::FAILURE;
        }
        _ => {}
    }
    let result = match Options::parse().verb {
        Verb::Run { host, faults, journal, command } => run::run(run::Run { host, faults, journal, command }),
        Verb::Launch { command } => run::launch(&command),
        Verb::Ctl { request } => run::ctl(&match request {
            Ctl::Release { address } => Request::Release(address),
            Ctl::Fault { fault } => Request::Fault(fault),
            Ctl::Mend => Request::Mend,
            Ctl::State => Request::State,
            Ctl::Journal => Request::Journal,
            Ctl::Blocked => Request::Blocked,
        })
        .map(|()| 0),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("simhost: {error:#}");
            // Apart from what commands give: 125, as env and timeout have it.
            ExitCode::from(125)
        }
    }
}
