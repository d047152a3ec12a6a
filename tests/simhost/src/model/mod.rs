// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver core as a value: devices, drivers, modules, groups and what sysfs shows of them.
//!
//! Nothing here does I/O, knows FUSE or starts a thread. `host` holds the state and the smallest changes of it, `operation`
//! the order in which the kernel makes them. Between two changes an operation passes through a [`Core`], which may hold
//! it up or let it fail; [`Host`] itself is the core at which nothing does.

mod address;
mod attribute;
mod device;
mod driver;
mod errno;
mod host;
mod ids;
pub mod modules;
mod operation;
mod sriov;
mod state;
mod tree;

pub use address::Address;
pub use attribute::Attribute;
pub use device::{Binding, Device, Sriov};
pub use driver::{Driver, Probe};
pub use errno::{Errno, Result};
pub use host::{Host, Release};
pub use ids::{Ids, Pattern};
pub use operation::{Core, LoadError, Lock, Place, Step, insert_module, load_module, unload_module, vanish, write};
pub use state::{DeviceState, State};
pub use tree::{Node, resolve};
