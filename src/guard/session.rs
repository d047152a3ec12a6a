// SPDX-License-Identifier: MIT OR Apache-2.0
//! The remote session of whoever asks: who takes its interface away is not there any more to put it back.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::below::Below;
use super::finding::{Finding, Use};
use super::going::Going;
use super::interfaces::{Interfaces, text};
use super::network::names;
use super::routes::connections;
use crate::host::Host;
use crate::processes;
use crate::sysfs::ReadError;

/// What sshd tells the programs it starts: the client's address and port, and its own (ssh(1)).
const SSH_CONNECTION: &str = "SSH_CONNECTION=";
/// Processes nested deeper than this are none that a person started.
const DEPTH: usize = 256;

/// Where somebody sits.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Session {
    /// Through what, in words.
    through: String,
    peer: IpAddr,
    local: Option<IpAddr>,
    /// The interface, where the address is told with it.
    zone: Option<String>,
}

/// Does the remote session in which the process `pid` runs, or another process that it descends from, come in by an
/// interface below the device?
///
/// sudo(8) leaves SSH_CONNECTION out of the environment, so those of all ancestors are looked at, and if none has it, whether
/// one is connected with another host, as sshd is. A program that starts us for somebody far away, like an agent that manages
/// hosts, is found by that as well. What a process may not read (another user's) is not found.
pub fn findings(host: &Host, pid: u32, below: &[Below], going: &Going<'_>) -> Result<Vec<Finding>, ReadError> {
    if names(below).next().is_none() {
        return Ok(Vec::new());
    }
    let ancestors = ancestors(host, pid);
    let session = match ancestors.iter().find_map(|&pid| told(host, pid)) {
        Some(session) => Some(session),
        None => connected(host, &ancestors)?,
    };
    let Some(session) = session else { return Ok(Vec::new()) };
    let interfaces = Interfaces::read(host, going)?;
    let Session { through, peer, local, zone } = &session;
    let ways = match zone {
        Some(zone) => vec![zone.as_str()],
        None => interfaces.ways_in(*local, *peer),
    };
    let mut findings = Vec::new();
    for name in names(below) {
        let mut how = Vec::new();
        for user in &ways {
            how.extend(interfaces.goes_through(user, name)?);
        }
        let how = match (ways.len(), how.first()) {
            (0, _) if interfaces.may_carry(name)? => format!("perhaps by {name}"),
            (1, Some(how)) => format!("by {how}"),
            (_, Some(how)) => format!("perhaps by {how}"),
            (_, None) => continue,
        };
        findings.push(Finding::new(Use::Session, format!("{through} (from {peer}) comes in {how}")));
    }
    Ok(findings)
}

/// The process itself, its parent, and so on.
fn ancestors(host: &Host, pid: u32) -> Vec<u32> {
    std::iter::successors(Some(pid), |&pid| processes::parent(host, pid)).take(DEPTH).collect()
}

/// What a process was told by sshd.
fn told(host: &Host, pid: u32) -> Option<Session> {
    let environment = fs::read(processes::directory(host, pid).join("environ")).ok()?;
    let variables = environment.split(|&byte| byte == 0);
    variables.filter_map(|variable| std::str::from_utf8(variable).ok()).find_map(|variable| {
        let value = variable.strip_prefix(SSH_CONNECTION)?;
        let mut fields = value.split(' ');
        let (peer, zone) = scoped(fields.next()?)?;
        let local = fields.nth(1).and_then(scoped);
        let (local, zone) = match local {
            Some((local, local_zone)) => (Some(local), local_zone.or(zone)),
            None => (None, zone),
        };
        Some(Session { through: "this SSH session".to_string(), peer, local, zone })
    })
}

/// `ADDRESS`, or `ADDRESS%INTERFACE` where it is of one link alone.
fn scoped(text: &str) -> Option<(IpAddr, Option<String>)> {
    let (address, zone) = match text.split_once('%') {
        Some((address, zone)) => (address, Some(zone.to_string())),
        None => (text, None),
    };
    Some((address.parse::<IpAddr>().ok()?.to_canonical(), zone))
}

/// The nearest of some processes that is connected with another host.
fn connected(host: &Host, pids: &[u32]) -> Result<Option<Session>, ReadError> {
    let mut table = None;
    for &pid in pids {
        let process = processes::directory(host, pid);
        let sockets = sockets(&process);
        if sockets.is_empty() {
            continue;
        }
        let connections = match &table {
            Some(known) => known,
            None => {
                let mut all = connections(&text(host.network_table("tcp"))?);
                all.extend(connections(&text(host.network_table("tcp6"))?));
                table.insert(all)
            }
        };
        let is_remote = |peer: IpAddr| !peer.is_loopback();
        let found = connections.iter().find(|c| sockets.contains(&c.inode) && is_remote(c.peer.ip()));
        if let Some(connection) = found {
            let command = processes::command(&process);
            let through = match command.starts_with("sshd") {
                true => "this SSH session".to_string(),
                false => format!("the connection of {command} (pid {pid}), which asks for this,"),
            };
            let (peer, local) = (connection.peer.ip(), Some(connection.local.ip()));
            return Ok(Some(Session { through, peer, local, zone: None }));
        }
    }
    Ok(None)
}

/// The sockets a process has open, by number.
fn sockets(process: &Path) -> Vec<u64> {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return Vec::new() };
    let links = descriptors.flatten().filter_map(|descriptor| fs::read_link(descriptor.path()).ok());
    links.filter_map(|link| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}
