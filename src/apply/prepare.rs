// SPDX-License-Identifier: MIT OR Apache-2.0
//! The steps that are programs: each is run once, for its time, and what it printed is kept.

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use super::Job;
use super::failure::StepError;
use crate::outcome::StepRecord;
use crate::prepare::{self, Preparation, shown};
use crate::process::{self, Killed, Logged, Printed, RunError};

/// How much is kept of what a program prints.
const OUTPUT: usize = 4096;

/// How many lines of that go into a message.
const LINES: usize = 3;

/// A program that did not do what it was to do.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// It could not be run.
    #[error("prepare: {0}")]
    Run(#[from] RunError),
    /// It said so.
    #[error("prepare: {command}: {status}{}", said(.output))]
    Failed {
        /// Its words.
        command: String,
        /// How it ended.
        status: String,
        /// What it printed.
        output: String,
    },
    /// It did not end.
    #[error(
        "{}prepare: {command} still ran after {} s{}: what it has done by then is not known{}",
        if .killed.is_interrupted { "interrupted; " } else { "" },
        .after.as_secs_f32(),
        .killed,
        said(.output)
    )]
    TimedOut {
        /// Its words.
        command: String,
        /// How long it was given.
        after: Duration,
        /// How it was ended.
        killed: Killed,
        /// What it printed.
        output: String,
    },
}

/// The end of what was printed, for a message.
fn said(output: &str) -> String {
    let lines: Vec<&str> = output.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join("; ");
    let from = last.char_indices().rev().nth(399).map_or(0, |(index, _)| index);
    if last.is_empty() { last } else { format!(": {}", &last[from..]) }
}

impl Job<'_> {
    /// Runs a preparation, and remembers that it is to be put back.
    pub(super) fn prepare(&mut self, preparation: &Preparation, record: &mut StepRecord) -> Result<(), StepError> {
        if preparation.is_done {
            return Ok(());
        }
        // Killed while it runs, it may have done its work.
        let begun = [self.prepared.as_slice(), std::slice::from_ref(preparation)].concat();
        self.note(|_| (), &begun)?;
        self.run_program(&preparation.command, preparation, record)?;
        self.prepared = begun;
        Ok(())
    }

    /// Puts a preparation back.
    pub(super) fn unprepare(&mut self, preparation: &Preparation, record: &mut StepRecord) -> Result<(), StepError> {
        let Some(undo) = &preparation.undo else { return Ok(()) };
        self.run_program(undo, preparation, record)?;
        self.prepared.retain(|prepared| prepared != preparation);
        let prepared = self.prepared.clone();
        if let Err(error) = self.note(|_| (), &prepared) {
            self.warnings.push(error.to_string());
        }
        Ok(())
    }

    fn run_program(
        &mut self,
        words: &[String],
        preparation: &Preparation,
        record: &mut StepRecord,
    ) -> Result<(), StepError> {
        let (program, arguments) = words.split_first().expect("a command has a first word");
        let variables = preparation.variables.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let timeout = preparation.timeout.unwrap_or(self.setting.timeout);
        let mut command = prepare::command(OsStr::new(program), variables);
        let begun = Instant::now();
        let logged = process::log(command.args(arguments), timeout, OUTPUT).map_err(PrepareError::from)?;
        let Logged { status, printed } = logged;
        let output = text(&printed);
        for line in output.lines() {
            (self.setting.observe)(self.address, &format!("{program}: {line}"));
        }
        if let Some(record) = &mut record.program {
            record.exit_status = status.as_ref().ok().and_then(ExitStatus::code);
            record.signal = status.as_ref().ok().and_then(ExitStatusExt::signal);
            record.timed_out = status.is_err();
            record.output = Some(output.clone());
        }
        let command = shown(words);
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(PrepareError::Failed { command, status: status.to_string(), output }.into()),
            Err(killed) => {
                Err(PrepareError::TimedOut { command, after: killed.after(begun, timeout), killed, output }.into())
            }
        }
    }

    /// What was prepared and is so still, as words to go on a message.
    pub(super) fn still_prepared(&self) -> String {
        let prepared: Vec<String> = self.prepared.iter().map(|preparation| shown(&preparation.command)).collect();
        match prepared.as_slice() {
            [] => String::new(),
            prepared => format!("; still done: {}", prepared.join("; ")),
        }
    }
}

/// As text, without the beginning of a line or letter that was cut.
fn text(printed: &Printed) -> String {
    let text = String::from_utf8_lossy(&printed.bytes);
    match text.split_once('\n') {
        Some((_, rest)) if printed.is_cut && !rest.is_empty() => format!("[...]\n{rest}"),
        _ if printed.is_cut => format!("[...]{text}"),
        _ => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_go_into_the_message() {
        for (output, expected) in [
            ("", ""),
            ("\n \n", ""),
            ("no\n", ": no"),
            ("a\nb\n\nc\nd\n", ": b; c; d"),
            (&"é".repeat(500), &format!(": {}", "é".repeat(400))),
        ] {
            assert_eq!(said(output), expected);
        }
    }

    #[test]
    fn what_was_cut_shows_it() {
        let case = |bytes: &str, is_cut| text(&Printed { bytes: bytes.as_bytes().to_vec(), is_cut });
        assert_eq!(case("a\nb\n", false), "a\nb\n");
        assert_eq!(case("a\nb\n", true), "[...]\nb\n");
        assert_eq!(case("abc", true), "[...]abc");
        assert_eq!(case("abc\n", true), "[...]abc\n");
    }
}
