//! Two tasks, a few steps: a whole run from Rust, with progress as lines of text.
//!
//! ```text
//! cargo run --release -p fwd-run --example train
//! ```
//! The embedded model learns to name the continents of flags and then to describe drawings, four steps each, far too few to learn much. The
//! run directory is temporary. A front end of your own needs no more than this: an observer, a session, a configuration.

#![allow(clippy::print_stdout)]

use fwd_data::bench::Split;
use fwd_run::run::{RunPaths, train};
use fwd_run::{Method, Observer, Progress, Result, RunConfig, Session, SessionOptions};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Prints a line when work begins, and one when it ends.
struct Lines;

impl Observer for Lines {
    fn begin(&self, work: &str, len: usize) -> Box<dyn Progress + '_> {
        println!("{work}: {len} steps");
        Box::new(Line { work: work.to_owned(), done: AtomicUsize::new(0) })
    }

    fn note(&self, text: &str) {
        println!("{text}");
    }

    fn is_stop_requested(&self) -> bool {
        false
    }
}

struct Line {
    work: String,
    done: AtomicUsize,
}

impl Progress for Line {
    fn advance(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn set(&self, position: usize) {
        self.done.store(position, Ordering::Relaxed);
    }

    fn say(&self, _: &str) {}
}

impl Drop for Line {
    fn drop(&mut self) {
        println!("{}: {} done", self.work, self.done.load(Ordering::Relaxed));
    }
}

fn run() -> Result<()> {
    let session = Session::open(&SessionOptions::default(), &Lines)?;
    let mut config = RunConfig::default();
    (config.method, config.split) = (Method::Fwd, Split::Val);
    config.tasks = vec!["flags-continent".to_owned(), "drawings".to_owned()];
    (config.pretraining_samples, config.retention_samples) = (16, 1);
    config.training.steps = Some(4);
    config.training.batch_size = 8;
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("run");
    let metrics = train(&session, config, &out, &Lines)?;
    println!("wrote {} and more", RunPaths::new(&out).metrics_json().display());
    for (after, row) in metrics.scores.iter().enumerate() {
        println!("after {after} tasks: {row:.1?}");
    }
    println!("A {:.1?}, F {:.1?}", metrics.measures.average, metrics.measures.forgetting);
    Ok(())
}

fn main() -> Result<()> {
    // Gradients are computed by a recursion over the graph, which a main thread's stack may be too small for.
    let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(run)?;
    match thread.join() {
        Ok(ended) => ended,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
