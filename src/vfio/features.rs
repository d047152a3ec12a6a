// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an open device can do.

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::ioctl::{self, Feature};
use super::open::{Open, Refused, Step, at};
use crate::sysfs::control::describe;

/// `VFIO_MIGRATION_*`, from the lowest bit.
const MIGRATION: [&str; 3] = ["stop_copy", "p2p", "pre_copy"];

/// What a device can do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Features {
    /// How its state can be moved to another: `stop_copy`, `p2p`, `pre_copy`, or a bit that has no name yet; empty if it
    /// cannot.
    pub migration: Vec<String>,
    /// Does it log which memory it has written?
    pub dirty_tracking: bool,
    /// Can its user have it powered down and up again?
    pub low_power: bool,
    /// And have it come up by itself when it has something to say?
    pub low_power_wakeup: bool,
    /// Can its memory be lent to other devices, as a DMA-BUF?
    pub dma_buf: bool,
    /// Does it keep a token, which its VFs' users have to know?
    pub keeps_vf_token: bool,
    /// Can its user reset it?
    pub reset: bool,
    /// How many regions it has (BARs and others), absent ones included.
    pub regions: u32,
    /// How many kinds of interrupts it has, absent ones included.
    pub interrupts: u32,
    /// Refusals other than that it has no such thing: what was asked for and the errno.
    pub errors: Vec<FeatureError>,
}

/// A refusal that says more than "no".
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FeatureError {
    /// What was asked for, in the kernel's words.
    pub feature: String,
    /// The errno, in words.
    pub error: String,
}

/// Asks.
pub fn ask(open: &Open) -> Result<Features, Refused> {
    let device = open.device();
    let info = ioctl::device_info(device).map_err(at(Step::Info))?;
    let mut errors = Vec::new();
    let mut has = |feature: Feature| {
        ioctl::has_feature(device, feature).map_err(|errno| errors.extend(odd(feature, errno))).is_ok()
    };
    let dirty_tracking = has(Feature::DmaLoggingStart);
    // One without the other would leave it where it is.
    let low_power = has(Feature::LowPowerEntry) && has(Feature::LowPowerExit);
    let low_power_wakeup = low_power && has(Feature::LowPowerEntryWithWakeup);
    let dma_buf = has(Feature::DmaBuf);
    let keeps_vf_token = has(Feature::VfToken);
    let migration = match ioctl::migration_flags(device) {
        Ok(flags) => migration_names(flags),
        Err(errno) => {
            errors.extend(odd(Feature::Migration, errno));
            Vec::new()
        }
    };
    Ok(Features {
        migration,
        dirty_tracking,
        low_power,
        low_power_wakeup,
        dma_buf,
        keeps_vf_token,
        reset: info.can_reset,
        regions: info.regions,
        interrupts: info.irqs,
        errors,
    })
}

/// What says more than "no". That is ENOTTY, or for DMA_BUF of a driver that does not offer it EOPNOTSUPP
/// (`drivers/vfio/pci/vfio_pci_dmabuf.c`); what a kernel does not know yet has been EINVAL as well.
fn odd(feature: Feature, errno: Errno) -> Option<FeatureError> {
    let is_no = matches!(errno, Errno::NOTTY | Errno::OPNOTSUPP);
    (!is_no).then(|| FeatureError { feature: feature.name().to_string(), error: describe(errno) })
}

fn migration_names(flags: u64) -> Vec<String> {
    let set = (0..u64::BITS).filter(|bit| flags & (1 << bit) != 0);
    set.map(|bit| MIGRATION.get(bit as usize).map_or_else(|| format!("bit {bit}"), |name| name.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_have_names() {
        for (flags, names) in [
            (0, &[][..]),
            (1, &["stop_copy"]),
            (3, &["stop_copy", "p2p"]),
            (5, &["stop_copy", "pre_copy"]),
            (7, &["stop_copy", "p2p", "pre_copy"]),
            (1 | (1 << 63), &["stop_copy", "bit 63"]),
        ] {
            assert_eq!(migration_names(flags), names);
        }
    }

    #[test]
    fn what_a_device_lacks_is_nothing_odd() {
        assert_eq!(odd(Feature::Migration, Errno::NOTTY), None);
        assert_eq!(odd(Feature::DmaBuf, Errno::OPNOTSUPP), None);
        let error = odd(Feature::DmaBuf, Errno::INVAL).unwrap();
        assert_eq!(error.feature, "VFIO_DEVICE_FEATURE_DMA_BUF");
        assert!(error.error.starts_with("EINVAL"), "{}", error.error);
    }
}
