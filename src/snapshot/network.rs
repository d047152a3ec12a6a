// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables of `/proc/net`, in which addresses are hex digits: what is read of them, masked. Lines that are none stay out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::mask::Mask;

/// What is left of a table.
pub type Reduce = fn(&str, &mut Mask) -> String;

/// The tables, and what is left of each.
pub const TABLES: [(&str, Reduce); 4] =
    [("route", ipv4_routes), ("ipv6_route", ipv6_routes), ("if_inet6", ipv6_addresses), ("packet", packet_sockets)];

fn ipv4_routes(text: &str, mask: &mut Mask) -> String {
    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
    let lines = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, network, _, flags, _, _, metric, netmask, ..] = fields[..] else { return None };
        let prefix = u32::from_str_radix(netmask, 16).ok()?.count_ones();
        let address = Ipv4Addr::from(u32::from_str_radix(network, 16).ok()?.to_ne_bytes());
        let IpAddr::V4(masked) = mask.network(address.into(), prefix) else { return None };
        let (network, name) = (u32::from_ne_bytes(masked.octets()), mask.text(interface).into_owned());
        Some(format!("{name}\t{network:08X}\t00000000\t{flags}\t0\t0\t{metric}\t{netmask}\t0\t0\t0\n"))
    });
    format!("{HEAD}{}", lines.collect::<Vec<_>>().concat())
}

fn ipv6_routes(text: &str, mask: &mut Mask) -> String {
    let lines = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [network, prefix, _, _, _, metric, _, _, flags, interface] = fields[..] else { return None };
        let masked = ipv6(network, u32::from_str_radix(prefix, 16).ok()?, mask)?;
        let (none, name) = ("0".repeat(32), mask.text(interface).into_owned());
        Some(format!("{masked} {prefix} {none} 00 {none} {metric} 00000001 00000000 {flags} {name:>8}\n"))
    });
    lines.collect::<Vec<_>>().concat()
}

fn ipv6_addresses(text: &str, mask: &mut Mask) -> String {
    let lines = text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, index, prefix, scope, flags, interface] = fields[..] else { return None };
        let (masked, name) = (ipv6(address, 128, mask)?, mask.text(interface).into_owned());
        Some(format!("{masked} {index} {prefix} {scope} {flags} {name:>8}\n"))
    });
    lines.collect::<Vec<_>>().concat()
}

/// Which interface, and which socket.
fn packet_sockets(text: &str, _: &mut Mask) -> String {
    let lines = text.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, _, interface, _, _, _, inode] = fields[..] else { return None };
        Some(format!("0000000000000000 0      0    0000   {interface:<5} 0 0      0      {inode:<6}\n"))
    });
    format!("sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n{}", lines.collect::<Vec<_>>().concat())
}

fn ipv6(hex: &str, prefix: u32, mask: &mut Mask) -> Option<String> {
    let address = u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32).map(Ipv6Addr::from_bits)?;
    match mask.network(address.into(), prefix) {
        IpAddr::V6(masked) => Some(format!("{:032x}", masked.to_bits())),
        IpAddr::V4(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A route, an address on it, and nothing of either but what they have in common.
    #[test]
    fn addresses_stay_on_their_networks() {
        let mut mask = Mask::new("");
        let head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";
        let routes = format!(
            "{head}eth0\t00000000\t0107A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\neth0\t0007A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
        );
        let masked = ipv4_routes(&routes, &mut mask);
        assert_eq!(
            masked,
            format!(
                "{head}eth0\t00000000\t00000000\t0003\t0\t0\t100\t00000000\t0\t0\t0\neth0\t000000C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
            )
        );
        assert_eq!(mask.text("192.168.7.9 192.168.8.9"), "192.0.0.0 192.0.8.0");
        assert_eq!(ipv4_routes(&masked, &mut Mask::new("")), masked);

        let addresses = "20010db8000000000000000000c0ffee 04 40 00 80     eth0\n";
        let masked = ipv6_addresses(addresses, &mut mask);
        assert_eq!(masked, "20010000000000000000000000000000 04 40 00 80     eth0\n");
        assert_eq!(ipv6_addresses(&masked, &mut Mask::new("")), masked);
    }

    #[test]
    fn what_is_no_line_stays_out() {
        for (_, reduce) in TABLES {
            for text in ["", "\n", "nonsense\n", "Iface\neth0\tx\n", "a b c d e f\n", "a b c d e f g h i j\n"] {
                let reduced = reduce(text, &mut Mask::new(""));
                assert!(!reduced.contains("nonsense") && reduced.lines().count() <= 1, "{text}: {reduced}");
            }
        }
    }
}
