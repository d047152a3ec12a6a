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
use crate::printable::{is_plain, printable, printable_lines};

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
/// What ends each of them.
const RESET: &str = "\u{1b}[0m";

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
        unless_unread(stdout.write_all(steady(text).as_bytes()).and_then(|()| stdout.flush()))
    }

    /// Writes one JSON document: schema and command first, then `fields`.
    fn print_json(self, command: &str, fields: impl Serialize) -> io::Result<()> {
        let text = escaped(&serde_json::to_string_pretty(&Document { schema: 1, command, fields })?);
        let mut stdout = io::stdout().lock();
        unless_unread(writeln!(stdout, "{text}").and_then(|()| stdout.flush()))
    }

    /// A failure that leaves nothing to show: on standard error, and as a document where one is asked for.
    pub fn refuse(self, command: &str, failure: &Failure) -> io::Result<()> {
        self.fail(failure);
        if self.is_json { self.print_json(command, Refusal { error: failure }) } else { Ok(()) }
    }

    /// A line on standard error. That it cannot be written is no reason to stop half-way.
    pub fn note(self, text: &str) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.choice());
        let _ = writeln!(stderr, "vfioctl: {}", printable_lines(text));
    }

    /// A warning on standard error.
    pub fn warn(self, text: &str) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.choice());
        let _ = writeln!(stderr, "vfioctl: {DOUBT}warning{DOUBT:#}: {}", printable_lines(text));
    }

    /// A failure on standard error, and what to do about it.
    pub fn fail(self, failure: &Failure) {
        let mut stderr = AutoStream::new(io::stderr().lock(), self.choice());
        let _ = writeln!(stderr, "vfioctl: {BAD}{}{BAD:#}", printable_lines(&failure.message));
        if let Some(hint) = &failure.hint {
            let _ = writeln!(stderr, "  {DIM}{}{DIM:#}", printable_lines(hint));
        }
    }
}

/// What goes to a terminal, whoever forgot that a part of it is foreign: of escape sequences our own styles alone.
fn steady(text: &str) -> String {
    let ours = [BOLD, GOOD, DOUBT, BAD, DIM].map(|style| style.render().to_string());
    let ours = || ours.iter().map(String::as_str).chain([RESET]);
    let mut steady = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let taken = match ours().find(|style| rest.starts_with(style)) {
            Some(style) => style.len(),
            None => c.len_utf8(),
        };
        let is_fine = taken > c.len_utf8() || c == '\n' || is_plain(c);
        steady.push_str(if is_fine { &rest[..taken] } else { "\u{fffd}" });
        rest = &rest[taken..];
    }
    steady
}

/// JSON in which nothing steers a terminal either, and which says the same: such characters occur in strings alone, where
/// they can be written as their numbers.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\n' || is_plain(c) {
            escaped.push(c);
        } else {
            let units = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>();
            escaped.push_str(&units.concat());
        }
    }
    escaped
}

fn styled(style: Style, text: &str) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_styles_alone_reach_a_terminal() {
        let text = format!("{}\n{}", styled(GOOD, "bound"), styled(DIM, "\u{1b}[2J\u{9b}1mü\u{202e}"));
        assert_eq!(steady(&text), text.replace("\u{1b}[2J\u{9b}1mü\u{202e}", "\u{fffd}[2J\u{fffd}1mü\u{fffd}"));
        // A part of one is none.
        assert_eq!(steady("\u{1b}[3"), "\u{fffd}[3");
        for style in [BOLD, GOOD, DOUBT, BAD, DIM] {
            assert_eq!(format!("{style:#}"), RESET);
        }
    }

    #[test]
    fn json_says_the_same_without_what_steers() {
        let value = "\u{1b}[2J \u{9b} \u{7f} \u{202e} \u{e0041} ü \" \\ \n";
        let json = escaped(&serde_json::to_string_pretty(&[value]).unwrap());
        assert!(json.chars().all(|c| c == '\n' || is_plain(c)), "{json:?}");
        assert!(json.contains("\\u009b") && json.contains("\\udb40\\udc41") && json.contains('ü'), "{json}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [value]);
    }
}
