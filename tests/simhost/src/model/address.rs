// SPDX-License-Identifier: MIT OR Apache-2.0
//! PCI addresses.

use std::fmt;
use std::str::FromStr;

/// Where a function sits: `0000:3b:00.1`. Ordered as the bus lists its devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl Address {
    /// The address a routing-id distance away: how a VF's is found from its PF's
    /// (drivers/pci/iov.c, pci_iov_virtfn_bus). None past the end of the domain.
    pub fn offset(self, distance: u32) -> Option<Self> {
        let id = (u32::from(self.bus) << 8) | (u32::from(self.device) << 3) | u32::from(self.function);
        let id = u16::try_from(id.checked_add(distance)?).ok()?;
        let [bus, devfn] = id.to_be_bytes();
        Some(Self { domain: self.domain, bus, device: devfn >> 3, function: devfn & 7 })
    }

    /// Device and function number, as the kernel packs them.
    pub fn devfn(self) -> u8 {
        (self.device << 3) | self.function
    }
}

impl FromStr for Address {
    type Err = String;

    /// Only the full, lower-case form that names a directory in sysfs.
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (rest, function) = text.rsplit_once('.')?;
            let mut parts = rest.split(':');
            let domain = parts.next()?;
            let address = Self {
                domain: u32::from_str_radix(domain, 16).ok()?,
                bus: u8::from_str_radix(parts.next()?, 16).ok()?,
                device: u8::from_str_radix(parts.next()?, 16).ok()?,
                function: function.parse().ok()?,
            };
            let exact = parts.next().is_none() && address.to_string() == text;
            (exact && address.device < 32 && address.function < 8).then_some(address)
        };
        parse().ok_or_else(|| format!("{text:?} is not a PCI address like 0000:3b:00.1"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function}")
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn only_the_full_form_is_an_address() {
        for good in ["0000:3b:00.1", "10000:e1:1f.7"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for bad in [
            "3b:00.1",
            "0000:3B:00.1",
            "0000:3b:00.8",
            "0000:3b:20.0",
            "0:3b:00.1",
            "",
            "0000:3b:00.1 ",
            "0000:3b:00:01.1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_virtual_function_may_lie_on_the_next_bus() {
        let pf: Address = "0000:3b:00.0".parse().unwrap();
        let at = |distance| pf.offset(distance).unwrap().to_string();
        assert_eq!(at(2), "0000:3b:00.2");
        assert_eq!(at(9), "0000:3b:01.1");
        assert_eq!(at(256), "0000:3c:00.0");
        assert_eq!(pf.offset(0x10000), None);
    }
}
