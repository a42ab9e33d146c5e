//! Linear maps: `y = x·Wᵀ + b` with `dx = dy·W`, and for a trained map `dW = dyᵀ·x`, `db = Σ dy`.
//!
//! candle's `Op::Matmul` computes and keeps the weight's gradient whether it is frozen or not; here the weight of a frozen map
//! is part of the operation, not an argument, so that gradient cannot come into being.

use crate::compute::Compute;
use crate::cpu::gemm::{Threads, gemm, rows, rows_mut};
use crate::cpu::linear::{LinearRef, Run, WeightRef, is_weight_dtype};
use crate::cpu::norm::sum_rows;
use crate::cpu::{Elem, simd};
use crate::dispatch::{OnGpu, Read, apply1, apply2, apply3};
use crate::error::{OpError, Result};
use crate::gpu::{self, Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use crate::matrix::{Matrix, Weight};
use candle_core::{DType, Device, Layout, Shape, Tensor};
use faer::Accum;
use fwd_kernels::plan_sum_rows;
use std::borrow::Cow;

/// A linear map. It is frozen, and gets no gradient, unless its weight or bias is tracked (a `Var` or computed from one).
///
/// A frozen weight may be a [`Matrix`], which stays in its format (f32, bf16, f16, blocks) and is widened exactly to the type of the
/// activations (f32 or f64), a tile at a time. Frozen tensors on the CPU become one: f32 is packed for products, half precision is kept.
/// Other tensors (f64, or on a GPU) are kept as they are. Trained weights have the type of the activations.
/// [`Linear::with_compute`] rounds the factors of a frozen map's products.
#[derive(Debug, Clone)]
pub struct Linear {
    store: Store,
    bias: Option<Tensor>,
    n_in: usize,
    n_out: usize,
}

/// Where the weight is.
#[derive(Debug, Clone)]
enum Store {
    /// `Wᵀ (n_in, n_out)` of what is trained, in f64 or on a GPU.
    Transposed(Tensor),
    Matrix(Matrix),
}

impl Linear {
    /// Takes `weight (n_out, n_in)` (a tensor or a [`Matrix`]) and `bias (n_out)`.
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
        Ok(Self { store, bias, n_in, n_out })
    }

    /// The same map with the products of a frozen weight computed in another way, its weight packed for that ([`Matrix::packed`]). A trained
    /// weight, one in f64 and one on a GPU stay as they are.
    ///
    /// # Errors
    /// As [`Matrix::packed`].
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
        let store = match self.store {
            Store::Matrix(matrix) => Store::Matrix(matrix.packed(compute)?),
            store @ Store::Transposed(_) => store,
        };
        Ok(Self { store, ..self })
    }

    /// Whether weight or bias get a gradient.
    pub fn is_trained(&self) -> bool {
        let weight = matches!(&self.store, Store::Transposed(tensor) if tensor.track_op());
        weight || self.bias.as_ref().is_some_and(Tensor::track_op)
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
        let n_biases = parts.iter().filter(|p| p.bias.is_some()).count();
        if parts.iter().any(|p| p.n_in != parts[0].n_in) || (n_biases != 0 && n_biases != parts.len()) {
            return Err(OpError::shape(
                "linear",
                "stacked maps must read one width, and all or none have a bias",
            ));
        }
        let stores: Vec<_> = parts.iter().map(|p| &p.store).collect();
        let biases: Vec<_> = parts.iter().filter_map(|p| p.bias.as_ref()).collect();
        Ok(Self {
            store: Store::stacked(&stores)?,
            bias: if biases.is_empty() { None } else { Some(Tensor::cat(&biases, 0)?) },
            n_in: parts[0].n_in,
            n_out: parts.iter().map(|p| p.n_out).sum(),
        })
    }

    /// Width of the input.
    pub fn n_in(&self) -> usize {
        self.n_in
    }

    /// Width of the output.
    pub fn n_out(&self) -> usize {
        self.n_out
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
        check_last_dim("linear", x, self.n_in)?;
        if !self.is_trained() {
            return apply1(Forward(self.clone()), x);
        }
        let dtype = x.dtype();
        let dense;
        let transposed = match &self.store {
            Store::Transposed(tensor) => tensor,
            // Only the bias is trained.
            Store::Matrix(_) => {
                dense = self.store.transposed(x.device(), dtype)?;
                &dense
            }
        };
        match &self.bias {
            None => apply2(Trained, x, transposed),
            Some(bias) => apply3(Trained, &x.contiguous()?, transposed, bias),
        }
    }

    /// The same map, frozen, with its tensors on a device. A [`Matrix`] stays where it is.
    pub(crate) fn frozen_on(&self, device: &Device) -> Result<Self> {
        let bias = self.bias.as_ref().map(|b| b.detach().to_device(device)).transpose()?;
        let store = match &self.store {
            Store::Transposed(tensor) => {
                let weight = tensor.detach().to_device(device)?.t()?;
                return Self::new(weight, bias);
            }
            Store::Matrix(matrix) => Store::Matrix(matrix.clone()),
        };
        Ok(Self { store, bias, ..*self })
    }

    /// [`Self::forward`] in the memory of a GPU: `(rows of x, n_out)`.
    pub(crate) fn forward_on_gpu<S: GpuStorage>(&self, x: Arg<'_, S>) -> candle_core::Result<S> {
        let read = self.read();
        let weight = read.transposed_on_gpu(x)?;
        let bias = read.bias.as_ref().map(Read::on_gpu).transpose()?;
        product_and_bias(x, weight.arg(), bias.as_ref().map(|b| b.arg()))
    }

    pub(crate) fn read(&self) -> LinearRead<'_> {
        let weight = match &self.store {
            Store::Transposed(tensor) => WeightRead::Transposed(Read::new(tensor)),
            Store::Matrix(matrix) => WeightRead::Matrix(matrix),
        };
        LinearRead { linear: self, weight, bias: self.bias.as_ref().map(Read::new) }
    }
}

impl Store {
    fn stacked(stores: &[&Self]) -> Result<Self> {
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
    fn transposed(&self, device: &Device, dtype: DType) -> Result<Tensor> {
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

/// A [`Linear`] locked for reading.
pub(crate) struct LinearRead<'a> {
    linear: &'a Linear,
    weight: WeightRead<'a>,
    bias: Option<Read<'a>>,
}

enum WeightRead<'a> {
    Transposed(Read<'a>),
    Matrix(&'a Matrix),
}

/// The values of a [`Linear`] for activations of one element type.
pub(crate) struct LinearValues<'a, E: Clone> {
    weight: WeightValues<'a, E>,
    bias: Option<Cow<'a, [E]>>,
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
            n_in: self.linear.n_in,
            n_out: self.linear.n_out,
        })
    }

    /// `Wᵀ (n_in, n_out)` on the device of `like`. A matrix is widened as a whole, for this product alone.
    fn transposed_on_gpu<S: GpuStorage>(&self, like: Arg<'_, S>) -> candle_core::Result<OnGpu<'_, S>> {
        match &self.weight {
            WeightRead::Transposed(read) => read.on_gpu(),
            WeightRead::Matrix(_) => {
                let transposed = self.linear.store.transposed(&Device::Cpu, DType::F32)?;
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
            n_in: self.n_in,
            n_out: self.n_out,
        }
    }
}

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

/// `x·W + b` for rows `x (m, n_in)` and `W (n_in, n_out)`.
fn product_and_bias<S: GpuStorage>(
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

struct Forward(Linear);
struct Backward(Linear);

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

/// A map whose weight and bias are arguments and get gradients.
struct Trained;

/// `dW = xᵀ·dy` in the layout of the weight as it is kept, `(n_in, n_out)`.
struct WeightGradient;

/// The sum of all rows, in order: the gradient of a bias.
pub(crate) struct SumRows;

impl Trained {
    fn run<E: Elem>(
        x: &View<'_, E>,
        transposed: &View<'_, E>,
        bias: Option<&[E]>,
    ) -> candle_core::Result<(Vec<E>, Shape)> {
        let (n_in, n_out) = (transposed.dims[0], transposed.dims[1]);
        let m = x.data.len() / n_in;
        let mut y = vec![E::zero(); m * n_out];
        let map = LinearRef { weight: WeightRef::Transposed(transposed.data), bias, n_in, n_out };
        map.forward(x.data, m, &mut y, Accum::Replace, Threads::Pool);
        Ok((y, with_last_dim(x.dims, n_out)))
    }

    fn gradients(x: &Tensor, transposed: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 2]> {
        let dx = if x.track_op() {
            let (n_in, n_out) = transposed.dims2()?;
            let store = Store::Transposed(transposed.detach());
            let frozen = Linear { store, bias: None, n_in, n_out };
            Some(apply1(Backward(frozen), dy)?)
        } else {
            None
        };
        let dw = if transposed.track_op() { Some(apply2(WeightGradient, x, dy)?) } else { None };
        Ok([dx, dw])
    }
}

impl Kernel<2> for Trained {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu<E: Elem>(&self, [x, weight]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        Self::run(&x, &weight, None)
    }

    fn gpu<S: GpuStorage>(&self, [x, weight]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        Ok((product_and_bias(x, weight, None)?, with_last_dim(x.dims(), weight.last_dim())))
    }

    fn backward(
        &self,
        [x, weight]: [&Tensor; 2],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 2]> {
        Self::gradients(x, weight, dy)
    }
}

impl Kernel<3> for Trained {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu<E: Elem>(&self, [x, weight, bias]: [View<'_, E>; 3]) -> candle_core::Result<(Vec<E>, Shape)> {
        Self::run(&x, &weight, Some(bias.data))
    }

    fn gpu<S: GpuStorage>(&self, [x, weight, bias]: [Arg<'_, S>; 3]) -> candle_core::Result<(S, Shape)> {
        Ok((product_and_bias(x, weight, Some(bias))?, with_last_dim(x.dims(), weight.last_dim())))
    }

    fn backward(
        &self,
        [x, weight, bias]: [&Tensor; 3],
        _: &Tensor,
        dy: &Tensor,
    ) -> candle_core::Result<[Option<Tensor>; 3]> {
        let [dx, dw] = Self::gradients(x, weight, dy)?;
        let db = if bias.track_op() { Some(apply1(SumRows, dy)?) } else { None };
        Ok([dx, dw, db])
    }
}

impl Kernel<2> for WeightGradient {
    fn name(&self) -> &'static str {
        "linear_weight_gradient"
    }

    fn cpu<E: Elem>(&self, [x, dy]: [View<'_, E>; 2]) -> candle_core::Result<(Vec<E>, Shape)> {
        let (n_in, n_out) = (x.last_dim(), dy.last_dim());
        let m = x.data.len() / n_in;
        let mut dw = vec![E::zero(); n_in * n_out];
        gemm(
            rows_mut(&mut dw, n_in, n_out, n_out),
            Accum::Replace,
            rows(x.data, m, n_in, n_in).transpose(),
            rows(dy.data, m, n_out, n_out),
            Threads::Pool,
        );
        Ok((dw, Shape::from((n_in, n_out))))
    }

    fn gpu<S: GpuStorage>(&self, [x, dy]: [Arg<'_, S>; 2]) -> candle_core::Result<(S, Shape)> {
        let dw = gpu::product((x.storage, &gpu::transposed(&x.matrix())), (dy.storage, &dy.matrix()))?;
        Ok((dw, Shape::from((x.last_dim(), dy.last_dim()))))
    }
}

impl Kernel<1> for SumRows {
    fn name(&self) -> &'static str {
        "sum_rows"
    }

    fn cpu<E: Elem>(&self, [dy]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let n_out = dy.last_dim();
        let mut db = vec![E::zero(); n_out];
        simd(
            #[inline(always)]
            || sum_rows(dy.data, &mut db),
        );
        Ok((db, Shape::from(n_out)))
    }

    fn gpu<S: GpuStorage>(&self, [dy]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let (rows, n_out) = (dy.rows(), dy.last_dim());
        let plan = plan_sum_rows(rows, n_out, fwd_kernels::DType::F32, &dy.storage.target()?);
        Ok((dy.launch_one(plan, &[dy])?, Shape::from(n_out)))
    }
}

/// Widens a frozen parameter to the type that activations have: f64 stays f64, everything else becomes f32.
pub(crate) fn activation_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}
