#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod error;
mod first;
mod keep;
mod key_elements;
mod learner;
mod lora;
mod measures;
mod model;
mod module;
mod overlap;
mod peft;
mod sharing;
mod spaces;

pub use config::LoraConfig;
pub use error::{AdapterError, Result};
pub use key_elements::KeyElements;
pub use learner::{LoraLearner, LoraNote, LoraTraining};
pub use lora::{Factors, Lora};
pub use measures::{change_norm, shared_inputs};
pub use model::{AdaptableModel, LossGradient};
pub use module::Module;
pub use overlap::add_overlap;
pub use peft::{read, write};
pub use sharing::{Penalty, Sharing};
