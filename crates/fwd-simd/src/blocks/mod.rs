//! Rows of a matrix as they lie in a file, in a float type or in blocks of few bits: how they are decoded, and products of few rows of
//! activations (decoding) with the stored bytes.
//!
//! Reading the matrix should take longest here. An element is `scale·q + offset` with an integer (or, for the float types, any) `q`;
//! elements come in groups of 32 that share scale and offset. A product multiplies `q` with the activations in vector registers and
//! applies scale and offset to sums of a group: `Σ (scale·q + offset)·x = scale·Σ q·x + offset·Σ x`.

mod dots;
mod format;
mod isa;
mod layout;
mod quantise;
mod rounded;

pub use dots::{decode, products, rounded_products};
pub use format::Format;
pub use quantise::Unfit;
pub use rounded::Rounded;

/// Elements that share scale and offset.
const GROUP: usize = 32;
