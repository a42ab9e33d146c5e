//! The arithmetic of gradient projection on plain slices, without tensors, graphs or a GPU.
//!
#![doc = include_str!("../README.md")]
//!
//! # Where to begin
//!
//! - [`Gram`] accumulates the rows of a task, and [`residual_subspace`] finds the directions that the task adds to a [`Basis`].
//! - [`Projection`] and [`ProjectedAdamW`] change a parameter outside of the older tasks' directions only.
//! - [`share_within`] measures how much of a change lies in a subspace; [`principal_angles`] and [`overlap`] compare two subspaces;
//!   [`effective_rank`] and [`energy_curve`] describe the eigenvalues.
//! - [`times_transposed`] and [`transposed_times`] are the products of a linear map and of its gradient.
//! - [`symmetric_eigen`] and [`thin_svd`], with their batched forms, are the decompositions underneath.

#![forbid(unsafe_code)]

mod adamw;
mod cosine;
mod eigen;
mod error;
mod gram;
mod product;
mod projection;
mod subspace;

pub use adamw::{AdamW, AdamWState, ProjectAt, ProjectedAdamW, clip_factor};
pub use cosine::{cosines, dot};
pub use eigen::{Eigen, Real, Svd, symmetric_eigen, symmetric_eigen_batched, thin_svd, thin_svd_batched};
pub use error::{LinalgError, Result};
pub use gram::{Element, Gram};
pub use product::{times_transposed, transposed_times};
pub use projection::Projection;
pub use subspace::{
    Basis, Precision, RankConvention, Subspace, SubspaceConfig, choose_rank, effective_rank, energy_curve,
    overlap, principal_angles, residual_subspace, share_within, shares_within, subspace,
};
