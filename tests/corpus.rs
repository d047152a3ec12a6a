// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every input that was kept for a fuzz target (fuzz/README.md) has the property that is looked for there.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// The properties themselves: there is one copy, for this test and for the targets.
#[path = "../fuzz/src/lib.rs"]
#[allow(dead_code, reason = "a target compares with the C library as well")]
mod fuzzed;

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(name)
}

/// The names in a directory, without what comes after a dot.
fn names(directory: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let name = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_string();
    entries.map(|entry| name(entry.unwrap().path())).collect()
}

#[test]
fn what_was_kept_is_held_to_its_property() {
    let mut failed = Vec::new();
    for (name, property) in fuzzed::PROPERTIES {
        let mut inputs = 0;
        for kept in ["corpus", "regressions"].map(|kept| directory(kept).join(name)) {
            // Not every target has found something.
            if kept.ends_with(format!("regressions/{name}")) && !kept.exists() {
                continue;
            }
            for entry in fs::read_dir(&kept).unwrap_or_else(|error| panic!("{}: {error}", kept.display())) {
                let path = entry.unwrap().path();
                let bytes = fs::read(&path).unwrap();
                inputs += 1;
                if catch_unwind(|| property(&bytes)).is_err() {
                    failed.push(path);
                }
            }
        }
        assert!(inputs > 0, "no input for {name}");
        println!("{name}: {inputs} inputs");
    }
    assert!(failed.is_empty(), "see above what does not hold for {failed:#?}");
}

/// A target that is forgotten somewhere would not be run there.
#[test]
fn every_property_has_its_target_and_its_inputs() {
    let properties: BTreeSet<String> = fuzzed::PROPERTIES.iter().map(|(name, _)| name.to_string()).collect();
    assert_eq!(names(&directory("fuzz_targets")), properties);
    assert_eq!(names(&directory("corpus")), properties);
    assert!(names(&directory("regressions")).is_subset(&properties));

    let manifest: toml::Table = fs::read_to_string(directory("Cargo.toml")).unwrap().parse().unwrap();
    let targets = manifest["bin"].as_array().unwrap().iter().map(|bin| bin["name"].as_str().unwrap().to_string());
    assert_eq!(targets.collect::<BTreeSet<String>>(), properties);
}
