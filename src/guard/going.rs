// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices that go in one go: what carries on without one of them must not be what goes with another.

use std::cell::OnceCell;

use super::below::{Below, below};
use super::remote;
use crate::address::Address;
use crate::host::Host;
use crate::sysfs::ReadError;

/// The devices of one command. What is below them is looked for only where something would carry on without one of them:
/// there can be very many.
#[derive(Debug)]
pub struct Going<'a> {
    host: &'a Host,
    addresses: &'a [Address],
    below: OnceCell<Vec<Below>>,
}

impl<'a> Going<'a> {
    /// These go. One that has gone has nothing below it any more.
    pub fn new(host: &'a Host, addresses: &'a [Address]) -> Going<'a> {
        Going { host, addresses, below: OnceCell::new() }
    }

    /// What is below any of them.
    pub fn below(&self) -> Result<&[Below], ReadError> {
        if let Some(known) = self.below.get() {
            return Ok(known);
        }
        let mut found = Vec::new();
        for &address in self.addresses {
            found.extend(below(self.host, address)?);
        }
        Ok(self.below.get_or_init(|| found))
    }

    /// The disks among it, and those of other hosts that come by it.
    pub fn disks(&self) -> Result<Vec<Below>, ReadError> {
        let below = self.below()?;
        Ok([below, &remote::disks(self.host, below, self)?].concat())
    }
}
