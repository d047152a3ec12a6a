// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl doctor`: is this host ready for VFIO?

use anyhow::Result;

use super::context::Context;
use crate::doctor::{self, Severity};
use crate::report;

/// Looks, and says so; 1 where something is a failure.
pub fn run(context: &Context) -> Result<u8> {
    // Without the bus there are no devices, and that is what is found.
    let devices = if context.host.devices().exists() { context.list()? } else { Vec::new() };
    let (policy, errors) = context.policy_read();
    let findings = doctor::examine(&context.host, &devices, policy, errors)?;
    let is_ready = findings.iter().all(|finding| finding.severity < Severity::Failure);
    report::doctor(context.output, &findings, is_ready)?;
    Ok(u8::from(!is_ready))
}
