// SPDX-License-Identifier: MIT OR Apache-2.0
//! modprobe.d(5), read as kmod reads it.

use std::collections::BTreeMap;
use std::path::Path;

use vfioctl::kernel_name::ModuleName;
use vfioctl::matcher::{OddityKind, Table};
use vfioctl::modules::Config;

/// The aliases and blacklisted modules of one file are those that kmod finds in it.
pub fn modprobe_conf(data: &[u8]) {
    let data = super::grown(data);
    // To kmod a text ends at a NUL.
    let Ok(text) = std::str::from_utf8(&data) else { return };
    if text.contains('\0') {
        return;
    }
    let (mut config, mut table) = (Config::default(), Table::default());
    super::in_time(|| config.read_text(text, Path::new("x.conf"), &mut table));

    let mut aliases = Vec::new();
    let mut blacklist: BTreeMap<ModuleName, String> = BTreeMap::new();
    let lines = kmod_lines(text);
    for (number, line) in &lines {
        let words: Vec<&str> = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect();
        match words.as_slice() {
            _ if line.starts_with('#') => {}
            ["alias", pattern, module, ..] if pattern.starts_with("vfio_pci:") || pattern.starts_with("vfio-pci:") => {
                if let (Some(_), Ok(module)) = (super::in_plain_words(pattern), module.parse()) {
                    aliases.push((pattern.to_string(), module));
                }
            }
            ["blacklist", module, ..] => {
                if let Ok(module) = module.parse() {
                    blacklist.entry(module).or_insert(format!("x.conf:{number}"));
                }
            }
            _ => {}
        }
    }
    let found: Vec<(String, ModuleName)> =
        table.entries.iter().map(|entry| (entry.pattern.as_str().to_string(), entry.module.clone())).collect();
    assert_eq!(found, aliases, "{text:?}");
    assert_eq!(config.blacklist, blacklist, "{text:?}");
    assert!(config.warnings.is_empty());
    for oddity in &table.oddities {
        assert!(lines.iter().any(|(number, _)| *number == oddity.line), "{oddity:?}");
        assert!(!super::has_control(&oddity.to_string()), "{oddity:?}");
        assert_ne!(oddity.kind, OddityKind::Encoding);
    }
}

/// Lines by `shared/util.c`, `freadline_wrapped`, each with the number of its first: a backslash makes what follows an
/// ordinary character, but a newline nothing.
fn kmod_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let (mut number, mut first, mut line) = (1, 1, String::new());
    let mut characters = text.chars();
    loop {
        match characters.next() {
            None => {
                lines.push((first, line));
                return lines;
            }
            Some('\n') => {
                lines.push((first, std::mem::take(&mut line)));
                number += 1;
                first = number;
            }
            Some('\\') => match characters.next() {
                Some('\n') => number += 1,
                other => line.extend(other),
            },
            Some(other) => line.push(other),
        }
    }
}
