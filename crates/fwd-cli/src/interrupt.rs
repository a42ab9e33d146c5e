//! Ctrl-C and SIGTERM: the first asks the work to stop at the next safe point, the second ends the program at once.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// 128 + SIGINT, as shells count.
pub(crate) const EXIT_CODE: u8 = 130;

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Listens to the signals.
///
/// # Errors
/// If the system refuses.
pub(crate) fn install() -> Result<()> {
    let handler = || {
        if REQUESTED.swap(true, Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT_CODE));
        }
        crate::progress::note("stopping at the next safe point; press Ctrl-C again to stop at once");
    };
    ctrlc::set_handler(handler).context("cannot listen to Ctrl-C")
}

/// Whether the work has been asked to stop.
pub(crate) fn is_requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
