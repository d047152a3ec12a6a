// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl drivers`: the bundled driver set against this kernel.

use std::collections::BTreeMap;

use anyhow::Result;

use super::context::Context;
use crate::address::Address;
use crate::catalog::Catalog;
use crate::doctor;
use crate::kernel_name::{DriverName, ModuleName};
use crate::modules::{KernelConfig, ModuleState};
use crate::report::{self, DriverView};

/// Shows them.
pub fn run(context: &Context) -> Result<u8> {
    let chooser = context.chooser()?.with_modules();
    let release = chooser.tables.release.clone();
    let config = KernelConfig::read(&context.host, &release);
    let mut bound: BTreeMap<DriverName, Vec<Address>> = BTreeMap::new();
    for device in context.list()? {
        if let Some(driver) = device.driver {
            bound.entry(driver).or_default().push(device.address);
        }
    }

    let mut views = Vec::new();
    for known in Catalog::bundled().drivers() {
        let module: ModuleName = known.module.parse()?;
        let driver: DriverName = known.driver.parse()?;
        let state = chooser.state(&module);
        let remark = match state {
            ModuleState::Missing => Some(config.why_missing(known)),
            ModuleState::Unknown => Some(config.why_unknown(known)),
            ModuleState::Loaded | ModuleState::BuiltIn | ModuleState::Installed => None,
        };
        views.push(DriverView {
            module: known.module.to_string(),
            driver: Some(known.driver.to_string()),
            title: Some(known.title.to_string()),
            kconfig: known.kconfig.map(str::to_string),
            first_kernel: Some(known.first_kernel.to_string()),
            architectures: known.architectures.iter().map(|name| name.to_string()).collect(),
            state,
            remark,
            is_known: true,
            devices: bound.get(&driver).cloned().unwrap_or_default(),
        });
    }
    for entry in &chooser.tables.table.entries {
        let module = &entry.module;
        if views.iter().any(|view| view.module == module.as_str()) {
            continue;
        }
        let driver = chooser.tables.driver(&context.host, module)?;
        let state = chooser.state(module);
        let missing = "named by the alias table, but not installed";
        views.push(DriverView {
            module: module.to_string(),
            driver: driver.as_ref().map(DriverName::to_string),
            title: None,
            kconfig: None,
            first_kernel: None,
            architectures: Vec::new(),
            state,
            remark: Some(
                if state == ModuleState::Missing { missing } else { "not in the bundled catalogue" }.to_string(),
            ),
            is_known: false,
            devices: driver.and_then(|driver| bound.get(&driver).cloned()).unwrap_or_default(),
        });
    }
    let has_variant = views.iter().any(|view| view.module != "vfio_pci" && view.state != ModuleState::Missing);
    let summary = (!has_variant).then(|| doctor::no_variant(&release, &config));
    report::drivers(context.output, &release, &views, summary.as_deref())?;
    Ok(0)
}
