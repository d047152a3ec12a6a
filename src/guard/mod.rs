// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who is using a device, looked up before anything is done to it.

mod network;
mod vfio;

pub use network::interfaces_in_use;
pub use vfio::{Holder, holders, holding, users};
