// SPDX-License-Identifier: MIT OR Apache-2.0
//! Addresses, routes and connections, out of `/proc/net`.
//!
//! netlink says more, but a dump of it waits for the lock that a stuck network driver holds (`net/core/rtnetlink.c`); these
//! files are read without. What they do not show: IPv4 addresses as such (the routes to their networks stand for them), IPv4
//! routes in other tables than `main`, and of an IPv4 route over several interfaces all but the first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `RTF_UP` and `RTF_REJECT` (`include/uapi/linux/route.h`, `ipv6_route.h`).
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;
/// `RTF_LOCAL` (`include/uapi/linux/ipv6_route.h`): not a route but an address of ours.
const LOCAL: u32 = 0x8000_0000;
/// `IPV6_ADDR_LINKLOCAL` (`include/net/ipv6.h`).
const LINK_LOCAL: u32 = 0x20;
/// `TCP_ESTABLISHED` (`include/net/tcp_states.h`).
const ESTABLISHED: &str = "01";

/// A way to a network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Route {
    /// By which interface.
    pub interface: String,
    /// The network.
    pub network: IpAddr,
    /// The bits of `network` that count.
    pub prefix: u32,
    /// Of two that lead to the same network the lower one is taken.
    pub metric: u32,
}

impl Route {
    /// Does it lead wherever no other does?
    pub fn is_default(&self) -> bool {
        self.prefix == 0
    }

    /// Is it one that every interface may have without being used?
    pub fn is_of_link(&self) -> bool {
        match self.network {
            IpAddr::V4(network) => network.is_link_local() || network.is_multicast(),
            IpAddr::V6(network) => network.is_unicast_link_local() || network.is_multicast(),
        }
    }

    fn leads_to(&self, address: IpAddr) -> bool {
        let (network, address, bits) = match (self.network, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => (network.to_bits().into(), address.to_bits().into(), 32),
            (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
            _ => return false,
        };
        let differs: u128 = network ^ address;
        differs.checked_shr(bits - self.prefix.min(bits)).unwrap_or(0) == 0
    }
}

/// The route that is taken to an address, of one kernel's `routes`.
pub fn route_to(routes: &[Route], address: IpAddr) -> Option<&Route> {
    let leading = routes.iter().filter(|route| route.leads_to(address));
    // Of equal ones the first.
    leading.min_by_key(|route| (std::cmp::Reverse(route.prefix), route.metric))
}

/// The interfaces on the network of an address of ours: several may be on one, and only the nearest networks count.
pub fn interfaces_near(routes: &[Route], address: IpAddr) -> Vec<&str> {
    let leading = || routes.iter().filter(|route| !route.is_default() && route.leads_to(address));
    let nearest = leading().map(|route| route.prefix).max();
    let mut interfaces: Vec<&str> =
        leading().filter(|route| Some(route.prefix) == nearest).map(|route| route.interface.as_str()).collect();
    interfaces.sort_unstable();
    interfaces.dedup();
    interfaces
}

/// `/proc/net/route`: table `main` (`net/ipv4/fib_trie.c`, `fib_route_seq_show`). Lines that are none are left out.
pub fn ipv4_routes(text: &str) -> Vec<Route> {
    let route = |line: &str| -> Option<Route> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [interface, network, _, flags, _, _, metric, mask, ..] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_way = flags & UP != 0 && flags & REJECT == 0 && interface != "*";
        is_way.then_some(Route {
            interface: interface.to_string(),
            network: ipv4(network)?.into(),
            prefix: ipv4(mask)?.to_bits().count_ones(),
            metric: metric.parse().ok()?,
        })
    };
    text.lines().filter_map(route).collect()
}

/// `/proc/net/ipv6_route`: all tables (`net/ipv6/route.c`, `rt6_fill_node`), without what is an address of ours.
pub fn ipv6_routes(text: &str) -> Vec<Route> {
    let route = |line: &str| -> Option<Route> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [network, prefix, _, _, _, metric, _, _, flags, interface] = fields[..] else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_way = flags & UP != 0 && flags & (REJECT | LOCAL) == 0;
        is_way.then_some(Route {
            interface: interface.to_string(),
            network: ipv6(network)?.into(),
            prefix: u32::from_str_radix(prefix, 16).ok()?,
            metric: u32::from_str_radix(metric, 16).ok()?,
        })
    };
    text.lines().filter_map(route).collect()
}

/// `/proc/net/if_inet6`: interfaces and their addresses, but for those of the link alone (`net/ipv6/addrconf.c`,
/// `if6_seq_show`).
pub fn ipv6_addresses(text: &str) -> Vec<(String, Ipv6Addr)> {
    let address = |line: &str| -> Option<(String, Ipv6Addr)> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, _, scope, _, interface] = fields[..] else { return None };
        (u32::from_str_radix(scope, 16).ok()? != LINK_LOCAL).then_some((interface.to_string(), ipv6(address)?))
    };
    text.lines().filter_map(address).collect()
}

/// A connection of ours.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Connection {
    /// Our end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
    /// The socket's number.
    pub inode: u64,
}

/// `/proc/net/tcp` or `tcp6`: what is connected (`net/ipv4/tcp_ipv4.c`, `get_tcp4_sock`). IPv4 over an IPv6 socket is IPv4.
pub fn connections(text: &str) -> Vec<Connection> {
    let connection = |line: &str| -> Option<Connection> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, peer, ESTABLISHED, _, _, _, _, _, inode, ..] = fields[..] else { return None };
        Some(Connection { local: socket(local)?, peer: socket(peer)?, inode: inode.parse().ok()? })
    };
    text.lines().filter_map(connection).collect()
}

/// `/proc/net/packet`: the numbers of interfaces and of the sockets that get their packets as they come
/// (`net/packet/af_packet.c`, `packet_seq_show`).
pub fn packet_sockets(text: &str) -> Vec<(u32, u64)> {
    let socket = |line: &str| -> Option<(u32, u64)> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, _, _, interface, _, _, _, inode] = fields[..] else { return None };
        Some((interface.parse().ok()?, inode.parse().ok()?))
    };
    text.lines().filter_map(socket).collect()
}

/// As the bytes lie in memory, read as one number.
fn ipv4(hex: &str) -> Option<Ipv4Addr> {
    u32::from_str_radix(hex, 16).ok().map(|word| Ipv4Addr::from(word.to_ne_bytes()))
}

/// As it is sent.
fn ipv6(hex: &str) -> Option<Ipv6Addr> {
    u128::from_str_radix(hex, 16).ok().filter(|_| hex.len() == 32).map(Ipv6Addr::from_bits)
}

/// Four words, each as its bytes lie in memory; or one.
fn socket(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let address = match address.len() {
        8 => ipv4(address)?.into(),
        32 if address.is_ascii() => {
            let mut bytes = [0; 16];
            for (place, at) in bytes.chunks_exact_mut(4).zip((0..32).step_by(8)) {
                place.copy_from_slice(&ipv4(&address[at..at + 8])?.octets());
            }
            IpAddr::from(bytes).to_canonical()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const ROUTE: &str = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
eth0	00000000	010200C0	0003	0	0	100	00000000	0	0	0
eth1	00000000	016433C6	0003	0	0	200	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0
eth1	006433C6	00000000	0001	0	0	0	00FFFFFF	0	0	0
eth1	0000FEA9	00000000	0001	0	0	1000	0000FFFF	0	0	0
*	000000CB	00000000	0201	0	0	0	000000FF	0	0	0
eth2	0A0200C0	00000000	0000	0	0	0	FFFFFFFF	0	0	0
eth3	half
";

    const ROUTE6: &str = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000002 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000003 00000000 00000003     eth0
fd000000000000000000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000000 00000004 00000000 80200001     eth0
ff000000000000000000000000000000 08 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000003 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    #[test]
    fn routes() {
        let shown = |routes: &[Route]| -> Vec<String> {
            let line = |route: &Route| {
                let of_link = if route.is_of_link() { " link" } else { "" };
                format!("{}/{} {} {}{of_link}", route.network, route.prefix, route.interface, route.metric)
            };
            routes.iter().map(line).collect()
        };
        let expected = [
            "0.0.0.0/0 eth0 100",
            "0.0.0.0/0 eth1 200",
            "192.0.2.0/24 eth0 0",
            "198.51.100.0/24 eth1 0",
            "169.254.0.0/16 eth1 1000 link",
        ];
        assert_eq!(shown(&ipv4_routes(ROUTE)), expected);
        let expected = ["fd00::/64 eth0 256", "fe80::/64 eth0 256 link", "::/0 eth0 1024", "ff00::/8 eth0 256 link"];
        assert_eq!(shown(&ipv6_routes(ROUTE6)), expected);
        assert!(ipv4_routes("").is_empty() && ipv6_routes("\n\n").is_empty());
    }

    #[test]
    fn which_way() {
        let routes = [ipv4_routes(ROUTE), ipv6_routes(ROUTE6)].concat();
        for (to, interface) in [
            ("192.0.2.7", "eth0"),
            ("198.51.100.1", "eth1"),
            ("169.254.1.1", "eth1"),
            // Two defaults: by the metric.
            ("203.0.113.1", "eth0"),
            ("fd00::9", "eth0"),
            ("2001:db8::1", "eth0"),
        ] {
            let route = route_to(&routes, to.parse().unwrap());
            assert_eq!(route.map(|route| route.interface.as_str()), Some(interface), "{to}");
        }
        assert_eq!(route_to(&ipv4_routes(ROUTE), "fd00::9".parse().unwrap()), None);
        let host = Route { prefix: 32, network: "192.0.2.7".parse().unwrap(), ..routes[1].clone() };
        let routes = [routes, vec![host]].concat();
        assert_eq!(route_to(&routes, "192.0.2.7".parse().unwrap()).unwrap().interface, "eth1");
        assert_eq!(route_to(&routes, "192.0.2.6".parse().unwrap()).unwrap().interface, "eth0");
    }

    #[test]
    fn addresses() {
        let text = "\
00000000000000000000000000000001 01 80 10 80       lo
fd000000000000000000000000000002 04 40 00 82     eth0
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
fd00 04 40 00 82     eth1
";
        let expected = [("lo".to_string(), Ipv6Addr::LOCALHOST), ("eth0".to_string(), "fd00::2".parse().unwrap())];
        assert_eq!(ipv6_addresses(text), expected);
    }

    #[test]
    fn what_is_connected() {
        let text = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7001 1 0000000000000000 100 0
   1: 020200C0:0016 070200C0:C350 01 00000000:00000000 02:000A0000 00000000     0        0 7002 4 0000000000000000 20 4
   2: 0000000000000000FFFF0000020200C0:0016 0000000000000000FFFF0000080200C0:C351 01 0:0 0:0 0 0 0 7003 1 0 20
   3: 000000FD000000000000000002000000:0016 B80D0120000000000000000001000000:C352 01 0:0 0:0 0 0 0 7004 1 0 20
   4: 020200C0:0016 070200C0 01 0:0 0:0 0 0 0 7005
";
        let found = connections(text);
        let found: Vec<String> = found.iter().map(|c| format!("{} {} {}", c.local, c.peer, c.inode)).collect();
        assert_eq!(
            found,
            [
                "192.0.2.2:22 192.0.2.7:50000 7002",
                "192.0.2.2:22 192.0.2.8:50001 7003",
                "[fd00::2]:22 [2001:db8::1]:50002 7004",
            ]
        );
        let text = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode
ffff8f3a0a4a7000 3      3    0003   2     1 0      0      31337
";
        assert_eq!(packet_sockets(text), [(2, 31337)]);
    }
}
