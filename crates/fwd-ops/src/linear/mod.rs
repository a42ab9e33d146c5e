//! Linear maps: `y = x·Wᵀ + b` with `dx = dy·W`, and for a trained map `dW = dyᵀ·x`, `db = Σ dy`.
//!
//! candle's `Op::Matmul` computes and keeps the weight's gradient whether it is frozen or not; here the weight of a frozen map
//! is part of the operation, not an argument, so that gradient cannot come into being.

mod adapted;
mod addition;
mod check;
mod map;
mod observer;
mod trained;

pub use addition::{Additions, LowRank};
pub(crate) use check::{activation_dtype, check_last_dim, frozen_dtype, with_last_dim};
pub(crate) use map::LinearRead;
pub use observer::Observer;
pub(crate) use trained::SumRows;

use crate::compute::Compute;
use crate::dispatch::{apply1, apply2, apply3, on_gpu};
use crate::error::{OpError, Result};
use crate::gpu::{Arg, GpuStorage};
use crate::matrix::Weight;
use addition::Addition;
use candle_core::{DType, Device, Tensor};
use map::{Forward, Map, Store};
use std::sync::Arc;
use trained::Trained;

/// A linear map. It is frozen, and gets no gradient, unless its weight or bias is tracked (a `Var` or computed from one).
/// [`Linear::adapted`] adds low-rank matrices to a frozen weight, which may be trained.
///
/// A frozen weight may be a [`Matrix`](crate::Matrix), which stays in its format (f32, bf16, f16, blocks) and is widened exactly to the type of the
/// activations (f32 or f64), a tile at a time. Frozen tensors on the CPU become one: f32 is packed for products, half precision is kept.
/// Other tensors (f64, or on a GPU) are kept as they are. Trained weights have the type of the activations.
/// [`Linear::with_compute`] rounds the factors of a frozen map's products.
#[derive(Debug, Clone)]
pub struct Linear {
    map: Map,
    parts: Vec<Part>,
    observer: Option<Observer>,
}

/// Makes another linear map of a given one, as [`Linear::adapted`] and [`Linear::observed`] do.
pub type MapChange<'a> = dyn FnMut(&Linear) -> Result<Linear> + 'a;

/// A map that is one of those that were stacked, or alone.
#[derive(Debug, Clone)]
struct Part {
    name: Option<Arc<str>>,
    n_out: usize,
}

impl Linear {
    /// Takes `weight (n_out, n_in)` (a tensor or a [`Matrix`](crate::Matrix)) and `bias (n_out)`.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the shapes do not fit or a width is 0, [`OpError::DType`] if a tensor is not of a float type.
    pub fn new(weight: impl Into<Weight>, bias: Option<Tensor>) -> Result<Self> {
        let weight = weight.into();
        let [n_out, n_in] = weight.shape()?;
        if let Some(bias) = &bias {
            if bias.dims() != [n_out] {
                return Err(OpError::shape(
                    "linear",
                    format!("bias must be ({n_out}), got {:?}", bias.shape()),
                ));
            }
            frozen_dtype("linear", bias)?;
        }
        let bias = bias.map(|b| b.contiguous()).transpose()?;
        // Beside a trained bias the products are those of trained maps, which take tensors.
        let as_matrix: &[DType] = match &bias {
            Some(bias) if bias.track_op() => &[DType::BF16, DType::F16],
            _ => &[DType::F32, DType::BF16, DType::F16],
        };
        let store = match weight.into_matrix_if(as_matrix)? {
            Weight::Matrix(matrix) => Store::Matrix(matrix),
            Weight::Dense(tensor) => {
                frozen_dtype("linear", &tensor)?;
                Store::Transposed(tensor.t()?.contiguous()?)
            }
        };
        let map = Map { store, bias, additions: Vec::new(), n_in, n_out };
        Ok(Self { map, parts: vec![Part { name: None, n_out }], observer: None })
    }

    /// The same map with the products of a frozen weight computed in another way, its weight packed for that ([`Matrix::packed`](crate::Matrix::packed)). A trained
    /// weight, one in f64 and one on a GPU stay as they are.
    ///
    /// # Errors
    /// As [`Matrix::packed`](crate::Matrix::packed).
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use fwd_ops::{Compute, Linear};
    /// let map = Linear::new(Tensor::new(&[[1f32, 1.001]], &Device::Cpu)?, None)?.with_compute(Compute::Bf16)?;
    /// let y = map.forward(&Tensor::new(&[[1f32, 1.]], &Device::Cpu)?)?;
    /// assert_eq!(y.to_vec2::<f32>()?, [[2.]]); // 1.001 is rounded to 1, the sum is not
    /// # Ok::<(), fwd_ops::OpError>(())
    /// ```
    pub fn with_compute(self, compute: Compute) -> Result<Self> {
        let store = match self.map.store {
            Store::Matrix(matrix) => Store::Matrix(matrix.packed(compute)?),
            store @ Store::Transposed(_) => store,
        };
        Ok(Self { map: Map { store, ..self.map }, ..self })
    }

    /// The same map under a name, by which [`Self::adapted`] asks for it. The parts of stacked maps keep theirs.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        let parts = vec![Part { name: Some(name.into()), n_out: self.map.n_out }];
        Self { parts, ..self }
    }

    /// The same map with low-rank additions to its weight, in the place of those that there were: `additions` is asked for that of each part
    /// that has a name, with the name and the part's `[n_out, n_in]`.
    ///
    /// # Errors
    /// Those of `additions`; [`OpError::Shape`] for one that does not fit, [`OpError::DType`] for another type than f32 or f64.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use fwd_ops::{Linear, LowRank};
    /// let map = Linear::new(Tensor::new(&[[1f32, 2.], [0., -1.]], &Device::Cpu)?, None)?.named("q_proj");
    /// let [a, b] = [Tensor::new(&[[1f32, 1.]], &Device::Cpu)?, Tensor::new(&[[0f32], [2.]], &Device::Cpu)?];
    /// let addition = LowRank { a, b, scale: 0.5, router: None };
    /// let adapted = map.adapted(&mut |name, _| {
    ///     Ok((name == "q_proj").then(|| addition.clone()))
    /// })?;
    /// let y = adapted.forward(&Tensor::new(&[[3f32, 4.]], &Device::Cpu)?)?;
    /// assert_eq!(y.to_vec2::<f32>()?, [[11., -4. + 0.5 * 2. * 7.]]);
    /// # Ok::<(), fwd_ops::OpError>(())
    /// ```
    pub fn adapted(&self, additions: &mut Additions<'_>) -> Result<Self> {
        let (mut first, mut found) = (0, Vec::new());
        for Part { name, n_out } in &self.parts {
            let shape = [*n_out, self.map.n_in];
            let addition = name.as_ref().map_or(Ok(None), |name| additions(name, shape))?;
            if let Some(addition) = addition {
                found.push(Addition::new(addition, first, shape)?);
            }
            first += n_out;
        }
        Ok(Self { map: Map { additions: found, ..self.map.clone() }, ..self.clone() })
    }

    /// The same map with somebody who sees its input in every forward pass.
    #[must_use]
    pub fn observed(&self, observer: &Observer) -> Self {
        Self { observer: Some(observer.clone()), ..self.clone() }
    }

    /// The weights of the parts that have a name, `(n_out, n_in)` row-major, without what is added to them.
    ///
    /// # Errors
    /// Those of reading a stored matrix.
    pub fn named_weights(&self) -> Result<Vec<(&str, Vec<f32>)>> {
        let all = match &self.map.store {
            Store::Matrix(matrix) => matrix.values()?,
            Store::Transposed(tensor) => {
                let rows = tensor.t()?.contiguous()?.to_dtype(DType::F32)?;
                rows.flatten_all()?.to_device(&Device::Cpu)?.to_vec1()?
            }
        };
        let mut rest = &all[..];
        let mut named = Vec::new();
        for Part { name, n_out } in &self.parts {
            let (weight, behind) = rest.split_at(n_out * self.map.n_in);
            rest = behind;
            named.extend(name.as_deref().map(|name| (name, weight.to_vec())));
        }
        Ok(named)
    }

    /// Whether the map is an operation of its own, and no part of a fused one: it is trained, the gradient of its input needs the input (gates), or
    /// somebody sees its input.
    pub(crate) fn is_apart(&self) -> bool {
        self.is_trained() || self.observer.is_some() || self.map.additions.iter().any(Addition::is_routed)
    }

    /// Whether weight, bias or an addition get a gradient.
    pub fn is_trained(&self) -> bool {
        self.map.is_trained() || self.map.additions.iter().any(Addition::is_trained)
    }

    /// Stacks maps that read the same input into one: rows `[W_1 ; W_2 ; …]`.
    ///
    /// Matrices are not copied. Frozen f32 tensors that are stacked with them become matrices; with a trained or f64 tensor they are
    /// widened to its type.
    ///
    /// # Errors
    /// [`OpError::Shape`] if there is none, the input widths differ or only some have a bias.
    pub fn stacked(parts: &[&Linear]) -> Result<Self> {
        if parts.is_empty() {
            return Err(OpError::shape("linear", "nothing to stack"));
        }
        let maps: Vec<&Map> = parts.iter().map(|part| &part.map).collect();
        let biases: Vec<_> = maps.iter().filter_map(|map| map.bias.as_ref()).collect();
        if maps.iter().any(|map| map.n_in != maps[0].n_in) || ![0, maps.len()].contains(&biases.len()) {
            return Err(OpError::shape(
                "linear",
                "stacked maps must read one width, and all or none have a bias",
            ));
        }
        let stores: Vec<_> = maps.iter().map(|map| &map.store).collect();
        let (mut n_out, mut additions) = (0, Vec::new());
        for map in &maps {
            additions.extend(map.additions.iter().map(|addition| addition.behind(n_out)));
            n_out += map.n_out;
        }
        let map = Map {
            store: Store::stacked(&stores)?,
            bias: if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) },
            additions,
            n_in: maps[0].n_in,
            n_out,
        };
        let observer = parts.iter().find_map(|part| part.observer.clone());
        let parts = parts.iter().flat_map(|part| part.parts.iter().cloned()).collect();
        Ok(Self { map, parts, observer })
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.map.n_in
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.map.n_out
    }

    /// `y = x·Wᵀ + b`.
    ///
    /// # Shapes
    /// `x (…, n_in)` in f32 or f64 -> `(…, n_out)` in the same type.
    ///
    /// # Errors
    /// [`OpError::Shape`] if the last dimension of `x` is not `n_in`.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{Device, Tensor};
    /// let w = Tensor::new(&[[1f32, 2.], [0., -1.]], &Device::Cpu)?;
    /// let x = Tensor::new(&[[3f32, 4.]], &Device::Cpu)?;
    /// let y = fwd_ops::Linear::new(w, None)?.forward(&x)?;
    /// assert_eq!(y.to_vec2::<f32>()?, [[11., -4.]]);
    /// # Ok::<(), fwd_ops::OpError>(())
    /// ```
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let map = &self.map;
        check_last_dim("linear", x, map.n_in)?;
        if let Some(observer) = &self.observer {
            let names: Vec<&str> = self.parts.iter().filter_map(|part| part.name.as_deref()).collect();
            observer.see(&names, x);
        }
        if !map.additions.is_empty() {
            if map.is_trained() {
                let what = "weight or bias are trained, and the weight has a low-rank addition";
                return Err(OpError::shape("linear", what));
            }
            let needs_input =
                |addition: &Addition| addition.is_trained() || (addition.is_routed() && x.track_op());
            if on_gpu(x) || map.additions.iter().any(needs_input) {
                let base = Map { additions: Vec::new(), ..map.clone() };
                return adapted::forward(base, &map.additions, x);
            }
        }
        if !map.is_trained() {
            return apply1(Forward(map.clone()), x);
        }
        let dense;
        let transposed = match &map.store {
            Store::Transposed(tensor) => tensor,
            // Only the bias is trained.
            Store::Matrix(_) => {
                dense = map.store.transposed(x.device(), x.dtype())?;
                &dense
            }
        };
        match &map.bias {
            None => apply2(Trained, x, transposed),
            Some(bias) => apply3(Trained, &x.contiguous()?, transposed, bias),
        }
    }

    /// The same map, frozen, with its tensors on a device. A [`Matrix`](crate::Matrix) stays where it is.
    pub(crate) fn frozen_on(&self, device: &Device) -> Result<Self> {
        Ok(Self { map: self.map.frozen_on(device)?, parts: self.parts.clone(), observer: None })
    }

    /// [`Self::forward`] in the memory of a GPU: `(rows of x, n_out)`.
    pub(crate) fn forward_on_gpu<S: GpuStorage>(&self, x: Arg<'_, S>) -> candle_core::Result<S> {
        self.map.forward_on_gpu(x)
    }

    pub(crate) fn read(&self) -> LinearRead<'_> {
        self.map.read()
    }
}
