// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's modules: their tables' files, which of them can be had and why others cannot, what drivers they register,
//! and modprobe.

mod config;
pub mod index;
mod kernel_config;
mod load;
mod native;
mod state;
mod tables;

pub use config::{Blacklist, Config, Directive, directives};
pub use kernel_config::KernelConfig;
pub use load::{LoadError, load, load_for_alias};
pub use native::{may_have_native, native_table};
pub use state::{ModuleState, Modules, files_in_dep};
pub use tables::{TableError, Tables};
