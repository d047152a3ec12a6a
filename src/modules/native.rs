// SPDX-License-Identifier: MIT OR Apache-2.0
//! The devices that native drivers take: the `pci:` aliases of a kernel's tables. These are most of the tables, so they are
//! looked at for one driver at a time, and only where one is asked for by name.

use std::io;

use super::tables::TableError;
use crate::file;
use crate::host::Host;
use crate::kernel_name::{ModuleName, is_same_name};
use crate::matcher::{Modalias, Pattern};

/// What a module's drivers list. Empty: they list nothing, or they are built into a kernel before 6.18, whose tables do
/// not say. From the whole text: depmod's index is by alias, not by module.
pub fn native_table(host: &Host, release: &str, module: &ModuleName) -> Result<Vec<Pattern>, TableError> {
    let directory = host.modules(release);
    let mut patterns = Vec::new();

    let aliases = read_if_there(&directory.join("modules.alias"))?;
    for line in aliases.lines().filter_map(|line| line.strip_prefix("alias ")) {
        if let Some((pattern, _)) = line.rsplit_once(' ').filter(|(_, named)| is_same_name(named, module.as_str())) {
            add(&mut patterns, pattern);
        }
    }
    let built_in = read_if_there(&directory.join("modules.builtin.modinfo"))?;
    for record in built_in.split('\0') {
        let alias = record.split_once(".alias=").filter(|(named, _)| is_same_name(named, module.as_str()));
        if let Some((_, pattern)) = alias {
            add(&mut patterns, pattern);
        }
    }
    Ok(patterns)
}

/// Could a native driver take such a device? `false`: the tables name none for it. Where nothing that is built in has a table, as
/// before 6.18, it could be any of that.
pub fn may_have_native(host: &Host, release: &str, modalias: &Modalias) -> Result<bool, TableError> {
    let directory = host.modules(release);
    let is_for = |pattern: &str| Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(modalias.as_str()));

    let aliases = read_if_there(&directory.join("modules.alias"))?;
    let patterns = aliases.lines().filter_map(|line| Some(line.strip_prefix("alias ")?.rsplit_once(' ')?.0));
    if patterns.filter(|pattern| pattern.starts_with("pci:")).any(is_for) {
        return Ok(true);
    }
    let built_in = read_if_there(&directory.join("modules.builtin.modinfo"))?;
    let patterns = built_in.split('\0').filter_map(|record| Some(record.split_once(".alias=")?.1));
    let mut patterns = patterns.filter(|pattern| pattern.starts_with("pci:")).peekable();
    Ok(patterns.peek().is_none() || patterns.any(is_for))
}

fn add(patterns: &mut Vec<Pattern>, pattern: &str) {
    if pattern.starts_with("pci:") {
        // What kmod drops too matches nothing.
        patterns.extend(Pattern::new(pattern));
    }
}

fn read_if_there(path: &std::path::Path) -> Result<String, TableError> {
    match file::read(path, file::TABLE) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(TableError::Read { path: path.to_path_buf(), source }),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_modules_aliases_are_its_table() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), None).unwrap();
        let directory = root.path().join("lib/modules/7.0.0");
        fs::create_dir_all(&directory).unwrap();
        fs::write(
            directory.join("modules.alias"),
            "alias pci:v00008086d00004940sv*sd*bc*sc*i* qat_4xxx\nalias of:N*T* igb\n\
             alias pci:v00008086d00001533sv*sd*bc*sc*i* igb\nalias vfio_pci:v*d*sv*sd*bc*sc*i* vfio_pci\n",
        )
        .unwrap();
        let modinfo = "nvme.alias=pci:v*d*sv*sd*bc01sc08i02*\0nvme.license=GPL\0virtio_pci.alias=x\0";
        fs::write(directory.join("modules.builtin.modinfo"), modinfo).unwrap();
        let table = |name: &str| -> Vec<String> {
            let patterns = native_table(&host, "7.0.0", &name.parse().unwrap()).unwrap();
            patterns.iter().map(|pattern| pattern.as_str().to_string()).collect()
        };
        assert_eq!(table("igb"), ["pci:v00008086d00001533sv*sd*bc*sc*i*"]);
        assert_eq!(table("qat-4xxx"), ["pci:v00008086d00004940sv*sd*bc*sc*i*"]);
        assert_eq!(table("nvme"), ["pci:v*d*sv*sd*bc01sc08i02*"]);
        assert!(table("vfio-pci").is_empty() && table("virtio-pci").is_empty() && table("none").is_empty());
        assert!(native_table(&host, "6.1.0", &"igb".parse().unwrap()).unwrap().is_empty());

        let may_have_native = |release: &str, ids: &str, class: &str| {
            let modalias: Modalias = format!("pci:v0000{ids}sv00000000sd00000000{class}").parse().unwrap();
            super::may_have_native(&host, release, &modalias).unwrap()
        };
        assert!(may_have_native("7.0.0", "8086d00001533", "bc02sc00i00"));
        assert!(may_have_native("7.0.0", "8086d0000ABCD", "bc01sc08i02"));
        assert!(!may_have_native("7.0.0", "8086d0000ABCD", "bc06sc00i00"));
        // Nothing of what is built in is known.
        assert!(may_have_native("6.1.0", "8086d0000ABCD", "bc06sc00i00"));
    }
}
