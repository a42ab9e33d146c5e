//! A frozen linear map as the kernels read it, forward and backward.

use super::addition::{Addition, AdditionRead};
use super::check::with_last_dim;
use crate::cpu::Elem;
use crate::cpu::gemm::Threads;
use crate::cpu::linear::{LinearRef, Run, WeightRef};
use crate::cpu::low_rank::LowRankValues;
use crate::dispatch::{OnGpu, Read, apply1};
use crate::error::Result;
use crate::gpu::{self, Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use crate::matrix::Matrix;
use candle_core::{DType, Device, Layout, Shape, Tensor};
use faer::Accum;
use std::borrow::Cow;

/// Weight, bias and additions of a linear map.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    pub(super) store: Store,
    pub(super) bias: Option<Tensor>,
    /// Low-rank additions to the weight.
    pub(super) additions: Vec<Addition>,
    pub(super) n_in: usize,
    pub(super) n_out: usize,
}

/// Where the weight is.
#[derive(Debug, Clone)]
pub(super) enum Store {
    /// `Wᵀ (n_in, n_out)` of what is trained, in f64 or on a GPU.
    Transposed(Tensor),
    Matrix(Matrix),
}

impl Map {
    /// Whether weight or bias get a gradient.
    pub(super) fn is_trained(&self) -> bool {
        let weight = matches!(&self.store, Store::Transposed(tensor) if tensor.track_op());
        weight || self.bias.as_ref().is_some_and(Tensor::track_op)
    }

    /// The same map with its tensors on a device, without gradients. A [`Matrix`] stays where it is.
    pub(super) fn frozen_on(&self, device: &Device) -> Result<Self> {
        let bias = self.bias.as_ref().map(|b| b.detach().to_device(device)).transpose()?;
        let store = match &self.store {
            Store::Transposed(tensor) => Store::Transposed(tensor.detach().to_device(device)?),
            Store::Matrix(matrix) => Store::Matrix(matrix.clone()),
        };
        let additions = self.additions.iter().map(|a| a.frozen_on(device)).collect::<Result<_>>()?;
        Ok(Self { store, bias, additions, ..*self })
    }

    /// `x·Wᵀ + b` in the memory of a GPU: `(rows of x, n_out)`.
    pub(super) fn forward_on_gpu<S: GpuStorage>(&self, x: Arg<'_, S>) -> candle_core::Result<S> {
        if !self.additions.is_empty() {
            candle_core::bail!("a map with low-rank additions is part of a kernel that has none on a GPU");
        }
        let read = self.read();
        let weight = read.transposed_on_gpu(x)?;
        let bias = read.bias.as_ref().map(Read::on_gpu).transpose()?;
        product_and_bias(x, weight.arg(), bias.as_ref().map(|b| b.arg()))
    }

    pub(super) fn read(&self) -> LinearRead<'_> {
        let weight = match &self.store {
            Store::Transposed(tensor) => WeightRead::Transposed(Read::new(tensor)),
            Store::Matrix(matrix) => WeightRead::Matrix(matrix),
        };
        let additions = self.additions.iter().map(Addition::read).collect();
        LinearRead { map: self, weight, bias: self.bias.as_ref().map(Read::new), additions }
    }
}

impl Store {
    pub(super) fn stacked(stores: &[&Self]) -> Result<Self> {
        let tensors: Vec<_> = stores.iter().filter_map(|s| s.tensor()).collect();
        let as_rows = |t: &&Tensor| t.dtype() == DType::F32 && t.device().is_cpu() && !t.track_op();
        if tensors.len() < stores.len() && tensors.iter().all(as_rows) {
            let matrices: Vec<_> = stores
                .iter()
                .map(|store| match store {
                    Self::Transposed(tensor) => Matrix::of_tensor("weight", &tensor.t()?.contiguous()?),
                    Self::Matrix(matrix) => Ok(matrix.clone()),
                })
                .collect::<Result<_>>()?;
            return Ok(Self::Matrix(Matrix::stacked(&matrices.iter().collect::<Vec<_>>())?));
        }
        let like = tensors[0]; // Where there is none, all are matrices.
        let columns: Vec<_> =
            stores.iter().map(|s| s.transposed(like.device(), like.dtype())).collect::<Result<_>>()?;
        Ok(Self::Transposed(Tensor::cat(&columns, 1)?.contiguous()?))
    }

    fn tensor(&self) -> Option<&Tensor> {
        match self {
            Self::Transposed(tensor) => Some(tensor),
            Self::Matrix(_) => None,
        }
    }

    /// `Wᵀ (n_in, n_out)`: the tensor itself, or a matrix widened to a type on a device.
    pub(super) fn transposed(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        match self {
            Self::Transposed(tensor) => Ok(tensor.clone()),
            Self::Matrix(matrix) => {
                let shape = (matrix.n_rows(), matrix.n_cols());
                let weight = Tensor::from_vec(matrix.values()?, shape, device)?;
                Ok(weight.t()?.to_dtype(dtype)?.contiguous()?)
            }
        }
    }
}

/// A [`Map`] locked for reading.
pub(crate) struct LinearRead<'a> {
    map: &'a Map,
    weight: WeightRead<'a>,
    bias: Option<Read<'a>>,
    additions: Vec<AdditionRead<'a>>,
}

enum WeightRead<'a> {
    Transposed(Read<'a>),
    Matrix(&'a Matrix),
}

/// The values of a [`Map`] for activations of one element type.
pub(crate) struct LinearValues<'a, E: Clone> {
    weight: WeightValues<'a, E>,
    bias: Option<Cow<'a, [E]>>,
    additions: Vec<LowRankValues<'a, E>>,
    n_in: usize,
    n_out: usize,
}

enum WeightValues<'a, E: Clone> {
    Transposed(Cow<'a, [E]>),
    Runs(Vec<Run<'a>>),
}

impl LinearRead<'_> {
    pub(crate) fn values<E: Elem>(&self) -> candle_core::Result<LinearValues<'_, E>> {
        Ok(LinearValues {
            weight: match &self.weight {
                WeightRead::Transposed(read) => WeightValues::Transposed(read.values()?),
                WeightRead::Matrix(matrix) => WeightValues::Runs(matrix.runs()?),
            },
            bias: self.bias.as_ref().map(Read::values).transpose()?,
            additions: self.additions.iter().map(AdditionRead::values).collect::<candle_core::Result<_>>()?,
            n_in: self.map.n_in,
            n_out: self.map.n_out,
        })
    }

    /// `Wᵀ (n_in, n_out)` on the device of `like`. A matrix is widened as a whole, for this product alone.
    fn transposed_on_gpu<S: GpuStorage>(&self, like: Arg<'_, S>) -> candle_core::Result<OnGpu<'_, S>> {
        match &self.weight {
            WeightRead::Transposed(read) => read.on_gpu(),
            WeightRead::Matrix(_) => {
                let transposed = self.map.store.transposed(&Device::Cpu, DType::F32)?;
                let values = transposed.flatten_all()?.to_vec1::<f32>()?;
                Ok(OnGpu::widened(like.upload(&values)?, Layout::contiguous(transposed.dims())))
            }
        }
    }
}

impl<E: Elem> LinearValues<'_, E> {
    pub(crate) fn as_ref(&self) -> LinearRef<'_, E> {
        LinearRef {
            weight: match &self.weight {
                WeightValues::Transposed(values) => WeightRef::Transposed(values),
                WeightValues::Runs(runs) => WeightRef::Runs(runs),
            },
            bias: self.bias.as_deref(),
            additions: &self.additions,
            n_in: self.n_in,
            n_out: self.n_out,
        }
    }
}

/// `x·W + b` for rows `x (m, n_in)` and `W (n_in, n_out)`.
pub(super) fn product_and_bias<S: GpuStorage>(
    x: Arg<'_, S>,
    weight: Arg<'_, S>,
    bias: Option<Arg<'_, S>>,
) -> candle_core::Result<S> {
    let y = gpu::product((x.storage, &x.matrix()), (weight.storage, weight.layout))?;
    match bias {
        Some(bias) => gpu::add_row(y, (x.rows(), bias.len()), (bias.storage, bias.layout)),
        None => Ok(y),
    }
}

pub(super) struct Forward(pub(super) Map);
pub(super) struct Backward(pub(super) Map);

impl Kernel<1> for Forward {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu<E: Elem>(&self, [x]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let m = x.data.len() / self.0.n_in;
        let mut y = vec![E::zero(); m * self.0.n_out];
        let threads = Threads::for_rows(m);
        self.0.read().values()?.as_ref().forward(x.data, m, &mut y, Accum::Replace, threads);
        Ok((y, with_last_dim(x.dims, self.0.n_out)))
    }

    /// A weight in half precision is widened for the product and dropped again.
    fn gpu<S: GpuStorage>(&self, [x]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        Ok((self.0.forward_on_gpu(x)?, with_last_dim(x.dims(), self.0.n_out)))
    }

    fn backward(&self, _: [&Tensor; 1], _: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 1]> {
        Ok([Some(apply1(Backward(self.0.clone()), dy)?)])
    }
}

impl Kernel<1> for Backward {
    fn name(&self) -> &'static str {
        "linear_backward"
    }

    fn cpu<E: Elem>(&self, [dy]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let m = dy.data.len() / self.0.n_out;
        let mut dx = vec![E::zero(); m * self.0.n_in];
        self.0.read().values()?.as_ref().backward(dy.data, m, &mut dx, Accum::Replace, Threads::Pool);
        Ok((dx, with_last_dim(dy.dims, self.0.n_in)))
    }

    fn gpu<S: GpuStorage>(&self, [dy]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let read = self.0.read();
        let weight = read.transposed_on_gpu(dy)?;
        let weight = weight.arg();
        let dx = gpu::product((dy.storage, &dy.matrix()), (weight.storage, &gpu::transposed(weight.layout)))?;
        Ok((dx, with_last_dim(dy.dims(), self.0.n_in)))
    }
}
