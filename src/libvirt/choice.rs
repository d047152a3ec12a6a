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

/// The longest modules.alias that libvirt reads (`virFileReadAll` in `virPCIDeviceFindBestVFIOVariant`).
const LONGEST_TABLE: u64 = 8 << 20;

/// Why libvirt could not choose at all, whatever driver the device is on, where `length` is that of modules.alias, if there is
/// one. Without it 11.3.0 gives up, and 12.8.0 takes vfio-pci.
pub fn gives_up(version: Version, length: Option<u64>) -> Option<String> {
    match length {
        _ if !version.takes_variants() => None,
        None if version <= Version::new(11, 3, 0) => {
            Some(format!("libvirt {version} takes no device without modules.alias"))
        }
        Some(length) if length > LONGEST_TABLE => {
            Some(format!("modules.alias has more than {} MiB, which libvirt does not read", LONGEST_TABLE >> 20))
        }
        _ => None,
    }
}

fn generic() -> DriverName {
    "vfio-pci".parse().expect("a constant name")
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::matcher::rank;

    const GENERIC: &str = "v*d*sv*sd*bc*sc*i* vfio_pci";
    const MLX5: &str = "v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci";
    const NEW: Version = Version::new(11, 3, 0);

    fn table(lines: &[&str]) -> Table {
        let mut table = Table::default();
        let text: String = lines.iter().map(|line| format!("alias vfio_pci:{line}\n")).collect::<Vec<_>>().concat();
        table.read_modules_alias(Cursor::new(text)).unwrap();
        table
    }

    fn modalias() -> Modalias {
        "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00".parse().unwrap()
    }

    fn chosen(version: Version, table: &Table, model: Option<&str>) -> String {
        let model = model.map(|model| model.parse().unwrap());
        choose(version, table, &modalias(), model.as_ref()).name.to_string()
    }

    #[test]
    fn the_fewest_wildcards_and_the_first_of_equals() {
        for (lines, expected) in [
            (vec![GENERIC, MLX5], "mlx5_vfio_pci"),
            (vec![MLX5, GENERIC, "v000015B3d0000101Esv*sd*bc*sc*i* zz_other"], "mlx5_vfio_pci"),
            (vec![MLX5, "v000015B3d*sv*sd*bc02sc00i00 by_class"], "by_class"),
            (vec![GENERIC], "vfio_pci"),
            (vec![], "vfio-pci"),
            // Fields are compared, not matched: where kmod sees a pattern, libvirt sees another text.
            (vec![GENERIC, "v000015B3d0000101?sv*sd*bc*sc*i* globbed"], "vfio_pci"),
            (vec![GENERIC, "v000015B3d*sv*sd*bc02sc00i0* globbed"], "vfio_pci"),
            (vec![GENERIC, "v000015b3d0000101esv*sd*bc*sc*i* lower"], "vfio_pci"),
        ] {
            assert_eq!(chosen(NEW, &table(&lines), None), expected, "{lines:?}");
        }
    }

    #[test]
    fn modules_alias_and_nothing_else() {
        let mut table = table(&[GENERIC]);
        table.read_modprobe_alias(format!("vfio_pci:{MLX5}").split(' '), 1);
        let record = "mlx5_vfio_pci.alias=vfio_pci:v000015B3d0000101Esv*sd*bc*sc*i*\0";
        table.read_builtin_modinfo(Cursor::new(record)).unwrap();
        table.read_modules_alias(Cursor::new(format!("alias vfio-pci:{MLX5}\n"))).unwrap();
        assert_eq!(rank(&table, &modalias())[0].module.as_str(), "mlx5_vfio_pci");
        assert_eq!(chosen(NEW, &table, None), "vfio_pci");
    }

    #[test]
    fn a_table_that_libvirt_cannot_use() {
        let old = Version::new(9, 0, 0);
        for (version, length, is_given_up) in [
            (NEW, Some(8 << 20), false),
            (NEW, Some((8 << 20) + 1), true),
            (NEW, None, true),
            (Version::new(12, 8, 0), None, false),
            (old, None, false),
            (old, Some(9 << 20), false),
        ] {
            assert_eq!(gives_up(version, length).is_some(), is_given_up, "{version} {length:?}");
        }
    }

    #[test]
    fn the_version_and_the_model_count() {
        let table = table(&[GENERIC, MLX5]);
        for (version, model, expected) in [
            (Version::new(9, 0, 0), None, "vfio-pci"),
            (Version::new(9, 10, 0), None, "vfio-pci"),
            (Version::new(9, 10, 0), Some("mlx5_vfio_pci"), "vfio-pci"),
            (Version::new(10, 0, 0), None, "mlx5_vfio_pci"),
            (Version::new(10, 0, 0), Some("vfio-pci"), "vfio-pci"),
        ] {
            assert_eq!(chosen(version, &table, model), expected, "{version} {model:?}");
        }
    }
}
