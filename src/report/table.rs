// SPDX-License-Identifier: MIT OR Apache-2.0
//! Columns that fit the terminal.

use std::io;

use anstream::adapter::strip_str;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: usize = 2;

/// What stands for the rest of a cell that is cut off.
const CUT: char = '…';

/// Rows under their headings, two spaces apart. On a terminal the last column gives way to its width; elsewhere nothing is
/// cut.
pub fn render(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let headings = headings.iter().map(|heading| super::styled(super::BOLD, heading)).collect();
    let rows: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| width(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|column| width_of(column).unwrap_or(0)).collect();
    let before_last: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
    let terminal = terminal_size::terminal_size_of(io::stdout());
    let room = terminal.map(|(terminal_size::Width(width), _)| usize::from(width).saturating_sub(before_last).max(1));
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            match room.filter(|room| column + 1 == columns && width(cell) > *room) {
                Some(room) => line.push_str(&cut(cell, room)),
                None => line.push_str(cell),
            }
            line.push_str(&" ".repeat(widths[column] + GAP - width(cell).min(widths[column])));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// How wide a cell is to be seen, whatever its style.
fn width(cell: &str) -> usize {
    strip_str(cell).to_string().width()
}

/// As much of a cell as there is room for, without its style.
fn cut(cell: &str, room: usize) -> String {
    let mut left = room.saturating_sub(1);
    let fits = |c: &char| {
        let width = c.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    strip_str(cell).to_string().chars().take_while(fits).chain([CUT]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_what_is_seen_of_them() {
        let rows = vec![
            vec!["a".to_string(), super::super::styled(super::super::GOOD, "green"), "x".to_string()],
            vec!["日本".to_string(), "b".to_string(), String::new()],
        ];
        let text = strip_str(&render(&["N", "STATE", "LAST"], rows)).to_string();
        assert_eq!(text, "N     STATE  LAST\na     green  x\n日本  b\n");
    }

    #[test]
    fn what_is_cut_is_as_wide_as_there_is_room() {
        for (cell, room, expected) in
            [("abcdef", 4, "abc…"), ("日本語", 4, "日…"), ("日本語", 5, "日本…"), ("abc", 1, "…")]
        {
            assert_eq!(cut(cell, room), expected);
            assert!(width(&cut(cell, room)) <= room);
        }
    }
}
