//! What a model asks of whatever holds its parameters.

use crate::error::Result;
use candle_core::Tensor;
use fwd_ops::{Compute, Weight};

/// Named parameters of known shape.
pub trait Weights {
    /// A parameter in f32. A source may return anything of the right shape for one that it does not have, and say so later.
    ///
    /// # Errors
    /// An error of the source.
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor>;

    /// The matrix of a linear map or an embedding, in the type that the source keeps matrices in.
    ///
    /// # Errors
    /// An error of the source.
    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        Ok(self.get(name, &shape)?.into())
    }

    /// How the frozen linear maps of these parameters compute their products; in f32 unless the source says otherwise. Trained maps
    /// compute in f32 whatever it says.
    fn compute(&self) -> Compute {
        Compute::F32
    }

    /// Whether the source holds a parameter of this name.
    fn has(&self, name: &str) -> bool;
}
