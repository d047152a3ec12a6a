// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seven fields of a PCI alias or modalias: `v d sv sd bc sc i` (`scripts/mod/file2alias.c`, `do_pci_entry`).

use std::sync::OnceLock;

use regex::Regex;

/// How many there are.
pub const FIELDS: usize = 7;

/// What stands before each.
const KEYS: [&str; FIELDS] = ["v", "d", "sv", "sd", "bc", "sc", "i"];

/// The fields of a `vfio_pci:` key or pattern (`vfio-pci:` is the same to kmod); `None` if it is of another shape.
pub fn split(alias: &str) -> Option<[&str; FIELDS]> {
    split_as_written(alias).or_else(|| split_any(alias))
}

/// As the kernel writes them, with no lower-case letter but the keys'. Nearly all are, and to compile an expression for them
/// would take a tenth of the time from the start of the program to its end.
fn split_as_written(alias: &str) -> Option<[&str; FIELDS]> {
    let mut rest = alias.strip_prefix("vfio_pci:").or_else(|| alias.strip_prefix("vfio-pci:"))?;
    let mut fields = [""; FIELDS];
    for (field, key) in fields.iter_mut().zip(KEYS) {
        rest = rest.strip_prefix(key)?;
        let end = rest.find(|c: char| c.is_ascii_lowercase()).unwrap_or(rest.len());
        (*field, rest) = rest.split_at(end);
    }
    let is_graphic = fields.iter().all(|field| field.bytes().all(|b| b.is_ascii_graphic()));
    (rest.is_empty() && is_graphic).then_some(fields)
}

/// However they are written: with lower-case digits a `d` may be a key or none.
fn split_any(alias: &str) -> Option<[&str; FIELDS]> {
    static SHAPE: OnceLock<Regex> = OnceLock::new();
    let shape = SHAPE.get_or_init(|| {
        let fields = KEYS.map(|key| format!("{key}([!-~]*)")).concat();
        Regex::new(&format!("^vfio[-_]pci:{fields}$")).expect("a constant pattern")
    });
    let (_, fields) = shape.captures(alias)?.extract();
    Some(fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The short way and the expression see the same fields.
        #[test]
        fn both_ways_agree(fields in prop::collection::vec("[0-9A-F*?\\[\\]-]{0,8}", FIELDS)) {
            let text: Vec<String> = KEYS.iter().zip(&fields).map(|(key, field)| format!("{key}{field}")).collect();
            let text = text.concat();
            let alias = format!("vfio_pci:{text}");
            prop_assert_eq!(split_as_written(&alias), split_any(&alias));
            prop_assert!(split_as_written(&alias).is_some());
        }

        #[test]
        fn what_the_short_way_takes_the_expression_takes_too(text in "[vdsbci0-9A-Fa-f* ]{0,40}") {
            let alias = format!("vfio_pci:{text}");
            if let Some(fields) = split_as_written(&alias) {
                prop_assert_eq!(split_any(&alias), Some(fields));
            }
        }
    }

    #[test]
    fn seven_fields_or_none() {
        let any = ["*"; 7];
        assert_eq!(split("vfio_pci:v*d*sv*sd*bc*sc*i*"), Some(any));
        assert_eq!(split("vfio-pci:v*d*sv*sd*bc*sc*i*"), Some(any));
        assert_eq!(
            split("vfio_pci:v000010DEd00002342sv*sd*bc03sc02i00*"),
            Some(["000010DE", "00002342", "*", "*", "03", "02", "00*"])
        );
        for other in
            ["", "vfio_pci:*", "pci:v*d*sv*sd*bc*sc*i*", "vfio_pci:v*d*sv*sd*bc*sc*", "vfio_pci:v* d*sv*sd*bc*sc*i*"]
        {
            assert_eq!(split(other), None, "{other}");
        }
    }
}
