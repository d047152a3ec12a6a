// SPDX-License-Identifier: MIT OR Apache-2.0
//! The writes of a binding, on a simulated host: many devices at once, since the kernel takes no lock for them but each
//! device's own (drivers/base/dd.c, `__device_driver_lock`: the parent's too on a bus with `need_parent_lock`, which
//! PCI is not).

use std::fs;
use std::io::{self, Error};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::fs::{FsWord, statfs};

const DEVICES: &str = "/sys/bus/pci/devices";
const DRIVERS: &str = "/sys/bus/pci/drivers";

/// include/uapi/linux/magic.h, FUSE_SUPER_MAGIC
const FUSE: FsWord = 0x6573_5546;

/// Does something with each device, so many at once, and gives the first error.
pub fn each(at_once: usize, addresses: &[&str], work: impl Fn(&str) -> io::Result<()> + Sync) -> io::Result<()> {
    // The real one is sysfs. It is not to be written to, whatever this was started for.
    if statfs("/sys")?.f_type != FUSE {
        return Err(Error::other("/sys is no simulated host's: nothing is written"));
    }
    let next = AtomicUsize::new(0);
    let work_through = || {
        while let Some(address) = addresses.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(address)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let started: Vec<_> = (0..at_once).map(|_| scope.spawn(work_through)).collect();
        let results: Vec<_> = started.into_iter().map(|thread| thread.join().expect("no thread panics")).collect();
        results.into_iter().collect()
    })
}

/// From whatever driver it is on.
pub fn bind(driver: &str, address: &str) -> io::Result<()> {
    put(&format!("{DEVICES}/{address}/driver_override"), driver)?;
    unbind(address)?;
    put(&format!("{DRIVERS}/{driver}/bind"), address)
}

/// To a driver that takes it by its own table.
pub fn give_back(driver: &str, address: &str) -> io::Result<()> {
    unbind(address)?;
    put(&format!("{DEVICES}/{address}/driver_override"), "\n")?;
    put(&format!("{DRIVERS}/{driver}/bind"), address)
}

/// Fails unless they are all on it.
pub fn are_on(driver: &str, addresses: &[&str]) -> io::Result<()> {
    for address in addresses {
        let link = fs::read_link(format!("{DEVICES}/{address}/driver"));
        if !link.as_ref().is_ok_and(|link| link.ends_with(driver)) {
            return Err(Error::other(format!("{address} is not on {driver}: {link:?}")));
        }
    }
    Ok(())
}

fn unbind(address: &str) -> io::Result<()> {
    let path = format!("{DEVICES}/{address}/driver/unbind");
    if Path::new(&path).exists() { put(&path, address) } else { Ok(()) }
}

fn put(path: &str, text: &str) -> io::Result<()> {
    let mut file = fs::File::options().write(true).open(path)?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(|error| Error::other(format!("{path}: {error}")))
}
