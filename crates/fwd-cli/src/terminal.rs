//! The terminal as the library sees it: progress bars, remarks, Ctrl-C, and the log of the run that is under way.

use crate::{interrupt, logging, progress};
use fwd_run::{Observer, Progress};
use std::fs::File;

/// The observer of this program.
pub(crate) struct Terminal;

impl Observer for Terminal {
    fn begin(&self, work: &str, len: usize) -> Box<dyn Progress + '_> {
        Box::new(progress::bar(work, len))
    }

    fn note(&self, text: &str) {
        progress::note(text);
    }

    fn is_stop_requested(&self) -> bool {
        interrupt::is_requested()
    }

    fn log_file(&self, file: Option<File>) {
        logging::log_to(file);
    }
}
