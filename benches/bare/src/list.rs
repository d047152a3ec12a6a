// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reads of a list: as a C program would make them, with one buffer, relative to open directories.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, Mode, OFlags, openat, readlinkat_raw};
use rustix::io::{Errno, read};

const DEVICES: &str = "/sys/bus/pci/devices";

/// An attribute is no longer than a page.
type Page = [MaybeUninit<u8>; 4096];

/// Prints for each device its address, modalias, driver, IOMMU group and PF, and the override if that is asked for.
pub fn list(with_overrides: bool) -> io::Result<()> {
    let devices = openat(CWD, DEVICES, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut page: Page = [MaybeUninit::uninit(); 4096];
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    for entry in fs::read_dir(DEVICES)? {
        let address = entry?.file_name();
        // From here on neither the link nor the long path is followed again.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let device: OwnedFd = openat(&devices, &address, flags, Mode::empty())?;
        let device = device.as_fd();
        out.write_all(address.as_bytes())?;
        attribute(device, "modalias", &mut page, &mut out)?;
        for name in ["driver", "iommu_group", "physfn"] {
            link(device, name, &mut page, &mut out)?;
        }
        if with_overrides {
            attribute(device, "driver_override", &mut page, &mut out)?;
        }
        out.write_all(b"\n")?;
    }
    out.flush()
}

fn attribute(device: BorrowedFd, name: &str, page: &mut Page, out: &mut impl Write) -> io::Result<()> {
    let file = openat(device, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let (text, _) = read(&file, page.as_mut_slice())?;
    out.write_all(b" ")?;
    out.write_all(text.strip_suffix(b"\n").unwrap_or(text))
}

/// The last component of a link, `-` where there is none.
fn link(device: BorrowedFd, name: &str, page: &mut Page, out: &mut impl Write) -> io::Result<()> {
    out.write_all(b" ")?;
    match readlinkat_raw(device, name, page.as_mut_slice()) {
        Ok((target, _)) => out.write_all(target.rsplit(|byte| *byte == b'/').next().unwrap_or_default()),
        Err(Errno::NOENT) => out.write_all(b"-"),
        Err(error) => Err(error.into()),
    }
}
