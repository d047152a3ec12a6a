// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vfioctl drivers`: the bundled driver set against this kernel.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Result;

use super::context::Context;
use crate::address::Address;
use crate::catalog::{Catalog, Driver, KernelVersion};
use crate::kernel_name::{DriverName, ModuleName};
use crate::modules::{ModuleState, Modules};
use crate::report::{self, DriverView};
use crate::sysfs;

/// Shows them.
pub fn run(context: &Context) -> Result<u8> {
    let chooser = context.chooser()?.with_modules();
    let release = chooser.tables.release.clone();
    let config = KernelConfig::read(context, &release);
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
        let mut state = chooser.state(&module);
        // On an old kernel a built-in driver has no trace but this.
        if state == ModuleState::Missing && sysfs::is_registered(&context.host, &driver) {
            state = ModuleState::BuiltIn;
        }
        let remark = (state == ModuleState::Missing).then(|| config.why_missing(known, &release));
        views.push(DriverView {
            module: known.module.to_string(),
            driver: Some(known.driver.to_string()),
            title: Some(known.title.to_string()),
            kconfig: Some(known.kconfig.to_string()),
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
        let driver = Modules::driver(&context.host, module)?;
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
    let summary = (!has_variant).then(|| {
        format!(
            "Kernel {release} was built without any variant driver (as Debian's kernels are), so vfio-pci is the best there is \
             for every device."
        )
    });
    report::drivers(context.output, &release, &views, summary.as_deref())?;
    Ok(0)
}

/// The kernel's build configuration, where the distribution installs it.
struct KernelConfig {
    text: Option<String>,
    architecture: Option<&'static str>,
}

impl KernelConfig {
    fn read(context: &Context, release: &str) -> KernelConfig {
        let text = context.host.kernel_configs(release).iter().find_map(|path| fs::read_to_string(path).ok());
        // The configuration names its architecture; without one, only this machine's own is known.
        let marks = [("CONFIG_X86_64=y", "x86_64"), ("CONFIG_ARM64=y", "aarch64"), ("CONFIG_S390=y", "s390x")];
        let architecture = match &text {
            Some(text) => marks.iter().find(|(mark, _)| text.lines().any(|line| line == *mark)).map(|(_, name)| *name),
            None => context.host.is_this_machine().then_some(std::env::consts::ARCH),
        };
        KernelConfig { text, architecture }
    }

    /// Why a kernel has not got a driver, the surest reason first.
    fn why_missing(&self, driver: &Driver, release: &str) -> String {
        if let Some(here) = self.architecture.filter(|here| !driver.runs_on(here)) {
            return format!("{}: for {} only, not for {here}", driver.title, driver.architectures.join(", "));
        }
        if KernelVersion::parse(release).is_some_and(|version| version < driver.first_kernel) {
            return format!("{}: in kernels from {} on", driver.title, driver.first_kernel);
        }
        let symbol = &driver.kconfig;
        let unset = format!("# {symbol} is not set");
        match &self.text {
            Some(text) if text.lines().any(|line| line == unset) => {
                format!("{}: this kernel was built with {symbol} not set", driver.title)
            }
            _ => format!("{}: needs a kernel with {symbol}", driver.title),
        }
    }
}
