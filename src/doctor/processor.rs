// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whose processor it is, and whether it is a real one: that says which IOMMU there can be.

use std::io::Read;

use crate::file;
use crate::host::Host;

/// The first processors are told of in so much; there may be hundreds, and all are asked how fast they run.
const ENOUGH: u64 = 8192;

/// Who has designed the IOMMU that goes with a processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Vendor {
    /// VT-d; Zhaoxin's processors have it as well.
    Intel,
    /// AMD-Vi; Hygon's have it as well.
    Amd,
    /// SMMU.
    Arm,
    /// Another architecture, or not known.
    Other,
}

/// What there is to know of the processor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processor {
    /// Whose it is.
    pub vendor: Vendor,
    /// Does it say that it runs under a hypervisor? Known on x86 alone (`X86_FEATURE_HYPERVISOR`).
    pub is_virtual: bool,
}

impl Processor {
    /// Reads it.
    pub fn read(host: &Host) -> Processor {
        let mut bytes = Vec::new();
        // What cannot be read is not known.
        let _ = file::open(&host.processors()).and_then(|file| file.take(ENOUGH).read_to_end(&mut bytes));
        Processor::parse(&String::from_utf8_lossy(&bytes))
    }

    fn parse(text: &str) -> Processor {
        let field = |name: &str| {
            let mut fields = text.lines().filter_map(|line| line.split_once(':'));
            fields.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
        };
        let vendor = match field("vendor_id") {
            Some("GenuineIntel" | "CentaurHauls" | "Shanghai") => Vendor::Intel,
            Some("AuthenticAMD" | "HygonGenuine") => Vendor::Amd,
            _ if field("CPU implementer").is_some() => Vendor::Arm,
            _ => Vendor::Other,
        };
        let is_virtual = field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
        Processor { vendor, is_virtual }
    }

    /// Is it an x86 one?
    pub fn is_x86(self) -> bool {
        matches!(self.vendor, Vendor::Intel | Vendor::Amd)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_made_it() {
        for (text, vendor, is_virtual) in [
            ("processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu vme\n", Vendor::Intel, false),
            ("processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu hypervisor lahf_lm\n", Vendor::Amd, true),
            ("vendor_id\t: HygonGenuine\n", Vendor::Amd, false),
            ("vendor_id\t:   Shanghai  \n", Vendor::Intel, false),
            ("processor\t: 0\nBogoMIPS\t: 2000.00\nCPU implementer\t: 0x41\n", Vendor::Arm, false),
            ("vendor_id       : IBM/S390\n", Vendor::Other, false),
            ("", Vendor::Other, false),
        ] {
            assert_eq!(Processor::parse(text), Processor { vendor, is_virtual }, "{text}");
        }
    }
}
