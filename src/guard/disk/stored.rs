// SPDX-License-Identifier: MIT OR Apache-2.0
//! File systems of several block devices, and what udev knows to be on one.

use std::collections::BTreeMap;

use crate::host::Host;
use crate::sysfs::{Node, ReadError};

use crate::guard::mounts::read_text;

/// A partition for ZFS (`lib/libefi/rdwr_efi.c` of OpenZFS, `V_USR`).
const ZFS: &str = "6a898cc3-1dd2-11b2-99a6-080020736631";
/// UEFI specification, "EFI System Partition".
const EFI_SYSTEM: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// The types of partitions that mean something here.
pub const TELLING_PARTITIONS: [&str; 2] = [ZFS, EFI_SYSTEM];

/// A file system of one or more block devices, each known to the kernel by a number of its own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Volume {
    /// `btrfs` or `bcachefs`.
    pub fs_type: String,
    /// Its UUID.
    pub id: String,
    /// The kernel names of its devices.
    pub members: Vec<String>,
}

/// Those that are in use.
pub fn volumes(host: &Host) -> Result<Vec<Volume>, ReadError> {
    let mut volumes = Vec::new();
    let btrfs = Node::new(host.file_systems().join("btrfs"));
    for id in btrfs.names_in("")? {
        let members = btrfs.names_in(&format!("{id}/devices"))?;
        volumes.push(Volume { fs_type: "btrfs".into(), id, members });
    }
    let bcachefs = Node::new(host.file_systems().join("bcachefs"));
    for id in bcachefs.names_in("")? {
        let mut members = Vec::new();
        for device in bcachefs.names_in(&id)?.iter().filter(|name| name.starts_with("dev-")) {
            members.extend(bcachefs.link_name(&format!("{id}/{device}/block"))?);
        }
        volumes.push(Volume { fs_type: "bcachefs".into(), id, members });
    }
    volumes.retain(|volume| !volume.members.is_empty());
    Ok(volumes)
}

/// The imported ZFS pools, and whether a member of each is known. The kernel does not tell: udev does, and what is not imported
/// has no statistics.
pub fn pools(host: &Host) -> Result<BTreeMap<String, bool>, ReadError> {
    let node = Node::new(host.zfs_pools());
    let mut pools: BTreeMap<String, bool> = node.names_in("")?.into_iter().map(|name| (name, false)).collect();
    pools.retain(|name, _| node.path().join(name).is_dir());
    if pools.is_empty() {
        return Ok(pools);
    }
    let devices = Node::new(host.block_devices());
    for name in devices.names_in("")? {
        let number = devices.read_if_there(&format!("{name}/dev"))?;
        let properties = udev_properties(host, number.as_deref())?.unwrap_or_default();
        if let Some(is_known) = member_of(&properties).and_then(|pool| pools.get_mut(&pool)) {
            *is_known = true;
        }
    }
    Ok(pools)
}

/// Those of `pools` that a block device belongs to. What looks like a member without saying of which, as after something else
/// was on the disk, counts as one of each that has no other.
pub fn pools_of(host: &Host, pools: &BTreeMap<String, bool>, number: Option<&str>) -> Result<Vec<String>, ReadError> {
    if pools.is_empty() {
        return Ok(Vec::new());
    }
    let Some(properties) = udev_properties(host, number)? else { return Ok(Vec::new()) };
    if let Some(pool) = member_of(&properties) {
        return Ok(if pools.contains_key(&pool) { vec![pool] } else { Vec::new() });
    }
    let without_members = pools.iter().filter(|(_, is_known)| !**is_known).map(|(pool, _)| pool.clone());
    Ok(if may_be_member(&properties) { without_members.collect() } else { Vec::new() })
}

/// The pool that a member says it is of.
fn member_of(properties: &str) -> Option<String> {
    let label = || property(properties, "ID_FS_LABEL_ENC").or(property(properties, "ID_FS_LABEL"));
    (property(properties, "ID_FS_TYPE") == Some("zfs_member")).then(label).flatten().map(decoded)
}

/// Is it a partition for ZFS, or one that blkid takes for ZFS among others, with
/// nothing else known to be on it?
fn may_be_member(properties: &str) -> bool {
    match property(properties, "ID_FS_TYPE") {
        Some(fs_type) => fs_type == "zfs_member",
        None => {
            let is_ambivalent = property(properties, "ID_FS_AMBIVALENT").is_some_and(|all| all.contains("zfs_member"));
            is_ambivalent || property(properties, "ID_PART_ENTRY_TYPE") == Some(ZFS)
        }
    }
}

/// Is it the partition that the firmware boots from?
pub fn is_esp(host: &Host, number: Option<&str>) -> Result<bool, ReadError> {
    let properties = udev_properties(host, number)?;
    Ok(properties.is_some_and(|properties| property(&properties, "ID_PART_ENTRY_TYPE") == Some(EFI_SYSTEM)))
}

/// udev's database of a block device, as it is on disk.
fn udev_properties(host: &Host, number: Option<&str>) -> Result<Option<String>, ReadError> {
    let Some(number) = number else { return Ok(None) };
    match read_text(&host.udev_block_data(number)) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// A property in it: `E:NAME=VALUE`.
fn property<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix("E:")?.strip_prefix(name)?.strip_prefix('='))
}

/// A property of a uevent file: `NAME=VALUE`.
pub fn uevent<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// What udev wrote with `\x20` for a space and the like (`udev_util_encode_string`).
fn decoded(text: &str) -> String {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(&part.as_bytes()[2..]);
            }
            None => bytes.extend(format!("\\x{part}").bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties() {
        let text = "S:disk/by-id/x\nI:123\nE:ID_FS_TYPE=zfs_member\nE:ID_FS_LABEL_ENC=my\\x20pool\nG:systemd\n";
        for (name, expected) in [
            ("ID_FS_TYPE", Some("zfs_member")),
            ("ID_FS_LABEL_ENC", Some("my\\x20pool")),
            ("ID_FS", None),
            ("by", None),
        ] {
            assert_eq!(property(text, name), expected, "{name}");
        }
        let text = "MAJOR=259\nDEVNAME=cciss/c0d0\nDEVTYPE=disk\n";
        for (name, expected) in [("DEVNAME", Some("cciss/c0d0")), ("DEV", None), ("MINOR", None)] {
            assert_eq!(uevent(text, name), expected, "{name}");
        }
    }

    #[test]
    fn labels() {
        for (text, expected) in [("tank", "tank"), ("a\\x20b\\x2f", "a b/"), ("a\\xzz", "a\\xzz"), ("a\\x2", "a\\x2")] {
            assert_eq!(decoded(text), expected, "{text}");
        }
    }
}
