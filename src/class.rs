// SPDX-License-Identifier: MIT OR Apache-2.0
//! Device classes by short names, for columns and for `--class` (`include/linux/pci_ids.h`; the PCI Code and ID
//! Assignment Specification).

use std::str::FromStr;

/// Base classes: the first two hex digits.
const CLASSES: [(&str, &str); 22] = [
    ("00", "unclassified"),
    ("01", "storage"),
    ("02", "network"),
    ("03", "display"),
    ("04", "multimedia"),
    ("05", "memory"),
    ("06", "bridge"),
    ("07", "communication"),
    ("08", "system"),
    ("09", "input"),
    ("0a", "docking"),
    ("0b", "processor"),
    ("0c", "serial"),
    ("0d", "wireless"),
    ("0e", "intelligent"),
    ("0f", "satellite"),
    ("10", "encryption"),
    ("11", "signal"),
    ("12", "accelerator"),
    ("13", "instrument"),
    ("40", "coprocessor"),
    ("ff", "unassigned"),
];

/// Subclasses that people have a shorter word for: the first four hex digits.
const SUBCLASSES: [(&str, &str); 14] = [
    ("0101", "ide"),
    ("0104", "raid"),
    ("0106", "sata"),
    ("0107", "sas"),
    ("0108", "nvme"),
    ("0200", "ethernet"),
    ("0207", "infiniband"),
    ("0300", "vga"),
    ("0302", "3d"),
    ("0403", "audio"),
    ("0600", "host bridge"),
    ("0604", "pci bridge"),
    ("0c03", "usb"),
    ("0c05", "smbus"),
];

fn lookup(table: &[(&'static str, &'static str)], code: &str) -> Option<&'static str> {
    table.iter().find(|(key, _)| *key == code).map(|(_, name)| *name)
}

/// The shortest name that says what a device of this class (six hex digits) is; the digits where there is none.
pub fn name(class: &str) -> &str {
    lookup(&SUBCLASSES, &class[..4]).or_else(|| lookup(&CLASSES, &class[..2])).unwrap_or(class)
}

/// All of these names, and how the class of such a device begins.
pub fn names() -> impl Iterator<Item = (&'static str, &'static str)> {
    CLASSES.iter().chain(&SUBCLASSES).map(|(code, name)| (*name, *code))
}

/// Some devices, by class.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClassFilter {
    prefix: String,
}

impl ClassFilter {
    /// How the class (six hex digits) of such a device begins.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Is a device of this class (six hex digits) meant?
    pub fn matches(&self, class: &str) -> bool {
        class.starts_with(&self.prefix)
    }
}

impl FromStr for ClassFilter {
    type Err = String;

    /// A name as above, or the first two, four or all six hex digits of the class.
    fn from_str(text: &str) -> Result<ClassFilter, String> {
        let wanted = text.to_ascii_lowercase();
        if let Some((code, _)) = CLASSES.iter().chain(&SUBCLASSES).find(|(_, name)| *name == wanted) {
            return Ok(ClassFilter { prefix: code.to_string() });
        }
        let digits = wanted.strip_prefix("0x").unwrap_or(&wanted);
        if matches!(digits.len(), 2 | 4 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(ClassFilter { prefix: digits.to_string() });
        }
        let names: Vec<&str> = CLASSES.iter().map(|(_, name)| *name).collect();
        Err(format!(
            "not a class: give two, four or six hex digits (0108), or one of {}, or a subclass such as nvme, ethernet or vga",
            names.join(", ")
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (class, expected) in [
            ("010802", "nvme"),
            ("020000", "ethernet"),
            ("028000", "network"),
            ("0b4000", "processor"),
            ("aa0000", "aa0000"),
        ] {
            assert_eq!(name(class), expected);
        }
    }

    #[test]
    fn filters() {
        for (text, class, expected) in [
            ("network", "020000", true),
            ("NVMe", "010802", true),
            ("nvme", "010601", false),
            ("0108", "010802", true),
            ("0x03", "030200", true),
            ("03", "040300", false),
        ] {
            assert_eq!(text.parse::<ClassFilter>().unwrap().matches(class), expected, "{text} {class}");
        }
        for text in ["", "net work", "1", "0123456", "0x"] {
            assert!(text.parse::<ClassFilter>().is_err(), "{text}");
        }
    }
}
