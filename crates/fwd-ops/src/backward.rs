//! A backward pass that cannot lose a gradient silently.

use crate::error::{OpError, Result};
use candle_core::backprop::GradStore;
use candle_core::{DType, Tensor, Var};

/// The gradients of the loss with respect to named parameters, in the order given.
///
/// candle's optimisers skip a parameter that got no gradient, and several of its operations record no backward at all, so a
/// broken path trains a part of the model, or nothing, without a word. Here either every parameter has a finite gradient
/// of its own shape, or the error names all that have not.
///
/// # Errors
/// [`OpError::NonFiniteLoss`] if the loss is NaN or infinite, [`OpError::Gradients`] naming every parameter without a
/// gradient or with a non-finite one, [`OpError::Shape`] if the loss is not a scalar.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor, Var};
/// let p = Var::from_tensor(&Tensor::new(&[1f32, 2.], &Device::Cpu)?)?;
/// let unused = Var::from_tensor(&Tensor::new(&[0f32], &Device::Cpu)?)?;
/// let loss = p.as_tensor().sqr()?.sum_all()?;
/// let grads = fwd_ops::backward(&loss, &[("p", &p)])?;
/// assert_eq!(grads[0].to_vec1::<f32>()?, [2., 4.]);
/// let error = fwd_ops::backward(&loss, &[("p", &p), ("unused", &unused)]).unwrap_err();
/// assert!(error.to_string().contains("no gradient for [unused]"));
/// # Ok::<(), fwd_ops::OpError>(())
/// ```
pub fn backward(loss: &Tensor, parameters: &[(&str, &Var)]) -> Result<Vec<Tensor>> {
    if loss.elem_count() != 1 {
        return Err(OpError::shape("backward", format!("the loss must be a scalar, got {:?}", loss.shape())));
    }
    let value = loss.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()?[0];
    if !value.is_finite() {
        return Err(OpError::NonFiniteLoss { value });
    }
    let store = walk(loss)?;
    let mut gradients = Vec::with_capacity(parameters.len());
    let (mut missing, mut non_finite) = (Vec::new(), Vec::new());
    for (name, parameter) in parameters {
        match store.get(parameter) {
            None => missing.push((*name).to_string()),
            Some(gradient) => {
                if is_finite(gradient)? {
                    gradients.push(gradient.detach());
                } else {
                    non_finite.push((*name).to_string());
                }
            }
        }
    }
    if missing.is_empty() && non_finite.is_empty() {
        return Ok(gradients);
    }
    Err(OpError::Gradients { missing, non_finite })
}

#[allow(clippy::disallowed_methods)] // The one caller that checks what comes out.
fn walk(loss: &Tensor) -> Result<GradStore> {
    Ok(loss.backward()?)
}

/// Whether every element is a finite number: `0·x` is 0 for those alone.
fn is_finite(tensor: &Tensor) -> Result<bool> {
    let sum = (tensor.to_dtype(DType::F64)? * 0.0)?.sum_all()?.to_scalar::<f64>()?;
    Ok(sum == 0.0)
}
