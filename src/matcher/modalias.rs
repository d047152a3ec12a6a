// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PCI device's modalias, as `/sys/bus/pci/devices/ADDR/modalias` prints it
//! (`drivers/pci/pci-sysfs.c`, `modalias_show`).

use super::fields;
use std::str::FromStr;

/// A device's modalias: `pci:v…d…sv…sd…bc…sc…i…`, every field given, hex digits upper-case.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Modalias {
    text: String,
}

/// Why a string is not a PCI device's modalias.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModaliasError {
    /// It has the shape, but with hex digits in lower case, which match no alias.
    #[error("modalias '{0}' has lower-case hex digits; the kernel's are upper-case and matching is exact")]
    LowerCase(String),
    /// It is something else.
    #[error("'{0}' is not a PCI modalias (like pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00)")]
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

/// Where each field stands, and how wide it is.
const PLACES: [(usize, usize); fields::FIELDS] =
    [(VENDOR, 8), (DEVICE, 8), (SUBVENDOR, 8), (SUBDEVICE, 8), (CLASS, 2), (SUBCLASS, 2), (INTERFACE, 2)];

/// How it is written, `X` being a digit.
const SHAPE: &[u8] = b"pci:vXXXXXXXXdXXXXXXXXsvXXXXXXXXsdXXXXXXXXbcXXscXXiXX";

/// Seven fields of upper-case hex digits, as wide as the kernel prints them.
fn is_modalias(text: &str) -> bool {
    let fits = |(byte, place): (u8, &u8)| match place {
        b'X' => byte.is_ascii_digit() || (b'A'..=b'F').contains(&byte),
        _ => byte == *place,
    };
    text.len() == SHAPE.len() && text.bytes().zip(SHAPE).all(fits)
}

/// The same with the digits in upper case; `None` where there is no digit in lower case, or the text is too short.
fn in_upper_case(text: &str) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    for (start, width) in PLACES {
        bytes.get_mut(start..start + width)?.make_ascii_uppercase();
    }
    String::from_utf8(bytes).ok().filter(|upper| upper != text)
}

impl FromStr for Modalias {
    type Err = ModaliasError;

    /// Reads `pci:…`, or `vfio_pci:…`, the key under which VFIO drivers are looked up.
    fn from_str(text: &str) -> Result<Modalias, ModaliasError> {
        let modalias = text.strip_prefix("vfio_").unwrap_or(text);
        if is_modalias(modalias) {
            return Ok(Modalias { text: modalias.to_string() });
        }
        match in_upper_case(modalias) {
            Some(upper) if is_modalias(&upper) => Err(ModaliasError::LowerCase(modalias.to_string())),
            _ => Err(ModaliasError::Shape(text.escape_default().to_string())),
        }
    }
}

impl Modalias {
    /// As the kernel prints it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same with another device id, four hex digits: what a PF's VFs have, but for their subsystem.
    pub fn with_device(&self, device: &str) -> Result<Modalias, ModaliasError> {
        format!("{}{:0>8}{}", &self.text[..DEVICE], device.to_ascii_uppercase(), &self.text[DEVICE + 8..]).parse()
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
        u16::from_str_radix(&self.text[offset + 4..offset + 8], 16).expect("hex digits, checked when it was read")
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
        // A `d` in lower case looks like a key.
        let lower = CX7_VF.replace("101E", "10dd");
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
            "pci:v00015B3d00000101Esv000015B3sd00000023bc02sc00i00",
            "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc000i0",
            "PCI:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00",
        ] {
            assert!(matches!(text.parse::<Modalias>(), Err(ModaliasError::Shape(_))), "{text:?}");
        }
    }
}
