// SPDX-License-Identifier: MIT OR Apache-2.0
//! The seven fields of a PCI alias or modalias: `v d sv sd bc sc i` (`scripts/mod/file2alias.c`, `do_pci_entry`).

use std::sync::OnceLock;

use regex::Regex;

/// How many there are.
pub const FIELDS: usize = 7;

/// The fields of a `vfio_pci:` key or pattern (`vfio-pci:` is the same to kmod); `None` if it is of another shape.
///
/// One expression serves keys and patterns, since compiling it takes longer than all that is done with it. Its classes are
/// ASCII for the same reason.
pub fn split(alias: &str) -> Option<[&str; FIELDS]> {
    static SHAPE: OnceLock<Regex> = OnceLock::new();
    let shape = SHAPE.get_or_init(|| {
        let field = "([!-~]*)";
        Regex::new(&format!("^vfio[-_]pci:v{field}d{field}sv{field}sd{field}bc{field}sc{field}i{field}$"))
            .expect("a constant pattern")
    });
    let (_, fields) = shape.captures(alias)?.extract();
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

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
