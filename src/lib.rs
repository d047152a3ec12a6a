// SPDX-License-Identifier: MIT OR Apache-2.0
//! vfioctl
pub mod address;
pub mod catalog;
pub mod drop_in;
pub mod host;
pub mod kernel_name;
pub mod matcher;
pub mod modules;
pub mod outcome;
pub mod process;
pub mod sysfs;
pub mod verdict;
