// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the hook has taken for a domain, so that it gives back that and nothing else: one file a domain, below /run, since
//! nothing of it is true after a boot.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::Builder;

use super::xml::Uuid;
use crate::address::Address;
use crate::file;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::plan::Binding;
use crate::policy::trust;
use crate::prepare::Preparation;
use crate::private;
use crate::sriov::Vf;
use crate::sysfs::Device;

/// What a domain has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// The domain.
    pub uuid: Uuid,
    /// Its name.
    pub name: String,
    /// Its devices.
    pub devices: Vec<Held>,
}

/// A device that a domain has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// Where it is.
    pub address: Address,
    /// Which of those that were at that address one after the other.
    pub incarnation: Option<u64>,
    /// The driver on which the hook left it; `None` while it is at it.
    pub driver: Option<DriverName>,
    /// How it was before the hook took it; `None`: it was as it should be, and is not given back.
    pub before: Option<Binding>,
    /// What was done to it before its driver came.
    pub prepared: Vec<Preparation>,
}

/// A state that could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct StateError {
    /// What was tried.
    pub action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

#[derive(Serialize, Deserialize)]
struct File {
    schema: u32,
    uuid: String,
    name: String,
    devices: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    address: String,
    incarnation: Option<u64>,
    driver: Option<String>,
    before: Option<Before>,
    prepared: Vec<Preparation>,
}

#[derive(Serialize, Deserialize)]
struct Before {
    driver: Option<String>,
    driver_override: Option<String>,
}

impl State {
    /// Reads a domain's; `None`: the hook has done nothing for it since the boot.
    pub fn read(host: &Host, uuid: &Uuid) -> Result<Option<State>, StateError> {
        match read(host, &path(host, uuid)) {
            Ok(state) => Ok(Some(state)),
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Those of all other domains; what cannot be read is said as well.
    pub fn of_others(host: &Host, uuid: Option<&Uuid>) -> (Vec<State>, Vec<StateError>) {
        let own = uuid.map(|uuid| path(host, uuid));
        let entries = fs::read_dir(host.libvirt_domains()).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths
            .retain(|path| path.extension().is_some_and(|extension| extension == "json") && Some(path) != own.as_ref());
        paths.sort();
        let (mut states, mut errors) = (Vec::new(), Vec::new());
        for path in paths {
            match read(host, &path) {
                Ok(state) => states.push(state),
                // It may be removed at any moment.
                Err(error) if error.source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => errors.push(error),
            }
        }
        (states, errors)
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, host: &Host) -> Result<(), StateError> {
        let path = path(host, &self.uuid);
        let directory = host.libvirt_domains();
        let write = || -> io::Result<()> {
            private::make_directory(host, &directory)?;
            let mut file = Builder::new().prefix(&format!(".{}.", self.uuid)).tempfile_in(&directory)?;
            file.write_all(&serde_json::to_vec(&File::from(self))?)?;
            file.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().map_err(|source| StateError { action: "write", path: path.clone(), source })
    }

    /// Removes a domain's, if there is one.
    pub fn remove(host: &Host, uuid: &Uuid) -> Result<(), StateError> {
        let path = path(host, uuid);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(StateError { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// What it has at an address, if that is still the same device.
    pub fn held(&self, address: Address, incarnation: Option<u64>) -> Option<&Held> {
        self.devices.iter().find(|held| held.address == address && held.incarnation == incarnation)
    }
}

impl Held {
    /// The device is on `driver` now, as the domain wants it: what is there to be given back? If nothing had to be done, it may
    /// be so by our doing all the same, for this domain or for one that is about to give it back. Pure.
    pub fn settle(&mut self, driver: Option<DriverName>, taken_now: Option<&[Preparation]>, earlier: &[&Held]) {
        self.driver = driver;
        if let Some(prepared) = taken_now {
            self.prepared.extend_from_slice(prepared);
            return;
        }
        let is_same = |other: &&&Held| other.address == self.address && other.incarnation == self.incarnation;
        let is_ours = |other: &&&Held| other.driver == self.driver || other.driver.is_none();
        let earlier = earlier.iter().filter(is_same).filter(is_ours).find(|other| other.before.is_some());
        self.before = earlier.and_then(|other| other.before.clone());
        self.prepared = earlier.map(|other| other.prepared.clone()).unwrap_or_default();
    }
}

/// Says of VFs which domain the hook has taken them for; what cannot be read comes back.
pub fn name_domains(host: &Host, vfs: &mut [Vf]) -> Vec<StateError> {
    let (domains, errors) = State::of_others(host, None);
    for vf in vfs {
        vf.domain = among(host, &domains, vf.device.address);
    }
    errors
}

/// The domain that the hook has taken a device for, as far as that can be read.
pub fn domain_of(host: &Host, address: Address) -> Option<String> {
    among(host, &State::of_others(host, None).0, address)
}

fn among(host: &Host, domains: &[State], address: Address) -> Option<String> {
    let incarnation = Device::incarnation(host, address);
    let domain = domains.iter().find(|domain| domain.held(address, incarnation).is_some());
    domain.map(|domain| domain.name.clone())
}

fn path(host: &Host, uuid: &Uuid) -> PathBuf {
    host.libvirt_domains().join(format!("{uuid}.json"))
}

fn read(host: &Host, path: &Path) -> Result<State, StateError> {
    let read = || -> io::Result<State> {
        let mut opened = file::open(path)?;
        // It says what is to be run to undo what was prepared.
        trust::check(host, &opened, path)
            .map_err(|distrust| io::Error::other(format!("it is not root's alone: {distrust}")))?;
        let file: File = serde_json::from_slice(&file::read_open(&mut opened, file::SETTINGS)?)?;
        State::try_from(file).map_err(|message| io::Error::new(io::ErrorKind::InvalidData, message))
    };
    read().map_err(|source| StateError { action: "read", path: path.to_path_buf(), source })
}

impl From<&State> for File {
    fn from(state: &State) -> File {
        let name = |driver: &Option<DriverName>| driver.as_ref().map(DriverName::to_string);
        let entry = |held: &Held| Entry {
            address: held.address.to_string(),
            incarnation: held.incarnation,
            driver: name(&held.driver),
            before: held
                .before
                .as_ref()
                .map(|before| Before { driver: name(&before.driver), driver_override: before.driver_override.clone() }),
            prepared: held.prepared.clone(),
        };
        File {
            schema: 1,
            uuid: state.uuid.to_string(),
            name: state.name.clone(),
            devices: state.devices.iter().map(entry).collect(),
        }
    }
}

impl TryFrom<File> for State {
    type Error = String;

    fn try_from(file: File) -> Result<State, String> {
        if file.schema != 1 {
            return Err(format!("schema {} is not known", file.schema));
        }
        let uuid = Uuid::parse(&file.uuid).ok_or_else(|| format!("'{}' is no UUID", file.uuid.escape_default()))?;
        let devices = file.devices.into_iter().map(|entry| {
            Ok(Held {
                address: entry.address.parse().map_err(|error| format!("{error}"))?,
                incarnation: entry.incarnation,
                driver: entry.driver.map(driver).transpose()?,
                before: entry.before.map(binding).transpose()?,
                prepared: prepared(entry.prepared)?,
            })
        });
        Ok(State { uuid, name: file.name, devices: devices.collect::<Result<_, String>>()? })
    }
}

/// As the kernel had told it; but what stands in a file is held to be one component of a path.
fn driver(name: String) -> Result<DriverName, String> {
    match name.is_empty() || name.contains('/') || name == ".." {
        true => Err(format!("'{}' is no driver's name", name.escape_default())),
        false => Ok(DriverName::from_kernel(name)),
    }
}

fn prepared(steps: Vec<Preparation>) -> Result<Vec<Preparation>, String> {
    let has_words =
        |step: &Preparation| !step.command.is_empty() && step.undo.as_ref().is_none_or(|undo| !undo.is_empty());
    match steps.iter().all(has_words) {
        true => Ok(steps),
        false => Err("a step without a program".to_string()),
    }
}

fn binding(before: Before) -> Result<Binding, String> {
    Ok(Binding { driver: before.driver.map(driver).transpose()?, driver_override: before.driver_override })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(uuid: &str, address: &str) -> State {
        let before = Binding { driver: Some(DriverName::from_kernel("budget dvb".to_string())), driver_override: None };
        let held = Held {
            address: address.parse().unwrap(),
            incarnation: Some(7),
            driver: Some("mlx5_vfio_pci".parse().unwrap()),
            before: Some(before),
            prepared: vec![step()],
        };
        let address = "10000:e1:00.0".parse().unwrap();
        let kept = Held { address, incarnation: None, driver: None, before: None, prepared: Vec::new() };
        State { uuid: Uuid::parse(uuid).unwrap(), name: "guest \"1\"".to_string(), devices: vec![held, kept] }
    }

    fn step() -> Preparation {
        Preparation {
            what: "sets it up".to_string(),
            command: vec!["/x".to_string()],
            undo: Some(vec!["/y".to_string(), "z".to_string()]),
            timeout: Some(std::time::Duration::from_secs(5)),
            is_done: false,
            variables: vec![("VFIOCTL_ADDRESS".to_string(), "0000:3b:00.1".to_string())],
        }
    }

    const ONE: &str = "6b1f3c9a-8a3e-4c7e-9b8e-1f2d3c4b5a69";
    const OTHER: &str = "7b1f3c9a-8a3e-4c7e-9b8e-1f2d3c4b5a69";

    #[test]
    fn what_is_written_is_read() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let (one, other) = (state(ONE, "0000:3b:00.1"), state(OTHER, "0000:3b:00.2"));
        assert!(State::read(&host, &one.uuid).unwrap().is_none());
        State::remove(&host, &one.uuid).unwrap();
        one.write(&host).unwrap();
        other.write(&host).unwrap();
        assert_eq!(State::read(&host, &one.uuid).unwrap().as_ref(), Some(&one));
        let (others, errors) = State::of_others(&host, Some(&one.uuid));
        assert_eq!((others, errors.len()), (vec![other], 0));
        assert!(one.held("0000:3b:00.1".parse().unwrap(), Some(7)).is_some());
        assert!(one.held("0000:3b:00.1".parse().unwrap(), Some(8)).is_none(), "made anew since");
        State::remove(&host, &one.uuid).unwrap();
        assert!(State::read(&host, &one.uuid).unwrap().is_none());
        // Nothing is left beside them.
        assert_eq!(fs::read_dir(host.libvirt_domains()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_to_be_given_back() {
        let vfio = || Some("vfio-pci".parse().unwrap());
        let native = Binding { driver: Some("mlx5_core".parse().unwrap()), driver_override: None };
        let now = Binding { driver: vfio(), driver_override: Some("vfio-pci".to_string()) };
        let held = |incarnation: u64, driver: Option<DriverName>, before: Option<&Binding>| Held {
            address: "0000:3b:00.1".parse().unwrap(),
            incarnation: Some(incarnation),
            driver,
            before: before.cloned(),
            // What was done for this domain or an earlier one goes with how the device was before.
            prepared: before.filter(|before| **before == native).map(|_| step()).into_iter().collect(),
        };
        let taken = held(7, vfio(), Some(&native));
        let killed = held(7, None, Some(&native));
        let found = held(7, vfio(), None);
        let moved = held(7, Some("mlx5_vfio_pci".parse().unwrap()), Some(&native));
        let anew = held(8, vfio(), Some(&native));
        for (is_taken_now, earlier, expected) in [
            (true, vec![], Some(&now)),
            (true, vec![&taken], Some(&now)),
            (false, vec![], None),
            (false, vec![&taken], Some(&native)),
            (false, vec![&killed], Some(&native)),
            (false, vec![&found, &taken], Some(&native)),
            // Somebody else has bound it since, or it is another device.
            (false, vec![&found, &moved, &anew], None),
        ] {
            let mut settled = held(7, None, Some(&now));
            settled.settle(vfio(), is_taken_now.then_some(&[]), &earlier);
            assert_eq!(settled, held(7, vfio(), expected), "{is_taken_now} {earlier:?}");
        }
    }

    #[test]
    fn what_is_no_state_is_said() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let one = state(ONE, "0000:3b:00.1");
        one.write(&host).unwrap();
        let good = fs::read_to_string(path(&host, &one.uuid)).unwrap();
        for bad in [
            String::new(),
            good[..good.len() / 2].to_string(),
            good.replace("\"schema\":1", "\"schema\":2"),
            good.replace(ONE, "../../etc"),
            good.replace("mlx5_vfio_pci", "../../x"),
            good.replace("budget dvb", ""),
            good.replace("0000:3b:00.1", "3b:20.1"),
        ] {
            assert_ne!(bad, good);
            fs::write(path(&host, &one.uuid), &bad).unwrap();
            let error = State::read(&host, &one.uuid).unwrap_err().to_string();
            assert!(error.contains(ONE), "{error}");
            assert_eq!(State::of_others(&host, None).1.len(), 1);
        }
    }
}
