// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which devices a driver's table lists.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// What a device says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Vendor.
    pub vendor: u16,
    /// Device.
    pub device: u16,
    /// Subsystem vendor.
    pub subvendor: u16,
    /// Subsystem device.
    pub subdevice: u16,
    /// Base class, subclass and programming interface, one byte each.
    pub class: u32,
}

impl Ids {
    /// The `modalias` of a device with these, without the newline (drivers/pci/pci-sysfs.c, modalias_show).
    pub fn modalias(&self) -> String {
        let [_, base, sub, interface] = self.class.to_be_bytes();
        format!(
            "pci:v{:08X}d{:08X}sv{:08X}sd{:08X}bc{base:02X}sc{sub:02X}i{interface:02X}",
            self.vendor, self.device, self.subvendor, self.subdevice
        )
    }

    /// Base class and subclass: 0x0604 is a PCI bridge.
    pub fn subclass(&self) -> u16 {
        (self.class >> 8) as u16
    }
}

/// One entry of an id table, `None` for any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern {
    vendor: Option<u32>,
    device: Option<u32>,
    subvendor: Option<u32>,
    subdevice: Option<u32>,
    class: u32,
    class_mask: u32,
}

impl Pattern {
    /// Does the entry list this device? (drivers/pci/pci.h, pci_match_one_device)
    pub fn matches(&self, ids: &Ids) -> bool {
        let equal = |wanted: Option<u32>, found: u16| wanted.is_none_or(|wanted| wanted == u32::from(found));
        equal(self.vendor, ids.vendor)
            && equal(self.device, ids.device)
            && equal(self.subvendor, ids.subvendor)
            && equal(self.subdevice, ids.subdevice)
            && (self.class ^ ids.class) & self.class_mask == 0
    }

    /// What is written to `new_id` and `remove_id`: `vendor device [subvendor subdevice [class mask]]` in hex. None with
    /// fewer than two fields.
    pub fn from_new_id(text: &str) -> Option<Self> {
        let fields: Vec<u32> = text
            .split_whitespace()
            .map_while(|field| {
                let digits = field.trim_start_matches("0x").trim_start_matches("0X");
                u32::from_str_radix(digits, 16).ok()
            })
            .take(6)
            .collect();
        let &[vendor, device, ref rest @ ..] = fields.as_slice() else {
            return None;
        };
        // All ones is PCI_ANY_ID; what else exceeds 16 bits is kept, and no device has it.
        let id = |value: u32| (value != u32::MAX).then_some(value);
        let rest = |index| rest.get(index).copied();
        Some(Self {
            vendor: id(vendor),
            device: id(device),
            subvendor: rest(0).and_then(id),
            subdevice: rest(1).and_then(id),
            class: rest(2).unwrap_or(0),
            class_mask: rest(3).unwrap_or(0),
        })
    }

    /// The seventh field of what is written to `new_id`.
    pub fn driver_data(text: &str) -> Option<u64> {
        let field = text.split_whitespace().nth(6)?;
        u64::from_str_radix(field.trim_start_matches("0x").trim_start_matches("0X"), 16).ok()
    }

    /// The device an entry would be for, to see whether a driver has it already (drivers/pci/pci-driver.c, new_id_store,
    /// which keeps the lower 16 bits of each id for that).
    pub fn example(&self) -> Ids {
        let id = |id: Option<u32>| id.unwrap_or(u32::MAX) as u16;
        Ids {
            vendor: id(self.vendor),
            device: id(self.device),
            subvendor: id(self.subvendor),
            subdevice: id(self.subdevice),
            class: self.class,
        }
    }
}

impl FromStr for Pattern {
    type Err = String;

    /// `15b3:101e`, `15b3:*`, `*:*`, or `class:0c03**` with `**` or `*` for a byte that does not matter.
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (left, right) = text.split_once(':')?;
            if left == "class" {
                return class(right);
            }
            let id = |text: &str| match text {
                "*" => Some(None),
                _ if text.len() == 4 => u32::from_str_radix(text, 16).ok().map(Some),
                _ => None,
            };
            Some(Self { vendor: id(left)?, device: id(right)?, ..Self::default() })
        };
        parse().ok_or_else(|| format!("{text:?} is neither vendor:device nor class:CCSSPP"))
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// `0108**` or `0108*`: three bytes from the left, each two digits or a star.
fn class(mut text: &str) -> Option<Pattern> {
    let mut pattern = Pattern::default();
    for shift in [16, 8, 0] {
        if let Some(rest) = text.strip_prefix("**").or(text.strip_prefix('*')) {
            text = rest;
            continue;
        }
        let byte = u32::from_str_radix(text.get(..2)?, 16).ok()?;
        text = &text[2..];
        pattern.class |= byte << shift;
        pattern.class_mask |= 0xff << shift;
    }
    text.is_empty().then_some(pattern)
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.device)
    }
}

#[cfg(test)]
mod tests {
    use super::{Ids, Pattern};

    const NIC: Ids = Ids { vendor: 0x15b3, device: 0x101e, subvendor: 0x15b3, subdevice: 0x0061, class: 0x020000 };

    #[test]
    fn modalias_is_the_kernels() {
        assert_eq!(NIC.modalias(), "pci:v000015B3d0000101Esv000015B3sd00000061bc02sc00i00");
    }

    #[test]
    fn table_entries() {
        for (entry, listed) in [
            ("15b3:101e", true),
            ("15b3:*", true),
            ("*:*", true),
            ("15b3:1021", false),
            ("8086:101e", false),
            ("class:020000", true),
            ("class:0200**", true),
            ("class:0200*", true),
            ("class:02**00", true),
            ("class:02*00", true),
            ("class:0108**", false),
        ] {
            let pattern: Pattern = entry.parse().unwrap();
            assert_eq!(pattern.matches(&NIC), listed, "{entry}");
        }
        for bad in ["", "15b3", "15b3:10", "class:02", "class:0200001", "class:xx0000"] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn new_id_fields() {
        for (text, listed) in [
            ("15b3 101e", Some(true)),
            ("0x15b3 0x101e\n", Some(true)),
            ("15b3 101e 15b3 0061", Some(true)),
            ("15b3 101e 15b3 0062", Some(false)),
            ("15b3 101e ffffffff ffffffff 20000 ff0000", Some(true)),
            ("15b3 101e ffffffff ffffffff 10000 ff0000", Some(false)),
            ("15b3", None),
            ("", None),
            ("nonsense 101e", None),
        ] {
            let found = Pattern::from_new_id(text).map(|pattern| pattern.matches(&NIC));
            assert_eq!(found, listed, "{text:?}");
        }
    }
}
