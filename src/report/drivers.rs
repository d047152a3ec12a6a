// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bundled driver set against one kernel.

use std::io;

use serde::Serialize;

use super::{BAD, DIM, DOUBT, GOOD, Output, styled, table};
use crate::address::Address;
use crate::modules::ModuleState;

/// A VFIO driver, and how it stands on this host.
#[derive(Serialize, Debug)]
pub struct DriverView {
    /// The module.
    pub module: String,
    /// The driver it registers; null where only loading it tells.
    pub driver: Option<String>,
    /// What it is for.
    pub title: Option<String>,
    /// The option it is built with.
    pub kconfig: Option<String>,
    /// The first kernel that had it.
    pub first_kernel: Option<String>,
    /// The architectures it is built for; empty: all.
    pub architectures: Vec<String>,
    /// How it stands.
    pub state: ModuleState,
    /// Why it is missing or unknown, or what else is to be said.
    pub remark: Option<String>,
    /// Is it in the bundled catalogue?
    pub is_known: bool,
    /// The devices bound to it.
    pub devices: Vec<Address>,
}

#[derive(Serialize)]
struct Drivers<'a> {
    release: &'a str,
    drivers: &'a [DriverView],
    summary: Option<&'a str>,
}

/// Shows the drivers of kernel `release`.
pub fn drivers(output: Output, release: &str, drivers: &[DriverView], summary: Option<&str>) -> io::Result<()> {
    if output.is_json {
        return output.print_json("drivers", Drivers { release, drivers, summary });
    }
    let rows = drivers.iter().map(|driver| {
        let (style, word) = match driver.state {
            ModuleState::Loaded => (GOOD, "loaded"),
            ModuleState::BuiltIn => (GOOD, "built in"),
            ModuleState::Installed => (DOUBT, "installed"),
            ModuleState::Unknown => (DOUBT, "unknown"),
            ModuleState::Missing if driver.is_known => (DIM, "missing"),
            ModuleState::Missing => (BAD, "missing"),
        };
        let about = driver.remark.as_ref().or(driver.title.as_ref());
        vec![
            driver.driver.clone().unwrap_or_else(|| driver.module.clone()),
            styled(style, word),
            if driver.devices.is_empty() { "-".to_string() } else { driver.devices.len().to_string() },
            about.cloned().unwrap_or_default(),
        ]
    });
    let mut text = table::render(&["DRIVER", "STATE", "BOUND", "ABOUT"], rows);
    if let Some(summary) = summary {
        text.push_str(&format!("\n{summary}\n"));
    }
    output.print(&text)
}
