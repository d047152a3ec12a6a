// SPDX-License-Identifier: MIT OR Apache-2.0
//! Columns that fit the terminal.

use std::io;

use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::peaker::Priority;
use tabled::settings::{Modify, Padding, Style, Width};

/// Rows under their headings, two spaces apart. On a terminal the last column gives way to its width; elsewhere nothing is
/// cut.
pub fn render(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut builder = Builder::with_capacity(rows.len() + 1, headings.len());
    builder.push_record(headings.iter().map(|heading| super::styled(super::BOLD, heading)));
    for row in rows {
        builder.push_record(row);
    }
    let mut table = builder.build();
    table.with(Style::empty());
    table.with(Modify::new(Columns::new(..)).with(Padding::new(0, 2, 0, 0)));
    if let Some((terminal_size::Width(width), _)) = terminal_size::terminal_size_of(io::stdout()) {
        // The padding after the last column may stick out: it is trimmed below.
        table.with(Width::truncate(usize::from(width) + 2).suffix("…").priority(Priority::right()));
    }
    let mut text = String::new();
    for line in table.to_string().lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}
