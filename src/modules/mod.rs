// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's modules: their tables' files, which of them can be had, what drivers they register, and modprobe.

mod config;
mod load;
mod state;
mod tables;

pub use load::{LoadError, load, load_for_alias};
pub use state::{ModuleState, Modules};
pub use tables::{TableError, Tables};
