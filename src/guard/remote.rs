// SPDX-License-Identifier: MIT OR Apache-2.0
//! Disks of other hosts: they hang off the interface that leads there as if they were below its device.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::below::{Below, under};
use super::going::Going;
use super::interfaces::Interfaces;
use super::network::names;
use super::patient;
use crate::host::Host;
use crate::sysfs::{Node, ReadError};

/// The disks that come by the interfaces below a device: of iSCSI, and of NVMe over TCP or RDMA where there is no other path.
pub fn disks(host: &Host, below: &[Below], going: &Going<'_>) -> Result<Vec<Below>, ReadError> {
    let mut disks = Vec::new();
    if names(below).next().is_none() {
        return Ok(disks);
    }
    let mut servers = iscsi(host)?;
    servers.extend(nvme(host)?);
    if servers.is_empty() {
        return Ok(disks);
    }
    let interfaces = Interfaces::read(host, going)?;
    for (server, directory) in servers {
        let Some(user) = interfaces.way(server) else { continue };
        for name in names(below) {
            if interfaces.goes_through(user, name)?.is_some() {
                disks.extend(under(&directory)?);
            }
        }
    }
    Ok(disks)
}

/// Sessions: the target's address as it was given (`drivers/scsi/scsi_transport_iscsi.c`; `address` asks the socket), and the
/// directory that the disks are in.
fn iscsi(host: &Host) -> Result<Vec<(IpAddr, PathBuf)>, ReadError> {
    let mut sessions = Vec::new();
    for connection in Node::new(host.class("iscsi_connection")).names_in("")? {
        let node = Node::new(host.class("iscsi_connection").join(connection));
        let Some(server) = node.read_if_there("persistent_address")?.and_then(|text| text.parse().ok()) else {
            continue;
        };
        // It may end at any moment.
        let Ok(path) = fs::canonicalize(node.path()) else { continue };
        let is_session = |path: &&Path| {
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("session"))
        };
        sessions.extend(path.ancestors().find(is_session).map(|session| (server, session.to_path_buf())));
    }
    Ok(sessions)
}

/// Controllers: the subsystem's address, and the directory that the disks are in (`drivers/nvme/host/multipath.c`: the
/// subsystem's, where a disk may have several paths).
fn nvme(host: &Host) -> Result<Vec<(IpAddr, PathBuf)>, ReadError> {
    let mut controllers = Vec::new();
    for name in Node::new(host.class("nvme")).names_in("")? {
        let node = Node::new(host.class("nvme").join(&name));
        if !matches!(node.read_if_there("transport")?.as_deref(), Some("tcp" | "rdma")) {
            continue;
        }
        // It waits for the controller's queue (`drivers/nvme/host/tcp.c`, `nvme_tcp_get_address`).
        let address = patient::read(host, &node, "address")?.unwrap_or_default();
        let server = address.split(',').find_map(|part| part.strip_prefix("traddr="));
        let Some(server) = server.and_then(|text| text.parse().ok()) else { continue };
        controllers.extend(fs::canonicalize(node.path()).map(|path| (server, path)));
        for subsystem in Node::new(host.class("nvme-subsystem")).names_in("")? {
            let links = Node::new(host.class("nvme-subsystem").join(&subsystem)).names_in("")?;
            let number = |link: &&String| link.strip_prefix("nvme").is_some_and(|rest| rest.parse::<u32>().is_ok());
            if links.iter().filter(number).eq([&name]) {
                let path = fs::canonicalize(host.class("nvme-subsystem").join(subsystem));
                controllers.extend(path.map(|path| (server, path)));
            }
        }
    }
    Ok(controllers)
}
