// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI addresses, `DDDD:BB:DD.F`, as the kernel names devices in sysfs.
//!
//! An [`Address`] is four numbers, so a string a user typed can never become a path of its own.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A PCI function's address: domain, bus, device (slot) and function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// Why a string is not a PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a PCI address (like 0000:3b:00.1, or 3b:00.1 in domain 0)")]
pub struct AddressError(String);

impl Address {
    /// The address with these numbers, if PCI has one.
    pub fn new(domain: u32, bus: u32, device: u32, function: u32) -> Option<Address> {
        let is_one = bus <= 0xff && device <= 0x1f && function <= 7;
        is_one.then_some(Address { domain, bus: bus as u8, device: device as u8, function: function as u8 })
    }

    /// The domain (segment).
    pub fn domain(self) -> u32 {
        self.domain
    }

    /// The function with this routing id in the same domain.
    pub fn with_routing_id(self, id: u16) -> Address {
        let [bus, rest] = id.to_be_bytes();
        Address { domain: self.domain, bus, device: rest >> 3, function: rest & 7 }
    }

    /// Bus, device and function as one number, as SR-IOV counts.
    pub fn routing_id(self) -> u16 {
        (u16::from(self.bus) << 8) | (u16::from(self.device) << 3) | u16::from(self.function)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    /// Reads a full address, or a short one without its domain, which is then 0.
    fn from_str(text: &str) -> Result<Address, AddressError> {
        parse(text).ok_or_else(|| AddressError(text.escape_default().to_string()))
    }
}

fn parse(text: &str) -> Option<Address> {
    let (rest, function) = text.rsplit_once('.')?;
    let mut fields = rest.rsplitn(3, ':');
    let device = hex(fields.next()?, 2..=2)?;
    let bus = hex(fields.next()?, 2..=2)?;
    // Domains wider than 16 bits are real: Intel VMD's begin at 10000.
    let domain = fields.next().map_or(Some(0), |domain| hex(domain, 4..=8))?;
    let function = hex(function, 1..=1)?;
    Address::new(domain, bus, device, function)
}

fn hex(digits: &str, width: std::ops::RangeInclusive<usize>) -> Option<u32> {
    let add = |number, digit| Some((number << 4) | char::from(digit).to_digit(16)?);
    digits.bytes().try_fold(0, add).filter(|_| width.contains(&digits.len()))
}

/// `ffffffff:ff:1f.7`, the longest.
const LONGEST: usize = 16;

/// An address as text, on the stack. It is put together by hand: a listing as JSON has three for each of thousands of devices, and
/// the formatter's own numbers took a third of its time.
struct Text {
    bytes: [u8; LONGEST],
    length: usize,
}

impl Text {
    fn of(address: Address) -> Text {
        let mut text = Text { bytes: [0; LONGEST], length: 0 };
        text.add(address.domain, 4);
        text.push(b':');
        text.add(address.bus.into(), 2);
        text.push(b':');
        text.add(address.device.into(), 2);
        text.push(b'.');
        text.add(address.function.into(), 1);
        text
    }

    /// Adds a number with at least so many digits.
    fn add(&mut self, number: u32, width: u32) {
        for digit in (0..width.max(8 - number.leading_zeros() / 4)).rev() {
            self.push(b"0123456789abcdef"[(number >> (4 * digit)) as usize & 0xf]);
        }
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).expect("digits")
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Text::of(*self).as_str())
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(Text::of(*self).as_str())
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> Option<String> {
        text.parse::<Address>().ok().map(|address| address.to_string())
    }

    #[test]
    fn full_short_and_wide_addresses() {
        for (text, expected) in [
            ("0000:3b:00.1", "0000:3b:00.1"),
            ("3b:00.1", "0000:3b:00.1"),
            ("0009:01:00.0", "0009:01:00.0"),
            ("0000:3B:1F.7", "0000:3b:1f.7"),
            ("10000:e1:00.0", "10000:e1:00.0"),
            ("ffffffff:ff:1f.7", "ffffffff:ff:1f.7"),
            ("00000000:00:00.0", "0000:00:00.0"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "",
            ".",
            "3b:00",
            "3b.1",
            "00.1",
            "3b:20.0",
            "3b:00.8",
            "3b:0.1",
            "3b:00.01",
            ":3b:00.1",
            "3b:00.1 ",
            "+b:00.1",
            "000:3b:00.1",
            "0000:3b:00.1/..",
            "../../x:00.1",
            "0000:0000:3b:00.1",
            "123456789:3b:00.1",
            "ens1f0",
        ] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }

    #[test]
    fn order_is_the_bus_order() {
        let mut list: Vec<Address> = ["10000:00:00.0", "0000:3b:00.1", "0000:03:00.0", "0000:3b:00.0"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        list.sort();
        let shown: Vec<String> = list.iter().map(Address::to_string).collect();
        assert_eq!(shown, ["0000:03:00.0", "0000:3b:00.0", "0000:3b:00.1", "10000:00:00.0"]);
    }
}
