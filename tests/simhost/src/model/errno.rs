// SPDX-License-Identifier: MIT OR Apache-2.0
//! The error numbers a driver core answers with.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// A Linux error number, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Errno(i32);

/// What a write to sysfs gives back.
pub type Result<T> = std::result::Result<T, Errno>;

macro_rules! errnos {
    ($($name:ident = $number:literal, $text:literal;)*) => {
        impl Errno {
            $(#[doc = $text] pub const $name: Errno = Errno($number);)*

            const TABLE: &[(Errno, &str, &str)] = &[$((Errno($number), stringify!($name), $text)),*];
        }
    };
}

errnos! {
    EPERM = 1, "Operation not permitted";
    ENOENT = 2, "No such file or directory";
    ESRCH = 3, "No such process";
    EINTR = 4, "Interrupted system call";
    EIO = 5, "Input/output error";
    ENXIO = 6, "No such device or address";
    E2BIG = 7, "Argument list too long";
    ENOEXEC = 8, "Exec format error";
    EAGAIN = 11, "Resource temporarily unavailable";
    ENOMEM = 12, "Cannot allocate memory";
    EACCES = 13, "Permission denied";
    EBUSY = 16, "Device or resource busy";
    EEXIST = 17, "File exists";
    ENODEV = 19, "No such device";
    ENOTDIR = 20, "Not a directory";
    EISDIR = 21, "Is a directory";
    EINVAL = 22, "Invalid argument";
    ENOSPC = 28, "No space left on device";
    EROFS = 30, "Read-only file system";
    ERANGE = 34, "Numerical result out of range";
    ENOSYS = 38, "Function not implemented";
    EOPNOTSUPP = 95, "Operation not supported";
    ETIMEDOUT = 110, "Connection timed out";
    EKEYREJECTED = 129, "Key was rejected by service";
    EPROBE_DEFER = 517, "Driver requests probe retry";
}

impl Errno {
    /// The number, as the system call returns it.
    pub fn number(self) -> i32 {
        self.0
    }

    /// Its name, such as `ENODEV`.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// What `strerror` says.
    pub fn message(self) -> &'static str {
        self.row().2
    }

    fn row(self) -> &'static (Errno, &'static str, &'static str) {
        Self::TABLE.iter().find(|row| row.0 == self).expect("every Errno comes out of the table")
    }
}

impl FromStr for Errno {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Self, String> {
        Self::TABLE
            .iter()
            .find(|row| row.1 == name || row.0.0.to_string() == name)
            .map(|row| row.0)
            .ok_or_else(|| format!("{name:?} is not an error a driver core gives"))
    }
}

impl TryFrom<String> for Errno {
    type Error = String;

    fn try_from(name: String) -> std::result::Result<Self, String> {
        name.parse()
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::error::Error for Errno {}
