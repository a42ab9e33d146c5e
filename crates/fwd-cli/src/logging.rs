//! Logs: to standard error as much as the user wants to see, and to the `log.txt` of the run that is under way.

use crate::{output, progress};
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

static RUN_LOG: Mutex<Option<File>> = Mutex::new(None);

/// Sets logging up, once. `RUST_LOG` decides what standard error shows, if it is there.
pub(crate) fn install(verbose: u8, quiet: bool) {
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let terminal = fmt::layer()
        .without_time()
        .with_target(false)
        // Colours are control characters too, and what a message holds must not be told from them.
        .with_ansi(false)
        .with_writer(|| Terminal)
        .with_filter(filter);
    let file = fmt::layer()
        .with_target(false)
        .with_ansi(false)
        .with_writer(|| RunLog)
        .with_filter(EnvFilter::new("info"));
    // A second call, in tests, changes nothing.
    let _ = tracing_subscriber::registry().with(terminal).with(file).try_init();
}

/// From now on the log also goes to this file, or to none.
pub(crate) fn log_to(file: Option<File>) {
    *RUN_LOG.lock().unwrap_or_else(PoisonError::into_inner) = file;
}

/// One event as text, its control characters spelt out.
fn text(bytes: &[u8]) -> String {
    output::visible(&String::from_utf8_lossy(bytes)).into_owned()
}

/// Standard error, with the progress bars out of the way.
struct Terminal;

impl Write for Terminal {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        progress::suspend(|| io::stderr().write_all(text(bytes).as_bytes()))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The log file. It is no reason to stop a run: what cannot be written is left out.
struct RunLog;

impl Write for RunLog {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(file) = RUN_LOG.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = file.write_all(text(bytes).as_bytes());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
