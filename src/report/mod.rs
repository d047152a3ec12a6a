// SPDX-License-Identifier: MIT OR Apache-2.0
//! One result, shown as text or as JSON. Standard output carries the answer, standard error everything else.

mod candidates;
mod device;
mod driverctl;
mod drivers;
mod import;
mod libvirt;
mod probe;
mod results;
mod sriov;
mod table;

use std::io::{self, Write};

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use serde::Serialize;

use crate::outcome::Failure;

pub use candidates::{explain, show_match};
pub use device::{Blocker, DeviceView, GroupView, PolicyView, ShowView, list, show};
pub use driverctl::lines;
pub use drivers::{DriverView, drivers};
pub use import::{Import, imports};
pub use libvirt::{CheckView, SnippetView, StartView, snippets, start};
pub use probe::{ProbeView, probe};
pub use results::{remarks, results, udev_property};
pub use sriov::{PfView, SriovOutcome, SriovView, VfView, sriov_list, sriov_set, sriov_show};

const BOLD: Style = Style::new().bold();
const GOOD: Style = AnsiColor::Green.on_default();
const DOUBT: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default();
const DIM: Style = Style::new().dimmed();

/// What `--json` prints, of every command.
#[derive(Serialize)]
struct Document<'a, T> {
    schema: u32,
    command: &'a str,
    #[serde(flatten)]
    fields: T,
}

#[derive(Serialize)]
struct Refusal<'a> {
    error: &'a Failure,
}

/// A reader that has seen enough is no failure, and changes nothing about the exit status.
fn unless_unread(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// How to show results.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// As one JSON document?
    pub is_json: bool,
    /// In colour?
    pub color: ColorChoice,
    /// Every step?
    pub is_verbose: bool,
}

impl Output {
    fn choice(self) -> anstream::ColorChoice {
        match self.color {
            ColorChoice::Auto => anstream::ColorChoice::Auto,
            ColorChoice::Always => anstream::ColorChoice::Always,
            ColorChoice::Never => anstream::ColorChoice::Never,
        }
    }

    /// Writes to standard output. Colour is taken out where it is not wanted.
    fn print(self, text: &str) -> io::Result<()> {
        let mut stdout = AutoStream::new(io::stdout().lock(), self.choice());
        unless_unread(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
    }

    /// Writes one JSON document: schema and command first, then `fields`.
    fn print_json(self, command: &str, fields: impl Serialize) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(&Document { schema: 1, command, fields })?;
        text.push(b'\n');
        let mut stdout = io::stdout().lock();
        unless_unread(stdout.write_all(&text).and_then(|()| stdout.flush()))
    }

    /// A failure that leaves nothing to show: on standard error, and as a document where one is asked for.
    pub fn refuse(self, command: &str, failure: &Failure) -> io::Result<()> {
        self.fail(failure);
        if self.is_json { self.print_json(command, Refusal { error: failure }) } else { Ok(()) }
    }

    /// A line on standard error. That it cannot be written is no reason to stop half-way.
    pub fn note(self, text: &str) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.choice());
        let _ = writeln!(stderr, "vfioctl: {}", printable(text));
    }

    /// A warning on standard error.
    pub fn warn(self, text: &str) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.choice());
        let _ = writeln!(stderr, "vfioctl: {DOUBT}warning{DOUBT:#}: {}", printable(text));
    }

    /// A failure on standard error, and what to do about it.
    pub fn fail(self, failure: &Failure) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.choice());
        let _ = writeln!(stderr, "vfioctl: {BAD}{}{BAD:#}", printable(&failure.message));
        if let Some(hint) = &failure.hint {
            let _ = writeln!(stderr, "  {DIM}{}{DIM:#}", printable(hint));
        }
    }
}

/// Text from the machine, without what would steer a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}
