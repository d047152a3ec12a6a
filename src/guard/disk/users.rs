// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who uses the affected devices: mounts, swap, pools, targets and processes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::layers::{Affected, Harm, Kind, Layers};
use super::stored::{is_esp, uevent};
use crate::guard::below::Below;
use crate::guard::finding::Use;
use crate::guard::mounts::{Mount, Namespace, read_text, swaps};
use crate::processes::{is_ours, number, openers_of};
use crate::sysfs::{Node, ReadError};

/// What the running system lives on. It cannot be unmounted.
const SYSTEM: [&str; 7] = ["/", "/usr", "/etc", "/var", "/nix", "/nix/store", "/sysroot"];

/// Of those, what the root file system is, or what it is made of: the others a container may have as volumes.
const ROOT: [&str; 5] = ["/", "/usr", "/nix", "/nix/store", "/sysroot"];

/// What it boots from.
const BOOT: [&str; 4] = ["/boot", "/boot/efi", "/boot/firmware", "/efi"];

/// Other nodes of disks: of controllers, and for SCSI and NVMe commands of all kinds.
const NODES: [&str; 4] = ["bsg", "nvme", "nvme-generic", "scsi_generic"];

/// They look at every disk that changes, for a moment, and close it.
const LOOKERS: [&str; 3] = ["systemd-udevd", "(udev-worker)", "udevd"];

/// So many processes are named, each with what it has open.
const MOST_PROCESSES: usize = 8;

/// A user of an affected device.
#[derive(Clone, Debug)]
pub struct User {
    /// The device; of a node that is not a block device's, none.
    pub device: Option<String>,
    /// As what it is used.
    pub used_as: Use,
    /// All there is to say.
    pub sentence: String,
    /// What ends it.
    pub mend: Option<String>,
    /// Is it a file system that is mounted in a namespace of our own?
    pub is_mounted: bool,
}

impl User {
    fn new(device: &str, used_as: Use, sentence: String) -> User {
        User { device: Some(device.to_string()), used_as, sentence, mend: None, is_mounted: false }
    }

    fn mended_by(self, words: &[&str]) -> User {
        User { mend: command(words), ..self }
    }
}

/// All users but the layers themselves.
pub fn users(layers: &Layers, below: &[Below]) -> Result<Vec<User>, ReadError> {
    let mut users = mounted(layers)?;
    users.extend(swapping(layers)?);
    users.extend(layers.pools.iter().filter(|(pool, _)| !is_mounted(layers, pool)).map(|(pool, device)| {
        let sentence = format!("ZFS pool {} has a member on {}", plain(pool), on(layers, device));
        User::new(device, Use::Disk, sentence).mended_by(&["zpool", "export", pool])
    }));
    users.extend(exported(layers)?);
    users.extend(processes(layers, below)?);
    Ok(users)
}

/// Layers that nobody uses, but that are active; those of a volume group, which go together, as one.
pub fn idle(layers: &Layers, used: &BTreeSet<String>) -> Vec<User> {
    let mut groups: BTreeMap<String, Vec<&Affected>> = BTreeMap::new();
    for device in layers.devices.values() {
        let is_lower = layers.devices.values().any(|upper| upper.lower.as_ref() == Some(&device.name));
        // With a path left, a disk of several that nobody uses is as idle as any.
        let is_spared = device.harm == Harm::Weakened && is_multipath(device);
        if device.is_layer() && !is_lower && !is_spared && !used.contains(&device.name) {
            let group = volume_group(device).map_or_else(|| device.name.clone(), |group| format!("vg {group}"));
            groups.entry(group).or_default().push(device);
        }
    }
    let user = |devices: Vec<&Affected>| {
        let first = devices[0];
        let names: Vec<String> = devices.iter().map(|device| plain(&device.to_string())).collect();
        let lower = first.lower.as_deref().unwrap_or_default();
        let is = if devices.len() == 1 { "is" } else { "are" };
        let sentence = format!("{} {is} active on {}", several(&names), on(layers, lower));
        let node = format!("/dev/{}", first.name);
        let user = User::new(&first.name, Use::Disk, sentence);
        match (&first.kind, volume_group(first)) {
            (_, Some(group)) => user.mended_by(&["vgchange", "-an", &group]),
            (Kind::Mapper { name, uuid }, _) if uuid.starts_with("CRYPT-") => {
                user.mended_by(&["cryptsetup", "close", name])
            }
            (Kind::Mapper { name, uuid }, _) if uuid.starts_with("mpath-") => {
                user.mended_by(&["multipath", "-f", name])
            }
            (Kind::Mapper { name, .. }, _) => user.mended_by(&["dmsetup", "remove", name]),
            (Kind::Raid { .. }, _) => user.mended_by(&["mdadm", "--stop", &node]),
            (Kind::Loop { .. }, _) => user.mended_by(&["losetup", "-d", &node]),
            (Kind::Disk | Kind::Multipath | Kind::Other, _) => user,
        }
    };
    groups.into_values().map(user).collect()
}

/// A file system a user, wherever it is mounted how often: a host with containers has it in very many places.
fn mounted(layers: &Layers) -> Result<Vec<User>, ReadError> {
    let mut found: BTreeMap<String, User> = BTreeMap::new();
    for namespace in &layers.namespaces {
        let mut groups: BTreeMap<String, (String, Vec<&Mount>)> = BTreeMap::new();
        for mount in &namespace.mounts {
            let Some(device) = layers.of_mount(namespace, mount) else { continue };
            let key = match mount.fs_type.as_str() {
                "overlay" => format!("overlay {device}"),
                "zfs" => format!("zfs {}", pool(mount)),
                _ => mount.number.clone(),
            };
            groups.entry(key).or_insert((device, Vec::new())).1.push(mount);
        }
        for (key, (device, mounts)) in groups {
            // Namespaces begin as copies of the system's, which come first; ours and the first process's may differ.
            if namespace.is_own() || !found.contains_key(&key) {
                let user = mount_user(layers, namespace, &device, mounts)?;
                if found.get(&key).is_none_or(|known| user.used_as < known.used_as) {
                    found.insert(key, user);
                }
            }
        }
    }
    let lingering = lingering(layers, &found)?;
    Ok(found.into_values().chain(lingering).collect())
}

/// Is the root file system, as the system or whoever asks has it, among what is mounted from the affected devices?
pub fn is_root_on(layers: &Layers) -> bool {
    let mut own = layers.namespaces.iter().filter(|namespace| namespace.is_own());
    let is_root = |mount: &Mount| ROOT.iter().any(|point| mount.point == Path::new(point));
    own.any(|namespace| {
        namespace.mounts.iter().any(|mount| is_root(mount) && layers.of_mount(namespace, mount).is_some())
    })
}

fn mount_user(
    layers: &Layers,
    namespace: &Namespace,
    device: &str,
    mut mounts: Vec<&Mount>,
) -> Result<User, ReadError> {
    let is_one = |points: &[&str], mount: &Mount| points.iter().any(|point| mount.point == Path::new(point));
    // What the system cannot do without is named, if it is among them, else the shortest.
    mounts.sort_by_key(|mount| (!is_one(&SYSTEM, mount), !is_one(&BOOT, mount), mount.point.as_os_str().len()));
    mounts.dedup_by_key(|mount| &mount.point);
    let mount = mounts[0];
    let point = mount.point.to_string_lossy();
    let number = layers.devices[device].number.as_deref();
    let is_system = namespace.is_own() && is_one(&SYSTEM, mount);
    let is_boot = namespace.is_own() && (is_one(&BOOT, mount) || is_esp(layers.host, number)?);
    let volume = layers.volumes.iter().filter(|volume| volume.fs_type == mount.fs_type);
    let together =
        volume.filter(|volume| volume.members.iter().any(|member| member == device)).map(|v| v.members.len());
    let mut sentence = match mounts.len() {
        1 => format!("{} ({}) is mounted from {}", plain(&point), mount.fs_type, on(layers, device)),
        n => format!(
            "{} and {} ({}) are mounted from {}",
            plain(&point),
            more(n - 1, "mount"),
            mount.fs_type,
            on(layers, device)
        ),
    };
    if let Some(number @ 2..) = together.into_iter().max() {
        sentence.push_str(&format!(", one of its {number} devices"));
    }
    if let Some((pid, command)) = &namespace.member {
        sentence.push_str(&format!(", in the mount namespace of {command} (pid {pid})"));
    }
    let used_as = if is_system || is_boot { Use::RootDisk } else { Use::Disk };
    let user = User { is_mounted: namespace.is_own(), ..User::new(device, used_as, sentence) };
    let (one, all) = (["umount", &point], ["umount", "--all-targets", &point]);
    Ok(match &namespace.member {
        _ if is_system => user,
        // Each of these is a file system of its own.
        _ if mount.fs_type == "overlay" && mounts.len() > 1 => user,
        None if mount.fs_type == "zfs" => user.mended_by(&["zpool", "export", pool(mount)]),
        None if mounts.len() == 1 => user.mended_by(&one),
        None => user.mended_by(&all),
        Some((pid, _)) => {
            let pid = pid.to_string();
            user.mended_by(&["nsenter", "--target", &pid, "--mount", "umount", "--all-targets", &point])
        }
    })
}

/// File systems that are in use and nowhere to be seen: unmounted lazily, or in a namespace without processes.
fn lingering(layers: &Layers, mounted: &BTreeMap<String, User>) -> Result<Vec<User>, ReadError> {
    let mut users = Vec::new();
    let mut add = |device: &str, fs_type: &str| {
        let sentence =
            format!("a file system ({fs_type}) of {} is still in use, though no longer mounted", on(layers, device));
        users.push(User::new(device, Use::Disk, sentence));
    };
    let kinds = Node::new(layers.host.file_systems());
    let names = kinds.names_in("")?;
    for device in layers.devices.values() {
        let is_mounted = device.number.as_ref().is_some_and(|number| mounted.contains_key(number));
        // The super block's name is the device's (fs/ext4/sysfs.c, fs/xfs/xfs_sysfs.c, fs/f2fs/sysfs.c).
        for fs_type in names.iter().filter(|_| !is_mounted) {
            if kinds.path().join(fs_type).join(&device.name).is_dir() {
                add(&device.name, fs_type);
            }
        }
    }
    for volume in &layers.volumes {
        let of_volume = |namespace: &Namespace, mount: &Mount| {
            let device = layers.of_mount(namespace, mount);
            mount.fs_type == volume.fs_type && device.is_some_and(|device| volume.members.contains(&device))
        };
        let is_mounted = layers.namespaces.iter().any(|ns| ns.mounts.iter().any(|mount| of_volume(ns, mount)));
        let member = volume.members.iter().find(|member| layers.devices.contains_key(*member));
        if let Some(device) = member.filter(|_| !is_mounted) {
            add(device, &volume.fs_type);
        }
    }
    Ok(users)
}

fn swapping(layers: &Layers) -> Result<Vec<User>, ReadError> {
    let text = match read_text(&layers.host.swaps()) {
        Ok(text) => text,
        // A kernel without swap.
        Err(error) if error.is_absent() => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let user = |path: &String| {
        let device = layers.of_file(Path::new(path))?;
        let sentence = match layers.named(path) {
            Some(_) => format!("the system swaps to {}", on(layers, &device)),
            None => format!("the system swaps to {} on {}", plain(path), on(layers, &device)),
        };
        Some(User::new(&device, Use::RootDisk, sentence).mended_by(&["swapoff", path]))
    };
    Ok(swaps(&text).iter().filter_map(user).collect())
}

/// What the kernel itself hands on to others, of the devices or of files on them.
fn exported(layers: &Layers) -> Result<Vec<User>, ReadError> {
    let [scsi, nvme] = layers.host.storage_targets().map(Node::new);
    let mut users = Vec::new();
    let mut add = |what: String, path: Option<String>| {
        if let Some(device) = path.as_ref().and_then(|path| layers.of_file(Path::new(path))) {
            let path = plain(path.as_deref().unwrap_or_default());
            let sentence = format!("{} exports {path}, which is on {}", plain(&what), on(layers, &device));
            users.push(User::new(&device, Use::Disk, sentence));
        }
    };
    for adapter in directories(&scsi, "")? {
        for name in directories(&scsi, &adapter)? {
            let path = scsi.read_if_there(&format!("{adapter}/{name}/udev_path"))?;
            add(format!("SCSI target {adapter}/{name}"), path);
        }
    }
    for subsystem in directories(&nvme, "")? {
        for id in directories(&nvme, &format!("{subsystem}/namespaces"))? {
            let namespace = format!("{subsystem}/namespaces/{id}");
            if nvme.read_if_there(&format!("{namespace}/enable"))?.as_deref() == Some("1") {
                let path = nvme.read_if_there(&format!("{namespace}/device_path"))?;
                add(format!("NVMe target {subsystem}, namespace {id},"), path);
            }
        }
    }
    Ok(users)
}

fn directories(node: &Node, name: &str) -> Result<Vec<String>, ReadError> {
    let mut names = node.names_in(name)?;
    names.retain(|entry| node.path().join(name).join(entry).is_dir());
    Ok(names)
}

/// Processes that have a node open, as a virtual machine has its disk; one a process.
fn processes(layers: &Layers, below: &[Below]) -> Result<Vec<User>, ReadError> {
    // By path and by number, with the device; a process may see the node by another name, or in a directory of its own.
    let mut by_path: BTreeMap<PathBuf, Option<String>> = BTreeMap::new();
    let mut by_number: BTreeMap<(bool, String), Option<String>> = BTreeMap::new();
    let mut add = |node: &Node, number: Option<String>, device: Option<&Affected>| -> Result<(), ReadError> {
        let device_name = device.map(|device| device.name.clone());
        if let Some(text) = node.read_if_there("uevent")? {
            by_path.extend(uevent(&text, "DEVNAME").map(|name| (Path::new("/dev").join(name), device_name.clone())));
        }
        if let Some(Kind::Mapper { name, .. }) = device.map(|device| &device.kind) {
            by_path.insert(Path::new("/dev/mapper").join(name), device_name.clone());
        }
        if let Some(number) = number {
            by_number.insert((device.is_some(), number), device_name);
        }
        Ok(())
    };
    for device in layers.devices.values() {
        add(&layers.node(&device.name), device.number.clone(), Some(device))?;
    }
    for other in below.iter().filter(|below| NODES.contains(&below.subsystem.as_str())) {
        add(&other.node(), other.number()?, None)?;
    }
    let is_live = layers.host.is_this_machine();
    let which = |descriptor: &Path, target: &Path| {
        let number = || by_number.get(&number(descriptor)?).cloned();
        match by_path.get(target) {
            Some(device) if !is_live || is_ours(target, descriptor) => Some(device.clone()),
            _ if is_live && target.starts_with("/dev") => number(),
            _ => None,
        }
    };
    let has_multipath = layers.devices.values().any(is_multipath);
    let mut openers = openers_of(layers.host, which);
    openers.retain(|(opener, _)| {
        // multipathd watches the paths of what it has made, whoever uses that.
        let is_watching = has_multipath && opener.command == "multipathd";
        !LOOKERS.contains(&opener.command.as_str()) && !is_watching
    });
    // Sorted by process.
    openers.dedup_by_key(|(opener, _)| opener.pid);
    let mut users: Vec<User> = Vec::new();
    for (opener, device) in &openers[..openers.len().min(MOST_PROCESSES)] {
        let place = device.as_deref().map(|device| on(layers, device)).unwrap_or_default();
        let is_said = place.is_empty() || opener.node == Path::new("/dev").join(&place);
        let tail = if is_said { String::new() } else { format!(", which is on {place}") };
        let sentence = plain(&format!("{opener}{tail}"));
        users.push(User { device: device.clone(), used_as: Use::Disk, sentence, mend: None, is_mounted: false });
    }
    if let Some((opener, device)) = openers.get(MOST_PROCESSES) {
        let sentence =
            format!("{} have its nodes open, {opener} among them", more(openers.len() - users.len(), "process"));
        users.push(User {
            device: device.clone(),
            used_as: Use::Disk,
            sentence: plain(&sentence),
            mend: None,
            is_mounted: false,
        });
    }
    Ok(users)
}

/// Where a device is: the disk or partition, and the layers above it.
pub fn on(layers: &Layers, device: &str) -> String {
    let chain = layers.chain(device);
    let base = chain.iter().take_while(|device| !device.is_layer()).count();
    let bottom = chain[..base].last().map_or(device, |device| &device.name);
    let through: Vec<String> = chain[base..].iter().map(|device| plain(&device.to_string())).collect();
    match through.is_empty() {
        true => bottom.to_string(),
        false => format!("{bottom} through {}", joined(&through)),
    }
}

fn pool(mount: &Mount) -> &str {
    mount.source.split('/').next().unwrap_or_default()
}

fn is_mounted(layers: &Layers, name: &str) -> bool {
    let of_pool = |mount: &Mount| mount.fs_type == "zfs" && pool(mount) == name;
    layers.namespaces.iter().any(|namespace| namespace.mounts.iter().any(of_pool))
}

/// LVM's name for it is `GROUP-VOLUME`, with each hyphen of the names doubled (lvm2's `dm_build_dm_name`).
fn volume_group(device: &Affected) -> Option<String> {
    let Kind::Mapper { name, uuid } = &device.kind else { return None };
    if !uuid.starts_with("LVM-") {
        return None;
    }
    let hidden = name.replace("--", "\0");
    let (group, _) = hidden.split_once('-')?;
    Some(group.replace('\0', "-"))
}

/// A disk of several paths, or a partition of one (`partN-mpath-`, by kpartx).
fn is_multipath(device: &Affected) -> bool {
    matches!(&device.kind, Kind::Mapper { uuid, .. } if uuid.contains("mpath-"))
}

/// A command to be typed; none where a name in it would do things to a terminal.
fn command(words: &[&str]) -> Option<String> {
    let is_plain = words.iter().all(|word| !word.chars().any(char::is_control));
    is_plain.then(|| shlex::try_join(words.iter().copied()).ok())?
}

/// Names come from file systems and users: what would steer a terminal is shown as a question mark.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The first few of a list.
pub fn several(names: &[String]) -> String {
    match names {
        [first, second, third, _, rest @ ..] => format!("{first}, {second}, {third} and {} more", rest.len() + 1),
        names => joined(names),
    }
}

fn joined(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `1 more mount`, `2 more mounts`.
fn more(number: usize, what: &str) -> String {
    let ending = match (number, what.ends_with('s')) {
        (1, _) => "",
        (_, true) => "es",
        (_, false) => "s",
    };
    format!("{number} more {what}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_volumes() {
        for (name, uuid, expected) in [
            ("vg-root", "LVM-abc", Some("vg")),
            ("my--vg-my--root", "LVM-abc", Some("my-vg")),
            ("vg-root", "CRYPT-LUKS2-abc", None),
        ] {
            let kind = Kind::Mapper { name: name.into(), uuid: uuid.into() };
            let harm = Harm::Lost;
            let device = Affected { name: "dm-0".into(), number: None, kind, harm, lower: None, keeps: None };
            assert_eq!(volume_group(&device).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn words() {
        for (names, expected) in
            [(&["a"][..], "a"), (&["a", "b", "c"], "a, b and c"), (&["a", "b", "c", "d"], "a, b, c and 1 more")]
        {
            let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
            assert_eq!(several(&names), expected);
        }
        assert_eq!(command(&["umount", "/a b"]).as_deref(), Some("umount '/a b'"));
        assert_eq!(command(&["umount", "/\u{1b}[2J"]), None);
        assert_eq!(plain("/\u{1b}[2J"), "/?[2J");
        assert_eq!((more(1, "mount"), more(2, "process")), ("1 more mount".into(), "2 more processes".into()));
    }
}
