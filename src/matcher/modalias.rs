// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PCI device's modalias, as `/sys/bus/pci/devices/ADDR/modalias` prints it
//! (`drivers/pci/pci-sysfs.c`, `modalias_show`).

use std::str::FromStr;
use std::sync::OnceLock;

use regex::Regex;

/// A device's modalias: `pci:v…d…sv…sd…bc…sc…i…`, every field given, hex digits upper-case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Modalias {
    text: String,
}

/// Why a string is not a PCI device's modalias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModaliasError {
    /// It has the shape, but with hex digits in lower case, which match no alias.
    #[error(
        "modalias '{0}' has lower-case hex digits; the kernel's are upper-case and matching is exact"
    )]
    LowerCase(String),
    /// It is something else.
    #[error(
        "'{0}' is not a PCI modalias (like pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00)"
    )]
    Shape(String),
}

// Byte offsets of the fields in `pci:vVVVVVVVVdDDDDDDDDsvSSSSSSSSsdSSSSSSSSbcCCscCCiCC`.
const VENDOR: usize = 5;
const DEVICE: usize = 14;
const SUBVENDOR: usize = 24;
const SUBDEVICE: usize = 34;
const CLASS: usize = 44;
const SUBCLASS: usize = 48;
const INTERFACE: usize = 51;

fn shape() -> &'static Regex {
    static SHAPE: OnceLock<Regex> = OnceLock::new();
    SHAPE.get_or_init(|| {
        // Lower-case digits are let in here, so that they can be told from any other mistake.
        let hex8 = "[0-9A-Fa-f]{8}";
        let hex2 = "[0-9A-Fa-f]{2}";
        Regex::new(&format!(
            "^(?:vfio_)?(pci:v{hex8}d{hex8}sv{hex8}sd{hex8}bc{hex2}sc{hex2}i{hex2})$"
        ))
        .expect("a constant pattern")
    })
}

impl FromStr for Modalias {
    type Err = ModaliasError;

    /// Reads `pci:…`, or `vfio_pci:…`, the key under which VFIO drivers are looked up.
    fn from_str(text: &str) -> Result<Modalias, ModaliasError> {
        let found = shape().captures(text).and_then(|groups| groups.get(1));
        let Some(found) = found else {
            return Err(ModaliasError::Shape(text.escape_default().to_string()));
        };
        let modalias = Modalias { text: found.as_str().to_string() };
        let digits = [
            VENDOR..VENDOR + 8,
            DEVICE..DEVICE + 8,
            SUBVENDOR..SUBVENDOR + 8,
            SUBDEVICE..SUBDEVICE + 8,
        ]
        .into_iter()
        .chain([CLASS..CLASS + 2, SUBCLASS..SUBCLASS + 2, INTERFACE..INTERFACE + 2]);
        for field in digits {
            if modalias.text[field].bytes().any(|b| b.is_ascii_lowercase()) {
                return Err(ModaliasError::LowerCase(modalias.text));
            }
        }
        Ok(modalias)
    }
}

impl Modalias {
    /// As the kernel prints it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The key that a `vfio_pci:` alias pattern must match: `vfio_` and the modalias.
    pub fn vfio_key(&self) -> String {
        format!("vfio_{}", self.text)
    }

    /// PCI ids have 16 bits; the kernel prints 32. Lower-case, as the sysfs attributes print them.
    fn id(&self, offset: usize) -> String {
        self.text[offset + 4..offset + 8].to_ascii_lowercase()
    }

    fn id_number(&self, offset: usize) -> u16 {
        u16::from_str_radix(&self.text[offset + 4..offset + 8], 16)
            .expect("hex digits, checked when it was read")
    }

    /// The vendor id.
    pub fn vendor_id(&self) -> u16 {
        self.id_number(VENDOR)
    }

    /// The device id.
    pub fn device_id(&self) -> u16 {
        self.id_number(DEVICE)
    }

    /// The vendor id, four lower-case hex digits.
    pub fn vendor(&self) -> String {
        self.id(VENDOR)
    }

    /// The device id, four lower-case hex digits.
    pub fn device(&self) -> String {
        self.id(DEVICE)
    }

    /// The subsystem vendor id, four lower-case hex digits.
    pub fn subsystem_vendor(&self) -> String {
        self.id(SUBVENDOR)
    }

    /// The subsystem device id, four lower-case hex digits.
    pub fn subsystem_device(&self) -> String {
        self.id(SUBDEVICE)
    }

    /// Class, subclass and programming interface: six lower-case hex digits.
    pub fn class(&self) -> String {
        let byte = |offset: usize| &self.text[offset..offset + 2];
        [byte(CLASS), byte(SUBCLASS), byte(INTERFACE)].concat().to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CX7_VF: &str = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00";

    #[test]
    fn fields() {
        let modalias: Modalias = CX7_VF.parse().unwrap();
        assert_eq!(modalias.vendor(), "15b3");
        assert_eq!(modalias.device(), "101e");
        assert_eq!(modalias.subsystem_vendor(), "15b3");
        assert_eq!(modalias.subsystem_device(), "0023");
        assert_eq!(modalias.class(), "020000");
        assert_eq!(modalias.vfio_key(), format!("vfio_{CX7_VF}"));
    }

    #[test]
    fn the_vfio_key_is_read_back() {
        let modalias: Modalias = format!("vfio_{CX7_VF}").parse().unwrap();
        assert_eq!(modalias.as_str(), CX7_VF);
    }

    #[test]
    fn lower_case_hex_is_named_as_such() {
        let lower = CX7_VF.replace("101E", "101e");
        assert_eq!(lower.parse::<Modalias>(), Err(ModaliasError::LowerCase(lower)));
    }

    #[test]
    fn other_strings_are_refused() {
        for text in [
            "",
            "pci:",
            "usb:v1D6Bp0001",
            "pci:v*d*sv*sd*bc*sc*i*",
            "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i0",
            "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00 ",
            "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00\n",
            "PCI:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00",
        ] {
            assert!(matches!(text.parse::<Modalias>(), Err(ModaliasError::Shape(_))), "{text:?}");
        }
    }
}
