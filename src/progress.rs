// SPDX-License-Identifier: MIT OR Apache-2.0
//! How far work on many devices is: one line on standard error, only while it is a terminal, and gone at the end.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The line; hidden until it is begun.
pub struct Progress {
    line: ProgressBar,
}

impl Progress {
    /// One that shows nothing.
    pub fn hidden() -> Progress {
        Progress { line: ProgressBar::hidden() }
    }

    /// Shows `text` and, once something is to be counted, how much of `total` is done.
    pub fn show(&self, text: String, total: Option<usize>) {
        let style = ProgressStyle::with_template(if total.is_some() { "{msg}{pos}/{len}" } else { "{msg}" });
        // Changed out of sight, so that no half of it shows.
        self.line.set_draw_target(ProgressDrawTarget::hidden());
        self.line.set_style(style.expect("a constant template"));
        self.line.reset();
        self.line.set_length(total.unwrap_or_default() as u64);
        self.line.set_message(text);
        self.line.set_draw_target(ProgressDrawTarget::stderr());
        self.line.tick();
    }

    /// One more is done.
    pub fn step(&self) {
        self.line.inc(1);
    }

    /// Takes the line away, so that others can be written.
    pub fn clear(&self) {
        self.line.finish_and_clear();
        self.line.set_draw_target(ProgressDrawTarget::hidden());
    }
}
