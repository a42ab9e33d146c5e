//! CPU arithmetic on plain slices: no tensors, no graph, no GPU.
//!
//! So far the decoupled-weight-decay Adam step that tunes soft prompts: [`AdamW`].

#![forbid(unsafe_code)]

mod adamw;

pub use adamw::{AdamW, AdamWState, LengthError};
