// SPDX-License-Identifier: MIT OR Apache-2.0
//! Columns that fit the terminal.

use std::{io, iter};

use anstream::adapter::strip_str;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Between two columns.
const GAP: usize = 2;

/// What stands for the rest of a cell that is cut off.
const CUT: char = '…';

/// Cells, row after row, their text in one piece: there may be a hundred thousand.
#[derive(Default)]
struct Cells {
    text: String,
    /// Where each ends in the text, how wide it is, and whether it is the last of its row.
    ends: Vec<(usize, u32, bool)>,
    /// How wide each column is.
    widths: Vec<usize>,
}

impl Cells {
    fn add(&mut self, row: Vec<String>) {
        let last = row.len().saturating_sub(1);
        for (column, cell) in row.iter().enumerate() {
            let width = width(cell);
            match self.widths.get_mut(column) {
                Some(widest) => *widest = width.max(*widest),
                None => self.widths.push(width),
            }
            self.text.push_str(cell);
            self.ends.push((self.text.len(), width as u32, column == last));
        }
    }
}

/// Rows under their headings, two spaces apart. On a terminal the last column gives way to its width; elsewhere nothing is
/// cut.
pub fn render(headings: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut cells = Cells::default();
    cells.add(headings.iter().map(|heading| super::styled(super::BOLD, heading)).collect());
    rows.into_iter().for_each(|row| cells.add(row));
    let columns = cells.widths.len();
    let before_last: usize = cells.widths.iter().rev().skip(1).map(|width| width + GAP).sum();
    let terminal = terminal_size::terminal_size_of(io::stdout());
    let room = terminal.map(|(terminal_size::Width(width), _)| usize::from(width).saturating_sub(before_last).max(1));
    let mut text = String::with_capacity(cells.text.len() + cells.ends.len() * GAP);
    let (mut begin, mut column, mut line) = (0, 0, 0);
    for (end, width, is_last) in cells.ends {
        let (cell, width) = (&cells.text[begin..end], width as usize);
        match room.filter(|room| column + 1 == columns && width > *room) {
            Some(room) => text.push_str(&cut(cell, room)),
            None => text.push_str(cell),
        }
        text.extend(iter::repeat_n(' ', cells.widths[column] + GAP - width));
        (begin, column) = (end, column + 1);
        if is_last {
            text.truncate(line + text[line..].trim_end().len());
            text.push('\n');
            (column, line) = (0, text.len());
        }
    }
    text
}

/// How wide a cell is to be seen, whatever its style.
fn width(cell: &str) -> usize {
    match cell.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        true => cell.len(),
        false => strip_str(cell).to_string().width(),
    }
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
