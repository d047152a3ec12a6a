// SPDX-License-Identifier: MIT OR Apache-2.0
//! What matches a device or modalias.

use std::io;

use serde::Serialize;

use super::{BAD, BOLD, DOUBT, GOOD, Output, printable, styled};
use crate::address::Address;
use crate::kernel_name::{DriverName, ModuleName};
use crate::verdict::{Candidate, Verdict};

/// A verdict in a word.
pub fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Best => "best",
        Verdict::Limited => "best, limited",
        Verdict::Fallback => "fallback",
        Verdict::Blocked => "blocked",
    }
}

#[derive(Serialize)]
struct Best<'a> {
    module: &'a ModuleName,
    driver: Option<&'a DriverName>,
    alias: &'a str,
}

#[derive(Serialize)]
struct Answer<'a> {
    address: Option<Address>,
    modalias: &'a str,
    best: Option<Best<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    candidates: Option<&'a [Candidate]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    warnings: Option<&'a [String]>,
}

fn answer<'a>(
    address: Option<Address>,
    modalias: &'a str,
    best: Option<&'a Candidate>,
    shown: Option<(&'a [Candidate], &'a [String])>,
) -> Answer<'a> {
    let best = best.map(|best| Best { module: &best.module, driver: best.driver.as_ref(), alias: &best.alias });
    let (candidates, warnings) = shown.unzip();
    Answer { address, modalias, best, candidates, warnings }
}

/// Shows the best driver's name, alone.
pub fn show_match(
    output: Output,
    address: Option<Address>,
    modalias: &str,
    best: Option<&Candidate>,
) -> io::Result<()> {
    if output.is_json {
        return output.print_json("match", answer(address, modalias, best, None));
    }
    match best {
        Some(best) => output.print(&format!("{}\n", best.name())),
        None => Ok(()),
    }
}

/// Shows every candidate, in rank order; what else is to be known of the best goes to standard error.
pub fn explain(
    output: Output,
    address: Option<Address>,
    modalias: &str,
    release: &str,
    best: Option<&Candidate>,
    candidates: &[Candidate],
    warnings: &[String],
) -> io::Result<()> {
    if output.is_json {
        return output.print_json("explain", answer(address, modalias, best, Some((candidates, warnings))));
    }
    for warning in warnings {
        output.warn(warning);
    }
    let subject = address.map_or_else(String::new, |address| format!("{BOLD}{address}{BOLD:#}  "));
    let mut text = format!("{subject}{modalias}\n");
    if candidates.is_empty() {
        text.push_str(&format!("no VFIO driver of kernel {} matches\n", printable(release)));
    }
    for (rank, candidate) in (1..).zip(candidates) {
        let style = match candidate.verdict {
            Verdict::Best => GOOD,
            Verdict::Limited => DOUBT,
            Verdict::Blocked => BAD,
            Verdict::Fallback => super::DIM,
        };
        text.push_str(&format!(
            "{rank}. {BOLD}{}{BOLD:#}  {}\n",
            candidate.name(),
            styled(style, word(candidate.verdict))
        ));
        if candidate.driver.is_none() {
            text.push_str("   the name is the module's: the driver's is known once it is loaded\n");
        } else if candidate.name() != candidate.module.as_str() {
            text.push_str(&format!("   module {}\n", candidate.module));
        }
        text.push_str(&format!(
            "   alias {} ({} of 7 fields open), from {}\n",
            printable(&candidate.alias),
            candidate.wildcards,
            candidate.source
        ));
        for reason in &candidate.reasons {
            text.push_str(&format!("   {}\n", printable(reason)));
        }
        for (number, command) in candidate.mend.iter().enumerate() {
            let lead = if number == 0 { "to mend: " } else { "    then: " };
            text.push_str(&format!("   {lead}{}\n", printable(command)));
        }
    }
    output.print(&text)
}
