// SPDX-License-Identifier: MIT OR Apache-2.0
//! One result, shown as text or as JSON. Standard output carries the answer, standard error everything else.

mod candidates;
mod changes;
mod device;
mod doctor;
mod driverctl;
mod drivers;
mod graph;
mod groups;
mod import;
mod initramfs;
mod libvirt;
mod probe;
mod results;
mod snapshot;
mod sriov;
mod table;

use std::io::{self, Write};
use std::iter;

use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::ColorChoice;
use serde::Serialize;

use crate::outcome::Failure;
use crate::printable::{is_plain, printable, printable_lines};

pub use candidates::{explain, show_match};
pub use changes::{change, change_as_json};
pub use device::{Blocker, DeviceView, GroupView, PolicyView, ShowView, first_list, list, show};
pub use doctor::doctor;
pub use driverctl::lines;
pub use drivers::{DriverView, drivers};
pub use graph::graph;
pub use groups::{GroupsView, drawing, groups};
pub use import::{Import, imports};
pub use initramfs::{InitramfsView, initramfs};
pub use libvirt::{CheckView, SnippetView, StartView, snippets, start};
pub use probe::{ProbeView, probe};
pub use results::{remarks, results, udev_property};
pub use snapshot::{SnapshotView, Unread, snapshot};
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
        let mut stdout = io::stdout().lock();
        let is_styled = match self.choice() {
            anstream::ColorChoice::Auto => AutoStream::choice(&stdout) != anstream::ColorChoice::Never,
            choice => choice != anstream::ColorChoice::Never,
        };
        // Not as a whole, which would be there twice.
        let written = pieces(text).try_for_each(|text| stdout.write_all(steady(text, is_styled).as_bytes()));
        unless_unread(written.and_then(|()| stdout.flush()))
    }

    /// Writes one JSON document: schema and command first, then `fields`.
    fn print_json(self, command: &str, fields: impl Serialize) -> io::Result<()> {
        let mut stdout = Escaping { json: Vec::new(), output: io::stdout().lock() };
        let written = serde_json::to_writer_pretty(&mut stdout, &Document { schema: 1, command, fields });
        unless_unread(written.map_err(io::Error::from).and_then(|()| writeln!(stdout)).and_then(|()| stdout.flush()))
    }

    /// The same on one line, where more will follow.
    fn print_json_line<T: Serialize>(self, command: &str, fields: T) -> io::Result<()> {
        let mut stdout = Escaping { json: Vec::new(), output: io::stdout().lock() };
        let written = serde_json::to_writer(&mut stdout, &Document { schema: 1, command, fields });
        unless_unread(written.map_err(io::Error::from).and_then(|()| writeln!(stdout)).and_then(|()| stdout.flush()))
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

/// How much is written at a time, but for the line it ends in.
const PIECE: usize = 1 << 16;

/// A text in pieces of whole lines.
fn pieces(mut text: &str) -> impl Iterator<Item = &str> {
    iter::from_fn(move || {
        let end = text.as_bytes().iter().skip(PIECE).position(|byte| *byte == b'\n');
        let piece = text.split_at(end.map_or(text.len(), |end| PIECE + end + 1));
        text = piece.1;
        Some(piece.0).filter(|piece| !piece.is_empty())
    })
}

/// How much of a text begins it that is plain at first sight, as nearly all is.
fn plain_start(text: &str) -> usize {
    text.bytes().position(|byte| !matches!(byte, b' '..=b'~' | b'\n')).unwrap_or(text.len())
}

/// What goes to a terminal, whoever forgot that a part of it is foreign: of escape sequences our own styles alone, and these
/// only if it `is_styled`.
fn steady(text: &str, is_styled: bool) -> String {
    let ours = [BOLD, GOOD, DOUBT, BAD, DIM].map(|style| style.render().to_string());
    let ours = || ours.iter().map(String::as_str).chain([RESET]);
    let mut steady = String::with_capacity(text.len());
    let mut rest = text;
    loop {
        let plain = plain_start(rest);
        steady.push_str(&rest[..plain]);
        rest = &rest[plain..];
        let Some(c) = rest.chars().next() else { return steady };
        let style = ours().find(|style| rest.starts_with(style));
        let taken = style.map_or(c.len_utf8(), str::len);
        match style {
            Some(style) if is_styled => steady.push_str(style),
            Some(_) => {}
            None => steady.push(if is_plain(c) { c } else { char::REPLACEMENT_CHARACTER }),
        }
        rest = &rest[taken..];
    }
}

/// JSON in which nothing steers a terminal either, and which says the same: such characters occur in strings alone, where
/// they can be written as their numbers.
fn escaped(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    let mut rest = json;
    loop {
        let plain = plain_start(rest);
        escaped.push_str(&rest[..plain]);
        rest = &rest[plain..];
        let Some(c) = rest.chars().next() else { return escaped };
        if is_plain(c) {
            escaped.push(c);
        } else {
            let units = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect::<Vec<_>>();
            escaped.push_str(&units.concat());
        }
        rest = &rest[c.len_utf8()..];
    }
}

/// Writes JSON so, a piece at a time: that of thousands of devices is never there as a whole.
struct Escaping<W> {
    /// What serde_json has written, which is whole characters each time.
    json: Vec<u8>,
    output: W,
}

impl<W: Write> Escaping<W> {
    fn pass_on(&mut self) -> io::Result<()> {
        let text =
            std::str::from_utf8(&self.json).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.output.write_all(escaped(text).as_bytes())?;
        self.json.clear();
        Ok(())
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write(&mut self, json: &[u8]) -> io::Result<usize> {
        self.json.extend_from_slice(json);
        if self.json.len() >= PIECE {
            self.pass_on()?;
        }
        Ok(json.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.pass_on()?;
        self.output.flush()
    }
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
        let expected = "\u{fffd}[2J\u{fffd}1mü\u{fffd}";
        assert_eq!(steady(&text, true), text.replace("\u{1b}[2J\u{9b}1mü\u{202e}", expected));
        assert_eq!(steady(&text, false), format!("bound\n{expected}"));
        // A part of one is none.
        assert_eq!(steady("\u{1b}[3", true), "\u{fffd}[3");
        for style in [BOLD, GOOD, DOUBT, BAD, DIM] {
            assert_eq!(format!("{style:#}"), RESET);
        }
    }

    #[test]
    fn pieces_are_whole_lines_and_all_of_the_text() {
        let long = "x".repeat(PIECE);
        for text in
            ["", "\n", "a", "a\nb\n", &format!("{long}\n{long}y\nz"), &format!("{long}\n"), &"ab\n".repeat(PIECE)]
        {
            let all: Vec<&str> = pieces(text).collect();
            assert_eq!(all.concat(), text);
            assert!(all.iter().rev().skip(1).all(|piece| piece.ends_with('\n') && piece.len() > PIECE));
            assert!(all.iter().all(|piece| piece.len() <= 2 * PIECE + 2));
        }
    }

    #[test]
    fn json_says_the_same_without_what_steers() {
        let value = "\u{1b}[2J \u{9b} \u{7f} \u{202e} \u{e0041} ü \" \\ \n";
        let mut json = Escaping { json: Vec::new(), output: Vec::new() };
        serde_json::to_writer_pretty(&mut json, &[value]).unwrap();
        json.flush().unwrap();
        let json = String::from_utf8(json.output).unwrap();
        assert!(json.chars().all(|c| c == '\n' || is_plain(c)), "{json:?}");
        assert!(json.contains("\\u009b") && json.contains("\\udb40\\udc41") && json.contains('ü'), "{json}");
        assert_eq!(serde_json::from_str::<[String; 1]>(&json).unwrap(), [value]);
        // More than a piece, and none of its characters divided.
        let long: Vec<String> = (0..PIECE).map(|index| "ü\u{9b}日".repeat(index % 4)).collect();
        let mut json = Escaping { json: Vec::new(), output: Vec::new() };
        serde_json::to_writer(&mut json, &long).unwrap();
        json.flush().unwrap();
        assert_eq!(serde_json::from_slice::<Vec<String>>(&json.output).unwrap(), long);
    }
}
