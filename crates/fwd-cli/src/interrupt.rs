//! Ctrl-C and SIGTERM: the first asks the work to stop at the next safe point, the second ends the program at once.
//!
//! Work that reaches no safe point in a few seconds (a huge batch, a slow disk) is ended without one: every file is written whole or
//! not at all, so that what was saved last is there.

use anyhow::{Context, Result};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// 128 + SIGINT, as shells count.
pub(crate) const EXIT_CODE: u8 = 130;

/// How long the work is waited for.
const PATIENCE: Duration = Duration::from_secs(4);

static REQUESTED: AtomicBool = AtomicBool::new(false);
static AT_ONCE: AtomicBool = AtomicBool::new(false);

/// Listens to the signals.
///
/// # Errors
/// If the system refuses.
pub(crate) fn install() -> Result<()> {
    let handler = || {
        if REQUESTED.swap(true, Ordering::SeqCst) || AT_ONCE.load(Ordering::SeqCst) {
            std::process::exit(i32::from(EXIT_CODE));
        }
        crate::progress::note("stopping at the next safe point; press Ctrl-C again to stop at once");
        std::thread::spawn(|| {
            std::thread::sleep(PATIENCE);
            let seconds = PATIENCE.as_secs();
            crate::progress::note(&format!(
                "no safe point came within {seconds} s; stopped. What was saved before is kept, and the same command goes on from there"
            ));
            std::process::exit(i32::from(EXIT_CODE));
        });
    };
    ctrlc::set_handler(handler).context("cannot listen to Ctrl-C")
}

/// Whether the first signal already ends the program, as while the user is asked something and nothing is under way.
pub(crate) fn end_at_once(is_so: bool) {
    AT_ONCE.store(is_so, Ordering::SeqCst);
}

/// Whether the work has been asked to stop.
pub(crate) fn is_requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
