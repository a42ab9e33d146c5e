//! The configuration of a run, and how it is read.

mod options;
mod read;
mod run_config;

pub use options::MethodOptions;
pub use run_config::{Order, Paths, RunConfig, parse_split};
