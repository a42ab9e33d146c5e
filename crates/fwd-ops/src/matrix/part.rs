//! Rows of a [`Matrix`](super::Matrix) in one form: as they are stored, or packed for products.

use crate::compute::Compute;
use crate::cpu::linear::Run;
use crate::cpu::packed;
use crate::cpu::stored::{Format, StoredRows, first_non_finite_row};
use crate::error::{OpError, Result};
use fwd_simd::{Cpu, Element, Panels};
use half::bf16;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows of one form.
pub(super) struct Part {
    pub(super) name: String,
    pub(super) n_rows: usize,
    pub(super) n_cols: usize,
    elements: Elements,
    /// Whether all elements are known to be finite.
    is_checked: AtomicBool,
}

enum Elements {
    Stored(Stored),
    F32(Panels<f32>),
    Bf16(Panels<bf16>),
}

/// Row after row, in memory or in a mapped file.
#[derive(Clone)]
struct Stored {
    format: Format,
    bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    range: Range<usize>,
    compute: Compute,
}

impl Part {
    /// Stored rows, which the caller has found to be within `bytes`.
    pub(super) fn stored(
        name: &str,
        format: Format,
        [n_rows, n_cols]: [usize; 2],
        bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
        range: Range<usize>,
    ) -> Self {
        let elements = Elements::Stored(Stored { format, bytes, range, compute: Compute::F32 });
        Self { name: name.into(), n_rows, n_cols, elements, is_checked: AtomicBool::new(false) }
    }

    /// Packs `values`, row after row, for products in f32.
    pub(super) fn of_values(name: &str, [n_rows, n_cols]: [usize; 2], values: &[f32]) -> Self {
        let row = |i: usize, out: &mut [f32]| out.copy_from_slice(&values[i * n_cols..][..n_cols]);
        let elements = Elements::F32(Panels::pack(Cpu::current(), n_rows, n_cols, row));
        Self { name: name.into(), n_rows, n_cols, elements, is_checked: AtomicBool::new(false) }
    }

    pub(super) fn format(&self) -> Format {
        match &self.elements {
            Elements::Stored(stored) => stored.format,
            Elements::F32(_) => Format::F32,
            Elements::Bf16(_) => Format::Bf16,
        }
    }

    pub(super) fn n_bytes(&self) -> usize {
        match &self.elements {
            Elements::Stored(stored) => stored.range.len(),
            Elements::F32(panels) => panels.n_bytes(),
            Elements::Bf16(panels) => panels.n_bytes(),
        }
    }

    /// The elements of a row.
    pub(super) fn widen(&self, row: usize, out: &mut [f32]) {
        match &self.elements {
            Elements::Stored(rows) => self.rows(rows).widen(row, 0, out),
            Elements::F32(panels) => panels.row(row, 0, out),
            Elements::Bf16(panels) => panels.row(row, 0, out),
        }
    }

    fn rows<'a>(&self, stored: &'a Stored) -> StoredRows<'a> {
        let Stored { format, compute, bytes, range } = stored;
        let bytes = &(**bytes).as_ref()[range.clone()];
        StoredRows { format: *format, compute: *compute, n_rows: self.n_rows, n_cols: self.n_cols, bytes }
    }

    /// The elements alone in their run.
    pub(super) fn as_run(&self) -> Run<'_> {
        match &self.elements {
            Elements::Stored(stored) => Run::Stored(vec![self.rows(stored)]),
            Elements::F32(panels) => Run::F32(vec![panels]),
            Elements::Bf16(panels) => Run::Bf16(vec![panels]),
        }
    }

    /// [`OpError::NonFiniteWeight`] if a row has an element that is not finite.
    pub(super) fn check_row(&self, row: usize) -> Result<()> {
        if self.is_checked.load(Ordering::Acquire) {
            return Ok(());
        }
        let is_finite = match &self.elements {
            Elements::Stored(stored) => first_non_finite_row(&self.rows(stored).only(row)).is_none(),
            Elements::F32(panels) => (0..self.n_cols).all(|col| panels.at(row, col).is_finite()),
            Elements::Bf16(panels) => (0..self.n_cols).all(|col| panels.at(row, col).is_finite()),
        };
        if is_finite { Ok(()) } else { Err(self.non_finite(row)) }
    }

    /// Reads all elements the first time.
    pub(super) fn check_finite(&self) -> Result<()> {
        if self.is_checked.load(Ordering::Acquire) {
            return Ok(());
        }
        let row = match &self.elements {
            Elements::Stored(stored) => first_non_finite_row(&self.rows(stored)),
            Elements::F32(panels) => packed::first_non_finite_row(panels),
            Elements::Bf16(panels) => packed::first_non_finite_row(panels),
        };
        if let Some(row) = row {
            return Err(self.non_finite(row));
        }
        self.set_checked();
        Ok(())
    }

    pub(super) fn set_checked(&self) {
        self.is_checked.store(true, Ordering::Release);
    }

    fn non_finite(&self, row: usize) -> OpError {
        OpError::NonFiniteWeight { tensor: self.name.clone(), row }
    }

    /// The form that products of a kind want, if it is another one.
    pub(super) fn packed(&self, wanted: Compute) -> Result<Option<Self>> {
        let elements = match (&self.elements, wanted) {
            (Elements::Stored(stored), _) if stored.compute == wanted && stored.format != Format::F32 => {
                return Ok(None);
            }
            (Elements::Stored(stored), _) if stored.format.block_len() > 1 => {
                let is_checked = AtomicBool::new(self.is_checked.load(Ordering::Acquire));
                let elements = Elements::Stored(Stored { compute: wanted, ..stored.clone() });
                return Ok(Some(Self { name: self.name.clone(), elements, is_checked, ..*self }));
            }
            (Elements::F32(_), Compute::F32) | (Elements::Bf16(_), Compute::Bf16 | Compute::Int8) => {
                return Ok(None);
            }
            (_, Compute::F32) => Elements::F32(self.panels()?),
            (_, Compute::Bf16 | Compute::Int8) => Elements::Bf16(self.panels()?),
        };
        let part = Self { name: self.name.clone(), elements, is_checked: AtomicBool::new(false), ..*self };
        match part.check_finite() {
            Err(OpError::NonFiniteWeight { row, .. }) => {
                let what = format!("row {row} holds a value that is too large for bf16: compute in f32");
                Err(OpError::weight(&self.name, what))
            }
            other => other.map(|()| Some(part)),
        }
    }

    /// All rows in panels.
    fn panels<T: Element>(&self) -> Result<Panels<T>> {
        self.check_finite()?;
        Ok(Panels::pack(Cpu::current(), self.n_rows, self.n_cols, |row, out| self.widen(row, out)))
    }
}
