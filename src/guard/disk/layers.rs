// SPDX-License-Identifier: MIT OR Apache-2.0
//! Block devices that would go, or lose a part, with the disks below a device: partitions, and what is made of them, layer upon
//! layer.
//!
//! Only names, links and attributes that the kernel answers from memory are read: no disk is opened, and none wakes up. What
//! the kernel's own users hold and nowhere show is not found: a journal kept on a device of its own, a dead mount's superblock
//! of a kind that is not in /sys/fs. Nor is what is merely written on a disk a use of it, such as a volume group that is not
//! active: that may well be meant for a guest.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::stored::{Volume, pools, pools_of, volumes};
use crate::guard::below::Below;
use crate::guard::mounts::{Mount, Namespace};
use crate::host::Host;
use crate::sysfs::{Node, ReadError};

/// What would become of a block device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Harm {
    /// It would go on, with less to fall back on.
    Weakened,
    /// It would go, or fail.
    Lost,
}

/// What a block device is made by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A disk's driver, or the kernel's partition code.
    Disk,
    /// NVMe multipath: the one of several paths that is used.
    Multipath,
    /// The device mapper, by name and UUID, which begins with whose it is.
    Mapper { name: String, uuid: String },
    /// md, by level; none where it is not running.
    Raid { level: String },
    /// A file.
    Loop { file: String },
    /// Anything else.
    Other,
}

/// A block device that would be affected.
#[derive(Clone, Debug)]
pub struct Affected {
    /// Its kernel name.
    pub name: String,
    /// `MAJOR:MINOR`; a path of NVMe multipath has none.
    pub number: Option<String>,
    /// By what it is made.
    pub kind: Kind,
    /// How much.
    pub harm: Harm,
    /// The affected device that it is on; none where it is a disk below the device.
    pub lower: Option<String>,
    /// Where it is the first to be only weakened: what it would lose and what it keeps.
    pub keeps: Option<Vec<String>>,
}

impl Affected {
    /// Is it made of another block device, by more than being a part of it?
    pub fn is_layer(&self) -> bool {
        !matches!(self.kind, Kind::Disk | Kind::Multipath)
    }
}

impl std::fmt::Display for Affected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        match &self.kind {
            Kind::Mapper { name, .. } => write!(f, " ({name})"),
            Kind::Raid { level } if level.is_empty() => f.write_str(" (not running)"),
            Kind::Raid { level } if self.harm == Harm::Lost => write!(f, " ({level}, which would fail)"),
            Kind::Raid { level } => write!(f, " ({level})"),
            Kind::Loop { file } => write!(f, " ({file})"),
            Kind::Disk | Kind::Multipath | Kind::Other => Ok(()),
        }
    }
}

/// The affected devices, and what is needed to follow them upwards.
pub struct Layers<'a> {
    /// Where all this is.
    pub host: &'a Host,
    /// By their names.
    pub devices: BTreeMap<String, Affected>,
    /// What is mounted.
    pub namespaces: Vec<Namespace>,
    /// File systems of several devices.
    pub volumes: Vec<Volume>,
    /// The imported ZFS pools that affected devices are members of.
    pub pools: BTreeMap<String, String>,
    /// All that are imported, and whether a member of each is known.
    imported: BTreeMap<String, bool>,
    /// What would be lost together with them.
    gone: BTreeSet<String>,
}

impl<'a> Layers<'a> {
    /// All that the disks below a device carry, where nothing goes on with what is `gone`.
    pub fn above(
        host: &'a Host,
        below: &[Below],
        namespaces: Vec<Namespace>,
        gone: BTreeSet<String>,
    ) -> Result<Layers<'a>, ReadError> {
        let (volumes, imported) = (volumes(host)?, pools(host)?);
        let mut layers =
            Layers { host, devices: BTreeMap::new(), namespaces, volumes, pools: BTreeMap::new(), imported, gone };
        for disk in below.iter().filter(|below| below.subsystem == "block") {
            let lower = disk.path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
            let lower = lower.filter(|name| layers.devices.contains_key(*name)).map(str::to_string);
            layers.add(&disk.name, Harm::Lost, lower, None)?;
        }
        // Whether a layer survives depends on how many of its members go, and where a file is on what is mounted: until
        // nothing more comes. Each device comes at most twice.
        while layers.climb()? {}
        Ok(layers)
    }

    /// The names of what would be lost.
    pub fn lost(&self) -> BTreeSet<String> {
        self.devices.values().filter(|device| device.harm == Harm::Lost).map(|device| device.name.clone()).collect()
    }

    fn is_lost(&self, name: &str) -> bool {
        self.gone.contains(name) || self.devices.get(name).is_some_and(|device| device.harm == Harm::Lost)
    }

    /// One layer more; has anything come?
    fn climb(&mut self) -> Result<bool, ReadError> {
        let mut changed = false;
        for name in self.devices.keys().cloned().collect::<Vec<_>>() {
            let harm = self.devices[&name].harm;
            let node = self.node(&name);
            for part in node.names_in("")? {
                if part.starts_with(&name) && node.path().join(&part).join("partition").exists() {
                    changed |= self.add(&part, harm, Some(name.clone()), None)?;
                }
            }
            for holder in node.names_in("holders")? {
                changed |= self.judge(&holder, &name)?;
            }
            // A cache knows what it is the cache of (drivers/md/bcache/super.c, bcache_device_link).
            let set = Node::new(node.path().join("bcache/set"));
            for backed in set.names_in("")?.iter().filter(|name| name.starts_with("bdev")) {
                if let Some(cached) = set.link_name(&format!("{backed}/dev"))? {
                    changed |= self.add(&cached, harm, Some(name.clone()), None)?;
                }
            }
            if let Some((subsystem, namespace)) = multipath_of(&name) {
                changed |= self.add_head(&name, subsystem, namespace)?;
            }
            for pool in pools_of(self.host, &self.imported, self.devices[&name].number.as_deref())? {
                if self.pools.get(&pool).is_none_or(|member| self.devices[member].harm < harm) {
                    self.pools.insert(pool, name.clone());
                    changed = true;
                }
            }
        }
        for (name, file) in self.on_files()? {
            if let Some(lower) = self.of_file(Path::new(&file)) {
                let harm = self.devices[&lower].harm;
                changed |= self.add(&name, harm, Some(lower), None)?;
            }
        }
        Ok(changed)
    }

    /// Block devices that are a file, and zram's that spill over to a disk.
    fn on_files(&self) -> Result<Vec<(String, String)>, ReadError> {
        let mut found = Vec::new();
        for name in Node::new(self.host.block_devices()).names_in("")? {
            let attribute = match name.trim_end_matches(|c: char| c.is_ascii_digit()) {
                "loop" => "loop/backing_file",
                "zram" => "backing_dev",
                _ => continue,
            };
            if let Some(file) = self.node(&name).read_if_there(attribute)? {
                found.push((name, file));
            }
        }
        Ok(found)
    }

    /// The head that a path of NVMe multipath belongs to; other paths may keep it.
    fn add_head(&mut self, path: &str, subsystem: &str, namespace: &str) -> Result<bool, ReadError> {
        let head = format!("nvme{subsystem}n{namespace}");
        let all = Node::new(self.host.block_devices()).names_in("")?;
        if !all.contains(&head) {
            return Ok(false);
        }
        let mut keeps = Vec::new();
        for other in all.into_iter().filter(|other| multipath_of(other) == Some((subsystem, namespace))) {
            let is_alive = self.node(&other).read_if_there("device/state")?.is_none_or(|state| state == "live");
            let is_open =
                self.node(&other).read_if_there("ana_state")?.is_none_or(|state| state.ends_with("optimized"));
            if !self.is_lost(&other) && is_alive && is_open {
                keeps.push(other);
            }
        }
        let harm = if keeps.is_empty() { Harm::Lost } else { Harm::Weakened };
        self.add(&head, harm, Some(path.to_string()), Some(keeps))
    }

    /// What becomes of a device that is made of others, of which `member` is one.
    fn judge(&mut self, holder: &str, member: &str) -> Result<bool, ReadError> {
        let lower = Some(member.to_string());
        if self.devices[member].harm == Harm::Weakened {
            return self.add(holder, Harm::Weakened, lower, None);
        }
        let node = self.node(holder);
        // What has gone already, with another device, is not gone on with.
        let is_lost = |name: &String| self.is_lost(name) || !self.node(name).path().exists();
        let (lost, others): (Vec<String>, Vec<String>) = node.names_in("slaves")?.into_iter().partition(is_lost);
        let keeps = match self.kind(holder)? {
            Kind::Mapper { uuid, .. } if uuid.starts_with("mpath-") => {
                let is_usable = |name: &String| -> Result<bool, ReadError> {
                    Ok(self
                        .node(name)
                        .read_if_there("device/state")?
                        .is_none_or(|state| ["running", "live"].contains(&state.as_str())))
                };
                let usable: Result<Vec<bool>, ReadError> = others.iter().map(is_usable).collect();
                others.iter().zip(usable?).filter(|(_, is_usable)| *is_usable).map(|(name, _)| name.clone()).collect()
            }
            Kind::Raid { level } if self.survives(&node, &level, &lost)? => others,
            _ => Vec::new(),
        };
        let harm = if keeps.is_empty() { Harm::Lost } else { Harm::Weakened };
        self.add(holder, harm, lower, Some(keeps))
    }

    /// Does an array go on without these?
    fn survives(&self, array: &Node, level: &str, lost: &[String]) -> Result<bool, ReadError> {
        let number = |name: &str| -> Result<u32, ReadError> {
            let text = array.read_if_there(&format!("md/{name}"))?.unwrap_or_default();
            // While it grows: `3 (2)`.
            Ok(text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0))
        };
        let mut missing = number("degraded")?;
        for member in lost {
            missing += u32::from(has_data(array, member)?);
        }
        Ok(missing <= spare(level, number("raid_disks")?))
    }

    /// Would an array miss one of these? Not a spare.
    pub fn would_miss(&self, array: &str, members: &[String]) -> Result<bool, ReadError> {
        let node = self.node(array);
        let has_data: Result<Vec<bool>, ReadError> = members.iter().map(|member| has_data(&node, member)).collect();
        Ok(has_data?.contains(&true))
    }

    fn kind(&self, name: &str) -> Result<Kind, ReadError> {
        let node = self.node(name);
        if let Some(name) = node.read_if_there("dm/name")? {
            return Ok(Kind::Mapper { name, uuid: node.read_if_there("dm/uuid")?.unwrap_or_default() });
        }
        if let Some(level) = node.read_if_there("md/level")? {
            return Ok(Kind::Raid { level });
        }
        if let Some(file) = node.read_if_there("loop/backing_file")? {
            return Ok(Kind::Loop { file });
        }
        Ok(Kind::Other)
    }

    /// Adds a device, or what is worse than was known of it; is it news?
    fn add(
        &mut self,
        name: &str,
        harm: Harm,
        lower: Option<String>,
        keeps: Option<Vec<String>>,
    ) -> Result<bool, ReadError> {
        if self.devices.get(name).is_some_and(|known| known.harm >= harm) {
            return Ok(false);
        }
        let node = self.node(name);
        // What a layer's partitions are parts of is said by the layer.
        let is_part = node.path().join("partition").exists();
        let is_path = lower.as_deref().is_some_and(|lower| multipath_of(lower).is_some());
        let kind = match &lower {
            _ if is_part => Kind::Disk,
            None => Kind::Disk,
            Some(_) if is_path => Kind::Multipath,
            Some(_) => self.kind(name)?,
        };
        let keeps = keeps.filter(|_| harm == Harm::Weakened);
        let device = Affected { name: name.to_string(), number: node.read_if_there("dev")?, kind, harm, lower, keeps };
        self.devices.insert(device.name.clone(), device);
        Ok(true)
    }

    /// A device and all that it is on, the lowest first.
    pub fn chain(&self, name: &str) -> Vec<&Affected> {
        let mut chain: Vec<&Affected> = std::iter::successors(self.devices.get(name), |device| {
            device.lower.as_ref().and_then(|lower| self.devices.get(lower))
        })
        .collect();
        chain.reverse();
        chain
    }

    /// The members, or paths, that a device would lose, of those that are lost altogether.
    pub fn lost_of(&self, device: &Affected) -> Vec<String> {
        let is_path = |path: &str| multipath_of(path).is_some_and(|(s, n)| device.name == format!("nvme{s}n{n}"));
        let holds = |member: &str| self.node(member).path().join("holders").join(&device.name).exists();
        let mut lost = self.lost();
        lost.extend(self.gone.iter().cloned());
        lost.into_iter().filter(|name| is_path(name) || holds(name)).collect()
    }

    /// A block device's directory.
    pub fn node(&self, name: &str) -> Node {
        Node::new(self.host.block_devices().join(name))
    }

    /// The block device that a node's path names: by the kernel's name, the device mapper's, or a link of udev's.
    pub fn named(&self, path: &str) -> Option<String> {
        let rest = path.strip_prefix("/dev/")?;
        let name = rest.replace('/', "!");
        if self.node(&name).path().exists() {
            return Some(name);
        }
        let is_it =
            |device: &&Affected| matches!(&device.kind, Kind::Mapper { name, .. } if format!("mapper/{name}") == rest);
        if let Some(device) = self.devices.values().find(is_it) {
            return Some(device.name.clone());
        }
        Node::new(self.host.device_nodes()).link_name(rest).ok().flatten()
    }

    /// The affected device that a path names or that its file system is on, as our own namespace has it.
    pub fn of_file(&self, path: &Path) -> Option<String> {
        if let Some(name) = path.to_str().and_then(|path| self.named(path)) {
            return self.devices.contains_key(&name).then_some(name);
        }
        let own = self.namespaces.iter().find(|namespace| namespace.is_own())?;
        self.of_mount(own, &own.mounts[own.of(path)?])
    }

    /// The affected device that a mounted file system is on; of several the worst hit.
    pub fn of_mount(&self, namespace: &Namespace, mount: &Mount) -> Option<String> {
        let mut found = BTreeSet::new();
        self.under(namespace, mount, &mut BTreeSet::new(), &mut found);
        found.into_iter().max_by_key(|name| self.devices[name].harm)
    }

    fn under(
        &self,
        namespace: &Namespace,
        mount: &Mount,
        seen: &mut BTreeSet<(String, PathBuf)>,
        found: &mut BTreeSet<String>,
    ) {
        if !seen.insert((mount.number.clone(), mount.point.clone())) {
            return;
        }
        let by_number = |device: &&Affected| device.number.as_ref() == Some(&mount.number);
        found.extend(self.devices.values().find(by_number).map(|device| device.name.clone()));
        match mount.fs_type.as_str() {
            "btrfs" | "bcachefs" => {
                let names: Vec<String> = mount.source.split(':').filter_map(|path| self.named(path)).collect();
                let volumes = self.volumes.iter().filter(|volume| volume.fs_type == mount.fs_type);
                // Named as /dev/root or by its label, it may be any of them.
                let is_it =
                    |volume: &&Volume| names.is_empty() || names.iter().any(|name| volume.members.contains(name));
                let members = volumes.filter(is_it).flat_map(|volume| &volume.members).chain(&names);
                found.extend(members.filter(|member| self.devices.contains_key(*member)).cloned());
            }
            "zfs" => {
                let pool = mount.source.split('/').next().unwrap_or_default();
                found.extend(self.pools.get(pool).cloned());
            }
            "xfs" => {
                let paths = ["logdev", "rtdev"].into_iter().filter_map(|name| mount.option(name));
                let names = paths.filter_map(|path| self.named(path));
                found.extend(names.filter(|name| self.devices.contains_key(name)));
            }
            "overlay" => self.under_overlay(namespace, mount, seen, found),
            _ => {}
        }
    }

    fn under_overlay(
        &self,
        namespace: &Namespace,
        mount: &Mount,
        seen: &mut BTreeSet<(String, PathBuf)>,
        found: &mut BTreeSet<String>,
    ) {
        let own = self.namespaces.iter().find(|namespace| namespace.is_own());
        let mut is_hidden = false;
        for directory in mount.overlaid() {
            // A container's root is put together outside of it.
            let places = [Some(namespace), own].into_iter().flatten();
            let mut mounts = places.filter_map(|place| Some((place, &place.mounts[place.of(&directory)?])));
            match mounts.find(|(_, under)| under.number != mount.number) {
                Some((place, under)) => self.under(place, under, seen, found),
                None => is_hidden = true,
            }
        }
        // A live system puts its root together in an initramfs that nobody sees any more: of images.
        if is_hidden && mount.point == Path::new("/") {
            let images =
                namespace.mounts.iter().filter(|mount| ["squashfs", "erofs"].contains(&mount.fs_type.as_str()));
            for image in images {
                self.under(namespace, image, seen, found);
            }
        }
    }
}

/// Is a member of an array one that has all of its data (Documentation/admin-guide/md.rst, `dev-XXX/state`)?
fn has_data(array: &Node, member: &str) -> Result<bool, ReadError> {
    let state = array.read_if_there(&format!("md/dev-{member}/state"))?;
    Ok(state.is_none_or(|state| state.contains("in_sync")))
}

/// How many members an array of `disks` can be without. Of a raid10 it depends on which; one it can.
fn spare(level: &str, disks: u32) -> u32 {
    match level {
        "raid1" => disks.saturating_sub(1),
        "raid4" | "raid5" | "raid10" => 1,
        "raid6" => 2,
        _ => 0,
    }
}

/// The subsystem and the namespace in the name of a path, `nvme0c1n2` (`drivers/nvme/host/multipath.c`, `nvme_mpath_set_disk_name`).
fn multipath_of(name: &str) -> Option<(&str, &str)> {
    let (subsystem, rest) = name.strip_prefix("nvme")?.split_once('c')?;
    let (controller, namespace) = rest.split_once('n')?;
    let are_numbers = [subsystem, controller, namespace]
        .iter()
        .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()));
    are_numbers.then_some((subsystem, namespace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_paths() {
        for (name, expected) in [
            ("nvme0c1n2", Some(("0", "2"))),
            ("nvme10c11n12", Some(("10", "12"))),
            ("nvme0n1", None),
            ("nvme0c1n2p1", None),
            ("nvmecn", None),
            ("sda", None),
        ] {
            assert_eq!(multipath_of(name), expected, "{name}");
        }
    }

    #[test]
    fn what_arrays_can_be_without() {
        for (level, disks, expected) in [
            ("raid0", 2, 0),
            ("linear", 2, 0),
            ("", 0, 0),
            ("raid1", 2, 1),
            ("raid1", 3, 2),
            ("raid1", 0, 0),
            ("raid5", 3, 1),
            ("raid6", 4, 2),
            ("raid10", 4, 1),
        ] {
            assert_eq!(spare(level, disks), expected, "{level} of {disks}");
        }
    }
}
