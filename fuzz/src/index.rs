// SPDX-License-Identifier: MIT OR Apache-2.0
//! depmod's indexes: a look-up finds what a walk through all of it finds.

use vfioctl::modules::index::{Entry, Index};

/// `modules.alias.bin` and its like.
pub fn modules_index(data: &[u8]) {
    let Ok(mut index) = Index::new(data) else { return };
    let Ok(all) = super::in_time(|| index.starting_with(b"")) else { return };
    for entry in all.iter().take(8) {
        for length in [0, 1, entry.key.len() / 2, entry.key.len()] {
            let prefix = &entry.key[..length.min(entry.key.len())];
            let expected: Vec<&Entry> = all.iter().filter(|entry| entry.key.starts_with(prefix)).collect();
            let found = index.starting_with(prefix).expect("it is part of all");
            assert_eq!(found.iter().collect::<Vec<_>>(), expected);
        }
        let first = all.iter().find(|other| other.key == entry.key).map(|entry| entry.value.clone());
        assert_eq!(index.get(&entry.key).expect("it is part of all"), first);
    }
}
