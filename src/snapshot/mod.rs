// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this program reads of a host, as a host of its own: a tree of files for `--root`, in the format of `tests/fixtures`.
//! `contents.rs` says what that is; nothing that wakes a device is among it, since the program reads nothing of the kind.

mod contents;
mod mask;
mod modules;
mod network;
mod processes;
mod reader;
mod reduce;
mod settings;
mod tree;
mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address::Address;
use crate::catalog::{Catalog, PfSign};
use crate::guard;
use crate::host::Host;
use crate::sysfs::{Node, Overrides, ReadError};

use contents::{CLASSES, Keep, MODULE, PLACES};
use reader::Reader;
use tree::Entry;

pub use mask::Kind;
pub use tree::Tree;
pub use write::{Form, WriteError, refuse_existing, write};

/// A host as it was read.
pub struct Snapshot {
    /// What is in it.
    pub tree: Tree,
    /// How many devices that is.
    pub devices: usize,
    /// What was masked, and how many of each.
    pub masked: BTreeMap<Kind, usize>,
    /// What could not be read, and why.
    pub unread: BTreeMap<PathBuf, io::Error>,
    /// What is left out on purpose.
    pub remarks: Vec<String>,
}

/// Reads a host; `patience` is for overrides, which on older kernels wait for the devices' locks.
pub fn take(host: &Host, patience: Duration) -> io::Result<Snapshot> {
    let mut reader = Reader::new(host)?;
    for (pattern, keep) in PLACES {
        reader.keep_place(pattern, *keep);
    }
    let addresses = devices(&mut reader);
    classes(&mut reader);
    keep_overrides(&mut reader, &addresses, patience);
    let (modaliases, modules) = asked_of_tables(&mut reader, &addresses);
    for module in &modules {
        let directory = host.root().join("sys/module").join(module);
        if directory.is_dir() {
            reader.keep(&directory, Keep::Directory);
            for (pattern, keep) in MODULE {
                reader.keep_below(&directory, pattern, *keep);
            }
        }
    }
    let releases: BTreeSet<String> = [host.release(), host.running()].into_iter().flatten().collect();
    for release in releases {
        modules::keep(&mut reader, &release, &modaliases, modules.clone());
    }
    settings::keep(&mut reader);
    processes::keep(&mut reader);
    file_systems(&mut reader);
    node_links(&mut reader);
    let masked = reader.mask.counts();
    let Reader { tree, unread, remarks, .. } = reader;
    Ok(Snapshot { tree, devices: addresses.len(), masked, unread, remarks })
}

/// Every PCI device, and what its drivers have made of it.
fn devices(reader: &mut Reader<'_>) -> Vec<Address> {
    let host = reader.host;
    let names = reader.names_in(&host.devices());
    let addresses: Vec<Address> = names.iter().filter_map(|name| name.parse().ok()).collect();
    for &address in &addresses {
        let directory = host.device(address);
        reader.keep(&directory, Keep::Link);
        reader.device(&directory, "pci");
        keep_pf_signs(reader, &directory);
        match guard::below(host, address) {
            Ok(below) => below.iter().for_each(|below| reader.device(&below.path, &below.subsystem)),
            Err(ReadError { path, source }) => reader.cannot(&path, source),
        }
        let information = Node::new(host.nvidia(address)).read_if_there("information");
        let information = information.ok().flatten().unwrap_or_default();
        let minor = information.lines().find_map(|line| line.strip_prefix("Device Minor:"));
        reader.nodes.extend(minor.map(|minor| Path::new("/dev").join(format!("nvidia{}", minor.trim()))));
    }
    addresses
}

/// What shows that a PF is up (`sysfs/sign.rs`).
fn keep_pf_signs(reader: &mut Reader<'_>, directory: &Path) {
    if !directory.join("sriov_totalvfs").exists() {
        return;
    }
    for state in Catalog::bundled().drivers().iter().filter_map(|driver| driver.pf_state.as_ref()) {
        match state.sign {
            PfSign::Attribute { path, .. } => reader.keep_below(directory, path, Keep::Whole),
            PfSign::Entry { prefix } => reader.keep_below(directory, &format!("{prefix}*"), Keep::Directory),
        }
    }
}

/// The devices of classes that are looked at as such.
fn classes(reader: &mut Reader<'_>) {
    for (class, is_looked_below) in CLASSES {
        let directory = reader.host.class(class);
        for name in reader.names_in(&directory) {
            let path = directory.join(name);
            reader.keep(&path, Keep::Link);
            reader.device(&path, class);
            let Ok(real) = fs::canonicalize(&path) else { continue };
            // The disks of a session are below it, and its connections beside them.
            let is_session = |path: &&Path| {
                path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("session"))
            };
            let real = real.ancestors().find(is_session).unwrap_or(&real);
            if *is_looked_below {
                match guard::under(real) {
                    Ok(below) => below.iter().for_each(|below| reader.device(&below.path, &below.subsystem)),
                    Err(ReadError { path, source }) => reader.cannot(&path, source),
                }
            }
        }
    }
}

fn keep_overrides(reader: &mut Reader<'_>, addresses: &[Address], patience: Duration) {
    let read = Overrides::new(reader.host, patience).read_all(addresses);
    for (&address, read) in addresses.iter().zip(read) {
        let path = reader.host.device(address).join("driver_override");
        match read {
            // A kernel before 3.16, or a host that somebody has made, has none.
            Ok(_) if !path.exists() => {}
            Ok(value) => {
                if let Some(place) = reader.place(&path) {
                    let text = format!("{}\n", value.as_deref().unwrap_or("(null)"));
                    reader.add(place, Entry::File(text.into()));
                }
            }
            Err(ReadError { path, source }) => reader.cannot(&path, source),
        }
    }
}

/// What the tables are asked about: the devices' modaliases, and the modules of drivers.
fn asked_of_tables(reader: &mut Reader<'_>, addresses: &[Address]) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut modaliases = BTreeSet::new();
    for &address in addresses {
        modaliases.extend(Node::new(reader.host.device(address)).read_if_there("modalias").ok().flatten());
    }
    let mut modules: BTreeSet<String> = ["vfio".to_string()].into();
    modules.extend(Catalog::bundled().drivers().iter().map(|driver| driver.module.to_string()));
    for driver in reader.names_in(&reader.host.drivers()) {
        let node = Node::new(reader.host.drivers().join(driver));
        modules.extend(node.link_name("module").ok().flatten());
    }
    (modaliases, modules)
}

/// File systems that are in use, mounted or not, by the block device they are on.
fn file_systems(reader: &mut Reader<'_>) {
    let (kinds, devices) = (reader.host.file_systems(), reader.host.block_devices());
    let devices = reader.names_in(&devices);
    for kind in reader.names_in(&kinds) {
        for device in &devices {
            reader.keep(&kinds.join(&kind).join(device), Keep::Directory);
        }
    }
}

/// Links of udev's by which block devices are named: by swap, by what is exported to other hosts, and by what spills over.
fn node_links(reader: &mut Reader<'_>) {
    let mut paths: BTreeSet<String> = BTreeSet::new();
    let text = fs::read_to_string(reader.host.swaps()).unwrap_or_default();
    paths.extend(text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_string));
    let [scsi, nvme] = reader.host.storage_targets();
    let block = reader.host.block_devices();
    for (directory, pattern) in [
        (scsi, "*/*/udev_path"),
        (nvme, "*/namespaces/*/device_path"),
        (block.clone(), "*/backing_dev"),
        (block, "*/loop/backing_file"),
    ] {
        for path in reader.matching(&directory, pattern) {
            paths.extend(fs::read_to_string(path).ok().map(|text| text.trim_end().to_string()));
        }
    }
    for path in paths.iter().filter(|path| path.starts_with("/dev/")) {
        processes::keep_node_link(reader, path);
    }
}
