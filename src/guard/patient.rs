// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reading attributes that wait for a lock of the kernel's, which a stuck driver may hold for ever.

use std::io;
use std::time::Duration;

use rustix::io::Errno;

use crate::host::Host;
use crate::sysfs::attendant::{Answer, Attendant, AttendantError};
use crate::sysfs::{Node, ReadError};

/// Such locks are held for moments.
const PATIENCE: Duration = Duration::from_secs(2);

/// An attribute, `None` where it is not there; an error of kind `TimedOut` where the lock is not let go.
pub fn read(host: &Host, node: &Node, name: &str) -> Result<Option<String>, ReadError> {
    // Another root's attributes are files.
    if !host.is_this_machine() || !node.path().join(name).exists() {
        return node.read_if_there(name);
    }
    let error = |source: io::Error| ReadError { path: node.path().join(name), source };
    let mut attendant = Attendant::default();
    match attendant.read(node.path(), name, PATIENCE) {
        Ok(Answer::Done(text)) => Ok(Some(text.trim_end_matches('\n').to_string())),
        Ok(Answer::NotOpened(errno) | Answer::Refused(errno)) => {
            let error = error(Errno::from_raw_os_error(errno).into());
            if error.is_absent() { Ok(None) } else { Err(error) }
        }
        Err(AttendantError::TimedOut { .. }) => {
            Err(error(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer")))
        }
        Err(AttendantError::Process(source)) => Err(error(source)),
    }
}
