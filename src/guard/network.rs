// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network interfaces that would go away with their device, and what depends on them.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::below::Below;
use super::finding::{Finding, Use};
use super::going::Going;
use super::interfaces::{Interfaces, OPEN_VSWITCH, is_up, text};
use super::mounts::mounts;
use super::routes;
use crate::address::Address;
use crate::host::Host;
use crate::processes;
use crate::sysfs::{Node, ReadError};

/// How many processes are named.
const NAMED: usize = 3;
/// How many things are listed: there can be hundreds of VLANs.
const LISTED: usize = 6;
/// File systems over the network that tell the server's address, as `addr=`.
const WITH_ADDRESS: [&str; 5] = ["nfs", "nfs4", "cifs", "smb3", "ncpfs"];

/// The interfaces that are among what is below a device.
pub fn names(below: &[Below]) -> impl Iterator<Item = &str> {
    below.iter().filter(|below| below.subsystem == "net").map(|below| below.name.as_str())
}

/// How the interfaces below a device are used.
pub fn findings(host: &Host, device: Address, below: &[Below], going: &Going<'_>) -> Result<Vec<Finding>, ReadError> {
    let mut findings: Vec<Finding> = elsewhere(host, device, below).into_iter().collect();
    if names(below).next().is_some() {
        let interfaces = Interfaces::read(host, going)?;
        for name in names(below) {
            findings.extend(use_of(host, &interfaces, name)?);
            findings.extend(file_systems(host, &interfaces, name)?);
        }
    }
    Ok(findings)
}

/// Does the root file system come by the interfaces below a device?
pub fn is_root_by(host: &Host, below: &[Below], going: &Going<'_>) -> Result<bool, ReadError> {
    if names(below).next().is_none() {
        return Ok(false);
    }
    let interfaces = Interfaces::read(host, going)?;
    for name in names(below) {
        if file_systems(host, &interfaces, name)?.iter().any(|finding| finding.used_as == Use::RootDisk) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How an interface is used. One that is down is not, nor one that is up and nothing else.
fn use_of(host: &Host, interfaces: &Interfaces, name: &str) -> Result<Option<Finding>, ReadError> {
    if !interfaces.is_up(name)? {
        return Ok(None);
    }
    let mut reasons = Vec::new();
    let belongings = interfaces.belongings(name);
    if !belongings.is_empty() {
        reasons.push(format!("has {}", listed(&belongings)));
    }
    let mut has_default = interfaces.has_default_route(name);
    let mut leave = None;
    for upper in interfaces.all_above(name)? {
        let mut reason = match upper.as_str() {
            OPEN_VSWITCH => "is a port of Open vSwitch".to_string(),
            _ => format!("is part of {}", with_kind(interfaces, &upper)),
        };
        let others = interfaces.carry_on(&upper, name)?;
        let belongings = interfaces.belongings(&upper);
        if !belongings.is_empty() {
            reason = format!("{reason}, which has {}", listed(&belongings));
        }
        if others.is_empty() {
            has_default |= interfaces.has_default_route(&upper);
        } else {
            // What is further up is carried by these as well.
            reason = format!("{reason} and still has {}", listed(&others));
            leave = Some(["ip", "link", "set", "dev", name, "nomaster"]);
        }
        reasons.push(reason);
        if leave.is_some() {
            break;
        }
    }
    if reasons.is_empty() {
        reasons.extend(listeners(host, interfaces, name)?);
    }
    if reasons.is_empty() && interfaces.has_carrier(name)? && has_carried(interfaces, name)? {
        reasons.push("has carried packets".to_string());
    }
    if reasons.is_empty() {
        return Ok(None);
    }
    let finding = Finding::new(Use::Network, format!("network interface {name} is up and {}", listed(&reasons)));
    // Nobody is told to cut the host off.
    let mend = leave.or((!has_default).then_some(["ip", "link", "set", "dev", name, "down"]));
    // What cannot be quoted is a NUL byte, and names have none.
    Ok(Some(match mend.and_then(|words| shlex::try_join(words).ok()) {
        Some(command) => finding.mended_by(command),
        None => finding,
    }))
}

fn with_kind(interfaces: &Interfaces, name: &str) -> String {
    let is_bridge = interfaces.node(name).path().join("bridge").is_dir();
    match interfaces.is_bond(name) {
        true => format!("bond {name}"),
        false if is_bridge => format!("bridge {name}"),
        false => name.to_string(),
    }
}

/// Who gets the interface's packets as they come, without an address: packet(7).
fn listeners(host: &Host, interfaces: &Interfaces, name: &str) -> Result<Option<String>, ReadError> {
    let index = interfaces.node(name).read_if_there("ifindex")?.and_then(|text| text.parse().ok());
    let sockets = routes::packet_sockets(&text(host.network_table("packet"))?);
    let sockets: Vec<String> = sockets
        .into_iter()
        .filter(|(interface, _)| Some(*interface) == index)
        .map(|(_, inode)| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return Ok(None);
    }
    let openers = processes::openers(host, |target| sockets.iter().any(|socket| target == Path::new(socket)));
    let mut readers: Vec<String> =
        openers.iter().take(NAMED).map(|opener| format!("{} (pid {})", opener.command, opener.pid)).collect();
    readers.dedup();
    Ok(Some(match readers.is_empty() {
        true => "has a packet socket".to_string(),
        false => format!("has a packet socket of {}", listed(&readers)),
    }))
}

fn has_carried(interfaces: &Interfaces, name: &str) -> Result<bool, ReadError> {
    for direction in ["rx_packets", "tx_packets"] {
        let count = interfaces.node(name).read_if_there(&format!("statistics/{direction}"))?;
        if count.is_some_and(|count| count != "0") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// sysfs shows the interfaces of the reader's own network namespace (`net/core/net-sysfs.c`, `net_ns_type_operations`): the
/// directory of the others is there, and empty.
fn elsewhere(host: &Host, device: Address, below: &[Below]) -> Option<Finding> {
    let others = below.iter().filter(|below| below.subsystem != "net").map(|below| below.path.clone());
    let is_empty = |directory: &Path| fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none());
    if ![host.device(device)].into_iter().chain(others).any(|path| is_empty(&path.join("net"))) {
        return None;
    }
    let owners = namespaces(host);
    let whose = match owners.is_empty() {
        true => String::new(),
        false => format!(", perhaps that of {}", owners.into_iter().take(NAMED).collect::<Vec<_>>().join(" or ")),
    };
    Some(Finding::new(Use::Network, format!("its network interface is in another network namespace{whose}")))
}

/// The other network namespaces that processes are in, each by the first process there.
fn namespaces(host: &Host) -> Vec<String> {
    let of = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    let Some(ours) = of(&host.processes().join("self")) else { return Vec::new() };
    let mut seen = vec![ours];
    let mut owners = Vec::new();
    for (pid, process) in processes::all(host) {
        if let Some(namespace) = of(&process).filter(|namespace| !seen.contains(namespace)) {
            owners.push(format!("{} (pid {pid})", processes::command(&process)));
            seen.push(namespace);
        }
    }
    owners
}

/// File systems that come over the network through an interface.
fn file_systems(host: &Host, interfaces: &Interfaces, name: &str) -> Result<Vec<Finding>, ReadError> {
    let mut findings = Vec::new();
    for mount in mounts(&text(host.mounts())?) {
        let kind = mount.fs_type.as_str();
        let server = mount.option("addr").filter(|_| WITH_ADDRESS.contains(&kind)).and_then(|addr| addr.parse().ok());
        let Some((server, user)) = server.and_then(|server: IpAddr| Some((server, interfaces.way(server)?))) else {
            continue;
        };
        if let Some(how) = interfaces.goes_through(user, name)? {
            let used_as = if mount.point == Path::new("/") { Use::RootDisk } else { Use::Disk };
            let at = mount.point.display();
            findings.push(Finding::new(used_as, format!("{kind} file system on {at} comes from {server} by {how}")));
        }
    }
    Ok(findings)
}

fn listed(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [first @ .., _] if words.len() > LISTED => {
            format!("{} and {} more", first[..LISTED - 1].join(", "), words.len() + 1 - LISTED)
        }
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// How a device is in use as a network interface, in words for each; none where its interfaces are down.
pub fn interfaces_in_use(host: &Host, device: Address) -> Result<Vec<String>, ReadError> {
    let node = Node::new(host.device(device));
    let names = node.names_in("net")?;
    // sysfs shows the interfaces of the reader's own network namespace (`net/core/net-sysfs.c`, `net_ns_type_operations`).
    if names.is_empty() && node.path().join("net").is_dir() {
        return Ok(vec!["its network interface is in another network namespace".to_string()]);
    }
    let mut uses = Vec::new();
    for name in names {
        if is_up(&Node::new(node.path().join("net").join(&name)))? {
            uses.push(format!("network interface {name} is up"));
        }
    }
    Ok(uses)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_up_and_what_is_elsewhere() {
        for (interfaces, expected) in [
            (None, &[][..]),
            (Some(&[("eth0", "0x1002")][..]), &[]),
            (Some(&[("eth0", "0x1003"), ("eth1", "0x1002")]), &["network interface eth0 is up"]),
            (Some(&[]), &["its network interface is in another network namespace"]),
        ] {
            let root = tempfile::tempdir().unwrap();
            let host = Host::new(root.path(), None).unwrap();
            let vf = "0000:3b:00.1".parse().unwrap();
            fs::create_dir_all(host.device(vf)).unwrap();
            for (name, flags) in interfaces.into_iter().flatten() {
                fs::create_dir_all(host.device(vf).join("net").join(name)).unwrap();
                fs::write(host.device(vf).join("net").join(name).join("flags"), format!("{flags}\n")).unwrap();
            }
            if interfaces.is_some() {
                fs::create_dir_all(host.device(vf).join("net")).unwrap();
            }
            assert_eq!(interfaces_in_use(&host, vf).unwrap(), expected, "{interfaces:?}");
        }
    }
}
