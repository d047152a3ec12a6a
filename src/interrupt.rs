// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ctrl-C, a lost terminal, a service that is stopped: taken as a wish to stop, at a point where nothing is left half done.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

fn wish() -> &'static Arc<AtomicBool> {
    static WISH: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    WISH.get_or_init(Arc::default)
}

/// From now on, these signals no longer end the process. One that was ignored at the start (`nohup`, a script's background
/// command) stays ignored.
pub fn take_over() -> io::Result<()> {
    let ignored = ignored_signals();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        if ignored & (1 << (signal - 1)) == 0 {
            flag::register(signal, Arc::clone(wish()))?;
        }
    }
    Ok(())
}

/// The process's mask of ignored signals (proc(5), `SigIgn`).
fn ignored_signals() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

/// Has one come?
pub fn is_wanted() -> bool {
    wish().load(Ordering::Relaxed)
}
