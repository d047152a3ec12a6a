// SPDX-License-Identifier: MIT OR Apache-2.0
//! driverctl's lists, which scripts read: a line a device, no heading, no columns, no colour.

use std::io;

use super::{Output, printable};

/// Shows the lines.
pub fn lines(output: Output, lines: &[String]) -> io::Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(&printable(line));
        text.push('\n');
    }
    output.print(&text)
}
