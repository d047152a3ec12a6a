// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks: what is mounted from them or otherwise uses them, through whatever layers.

use super::below::Below;
use super::finding::Finding;
use crate::host::Host;
use crate::sysfs::ReadError;

/// Who uses the disks below a device.
pub fn findings(_host: &Host, _below: &[Below]) -> Result<Vec<Finding>, ReadError> {
    Ok(Vec::new())
}
