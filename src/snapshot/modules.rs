// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel's module tables, of which only those lines are kept that concern VFIO drivers and the devices that are there. As
//! text, whatever indexes there are: what is odd about the indexes is said where the snapshot is taken.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::path::Path;

use super::reader::Reader;
use super::reduce::lines_with;
use super::tree::Entry;
use crate::catalog::Catalog;
use crate::matcher::{Pattern, Table};

/// Architectures, by the configuration's option for each (`modules/kernel_config.rs`).
const ARCHITECTURES: [(&str, &str); 3] =
    [("x86_64", "CONFIG_X86_64"), ("aarch64", "CONFIG_ARM64"), ("s390x", "CONFIG_S390")];

/// Keeps the tables of a kernel release; `modaliases` are those of the devices, `modules` those of their drivers.
pub fn keep(reader: &mut Reader<'_>, release: &str, modaliases: &BTreeSet<String>, mut modules: BTreeSet<String>) {
    let directory = reader.host.modules(release);
    if let Some(place) = reader.place(&directory).filter(|_| directory.is_dir()) {
        reader.add(place, Entry::Directory);
    }
    modules.extend(Catalog::bundled().drivers().iter().map(|driver| driver.module.to_string()));
    let devices = Devices::new(modaliases);

    let aliases = reader.read(&directory.join("modules.alias"));
    let aliases = aliases.map(|bytes| aliases_of(&bytes, &devices, &mut modules));
    let built_in = reader.read(&directory.join("modules.builtin.modinfo"));
    let built_in = built_in.map(|bytes| built_in_aliases_of(&bytes, &devices, &mut modules));
    let dependencies = reader.read_text(&directory.join("modules.dep"));
    let dependencies = dependencies.map(|text| {
        let lines: Vec<&str> = text.lines().filter(|line| module_of(line).is_some()).collect();
        while lines.iter().filter(|line| is_of(line, &modules)).any(|line| has_unknown(line, &modules)) {
            let needed = lines.iter().filter(|line| is_of(line, &modules)).flat_map(|line| line.split_whitespace());
            let needed: Vec<String> = needed.filter_map(module_of).collect();
            modules.extend(needed);
        }
        let kept: Vec<&str> = lines.into_iter().filter(|line| is_of(line, &modules)).collect();
        for file in kept.iter().filter_map(|line| line.split(':').next()) {
            let path = directory.join(file);
            if let Some(place) = reader.place(&path).filter(|_| path.exists()) {
                reader.add(place, Entry::File(Vec::new()));
            }
        }
        kept.iter().flat_map(|line| [line, "\n"]).collect::<String>().into_bytes()
    });
    let listed = reader.read_text(&directory.join("modules.builtin"));
    let listed = listed.map(|text| lines_with(&text, |line| is_of(line, &modules)).into_bytes());
    for (name, bytes) in [
        ("modules.alias", aliases),
        ("modules.builtin.modinfo", built_in),
        ("modules.dep", dependencies),
        ("modules.builtin", listed),
    ] {
        if let (Some(bytes), Some(place)) = (bytes, reader.place(&directory.join(name))) {
            reader.tree.add(place, Entry::File(bytes));
        }
    }
    keep_configuration(reader, release);
}

/// The options that the catalogue asks about; where the configuration is not installed, what it would be known by that this
/// kernel is for this machine.
fn keep_configuration(reader: &mut Reader<'_>, release: &str) {
    let paths = reader.host.kernel_configs(release);
    let options: Vec<&str> = Catalog::bundled()
        .drivers()
        .iter()
        .filter_map(|driver| driver.kconfig)
        .chain(ARCHITECTURES.iter().map(|(_, option)| *option))
        .collect();
    let is_kept = |line: &str| {
        let name = line.trim_start_matches("# ").split(['=', ' ']).next().unwrap_or_default();
        options.contains(&name) || ["VFIO", "IOMMU"].iter().any(|word| name.contains(word))
    };
    let mut text = None;
    for path in &paths {
        if text.is_none() {
            text = reader.read_text(path).map(|text| (path.clone(), lines_with(&text, is_kept)));
        }
    }
    let known = || {
        let (_, option) = ARCHITECTURES.iter().find(|(name, _)| *name == std::env::consts::ARCH)?;
        reader.host.is_this_machine().then(|| (paths[0].clone(), format!("{option}=y\n")))
    };
    if let Some((path, text)) = text.or_else(known) {
        if let Some(place) = reader.place(&path) {
            reader.tree.add(place, Entry::File(text.into()));
        }
    }
}

/// The devices that are there, as aliases see them.
struct Devices<'a> {
    modaliases: &'a BTreeSet<String>,
    /// How the aliases of these vendors begin, and of all.
    beginnings: BTreeSet<String>,
}

impl<'a> Devices<'a> {
    fn new(modaliases: &'a BTreeSet<String>) -> Devices<'a> {
        let length = "pci:v000015B3".len();
        let begin = |text: &String| text.get(..length).map(str::to_string);
        let beginnings = modaliases.iter().filter_map(begin).chain(["pci:v*".to_string()]).collect();
        Devices { modaliases, beginnings }
    }

    /// Is an alias about one of them?
    fn match_alias(&self, alias: &str) -> bool {
        let beginning = alias.get(..13).unwrap_or_default();
        let may_match =
            self.beginnings.contains(beginning) || alias.starts_with("pci:v*") || alias.contains(['[', '?']);
        may_match && Pattern::new(alias).is_ok_and(|pattern| self.modaliases.iter().any(|one| pattern.matches(one)))
    }
}

/// Is an alias for VFIO? A `-` for the `_` is as good.
fn is_vfio(alias: &[u8]) -> bool {
    alias.starts_with(b"vfio_pci:") || alias.starts_with(b"vfio-pci:")
}

/// The lines of a modules.alias that are kept; the modules they name are added.
fn aliases_of(bytes: &[u8], devices: &Devices<'_>, modules: &mut BTreeSet<String>) -> Vec<u8> {
    let mut table = Table::default();
    // Where something is odd its line is named, so that lines keep their numbers.
    let is_odd = table.read_modules_alias(Cursor::new(bytes)).is_err() || !table.oddities.is_empty();
    let is_kept = |line: &[u8]| {
        let Some(alias) = line.strip_prefix(b"alias ") else { return false };
        is_vfio(alias)
            || alias.starts_with(b"pci:") && {
                let text = String::from_utf8_lossy(alias);
                text.rsplit_once(' ').is_some_and(|(pattern, _)| devices.match_alias(pattern))
            }
    };
    let mut kept = Vec::new();
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        if is_kept(text) {
            kept.extend_from_slice(line);
            let named = text.rsplit(|byte| byte.is_ascii_whitespace()).next().unwrap_or_default();
            modules.insert(String::from_utf8_lossy(named).replace('-', "_"));
        } else if is_odd {
            kept.push(b'\n');
        }
    }
    kept
}

/// The same of a modules.builtin.modinfo, whose records end with a NUL.
fn built_in_aliases_of(bytes: &[u8], devices: &Devices<'_>, modules: &mut BTreeSet<String>) -> Vec<u8> {
    let mut table = Table::default();
    let is_odd = table.read_builtin_modinfo(Cursor::new(bytes)).is_err() || !table.oddities.is_empty();
    let mut kept = Vec::new();
    for record in bytes.split_inclusive(|byte| *byte == 0) {
        let text = String::from_utf8_lossy(record.strip_suffix(b"\0").unwrap_or(record));
        match text.split_once(".alias=") {
            Some((module, alias)) if is_vfio(alias.as_bytes()) || devices.match_alias(alias) => {
                kept.extend_from_slice(record);
                modules.insert(module.replace('-', "_"));
            }
            _ if is_odd => kept.push(0),
            _ => {}
        }
    }
    kept
}

/// The module of a file, as a line of modules.dep begins with one.
fn module_of(line: &str) -> Option<String> {
    let file = Path::new(line.split(':').next()?).file_name()?.to_str()?;
    Some(file.split_once(".ko")?.0.replace('-', "_"))
}

fn is_of(line: &str, modules: &BTreeSet<String>) -> bool {
    module_of(line).is_some_and(|module| modules.contains(&module))
}

fn has_unknown(line: &str, modules: &BTreeSet<String>) -> bool {
    line.split_whitespace().filter_map(module_of).any(|module| !modules.contains(&module))
}
