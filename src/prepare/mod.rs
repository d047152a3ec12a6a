// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is to be done to a device before its driver comes: drivers such as `mlx5_vfio_pci` read once, at bind, how the device
//! is set up. Steps are programs with their arguments, never a shell's: as written in [`recipe`], filled in by [`ready`].

mod port;
mod program;
mod ready;
mod recipe;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use program::command;
pub use ready::Preparer;
pub use recipe::{Recipe, RecipeError, Template, Written};

/// A step as it will be run.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Preparation {
    /// What it is for.
    pub what: String,
    /// The program, as an absolute path, and its arguments.
    pub command: Vec<String>,
    /// What puts it back.
    pub undo: Option<Vec<String>>,
    /// How long it may take, where that is not what every call may.
    pub timeout: Option<Duration>,
    /// It shows that it is done already: it need not be run, nor put back.
    pub is_done: bool,
    /// What it finds in its environment, besides what every step does.
    pub variables: Vec<(String, String)>,
}

/// Words as a shell would take them, for showing.
pub fn shown(words: &[String]) -> String {
    // What cannot be quoted is a NUL byte, and recipes have none.
    shlex::try_join(words.iter().map(String::as_str)).unwrap_or_else(|_| words.join(" "))
}
