//! Parameters under a prefix, and the linear maps and norms that are made of them.

use super::source::Weights;
use crate::error::Result;
use candle_core::Tensor;
use fwd_ops::{Compute, Format, Linear, OpError, Weight};

/// A prefix in front of parameter names, so that a layer can be built without knowing where it stands.
pub(crate) struct Scope<'a> {
    weights: &'a mut dyn Weights,
    prefix: String,
    /// Keep matrices in f32 too, and compute their products in f32.
    full_precision: bool,
}

impl<'a> Scope<'a> {
    pub(crate) fn new(weights: &'a mut dyn Weights, prefix: &str) -> Self {
        Self { weights, prefix: prefix.into(), full_precision: false }
    }

    /// The scope of a part.
    pub(crate) fn at(&mut self, part: &str) -> Scope<'_> {
        Scope { prefix: self.name(part), weights: self.weights, full_precision: self.full_precision }
    }

    /// This scope again, for a part that lies at the same level.
    pub(crate) fn same(&mut self) -> Scope<'_> {
        Scope { prefix: self.prefix.clone(), weights: self.weights, full_precision: self.full_precision }
    }

    /// This scope with all its parameters in f32, whatever type the source keeps matrices in.
    pub(crate) fn in_full_precision(self) -> Self {
        Self { full_precision: true, ..self }
    }

    /// The full name of a parameter.
    pub(crate) fn name(&self, part: &str) -> String {
        if self.prefix.is_empty() { part.into() } else { format!("{}.{part}", self.prefix) }
    }

    /// A parameter in f32.
    pub(crate) fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.weights.get(&self.name(name), shape)
    }

    /// `{name}.weight (n_rows, n_cols)` in the type that the source keeps matrices in, unless the scope is one of full precision.
    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        let name = self.name(&format!("{name}.weight"));
        if self.full_precision {
            return Ok(self.weights.get(&name, &shape)?.into());
        }
        self.weights.weight(&name, shape)
    }

    /// How frozen products are computed here.
    fn compute(&self) -> Compute {
        self.weights.compute()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.weights.has(&self.name(name))
    }

    /// `{name}.weight (n_out, n_in)`, and `{name}.bias (n_out)` if wanted; under its full name, by which [`Additions`](fwd_ops::Additions) are
    /// asked for it.
    pub(crate) fn linear(&mut self, name: &str, n_out: usize, n_in: usize, bias: bool) -> Result<Linear> {
        let weight = self.weight(name, [n_out, n_in])?;
        let bias = if bias { Some(self.get(&format!("{name}.bias"), &[n_out])?) } else { None };
        Ok(self.map(weight, bias)?.named(&self.name(name)))
    }

    /// A linear map whose products are computed as the source says, from a weight that was taken from it.
    pub(crate) fn map(&self, weight: impl Into<Weight>, bias: Option<Tensor>) -> Result<Linear> {
        let weight = weight.into();
        let is_tensor = matches!(weight, Weight::Dense(_));
        let map = Linear::new(weight, bias)?;
        match map.clone().with_compute(self.compute()) {
            // The source tells of these values when the loading ends, with all else that is wrong.
            Err(OpError::NonFiniteWeight { .. }) if is_tensor => Ok(map),
            packed => Ok(packed?),
        }
    }

    /// `{name}.weight (n, d)`.
    pub(crate) fn embedding(&mut self, name: &str, n: usize, d: usize) -> Result<fwd_ops::Embedding> {
        let weight = match self.weight(name, [n, d])? {
            // The same elements in the order that products want, so that a head which is this table needs no copy.
            Weight::Matrix(matrix) if matrix.format() == Format::Bf16 => {
                matrix.packed(self.compute())?.into()
            }
            weight => weight,
        };
        Ok(fwd_ops::Embedding::new(weight)?)
    }

    /// `{name}.weight (d)` and `{name}.bias (d)`.
    pub(crate) fn layer_norm(&mut self, name: &str, d: usize, eps: f64) -> Result<fwd_ops::Norm> {
        let weight = self.get(&format!("{name}.weight"), &[d])?;
        let bias = self.get(&format!("{name}.bias"), &[d])?;
        Ok(fwd_ops::Norm::layer(weight, bias, eps)?)
    }

    /// `{name}.weight (d)`.
    pub(crate) fn rms_norm(&mut self, name: &str, d: usize, eps: f64) -> Result<fwd_ops::Norm> {
        Ok(fwd_ops::Norm::rms(self.get(&format!("{name}.weight"), &[d])?, eps)?)
    }
}
