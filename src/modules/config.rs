// SPDX-License-Identifier: MIT OR Apache-2.0
//! What modprobe.d(5) says about VFIO drivers: `alias` lines and blacklists.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::drop_in;
use crate::file;
use crate::host::Host;
use crate::kernel_name::ModuleName;
use crate::matcher::Table;

/// Blacklisted modules, and where each is blacklisted.
pub type Blacklist = BTreeMap<ModuleName, String>;

/// What modprobe.d says besides aliases.
#[derive(Debug, Default)]
pub struct Config {
    /// What is blacklisted, the kernel command line's modules included.
    pub blacklist: Blacklist,
    /// Files and directories that were left out since they cannot be read.
    pub warnings: Vec<String>,
}

/// Adds the `alias` lines to `table` and returns the rest. What cannot be read is left out, as kmod does
/// (`libkmod/libkmod-config.c`, `kmod_config_new`).
pub fn read(host: &Host, table: &mut Table) -> Config {
    let mut config = Config::default();
    let (files, errors) = drop_in::readable_files(&host.modprobe_directories(), ".conf");
    config.warnings.extend(errors.iter().map(|error| format!("{error}; left out")));
    for path in files {
        let bytes = match file::read(&path, file::SETTINGS) {
            Ok(bytes) => bytes,
            Err(error) => {
                config.warnings.push(format!("cannot read {}: {error}; left out", path.display()));
                continue;
            }
        };
        config.read_text(&String::from_utf8_lossy(&bytes), &path, table);
    }
    // kmod reads the command line for this as well (libkmod/libkmod-config.c, kcmdline).
    let command_line = file::read(&host.kernel_command_line(), file::ATTRIBUTE).unwrap_or_default();
    for word in String::from_utf8_lossy(&command_line).split_whitespace() {
        let Some(modules) = word.strip_prefix("modprobe.blacklist=") else { continue };
        for module in modules.split(',').filter_map(|name| name.parse().ok()) {
            config.blacklist.entry(module).or_insert_with(|| "the kernel command line".to_string());
        }
    }
    config
}

/// A line of modprobe.d that is neither an alias nor a blacklist: `options`, `install`, `softdep` and the like.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Directive {
    /// The file it stands in.
    pub path: PathBuf,
    /// Where it begins, from 1.
    pub line: usize,
    /// Its words: what it is, the module, the rest.
    pub words: Vec<String>,
}

/// All such lines, in the order in which they are read. What cannot be read is named by [`read`].
pub fn directives(host: &Host) -> Vec<Directive> {
    let mut directives = Vec::new();
    for path in drop_in::readable_files(&host.modprobe_directories(), ".conf").0 {
        let Ok(bytes) = file::read(&path, file::SETTINGS) else { continue };
        for (line, text) in logical_lines(&String::from_utf8_lossy(&bytes)) {
            let words: Vec<String> = text.split([' ', '\t']).filter(|w| !w.is_empty()).map(str::to_string).collect();
            if words.first().is_some_and(|first| !matches!(first.as_str(), "alias" | "blacklist")) {
                directives.push(Directive { path: path.clone(), line, words });
            }
        }
    }
    directives
}

impl Config {
    /// Adds what one file says, whose text this is.
    pub fn read_text(&mut self, text: &str, path: &Path, table: &mut Table) {
        for (number, line) in logical_lines(text) {
            // What follows the words that a line needs is nothing to kmod: often it is a comment.
            let mut words = line.split([' ', '\t']).filter(|word| !word.is_empty());
            match words.next() {
                Some("alias") => table.read_modprobe_alias(words, number),
                Some("blacklist") => {
                    if let Some(Ok(module)) = words.next().map(str::parse) {
                        self.blacklist.entry(module).or_insert_with(|| format!("{}:{number}", path.display()));
                    }
                }
                _ => {}
            }
        }
    }
}

/// Lines as kmod reads them (`shared/util.c`, `freadline_wrapped`), each with the number of its first, from 1: a backslash
/// joins a line to the next, and is left out before any other character. Comments are left out.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let (mut number, mut first, mut line) = (1, 1, String::new());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\n' => {
                lines.push((first, std::mem::take(&mut line)));
                number += 1;
                first = number;
            }
            '\\' => match characters.next() {
                Some('\n') => number += 1,
                other => line.extend(other),
            },
            other => line.push(other),
        }
    }
    if !line.is_empty() {
        lines.push((first, line));
    }
    lines.retain(|(_, line)| !line.starts_with('#'));
    lines
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn joined_lines_and_comments() {
        let text = "# no\nalias a b\nblacklist \\\n  c\n\nlast";
        assert_eq!(
            logical_lines(text),
            [(2, "alias a b".into()), (3, "blacklist   c".into()), (5, String::new()), (6, "last".into())]
        );
    }

    #[test]
    fn lines_are_read_as_kmod_reads_them() {
        for (text, expected) in [
            // A word more, such as a comment, is none to kmod.
            ("blacklist one # not this one", "one"),
            ("blacklist\tone two", "one"),
            ("\t blacklist  one", "one"),
            ("alias vfio_pci:v1* one two", "vfio_pci:v1*=one"),
            ("alias vfio_pci:v1*", ""),
            // A backslash counts, and a second one is an ordinary character.
            ("black\\\nlist one", "one"),
            ("blacklist o\\ne", "one"),
            ("blacklist one\\\\\nblacklist two", "one\\ two"),
            ("# no\\\nblacklist one\nblacklist two", "two"),
            ("blacklist one\\", "one"),
            // Nothing else ends a line, and nothing else parts words.
            ("blacklist one\r\nblacklist two", "two"),
            ("blacklist\u{a0}one", ""),
        ] {
            let (mut config, mut table) = (Config::default(), Table::default());
            config.read_text(text, Path::new("x.conf"), &mut table);
            let mut found: Vec<String> = config.blacklist.keys().map(ModuleName::to_string).collect();
            found.extend(table.entries.iter().map(|entry| format!("{}={}", entry.pattern.as_str(), entry.module)));
            assert_eq!(found.join(" "), expected, "{text:?}");
        }
    }

    #[test]
    fn aliases_and_blacklists_of_a_host() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/modprobe.d");
        fs::create_dir_all(&directory).unwrap();
        fs::create_dir_all(root.path().join("proc")).unwrap();
        fs::write(root.path().join("proc/cmdline"), "quiet modprobe.blacklist=qat-vfio-pci,ism_vfio_pci\n").unwrap();
        fs::write(
            directory.join("vfio.conf"),
            "blacklist mlx5-vfio-pci\nalias vfio_pci:v1* my-driver\nalias eth0 e1000\n",
        )
        .unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let mut table = Table::default();
        let Config { blacklist, warnings } = read(&host, &mut table);
        assert!(warnings.is_empty());
        let names: Vec<&str> = blacklist.keys().map(ModuleName::as_str).collect();
        assert_eq!(names, ["ism_vfio_pci", "mlx5_vfio_pci", "qat_vfio_pci"]);
        assert!(blacklist.values().any(|place| place.ends_with("vfio.conf:1")));
        assert_eq!(table.entries.len(), 1);
        assert_eq!(table.entries[0].module.as_str(), "my_driver");
    }
    #[test]
    fn what_cannot_be_read_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("etc/modprobe.d");
        fs::create_dir_all(directory.join("a-directory.conf")).unwrap();
        symlink("nowhere", directory.join("b-dangling.conf")).unwrap();
        fs::write(directory.join("c-forbidden.conf"), "blacklist one\n").unwrap();
        fs::set_permissions(directory.join("c-forbidden.conf"), fs::Permissions::from_mode(0o000)).unwrap();
        fs::write(directory.join("d.conf"), "blacklist two\nalias vfio_pci:v1* three\n").unwrap();
        // A directory that cannot be read, by root either.
        fs::create_dir(root.path().join("run")).unwrap();
        symlink("modprobe.d", root.path().join("run/modprobe.d")).unwrap();

        let host = Host::new(root.path(), None).unwrap();
        let mut table = Table::default();
        let config = read(&host, &mut table);
        assert!(config.blacklist.keys().any(|module| module.as_str() == "two"));
        assert_eq!(table.entries.len(), 1);
        for name in ["run/modprobe.d", "a-directory.conf", "b-dangling.conf"] {
            let named = config.warnings.iter().filter(|warning| warning.contains(name)).count();
            assert_eq!(named, 1, "{name} in {:?}", config.warnings);
        }
        // Root may read anything.
        let is_warned = config.warnings.iter().any(|warning| warning.contains("c-forbidden.conf"));
        assert_ne!(is_warned, config.blacklist.keys().any(|module| module.as_str() == "one"));
    }
}
