//! The work of `fwd-linalg` that is timed, and the same with a library's separate calls: the subspace of a task from a stream of
//! rows, and the projected AdamW step.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatMut, MatRef, Par};
use fwd_linalg::{
    AdamW, AdamWState, Basis, Gram, ProjectAt, ProjectedAdamW, Projection, Result, Subspace, SubspaceConfig,
    subspace,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

/// Rows and width of the subspace benchmarks.
pub const SUBSPACES: [(usize, usize); 3] = [(20_000, 768), (4_000, 2048), (50_000, 2048)];
/// Prompt tokens n, width d and rank r of the step benchmarks.
pub const STEPS: [(usize, usize, usize); 2] = [(200, 4096, 512), (1000, 2048, 768)];
/// Share of the energy, ε.
pub const ENERGY: f64 = 0.97;
/// Rows of one call: 16 samples of 48 tokens.
const PUSH: usize = 768;

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..n).map(|_| rng.sample(StandardNormal)).collect()
}

/// `n` rows of a power-law spectrum, `σ_i ∝ i^-½`, in random directions.
pub fn rows(n: usize, dim: usize) -> Vec<f32> {
    let mut z = normal(n * dim, 1);
    for row in z.chunks_exact_mut(dim) {
        row.iter_mut().enumerate().for_each(|(i, x)| *x *= ((i + 1) as f32).powf(-0.5));
    }
    let mix = normal(dim * dim, 2);
    let (z, mix) = (MatRef::from_row_major_slice(&z, n, dim), MatRef::from_row_major_slice(&mix, dim, dim));
    let mut out = vec![0.0; n * dim];
    let scale = (dim as f32).sqrt().recip();
    // The transpose of a column-major view is row-major.
    let view = MatMut::from_column_major_slice_mut(&mut out, dim, n).transpose_mut();
    matmul(view, Accum::Replace, z, mix, scale, Par::rayon(0));
    out
}

/// The subspace of one task, from rows that come in batches.
///
/// # Errors
/// None for finite rows.
pub fn find_subspace(rows: &[f32], dim: usize) -> Result<Subspace> {
    let mut gram = Gram::new(dim);
    for batch in rows.chunks(PUSH * dim) {
        gram.push(batch)?;
    }
    subspace(&gram, &SubspaceConfig { energy: ENERGY, ..SubspaceConfig::default() })
}

/// A prompt with its optimiser, ready to take steps.
#[derive(Debug)]
pub struct StepBench {
    dim: usize,
    basis: Mat<f32>,
    projection: Projection,
    parameter: Vec<f32>,
    gradient: Vec<f32>,
    state: AdamWState,
}

impl StepBench {
    /// `n` prompt tokens of width `dim`, and `rank` directions that must not change.
    ///
    /// # Errors
    /// None for `rank ≤ dim`.
    pub fn new(n: usize, dim: usize, rank: usize) -> Result<Self> {
        let directions = normal(dim * rank, 3);
        let basis = MatRef::from_column_major_slice(&directions, dim, rank).qr().compute_thin_Q();
        let vectors = basis.col_iter().flat_map(|column| column.iter().copied()).collect();
        let forbidden = Basis::from_orthonormal(dim, vectors)?;
        let projection = Projection::new(dim, true, &[(&forbidden, -1.0)])?;
        let (parameter, gradient) = (normal(n * dim, 4), normal(n * dim, 5));
        let state = AdamWState::new(n * dim);
        Ok(Self { dim, basis, projection, parameter, gradient, state })
    }

    /// One projected step.
    ///
    /// # Errors
    /// None for a finite gradient.
    pub fn step(&mut self, at: ProjectAt) -> Result<()> {
        let optimiser = AdamW::default();
        let step = ProjectedAdamW { optimiser, projection: &self.projection, at, gradient_scale: 1.0 };
        step.step(&mut self.state, &mut self.parameter, &self.gradient)
    }

    /// The projection of the gradient alone.
    ///
    /// # Errors
    /// None for a finite gradient.
    pub fn project(&self) -> Result<Vec<f32>> {
        let mut rows = self.gradient.clone();
        self.projection.apply(&mut rows)?;
        Ok(rows)
    }

    /// Nothing but the matrix products that `n_projections` need, `G B` and `(G B) Bᵀ` each, by faer on all threads.
    pub fn products(&self, n_projections: usize) -> f32 {
        let (n, rank) = (self.gradient.len() / self.dim, self.basis.ncols());
        let g = MatRef::from_row_major_slice(&self.gradient, n, self.dim);
        let mut inner = Mat::<f32>::zeros(n, rank);
        let mut outer = Mat::<f32>::zeros(n, self.dim);
        for _ in 0..n_projections {
            matmul(inner.as_mut(), Accum::Replace, g, self.basis.as_ref(), 1.0, Par::rayon(0));
            matmul(
                outer.as_mut(),
                Accum::Replace,
                inner.as_ref(),
                self.basis.transpose(),
                1.0,
                Par::rayon(0),
            );
        }
        outer[(0, 0)]
    }

    /// The same step in a library's separate calls: four products, differences, and plain AdamW in between.
    ///
    /// # Errors
    /// None for a finite gradient.
    pub fn separate_calls(&mut self) -> Result<()> {
        let n = self.gradient.len() / self.dim;
        let project = |rows: &[f32]| {
            let g = MatRef::from_row_major_slice(rows, n, self.dim);
            g - (g * &self.basis) * self.basis.transpose()
        };
        let flat = |m: Mat<f32>| m.row_iter().flat_map(|row| row.iter().copied()).collect::<Vec<f32>>();
        let gradient = flat(project(&self.gradient));
        let mut moved = self.parameter.clone();
        AdamW::default().step(&mut self.state, &mut moved, &gradient)?;
        let update: Vec<f32> = moved.iter().zip(&self.parameter).map(|(a, b)| a - b).collect();
        let update = flat(project(&update));
        self.parameter.iter_mut().zip(update).for_each(|(p, u)| *p += u);
        Ok(())
    }
}
