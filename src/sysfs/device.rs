// SPDX-License-Identifier: MIT OR Apache-2.0
//! A PCI device as sysfs shows it.
//!
//! Read are `modalias`, which holds all ids and the class, and links. None of these reaches the hardware, as `config`, `vpd`
//! and the link speeds would, and none waits for the device's lock, as `driver_override` may.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::thread;

use super::node::{Directory, Node, ReadError, each_entry};
use crate::address::Address;
use crate::catalog::{Catalog, KernelVersion};
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::matcher::Modalias;

/// How the classes of PCI-to-PCI and CardBus bridges begin (`include/linux/pci_ids.h`).
pub const BRIDGES: [&str; 2] = ["0604", "0607"];

/// A PCI device and its bindings, at the moment of reading.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Where it is.
    pub address: Address,
    /// What it is.
    pub modalias: Modalias,
    /// The driver its `driver` link names. The link shows before a probe is over, and goes before a removal is.
    pub driver: Option<DriverName>,
    /// Its IOMMU group.
    pub iommu_group: Option<u32>,
    /// A VF's PF.
    pub pf: Option<Address>,
    /// A PF's VFs, in bus order.
    pub vfs: Vec<Address>,
}

impl Device {
    /// Reads one device; `None` where there is none.
    pub fn read(host: &Host, address: Address) -> Result<Option<Device>, ReadError> {
        let Some(directory) = Directory::open(host.device(address))? else { return Ok(None) };
        let Some(mut device) = read_without_vfs(&directory, address)? else { return Ok(None) };
        // A VF has none of its own.
        let names = if device.pf.is_none() { Node::new(host.device(address)).names_in("")? } else { Vec::new() };
        for name in names {
            if name.starts_with("virtfn") {
                device.vfs.extend(link_address(&directory, &name)?);
            }
        }
        device.vfs.sort();
        Ok(Some(device))
    }

    /// Is there one? What names it on the bus goes before all else (`drivers/base/bus.c`, `bus_remove_device`).
    pub fn is_there(host: &Host, address: Address) -> bool {
        host.device(address).symlink_metadata().is_ok()
    }

    /// Tells a device from the one that was at its address before; `None` where there is none.
    pub fn incarnation(host: &Host, address: Address) -> Option<u64> {
        // The link has the same name each time; the directory it leads to is another.
        fs::metadata(host.device(address)).ok().map(|data| data.ino())
    }

    /// What leads to a device, from the root down: the devices above it in sysfs, which for all functions of a bus are the same
    /// (`drivers/pci/probe.c`, `pci_setup_device`: the parent is the bridge of the bus), and for VFs those of their PF
    /// (`drivers/pci/iov.c`, `pci_iov_scan_device`). None where it is gone.
    pub fn ports(host: &Host, address: Address) -> Result<Vec<Address>, ReadError> {
        let path = host.device(address);
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            // Under another root it may be a directory.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => {
                return Ok(Vec::new());
            }
            Err(source) => return Err(ReadError { path, source }),
        };
        let names = target.components().filter_map(|name| name.as_os_str().to_str()?.parse().ok());
        Ok(names.filter(|name| *name != address).collect())
    }

    /// A PCI-to-PCI or CardBus bridge: no VFIO driver takes one (`vfio_pci_core_init_dev` wants header type 0).
    pub fn is_bridge(&self) -> bool {
        BRIDGES.contains(&&self.modalias.class()[..4])
    }

    /// The names in `vfio-dev/`: there when a driver, whatever its name, has made a VFIO device of this one. Kernels before
    /// 6.1 have no such directory. Names other than `vfioN` occur (`noiommu-vfioN` from 7.3 on).
    pub fn vfio_devices(host: &Host, address: Address) -> Result<Vec<String>, ReadError> {
        Node::new(host.device(address)).names_in("vfio-dev")
    }

    /// Has its driver made a VFIO device of it? Before 6.1 there is no telling but by the driver's name and its open group.
    pub fn is_vfio_device(host: &Host, address: Address) -> Result<bool, ReadError> {
        if !Device::vfio_devices(host, address)?.is_empty() {
            return Ok(true);
        }
        // Most devices are on no VFIO driver: for these the release need not be read.
        let node = Node::new(host.device(address));
        if node.link_name("driver")?.is_none_or(|name| Catalog::bundled().by_driver(&name).is_none()) {
            return Ok(false);
        }
        let running = host.running().ok().and_then(|release| KernelVersion::parse(&release));
        if running.is_none_or(|running| running >= KernelVersion::new(6, 1)) {
            return Ok(false);
        }
        let group = node.link_name("iommu_group")?;
        Ok(group.is_some_and(|group| host.vfio_groups().join(group).exists()))
    }
}

/// All devices, and what could not be read.
#[derive(Debug, Default)]
pub struct Listing {
    /// In bus order. One that goes away meanwhile is left out.
    pub devices: Vec<Device>,
    /// One odd device costs no other its place.
    pub errors: Vec<ReadError>,
}

/// So many devices are worth a thread of their own.
const OF_A_THREAD: usize = 1024;

/// Lists all devices: of each its directory is opened, `modalias` is read, and three links. Where there are thousands, the
/// processors share them.
pub fn list(host: &Host) -> Result<Listing, ReadError> {
    let bus = Bus::open(host)?;
    let share = bus.addresses.len().div_ceil(threads(bus.addresses.len()));
    let parts: Vec<Listing> = thread::scope(|scope| {
        let (bus, mut shares) = (&bus, bus.addresses.chunks(share.max(1)));
        let first = shares.next().unwrap_or_default();
        // Where there may be no more threads, there are none.
        let start =
            |share| (share, thread::Builder::new().spawn_scoped(scope, move || bus.read(share, |_, _| {})).ok());
        let others: Vec<_> = shares.map(start).collect();
        let mut parts = vec![bus.read(first, |_, _| {})];
        for (share, thread) in others {
            let part = thread.map(|thread| thread.join().expect("to read panics nowhere"));
            parts.push(part.unwrap_or_else(|| bus.read(share, |_, _| {})));
        }
        parts
    });
    let mut listing = Listing::default();
    for Listing { devices, errors } in parts {
        listing.devices.extend(devices);
        listing.errors.extend(errors);
    }
    Ok(listing.with_vfs())
}

/// The same by one thread, which has `look` look at each while its directory is open.
pub fn list_looking(host: &Host, look: impl FnMut(&Directory, &Device)) -> Result<Listing, ReadError> {
    let bus = Bus::open(host)?;
    Ok(bus.read(&bus.addresses, look).with_vfs())
}

fn threads(devices: usize) -> usize {
    // To ask for the processors is to read some files.
    match devices / OF_A_THREAD {
        0 | 1 => 1,
        most => thread::available_parallelism().map_or(1, |processors| processors.get().min(most)),
    }
}

/// The directory that has all devices.
struct Bus {
    path: PathBuf,
    directory: OwnedFd,
    /// In order.
    addresses: Vec<Address>,
}

impl Bus {
    fn open(host: &Host) -> Result<Bus, ReadError> {
        let path = host.devices();
        let mut addresses = Vec::new();
        let add = |name: &CStr| addresses.extend(name.to_str().ok().and_then(|name| name.parse::<Address>().ok()));
        let directory = each_entry(&path, add).map_err(|source| ReadError { path: path.clone(), source })?;
        addresses.sort_unstable();
        Ok(Bus { path, directory, addresses })
    }

    fn read(&self, addresses: &[Address], mut look: impl FnMut(&Directory, &Device)) -> Listing {
        let mut listing = Listing { devices: Vec::with_capacity(addresses.len()), errors: Vec::new() };
        for &address in addresses {
            let read = |directory: Directory| {
                let device = read_without_vfs(&directory, address)?;
                device.iter().for_each(|device| look(&directory, device));
                Ok(device)
            };
            let directory = Directory::open_below(self.directory.as_fd(), &self.path, &address.to_string());
            match directory.and_then(|directory| directory.map_or(Ok(None), read)) {
                Ok(device) => listing.devices.extend(device),
                Err(error) => listing.errors.push(error),
            }
        }
        listing
    }
}

impl Listing {
    /// Every VF names its PF: no need to look through the PFs' directories.
    fn with_vfs(mut self) -> Listing {
        let mut vfs: BTreeMap<Address, Vec<Address>> = BTreeMap::new();
        for device in &self.devices {
            if let Some(pf) = device.pf {
                vfs.entry(pf).or_default().push(device.address);
            }
        }
        for device in &mut self.devices {
            device.vfs = vfs.remove(&device.address).unwrap_or_default();
        }
        self
    }
}

fn read_without_vfs(directory: &Directory, address: Address) -> Result<Option<Device>, ReadError> {
    let Some(modalias) = directory.read_if_there("modalias")? else { return Ok(None) };
    let modalias = modalias.parse().map_err(|error| invalid(directory, "modalias", error))?;
    let driver = directory.link_name("driver")?.map(DriverName::from_kernel);
    let iommu_group = match directory.link_name("iommu_group")? {
        Some(name) => Some(name.parse().map_err(|error| invalid(directory, "iommu_group", error))?),
        None => None,
    };
    let pf = link_address(directory, "physfn")?;
    Ok(Some(Device { address, modalias, driver, iommu_group, pf, vfs: Vec::new() }))
}

fn link_address(directory: &Directory, name: &str) -> Result<Option<Address>, ReadError> {
    match directory.link_name(name)? {
        Some(target) => Ok(Some(target.parse().map_err(|error| invalid(directory, name, error))?)),
        None => Ok(None),
    }
}

fn invalid(directory: &Directory, name: &str, error: impl std::error::Error + Send + Sync + 'static) -> ReadError {
    ReadError { path: directory.path().join(name), source: io::Error::new(io::ErrorKind::InvalidData, error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn whoever_reads_them_the_devices_are_the_same() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let modalias = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00\n";
        // One more than two threads have, and of the last somebody wrote nonsense.
        for number in 0..=2 * OF_A_THREAD {
            let address: Address = format!("{:04x}:{:02x}:00.0", number / 256, number % 256).parse().unwrap();
            fs::create_dir_all(host.device(address)).unwrap();
            let text = if number == 2 * OF_A_THREAD { "pci:nonsense" } else { modalias };
            fs::write(host.device(address).join("modalias"), text).unwrap();
        }
        assert!(threads(2 * OF_A_THREAD) >= 1 && threads(2 * OF_A_THREAD - 1) == 1);
        let (shared, alone) = (list(&host).unwrap(), list_looking(&host, |_, _| {}).unwrap());
        assert_eq!((shared.devices.len(), shared.errors.len()), (2 * OF_A_THREAD, 1));
        assert_eq!(shared.devices, alone.devices);
        assert!(shared.devices.is_sorted_by_key(|device| device.address));
    }

    #[test]
    fn vfio_devices_on_old_and_new_kernels() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        let device = path("sys/bus/pci/devices/0000:3b:00.1");
        for directory in ["proc/sys/kernel", "sys/class/vfio/7", "sys/kernel/iommu_groups/7"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::create_dir_all(&device).unwrap();
        symlink("../../../../kernel/iommu_groups/7", device.join("iommu_group")).unwrap();
        symlink("../../../../bus/pci/drivers/vfio-pci", device.join("driver")).unwrap();
        let is_vfio = |release: &str| {
            fs::write(path("proc/sys/kernel/osrelease"), release).unwrap();
            // It asks once which kernel runs.
            let host = Host::new(root.path(), None).unwrap();
            Device::is_vfio_device(&host, "0000:3b:00.1".parse().unwrap()).unwrap()
        };
        assert!(is_vfio("5.15.0-130-generic\n"));
        // Another member of an open group is none for that.
        fs::remove_file(device.join("driver")).unwrap();
        symlink("../../../../bus/pci/drivers/snd_hda_intel", device.join("driver")).unwrap();
        assert!(!is_vfio("5.15.0-130-generic\n"));
        fs::remove_file(device.join("driver")).unwrap();
        symlink("../../../../bus/pci/drivers/vfio-pci", device.join("driver")).unwrap();
        assert!(!is_vfio("6.1.0-56-amd64\n"), "from 6.1 on vfio-dev is what counts");
        fs::remove_dir(path("sys/class/vfio/7")).unwrap();
        assert!(!is_vfio("5.15.0-130-generic\n"));
        fs::create_dir_all(device.join("vfio-dev/noiommu-vfio0")).unwrap();
        assert!(is_vfio("7.3.4\n"));
    }
}
