//! The arithmetic of products with frozen weights.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// How products with frozen weights are computed on the CPU. Everything else is computed in the type of the activations.
///
/// | compute | weight | activations and gradients in a product | sums |
/// |---|---|---|---|
/// | `F32` | widened exactly | as they are | f32 |
/// | `Bf16` | rounded to bf16 if it is a float type, else widened and rounded | rounded to bf16 | f32 |
/// | `Int8` | as `Bf16` | as `Bf16`; of few rows (decoding) over blocks of 8 or 4 bits rounded to 8 bits | f32 |
///
/// Rounding is to the nearest, ties to even. Trained weights, f64 weights and GPUs are not affected. Activations in f64 serve to check
/// gradients: they are rounded to bf16 where f32 ones are, and sums are taken in f64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compute {
    /// Products in f32.
    #[default]
    F32,
    /// Both factors rounded to bf16.
    Bf16,
    /// As [`Compute::Bf16`], and 8-bit products for few rows over quantised blocks.
    Int8,
}

impl Compute {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::Bf16, Self::Int8];

    /// The name in lower case, as configurations write it: `bf16`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is none of a [`Compute`]'s.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no way to compute products: f32, bf16 or int8")]
pub struct UnknownCompute(String);

impl FromStr for Compute {
    type Err = UnknownCompute;

    /// ```
    /// use fwd_ops::Compute;
    /// assert_eq!("bf16".parse(), Ok(Compute::Bf16));
    /// assert!("fp8".parse::<Compute>().is_err());
    /// ```
    fn from_str(name: &str) -> Result<Self, UnknownCompute> {
        /// Longer names are cut in the message.
        const SHOWN: usize = 40;
        Self::ALL
            .into_iter()
            .find(|compute| compute.name() == name)
            .ok_or_else(|| UnknownCompute(name.chars().take(SHOWN).collect()))
    }
}
