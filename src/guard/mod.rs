// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is using a device, looked up before anything is done to it.

mod vfio;

pub use vfio::{Holder, holders};
