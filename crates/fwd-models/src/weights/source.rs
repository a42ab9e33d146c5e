//! What a model asks of whatever holds its parameters.

use crate::error::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// How the weight matrices are kept in memory. Vectors (norms, biases) and the learned queries stay in f32, and so do all
/// activations: half precision saves memory, not accuracy elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WeightDtype {
    /// 4 bytes an element.
    #[default]
    F32,
    /// 2 bytes, the range of f32, 8 bits of precision.
    Bf16,
    /// 2 bytes, up to 65504, 11 bits of precision.
    F16,
}

/// Named parameters of known shape.
pub trait Weights {
    /// A parameter in f32, or for a matrix in the source's matrix type. A source may return anything of the right shape for
    /// one that it does not have, and say so later.
    ///
    /// # Errors
    /// An error of the source.
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// The same, always in f32.
    ///
    /// # Errors
    /// An error of the source.
    fn get_f32(&mut self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// Whether the source holds a parameter of this name.
    fn has(&self, name: &str) -> bool;
}
