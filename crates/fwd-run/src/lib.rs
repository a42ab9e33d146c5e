#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod analysis;
pub mod assets;
mod choice;
pub mod comparison;
pub mod config;
mod device;
mod error;
pub mod files;
pub mod inspection;
mod limits;
mod memory;
mod method;
pub mod model;
mod observer;
mod plan;
pub mod predictions;
pub mod pretraining;
pub mod run;
pub mod samples;
pub mod scoring;
mod session;
mod weight_training;

pub use anyhow::{Error, Result};
pub use choice::Choice;
pub use config::RunConfig;
pub use device::DeviceKind;
pub use fwd_models::WeightDtype;
pub use fwd_ops::Compute;
pub use limits::{CutTexts, TextLimits, TooLong};
pub use method::Method;
pub use observer::{Interrupted, Observer, Progress, Silent, check, is_interrupt};
pub use session::{Session, SessionOptions};
