// SPDX-License-Identifier: MIT OR Apache-2.0
//! Is what the initramfs knows of choices what is kept now? It has a copy of its own.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use walkdir::WalkDir;

use super::Scene;
use super::finding::{Finding, some};
use super::kept::Kept;
use super::mkinitcpio::{self, Place};
use crate::address::Address;
use crate::builder::Builder;
use crate::catalog::Catalog;
use crate::file;
use crate::kernel_name::DriverName;

const CHECK: &str = "initramfs";
const EARLY: &str = "early-boot";

/// What has rpm-ostree make the initramfs here, anew with each deployment; that of the image knows nothing of this host.
const OSTREE: &str = "rpm-ostree initramfs --enable   (with the package of vfioctl's hook for dracut layered)";

/// How things stand.
#[derive(Debug)]
pub struct Facts {
    release: String,
    /// Is it an image that OSTree has deployed, in which no file has a time of its own?
    is_ostree: bool,
    /// Our hooks, each for a builder: where it is.
    hooks: Vec<(Builder, String)>,
    /// Where mkinitcpio is told to take its hook.
    place: Place,
    /// The image, and when it was written.
    image: Option<(String, SystemTime)>,
    /// Can /boot be looked into?
    is_boot_seen: bool,
    /// Of what goes into it the newest, and when it was written.
    newest: Option<(String, SystemTime)>,
    /// Whose program is installed, where that is one alone.
    builder: Option<Builder>,
    /// Devices that are kept, on native drivers of a kind that an initramfs has; each with its driver.
    early: Vec<(Address, DriverName)>,
}

/// Classes whose drivers an initramfs has: storage, network, display.
const EARLY_CLASSES: [&str; 3] = ["01", "02", "03"];

/// Reads it.
pub fn gather(scene: &Scene<'_>, kept: &[Kept]) -> Facts {
    let host = scene.host;
    let there: Vec<Builder> =
        Builder::ALL.into_iter().filter(|builder| host.program(builder.program()).is_some()).collect();
    let hooks: Vec<(Builder, PathBuf)> =
        Builder::ALL.into_iter().filter_map(|builder| Some((builder, builder.hook(host)?))).collect();
    let package = file::read_to_string(&host.kernel_package(&scene.release), file::ATTRIBUTE).ok();
    let package = package.as_deref().map(str::trim).filter(|name| !name.is_empty() && !name.contains('/'));
    let images = host.initramfs_images(&scene.release, package);
    let image = images.iter().find_map(|path| Some((path, fs::metadata(path).ok()?.modified().ok()?)));
    let mut sources = host.policy_directories().to_vec();
    sources.extend(host.modprobe_directories());
    sources.extend(hooks.iter().map(|(_, path)| path.clone()));
    let [configuration, more] = host.mkinitcpio_configuration();
    let mut more: Vec<PathBuf> = fs::read_dir(more).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    more.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    more.sort();
    let configuration = std::iter::once(configuration).chain(more);
    let configuration: Vec<String> =
        configuration.filter_map(|path| file::read_to_string(&path, file::SETTINGS).ok()).collect();
    let is_early = |kept: &&Kept| {
        let is_native = |driver: &DriverName| Catalog::bundled().by_driver(driver.as_str()).is_none();
        !kept.is_so()
            && !kept.is_given_away
            && EARLY_CLASSES.iter().any(|class| kept.class.starts_with(class))
            && kept.driver.as_ref().is_some_and(is_native)
    };
    Facts {
        release: scene.release.clone(),
        is_ostree: host.ostree_booted().exists(),
        place: mkinitcpio::place(&configuration.join("\n")),
        image: image.map(|(path, time)| (scene.at(path), time)),
        is_boot_seen: images.first().and_then(|path| path.parent()).is_some_and(|boot| fs::read_dir(boot).is_ok()),
        newest: newest(&sources).map(|(path, time)| (scene.at(&path), time)),
        hooks: hooks.iter().map(|(builder, path)| (*builder, scene.at(path))).collect(),
        // Debian has parts of dracut installed beside initramfs-tools.
        builder: there.first().copied().filter(|_| there.len() == 1),
        early: kept.iter().filter(is_early).filter_map(|kept| Some((kept.address, kept.driver.clone()?))).collect(),
    }
}

/// What was changed last. A file that went has changed its directory.
fn newest(places: &[PathBuf]) -> Option<(PathBuf, SystemTime)> {
    let entries = places.iter().flat_map(|place| WalkDir::new(place).max_depth(2)).flatten();
    let times = entries.filter_map(|entry| {
        let time = fs::symlink_metadata(entry.path()).ok()?.modified().ok()?;
        Some((entry.into_path(), time))
    });
    times.max_by_key(|(_, time)| *time)
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Where there are hooks for several, that for who is there counts.
    let used = facts.hooks.iter().find(|(builder, _)| Some(*builder) == facts.builder);
    if let Some((builder, hook)) = used.or(facts.hooks.first()) {
        findings.push(of_image(facts, *builder, hook));
    }
    if let (false, Some((address, driver))) = (has_hook(facts), facts.early.first()) {
        let addresses: Vec<Address> = facts.early.iter().map(|(address, _)| *address).collect();
        let message = format!(
            "no hook of vfioctl is in the initramfs: if that has {driver}, it takes {} before a choice is looked at",
            some(&addresses)
        );
        let finding = Finding::warning(EARLY, message).seen(format!("/sys/bus/pci/devices/{address}/driver"), driver);
        findings.push(match facts.builder {
            // /usr is not written to there.
            _ if facts.is_ostree => finding.mend(OSTREE),
            Some(builder) => finding
                .mend(format!("make {}   (in vfioctl's source; or its package for that)", builder.target()))
                .mend(builder.command(Some(&facts.release))),
            None => {
                finding.mend("install the hook for what makes the initramfs (dracut, initramfs-tools or mkinitcpio)")
            }
        });
    }
    findings
}

fn has_hook(facts: &Facts) -> bool {
    facts.hooks.iter().any(|(builder, _)| *builder != Builder::Mkinitcpio || facts.place != Place::Missing)
}

fn of_image(facts: &Facts, builder: Builder, hook: &str) -> Finding {
    let release = &facts.release;
    let command = builder.command(Some(release));
    if builder == Builder::Mkinitcpio && facts.place == Place::Late {
        return Finding::warning(
            CHECK,
            "the hook for mkinitcpio is without effect: it runs when udev has loaded drivers",
        )
        .seen("/etc/mkinitcpio.conf", "'vfioctl' behind 'udev' in HOOKS")
        .mend("put vfioctl before udev in HOOKS in /etc/mkinitcpio.conf")
        .mend(command);
    }
    if builder == Builder::Mkinitcpio && facts.place == Place::Missing {
        return Finding::note(CHECK, "the hook for mkinitcpio is installed, but not taken into the initramfs")
            .seen(hook, "there")
            .seen("/etc/mkinitcpio.conf", "no 'vfioctl' in HOOKS")
            .mend("add vfioctl to HOOKS in /etc/mkinitcpio.conf, before udev or systemd")
            .mend(command);
    }
    if facts.is_ostree {
        let message = format!(
            "whether the initramfs of kernel {release} is as choices are now cannot be told: OSTree keeps no times"
        );
        return Finding::note(CHECK, message).seen("/run/ostree-booted", "there").mend(OSTREE);
    }
    let Some((image, made)) = &facts.image else {
        let why = if facts.is_boot_seen { "no image is found" } else { "/boot cannot be looked into" };
        return Finding::note(
            CHECK,
            format!("whether the initramfs of kernel {release} is as choices are now cannot be told: {why}"),
        )
        .seen("/boot", why);
    };
    match &facts.newest {
        Some((path, changed)) if changed > made => Finding::warning(
            CHECK,
            format!("the initramfs is older than what it has a copy of: {path} has changed since"),
        )
        .seen(image, "written before")
        .seen(path, "changed after")
        .mend(command),
        _ => Finding::pass(CHECK, "the initramfs is newer than all choices").seen(image, "written after them"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use super::super::Severity;
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn touch(path: &Path, seconds: u64) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().set_modified(at(seconds)).unwrap();
    }

    fn facts(builder: Option<Builder>, image: Option<u64>, newest: u64) -> Facts {
        Facts {
            release: "6.12.0".to_string(),
            is_ostree: false,
            hooks: builder.map(|builder| (builder, "/usr/lib/hook".to_string())).into_iter().collect(),
            place: Place::Early,
            image: image.map(|seconds| ("/boot/initrd.img-6.12.0".to_string(), at(seconds))),
            is_boot_seen: true,
            newest: Some(("/etc/vfioctl.d/x.toml".to_string(), at(newest))),
            builder: None,
            early: Vec::new(),
        }
    }

    #[test]
    fn who_makes_it_anew() {
        use Severity::{Note, Pass, Warning};
        let early = || vec![("0000:3b:00.1".parse().unwrap(), "nvme".parse().unwrap())];
        for (facts, severity, mend) in [
            (facts(Some(Builder::Dracut), Some(2), 1), Pass, ""),
            (facts(Some(Builder::Dracut), Some(1), 2), Warning, "dracut --force --kver 6.12.0"),
            (facts(Some(Builder::InitramfsTools), Some(1), 2), Warning, "update-initramfs -u -k 6.12.0"),
            (facts(Some(Builder::Mkinitcpio), Some(1), 2), Warning, "mkinitcpio -P"),
            (
                Facts { place: Place::Missing, ..facts(Some(Builder::Mkinitcpio), Some(1), 2) },
                Note,
                "add vfioctl to HOOKS",
            ),
            // However new the image is.
            (
                Facts { place: Place::Late, ..facts(Some(Builder::Mkinitcpio), Some(2), 1) },
                Warning,
                "put vfioctl before udev in HOOKS",
            ),
            (facts(Some(Builder::Dracut), None, 2), Note, ""),
            (Facts { early: early(), ..facts(None, None, 2) }, Warning, "install the hook"),
            (Facts { is_ostree: true, ..facts(Some(Builder::Dracut), Some(0), 2) }, Note, "rpm-ostree initramfs"),
            (
                Facts { is_ostree: true, early: early(), builder: Some(Builder::Dracut), ..facts(None, None, 2) },
                Warning,
                "rpm-ostree initramfs --enable",
            ),
            (
                Facts { early: early(), builder: Some(Builder::InitramfsTools), ..facts(None, None, 2) },
                Warning,
                "make install-initramfs-tools",
            ),
        ] {
            let findings = judge(&facts);
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert_eq!(findings[0].severity, severity, "{findings:?}");
            assert!(findings[0].mend.first().cloned().unwrap_or_default().starts_with(mend), "{findings:?}");
        }
        assert!(judge(&facts(None, Some(1), 2)).is_empty());
        // With the hook in, what is wrong is something else.
        assert_eq!(judge(&Facts { early: early(), ..facts(Some(Builder::Dracut), Some(2), 1) }).len(), 1);
    }

    #[test]
    fn the_newest_counts_wherever_it_is() {
        let root = tempfile::tempdir().unwrap();
        let [policy, modprobe, none] = ["policy", "modprobe", "none"].map(|name| root.path().join(name));
        let past = |path: &Path| fs::File::open(path).unwrap().set_modified(at(1)).unwrap();
        touch(&policy.join("a.toml"), 5);
        touch(&modprobe.join("b.conf"), 7);
        past(&policy);
        past(&modprobe);
        let places = [policy.clone(), modprobe.clone(), none];
        assert_eq!(newest(&places), Some((modprobe.join("b.conf"), at(7))));
        fs::remove_file(modprobe.join("b.conf")).unwrap();
        // The directory has changed by that.
        assert_eq!(newest(&places).unwrap().0, modprobe);
        assert!(newest(&[root.path().join("nowhere")]).is_none());
    }
}
