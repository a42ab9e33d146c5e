//! Linear maps whose weight and bias are trained: arguments of the operation, with gradients.

use super::check::with_last_dim;
use super::map::{Backward, Map, Store, product_and_bias};
use crate::cpu::gemm::{Threads, gemm, rows, rows_mut};
use crate::cpu::linear::{LinearRef, WeightRef};
use crate::cpu::norm::sum_rows;
use crate::cpu::{Elem, simd};
use crate::dispatch::{apply1, apply2};
use crate::gpu::{self, Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use candle_core::{Shape, Tensor};
use faer::Accum;
use fwd_kernels::plan_sum_rows;

/// A map whose weight and bias are arguments and get gradients.
pub(super) struct Trained;

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
        let map =
            LinearRef { weight: WeightRef::Transposed(transposed.data), bias, additions: &[], n_in, n_out };
        map.forward(x.data, m, &mut y, Accum::Replace, Threads::Pool);
        Ok((y, with_last_dim(x.dims, n_out)))
    }

    fn gradients(x: &Tensor, transposed: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 2]> {
        let dx = if x.track_op() {
            let (n_in, n_out) = transposed.dims2()?;
            let store = Store::Transposed(transposed.detach());
            let frozen = Map { store, bias: None, additions: Vec::new(), n_in, n_out };
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
