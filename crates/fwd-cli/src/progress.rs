//! Progress bars with the time that is left, and remarks, on standard error. Bars are hidden where it is no terminal.

use crate::output::one_line;
use fwd_run::Progress;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::Write;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
static QUIET: AtomicBool = AtomicBool::new(false);

const STYLE: &str = "{wide_msg} [{bar:16}] {pos}/{len}  {eta_precise} left";

/// Hides everything if `quiet`.
pub(crate) fn configure(quiet: bool) {
    QUIET.store(quiet, Ordering::SeqCst);
    if quiet {
        BARS.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// A bar of `len` steps; it disappears when it is dropped.
pub(crate) fn bar(message: &str, len: usize) -> Bar {
    let style = ProgressStyle::with_template(STYLE).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(len as u64).with_style(style.progress_chars("=> "));
    let bar = BARS.add(bar);
    bar.set_message(one_line(message).into_owned());
    Bar(bar)
}

/// One line for the user, unless `--quiet`.
pub(crate) fn note(text: &str) {
    if !QUIET.load(Ordering::SeqCst) {
        // Nobody is left to be told if standard error is closed.
        let _ = suspend(|| writeln!(std::io::stderr(), "{}", one_line(text)));
    }
}

/// Runs `f` with the bars out of the way.
pub(crate) fn suspend<T>(f: impl FnOnce() -> T) -> T {
    BARS.suspend(f)
}

/// Takes all bars away.
pub(crate) fn clear() {
    let _ = BARS.clear();
}

/// A progress bar; it is cleared away when it is dropped.
pub(crate) struct Bar(ProgressBar);

impl Progress for Bar {
    fn advance(&self) {
        self.0.inc(1);
    }

    fn set(&self, position: usize) {
        self.0.set_position(position as u64);
    }

    fn say(&self, text: &str) {
        self.0.set_message(one_line(text).into_owned());
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
