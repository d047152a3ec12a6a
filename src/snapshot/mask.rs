// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is nobody else's business, replaced: the same value by the same replacement, of the same form, so that what belongs
//! together still does and is read as before. To mask what is masked already changes nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use regex::{Captures, Regex};
use serde::Serialize;

/// What is masked.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A link-layer address: becomes `02:00:00:00:00:01` and so on.
    Mac,
    /// An IP address or network: keeps its first part (the first byte of IPv4, the first two of IPv6) and which others it shares
    /// a prefix with.
    Ip,
    /// A UUID: becomes `00000000-0000-4000-8000-000000000001` and so on.
    Uuid,
    /// A serial number, WWID or the like, by its look: becomes a number of as many digits.
    Serial,
    /// What users name: files and directories below /home, /media, /mnt and /srv, labels of disks.
    Name,
    /// The host's name: becomes `host`.
    Host,
}

impl Kind {
    /// Words for so many.
    pub fn counted(self, number: usize) -> String {
        let what = match self {
            Kind::Mac => "link-layer address",
            Kind::Ip => "IP address",
            Kind::Uuid => "UUID",
            Kind::Serial => "serial number",
            Kind::Name => "name",
            Kind::Host => "host name",
        };
        let ending = match (number, what.ends_with('s')) {
            (1, _) => "",
            (_, true) => "es",
            (_, false) => "s",
        };
        format!("{number} {what}{ending}")
    }
}

/// Replaces, and knows by what it has replaced before.
pub struct Mask {
    pattern: Regex,
    known: BTreeMap<Kind, BTreeMap<String, usize>>,
    v4: Prefixes,
    v6: Prefixes,
}

/// Directories whose entries are named by users.
const NAMED_BY_USERS: &str =
    "/(?:home|media|mnt|srv|disk/by-id|disk/by-label|disk/by-partlabel|disk/by-uuid|disk/by-partuuid)/";

impl Mask {
    /// Masks the host's name, too, if it has one that says something.
    pub fn new(host: &str) -> Mask {
        let host = Some(host.trim()).filter(|name| name.len() > 2 && !["localhost", "(none)", "host"].contains(name));
        // The name before the first dot stands alone as often.
        let short = host.map(|name| name.split('.').next().unwrap_or(name)).filter(|name| name.len() > 2);
        let host_pattern = short.map(|name| format!(r"| {}(?:\.[\w.-]+\b)?", regex::escape(name))).unwrap_or_default();
        let pattern = format!(
            r"(?x-u)
            (?P<place>{NAMED_BY_USERS})(?P<names>(?u:[^\x20\t\r\n:,;'\x22()]+))
            | (?P<uuid>\b[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}\b)
            | (?P<colons>\b[0-9a-fA-F]+:[0-9a-fA-F:]*:[0-9a-fA-F.:]*)
            | (?P<enx>\benx[0-9a-fA-F]{{12}}\b)
            | (?P<quad>\b[0-9]{{1,3}}(?:\.[0-9]{{1,3}}){{3}}\b)
            | (?P<serial>\b(?:0x)?[0-9a-fA-F]{{16,}}\b|\b[0-9A-Za-z]{{24,}}\b)
            {host_pattern}"
        );
        let pattern = Regex::new(&pattern).expect("a constant pattern, and a name that is escaped");
        let (v4, v6) = (Prefixes::new(8), Prefixes::new(16));
        Mask { pattern, known: BTreeMap::new(), v4, v6 }
    }

    /// A text of any kind.
    pub fn text<'a>(&mut self, text: &'a str) -> Cow<'a, str> {
        if !self.pattern.is_match(text) {
            return Cow::Borrowed(text);
        }
        let pattern = self.pattern.clone();
        let replaced = pattern.replace_all(text, |found: &Captures<'_>| self.replacement(text, found)).into_owned();
        Cow::Owned(replaced)
    }

    fn replacement(&mut self, text: &str, found: &Captures<'_>) -> String {
        let whole = found.get(0).expect("it was found");
        let named = |name: &str| found.name(name).map(|found| found.as_str());
        if let (Some(place), Some(names)) = (named("place"), named("names")) {
            let names: Vec<String> = names.split('/').map(|name| self.name(name)).collect();
            return format!("{place}{}", names.join("/"));
        }
        if let Some(uuid) = named("uuid") {
            return format!("00000000-0000-4000-8000-{:012x}", self.number(Kind::Uuid, uuid));
        }
        if let Some(colons) = named("colons") {
            return self.with_colons(colons);
        }
        if let Some(name) = named("enx") {
            return self.mac(&name[3..]).map_or(name.to_string(), |mac| format!("enx{}", mac.replace(':', "")));
        }
        if let Some(quad) = named("quad") {
            // Not a part of something longer, as a kernel's release.
            let before = text[..whole.start()].chars().next_back();
            let after = text[whole.end()..].chars().next();
            let is_part = |c: Option<char>| c.is_some_and(|c| ['.', '-', '+', '_'].contains(&c));
            return match quad.parse::<Ipv4Addr>() {
                Ok(address) if !is_part(before) && !is_part(after) => self.ip(address.into()).to_string(),
                _ => quad.to_string(),
            };
        }
        if let Some(serial) = named("serial") {
            // The alias of a device is no serial number.
            let is_alias = text[..whole.start()].ends_with(':') || !serial.bytes().any(|b| b.is_ascii_digit());
            return if is_alias { serial.to_string() } else { self.serial(serial) };
        }
        let is_part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        if is_part(text[..whole.start()].chars().next_back()) || is_part(text[whole.end()..].chars().next()) {
            return whole.as_str().to_string();
        }
        self.number(Kind::Host, whole.as_str());
        "host".to_string()
    }

    /// Groups of hex digits between colons: an IPv6 address, a link-layer address, or neither, as a device's address.
    fn with_colons(&mut self, text: &str) -> String {
        // What follows it may be a colon, or a full stop.
        let trimmed = text.trim_end_matches(['.', ':']);
        let tail = if text.ends_with("::") { "" } else { &text[trimmed.len()..] };
        let trimmed = if text.ends_with("::") { text } else { trimmed };
        if let Ok(address) = trimmed.parse::<Ipv6Addr>() {
            return format!("{}{tail}", self.ip(address.into()));
        }
        match self.mac(&trimmed.replace(':', "")) {
            Some(mac) if trimmed.len() == 17 && trimmed.split(':').all(|byte| byte.len() == 2) => {
                format!("{mac}{tail}")
            }
            _ => text.to_string(),
        }
    }

    fn mac(&mut self, digits: &str) -> Option<String> {
        let is_mac = digits.len() == 12 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        // That of no interface in particular.
        if !is_mac || digits.bytes().all(|b| b == b'0') {
            return None;
        }
        let number = self.number(Kind::Mac, &digits.to_ascii_lowercase());
        Some(format!("02:00:00:{:02x}:{:02x}:{:02x}", number >> 16 & 0xff, number >> 8 & 0xff, number & 0xff))
    }

    fn name(&mut self, name: &str) -> String {
        if name.is_empty() {
            return String::new();
        }
        format!("name{}", self.number(Kind::Name, name))
    }

    /// What is known to be a serial number.
    fn serial(&mut self, serial: &str) -> String {
        let digits = serial.strip_prefix("0x").unwrap_or(serial);
        let number = self.number(Kind::Serial, digits);
        format!("{}{number:0>width$}", &serial[..serial.len() - digits.len()], width = digits.len())
    }

    /// From 1, in the order of their appearance.
    fn number(&mut self, kind: Kind, value: &str) -> usize {
        let known = self.known.entry(kind).or_default();
        let next = known.len() + 1;
        *known.entry(value.to_string()).or_insert(next)
    }

    /// An address.
    pub fn ip(&mut self, address: IpAddr) -> IpAddr {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        self.network(address, bits)
    }

    /// A network: of the rest of its address nothing is kept.
    pub fn network(&mut self, network: IpAddr, prefix: u32) -> IpAddr {
        let masked = match network {
            // That of the host itself, of none and of all.
            IpAddr::V4(v4) if v4.is_loopback() || v4.octets()[0] == 0 || v4.is_broadcast() => return network,
            IpAddr::V4(v4) => Ipv4Addr::from_bits(
                u32::try_from(self.v4.mask(u128::from(v4.to_bits()) << 96, prefix.min(32)) >> 96).unwrap_or(0),
            )
            .into(),
            IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => return network,
            IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some() => {
                let mapped = v6.to_ipv4_mapped().expect("it was asked");
                match self.network(mapped.into(), prefix.saturating_sub(96)) {
                    IpAddr::V4(masked) => masked.to_ipv6_mapped().into(),
                    v6 => v6,
                }
            }
            IpAddr::V6(v6) => Ipv6Addr::from_bits(self.v6.mask(v6.to_bits(), prefix.min(128))).into(),
        };
        self.number(Kind::Ip, &network.to_string());
        masked
    }

    /// What was masked: kinds, and how many values of each.
    pub fn counts(&self) -> BTreeMap<Kind, usize> {
        self.known.iter().map(|(kind, values)| (*kind, values.len())).collect()
    }
}

/// Addresses of which only this remains: which of them share how long a prefix. Of two that part ways at a bit the first to come
/// has 0 there, so that what is masked stays as it is when it is masked again.
struct Prefixes {
    kept: u32,
    /// By the bits before, and their number: the bit that came first.
    first: BTreeMap<(u32, u128), bool>,
}

impl Prefixes {
    /// So many bits stay as they are.
    fn new(kept: u32) -> Prefixes {
        Prefixes { kept, first: BTreeMap::new() }
    }

    /// The address begins with the most significant bit; behind `prefix` bits there are zeros.
    fn mask(&mut self, address: u128, prefix: u32) -> u128 {
        let mut masked = 0;
        for at in 0..prefix {
            let bit = address >> (127 - at) & 1 == 1;
            let before = if at == 0 { 0 } else { address >> (128 - at) };
            let masked_bit =
                at < self.kept && bit || at >= self.kept && *self.first.entry((at, before)).or_insert(bit) != bit;
            masked |= u128::from(masked_bit) << (127 - at);
        }
        masked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_masked_and_what_is_not() {
        let mut mask = Mask::new("orion.example.org\n");
        for (text, masked) in [
            ("enp59s0f0v3 0000:3b:00.1 pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00", None),
            ("vfio_pci 6.12.107+deb13-amd64 5.4.0.1-1", None),
            ("127.0.0.1 ::1 0.0.0.0 std::fs 12:30:59", None),
            ("52:54:00:ab:cd:ef and 52:54:00:AB:CD:EF", Some("02:00:00:00:00:01 and 02:00:00:00:00:01")),
            ("enx525400abcdef", Some("enx020000000001")),
            ("192.168.7.5 192.168.7.77", Some("192.0.0.0 192.0.0.64")),
            ("2001:db8::5: 2001:db8::4", Some("2001::: 2001::1")),
            ("root=UUID=6f1b0d3e-52c4-4c8e-9d7e-0f2a4b6c8d10", Some("root=UUID=00000000-0000-4000-8000-000000000001")),
            ("/home/anna/disk images/x", Some("/home/name1/name2 images/x")),
            ("/home/anna,/srv/acme:/x", Some("/home/name1,/srv/name3:/x")),
            ("mpath-3600508b400105e210000900000490000", Some("mpath-000000000000000000000000000000001")),
            ("naa.5000c500a1b2c3d4 0x5000c500a1b2c3d4", Some("naa.0000000000000002 0x0000000000000002")),
            ("fedora_orion-root orion orion.example.org orionis", Some("fedora_host-root host host orionis")),
        ] {
            assert_eq!(mask.text(text), masked.unwrap_or(text), "{text}");
        }
        let counts = mask.counts();
        assert_eq!((counts[&Kind::Mac], counts[&Kind::Ip], counts[&Kind::Serial]), (1, 4, 2), "{counts:?}");
    }

    #[test]
    fn what_is_masked_stays_as_it_is() {
        let text = "10.1.2.3 10.1.2.9 10.7.0.0 192.168.7.5 fe80::5054:ff:feab:cdef 2001:db8:1::7 52:54:00:ab:cd:ef \
                    6f1b0d3e-52c4-4c8e-9d7e-0f2a4b6c8d10 /home/anna/x/y 3600508b400105e210000900000490000";
        let once = Mask::new("orion").text(text).into_owned();
        assert_ne!(once, text);
        assert_eq!(Mask::new("").text(&once), once);
    }

    #[test]
    fn networks_keep_what_they_have_in_common() {
        let mut mask = Mask::new("");
        let route = mask.network("10.20.30.0".parse().unwrap(), 24);
        let inside = mask.ip("10.20.30.99".parse().unwrap());
        let outside = mask.ip("10.20.31.99".parse().unwrap());
        let shared = |a: IpAddr, b: IpAddr| match (a, b) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
            _ => panic!("{a} {b}"),
        };
        assert!(shared(route, inside) >= 24, "{route} {inside}");
        assert_eq!(shared(inside, outside), 23, "{inside} {outside}");
    }
}
