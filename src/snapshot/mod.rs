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
use crate::file;
use crate::guard;
use crate::host::Host;
use crate::matcher::Modalias;
use crate::policy::{Choice, Policy, driverctl};
use crate::sysfs::{Node, Overrides, ReadError};

use contents::{CLASSES, Keep, MODULE, PLACES, PROGRAM_DIRECTORIES, PROGRAMS, RULES, UNITS};
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
    installed(&mut reader);
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

/// Programs, and files for udev, systemd and libvirt that call ours, wherever it is.
fn installed(reader: &mut Reader<'_>) {
    for directory in PROGRAM_DIRECTORIES {
        for program in PROGRAMS {
            reader.keep_place(&format!("{directory}/{program}"), Keep::Presence);
        }
    }
    let of_udev = reader.host.udev_rule_directories().map(|directory| (directory, RULES.as_slice()));
    let of_systemd = reader.host.unit_directories().map(|directory| (directory, UNITS.as_slice()));
    let [hook, hooks] = reader.host.libvirt_hooks();
    let names = reader.names_in(&hooks);
    let mut callers: Vec<PathBuf> = names.iter().map(|name| hooks.join(name)).chain([hook]).collect();
    for (directory, files) in of_udev.into_iter().chain(of_systemd) {
        for (name, keep) in files {
            reader.keep(&directory.join(name), *keep);
            callers.push(directory.join(name));
        }
    }
    for text in callers.iter().filter_map(|path| file::read_to_string(path, file::SETTINGS).ok()) {
        let words = text.split(|c: char| c.is_whitespace() || ['"', '='].contains(&c));
        for program in words.filter(|word| word.starts_with('/') && word.ends_with("/vfioctl")) {
            reader.keep(&reader.host.named(Path::new(program)), Keep::Presence);
        }
    }
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

/// What the tables are asked about: the modaliases of devices, and of VFs that could be made, and the modules of drivers.
fn asked_of_tables(reader: &mut Reader<'_>, addresses: &[Address]) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut modaliases = BTreeSet::new();
    for &address in addresses {
        let node = Node::new(reader.host.device(address));
        let read = |name: &str| node.read_if_there(name).ok().flatten();
        let Some(modalias) = read("modalias") else { continue };
        let vf = read("sriov_vf_device").zip(modalias.parse::<Modalias>().ok());
        let vf = vf.and_then(|(device, modalias)| modalias.with_device(&format!("{device:0>4}")).ok());
        modaliases.extend(vf.map(|vf| vf.as_str().to_string()));
        modaliases.insert(modalias);
    }
    let needed = ["vfio", "vfio_pci_core", "vfio_iommu_type1", "vfio_iommu_spapr_tce", "iommufd", "virtio_iommu"];
    let mut modules: BTreeSet<String> = needed.map(str::to_string).into();
    for driver in Catalog::bundled().drivers() {
        modules.insert(driver.module.to_string());
        modules.extend(driver.pf_modules.iter().map(|module| module.to_string()));
    }
    for driver in reader.names_in(&reader.host.drivers()) {
        let node = Node::new(reader.host.drivers().join(driver));
        modules.extend(node.link_name("module").ok().flatten());
    }
    // Those that choices name.
    let (policy, _) = Policy::read(reader.host);
    let named = policy.rules.iter().filter_map(|rule| match &rule.driver {
        Choice::Named(name) => Some(name.to_string()),
        Choice::Auto | Choice::None => None,
    });
    let overrides = driverctl::read(reader.host).map(|(overrides, _)| overrides).unwrap_or_default();
    let named = named.chain(overrides.iter().map(|found| found.driver.to_string()));
    modules.extend(named.map(|name| match Catalog::bundled().by_any_name(&name) {
        Some(known) => known.module.to_string(),
        None => name.replace('-', "_"),
    }));
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
