// SPDX-License-Identifier: MIT OR Apache-2.0
//! libvirt: what it knows of variant drivers, and whether it calls our hook.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Scene;
use super::finding::{Finding, some};
use crate::address::Address;
use crate::catalog::Catalog;
use crate::file;
use crate::libvirt::Version;

const CHECK: &str = "libvirt";
const HOOK: &str = "libvirt-hook";

/// The first version that reads qemu.d (<https://libvirt.org/hooks.html>).
const WITH_DIRECTORY: Version = Version::new(6, 5, 0);

/// What is in a script of ours.
const CALL: &str = "vfioctl libvirt hook";

/// Our hook, as libvirt finds it.
#[derive(Clone, Debug)]
struct Hook {
    path: String,
    is_executable: bool,
    /// Is it in the directory of several?
    is_one_of_several: bool,
    /// The program that it calls, if that is not there.
    gone: Option<String>,
}

/// What there is.
#[derive(Debug)]
pub struct Facts {
    version: Option<Version>,
    hook: Option<Hook>,
    /// Where the hook can be copied from.
    template: Option<String>,
    /// Devices on a variant driver.
    on_variants: Vec<Address>,
}

/// Reads it.
pub fn gather(scene: &Scene<'_>) -> Facts {
    let host = scene.host;
    let [single, directory] = host.libvirt_hooks();
    let mut scripts: Vec<PathBuf> =
        fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    scripts.sort();
    scripts.insert(0, single);
    let hook = scripts.iter().find_map(|path| {
        let text = file::read_to_string(path, file::SETTINGS).ok()?;
        let line = text.lines().find(|line| !line.starts_with('#') && line.contains(CALL))?;
        let program = line.split_whitespace().find(|word| word.starts_with('/') && word.ends_with("/vfioctl"));
        let is_gone = |program: &&str| !host.named(Path::new(program)).is_file();
        Some(Hook {
            path: scene.at(path),
            is_executable: fs::metadata(path).is_ok_and(|data| data.permissions().mode() & 0o111 != 0),
            is_one_of_several: path.starts_with(&directory),
            gone: program.filter(is_gone).map(str::to_string),
        })
    });
    let is_variant = |name: &str| Catalog::bundled().by_driver(name).is_some_and(|driver| !driver.catch_all);
    let on_variants =
        scene.devices.iter().filter(|device| device.driver.as_ref().is_some_and(|name| is_variant(name.as_str())));
    Facts {
        version: Version::installed(host),
        hook,
        template: host.libvirt_hook_templates().into_iter().find(|path| path.is_file()).map(|path| scene.at(&path)),
        on_variants: on_variants.map(|device| device.address).collect(),
    }
}

/// What it means.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let Some(version) = facts.version else {
        let finding = Finding::note(CHECK, "no libvirt is found here");
        // A hook without anybody to call it.
        return vec![match &facts.hook {
            Some(hook) => finding.seen(&hook.path, "nobody calls it"),
            None => finding,
        }];
    };
    vec![knows(facts, version), hook(facts, version)]
}

fn knows(facts: &Facts, version: Version) -> Finding {
    if version.takes_variants() {
        return Finding::pass(CHECK, format!("libvirt {version} looks for the variant driver that fits a device"));
    }
    let mend = "update libvirt to 10.0.0 or newer";
    if version.accepts_variants() {
        let message =
            format!("libvirt {version} accepts a device on a variant driver, and takes none but vfio-pci by itself");
        return Finding::note(CHECK, message).mend(mend);
    }
    let message = format!("libvirt {version} knows no variant driver");
    if facts.on_variants.is_empty() {
        return Finding::note(CHECK, format!("{message}: it takes vfio-pci")).mend(mend);
    }
    let devices = some(&facts.on_variants);
    Finding::warning(
        CHECK,
        format!("{message}: with managed='no' it refuses {devices}, with managed='yes' it takes them to vfio-pci"),
    )
    .seen(format!("/sys/bus/pci/devices/{}/driver", facts.on_variants[0]), "a variant driver")
    .mend(mend)
}

fn hook(facts: &Facts, version: Version) -> Finding {
    let Some(hook) = &facts.hook else {
        let finding = Finding::note(
            HOOK,
            "the hook for libvirt is not installed: libvirt binds by its own rule, without prepare steps",
        );
        let finding = finding.seen("/etc/libvirt/hooks", format!("no script that calls '{CALL}'"));
        let Some(template) = &facts.template else { return finding };
        return finding
            .mend(match version >= WITH_DIRECTORY {
                true => format!("install -D -m755 {template} /etc/libvirt/hooks/qemu.d/vfioctl"),
                false => format!("install -D -m755 {template} /etc/libvirt/hooks/qemu   (where there is none yet)"),
            })
            .mend("restart libvirt's daemon (libvirtd or virtqemud), where it had no hook before");
    };
    let path = &hook.path;
    if let Some(program) = &hook.gone {
        return Finding::failure(HOOK, "the hook for libvirt calls a program that is not there: no guest starts")
            .seen(path, format!("{program} is not there"))
            .mend("install the package of vfioctl anew, or copy the hook again");
    }
    if !hook.is_executable {
        return Finding::warning(HOOK, "the hook for libvirt is not called: it is no executable file")
            .seen(path, "mode without x")
            .mend(format!("chmod +x {path}"));
    }
    if hook.is_one_of_several && version < WITH_DIRECTORY {
        return Finding::warning(
            HOOK,
            format!("the hook for libvirt is not called: libvirt {version} does not read qemu.d"),
        )
        .seen(path, "there")
        .mend(format!("mv {path} /etc/libvirt/hooks/qemu   (where there is none yet)"));
    }
    Finding::pass(HOOK, "libvirt calls the hook").seen(path, CALL)
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn facts(version: Option<Version>) -> Facts {
        let hook = Hook {
            path: "/etc/libvirt/hooks/qemu.d/vfioctl".to_string(),
            is_executable: true,
            is_one_of_several: true,
            gone: None,
        };
        Facts {
            version,
            hook: Some(hook),
            template: Some("/usr/share/vfioctl/libvirt-hook".to_string()),
            on_variants: Vec::new(),
        }
    }

    #[test]
    fn what_each_version_knows() {
        let device = || vec!["0000:3b:00.1".parse().unwrap()];
        for (facts, severity) in [
            (facts(None), Severity::Note),
            (facts(Some(Version::new(11, 3, 0))), Severity::Pass),
            (facts(Some(Version::new(9, 7, 0))), Severity::Note),
            (facts(Some(Version::new(9, 0, 0))), Severity::Note),
            (Facts { on_variants: device(), ..facts(Some(Version::new(9, 0, 0))) }, Severity::Warning),
        ] {
            assert_eq!(judge(&facts)[0].severity, severity, "{facts:?}");
        }
    }

    #[test]
    fn whether_the_hook_is_called() {
        let new = Some(Version::new(11, 3, 0));
        let with = |change: fn(&mut Hook)| {
            let mut facts = facts(new);
            change(facts.hook.as_mut().unwrap());
            facts
        };
        let install = "install -D -m755 /usr/share/vfioctl/libvirt-hook /etc/libvirt/hooks/qemu";
        for (facts, severity, mend) in [
            (facts(new), Severity::Pass, String::new()),
            (Facts { hook: None, ..facts(new) }, Severity::Note, format!("{install}.d/vfioctl")),
            (Facts { hook: None, template: None, ..facts(new) }, Severity::Note, String::new()),
            (Facts { hook: None, ..facts(Some(Version::new(6, 4, 0))) }, Severity::Note, format!("{install}   (")),
            (facts(Some(Version::new(6, 4, 0))), Severity::Warning, "mv /etc".to_string()),
            (
                with(|hook| hook.is_executable = false),
                Severity::Warning,
                "chmod +x /etc/libvirt/hooks/qemu.d/vfioctl".to_string(),
            ),
            (
                with(|hook| hook.gone = Some("/x/vfioctl".to_string())),
                Severity::Failure,
                "install the package".to_string(),
            ),
        ] {
            let finding = &judge(&facts)[1];
            assert_eq!(finding.severity, severity, "{finding:?}");
            assert!(finding.mend.first().cloned().unwrap_or_default().starts_with(&mend), "{finding:?}");
        }
    }
}
