//! Embedding look-up with checked ids; the gradient of a tracked table is the scatter-add of the rows' gradients.

use crate::cpu::Elem;
use crate::dispatch::apply1;
use crate::error::{OpError, Result};
use crate::gpu::{self, Arg, GpuStorage};
use crate::kernel::{Kernel, View};
use crate::linear::{activation_dtype, frozen_dtype};
use crate::matrix::Weight;
use candle_core::{DType, Device, Layout, Shape, Tensor};
use fwd_kernels::{EmbeddingShape, plan_embedding_backward};
use std::sync::Arc;

/// A table of embeddings `(n, d)`: a tensor, which may be trained, or a [`Matrix`](crate::Matrix), of which only the rows that are asked
/// for are read.
#[derive(Debug, Clone)]
pub struct Embedding {
    weight: Weight,
    shape: [usize; 2],
}

impl Embedding {
    /// Takes the table `(n, d)`. A frozen one in half precision on the CPU becomes a [`Matrix`](crate::Matrix).
    ///
    /// # Errors
    /// [`OpError::Shape`] if a tensor has not two dimensions or one is 0, [`OpError::DType`] if it is not of a float type.
    pub fn new(weight: impl Into<Weight>) -> Result<Self> {
        let weight = weight.into().into_matrix_if(&[DType::BF16, DType::F16])?;
        if let Weight::Dense(table) = &weight {
            frozen_dtype("embedding", table)?;
        }
        let shape = weight.shape()?;
        Ok(Self { weight, shape })
    }

    /// The table. A tied output map is `Linear::new(embedding.weight().clone(), None)`.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.shape[0]
    }

    /// Width of a row.
    pub fn width(&self) -> usize {
        self.shape[1]
    }

    /// Rows `table[ids]`, as [`embedding`].
    ///
    /// # Shapes
    /// `ids (…)` integer -> `(…, d)` in f32 (f64 if the table is an f64 tensor); of a matrix on the CPU, of a tensor where it is.
    ///
    /// # Errors
    /// [`OpError::IdOutOfRange`] names the first id that is not in `0..n`.
    ///
    /// # Examples
    /// ```
    /// use candle_core::{DType, Device, Tensor};
    /// let table = Tensor::new(&[[0f32, 1.], [2., 3.]], &Device::Cpu)?.to_dtype(DType::BF16)?;
    /// let rows = fwd_ops::Embedding::new(table)?.forward(&Tensor::new(&[1u32], &Device::Cpu)?)?;
    /// assert_eq!(rows.to_vec2::<f32>()?, [[2., 3.]]);
    /// # Ok::<(), fwd_ops::OpError>(())
    /// ```
    pub fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let matrix = match &self.weight {
            Weight::Dense(table) => return embedding(table, ids),
            Weight::Matrix(matrix) => matrix,
        };
        let mut shape = ids.dims().to_vec();
        shape.push(self.shape[1]);
        let rows = checked_ids(ids, self.shape[0])?;
        Ok(Tensor::from_vec(matrix.select_rows(&rows)?, shape, &Device::Cpu)?)
    }
}

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
    let rows: Arc<[u32]> = checked_ids(ids, n_rows)?.into();
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

/// The ids as row numbers below `n_rows`.
fn checked_ids(ids: &Tensor, n_rows: usize) -> Result<Vec<u32>> {
    let ids = int_values("embedding", ids)?;
    if let Some((position, &id)) = ids.iter().enumerate().find(|&(_, &id)| id < 0 || id >= n_rows as i64) {
        return Err(OpError::IdOutOfRange { op: "embedding", id, position, limit: n_rows });
    }
    Ok(ids.iter().map(|&id| id as u32).collect())
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
