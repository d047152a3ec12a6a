// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a host is ready, what was found, and what mends it.

use std::io;

use serde::Serialize;

use super::{BAD, BOLD, DIM, DOUBT, GOOD, Output, styled};
use crate::doctor::{Finding, Severity};
use crate::printable::printable;

#[derive(Serialize)]
struct Doctor<'a> {
    ready: bool,
    findings: &'a [Finding],
}

/// Before what shows a finding, and what mends it.
const INDENT: &str = "    ";

/// Shows them: in the order of the checks, each with what mends it; what passes is a line, unless -v asks for more.
pub fn doctor(output: Output, findings: &[Finding], is_ready: bool) -> io::Result<()> {
    if output.is_json {
        return output.print_json("doctor", Doctor { ready: is_ready, findings });
    }
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let (style, word) = match finding.severity {
            Severity::Pass => (GOOD, "PASS"),
            Severity::Note => (DIM, "NOTE"),
            Severity::Warning => (DOUBT, "WARN"),
            Severity::Failure => (BAD, "FAIL"),
        };
        let message = printable(&finding.message);
        let message = if finding.severity == Severity::Failure { styled(BOLD, &message) } else { message };
        text.push_str(&format!("{}  {:width$}  {message}\n", styled(style, word), finding.check));
        if finding.severity == Severity::Pass && !output.is_verbose {
            continue;
        }
        for line in &finding.evidence {
            let lines: Vec<String> = line.trim_end().lines().map(printable).collect();
            text.push_str(&format!("{INDENT}{}\n", styled(DIM, &lines.join(&format!("\n{INDENT}  ")))));
        }
        for line in &finding.mend {
            text.push_str(&format!("{INDENT}→ {}\n", printable(line)));
        }
    }
    text.push_str(&format!("\n{}\n", summary(findings, is_ready)));
    output.print(&text)
}

fn summary(findings: &[Finding], is_ready: bool) -> String {
    let number = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let count = |severity, one: &str| match number(severity) {
        1 => format!("1 {one}"),
        number => format!("{number} {one}s"),
    };
    let verdict = match is_ready {
        true => styled(GOOD, "This host is ready for VFIO"),
        false => styled(BAD, "This host is not ready for VFIO"),
    };
    let (failures, warnings, notes) =
        (count(Severity::Failure, "failure"), count(Severity::Warning, "warning"), count(Severity::Note, "note"));
    format!("{verdict}: {failures}, {warnings}, {notes}, {} passed.", number(Severity::Pass))
}
