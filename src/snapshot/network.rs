// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tables of `/proc/net`, in which addresses are hex digits: what is read of them, masked. Lines that are none stay out.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::mask::Mask;

/// The tables, and what is left of each.
pub const TABLES: [(&str, fn(&str, &mut Mask) -> String); 4] =
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
