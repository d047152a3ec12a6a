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

/// A word as a shell takes it.
pub fn quoted(word: &str) -> String {
    shlex::try_quote(word).map_or_else(|_| word.to_string(), String::from)
}

/// What makes a comment of a line of a drop-in file. A package's file is overridden by one of the same name below /etc, which
/// its next version leaves alone.
pub fn comment_out(path: &str, line: &str) -> Vec<String> {
    let sed = |path: &str| format!("sed -i '{line}s/^/# /' {}", quoted(path));
    let mut parts = path.rsplit('/');
    let (Some(name), Some(directory)) = (parts.next(), parts.next()) else { return vec![sed(path)] };
    if !path.starts_with("/usr/") && !path.starts_with("/lib/") {
        return vec![sed(path)];
    }
    let own = format!("/etc/{directory}/{name}");
    // A copy may be there from the line before.
    let copy = format!("test -e {} || install -D -m644 {} {}", quoted(&own), quoted(path), quoted(&own));
    vec![copy, sed(&own)]
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
    fn lines_that_become_comments() {
        for (path, expected) in [
            ("/etc/modprobe.d/x.conf", &["sed -i '3s/^/# /' /etc/modprobe.d/x.conf"][..]),
            ("/etc/modprobe.d/x y.conf", &["sed -i '3s/^/# /' '/etc/modprobe.d/x y.conf'"]),
            ("/etc/modprobe.d/$(x)'.conf", &["sed -i '3s/^/# /' \"/etc/modprobe.d/\"'$(x)'\"'.conf\""]),
            (
                "/usr/lib/modprobe.d/x.conf",
                &[
                    "test -e /etc/modprobe.d/x.conf || install -D -m644 /usr/lib/modprobe.d/x.conf /etc/modprobe.d/x.conf",
                    "sed -i '3s/^/# /' /etc/modprobe.d/x.conf",
                ],
            ),
            (
                "/lib/modules-load.d/x.conf",
                &[
                    "test -e /etc/modules-load.d/x.conf || install -D -m644 /lib/modules-load.d/x.conf /etc/modules-load.d/x.conf",
                    "sed -i '3s/^/# /' /etc/modules-load.d/x.conf",
                ],
            ),
        ] {
            let mend = comment_out(path, "3");
            assert_eq!(mend.len(), expected.len(), "{mend:?}");
            // However it is quoted, a shell has it as it is.
            let words = |line: &str| shlex::split(line).unwrap();
            mend.iter().zip(expected).for_each(|(line, expected)| assert_eq!(words(line), words(expected), "{line}"));
        }
    }

    #[test]
    fn severities_go_up() {
        use Severity::{Failure, Note, Pass, Warning};
        assert!(Pass < Note && Note < Warning && Warning < Failure);
    }
}
