// SPDX-License-Identifier: MIT OR Apache-2.0
//! What holds of each parser whatever bytes it is given. `fuzz_targets/` looks for bytes of which it does not hold;
//! `tests/corpus.rs` of the main workspace tries all that were kept, with any compiler.
//!
//! A property compares with a plain reading of the same bytes, written down from the specification and without care for
//! speed.

mod conf;
mod dep;
mod driverctl;
mod index;
mod names;
mod patterns;
mod rules;
mod tables;
mod xml;

use std::time::{Duration, Instant};

pub use conf::modprobe_conf;
pub use dep::modules_dep;
pub use driverctl::driverctl_file;
pub use index::modules_index;
pub use names::address;
pub use patterns::{in_plain_words, modalias};
pub use rules::policy;
pub use tables::{alias_table, modinfo};
pub use xml::domain_xml;

/// What is held of any bytes; it panics where it does not hold.
pub type Property = fn(&[u8]);

/// Every property by the name of its target.
pub const PROPERTIES: [(&str, Property); 10] = [
    ("address", address),
    ("alias_table", alias_table),
    ("domain_xml", domain_xml),
    ("driverctl_file", driverctl_file),
    ("modalias", modalias),
    ("modinfo", modinfo),
    ("modprobe_conf", modprobe_conf),
    ("modules_dep", modules_dep),
    ("modules_index", modules_index),
    ("policy", policy),
];

/// Nothing that a parser is given takes it longer; a busy machine and a build without optimisation are allowed for.
const LONGEST: Duration = Duration::from_secs(20);

fn in_time<T>(parse: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = parse();
    assert!(started.elapsed() < LONGEST, "it took {:?}", started.elapsed());
    result
}

/// A few bytes that stand for many, so that what grows too fast shows: of bytes that begin with 0xff the second says how
/// often, in hundreds, the middle third is repeated.
fn grown(data: &[u8]) -> Vec<u8> {
    const MOST: usize = 64 << 10;
    let [0xff, hundreds, rest @ ..] = data else { return data.to_vec() };
    let (head, rest) = rest.split_at(rest.len() / 3);
    let (middle, tail) = rest.split_at(rest.len() / 2);
    let times = (usize::from(*hundreds) * 100).min(MOST / middle.len().max(1));
    [head, &middle.repeat(times), tail].concat()
}

/// What could move a terminal's cursor or more.
fn has_control(text: &str) -> bool {
    text.chars().any(char::is_control)
}
