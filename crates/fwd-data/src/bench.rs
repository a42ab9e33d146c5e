//! The embedded benchmark on disk: tasks of (image, instruction, answer) records in train, validation and test splits.
//!
//! A folder holds `benchmark.json` (the tasks), `tasks/NAME.jsonl` (one record a line) and images: `SOURCE/images.pack` (many
//! in one file), or plain image files, which are then called `SOURCE/FILE`. Images stay on disk and are read when they are needed. [`Benchmark::open`] refuses
//! what could fail later, and [`check`] looks for leaks between splits.

mod benchmark;
mod check;
mod hash;
mod index;
mod pack;
mod record;
mod stream;

pub use benchmark::Benchmark;
pub use check::{CheckReport, Overlap, check};
pub use fwd_eval::Metric;
pub(crate) use index::{INDEX_FILE, Index, Line, TaskEntry, VERSION, read_sequence, read_task, spelt_out};
pub(crate) use pack::{MAGIC, record_head};
pub use record::{BenchTask, ContentHash, Record, Split, Stage, record_name};

#[cfg(test)]
mod tests;
