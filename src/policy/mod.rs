// SPDX-License-Identifier: MIT OR Apache-2.0
//! The administrator's persisted choices: TOML drop-ins `vfioctl.d/*.toml`, and the one file a device that `bind` writes;
//! [`driverctl`] is what another tool keeps for the same purpose.

mod away;
pub mod driverctl;
mod rule;
mod store;
pub mod trust;
mod udev;

pub use away::{give_away, take_again};
pub use rule::{Choice, Decision, Policy, PolicyError, Renewed, Rule, Selector, parse};
pub use store::{
    Draft, StoreError, Terms, check_forgettable, check_replaceable, drafts, forget, has_draft, has_own_file, is_kept,
    own_file, sweep,
};
pub use trust::Distrust;
pub use udev::{refresh_rules, reload_rules};
