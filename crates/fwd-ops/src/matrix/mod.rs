//! Frozen matrices, as they are stored or packed for products, and the weight of a linear map or an embedding.

mod part;
mod weight;

use crate::compute::Compute;
use crate::cpu::linear::Run;
use crate::cpu::stored::{Format, Unfit};
use crate::dispatch::Read;
use crate::error::{OpError, Result};
use candle_core::{DType, Tensor};
use part::Part;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
pub use weight::Weight;

/// A frozen matrix `(n_rows, n_cols)`, either as it lies in a file (row after row in a [`Format`], in memory of its own or in a mapped file)
/// or packed for products ([`Matrix::packed`]).
///
/// It is never widened as a whole by a product. A matrix of several parts ([`Matrix::stacked`]) shares the elements of its parts. Cloning
/// copies no elements.
#[derive(Clone)]
pub struct Matrix {
    parts: Vec<Arc<Part>>,
    n_cols: usize,
}

impl Matrix {
    /// The matrix `name` (for error messages) whose bytes are `bytes[range]`, little endian and of any alignment.
    ///
    /// The elements are not read here, so that opening a large mapped file takes no time: each part is checked for NaN and infinities
    /// once, when it is first used.
    ///
    /// # Errors
    /// [`OpError::Weight`] if a dimension is 0, a row is not a whole number of blocks or the range has another length than the shape.
    ///
    /// # Examples
    /// ```
    /// use std::sync::Arc;
    /// let bytes: Vec<u8> = [1f32, 2., 3., 4.].iter().flat_map(|v| v.to_le_bytes()).collect();
    /// let matrix = fwd_ops::Matrix::new("w", fwd_ops::Format::F32, [2, 2], Arc::new(bytes), 0..16)?;
    /// assert_eq!(matrix.select_rows(&[1])?, [3., 4.]);
    /// # Ok::<(), fwd_ops::OpError>(())
    /// ```
    pub fn new(
        name: &str,
        format: Format,
        [n_rows, n_cols]: [usize; 2],
        bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
        range: Range<usize>,
    ) -> Result<Self> {
        check_shape(name, format, [n_rows, n_cols])?;
        let (found, wanted) = (range.len(), format.row_bytes(n_cols).checked_mul(n_rows));
        if range.start > range.end || range.end > (*bytes).as_ref().len() || Some(found) != wanted {
            let wanted = wanted.map_or_else(|| "more than memory holds".into(), |n| format!("{n} bytes"));
            let what = format!("{n_rows}x{n_cols} in {format} takes {wanted}, but {found} are given");
            return Err(OpError::weight(name, what));
        }
        let part = Part::stored(name, format, [n_rows, n_cols], bytes, range);
        Ok(Self { parts: vec![Arc::new(part)], n_cols })
    }

    /// Stores values (row-major) in a format: a float type, `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1` or `Q8_0`.
    ///
    /// Floats are rounded to the nearest; blocks are those of ggml's reference quantisers.
    ///
    /// # Errors
    /// [`OpError::NonFiniteWeight`] if a value is NaN or infinite, [`OpError::Weight`] if the number of values is not that of the shape,
    /// a row is not a whole number of blocks, a value is too large for the format, or the format can only be read.
    pub fn quantised(
        name: &str,
        format: Format,
        [n_rows, n_cols]: [usize; 2],
        values: &[f32],
    ) -> Result<Self> {
        check_shape(name, format, [n_rows, n_cols])?;
        if Some(values.len()) != n_rows.checked_mul(n_cols) {
            let what = format!("{} values were given for {n_rows}x{n_cols}", values.len());
            return Err(OpError::weight(name, what));
        }
        let bytes = format.encode(values).map_err(|unfit| match unfit {
            Unfit::NotFinite(at) => OpError::NonFiniteWeight { tensor: name.into(), row: at / n_cols },
            Unfit::TooLarge(at) => {
                let row = at / n_cols;
                OpError::weight(
                    name,
                    format!(
                        "row {row} holds a value that is too large for {format}: store it in bf16 or f32"
                    ),
                )
            }
            Unfit::ReadOnly => {
                OpError::weight(name, format!("{format} can be read but not made: make q8_0 or q4_0"))
            }
        })?;
        let range = 0..bytes.len();
        let matrix = Self::new(name, format, [n_rows, n_cols], Arc::new(bytes), range)?;
        matrix.parts.iter().for_each(|part| part.set_checked());
        Ok(matrix)
    }

    /// The rows of several matrices of one width, below each other; their formats may differ. No element is copied.
    ///
    /// # Errors
    /// [`OpError::Shape`] if there is none or the widths differ.
    pub fn stacked(matrices: &[&Self]) -> Result<Self> {
        let Some(n_cols) = matrices.first().map(|m| m.n_cols) else {
            return Err(OpError::shape("matrix", "nothing to stack"));
        };
        if matrices.iter().any(|m| m.n_cols != n_cols) {
            return Err(OpError::shape("matrix", "stacked matrices must have one width"));
        }
        Ok(Self { parts: matrices.iter().flat_map(|m| m.parts.clone()).collect(), n_cols })
    }

    /// Brings the matrix into the form that products of a kind read fastest.
    ///
    /// Float types are packed into panels: in f32 for [`Compute::F32`] (half precision stays as it is stored and is widened exactly), in
    /// bf16 otherwise, rounded to the nearest. Blocks stay as they are stored and remember the kind. Parts that change form are read and
    /// checked, and get memory of their own; whoever drops the original has them once.
    ///
    /// # Errors
    /// [`OpError::NonFiniteWeight`] if an element is NaN or infinite, [`OpError::Weight`] if one is too large for bf16.
    ///
    /// # Examples
    /// ```
    /// use fwd_ops::{Compute, Format, Matrix};
    /// let matrix = Matrix::quantised("w", Format::F32, [1, 2], &[1.0, 1.001])?.packed(Compute::Bf16)?;
    /// assert_eq!(matrix.values()?, [1.0, 1.0]); // bf16 has 8 bits of precision
    /// # Ok::<(), fwd_ops::OpError>(())
    /// ```
    pub fn packed(self, compute: Compute) -> Result<Self> {
        let mut parts = self.parts;
        for part in &mut parts {
            if let Some(packed) = part.packed(compute)? {
                *part = Arc::new(packed);
            }
        }
        Ok(Self { parts, ..self })
    }

    /// The elements of a tensor `(n_rows, n_cols)` on the CPU: packed if in f32, stored in the same type if in bf16 or f16.
    pub(crate) fn of_tensor(name: &str, tensor: &Tensor) -> Result<Self> {
        let shape: [usize; 2] = tensor.dims2()?.into();
        if tensor.dtype() == DType::F32 {
            let tensor = tensor.contiguous()?;
            let read = Read::new(&tensor);
            let part = Part::of_values(name, shape, &read.values::<f32>()?);
            return Ok(Self { parts: vec![Arc::new(part)], n_cols: shape[1] });
        }
        let flat = tensor.flatten_all()?;
        let (format, bytes): (_, Vec<u8>) = match tensor.dtype() {
            DType::BF16 => {
                let values = flat.to_vec1::<half::bf16>()?;
                (Format::Bf16, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            DType::F16 => {
                let values = flat.to_vec1::<half::f16>()?;
                (Format::F16, values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
            dtype => {
                return Err(OpError::DType {
                    op: "matrix",
                    dtype,
                    supported: "stored rows are f32, bf16 or f16",
                });
            }
        };
        let range = 0..bytes.len();
        Self::new(name, format, shape, Arc::new(bytes), range)
    }

    /// Number of rows.
    pub fn n_rows(&self) -> usize {
        self.parts.iter().map(|part| part.n_rows).sum()
    }

    /// Number of columns.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Bytes of all elements, as they are stored or packed (panels are filled up to 32 rows).
    pub fn n_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.n_bytes()).sum()
    }

    /// The format of the first row; those of a stacked matrix may differ. Packed elements are in f32 or bf16.
    pub fn format(&self) -> Format {
        self.parts[0].format()
    }

    /// All elements, row-major. For small matrices and for tests: a product reads them without this.
    ///
    /// # Errors
    /// [`OpError::NonFiniteWeight`] if one is NaN or infinite.
    pub fn values(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.n_rows() * self.n_cols];
        let mut rest = &mut values[..];
        for part in &self.parts {
            part.check_finite()?;
            let (out, other) = rest.split_at_mut(part.n_rows * self.n_cols);
            rest = other;
            out.chunks_exact_mut(self.n_cols).enumerate().for_each(|(i, out)| part.widen(i, out));
        }
        Ok(values)
    }

    /// The elements of some rows, one after the other. Only these rows are read and checked.
    ///
    /// # Errors
    /// [`OpError::IdOutOfRange`] names the first row that does not exist, [`OpError::NonFiniteWeight`] one with a NaN or an infinity.
    pub fn select_rows(&self, rows: &[u32]) -> Result<Vec<f32>> {
        let mut values = vec![0.0; rows.len() * self.n_cols];
        for (position, (&row, out)) in rows.iter().zip(values.chunks_exact_mut(self.n_cols)).enumerate() {
            let mut at = row as usize;
            let part = self.parts.iter().find(|part| {
                let is_here = at < part.n_rows;
                at -= if is_here { 0 } else { part.n_rows };
                is_here
            });
            let Some(part) = part else {
                let limit = self.n_rows();
                return Err(OpError::IdOutOfRange { op: "matrix", id: row.into(), position, limit });
            };
            part.check_row(at)?;
            part.widen(at, out);
        }
        Ok(values)
    }

    /// The elements for a product, each part checked the first time; consecutive parts of one form are one run.
    pub(crate) fn runs(&self) -> Result<Vec<Run<'_>>> {
        let mut runs: Vec<Run<'_>> = Vec::new();
        for part in &self.parts {
            part.check_finite()?;
            let next = part.as_run();
            let next = match runs.last_mut() {
                Some(last) => last.extend(next),
                None => Some(next),
            };
            runs.extend(next);
        }
        Ok(runs)
    }
}

fn check_shape(name: &str, format: Format, [n_rows, n_cols]: [usize; 2]) -> Result<()> {
    if n_rows == 0 || n_cols == 0 {
        return Err(OpError::weight(name, format!("{n_rows}x{n_cols} is empty")));
    }
    let block = format.block_len();
    if n_cols.is_multiple_of(block) {
        return Ok(());
    }
    let what = format!(
        "rows of {n_cols} are no whole blocks of {block}, which {format} needs: keep it in bf16 or f16"
    );
    Err(OpError::weight(name, what))
}

impl fmt::Debug for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self
            .parts
            .iter()
            .map(|part| format!("{} {}x{} {}", part.name, part.n_rows, part.n_cols, part.format()));
        f.debug_list().entries(parts).finish()
    }
}
