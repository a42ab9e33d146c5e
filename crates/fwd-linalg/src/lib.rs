//! The arithmetic of gradient projection on plain slices: no tensors, no graph, no GPU.
//!
//! One task in four steps (Saha et al. 2021; Zheng et al. 2024):
//!
//! 1. [`Gram`] takes the rows that a frozen model sees for the task, bf16 to f64, in a stream: `C = ZᵀZ`, O(d²) memory.
//! 2. [`residual_subspace`] finds the directions that carry the energy and that older tasks do not hold yet; [`Basis::extend`]
//!    appends them.
//! 3. [`Projection`] says what may change: `Π(G) = δ·G + ((G B) ⊙ c) Bᵀ`.
//! 4. [`ProjectedAdamW`] takes steps `p ← p − η·Π(adamw(Π(g)))`: nothing moves in a forbidden direction, whatever the optimiser
//!    does in between.
//!
//! ```
//! use fwd_linalg::*;
//! // 1. Two rows of an old task, which lives in the plane of x and y.
//! let mut old_task = Gram::new(3);
//! old_task.push(&[1.0f32, 0.0, 0.0, 0.0, 2.0, 0.0])?;
//! // 2. Its subspace at all of its energy.
//! let config = SubspaceConfig { energy: 1.0, ..SubspaceConfig::default() };
//! let basis = subspace(&old_task, &config)?.basis;
//! assert_eq!(basis.len(), 2);
//! // 3. A new task may change everything else.
//! let projection = Projection::new(3, true, &[(&basis, -1.0)])?;
//! // 4. A step on a prompt of one token.
//! let (mut state, mut prompt) = (AdamWState::new(3), [0.5f32, 0.5, 0.5]);
//! ProjectedAdamW { optimiser: AdamW::default(), projection: &projection, at: ProjectAt::Both, gradient_scale: 1.0 }
//!     .step(&mut state, &mut prompt, &[0.3, -2.0, 1.0])?;
//! assert!((prompt[0] - 0.5).abs() < 1e-6 && (prompt[1] - 0.5).abs() < 1e-6 && (prompt[2] - 0.499).abs() < 1e-6);
//! # Ok::<(), LinalgError>(())
//! ```
//!
//! [`principal_angles`], [`overlap`], [`effective_rank`] and [`energy_curve`] describe what was found; [`symmetric_eigen`] and
//! [`thin_svd`], and their batched forms, are the decompositions underneath. All matrices are row-major.

#![forbid(unsafe_code)]

mod adamw;
mod eigen;
mod error;
mod gram;
mod projection;
mod subspace;

pub use adamw::{AdamW, AdamWState, ProjectAt, ProjectedAdamW, clip_factor};
pub use eigen::{Eigen, Real, Svd, symmetric_eigen, symmetric_eigen_batched, thin_svd, thin_svd_batched};
pub use error::{LinalgError, Result};
pub use gram::{Element, Gram};
pub use projection::Projection;
pub use subspace::{
    Basis, Precision, RankConvention, Subspace, SubspaceConfig, choose_rank, effective_rank, energy_curve,
    overlap, principal_angles, residual_subspace, share_within, subspace,
};
