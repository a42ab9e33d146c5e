//! A language model alone learns the continents of countries, and after them past tenses, from sixteen questions each.
//!
//! ```text
//! cargo run --release -- demo --text --quick     # fetches SmolLM2-135M-Instruct into smollm2, after asking
//! cargo run --release -p fwd-run --example language_model [DIR]
//! ```
//! DIR is the directory of any language model that the program reads, a LLaMA or an OPT with prompts behind the question. A run of the program
//! is the same with `train --backbone DIR --bench assets/text --set pool.place=end --set training.lr_unit=embedding`.

#![allow(clippy::print_stdout)]

use fwd_data::bench::Split;
use fwd_prompt::{LrUnit, Place};
use fwd_run::run::train;
use fwd_run::{Method, Result, RunConfig, Session, SessionOptions, Silent, assets};
use std::path::PathBuf;

fn run() -> Result<()> {
    let backbone = std::env::args().nth(1).unwrap_or_else(|| "smollm2".to_owned());
    let options = SessionOptions {
        backbone: Some(PathBuf::from(backbone)),
        bench: Some(assets::text_benchmark()?),
        ..SessionOptions::default()
    };
    let session = Session::open(&options, &Silent)?;
    let mut config = RunConfig::default();
    (config.method, config.split) = (Method::Fwd, Split::Val);
    config.tasks = ["continent", "past"].map(String::from).to_vec();
    (config.training_samples, config.retention_samples, config.max_new_tokens) = (Some(16), 1, 8);
    // Behind the question, what stands in front is computed once a sample; and a model's embeddings say how long a step is.
    config.pool.place = Place::End;
    (config.training.lr_unit, config.training.batch_size) = (LrUnit::Embedding, 8);
    let folder = tempfile::tempdir()?;
    let metrics = train(&session, config, &folder.path().join("run"), &Silent)?;
    for (after, row) in metrics.scores.iter().enumerate() {
        println!("after {after} tasks: {row:.1?}");
    }
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
