// SPDX-License-Identifier: MIT OR Apache-2.0
//! vfioctl
pub mod address;
pub mod matcher;
