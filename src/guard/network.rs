// SPDX-License-Identifier: MIT OR Apache-2.0
//! Network interfaces that would go away with their device.

use crate::address::Address;
use crate::host::Host;
use crate::sysfs::{Node, ReadError};

/// `IFF_UP` (netdevice(7)).
const UP: u32 = 1;

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
        let flags = node.read_if_there(&format!("net/{name}/flags"))?;
        let flags = flags.and_then(|text| u32::from_str_radix(text.trim_start_matches("0x"), 16).ok());
        if flags.is_some_and(|flags| flags & UP != 0) {
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
