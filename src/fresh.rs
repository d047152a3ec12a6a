// SPDX-License-Identifier: MIT OR Apache-2.0
//! One look for all who ask for it at a time. What somebody is given was looked for after it was asked for, as if everybody
//! had looked: who asks while another looks waits for the next look, and shares that with all who wait as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

/// Looks, by what is looked at.
#[derive(Debug)]
pub struct Fresh<T> {
    looks: Mutex<BTreeMap<PathBuf, Look<T>>>,
    over: Condvar,
}

#[derive(Debug)]
struct Look<T> {
    /// How many were begun.
    begun: u64,
    /// Is one under way? It is the last that was begun.
    is_under_way: bool,
    /// What the last one that is over has found.
    found: Option<Arc<T>>,
}

impl<T> Fresh<T> {
    /// Nobody has looked yet.
    pub const fn new() -> Fresh<T> {
        Fresh { looks: Mutex::new(BTreeMap::new()), over: Condvar::new() }
    }

    /// What `look` finds, or another's look that is begun after this call.
    pub fn get(&self, what: &Path, look: impl FnOnce() -> T) -> Arc<T> {
        const PANIC: &str = "no thread panics with it";
        let mut looks = self.looks.lock().expect(PANIC);
        if !looks.contains_key(what) {
            looks.insert(what.to_path_buf(), Look { begun: 0, is_under_way: false, found: None });
        }
        let of = |looks: &BTreeMap<PathBuf, Look<T>>| {
            let look = &looks[what];
            (look.begun, look.is_under_way, look.found.clone())
        };
        let (before, ..) = of(&looks);
        loop {
            match of(&looks) {
                (begun, false, Some(found)) if begun > before => return found,
                (_, false, _) => break,
                // One later than the next will do as well, but that one is over first.
                (begun, true, Some(found)) if begun > before + 1 => return found,
                (_, true, _) => looks = self.over.wait(looks).expect(PANIC),
            }
        }
        let own = looks.get_mut(what).expect("it is there");
        own.begun += 1;
        own.is_under_way = true;
        drop(looks);
        let found = Arc::new(look());
        let mut looks = self.looks.lock().expect(PANIC);
        let own = looks.get_mut(what).expect("it is there");
        own.is_under_way = false;
        own.found = Some(Arc::clone(&found));
        self.over.notify_all();
        found
    }
}

impl<T> Default for Fresh<T> {
    fn default() -> Fresh<T> {
        Fresh::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// A clock that goes on with each look shows that none was begun before it was asked for, and how many there were.
    #[test]
    fn what_is_given_is_not_older_than_the_question() {
        let (fresh, clock, looks) = (Fresh::new(), AtomicU64::new(0), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    for _ in 0..8 {
                        let asked = clock.fetch_add(1, Ordering::SeqCst);
                        let look = || {
                            looks.fetch_add(1, Ordering::SeqCst);
                            let begun = clock.fetch_add(1, Ordering::SeqCst);
                            thread::sleep(Duration::from_millis(2));
                            begun
                        };
                        let begun = *fresh.get(Path::new("/x"), look);
                        assert!(begun > asked, "begun at {begun}, asked for at {asked}");
                    }
                });
            }
        });
        let looks = looks.into_inner();
        assert!(looks < 16 * 8 / 2, "{looks} looks for {} questions", 16 * 8);
        assert_eq!(*fresh.get(Path::new("/y"), || 1), 1, "another is another");
    }
}
