// SPDX-License-Identifier: MIT OR Apache-2.0
//! What modprobe.d(5) says about VFIO drivers: `alias` lines and blacklists.

use std::collections::BTreeMap;
use std::fs;

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
        for (number, line) in logical_lines(&String::from_utf8_lossy(&bytes)) {
            match line.trim().split_once([' ', '\t']) {
                Some(("alias", rest)) => table.read_modprobe_alias(rest.trim(), number),
                Some(("blacklist", module)) => {
                    if let Ok(module) = module.trim().parse() {
                        config.blacklist.entry(module).or_insert_with(|| format!("{}:{number}", path.display()));
                    }
                }
                _ => {}
            }
        }
    }
    // kmod reads the command line for this as well (libkmod/libkmod-config.c, kcmdline).
    let command_line = fs::read_to_string(host.kernel_command_line()).unwrap_or_default();
    for word in command_line.split_whitespace() {
        let Some(modules) = word.strip_prefix("modprobe.blacklist=") else { continue };
        for module in modules.split(',').filter_map(|name| name.parse().ok()) {
            config.blacklist.entry(module).or_insert_with(|| "the kernel command line".to_string());
        }
    }
    config
}

/// Lines with their numbers from 1; a backslash at the end joins a line to the next, `#` makes a comment.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines: Vec<(usize, String)> = Vec::new();
    let mut joining = false;
    for (number, line) in (1..).zip(text.lines()) {
        let (body, joins_next) = match line.strip_suffix('\\') {
            Some(body) => (body, true),
            None => (line, false),
        };
        match lines.last_mut() {
            Some((_, previous)) if joining => previous.push_str(body),
            _ => lines.push((number, body.to_string())),
        }
        joining = joins_next;
    }
    lines.retain(|(_, line)| !line.trim_start().starts_with('#'));
    lines
}

#[cfg(test)]
mod tests {
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
