// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was, or would be, taken over from driverctl.

use std::io;

use serde::Serialize;

use super::{Output, results};
use crate::kernel_name::DriverName;
use crate::outcome::DeviceResult;
use crate::policy::Choice;
use crate::policy::driverctl::Other;

/// One override of driverctl's.
#[derive(Clone, Debug, Serialize)]
pub struct Import {
    /// The driver that driverctl keeps.
    pub overridden: DriverName,
    /// What that is in a policy.
    pub choice: Choice,
    /// The best VFIO driver for the device that is there.
    pub best: Option<String>,
    /// What became of it.
    #[serde(flatten)]
    pub result: DeviceResult,
}

#[derive(Serialize)]
struct Imports<'a> {
    results: &'a [Import],
    left: &'a [Other],
}

/// Shows them, and which files were left.
pub fn imports(output: Output, imports: &[Import], left: &[Other]) -> io::Result<()> {
    if output.is_json {
        return output.print_json("import-driverctl", Imports { results: imports, left });
    }
    for import in imports {
        results::show(output, &import.result)?;
    }
    for other in left {
        output.note(&format!("{}: left: {}", other.path.display(), other.reason));
    }
    Ok(())
}
