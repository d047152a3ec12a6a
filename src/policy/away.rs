// SPDX-License-Identifier: MIT OR Apache-2.0
//! Word that a device with a kept choice was given away on purpose, until it is bound again: to who would otherwise see to it
//! that the choice holds (06-vfioctl-reattach.rules).

use std::fs;
use std::io;

use crate::address::Address;
use crate::host::Host;
use crate::private;

/// Leaves word.
pub fn give_away(host: &Host, address: Address) -> io::Result<()> {
    let path = host.given_away(address);
    private::make_directory(host, path.parent().expect("it is in a directory"))?;
    fs::write(path, "")
}

/// Takes the word back, if there is one.
pub fn take_again(host: &Host, address: Address) -> io::Result<()> {
    match fs::remove_file(host.given_away(address)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
