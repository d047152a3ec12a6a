// SPDX-License-Identifier: MIT OR Apache-2.0
//! `modules.dep`: which modules have a file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vfioctl::modules::files_in_dep;

/// A module is named by its file, and its file is one of those the text lists.
pub fn modules_dep(data: &[u8]) {
    let data = super::grown(data);
    let Ok(text) = std::str::from_utf8(&data) else { return };
    let directory = Path::new("/lib/modules/6.12.0");
    let files = super::in_time(|| files_in_dep(text, directory));
    let listed: BTreeSet<PathBuf> =
        text.lines().filter_map(|line| Some(directory.join(line.split_once(':')?.0))).collect();
    for (module, file) in &files {
        assert!(listed.contains(file), "{module}: {}", file.display());
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_else(|| panic!("{}", file.display()));
        let bare = &name[..name.find(".ko").expect("a module's file")];
        assert_eq!(module.as_str(), bare.replace('-', "_"));
    }
    assert!(files.len() <= listed.len());
}
