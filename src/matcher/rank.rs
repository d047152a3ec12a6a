// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which entries match a device, best first.

use super::fields::FIELDS;
use super::modalias::Modalias;
use super::table::{Entry, Source, Table};
use crate::kernel_name::ModuleName;

/// An entry that matches the device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match {
    /// The module it names.
    pub module: ModuleName,
    /// The pattern, as written.
    pub alias: String,
    /// How many of its fields are wildcards.
    pub wildcards: usize,
    /// The table it stands in.
    pub source: Source,
    /// The one before it has as many wildcards: only the order decided between them.
    pub tied_with_previous: bool,
}

/// The modules whose entries match, best first: fewest wildcard fields, then the table's order; among catch-alls
/// `vfio_pci` before any other, since an out-of-tree module that claims every device need not be a VFIO driver at all.
/// A module that several entries name comes once, with its best one.
pub fn rank(table: &Table, modalias: &Modalias) -> Vec<Match> {
    let key = modalias.vfio_key();
    let mut found: Vec<(usize, bool, &Entry)> = table
        .entries
        .iter()
        .filter(|entry| entry.pattern.matches(&key))
        .map(|entry| {
            let wildcards = entry.pattern.wildcards();
            (wildcards, wildcards == FIELDS && entry.module.as_str() != "vfio_pci", entry)
        })
        .collect();
    // A stable sort keeps the table's order among equals.
    found.sort_by_key(|(wildcards, other_catch_all, _)| (*wildcards, *other_catch_all));

    let mut matches: Vec<Match> = Vec::new();
    for (wildcards, _, entry) in found {
        if matches.iter().any(|earlier| earlier.module == entry.module) {
            continue;
        }
        let tied_with_previous = matches.last().is_some_and(|previous| previous.wildcards == wildcards);
        matches.push(Match {
            module: entry.module.clone(),
            alias: entry.pattern.as_str().to_string(),
            wildcards,
            source: entry.source,
            tied_with_previous,
        });
    }
    matches
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranked(lines: &str) -> Vec<String> {
        let mut table = Table::default();
        for line in lines.lines() {
            table.read_modules_alias(std::io::Cursor::new(format!("alias vfio_pci:{line}\n"))).unwrap();
        }
        assert!(table.oddities.is_empty());
        let modalias = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00".parse().unwrap();
        let tie = |m: &Match| if m.tied_with_previous { "=" } else { "" };
        rank(&table, &modalias).iter().map(|m| format!("{}{}:{}", tie(m), m.module, m.wildcards)).collect()
    }

    const GENERIC: &str = "v*d*sv*sd*bc*sc*i* vfio_pci";
    const MLX5: &str = "v000015B3d0000101Esv*sd*bc*sc*i* mlx5_vfio_pci";

    #[test]
    fn the_variant_wins_wherever_it_stands() {
        assert_eq!(ranked(&format!("{GENERIC}\n{MLX5}")), ["mlx5_vfio_pci:5", "vfio_pci:7"]);
        assert_eq!(ranked(&format!("{MLX5}\n{GENERIC}")), ["mlx5_vfio_pci:5", "vfio_pci:7"]);
    }

    #[test]
    fn other_ids_do_not_match() {
        assert_eq!(ranked(&format!("{GENERIC}\nv000015B3d0000101Fsv*sd*bc*sc*i* other")), ["vfio_pci:7"]);
        assert_eq!(ranked("v000015B3d0000101Fsv*sd*bc*sc*i* other"), Vec::<String>::new());
    }

    #[test]
    fn a_tie_goes_to_the_first_and_is_said() {
        assert_eq!(
            ranked(&format!("{GENERIC}\n{MLX5}\nv000015B3d0000101Esv*sd*bc*sc*i* zz_other")),
            ["mlx5_vfio_pci:5", "=zz_other:5", "vfio_pci:7"]
        );
    }

    #[test]
    fn fewer_wildcards_beat_an_exact_id() {
        assert_eq!(
            ranked(&format!("{MLX5}\nv000015B3d*sv*sd*bc02sc00i00* by_class\n{GENERIC}")),
            ["by_class:3", "mlx5_vfio_pci:5", "vfio_pci:7"]
        );
    }

    #[test]
    fn among_catch_alls_vfio_pci_is_first() {
        assert_eq!(ranked(&format!("v*d*sv*sd*bc*sc*i* poweroff_pci\n{GENERIC}")), ["vfio_pci:7", "=poweroff_pci:7"]);
    }

    #[test]
    fn duplicates_count_once() {
        assert_eq!(
            ranked(&format!("{MLX5}\n{MLX5}\nv*d*sv*sd*bc02sc*i* mlx5_vfio_pci\n{GENERIC}\n{GENERIC}")),
            ["mlx5_vfio_pci:5", "vfio_pci:7"]
        );
    }
}
