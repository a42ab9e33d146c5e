#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod error;
mod learner;
mod lora;
mod model;
mod module;
mod overlap;
mod peft;
mod spaces;

pub use config::{LoraConfig, Sharing};
pub use error::{AdapterError, Result};
pub use learner::{LoraLearner, LoraNote, LoraTraining};
pub use lora::{Factors, Lora};
pub use model::{AdaptableModel, LossGradient};
pub use module::Module;
pub use overlap::add_overlap;
pub use peft::{read, write};
