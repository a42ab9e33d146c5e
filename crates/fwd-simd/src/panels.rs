//! Matrices in the order in which products read them.

use crate::buffer::Buffer;
use crate::element::{Element, PANEL};
use crate::level::Cpu;
use faer::MatRef;
use rayon::prelude::*;

/// A frozen matrix `W (n_rows, n_cols)`, packed for `x·Wᵀ`: panels of [`PANEL`] rows, each a run of steps along the columns. The last
/// panel and the last step are filled up with zeros.
#[derive(Debug, Clone)]
pub struct Panels<T: Element> {
    n_rows: usize,
    n_cols: usize,
    steps: Vec<T::Step>,
}

impl<T: Element> Panels<T> {
    /// Packs a matrix whose row `i` is written by `row(i, out)`, `n_cols` elements; over the threads of rayon.
    pub fn pack(cpu: Cpu, n_rows: usize, n_cols: usize, row: impl Fn(usize, &mut [f32]) + Sync) -> Self {
        let per_panel = T::steps(n_cols);
        let mut steps = vec![T::ZERO; per_panel * n_rows.div_ceil(PANEL)];
        if per_panel > 0 {
            steps.par_chunks_mut(per_panel).enumerate().for_each_init(Vec::new, |rows, (panel, out)| {
                let n = PANEL.min(n_rows - panel * PANEL);
                rows.resize(n * n_cols, 0.0);
                for (i, out) in rows.chunks_exact_mut(n_cols).enumerate() {
                    row(panel * PANEL + i, out);
                }
                pack_panel::<T>(cpu, MatRef::from_row_major_slice(rows, n, n_cols), out);
            });
        }
        Self { n_rows, n_cols, steps }
    }

    /// Rows of the matrix.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Columns of the matrix.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Bytes that it takes.
    pub fn n_bytes(&self) -> usize {
        size_of_val(&self.steps[..])
    }

    /// Number of panels.
    pub fn n_panels(&self) -> usize {
        self.n_rows.div_ceil(PANEL)
    }

    /// The steps of one panel: rows `PANEL·i ..` of the matrix.
    pub fn panel(&self, i: usize) -> &[T::Step] {
        let n = T::steps(self.n_cols);
        &self.steps[i * n..][..n]
    }

    /// Element `(row, col)`.
    pub fn at(&self, row: usize, col: usize) -> f32 {
        let step = &self.panel(row / PANEL)[col / T::DEPTH];
        T::elements(step)[row % PANEL * T::DEPTH + col % T::DEPTH].widen()
    }

    /// Writes columns `from ..` of a row.
    pub fn row(&self, row: usize, from: usize, out: &mut [f32]) {
        out.iter_mut().zip(from..).for_each(|(out, col)| *out = self.at(row, col));
    }

    /// Packs up to [`PANEL`] columns of rows `from .. from + depth` for `dy·W`: column `cols + j` becomes column `j` of the panel.
    pub fn transposed_panel(
        &self,
        cpu: Cpu,
        cols: std::ops::Range<usize>,
        from: usize,
        depth: usize,
        out: &mut [T::Step],
    ) {
        let mut rows = vec![0f32; cols.len() * depth];
        for i in 0..depth {
            for (j, col) in cols.clone().enumerate() {
                rows[j * depth + i] = self.at(from + i, col);
            }
        }
        pack_panel::<T>(cpu, MatRef::from_row_major_slice(&rows, cols.len(), depth), out);
    }
}

/// Packs up to [`PANEL`] rows `(n, depth)` as one panel of [`Element::steps`]`(depth)` steps; row `j` becomes column `j`.
///
/// # Panics
/// If there are more rows, or `out` has another length.
pub fn pack_panel<T: Element>(cpu: Cpu, rows: MatRef<'_, f32>, out: &mut [T::Step]) {
    let _ = cpu;
    assert!(rows.nrows() <= PANEL && out.len() == T::steps(rows.ncols()), "a panel of another size");
    out.fill(T::ZERO);
    for j in 0..rows.nrows() {
        for i in 0..rows.ncols() {
            T::elements_mut(&mut out[i / T::DEPTH])[j * T::DEPTH + i % T::DEPTH] = T::round(rows[(j, i)]);
        }
    }
}

/// A panel in working memory.
pub(crate) fn panel_of<T: Element>(cpu: Cpu, rows: MatRef<'_, f32>) -> Buffer<T> {
    let mut buffer = Buffer::new(T::steps(rows.ncols()));
    pack_panel::<T>(cpu, rows, &mut buffer);
    buffer
}
