// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a device's modalias and a kernel's alias tables to the VFIO drivers that fit, best first. Pure: bytes and
//! strings in, values out; no file is opened here.

mod fields;
mod modalias;
mod pattern;
mod rank;
mod table;

pub use fields::{FIELDS, split};
pub use modalias::{Modalias, ModaliasError};
pub use pattern::{Pattern, UnbalancedBracket};
pub use rank::{Match, rank};
pub use table::{Entry, Oddity, OddityKind, Source, Table};
