// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ctrl-C, a lost terminal, a service that is stopped: taken as a wish to stop, at a point where nothing is left half done.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

fn wish() -> &'static Arc<AtomicBool> {
    static WISH: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    WISH.get_or_init(Arc::default)
}

/// From now on, these signals no longer end the process.
pub fn take_over() -> io::Result<()> {
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        flag::register(signal, Arc::clone(wish()))?;
    }
    Ok(())
}

/// Has one come?
pub fn is_wanted() -> bool {
    wish().load(Ordering::Relaxed)
}
