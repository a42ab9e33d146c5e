//! What linear maps and the operations around them ask of shapes and types.

use crate::cpu::linear::is_weight_dtype;
use crate::error::{OpError, Result};
use candle_core::{DType, Shape, Tensor};

/// `OpError::DType` unless the tensor may serve as a frozen parameter.
pub(crate) fn frozen_dtype(op: &'static str, tensor: &Tensor) -> Result<()> {
    let dtype = tensor.dtype();
    if is_weight_dtype(dtype) {
        return Ok(());
    }
    Err(OpError::DType { op, dtype, supported: "frozen parameters are f32, f64, bf16 or f16" })
}

/// `OpError::Shape` unless the last dimension of `x` is `width`.
pub(crate) fn check_last_dim(op: &'static str, x: &Tensor, width: usize) -> Result<()> {
    if x.dims().last() == Some(&width) {
        return Ok(());
    }
    Err(OpError::shape(op, format!("the last dimension of the input must be {width}, got {:?}", x.shape())))
}

/// `dims` with the last one replaced.
pub(crate) fn with_last_dim(dims: &[usize], last: usize) -> Shape {
    let mut dims = dims.to_vec();
    if let Some(d) = dims.last_mut() {
        *d = last;
    }
    Shape::from_dims(&dims)
}

/// Widens a frozen parameter to the type that activations have: f64 stays f64, everything else becomes f32.
pub(crate) fn activation_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}
