// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ctrl-C, a lost terminal, a service that is stopped: taken as a wish to stop, at a point where nothing is left half done.
//! Whoever wishes it a second time does not wait for that either.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// How long what was begun before the wish is waited for.
const GRACE: Duration = Duration::from_secs(15);

/// When, from the wish on, putting back is over as well. Service managers kill what takes longer: systemd after 90 s.
const UNDOING: Duration = Duration::from_secs(60);

/// Signals that come so close together are one wish: a service manager may send SIGTERM and SIGHUP, a terminal that goes
/// SIGHUP twice.
const TOGETHER: Duration = Duration::from_millis(500);

/// Has a signal come that was not looked at yet?
fn signal() -> &'static Arc<AtomicBool> {
    static SIGNAL: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    SIGNAL.get_or_init(Arc::default)
}

/// The wish to stop.
#[derive(Clone, Copy)]
struct Wish {
    since: Instant,
    is_urgent: bool,
}

fn wish() -> Option<Wish> {
    static WISH: Mutex<Option<Wish>> = Mutex::new(None);
    let mut wish = WISH.lock().unwrap_or_else(PoisonError::into_inner);
    if signal().swap(false, Ordering::Relaxed) {
        match wish.as_mut() {
            None => *wish = Some(Wish { since: Instant::now(), is_urgent: false }),
            Some(wish) => wish.is_urgent |= wish.since.elapsed() > TOGETHER,
        }
    }
    *wish
}

/// From now on, these signals no longer end the process. One that was ignored at the start (`nohup`, a script's background
/// command) stays ignored.
pub fn take_over() -> io::Result<()> {
    let ignored = ignored_signals();
    for signal_number in [SIGHUP, SIGINT, SIGTERM] {
        if ignored & (1 << (signal_number - 1)) == 0 {
            flag::register(signal_number, Arc::clone(signal()))?;
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

/// Is it wished that this stops?
pub fn is_wanted() -> bool {
    wish().is_some()
}

/// May something be begun? An error: the time for that is over.
pub fn check(is_undoing: bool) -> io::Result<()> {
    let now = Instant::now();
    match deadline(now, is_undoing) {
        Some(deadline) if deadline <= now => Err(io::Error::other("interrupted before that began")),
        _ => Ok(()),
    }
}

/// Is there no time left even to put something back? After a second wish there is none.
pub fn is_undoing_over() -> bool {
    check(true).is_err()
}

/// When to give up on what was begun at a time, for the sake of whoever wishes to stop; `None`: nobody does. What is begun
/// after the wish, or `is_undoing`, puts things back.
pub fn deadline(begun: Instant, is_undoing: bool) -> Option<Instant> {
    wish().map(|wish| match wish {
        Wish { since, is_urgent: true } => since,
        Wish { since, .. } if is_undoing || begun > since => since + UNDOING,
        Wish { since, .. } => since + GRACE,
    })
}
