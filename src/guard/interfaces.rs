// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network interfaces of our namespace, how they are stacked, and what leads through them.
//!
//! Of their attributes only those are read that wait for no lock: `carrier`, `speed` and all of `bonding/` take the one that a
//! stuck driver may hold (`net/core/net-sysfs.c`), `flags`, `operstate`, `ifindex` and the links do not.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use super::going::Going;
use super::network::names;
use super::routes::{self, Route};
use crate::host::Host;
use crate::sysfs::{Node, ReadError};

/// `IFF_UP` (netdevice(7)).
const UP: u32 = 1;
/// Open vSwitch's datapath, the master of all its ports (`net/openvswitch/vport-netdev.c`).
pub const OPEN_VSWITCH: &str = "ovs-system";

/// Has the interface with this directory been set up?
pub fn is_up(interface: &Node) -> Result<bool, ReadError> {
    let flags = interface.read_if_there("flags")?;
    let flags = flags.and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok());
    Ok(flags.is_some_and(|flags| flags & UP != 0))
}

/// Is it up, and is the other end there? Some drivers do not tell.
pub fn has_carrier(interface: &Node) -> Result<bool, ReadError> {
    let state = interface.read_if_there("operstate")?;
    Ok(is_up(interface)? && matches!(state.as_deref(), Some("up" | "unknown")))
}

/// All that is known of them before one is asked about.
#[derive(Debug)]
pub struct Interfaces<'a> {
    host: &'a Host,
    going: &'a Going<'a>,
    /// Where they lead.
    pub routes: Vec<Route>,
    /// IPv6 addresses, but for those of a link alone.
    addresses: Vec<(String, IpAddr)>,
}

impl<'a> Interfaces<'a> {
    /// Reads routes and addresses.
    pub fn read(host: &'a Host, going: &'a Going<'a>) -> Result<Interfaces<'a>, ReadError> {
        let table = |name| text(host.network_table(name));
        let mut routes = routes::ipv4_routes(&table("route")?);
        routes.extend(routes::ipv6_routes(&table("ipv6_route")?));
        let addresses = routes::ipv6_addresses(&table("if_inet6")?);
        let addresses = addresses.into_iter().map(|(name, address)| (name, address.into())).collect();
        Ok(Interfaces { host, going, routes, addresses })
    }

    /// An interface's attributes.
    pub fn node(&self, name: &str) -> Node {
        Node::new(self.host.class("net").join(name))
    }

    /// Has it been set up?
    pub fn is_up(&self, name: &str) -> Result<bool, ReadError> {
        is_up(&self.node(name))
    }

    /// Has one a carrier?
    pub fn has_carrier(&self, name: &str) -> Result<bool, ReadError> {
        has_carrier(&self.node(name))
    }

    /// Is it made of software alone?
    pub fn is_virtual(&self, name: &str) -> bool {
        let node = self.node(name);
        node.path().is_dir() && !node.path().join("device").exists()
    }

    /// What has it as a part, directly: bridges, bonds, VLANs and the like.
    fn uppers(&self, name: &str) -> Result<Vec<String>, ReadError> {
        let node = self.node(name);
        let mut uppers: Vec<String> = node.link_name("master")?.into_iter().collect();
        for upper in stacked(&node, "upper_")? {
            if !uppers.contains(&upper) {
                uppers.push(upper);
            }
        }
        Ok(uppers)
    }

    /// What it has as parts, directly.
    fn lowers(&self, name: &str) -> Result<Vec<String>, ReadError> {
        stacked(&self.node(name), "lower_")
    }

    /// All that is made of it, the nearest first.
    pub fn all_above(&self, name: &str) -> Result<Vec<String>, ReadError> {
        closure(name, |name| self.uppers(name))
    }

    /// Does a default route lead through it?
    pub fn has_default_route(&self, name: &str) -> bool {
        self.routes.iter().any(|route| route.is_default() && route.interface == name)
    }

    /// Is it a bond?
    pub fn is_bond(&self, name: &str) -> bool {
        self.node(name).path().join("bonding").is_dir()
    }

    /// The other parts of a bond that would carry on without `part` and what goes together with it; none if it is no bond.
    pub fn carry_on(&self, bond: &str, part: &str) -> Result<Vec<String>, ReadError> {
        let mut others = Vec::new();
        if self.is_bond(bond) {
            let above = self.all_above(part)?;
            for lower in self.lowers(bond)? {
                if lower != part && !above.contains(&lower) && self.has_carrier(&lower)? {
                    others.push(lower);
                }
            }
        }
        if !others.is_empty() {
            for going in names(self.going.below()?) {
                let above = self.all_above(going)?;
                others.retain(|other| other != going && !above.contains(other));
            }
        }
        Ok(others)
    }

    /// Would `upper` be lost with its `part`, and no bond between them carry on? `above` is all that is made of the part.
    fn is_lost(&self, upper: &str, part: &str, above: &[String]) -> Result<bool, ReadError> {
        for bond in above {
            let is_between = bond == upper || self.all_above(bond)?.iter().any(|name| name == upper);
            if is_between && !self.carry_on(bond, part)?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What it has of routes and addresses, in words; nothing that every interface has.
    pub fn belongings(&self, name: &str) -> Vec<String> {
        let ours = || self.routes.iter().filter(|route| route.interface == name);
        let addresses: Vec<IpAddr> =
            self.addresses.iter().filter(|(interface, _)| interface == name).map(|(_, address)| *address).collect();
        let mut words = Vec::new();
        if self.has_default_route(name) {
            let is_only = self.routes.iter().all(|route| !route.is_default() || route.interface == name);
            words.push(format!("{} default route", if is_only { "the" } else { "a" }));
        }
        words.extend(first_of("the address", addresses.iter().map(IpAddr::to_string)));
        // The network of an address that was named says nothing more.
        let is_said = |route: &Route| {
            addresses.iter().any(|&address| routes::route_to(std::slice::from_ref(route), address).is_some())
        };
        let further = ours().filter(|route| !route.is_default() && !route.is_of_link() && !is_said(route));
        words.extend(first_of("a route to", further.map(|route| format!("{}/{}", route.network, route.prefix))));
        words
    }

    /// By which interface packets to `peer` leave.
    pub fn way(&self, peer: IpAddr) -> Option<&str> {
        match peer.is_loopback() {
            true => Some("lo"),
            false => routes::route_to(&self.routes, peer).map(|route| route.interface.as_str()),
        }
    }

    /// By which interfaces packets from `peer` for our own address `local` may come in; none where that cannot be told, as with
    /// routes in other tables.
    pub fn ways_in(&self, local: Option<IpAddr>, peer: IpAddr) -> Vec<&str> {
        let has = |local: IpAddr| self.addresses.iter().find(|(_, address)| *address == local);
        if let Some((name, _)) = local.and_then(has) {
            return vec![name];
        }
        // The network of a local address is that of its interface, or of several.
        let near = local.filter(|_| !peer.is_loopback()).map(|local| routes::interfaces_near(&self.routes, local));
        near.filter(|near| !near.is_empty()).unwrap_or_else(|| self.way(peer).into_iter().collect())
    }

    /// Is it up, and is it in no bond that would carry on without it?
    pub fn may_carry(&self, part: &str) -> Result<bool, ReadError> {
        let Some(bond) = self.all_above(part)?.into_iter().find(|upper| self.is_bond(upper)) else {
            return self.is_up(part);
        };
        Ok(self.is_up(part)? && self.carry_on(&bond, part)?.is_empty())
    }

    /// Would what goes by the interface `user` be lost with `part`, as far as can be told? In words how it goes.
    pub fn goes_through(&self, user: &str, part: &str) -> Result<Option<String>, ReadError> {
        if !self.is_up(part)? {
            return Ok(None);
        }
        if user == part {
            return Ok(Some(user.to_string()));
        }
        let above = self.all_above(part)?;
        if above.iter().any(|upper| upper == user) {
            let is_lost = self.is_lost(user, part, &above)?;
            return Ok(is_lost.then(|| format!("{user}, which {part} is part of")));
        }
        // A tunnel, a switch's port, or ourselves: what carries it is not linked to it.
        if self.is_virtual(user) && self.lowers(user)?.is_empty() {
            let mut carries = self.has_default_route(part) || above.iter().any(|upper| upper == OPEN_VSWITCH);
            for upper in above.iter().filter(|upper| self.has_default_route(upper)) {
                carries |= self.is_lost(upper, part, &above)?;
            }
            return Ok(carries.then(|| format!("{user}, and that perhaps by {part}")));
        }
        Ok(None)
    }
}

/// A file of /proc; empty where it is not there, as without IPv6.
pub fn text(path: PathBuf) -> Result<String, ReadError> {
    match fs::read(&path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(ReadError { path, source }),
    }
}

fn stacked(node: &Node, prefix: &str) -> Result<Vec<String>, ReadError> {
    let names = node.names_in("")?;
    Ok(names.iter().filter_map(|name| name.strip_prefix(prefix)).map(str::to_string).collect())
}

fn closure(start: &str, next: impl Fn(&str) -> Result<Vec<String>, ReadError>) -> Result<Vec<String>, ReadError> {
    let mut found = vec![start.to_string()];
    let mut at = 0;
    while let Some(name) = found.get(at).cloned() {
        for name in next(&name)? {
            if !found.contains(&name) {
                found.push(name);
            }
        }
        at += 1;
    }
    Ok(found.split_off(1))
}

fn first_of(what: &str, mut things: impl Iterator<Item = String>) -> Option<String> {
    let first = things.next()?;
    Some(match things.count() {
        0 => format!("{what} {first}"),
        more => format!("{what} {first} and {more} more"),
    })
}
