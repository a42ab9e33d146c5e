//! The weight of a linear map or an embedding.

use super::Matrix;
use crate::error::{OpError, Result};
use candle_core::{DType, Tensor};

/// The weight `(n_rows, n_cols)` of a [`Linear`](crate::Linear) or an [`Embedding`](crate::Embedding).
#[derive(Debug, Clone)]
pub enum Weight {
    /// A tensor, on any device; it gets a gradient if it is tracked.
    Dense(Tensor),
    /// A frozen matrix that stays as it is stored, in the memory of the CPU or in a file.
    Matrix(Matrix),
}

impl Weight {
    /// `(n_rows, n_cols)`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if a tensor has not two dimensions or one of them is 0.
    pub fn shape(&self) -> Result<[usize; 2]> {
        match self {
            Self::Matrix(matrix) => Ok([matrix.n_rows(), matrix.n_cols()]),
            Self::Dense(tensor) => match *tensor.dims() {
                [n_rows, n_cols] if n_rows > 0 && n_cols > 0 => Ok([n_rows, n_cols]),
                [_, _] => Err(OpError::shape("weight", format!("weight {:?} is empty", tensor.shape()))),
                _ => {
                    let what = format!("weight must be (n_rows, n_cols), got {:?}", tensor.shape());
                    Err(OpError::shape("weight", what))
                }
            },
        }
    }

    /// Frozen tensors of some types on the CPU become a matrix.
    pub(crate) fn into_matrix_if(self, dtypes: &[DType]) -> Result<Self> {
        match self {
            Self::Dense(tensor)
                if tensor.device().is_cpu() && !tensor.track_op() && dtypes.contains(&tensor.dtype()) =>
            {
                Ok(Self::Matrix(Matrix::of_tensor("weight", &tensor)?))
            }
            weight => Ok(weight),
        }
    }
}

impl From<Tensor> for Weight {
    fn from(tensor: Tensor) -> Self {
        Self::Dense(tensor)
    }
}

impl From<Matrix> for Weight {
    fn from(matrix: Matrix) -> Self {
        Self::Matrix(matrix)
    }
}
