//! Who watches the work: a front end shows progress, prints remarks, and asks the work to stop.
//!
//! Nothing in this crate prints. Functions that take long are handed an [`Observer`] by reference, directly or through a
//! [`FeatureStore`](crate::model::FeatureStore) or [`RunDir`](crate::run::RunDir) that carries one.

use anyhow::Result;
use std::fs::File;

/// A front end, as long work sees it. Its methods may be called from several threads at once.
pub trait Observer: Sync {
    /// Some work of `len` steps begins; it has ended when the returned value is dropped.
    fn begin(&self, work: &str, len: usize) -> Box<dyn Progress + '_>;

    /// A remark for the user, one line.
    fn note(&self, text: &str);

    /// Whether the work shall stop at its next safe point, with [`Interrupted`]. Everything finished before it is kept.
    fn is_stop_requested(&self) -> bool;

    /// From now on a run directory is worked on, and what the program logs (through `tracing`) belongs into this file, its
    /// `log.txt`, which is open for appending; none when the run directory is left. A front end that logs elsewhere drops the file.
    fn log_file(&self, file: Option<File>) {
        drop(file);
    }
}

/// Work that is going on.
pub trait Progress: Send + Sync {
    /// One step more is done.
    fn advance(&self);

    /// So many steps are done.
    fn set(&self, position: usize);

    /// What is being done now, instead of the text that the work began with.
    fn say(&self, text: &str);
}

/// An observer that shows nothing and never asks the work to stop.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&self, _: &str, _: usize) -> Box<dyn Progress + '_> {
        Box::new(Self)
    }

    fn note(&self, _: &str) {}

    fn is_stop_requested(&self) -> bool {
        false
    }
}

impl Progress for Silent {
    fn advance(&self) {}

    fn set(&self, _: usize) {}

    fn say(&self, _: &str) {}
}

/// The error of work that was asked to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// The safe point of a loop: an error if the work was asked to stop.
///
/// # Errors
/// [`Interrupted`].
pub fn check(observer: &dyn Observer) -> Result<()> {
    if observer.is_stop_requested() { Err(Interrupted.into()) } else { Ok(()) }
}

/// Whether an error says that the work was asked to stop, however deep [`Interrupted`] lies in its chain.
pub fn is_interrupt(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<Interrupted>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::boxed;
    use fwd_continual::{ContinualError, Moment, Place};

    struct Stopping;

    impl Observer for Stopping {
        fn begin(&self, _: &str, _: usize) -> Box<dyn Progress + '_> {
            Box::new(Silent)
        }

        fn note(&self, _: &str) {}

        fn is_stop_requested(&self) -> bool {
            true
        }
    }

    #[test]
    fn an_interrupt_is_found_through_all_layers() {
        check(&Silent).unwrap();
        let inner = check(&Stopping).unwrap_err().context("task `a`");
        let at = Place::Evaluation(Moment::START);
        for inner in [inner, check(&Stopping).unwrap_err()] {
            let outer = ContinualError::Task { task: "a".to_owned(), at, source: boxed(inner) };
            assert!(is_interrupt(&anyhow::Error::new(outer).context("training")));
        }
        assert!(!is_interrupt(&anyhow::anyhow!("interrupted")));
    }
}
