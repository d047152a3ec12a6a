// SPDX-License-Identifier: MIT OR Apache-2.0
//! What modprobe.d(5) says about VFIO drivers: `alias` lines and blacklists.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use crate::drop_in::{self, DropInError};
use crate::host::Host;
use crate::kernel_name::ModuleName;
use crate::matcher::Table;

/// Blacklisted modules, and where each is blacklisted.
pub type Blacklist = BTreeMap<ModuleName, String>;

/// modprobe.d cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A directory.
    #[error(transparent)]
    Directory(#[from] DropInError),
}

/// Adds the `alias` lines to `table` and returns the blacklist, the kernel command line's included.
pub fn read(host: &Host, table: &mut Table) -> Result<Blacklist, ConfigError> {
    let mut blacklist = Blacklist::new();
    for path in drop_in::files(&host.modprobe_directories(), ".conf")? {
        let bytes = fs::read(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        for (number, line) in logical_lines(&String::from_utf8_lossy(&bytes)) {
            match line.trim().split_once([' ', '\t']) {
                Some(("alias", rest)) => table.read_modprobe_alias(rest.trim(), number),
                Some(("blacklist", module)) => {
                    if let Ok(module) = module.trim().parse() {
                        blacklist.entry(module).or_insert_with(|| format!("{}:{number}", path.display()));
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
            blacklist.entry(module).or_insert_with(|| "the kernel command line".to_string());
        }
    }
    Ok(blacklist)
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
        let blacklist = read(&host, &mut table).unwrap();
        let names: Vec<&str> = blacklist.keys().map(ModuleName::as_str).collect();
        assert_eq!(names, ["ism_vfio_pci", "mlx5_vfio_pci", "qat_vfio_pci"]);
        assert!(blacklist.values().any(|place| place.ends_with("vfio.conf:1")));
        assert_eq!(table.entries.len(), 1);
        assert_eq!(table.entries[0].module.as_str(), "my_driver");
    }
}
