// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this host would lose if a device went from its driver.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// What a device is in use as, the most harmful to lose first.
#[derive(ValueEnum, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// The running system lives on it: its root or another file system it cannot do without, or swap
    RootDisk,
    /// It carries the remote session of whoever asks
    Session,
    /// A file system or another user of a disk
    Disk,
    /// A network interface with addresses, routes, traffic or others on top of it
    Network,
    /// What is seen on a screen
    Display,
    /// The kernel's console
    Console,
    /// The only keyboard
    Input,
    /// The trusted platform module
    Tpm,
    /// Sound that plays or is recorded
    Sound,
    /// A watchdog that is counting
    Watchdog,
    /// Any other device node that a process has open
    Process,
}

impl Use {
    /// As it is typed and shown.
    pub fn name(self) -> &'static str {
        match self {
            Use::RootDisk => "root-disk",
            Use::Session => "session",
            Use::Disk => "disk",
            Use::Network => "network",
            Use::Display => "display",
            Use::Console => "console",
            Use::Input => "input",
            Use::Tpm => "tpm",
            Use::Sound => "sound",
            Use::Watchdog => "watchdog",
            Use::Process => "process",
        }
    }

    /// Would nobody be left to put it right?
    pub fn is_fatal(self) -> bool {
        matches!(self, Use::RootDisk | Use::Session)
    }
}

/// Some uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Uses(u32);

impl Uses {
    /// None.
    pub const NONE: Uses = Uses(0);

    /// Is this one among them?
    pub fn contains(self, used_as: Use) -> bool {
        self.0 & (1 << used_as as u32) != 0
    }

    /// These and those.
    pub fn and(self, others: Uses) -> Uses {
        Uses(self.0 | others.0)
    }

    /// Those that may be acknowledged once and for all: the others are to be spelt out each time.
    pub fn to_keep(self) -> impl Iterator<Item = Use> {
        Use::value_variants().iter().copied().filter(move |used_as| self.contains(*used_as) && !used_as.is_fatal())
    }
}

impl FromIterator<Use> for Uses {
    fn from_iter<I: IntoIterator<Item = Use>>(uses: I) -> Uses {
        Uses(uses.into_iter().fold(0, |bits, used_as| bits | (1 << used_as as u32)))
    }
}

/// One thing that would be lost.
#[derive(Serialize, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Finding {
    /// As what the device is in use.
    #[serde(rename = "kind")]
    pub used_as: Use,
    /// By what: names the disk, interface or node and the mount point, process or whatever else uses it; without the device's
    /// address.
    pub message: String,
    /// A command that ends it, where there is one.
    pub mend: Option<String>,
    /// Is it a file system that the system itself has mounted, or whoever asks: no container?
    #[serde(skip)]
    pub is_mounted: bool,
}

impl Finding {
    /// Something that no single command ends. Things name themselves; what would steer a terminal is left out.
    pub fn new(used_as: Use, message: impl Into<String>) -> Finding {
        let message = message.into().chars().filter(|c| !c.is_control()).collect();
        Finding { used_as, message, mend: None, is_mounted: false }
    }

    /// The same, with the command that ends it.
    pub fn mended_by(self, command: impl Into<String>) -> Finding {
        Finding { mend: Some(command.into()), ..self }
    }
}
