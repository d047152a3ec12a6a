// SPDX-License-Identifier: MIT OR Apache-2.0
//! What there is to know about libvirt: its domain XML, its version, which driver it takes for a device, and what the hook
//! has taken for a domain. Nothing here asks libvirt itself: a hook that did would wait for the daemon that waits for it.

mod choice;
mod snippet;
mod start;
mod state;
mod version;
mod xml;

pub use choice::{Choice, choose, gives_up};
pub use snippet::Snippet;
pub use start::{Situation, is_hook_installed};
pub use state::{Held, State, StateError, domain_of, name_domains};
pub use version::{Version, VersionError};
pub use xml::{Domain, Element, HostDevice, LONGEST, Uuid, XmlError, parse};
