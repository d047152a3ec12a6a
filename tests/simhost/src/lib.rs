// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PCI driver core in user space.
//!
//! `model` is the driver core as a value, `fixture` reads one from a directory, `fault` and `machine` let several
//! processes work on it at once and go wrong on purpose, `world` lets others act meanwhile. The rest shows it to programs: `fuse` as a file system, `namespace`
//! as `/sys` in a mount namespace of their own, `modprobe` as a program; `control` is how those reach it, `run` puts all
//! together.

pub mod control;
pub mod fault;
pub mod fixture;
pub mod fuse;
pub mod machine;
pub mod model;
pub mod modprobe;
pub mod namespace;
pub mod run;
pub mod world;
