// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was found out about a host: one thing that is as it should be, or is not.

use std::fmt::Display;

use serde::Serialize;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Pass,
    /// Worth knowing.
    Note,
    /// It works, but not as it could or as was asked for.
    Warning,
    /// Devices cannot be given to guests, or what the administrator chose is not done.
    Failure,
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// The check that made it; the names stay what they are.
    pub check: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What is so, in one sentence.
    pub message: String,
    /// What shows it: a path and what it says.
    pub evidence: Vec<String>,
    /// What mends it: commands, or lines for a file.
    pub mend: Vec<String>,
}

impl Finding {
    fn new(check: &'static str, severity: Severity, message: impl Into<String>) -> Finding {
        Finding { check, severity, message: message.into(), evidence: Vec::new(), mend: Vec::new() }
    }

    /// As it should be.
    pub fn pass(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, Severity::Pass, message)
    }

    /// Worth knowing.
    pub fn note(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, Severity::Note, message)
    }

    /// Not as it could be.
    pub fn warning(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, Severity::Warning, message)
    }

    /// Not as it has to be.
    pub fn failure(check: &'static str, message: impl Into<String>) -> Finding {
        Finding::new(check, Severity::Failure, message)
    }

    /// Adds what shows it: a path, and what it says.
    pub fn seen(mut self, path: impl Display, says: impl Display) -> Finding {
        self.evidence.push(format!("{path}: {says}"));
        self
    }

    /// Adds a command, or a line for a file.
    pub fn mend(mut self, line: impl Into<String>) -> Finding {
        self.mend.push(line.into());
        self
    }

    /// Adds several.
    pub fn mend_all(mut self, lines: impl IntoIterator<Item = String>) -> Finding {
        self.mend.extend(lines);
        self
    }
}

/// How many of a list are named.
const NAMED: usize = 4;

/// The first few of a list, and how many more there are.
pub fn some<T: Display>(all: &[T]) -> String {
    let mut text = all.iter().take(NAMED).map(T::to_string).collect::<Vec<_>>().join(", ");
    if all.len() > NAMED {
        text.push_str(&format!(" and {} more", all.len() - NAMED));
    }
    text
}

/// `one`, or the number of `several`.
pub fn count(number: usize, one: &str, several: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {several}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_short() {
        assert_eq!(some(&[1, 2, 3, 4]), "1, 2, 3, 4");
        assert_eq!(some(&[1, 2, 3, 4, 5, 6]), "1, 2, 3, 4 and 2 more");
        assert_eq!(count(1, "device", "devices"), "1 device");
        assert_eq!(count(0, "device", "devices"), "0 devices");
    }

    #[test]
    fn severities_go_up() {
        use Severity::{Failure, Note, Pass, Warning};
        assert!(Pass < Note && Note < Warning && Warning < Failure);
    }
}
