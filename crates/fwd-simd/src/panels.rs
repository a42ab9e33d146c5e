//! Matrices in the order in which products read them.

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
        let mut steps = zeros::<T>(per_panel * n_rows.div_ceil(PANEL));
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
        let (steps, lane) = (self.panel(row / PANEL), row % PANEL * T::DEPTH);
        assert!(from + out.len() <= self.n_cols, "a row has {} columns", self.n_cols);
        for (out, col) in out.iter_mut().zip(from..) {
            *out = T::elements(&steps[col / T::DEPTH])[lane + col % T::DEPTH].widen();
        }
    }

    /// Packs the columns `cols`, at most [`PANEL`], of the rows `from .. from + depth` for `dy·W`: column `cols.start + j` becomes column
    /// `j` of a panel of [`Element::steps`]`(depth)` steps.
    ///
    /// # Panics
    /// If `cols.start` or `from` is no multiple of [`PANEL`], `depth` neither is one nor reaches the last row, the matrix is smaller, or
    /// `out` has another length.
    #[allow(unsafe_code)]
    pub fn transposed_panel(
        &self,
        cpu: Cpu,
        cols: std::ops::Range<usize>,
        from: usize,
        depth: usize,
        out: &mut [T::Step],
    ) {
        assert!(
            cols.start.is_multiple_of(PANEL) && cols.len() <= PANEL && from.is_multiple_of(PANEL),
            "a panel that starts within a square"
        );
        assert!(cols.end <= self.n_cols && from + depth <= self.n_rows, "a panel beyond the matrix");
        assert!(
            depth.is_multiple_of(PANEL) || from + depth == self.n_rows,
            "a panel that ends within a square"
        );
        assert_eq!(out.len(), T::steps(depth), "a panel of another size");
        let kernel = T::kernel(cpu);
        let square = T::steps(PANEL);
        let first = cols.start / T::DEPTH;
        let mut from_square = [T::ZERO; PANEL];
        let mut to_square = [T::ZERO; PANEL];
        for (out, panel) in out.chunks_mut(square).zip(from / PANEL..) {
            let steps = &self.panel(panel)[first..];
            let steps = match steps.get(..square) {
                Some(steps) => steps,
                None => {
                    from_square[..steps.len()].copy_from_slice(steps);
                    &from_square[..square]
                }
            };
            // SAFETY: the kernel belongs to the level of `cpu`, which the processor has; both slices are whole squares.
            unsafe {
                if out.len() == square {
                    (kernel.turn)(steps, out);
                } else {
                    (kernel.turn)(steps, &mut to_square[..square]);
                    out.copy_from_slice(&to_square[..out.len()]);
                }
            }
        }
    }
}

/// Packs up to [`PANEL`] rows `(n, depth)` as one panel of [`Element::steps`]`(depth)` steps; row `j` becomes column `j`.
///
/// # Panics
/// If there are more rows, or `out` has another length.
#[allow(unsafe_code)]
pub fn pack_panel<T: Element>(cpu: Cpu, rows: MatRef<'_, f32>, out: &mut [T::Step]) {
    assert!(rows.nrows() <= PANEL && out.len() == T::steps(rows.ncols()), "a panel of another size");
    // SAFETY: the kernel belongs to the level of `cpu`, which the processor has.
    unsafe { (T::kernel(cpu).pack_panel)(rows, out) }
}

/// Zeros. On Linux, whole huge pages among them are asked for as such: a matrix that is read once a token then misses the address cache of the
/// processor 512 times less often.
fn zeros<T: Element>(n: usize) -> Vec<T::Step> {
    let mut steps = Vec::with_capacity(n);
    #[cfg(target_os = "linux")]
    ask_for_huge_pages(steps.spare_capacity_mut());
    steps.resize(n, T::ZERO);
    steps
}

/// Asks for huge pages where the memory holds whole ones. It is advice: where the system does not follow it, nothing changes.
#[cfg(target_os = "linux")]
#[allow(unsafe_code)]
fn ask_for_huge_pages<S>(memory: &mut [std::mem::MaybeUninit<S>]) {
    const HUGE_PAGE: usize = 2 << 20;
    let range = memory.as_mut_ptr_range();
    let first = range.start.addr().next_multiple_of(HUGE_PAGE);
    let end = range.end.addr() / HUGE_PAGE * HUGE_PAGE;
    if first < end {
        let start = range.start.cast::<std::ffi::c_void>().with_addr(first);
        // SAFETY: the pages lie within memory that is ours alone, and this advice changes neither their content nor their mapping.
        let _ = unsafe { rustix::mm::madvise(start, end - first, rustix::mm::Advice::LinuxHugepage) };
    }
}
