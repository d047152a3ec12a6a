// SPDX-License-Identifier: MIT OR Apache-2.0
//! Hardware names, from udev's hwdb: the machine's own, whatever the root. Opened when the first name is wanted.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use crate::matcher::Modalias;

/// The names of vendor and device, and of the class.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Names {
    /// Vendor and model, as in `Mellanox Technologies ConnectX Family mlx5Gen Virtual Function`.
    pub device: Option<String>,
    /// The model alone.
    pub model: Option<String>,
    /// The class, as in `Ethernet controller`.
    pub class: Option<String>,
}

/// The hardware database; without the feature `names`, an empty one.
pub struct Database {
    #[cfg(feature = "names")]
    hwdb: Option<udev::Hwdb>,
    /// Devices' names by modalias. Many devices are alike, and to look one up takes longer than all else that is shown of it.
    known: RefCell<BTreeMap<String, Option<Rc<str>>>>,
}

impl Database {
    /// Opens the database. A machine without one has no names, which is no error.
    pub fn open() -> Database {
        Database {
            #[cfg(feature = "names")]
            hwdb: udev::Hwdb::new().ok(),
            known: RefCell::default(),
        }
    }

    /// A device's name, [`Names::device`], looked up once for all that are alike.
    pub fn device(&self, modalias: &Modalias) -> Option<Rc<str>> {
        if let Some(name) = self.known.borrow().get(modalias.as_str()) {
            return name.clone();
        }
        let name: Option<Rc<str>> = self.look_up(modalias).device.map(Rc::from);
        self.known.borrow_mut().insert(modalias.as_str().to_string(), name.clone());
        name
    }

    /// What is known of a device. Every value is copied before the next query: libudev frees the list of the last one
    /// (which is why `Hwdb::query_one` must not be used).
    #[cfg(feature = "names")]
    pub fn look_up(&self, modalias: &Modalias) -> Names {
        let mut names = Names::default();
        let (mut vendor, mut model) = (None, None);
        let Some(hwdb) = &self.hwdb else { return names };
        for property in hwdb.query(modalias.as_str()) {
            let Some(value) = property.value().to_str() else { continue };
            let value = value.to_string();
            match property.name().to_str() {
                Some("ID_VENDOR_FROM_DATABASE") => vendor = Some(value),
                Some("ID_MODEL_FROM_DATABASE") => model = Some(value),
                Some("ID_PCI_SUBCLASS_FROM_DATABASE") => names.class = Some(value),
                Some("ID_PCI_CLASS_FROM_DATABASE") => {
                    names.class.get_or_insert(value);
                }
                _ => {}
            }
        }
        names.model = model.clone();
        names.device = match (vendor, model) {
            (Some(vendor), Some(model)) => Some(format!("{vendor} {model}")),
            (vendor, model) => model.or(vendor),
        };
        names
    }

    /// What is known of a device: nothing, in this build.
    #[cfg(not(feature = "names"))]
    pub fn look_up(&self, _modalias: &Modalias) -> Names {
        Names::default()
    }
}
