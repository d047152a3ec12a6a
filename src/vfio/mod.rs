// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a bound device can do, asked of the device itself. Opening it resets it, and may block in the kernel, so that is
//! done by a process that can be left behind.
//!
//! * [`nodes`] are the device nodes by which a user reaches a device.
//! * [`open`] goes from nodes to an open device, step by step.
//! * [`features`] asks an open device what it can do.
//! * [`prober`] is the process that does both.
//! * [`refusal`] is pure: which device is left alone, and what a step that failed means.
//! * [`ioctl`] has the calls, and all `unsafe` code.

pub mod features;
mod ioctl;
pub mod nodes;
pub mod open;
pub mod prober;
pub mod refusal;
