// SPDX-License-Identifier: MIT OR Apache-2.0
//! The driver that libvirt itself would take for a device. Pure.

use super::version::Version;
use crate::kernel_name::DriverName;
use crate::matcher::{Modalias, Source, Table, split};

/// What libvirt takes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The driver, or the module that registers it: libvirt finds the one through the other.
    pub name: DriverName,
    /// Why, in words that follow the name.
    pub reason: String,
}

/// What libvirt takes for a device, where `model` is what the domain names. It follows the kernel's modules.alias and nothing
/// else; a field matches if it is the same or `*`, the fewest `*` win, and among equals the first line
/// (`src/util/virpci.c`, `virPCIDeviceFindBestVFIOVariant`).
pub fn choose(version: Version, table: &Table, modalias: &Modalias, model: Option<&DriverName>) -> Choice {
    if !version.takes_variants() {
        let reason = match model {
            Some(model) => format!("libvirt {version} takes no other, and does not know model='{model}'"),
            None => format!("libvirt {version} takes no other"),
        };
        return Choice { name: generic(), reason };
    }
    if let Some(model) = model {
        return Choice { name: model.clone(), reason: "the domain names it".to_string() };
    }
    let key = modalias.vfio_key();
    let device = split(&key).expect("a modalias has seven fields");
    let fits = |pattern: &[&str]| pattern.iter().zip(device).all(|(field, own)| *field == "*" || *field == own);
    let entries = table.entries.iter().filter(|entry| entry.source == Source::ModulesAlias);
    let mut best = None;
    for entry in entries.filter(|entry| entry.pattern.as_str().starts_with("vfio_pci:")) {
        let Some(fields) = split(entry.pattern.as_str()).filter(|fields| fits(fields)) else { continue };
        let wildcards = fields.iter().filter(|field| **field == "*").count();
        if best.is_none_or(|(_, fewest)| wildcards < fewest) {
            best = Some((entry, wildcards));
        }
    }
    match best {
        Some((entry, _)) => Choice {
            name: DriverName::from_kernel(entry.module.to_string()),
            reason: format!("its best match is {}", entry.pattern.as_str()),
        },
        None => Choice { name: generic(), reason: "nothing in modules.alias matches".to_string() },
    }
}

fn generic() -> DriverName {
    "vfio-pci".parse().expect("a constant name")
}
