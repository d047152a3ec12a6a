// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel says, typed: devices, drivers, groups. Reading is all that is done here, but for [`control`], which
//! holds the only writes.

pub mod attendant;
pub mod control;
mod device;
mod driver;
mod group;
mod node;
mod overrides;
mod sign;
mod sriov;
pub mod stuck;

pub use device::{BRIDGES, Device, Listing, list, list_looking};
pub use driver::{drivers_of_module, is_registered, module_of_driver, registered};
pub use group::{Group, NO_IOMMU};
pub use node::{Directory, Node, ReadError};
pub use overrides::Overrides;
pub use sign::not_up;
pub use sriov::{Pf, VfRange, vf_index};
