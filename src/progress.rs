// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far work on many devices is: one line on standard error, only while it is a terminal, and gone at the end.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How often the line is written at most.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes a line away: to its beginning, and what is there erased (`ECMA-48`, EL).
const ERASE: &str = "\r\x1b[2K";

/// The line; hidden until it is begun.
#[derive(Default)]
pub struct Progress {
    line: Mutex<Option<Line>>,
}

struct Line {
    text: String,
    /// How much there is to be done, if it is counted, and how much of it is.
    total: Option<usize>,
    done: usize,
    written: Instant,
}

impl Line {
    /// That it cannot be written is nobody's loss.
    fn write(&mut self) {
        let count = self.total.map(|total| format!("{}/{total}", self.done)).unwrap_or_default();
        let _ = write!(io::stderr(), "{ERASE}{}{count}", self.text);
        self.written = Instant::now();
    }
}

impl Progress {
    /// One that shows nothing.
    pub fn hidden() -> Progress {
        Progress::default()
    }

    /// Shows `text` and, if something is to be counted, how much of `total` is done.
    pub fn show(&self, text: String, total: Option<usize>) {
        if io::stderr().is_terminal() {
            let mut line = Line { text, total, done: 0, written: Instant::now() };
            line.write();
            *self.line.lock().expect("no thread panics with the line") = Some(line);
        }
    }

    /// One more is done.
    pub fn step(&self) {
        let mut line = self.line.lock().expect("no thread panics with the line");
        if let Some(line) = line.as_mut() {
            line.done += 1;
            if line.written.elapsed() >= PAUSE {
                line.write();
            }
        }
    }

    /// Takes the line away, so that others can be written.
    pub fn clear(&self) {
        if self.line.lock().expect("no thread panics with the line").take().is_some() {
            let _ = write!(io::stderr(), "{ERASE}");
        }
    }
}
