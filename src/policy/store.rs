// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one file a device that `bind` writes and `unbind` removes: whole or not there, whatever happens in between.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use tempfile::{Builder, NamedTempFile};

use super::rule::Choice;
use super::trust::{self, Distrust};
use crate::address::Address;
use crate::file;
use crate::fresh::Fresh;
use crate::guard::Uses;
use crate::host::Host;
use crate::matcher::Modalias;
use crate::prepare::Recipe;
use crate::require::Feature;

/// How the files that are ours begin.
const OWN: &str = "# Written by 'vfioctl ";

/// How the names of drafts end. They begin with a dot.
const DRAFT: &str = ".draft";

/// A policy file that could not be written or removed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {path}: {source}")]
pub struct StoreError {
    pub(super) action: &'static str,
    pub(super) path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// A policy file that is written, and safe on disk, but not yet in force. Dropped, it is gone.
#[derive(Debug)]
pub struct Draft {
    file: NamedTempFile,
    path: PathBuf,
    is_news: bool,
}

/// Where `bind` keeps its choice for a device.
pub fn own_file(host: &Host, address: Address) -> PathBuf {
    host.policy_directories()[0].join(format!("{address}.toml"))
}

/// Is there such a file, by our own hand? Of others' files of that name we keep off.
pub fn has_own_file(host: &Host, address: Address) -> bool {
    is_own(&own_file(host, address)).unwrap_or(false)
}

/// May that file be written, as far as it is ours?
pub fn check_replaceable(host: &Host, address: Address) -> Result<(), StoreError> {
    let path = own_file(host, address);
    match is_own(&path) {
        Some(false) => {
            let source = io::Error::other("it is there, and not by vfioctl's hand; edit or rename it");
            Err(StoreError { action: "write", path, source })
        }
        _ => Ok(()),
    }
}

/// May that file be removed, as far as one can tell without trying?
pub fn check_forgettable(host: &Host, address: Address) -> Result<(), StoreError> {
    let path = own_file(host, address);
    access(parent(&path), Access::WRITE_OK).map_err(|errno| StoreError { action: "remove", path, source: errno.into() })
}

/// Does the file begin as ours do? `None`: there is none.
fn is_own(path: &Path) -> Option<bool> {
    match file::read(path, file::SETTINGS) {
        Ok(text) => Some(text.starts_with(OWN.as_bytes())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.symlink_metadata().ok().map(|_| false),
        Err(_) => Some(false),
    }
}

/// What is kept of a choice.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The driver.
    pub driver: &'a Choice,
    /// What must come with it.
    pub require: &'a [Feature],
    /// What this host may lose with the device; what it cannot be without is not kept.
    pub acknowledged: Uses,
    /// What is to be done before it comes.
    pub recipe: Option<&'a Recipe>,
}

impl Draft {
    /// Writes the choice for a device beside its place, so that a full disk or a read-only /etc shows before the device
    /// is touched.
    pub fn write(host: &Host, address: Address, modalias: &Modalias, terms: Terms<'_>) -> Result<Draft, StoreError> {
        Draft::by("bind", host, address, Some(modalias), terms)
    }

    /// The same for a choice that was taken over from driverctl; without a modalias, as where no device is there, whatever
    /// is at the address will be meant.
    pub fn import(
        host: &Host,
        address: Address,
        modalias: Option<&Modalias>,
        terms: Terms<'_>,
    ) -> Result<Draft, StoreError> {
        Draft::by("import-driverctl", host, address, modalias, terms)
    }

    fn by(
        verb: &str,
        host: &Host,
        address: Address,
        modalias: Option<&Modalias>,
        terms: Terms<'_>,
    ) -> Result<Draft, StoreError> {
        let path = own_file(host, address);
        check_replaceable(host, address)?;
        let directory = parent(&path);
        let text = text(verb, address, modalias, terms);
        let is_news = !says(&path, &text);
        let write = || -> io::Result<NamedTempFile> {
            make_directory(directory)?;
            sweep(host, address);
            let mut file = Builder::new()
                .prefix(&draft_name(address))
                .rand_bytes(0)
                .permissions(Permissions::from_mode(0o644))
                .tempfile_in(directory)?;
            // The umask counts for what tempfile sets; others' tools may read policy.
            file.as_file().set_permissions(Permissions::from_mode(0o644))?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            Ok(file)
        };
        let file = write().map_err(|source| StoreError { action: "write", path: path.clone(), source })?;
        Ok(Draft { file, path, is_news })
    }

    /// Does it say anything that is not in force already?
    pub fn is_news(&self) -> bool {
        self.is_news
    }

    /// Will it be believed, where it lies?
    pub fn check_trust(&self, host: &Host) -> Result<(), Distrust> {
        trust::check(host, self.file.as_file(), self.file.path())
    }

    /// Puts it in force.
    pub fn commit(self) -> Result<PathBuf, StoreError> {
        let Draft { file, path, .. } = self;
        file.persist(&path)
            .map_err(|error| error.error)
            .and_then(|_| sync_directory(&path))
            .map_err(|source| StoreError { action: "write", path: path.clone(), source })?;
        Ok(path)
    }
}

/// Would [`Draft::write`] write what is in force already?
pub fn is_kept(host: &Host, address: Address, modalias: &Modalias, terms: Terms<'_>) -> bool {
    says(&own_file(host, address), &text("bind", address, Some(modalias), terms))
}

/// What the file says of a choice that is kept.
fn text(verb: &str, address: Address, modalias: Option<&Modalias>, terms: Terms<'_>) -> String {
    let id = modalias.map(|modalias| format!("id = \"{}:{}\"\n", modalias.vendor(), modalias.device()));
    let names: Vec<String> = terms.require.iter().map(|feature| format!("\"{}\"", feature.name())).collect();
    let kept: Vec<String> = terms.acknowledged.to_keep().map(|used_as| format!("\"{}\"", used_as.name())).collect();
    let force = if kept.is_empty() { String::new() } else { format!("force = [{}]\n", kept.join(", ")) };
    let require = if names.is_empty() { String::new() } else { format!("require = [{}]\n", names.join(", ")) };
    format!(
        "{OWN}{verb}'; 'vfioctl unbind {address}' removes it. See vfioctl.d(5).\n\
         [[device]]\naddress = \"{address}\"\n{}driver = \"{}\"\n{require}{force}{}",
        id.unwrap_or_default(),
        terms.driver,
        terms.recipe.map(|recipe| format!("prepare = {recipe}\n")).unwrap_or_default()
    )
}

/// Does the file say just that?
fn says(path: &Path, text: &str) -> bool {
    file::read(path, file::SETTINGS).is_ok_and(|there| there == text.as_bytes())
}

/// The devices for which there are drafts: those of runs that were killed, or are at it now.
pub fn drafts(host: &Host) -> Vec<Address> {
    let entries = fs::read_dir(&host.policy_directories()[0]).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_prefix('.')?.strip_suffix(DRAFT)?.parse().ok()).collect()
}

/// Is there a draft that is not in force?
pub fn has_draft(host: &Host, address: Address) -> bool {
    draft(host, address).symlink_metadata().is_ok()
}

/// Removes the draft of a run that was killed. Under the device's lock it is nobody else's.
pub fn sweep(host: &Host, address: Address) {
    // It is no policy; that it cannot be removed is no reason to do nothing.
    let _ = fs::remove_file(draft(host, address));
}

fn draft(host: &Host, address: Address) -> PathBuf {
    own_file(host, address).with_file_name(draft_name(address))
}

/// Hidden, so that no reader of the directory takes it for policy.
fn draft_name(address: Address) -> String {
    format!(".{address}{DRAFT}")
}

/// Whatever the umask: what others could change is not believed in all it says.
fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
    // What is in it lasts no longer than its own name.
    sync_directory(directory)
}

/// Removes the file that `bind` wrote; `false` where there is none.
pub fn forget(host: &Host, address: Address) -> Result<bool, StoreError> {
    let path = own_file(host, address);
    if is_own(&path) != Some(true) {
        return Ok(false);
    }
    let fail = |source| StoreError { action: "remove", path: path.clone(), source };
    match fs::remove_file(&path) {
        Ok(()) => sync_directory(&path).map(|()| true).map_err(fail),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(fail(error)),
    }
}

/// A rename or removal lasts once the directory is on disk: for those of many devices at a time, that is written once.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    static WRITES: Fresh<io::Result<()>> = Fresh::new();
    let written = WRITES.get(parent(path), || File::open(parent(path))?.sync_all());
    match &*written {
        Ok(()) => Ok(()),
        Err(error) => Err(error.raw_os_error().map_or(error.kind().into(), io::Error::from_raw_os_error)),
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().expect("a policy file is in a directory")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Use;
    use crate::policy::{Decision, Policy};
    use crate::sysfs::Device;

    const AUTO: Terms<'static> = Terms { driver: &Choice::Auto, require: &[], acknowledged: Uses::NONE, recipe: None };

    fn setup() -> (tempfile::TempDir, Host, Address, Modalias) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let modalias = "pci:v000015B3d0000101Esv000015B3sd00000023bc02sc00i00".parse().unwrap();
        (root, host, "0000:3b:00.1".parse().unwrap(), modalias)
    }

    #[test]
    fn what_is_written_is_read_back_and_forgotten() {
        let (_root, host, address, modalias) = setup();
        let draft = Draft::write(&host, address, &modalias, AUTO).unwrap();
        assert!(Policy::read(&host).0.rules.is_empty(), "a draft is not in force");
        let path = draft.commit().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);

        let (policy, errors) = Policy::read(&host);
        assert!(errors.is_empty());
        let device = Device { address, modalias, driver: None, iommu_group: None, pf: None, vfs: Vec::new() };
        assert!(matches!(policy.decide(&device), Some(Decision::Rule(rule)) if rule.driver == Choice::Auto));

        assert!(forget(&host, address).unwrap());
        assert!(!forget(&host, address).unwrap());
        assert!(Policy::read(&host).0.rules.is_empty());
    }

    #[test]
    fn what_is_to_be_done_before_is_kept_as_it_was_written() {
        let (_root, host, address, modalias) = setup();
        let text = "[{ run = ['x', '{pf} \"a\"'], undo = ['y', '{{}}'], timeout = 5 }, ['z']]";
        let table: toml::Table = format!("prepare = {text}").parse().unwrap();
        for recipe in [Recipe::Auto, Recipe::parse(&table["prepare"]).unwrap()] {
            let terms = Terms { recipe: Some(&recipe), ..AUTO };
            Draft::write(&host, address, &modalias, terms).unwrap().commit().unwrap();
            let (policy, errors) = Policy::read(&host);
            assert!(errors.is_empty(), "{errors:?}");
            assert_eq!(policy.rules[0].recipe(), Some(&recipe));
        }
    }

    #[test]
    fn what_is_required_and_what_may_be_lost_is_kept() {
        let (_root, host, address, modalias) = setup();
        let required = [Feature::Migration, Feature::DirtyTracking];
        let acknowledged = [Use::RootDisk, Use::Network, Use::Sound].into_iter().collect();
        let terms = Terms { require: &required, acknowledged, ..AUTO };
        Draft::write(&host, address, &modalias, terms).unwrap().commit().unwrap();
        let (policy, errors) = Policy::read(&host);
        assert!(errors.is_empty(), "{errors:?}");
        assert_eq!(policy.rules[0].require, required);
        // What this host cannot be without is asked for each time.
        assert_eq!(policy.rules[0].acknowledged, [Use::Network, Use::Sound].into_iter().collect());
    }

    #[test]
    fn what_others_wrote_is_left_alone() {
        let (_root, host, address, modalias) = setup();
        let path = own_file(&host, address);
        fs::create_dir_all(parent(&path)).unwrap();
        fs::write(&path, "# By hand.\n").unwrap();
        let error = Draft::write(&host, address, &modalias, AUTO).unwrap_err();
        assert!(error.to_string().contains("not by vfioctl's hand"), "{error}");
        assert!(!has_own_file(&host, address));
        assert!(!forget(&host, address).unwrap());
        assert!(path.exists());
    }

    #[test]
    fn what_was_imported_is_ours_too() {
        let (_root, host, address, modalias) = setup();
        let other = "pci:v00008086d00001533sv00008086sd00000000bc02sc00i00".parse().unwrap();
        for (guard, expected) in [(Some(&modalias), false), (None, true)] {
            Draft::import(&host, address, guard, Terms { driver: &Choice::None, ..AUTO }).unwrap().commit().unwrap();
            assert!(has_own_file(&host, address));
            let (policy, _) = Policy::read(&host);
            let device = |modalias: &Modalias| {
                let modalias = modalias.clone();
                Device { address, modalias, driver: None, iommu_group: None, pf: None, vfs: Vec::new() }
            };
            assert!(matches!(policy.decide(&device(&modalias)), Some(Decision::Rule(_))));
            assert_eq!(matches!(policy.decide(&device(&other)), Some(Decision::Rule(_))), expected);
            assert!(forget(&host, address).unwrap());
        }
    }

    #[test]
    fn a_dropped_draft_leaves_nothing() {
        let (_root, host, address, modalias) = setup();
        drop(Draft::write(&host, address, &modalias, AUTO).unwrap());
        assert_eq!(fs::read_dir(&host.policy_directories()[0]).unwrap().count(), 0);
    }
}
