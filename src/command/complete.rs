// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a shell offers where the user presses Tab: completions/ has the scripts that ask. Nothing is woken, nothing waited for,
//! and what cannot be read is not offered: an error would be in the middle of the user's line.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use clap::ValueHint;

use crate::address::Address;
use crate::catalog::{Catalog, Driver};
use crate::class;
use crate::cli::completion::{Candidate, Expected, Place};
use crate::gather::Chooser;
use crate::host::Host;
use crate::kernel_name::DriverName;
use crate::names::Database;
use crate::policy::{self, Policy};
use crate::printable::printable;
use crate::sysfs::{self, Device, Overrides, VfRange};
use crate::verdict::{Candidate as Match, Verdict};

/// Of directories, and of files, the shell knows better. No candidate begins with a colon.
const DIRECTORIES: &str = ":directories";
const FILES: &str = ":files";

/// Prints what could be at the end of these words: a word, a tab and what it is, a line each.
pub fn run(words: impl Iterator<Item = OsString>) -> io::Result<()> {
    let words: Vec<String> = words.map(|word| word.to_string_lossy().into_owned()).collect();
    let place = Place::find(&words);
    let mut text = String::new();
    for candidate in candidates(&place) {
        let word = format!("{}{}", place.lead, candidate.word);
        // Shells insert it as it is.
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._:-+=,@/".contains(c);
        if candidate.word.starts_with(&place.typed) && word.chars().all(is_plain) {
            text.push_str(&format!("{word}\t{}\n", printable(&candidate.help)));
        }
    }
    if text.is_empty() {
        if let Expected::Value(argument) = &place.expected {
            match argument.get_value_hint() {
                ValueHint::DirPath => text = format!("{DIRECTORIES}\n"),
                ValueHint::AnyPath | ValueHint::FilePath => text = format!("{FILES}\n"),
                _ => {}
            }
        }
    }
    io::stdout().lock().write_all(text.as_bytes())
}

fn candidates(place: &Place) -> Vec<Candidate> {
    let Expected::Value(argument) = &place.expected else { return place.known() };
    let root = place.option_value("root").unwrap_or("/");
    let kernel = place.option_value("kernel").filter(|release| !release.is_empty()).map(str::to_string);
    let Ok(host) = Host::new(Path::new(root), kernel) else { return Vec::new() };
    match argument.get_id().as_str() {
        "addresses" | "address" | "udev" | "device" | "pf" => addresses(&host, place),
        "count" => counts(&host, place),
        "driver" => drivers(&host, place),
        "kernel" => releases(&host),
        "class" => class::names().map(|(name, code)| Candidate::new(name, format!("class {code}"))).collect(),
        "group" => groups(&host),
        _ => place.known(),
    }
}

fn listing(host: &Host) -> Vec<Device> {
    sysfs::list(host).map(|listing| listing.devices).unwrap_or_default()
}

/// The devices that the verb can do something to, without those that are typed already.
fn addresses(host: &Host, place: &Place) -> Vec<Candidate> {
    let typed: BTreeSet<Address> = place.operands.iter().filter_map(|word| word.parse().ok()).collect();
    let mut is_fit = fitness(host, &place.verb);
    let names = Database::open();
    let mut candidates = Vec::new();
    for device in listing(host) {
        let full = device.address.to_string();
        // In full, unless the user began without the domain.
        let word = match full.strip_prefix("0000:") {
            Some(short) if !full.starts_with(&place.typed) => short.to_string(),
            _ => full,
        };
        if !word.starts_with(&place.typed) || typed.contains(&device.address) || !is_fit(&device) {
            continue;
        }
        let driver = device.driver.as_ref().map_or("no driver", DriverName::as_str);
        let (class, name) = (device.modalias.class(), names.device(&device.modalias));
        let name = name.as_deref().unwrap_or_else(|| class::name(&class));
        candidates.push(Candidate::new(word, format!("{driver}, {name}")));
    }
    candidates
}

/// Is a device one for this verb?
fn fitness<'a>(host: &'a Host, verb: &str) -> Box<dyn FnMut(&Device) -> bool + 'a> {
    let is_given = |host: &Host, device: &Device| {
        let is_known = |driver: &DriverName| Catalog::bundled().by_driver(driver.as_str()).is_some();
        device.driver.as_ref().is_some_and(is_known)
            || device.driver.is_some() && Device::is_vfio_device(host, device.address).unwrap_or(false)
    };
    match verb {
        "bind" | "libvirt xml" | "driverctl set-override" => {
            // Base class 06: whoever means one of these types it.
            Box::new(|device| !device.modalias.class().starts_with("06"))
        }
        "unbind" | "driverctl unset-override" => {
            let mut overrides = Overrides::new(host, Duration::ZERO);
            Box::new(move |device| {
                is_given(host, device)
                    || policy::has_own_file(host, device.address)
                    || (!overrides.may_block() && overrides.read(device.address).is_ok_and(|text| text.is_some()))
            })
        }
        "probe" => Box::new(move |device| is_given(host, device)),
        "sriov" => Box::new(|device| VfRange::read(host, device.address).is_ok_and(|range| range.is_some())),
        "apply" | "driverctl load-override" => {
            let (policy, _) = Policy::read(host);
            Box::new(move |device| policy.decide(device).is_some())
        }
        "groups" => Box::new(|device| device.iommu_group.is_some()),
        _ => Box::new(|_| true),
    }
}

/// The device of the first operand.
fn operand(host: &Host, place: &Place) -> Option<Device> {
    Device::read(host, place.operands.first()?.parse().ok()?).ok()?
}

/// How many VFs: none, or all there can be.
fn counts(host: &Host, place: &Place) -> Vec<Candidate> {
    let range = operand(host, place).and_then(|pf| VfRange::read(host, pf.address).ok()?);
    let most = range.map(|range| Candidate::new(range.total.to_string(), "as many as it can have"));
    [Candidate::new("0", "remove its VFs")].into_iter().chain(most).collect()
}

fn drivers(host: &Host, place: &Place) -> Vec<Candidate> {
    let none = || Candidate::new("none", "no driver");
    match place.verb.as_str() {
        "list" => {
            let mut devices: BTreeMap<String, usize> = BTreeMap::new();
            for device in listing(host) {
                *devices.entry(device.driver.map_or("none".to_string(), |driver| driver.to_string())).or_default() += 1;
            }
            devices
                .into_iter()
                .map(|(name, count)| {
                    let plural = if count == 1 { "" } else { "s" };
                    Candidate::new(name, format!("{count} device{plural}"))
                })
                .collect()
        }
        // To a driver that is not VFIO's: those that are registered.
        "unbind" => {
            let registered = sysfs::registered(host).unwrap_or_default();
            let natives = registered.iter().filter(|name| Catalog::bundled().by_driver(name.as_str()).is_none());
            natives.map(|name| Candidate::new(name.as_str(), "registered")).collect()
        }
        "sriov" => {
            let auto = Candidate::new("auto", "the best VFIO driver");
            matching_vfs(host, place).into_iter().chain([auto, none()]).collect()
        }
        _ => matching(host, &place.operands).unwrap_or_else(all_known).into_iter().chain([none()]).collect(),
    }
}

/// The drivers that match all of these devices, best first; `None`: there is no device yet.
fn matching(host: &Host, operands: &[String]) -> Option<Vec<Candidate>> {
    let addresses = operands.iter().filter_map(|word| word.parse().ok());
    let devices: Vec<Device> = addresses.filter_map(|address| Device::read(host, address).ok()?).collect();
    let (first, others) = devices.split_first()?;
    let Ok(chooser) = Chooser::new(host) else { return Some(Vec::new()) };
    let of = |device: &Device| chooser.for_device(device).unwrap_or_default();
    let mut matches = of(first);
    for device in others {
        let theirs = of(device);
        matches.retain(|own| theirs.iter().any(|other| other.name() == own.name()));
    }
    Some(matches.iter().map(described).collect())
}

fn described(found: &Match) -> Candidate {
    let known = Catalog::bundled().by_module(found.module.as_str());
    let title = known.map_or("matches the device", |driver| driver.title);
    let help = match found.verdict {
        Verdict::Blocked => format!("cannot be used: {}", found.reasons.join("; ")),
        _ => title.to_string(),
    };
    Candidate::new(found.name(), help)
}

/// The drivers for VFs of a PF, which may have none yet.
fn matching_vfs(host: &Host, place: &Place) -> Vec<Candidate> {
    let Some(pf) = operand(host, place) else { return all_known() };
    if let Some(vf) = pf.vfs.first() {
        return matching(host, &[vf.to_string()]).unwrap_or_default();
    }
    let range = VfRange::read(host, pf.address).ok().flatten();
    let ids = range.and_then(|range| {
        let id = |digits: &str| u16::from_str_radix(digits, 16).ok();
        id(&range.vendor).zip(id(&range.device))
    });
    let is_fit = |driver: &&Driver| driver.catch_all || ids.is_some_and(|(vendor, id)| driver.id(vendor, id).is_some());
    let mut fit: Vec<&Driver> = Catalog::bundled().drivers().iter().filter(is_fit).collect();
    fit.sort_by_key(|driver| driver.catch_all);
    fit.into_iter().map(|driver| Candidate::new(driver.driver, driver.title)).collect()
}

fn all_known() -> Vec<Candidate> {
    let known = Catalog::bundled().drivers().iter();
    known.map(|driver| Candidate::new(driver.driver, driver.title)).collect()
}

fn releases(host: &Host) -> Vec<Candidate> {
    let running = host.running().ok();
    let directories = host.module_directories();
    let entries = directories.iter().filter_map(|directory| directory.read_dir().ok()).flatten().flatten();
    let names: BTreeSet<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    let help = |name: &String| if Some(name) == running.as_ref() { "runs here" } else { "installed" };
    names.iter().map(|name| Candidate::new(name, help(name))).collect()
}

fn groups(host: &Host) -> Vec<Candidate> {
    let mut groups: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for device in listing(host) {
        if let Some(group) = device.iommu_group {
            groups.entry(group).or_default().push(device.address.to_string());
        }
    }
    groups.into_iter().map(|(number, devices)| Candidate::new(number.to_string(), devices.join(", "))).collect()
}
