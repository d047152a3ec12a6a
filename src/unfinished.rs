// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a run is at: written down before the first step that changes a device, and removed when the work has come to an end,
//! good or bad. What is found under a device's lock is that of a run that was killed; `apply` puts it back. One file a
//! device, below /run, since nothing of it is true after a boot.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::address::Address;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::lock::DeviceLock;
use crate::plan::Binding;
use crate::policy;
use crate::prepare::Preparation;
use crate::sysfs::Device;

/// What a record that cannot be believed is called from then on.
const ASIDE: &str = "set-aside";

/// Work that was begun.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unfinished {
    /// What it is, as one would type it: `bind`, `unbind`, `sriov`.
    pub verb: String,
    /// Which of those that were at the address one after the other.
    pub incarnation: Option<u64>,
    /// On what.
    pub work: Work,
}

/// What putting it back takes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Work {
    /// On a device's binding.
    Device {
        /// How it was.
        before: Was,
        /// The drivers it may have been put on by now, and what its override may be.
        names: BTreeSet<String>,
        /// May the kernel have put it on any driver?
        is_probed: bool,
        /// What may have been done to it besides.
        prepared: Vec<Preparation>,
        /// What becomes of the choice that is kept; with that, the work is done.
        end: Option<End>,
    },
    /// On a PF's VFs.
    Pf {
        /// How many it had.
        count: u16,
        /// How many it was to have.
        wanted: u16,
        /// Were VFs probed when they appeared?
        is_autoprobed: bool,
        /// How they were, in the order of their numbers.
        vfs: Vec<WasVf>,
    },
}

/// What ends work on a device: one change of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    /// The choice is kept: its draft gets the name under which it is in force.
    Save,
    /// The choice that is kept is removed.
    Forget,
}

/// How a device was bound.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Was {
    driver: Option<String>,
    driver_override: Option<String>,
}

/// How a VF was.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct WasVf {
    /// Where.
    pub address: Address,
    /// Which of those that were there.
    pub incarnation: Option<u64>,
    /// How it was bound.
    pub binding: Was,
    /// The drivers it may have been put on by now, and what its override may be. None: as long as it is that VF, it is not
    /// touched.
    pub names: BTreeSet<String>,
    /// May something have been prepared for it?
    pub is_prepared: bool,
}

/// A record that could not be read, written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct RecordError {
    action: &'static str,
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

#[derive(Serialize, Deserialize)]
struct Document {
    schema: u32,
    #[serde(flatten)]
    unfinished: Unfinished,
}

impl From<&Binding> for Was {
    fn from(binding: &Binding) -> Was {
        let driver = binding.driver.as_ref().map(DriverName::to_string);
        Was { driver, driver_override: binding.driver_override.clone() }
    }
}

impl From<&Was> for Binding {
    fn from(was: &Was) -> Binding {
        let driver = was.driver.clone().map(DriverName::from_kernel);
        Binding { driver, driver_override: was.driver_override.clone() }
    }
}

impl Unfinished {
    /// Work on a device's binding, of which nothing is done.
    pub fn of_device(verb: &str, incarnation: Option<u64>, before: &Binding, end: Option<End>) -> Unfinished {
        let (names, prepared) = (BTreeSet::new(), Vec::new());
        let work = Work::Device { before: Was::from(before), names, is_probed: false, prepared, end };
        Unfinished { verb: verb.to_string(), incarnation, work }
    }

    /// From now on the device may be on these drivers, or have them as its override.
    pub fn name(&mut self, more: impl IntoIterator<Item = String>) {
        if let Work::Device { names, .. } = &mut self.work {
            names.extend(more);
        }
    }

    /// From now on it may be on any, if it `is_so`.
    pub fn may_be_probed(&mut self, is_so: bool) {
        if let Work::Device { is_probed, .. } = &mut self.work {
            *is_probed |= is_so;
        }
    }

    /// It does not come to the end it was to come to.
    pub fn fail(&mut self) {
        if let Work::Device { end, .. } = &mut self.work {
            *end = None;
        }
    }

    /// Was all done when the run was killed?
    pub fn is_over(&self, host: &Host, address: Address) -> bool {
        match &self.work {
            Work::Device { end: Some(End::Save), .. } => {
                !policy::has_draft(host, address) && policy::has_own_file(host, address)
            }
            Work::Device { end: Some(End::Forget), .. } => !policy::has_own_file(host, address),
            Work::Device { end: None, .. } | Work::Pf { .. } => false,
        }
    }

    /// So much may have been done to it.
    pub fn set_prepared(&mut self, all: &[Preparation]) {
        if let Work::Device { prepared, .. } = &mut self.work {
            *prepared = all.to_vec();
        }
    }

    /// How the device was before.
    pub fn before(&self) -> Option<Binding> {
        match &self.work {
            Work::Device { before, .. } => Some(Binding::from(before)),
            Work::Pf { .. } => None,
        }
    }

    /// Reads a device's; `None`: nothing was begun, or it came to its end. To be asked under the device's lock.
    pub fn read(host: &Host, address: Address) -> Result<Option<Unfinished>, RecordError> {
        let path = host.unfinished(address);
        match believe(host, &path) {
            Ok(unfinished) => Ok(Some(unfinished)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RecordError { action: "read", path, source }),
        }
    }

    /// The same without the lock, for telling: work that nobody is at any more.
    pub fn abandoned(host: &Host, address: Address) -> Option<Unfinished> {
        let found = Unfinished::read(host, address).ok()??;
        // Looked for first: the lock is given up once the record is gone.
        DeviceLock::is_free(host, address).then_some(found)
    }

    /// The devices that have a record, or what was to become one, by address.
    pub fn addresses(host: &Host) -> Vec<Address> {
        let entries = fs::read_dir(host.unfinished_works()).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut addresses: Vec<Address> = names.filter_map(|name| name.trim_start_matches('.').parse().ok()).collect();
        addresses.sort();
        addresses.dedup();
        addresses
    }

    /// Is it about the device that is at the address now?
    pub fn is_about(&self, host: &Host, address: Address) -> bool {
        self.incarnation.is_some() && Device::incarnation(host, address) == self.incarnation
    }

    /// Writes it, whole or not at all. After a power cut there is no /run to be read: nothing waits for a disk.
    pub fn write(&self, host: &Host, address: Address) -> Result<(), RecordError> {
        let path = host.unfinished(address);
        let write = || -> io::Result<()> {
            let text = serde_json::to_vec(&Document { schema: 1, unfinished: self.clone() })?;
            DirBuilder::new().recursive(true).mode(0o700).create(host.unfinished_works())?;
            let draft = draft(&path);
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            let written = file.write_all(&text).and_then(|()| fs::rename(&draft, &path));
            if written.is_err() {
                let _ = fs::remove_file(&draft);
            }
            written
        };
        write().map_err(|source| RecordError { action: "write", path: path.clone(), source })
    }

    /// Removes a device's, if there is one.
    pub fn remove(host: &Host, address: Address) -> Result<(), RecordError> {
        let path = host.unfinished(address);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(RecordError { action: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// Removes what a run that was killed had not written to its end. Under the lock it is nobody's.
    pub fn sweep(host: &Host, address: Address) {
        let _ = fs::remove_file(draft(&host.unfinished(address)));
    }
}

/// `an earlier 'vfioctl bind' was killed at it`
impl fmt::Display for Unfinished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an earlier 'vfioctl {}' was killed at it", self.verb)
    }
}

impl RecordError {
    /// Puts a record that cannot be believed where it is not looked for, and says where that is.
    pub fn set_aside(&self) -> io::Result<PathBuf> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let aside = self.path.with_file_name(format!("{name}.{ASIDE}"));
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }
}

/// A record has what root is to run: others must not have been able to write it, nor to put it there. /run itself is the
/// system's.
fn believe(host: &Host, path: &Path) -> io::Result<Unfinished> {
    let mut file = OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits() as i32).open(path)?;
    check_owner(path, &file.metadata()?)?;
    for directory in [host.unfinished_works(), host.locks()] {
        check_owner(&directory, &fs::symlink_metadata(&directory)?)?;
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)?;
    parse(&text)
}

fn parse(text: &[u8]) -> io::Result<Unfinished> {
    let Document { schema, unfinished } = serde_json::from_slice(text)?;
    if schema != 1 {
        return Err(invalid(format!("schema {schema} is not known")));
    }
    unfinished.check().map_err(invalid)?;
    Ok(unfinished)
}

fn check_owner(path: &Path, data: &Metadata) -> io::Result<()> {
    let is_ours = [0, geteuid().as_raw()].contains(&data.uid()) && !data.is_symlink();
    match data.mode() & 0o7777 {
        _ if !is_ours => Err(invalid(format!("{} is not root's", path.display()))),
        mode if mode & 0o022 != 0 => {
            Err(invalid(format!("{} may be written by others than root (mode {mode:04o})", path.display())))
        }
        _ => Ok(()),
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

impl Unfinished {
    /// What becomes part of a path, or is run, is held to be fit for that.
    fn check(&self) -> Result<(), String> {
        let (bindings, prepared): (Vec<&Was>, &[Preparation]) = match &self.work {
            Work::Device { before, prepared, .. } => (vec![before], prepared),
            Work::Pf { vfs, .. } => (vfs.iter().map(|vf| &vf.binding).collect(), &[]),
        };
        let is_component = |name: &&String| !name.is_empty() && !name.contains('/') && *name != "." && *name != "..";
        if let Some(name) = bindings.iter().filter_map(|was| was.driver.as_ref()).find(|name| !is_component(name)) {
            return Err(format!("'{}' is no driver's name", name.escape_default()));
        }
        let has_words =
            |step: &Preparation| !step.command.is_empty() && step.undo.as_ref().is_none_or(|undo| !undo.is_empty());
        if prepared.iter().all(has_words) { Ok(()) } else { Err("a step without a program".to_string()) }
    }
}

fn draft(path: &Path) -> PathBuf {
    path.with_file_name(format!(".{}", path.file_name().unwrap_or_default().to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn was(driver: &str) -> Was {
        Was { driver: Some(driver.to_string()), driver_override: None }
    }

    fn works() -> [Work; 2] {
        let step = Preparation {
            what: "sets it up".to_string(),
            command: vec!["/x".to_string()],
            undo: Some(vec!["/y".to_string(), "z".to_string()]),
            timeout: Some(std::time::Duration::from_secs(5)),
            is_done: false,
            variables: Vec::new(),
        };
        let vf = WasVf {
            address: "0000:3b:00.2".parse().unwrap(),
            incarnation: Some(8),
            binding: was("budget dvb"),
            names: BTreeSet::from(["vfio-pci".to_string()]),
            is_prepared: true,
        };
        [
            Work::Device {
                before: was("mlx5_core"),
                names: BTreeSet::from(["mlx5_vfio_pci".to_string()]),
                is_probed: false,
                prepared: vec![step],
                end: Some(End::Save),
            },
            Work::Pf { count: 1, wanted: 4, is_autoprobed: true, vfs: vec![vf] },
        ]
    }

    #[test]
    fn what_is_written_says_what_was_meant() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let [one, other] = ["0000:3b:00.1", "10000:e1:00.0"].map(|text| text.parse().unwrap());
        for work in works() {
            let unfinished = Unfinished { verb: "bind".to_string(), incarnation: Some(7), work };
            unfinished.write(&host, other).unwrap();
            unfinished.write(&host, one).unwrap();
            assert_eq!(Unfinished::addresses(&host), [one, other]);
            assert_eq!(parse(&fs::read(host.unfinished(one)).unwrap()).unwrap(), unfinished);
            Unfinished::remove(&host, one).unwrap();
            Unfinished::remove(&host, one).unwrap();
            assert_eq!(Unfinished::addresses(&host), [other]);
        }
        // Whatever becomes of a draft, it is no record, and the next run takes it away.
        fs::write(draft(&host.unfinished(one)), "{").unwrap();
        assert_eq!(Unfinished::addresses(&host), [one, other]);
        assert!(Unfinished::read(&host, one).unwrap().is_none());
        Unfinished::sweep(&host, one);
        assert_eq!(Unfinished::addresses(&host), [other]);
        assert_eq!(fs::read_dir(host.unfinished_works()).unwrap().count(), 1);
    }

    #[test]
    fn what_others_could_have_written_is_not_believed_and_put_aside() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let address = "0000:3b:00.1".parse().unwrap();
        let [work, _] = works();
        Unfinished { verb: "bind".to_string(), incarnation: Some(7), work }.write(&host, address).unwrap();
        assert!(Unfinished::read(&host, address).unwrap().is_some());
        for path in [host.locks(), host.unfinished_works(), host.unfinished(address)] {
            let permissions = fs::metadata(&path).unwrap().permissions();
            fs::set_permissions(&path, PermissionsExt::from_mode(0o772)).unwrap();
            let error = Unfinished::read(&host, address).unwrap_err().to_string();
            assert!(error.contains(&format!("{} may be written by others", path.display())), "{error}");
            fs::set_permissions(&path, permissions).unwrap();
        }
        let elsewhere = root.path().join("elsewhere");
        fs::rename(host.unfinished(address), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, host.unfinished(address)).unwrap();
        let error = Unfinished::read(&host, address).unwrap_err();
        let aside = error.set_aside().unwrap();
        assert!(aside.ends_with("0000:3b:00.1.set-aside") && aside.symlink_metadata().is_ok());
        assert!(Unfinished::read(&host, address).unwrap().is_none());
        assert!(Unfinished::addresses(&host).is_empty());
    }

    #[test]
    fn what_is_no_record_is_said() {
        for work in works() {
            let unfinished = Unfinished { verb: "bind".to_string(), incarnation: Some(7), work };
            let good = serde_json::to_string(&Document { schema: 1, unfinished }).unwrap();
            assert!(parse(good.as_bytes()).is_ok());
            for (from, to) in [
                ("\"schema\":1", "\"schema\":2"),
                ("mlx5_core", "../../x"),
                ("budget dvb", ""),
                ("[\"/x\"]", "[]"),
                ("0000:3b:00.2", "0000:3b:20.2"),
            ] {
                let bad = good.replace(from, to);
                assert!(bad == good || parse(bad.as_bytes()).is_err(), "{bad}");
            }
            for length in 0..good.len() {
                assert!(parse(&good.as_bytes()[..length]).is_err());
            }
        }
    }
}
