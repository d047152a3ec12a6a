// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reads a host from its directory.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use crate::model::modules::{Config, Tables};
use crate::model::{Driver, Host, Node};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HostFile {
    title: String,
    #[serde(default)]
    driver: Vec<Driver>,
}

impl Host {
    /// Reads the host in a directory. An error names the file and the reason.
    pub fn load(root: &Path) -> Result<Self> {
        let path = root.join("host.toml");
        let text = read(&path)?;
        let file: HostFile = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let release = release(root)?;
        let tables = tables(&modules_directory(root, &release))?;
        let tree = tree(&root.join("sys"))?;
        Host::new(file.title, &release, tree, file.driver, tables)
            .map_err(|reason| anyhow!("{}: {reason}", root.display()))
    }
}

/// The kernel release of the host in a directory.
pub fn release(root: &Path) -> Result<String> {
    Ok(read(&root.join("proc/sys/kernel/osrelease"))?.trim().to_owned())
}

/// Where the module tables of a release are.
pub fn modules_directory(root: &Path, release: &str) -> PathBuf {
    root.join("lib/modules").join(release)
}

/// Reads the module tables in a release's directory; one that is not there is empty.
pub fn tables(directory: &Path) -> Result<Tables> {
    let mut tables = Tables::default();
    let table = |name: &str| {
        let path = directory.join(name);
        if path.exists() { read(&path) } else { Ok(String::new()) }
    };
    tables.read_dep(&table("modules.dep")?);
    tables.read_alias(&table("modules.alias")?);
    tables.read_builtin(&table("modules.builtin")?);
    tables.read_builtin_modinfo(&table("modules.builtin.modinfo")?);
    tables.read_softdep(&table("modules.softdep")?);
    Ok(tables)
}

/// Reads the modprobe.d directories under a root, in modprobe's order of precedence: a name in one hides the same in a
/// later.
pub fn modprobe_config(root: &Path) -> Result<Config> {
    let mut files = std::collections::BTreeMap::new();
    for directory in ["etc", "run", "usr/local/lib", "usr/lib", "lib"] {
        let Ok(entries) = fs::read_dir(root.join(directory).join("modprobe.d")) else {
            continue;
        };
        for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
            if path.extension().is_some_and(|extension| extension == "conf") {
                let name = path.file_name().unwrap_or_default().to_owned();
                files.entry(name).or_insert(path);
            }
        }
    }
    let mut config = Config::default();
    for path in files.values() {
        config.read(&read(path)?);
    }
    Ok(config)
}

fn read(path: &Path) -> Result<String> {
    // Module tables are ASCII but for strings that no one looks at.
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn tree(path: &Path) -> Result<Node> {
    let context = || path.display().to_string();
    let kind = fs::symlink_metadata(path).with_context(context)?.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(path).with_context(context)?;
        if target.is_absolute() {
            bail!("{}: a link must be relative", path.display());
        }
        let target = target.into_os_string().into_string();
        return target.map(Node::Link).map_err(|_| anyhow!("{}: not UTF-8", path.display()));
    }
    if kind.is_file() {
        return Ok(Node::file(fs::read(path).with_context(context)?));
    }
    let mut node = Node::dir();
    for entry in fs::read_dir(path).with_context(context)? {
        let entry = entry.with_context(context)?;
        let name = entry.file_name().into_string();
        let name = name.map_err(|name| anyhow!("{}: {name:?} is not UTF-8", path.display()))?;
        // An empty directory is kept in git by such a file.
        if name != ".gitkeep" {
            node.insert(&name, tree(&entry.path())?);
        }
    }
    Ok(node)
}
