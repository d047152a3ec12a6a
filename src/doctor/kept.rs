// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices for which a choice is kept, and how they are now.

use crate::address::Address;
use crate::catalog::Catalog;
use crate::gather::BestOf;
use crate::kernel_name::{DriverName, is_same_name};
use crate::policy::{Choice, Decision};
use crate::sysfs::{Device, ReadError};

use super::Scene;

/// A device for which a choice is kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The device.
    pub address: Address,
    /// Where the choice stands.
    pub file: String,
    /// The driver it is to be on; `None`: no driver.
    pub wanted: Option<String>,
    /// Is there a driver that fits, where the best was asked for?
    pub has_best: bool,
    /// The driver it is on.
    pub driver: Option<DriverName>,
    /// Was it given away on purpose, until it is bound again?
    pub is_given_away: bool,
    /// Its class, as six hexadecimal digits.
    pub class: String,
}

impl Kept {
    /// Is it as was chosen?
    pub fn is_so(&self) -> bool {
        match (&self.wanted, &self.driver) {
            (None, None) => self.has_best,
            (Some(wanted), Some(driver)) => is_meant(wanted, driver.as_str()),
            _ => false,
        }
    }
}

/// Is this driver the one that was named, by its own name or its module's?
fn is_meant(name: &str, driver: &str) -> bool {
    is_same_name(name, driver) || Catalog::bundled().by_any_name(name).is_some_and(|known| known.driver == driver)
}

/// Reads it.
pub fn gather(scene: &Scene<'_>, best: &mut BestOf<'_>) -> Result<Vec<Kept>, ReadError> {
    let mut kept = Vec::new();
    for device in scene.devices {
        let Some(Decision::Rule(rule)) = scene.policy.decide(device) else { continue };
        let best = match rule.driver {
            Choice::Auto => best_name(scene, best, device)?,
            Choice::Named(_) | Choice::None => None,
        };
        let wanted = match &rule.driver {
            Choice::Auto => best.clone(),
            Choice::Named(name) => Some(name.to_string()),
            Choice::None => None,
        };
        kept.push(Kept {
            address: device.address,
            file: scene.at(&rule.file),
            has_best: rule.driver != Choice::Auto || best.is_some(),
            wanted,
            driver: device.driver.clone(),
            is_given_away: scene.host.given_away(device.address).exists(),
            class: device.modalias.class(),
        });
    }
    Ok(kept)
}

/// The best driver for a device as things are now.
pub fn best_name(scene: &Scene<'_>, best: &mut BestOf<'_>, device: &Device) -> Result<Option<String>, ReadError> {
    let pf_driver = device.pf.and_then(|pf| scene.device(pf)).and_then(|pf| pf.driver.as_ref());
    Ok(best.name(device, pf_driver)?.map(|name| name.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_was_chosen() {
        let kept = |wanted: Option<&str>, driver: Option<&str>, has_best| Kept {
            address: "0000:3b:00.1".parse().unwrap(),
            file: String::new(),
            wanted: wanted.map(str::to_string),
            has_best,
            driver: driver.map(|name| name.parse().unwrap()),
            is_given_away: false,
            class: "020000".to_string(),
        };
        for (wanted, driver, has_best, expected) in [
            (Some("mlx5_vfio_pci"), Some("mlx5_vfio_pci"), true, true),
            (Some("xe_vfio_pci"), Some("xe-vfio-pci"), true, true),
            (Some("vfio-pci"), Some("mlx5_core"), true, false),
            (Some("vfio-pci"), None, true, false),
            (None, None, true, true),
            (None, Some("nvme"), true, false),
            // Nothing fits, and so it is not as was chosen.
            (None, None, false, false),
        ] {
            assert_eq!(kept(wanted, driver, has_best).is_so(), expected, "{wanted:?} {driver:?}");
        }
    }
}
