// SPDX-License-Identifier: MIT OR Apache-2.0
//! The policy as udev sees it: rules that tell, without a process, which devices a selector may be about. For a device that
//! has a file of its name the packaged rule looks itself, so that what `bind` keeps needs none of this.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tempfile::Builder;

use super::rule::{Policy, Rule, Selector};
use crate::address::Address;
use crate::environment;
use crate::host::Host;
use crate::lock::{DeviceLock, LockError};
use crate::process::{self, Finished};
use crate::sysfs::VfRange;

/// Above all rules. Nothing here may need quoting: selectors are hex digits and addresses by construction.
const HEADING: &str = "\
# Written by vfioctl from the selectors in vfioctl.d: 'vfioctl claim' does it at boot, 'vfioctl apply' whenever it runs
# for all devices. 05-vfioctl.rules does the rest.
";

/// How long udev is waited for: while the system boots, systemd may hold its socket without udev behind it. And how long
/// another vfioctl is that writes the rules too.
const PATIENCE: Duration = Duration::from_secs(5);

/// The rules for all selectors of a policy; `None` where there are no such. `vfs` knows of a PF what its VFs will be.
fn rules(policy: &Policy, vfs: impl Fn(Address) -> Option<VfRange>) -> Option<String> {
    let rules = policy.rules.iter().filter(|rule| !is_found_by_name(rule));
    let mut lines: Vec<String> = rules.flat_map(|rule| lines(rule.selector(), &vfs)).collect();
    lines.sort_unstable();
    lines.dedup();
    if lines.is_empty() {
        return None;
    }
    Some(format!("{HEADING}{}\n", lines.join("\n")))
}

/// Writes the rules for the policy as it is now; `true`: they are others than before.
pub fn refresh_rules(host: &Host) -> io::Result<bool> {
    let _lock = lock(host)?;
    // Read under the lock: of two at once, the later one has seen what the earlier one may not have.
    write_rules(host, &Policy::read(host).0)
}

fn lock(host: &Host) -> io::Result<DeviceLock> {
    DeviceLock::take_for_rules(host, PATIENCE).map_err(|error| match error {
        LockError::Held { .. } => io::Error::other("another vfioctl has been writing it all the time"),
        LockError::File { source, .. } => source,
        error => io::Error::other(error),
    })
}

fn write_rules(host: &Host, policy: &Policy) -> io::Result<bool> {
    let path = host.udev_rules();
    let vfs = |pf| VfRange::read(host, pf).ok().flatten();
    let Some(text) = rules(policy, vfs) else {
        return match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        };
    };
    // Each change makes udev read all its rules again.
    if fs::read(&path).is_ok_and(|old| old == text.as_bytes()) {
        return Ok(false);
    }
    let directory = path.parent().expect("the rules are in a directory");
    fs::create_dir_all(directory)?;
    let mut file = Builder::new().prefix(".vfioctl.").tempfile_in(directory)?;
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(text.as_bytes())?;
    file.persist(&path)?;
    Ok(true)
}

/// Has udev read its rules now. It looks for changes by itself, but not within three seconds of the last time
/// (`src/udev/udev-manager.c`, `manager_reload`).
pub fn reload_rules(host: &Host) -> io::Result<()> {
    if !host.is_this_machine() || !host.udev_control().exists() {
        return Ok(());
    }
    let finished = process::run(environment::command(OsStr::new("udevadm")).args(["control", "--reload"]), PATIENCE);
    match finished.map_err(io::Error::other)? {
        Finished { status, .. } if status.success() => Ok(()),
        Finished { stderr, .. } => Err(io::Error::other(format!("udevadm control --reload: {stderr}"))),
    }
}

/// Does the file of this rule bear the name of the one device the rule is about?
fn is_found_by_name(rule: &Rule) -> bool {
    let stem = rule.file.file_stem().and_then(|stem| stem.to_str());
    rule.address().is_some_and(|address| stem == Some(&address.to_string()))
}

/// What a device is asked for; together they tell those that a selector may be about. Beside an address the other selectors
/// are a guard: whoever breaks it is to be named, not passed over.
fn lines(selector: &Selector, vfs: impl Fn(Address) -> Option<VfRange>) -> Vec<String> {
    let line = |action: &str, keys: &[String]| {
        format!("SUBSYSTEM==\"pci\", ACTION==\"{action}\", {}, ENV{{VFIOCTL_POLICY}}=\"1\"", keys.join(", "))
    };
    if let Some(address) = selector.address {
        return vec![line("add", &[format!("KERNEL==\"{address}\"")])];
    }
    let mut keys = Vec::new();
    let pairs = [("vendor", "device", &selector.id), ("subsystem_vendor", "subsystem_device", &selector.subsystem)];
    for (vendor, device, ids) in pairs {
        if let Some((vendor_id, device_id)) = ids.as_ref().and_then(|ids| ids.split_once(':')) {
            keys.push(format!("ATTR{{{vendor}}}==\"0x{vendor_id}\", ATTR{{{device}}}==\"0x{device_id}\""));
        }
    }
    if let Some(class) = &selector.class {
        keys.push(format!("ATTR{{class}}==\"0x{}*\"", class.prefix()));
    }
    let Some(pf) = selector.pf else { return vec![line("add", &keys)] };

    // Linked to its PF already. udev does not read what a link points to, but goes through it: there the PF is beside its
    // own other functions, whose VFs are asked about too.
    let linked = format!("TEST==\"physfn/../{pf}/sriov_numvfs\"");
    // Announced, and not linked yet: such VFs look alike.
    let mut unlinked = vec![format!("TEST!=\"physfn\", TEST==\"/sys/bus/pci/devices/{pf}/sriov_numvfs\"")];
    if let Some(vf) = vfs(pf) {
        unlinked.push(format!("ATTR{{vendor}}==\"0x{}\", ATTR{{device}}==\"0x{}\"", vf.vendor, vf.device));
    }
    // The change is announced once the link is there.
    vec![line("add|change", &[keys.clone(), vec![linked]].concat()), line("add", &[keys, unlinked].concat())]
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn policy(file: &str, text: &str) -> Policy {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/vfioctl.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(file), text).unwrap();
        let (policy, errors) = Policy::read(&Host::new(root.path(), None).unwrap());
        assert!(errors.is_empty(), "{errors:?}");
        policy
    }

    fn no_pf(_: Address) -> Option<VfRange> {
        None
    }

    #[test]
    fn a_line_for_each_selector() {
        for (selector, expected) in [
            ("id = '15B3:101e'", r#"ACTION=="add", ATTR{vendor}=="0x15b3", ATTR{device}=="0x101e""#),
            (
                "subsystem = '15b3:0023'\nclass = 'ethernet'",
                r#"ACTION=="add", ATTR{subsystem_vendor}=="0x15b3", ATTR{subsystem_device}=="0x0023", ATTR{class}=="0x0200*""#,
            ),
            ("address = '3b:00.1'\nid = '15b3:101e'", r#"ACTION=="add", KERNEL=="0000:3b:00.1""#),
        ] {
            let policy = policy("50-x.toml", &format!("[[device]]\n{selector}\ndriver = 'auto'"));
            let text = rules(&policy, no_pf).unwrap();
            let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
            assert_eq!(lines, [format!("SUBSYSTEM==\"pci\", {expected}, ENV{{VFIOCTL_POLICY}}=\"1\"")], "{selector}");
        }
    }

    #[test]
    fn a_pfs_vfs_are_found_before_and_after_they_are_linked_to_it() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let pf: Address = "0000:06:00.0".parse().unwrap();
        let with = policy("50-x.toml", "[[device]]\npf = '06:00.0'\nclass = '02'\ndriver = 'auto'");
        let lines = |host: &Host| -> Vec<String> {
            write_rules(host, &with).unwrap();
            let text = fs::read_to_string(host.udev_rules()).unwrap();
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            let inner = |line: &str| {
                line.strip_prefix("SUBSYSTEM==\"pci\", ACTION==\"").unwrap().replace(", ENV{VFIOCTL_POLICY}=\"1\"", "")
            };
            lines.map(inner).collect()
        };
        let linked = r#"add|change", ATTR{class}=="0x02*", TEST=="physfn/../0000:06:00.0/sriov_numvfs""#;
        let any =
            r#"add", ATTR{class}=="0x02*", TEST!="physfn", TEST=="/sys/bus/pci/devices/0000:06:00.0/sriov_numvfs""#;
        assert_eq!(lines(&host), [any, linked]);

        fs::create_dir_all(host.device(pf)).unwrap();
        let attributes =
            [("vendor", "0x8086"), ("vf_device", "10ca"), ("totalvfs", "7"), ("offset", "128"), ("stride", "2")];
        for (name, value) in attributes {
            let name = if name == "vendor" { name.to_string() } else { format!("sriov_{name}") };
            fs::write(host.device(pf).join(name), format!("{value}\n")).unwrap();
        }
        let alike = format!(r#"{any}, ATTR{{vendor}}=="0x8086", ATTR{{device}}=="0x10ca""#);
        assert_eq!(lines(&host), [alike.as_str(), linked]);
    }

    #[test]
    fn a_device_with_a_file_of_its_name_needs_none() {
        let rule = "[[device]]\naddress = '0000:3b:00.1'\ndriver = 'auto'\n";
        assert_eq!(rules(&policy("0000:3b:00.1.toml", rule), no_pf), None);
        assert!(rules(&policy("3b:00.1.toml", rule), no_pf).is_some());
        // The file's name is one device's, the rule is about many.
        let rule = "[[device]]\nclass = '02'\ndriver = 'auto'\n";
        assert!(rules(&policy("0000:3b:00.1.toml", rule), no_pf).is_some());
    }

    #[test]
    fn they_are_there_while_the_policy_has_selectors() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let with = policy("a.toml", "[[device]]\nclass = '02'\ndriver = 'auto'\n");
        assert!(!write_rules(&host, &Policy::default()).unwrap());
        assert!(write_rules(&host, &with).unwrap());
        let first = fs::metadata(host.udev_rules()).unwrap();
        assert_eq!(first.permissions().mode() & 0o777, 0o644);
        assert!(!write_rules(&host, &with).unwrap());
        let second = fs::metadata(host.udev_rules()).unwrap();
        assert_eq!(first.modified().unwrap(), second.modified().unwrap(), "an unchanged file is not written anew");
        assert!(write_rules(&host, &Policy::default()).unwrap());
        assert!(!host.udev_rules().exists());
    }

    #[test]
    fn who_waits_for_its_turn_writes_the_policy_of_then() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let first = lock(&host).unwrap();
        let second = thread::spawn({
            let host = Host::new(root.path(), None).unwrap();
            move || refresh_rules(&host).unwrap()
        });
        thread::sleep(Duration::from_millis(200));
        let directory = root.path().join("etc/vfioctl.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("a.toml"), "[[device]]\nclass = '02'\ndriver = 'auto'\n").unwrap();
        drop(first);
        assert!(second.join().unwrap(), "there are rules now, and there were none");
    }
}
