// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an initramfs is told of the policy: which devices native drivers are to keep off there. Pure: from decisions made when
//! the image is built to the text of a script and of udev rules, which need nothing of ours in the image.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::address::Address;
use crate::kernel_name::DriverName;
use crate::policy::{Policy, Rule, Selector};
use crate::sysfs::{BRIDGES, Device};

/// A line: of those that fit a device the first counts.
#[derive(Clone, PartialEq, Eq, Serialize, Debug)]
pub struct Claim {
    /// Which devices.
    #[serde(flatten)]
    pub pattern: Pattern,
    /// What is written to their `driver_override`; `None`: nothing, whatever the lines below say.
    pub driver: Option<DriverName>,
    /// The policy's file.
    pub file: String,
}

/// What sysfs must say of a device: all that is given, in its words, which are lower-case hex digits but for the address.
#[derive(Clone, PartialEq, Eq, Serialize, Default, Debug)]
pub struct Pattern {
    /// Where it is.
    pub address: Option<Address>,
    /// Four digits.
    pub vendor: Option<String>,
    /// Four digits.
    pub device: Option<String>,
    /// Four digits.
    pub subsystem_vendor: Option<String>,
    /// Four digits.
    pub subsystem_device: Option<String>,
    /// How its six digits begin.
    pub class: Option<String>,
}

/// A device that is here while the image is built, and what becomes of it.
#[derive(Debug)]
pub struct Present<'a> {
    /// The device.
    pub device: &'a Device,
    /// The rule that is about it.
    pub rule: &'a Rule,
    /// As [`Claim::driver`].
    pub driver: Option<DriverName>,
    /// Does this host live on it?
    pub is_vital: bool,
}

/// Why a rule without an address is about no other devices in the image than are here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Withheld {
    /// It is about one that this host lives on, which nobody would know in the image at another address.
    Vital,
    /// It may be about the disk of the root file system, and where that is was not to be seen. Of those that are here it is about
    /// none.
    Unseen,
}

/// Base classes of devices that no root file system is on or comes by: display, multimedia, bridge (those that have
/// devices behind them nothing claims), input, processor, encryption, signal processing, accelerator
/// (`include/linux/pci_ids.h`).
const WITHOUT_ROOT: [&str; 8] = ["03", "04", "06", "09", "0b", "10", "11", "12"];

/// May the root file system be on a device of this class, or come by it? `class` is how its six digits begin.
fn may_have_root(class: &str) -> bool {
    !WITHOUT_ROOT.iter().any(|base| class.starts_with(base))
}

/// May a rule claim the disk of the root file system wherever that is? What has an address was meant.
pub fn may_be_about_root(selector: &Selector) -> bool {
    let may_have_root = selector.class.as_ref().is_none_or(|class| may_have_root(class.prefix()));
    selector.address.is_none() && selector.pf.is_none() && may_have_root
}

/// Is this device left alone where the root file system's disk is not seen?
pub fn may_be_root(rule: &Rule, device: &Device) -> bool {
    may_be_about_root(rule.selector()) && may_have_root(&device.modalias.class())
}

/// Is something of a rule withheld, and why? `is_root_seen`: it is known which device has the root file system.
pub fn withheld(selector: &Selector, present: &[Present<'_>], is_root_seen: bool) -> Option<Withheld> {
    if !is_root_seen && may_be_about_root(selector) {
        return Some(Withheld::Unseen);
    }
    let is_about_vital = present.iter().any(|here| here.is_vital && selector.holds(here.device));
    (selector.address.is_none() && is_about_vital).then_some(Withheld::Vital)
}

/// The lines for a policy: first the devices that are here, by address and ids, then what the rules say of others. `is_root_seen`
/// as [`withheld`]; `named` knows a rule's driver; `None`: it cannot be told.
pub fn claims(
    policy: &Policy,
    devices: &[Device],
    present: &[Present<'_>],
    is_root_seen: bool,
    mut named: impl FnMut(&Rule) -> Option<DriverName>,
) -> Vec<Claim> {
    let mut claims: Vec<Claim> = present
        .iter()
        .map(|Present { device, rule, driver, .. }| Claim {
            pattern: Pattern::of_device(device),
            driver: driver.clone(),
            file: rule.file.display().to_string(),
        })
        .collect();
    let here: BTreeSet<Address> = devices.iter().map(|device| device.address).collect();
    for rule in policy.by_precedence() {
        let selector = rule.selector();
        let is_for_others = match selector.address {
            // What is there now has its line; that there is another device one day is what its ids are for.
            Some(address) => !here.contains(&address) && selector.id.is_some(),
            None => withheld(selector, present, is_root_seen).is_none(),
        };
        // Before their PF has a driver there are no VFs.
        if !is_for_others || selector.pf.is_some() {
            continue;
        }
        if let Some(driver) = named(rule) {
            let (pattern, file) = (Pattern::of_selector(selector), rule.file.display().to_string());
            claims.push(Claim { pattern, driver: Some(driver), file });
        }
    }
    if claims.iter().all(|claim| claim.driver.is_none()) {
        claims.clear();
    }
    claims
}

/// May this name stand in a script and in a udev rule without being quoted?
pub fn is_plain(driver: &DriverName) -> bool {
    driver.as_str().bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.+".contains(&b))
}

impl Pattern {
    /// This device and no other that comes to its address.
    fn of_device(device: &Device) -> Pattern {
        let modalias = &device.modalias;
        Pattern {
            address: Some(device.address),
            vendor: Some(modalias.vendor()),
            device: Some(modalias.device()),
            subsystem_vendor: Some(modalias.subsystem_vendor()),
            subsystem_device: Some(modalias.subsystem_device()),
            class: None,
        }
    }

    fn of_selector(selector: &Selector) -> Pattern {
        let ids = |ids: &Option<String>| {
            let (vendor, device) = ids.as_ref()?.split_once(':')?;
            Some((vendor.to_string(), device.to_string()))
        };
        let (vendor, device) = ids(&selector.id).unzip();
        let (subsystem_vendor, subsystem_device) = ids(&selector.subsystem).unzip();
        let class = selector.class.as_ref().map(|class| class.prefix().to_string());
        Pattern { address: selector.address, vendor, device, subsystem_vendor, subsystem_device, class }
    }

    /// For `case`, which compares with `ADDRESS/VENDOR/DEVICE/SUBSYSTEM_VENDOR/SUBSYSTEM_DEVICE/CLASS`.
    fn shell(&self) -> String {
        let word = |digits: &Option<String>| digits.as_ref().map_or("*".to_string(), |digits| format!("0x{digits}"));
        let address = self.address.map_or("*".to_string(), |address| address.to_string());
        let ids = [&self.vendor, &self.device, &self.subsystem_vendor, &self.subsystem_device].map(word).join("/");
        let class = self.class.as_ref().map_or("*".to_string(), |class| format!("0x{class}*"));
        format!("{address}/{ids}/{class}")
    }

    fn udev(&self) -> String {
        let mut keys: Vec<String> = self.address.iter().map(|address| format!("KERNEL==\"{address}\"")).collect();
        let attributes = [
            ("vendor", &self.vendor),
            ("device", &self.device),
            ("subsystem_vendor", &self.subsystem_vendor),
            ("subsystem_device", &self.subsystem_device),
        ];
        for (name, digits) in attributes {
            keys.extend(digits.iter().map(|digits| format!("ATTR{{{name}}}==\"0x{digits}\"")));
        }
        keys.extend(self.class.iter().map(|class| format!("ATTR{{class}}==\"0x{class}*\"")));
        keys.join(", ")
    }
}

/// For a shell of any make, with what is built into it alone: it runs before udev does, and before any module is loaded. A
/// device's own uevent would come too late where another of its kind is first, which loads the driver of both. In between: how
/// bridges' classes begin, which nothing claims whatever the policy says; and the lines.
const SCRIPT: [&str; 2] = [
    r#"#!/bin/sh
# Made by 'vfioctl initramfs' from vfioctl.d(5) when this image was built.
# With vfioctl.early=0 on the kernel's command line it does nothing.
read -r words </proc/cmdline
case " $words " in
*' vfioctl.early=0 '*) exit 0 ;;
esac
for path in /sys/bus/pci/devices/*; do
    address=${path##*/}
    {
        read -r vendor <"$path/vendor" && read -r device <"$path/device" &&
            read -r subsystem_vendor <"$path/subsystem_vendor" &&
            read -r subsystem_device <"$path/subsystem_device" && read -r class <"$path/class"
    } 2>/dev/null || continue
    case "$address/$vendor/$device/$subsystem_vendor/$subsystem_device/$class" in
"#,
    r#"    *) continue ;;
    esac
    if [ -e "$path/driver" ]; then
        said="is on a driver already: not claimed"
    elif echo "$driver" >"$path/driver_override"; then
        said="claimed for $driver"
    else
        said="cannot be claimed for $driver"
    fi
    echo "<5>vfioctl: $address: $said" >/dev/kmsg
done
"#,
];

/// The script that claims what is there at the start; empty without claims.
pub fn script(claims: &[Claim]) -> String {
    if claims.is_empty() {
        return String::new();
    }
    let line = |claim: &Claim| {
        let action = claim.driver.as_ref().map_or("continue".to_string(), |driver| format!("driver={driver}"));
        format!("    {}) {action} ;;\n", claim.pattern.shell())
    };
    let lines: Vec<String> = claims.iter().map(line).collect();
    let bridges = BRIDGES.map(|class| format!("*/0x{class}*")).join(" | ");
    format!("{}    {bridges}) continue ;;\n{}{}", SCRIPT[0], lines.concat(), SCRIPT[1])
}

/// Before and after the lines. A word that begins with `rd.` udev would not see in an image by initramfs-tools, which it does not
/// know for an initramfs (systemd, `src/basic/proc-cmdline.c`). What a native driver has already is not to be taken from it here. Without MODALIAS no driver is
/// loaded for a device that none is to have.
const RULES: [&str; 2] = [
    r#"# Made by 'vfioctl initramfs' from vfioctl.d(5) when this image was built: devices that appear while it runs.
SUBSYSTEM!="pci", GOTO="vfioctl_initramfs_end"
ACTION!="add", GOTO="vfioctl_initramfs_end"
IMPORT{cmdline}="vfioctl.early"
ENV{vfioctl.early}=="0", GOTO="vfioctl_initramfs_end"
TEST=="driver", GOTO="vfioctl_initramfs_end"
"#,
    r#"LABEL="vfioctl_initramfs_end"
"#,
];

/// The udev rules that claim what comes later; empty without claims.
pub fn rules(claims: &[Claim]) -> String {
    if claims.is_empty() {
        return String::new();
    }
    let line = |claim: &Claim| {
        let action = claim
            .driver
            .as_ref()
            .map_or(String::new(), |driver| format!("ATTR{{driver_override}}=\"{driver}\", ENV{{MODALIAS}}=\"\", "));
        format!("{}, {action}GOTO=\"vfioctl_initramfs_end\"\n", claim.pattern.udev())
    };
    let lines: Vec<String> = claims.iter().map(line).collect();
    let bridges = BRIDGES.map(|class| format!("0x{class}*")).join("|");
    let bridges = format!("ATTR{{class}}==\"{bridges}\", GOTO=\"vfioctl_initramfs_end\"\n");
    format!("{}{bridges}{}{}", RULES[0], lines.concat(), RULES[1])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::Host;
    use crate::policy::{Choice, Decision};

    fn policy(text: &str) -> Policy {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/vfioctl.d");
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("50-x.toml"), text).unwrap();
        let (policy, errors) = Policy::read(&Host::new(root.path(), None).unwrap());
        assert!(errors.is_empty(), "{errors:?}");
        policy
    }

    fn device(address: &str, device: &str) -> Device {
        let modalias = format!("pci:v00008086d0000{device}sv00008086sd00000001bc01sc08i02");
        Device {
            address: address.parse().unwrap(),
            modalias: modalias.parse().unwrap(),
            driver: None,
            iommu_group: None,
            pf: None,
            vfs: Vec::new(),
        }
    }

    /// The script's lines for a policy and two devices, of which the second may be vital; but for that about bridges.
    fn lines(text: &str, is_second_vital: bool) -> Vec<String> {
        lines_if(text, is_second_vital, true)
    }

    fn lines_if(text: &str, is_second_vital: bool, is_root_seen: bool) -> Vec<String> {
        let policy = policy(text);
        let devices = [device("0000:01:00.0", "1533"), device("0000:02:00.0", "1533")];
        let present = devices.iter().enumerate().filter_map(|(number, device)| {
            let Some(Decision::Rule(rule)) = policy.decide(device) else { return None };
            let is_vital = is_second_vital && number == 1;
            Some(Present { device, rule, driver: (!is_vital).then(|| "vfio-pci".parse().unwrap()), is_vital })
        });
        let present: Vec<Present<'_>> = present.collect();
        let claims = claims(&policy, &devices, &present, is_root_seen, |rule| match &rule.driver {
            Choice::Named(name) => Some(name.clone()),
            _ => Some(DriverName::none()),
        });
        let script = script(&claims);
        assert_eq!(script.is_empty(), rules(&claims).is_empty());
        let lines = script.lines().filter(|line| line.contains("0x")).map(|line| line.trim().replace("0x", ""));
        let lines: Vec<String> = lines.collect();
        assert!(lines.first().is_none_or(|first| first == "*/0604* | */0607*) continue ;;"), "{lines:?}");
        lines.into_iter().skip(1).collect()
    }

    const FIRST: &str = "0000:01:00.0/8086/1533/8086/0001/*) driver=vfio-pci ;;";
    const SECOND: &str = "0000:02:00.0/8086/1533/8086/0001/*) driver=vfio-pci ;;";
    const LEFT: &str = "0000:02:00.0/8086/1533/8086/0001/*) continue ;;";

    #[test]
    fn lines_in_the_order_in_which_they_count() {
        for (policy, is_second_vital, expected) in [
            ("", false, vec![]),
            ("[[device]]\naddress = '01:00.0'\ndriver = 'auto'", false, vec![FIRST]),
            // The later rule first, and those with an address before all others.
            (
                "[[device]]\naddress = '09:00.0'\nid = '10de:2204'\ndriver = 'a'
                 [[device]]\nclass = '02'\ndriver = 'b'
                 [[device]]\nid = '15b3:101e'\nsubsystem = '15b3:0023'\ndriver = 'none'",
                false,
                vec![
                    "0000:09:00.0/10de/2204/*/*/*) driver=a ;;",
                    "*/15b3/101e/15b3/0023/*) driver=none ;;",
                    "*/*/*/*/*/02*) driver=b ;;",
                ],
            ),
            (
                "[[device]]\nid = '8086:1533'\ndriver = 'auto'",
                false,
                vec![FIRST, SECOND, "*/8086/1533/*/*/*) driver=none ;;"],
            ),
            // About what the host lives on: of no others than are here.
            ("[[device]]\nid = '8086:1533'\ndriver = 'auto'", true, vec![FIRST, LEFT]),
            // Nor the rule that would be about it were it not for another.
            (
                "[[device]]\nclass = '01'\ndriver = 'a'\n[[device]]\nid = '8086:1533'\ndriver = 'auto'\n[[device]]\nclass = '02'\ndriver = 'b'",
                true,
                vec![FIRST, LEFT, "*/*/*/*/*/02*) driver=b ;;"],
            ),
            // Another device than the rule's is there; nothing to know an absent one by; no VF is there yet.
            ("[[device]]\naddress = '01:00.0'\nid = '10de:2204'\ndriver = 'a'", false, vec![]),
            ("[[device]]\naddress = '09:00.0'\ndriver = 'a'", false, vec![]),
            ("[[device]]\npf = '01:00.0'\ndriver = 'a'", false, vec![]),
            // To leave alone what nothing would take needs no image.
            ("[[device]]\naddress = '02:00.0'\ndriver = 'auto'", true, vec![]),
        ] {
            assert_eq!(lines(policy, is_second_vital), expected, "{policy}");
        }
    }

    #[test]
    fn where_the_root_file_system_is_not_seen_no_rule_may_be_about_it() {
        for (rule, expected) in [
            ("class = 'nvme'", None),
            ("class = '01'", None),
            // By a network card, by USB.
            ("class = '02'", None),
            ("class = 'usb'", None),
            ("id = '10de:2204'", None),
            ("subsystem = '10de:2204'", None),
            ("class = 'vga'", Some("*/*/*/*/*/0300*) driver=a ;;")),
            ("class = '12'", Some("*/*/*/*/*/12*) driver=a ;;")),
            ("id = '10de:2204'\nclass = '03'", Some("*/10de/2204/*/*/03*) driver=a ;;")),
            // It was meant.
            ("address = '09:00.0'\nid = '10de:2204'", Some("0000:09:00.0/10de/2204/*/*/*) driver=a ;;")),
        ] {
            let policy = format!("[[device]]\n{rule}\ndriver = 'a'");
            let expected: Vec<&str> = expected.into_iter().collect();
            // Those that are here are left to whoever has decided on them.
            let lines = lines_if(&policy, false, false);
            let others =
                lines.iter().filter(|line| !line.starts_with("0000:01:00.0/") && !line.starts_with("0000:02:00.0/"));
            assert_eq!(others.collect::<Vec<_>>(), expected, "{rule}");
        }
    }

    #[test]
    fn what_a_shell_or_udev_would_take_amiss_is_no_plain_name() {
        for (name, expected) in [
            ("vfio-pci", true),
            ("xe_vfio.2+", true),
            ("budget dvb", false),
            ("a'b", false),
            ("$x", false),
            ("a\"", false),
        ] {
            assert_eq!(is_plain(&DriverName::from_kernel(name.to_string())), expected, "{name}");
        }
    }
}
