//! Embedding look-up with checked ids; the gradient of a tracked table is the scatter-add of the rows' gradients.

use crate::cpu::Elem;
use crate::dispatch::apply1;
use crate::error::{OpError, Result};
use crate::gpu::{self, Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use crate::linear::{activation_dtype, frozen_dtype};
use candle_core::{DType, Device, Layout, Shape, Tensor};
use fwd_kernels::{EmbeddingShape, plan_embedding_backward};
use std::sync::Arc;

/// Rows `table[ids]`.
///
/// # Shapes
/// `table (n, d)` in any float type, `ids (…)` integer -> `(…, d)` in f32 (f64 if the table is f64), where the table is.
/// The ids are checked on the CPU: keep them there, or a GPU has to be waited for.
///
/// # Errors
/// [`OpError::IdOutOfRange`] names the first id that is not in `0..n`.
///
/// # Examples
/// ```
/// use candle_core::{Device, Tensor};
/// let table = Tensor::new(&[[0f32, 1.], [2., 3.], [4., 5.]], &Device::Cpu)?;
/// let rows = fwd_ops::embedding(&table, &Tensor::new(&[2i64, 0], &Device::Cpu)?)?;
/// assert_eq!(rows.to_vec2::<f32>()?, [[4., 5.], [0., 1.]]);
/// # Ok::<(), fwd_ops::OpError>(())
/// ```
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    frozen_dtype("embedding", table)?;
    let &[n_rows, width] = table.dims() else {
        return Err(OpError::shape("embedding", format!("table must be (n, d), got {:?}", table.shape())));
    };
    let mut shape = ids.dims().to_vec();
    shape.push(width);
    let ids = int_values("embedding", ids)?;
    if let Some((position, &id)) = ids.iter().enumerate().find(|&(_, &id)| id < 0 || id >= n_rows as i64) {
        return Err(OpError::IdOutOfRange { op: "embedding", id, position, limit: n_rows });
    }
    let rows: Arc<[u32]> = ids.iter().map(|&id| id as u32).collect();
    let dtype = activation_dtype(table.dtype());
    if table.dtype() == dtype {
        return Ok(apply1(Gather { rows, n_rows }, table)?.reshape(shape)?);
    }
    if table.track_op() {
        let supported = "a table that is trained must be f32 or f64";
        return Err(OpError::DType { op: "embedding", dtype: table.dtype(), supported });
    }
    // Half-precision tables are frozen ones: gather first, widen the few rows.
    let index = Tensor::from_vec(rows.to_vec(), rows.len(), table.device())?;
    Ok(table.index_select(&index, 0)?.to_dtype(dtype)?.reshape(shape)?)
}

/// The values of an integer tensor.
pub(crate) fn int_values(op: &'static str, tensor: &Tensor) -> Result<Vec<i64>> {
    if !matches!(tensor.dtype(), DType::I64 | DType::U32 | DType::U8) {
        return Err(OpError::DType { op, dtype: tensor.dtype(), supported: "ids are i64, u32 or u8" });
    }
    Ok(tensor.to_device(&Device::Cpu)?.flatten_all()?.to_dtype(DType::I64)?.to_vec1()?)
}

struct Gather {
    rows: Arc<[u32]>,
    n_rows: usize,
}

struct Scatter(Gather);

impl Kernel<1> for Gather {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn cpu<E: Elem>(&self, [table]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let d = table.last_dim();
        let mut y = Vec::with_capacity(self.rows.len() * d);
        for &row in self.rows.iter() {
            y.extend_from_slice(&table.data[row as usize * d..][..d]);
        }
        Ok((y, Shape::from((self.rows.len(), d))))
    }

    fn gpu<S: GpuStorage>(&self, [table]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let shape = Shape::from((self.rows.len(), table.last_dim()));
        if shape.elem_count() == 0 {
            return Ok((gpu::zeros(table.storage, &shape)?, shape));
        }
        let ids = table.upload(&self.rows)?;
        let y = table.storage.index_select(&ids, table.layout, &Layout::contiguous(self.rows.len()), 0)?;
        Ok((y, shape))
    }

    fn backward(&self, _: [&Tensor; 1], _: &Tensor, dy: &Tensor) -> candle_core::Result<[Option<Tensor>; 1]> {
        let scatter = Scatter(Gather { rows: self.rows.clone(), n_rows: self.n_rows });
        Ok([Some(apply1(scatter, dy)?)])
    }
}

impl Kernel<1> for Scatter {
    fn name(&self) -> &'static str {
        "embedding_backward"
    }

    fn cpu<E: Elem>(&self, [dy]: [View<'_, E>; 1]) -> candle_core::Result<(Vec<E>, Shape)> {
        let d = dy.last_dim();
        let mut table = vec![E::zero(); self.0.n_rows * d];
        for (i, &row) in self.0.rows.iter().enumerate() {
            let sum = &mut table[row as usize * d..][..d];
            sum.iter_mut().zip(&dy.data[i * d..]).for_each(|(s, &g)| *s += g);
        }
        Ok((table, Shape::from((self.0.n_rows, d))))
    }

    fn gpu<S: GpuStorage>(&self, [dy]: [Arg<'_, S>; 1]) -> candle_core::Result<(S, Shape)> {
        let (n_rows, n_ids, d) = (self.0.n_rows, self.0.rows.len(), dy.last_dim());
        let (ids, layout) = (dy.upload(&self.0.rows)?, Layout::contiguous(n_ids));
        let shape = EmbeddingShape {
            n_rows,
            d,
            n_ids,
            id_dtype: fwd_kernels::DType::U32,
            dtype: fwd_kernels::DType::F32,
        };
        let table = dy.launch_one(plan_embedding_backward(&shape), &[Arg::new(&ids, &layout), dy])?;
        Ok((table, Shape::from((n_rows, d))))
    }
}
