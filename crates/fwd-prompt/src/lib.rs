//! The algorithm of Fwd-Prompt: a prompt pool, the subspaces of tasks, projected updates, and the continual loop.
//!
#![doc = include_str!("../README.md")]
//!
//! # One task, step by step
//!
//! A model takes part by implementing [`FrozenModel`]. Let it read embeddings in R^d, and let `B = [V_0 | V_1 | … | V_{t−1}]` be the
//! subspaces so far ([`SubspaceLedger`]).
//!
//! **1. The subspace.** All input embeddings of the task's samples, as rows `Z ∈ R^{N×d}`, go through a
//! [`Gram`](fwd_linalg::Gram) accumulator, `C_t = ZᵀZ`. With `R = I − B Bᵀ` the leading eigenvectors of `R C_t R` become `V_t`: the
//! fewest with `tr(Bᵀ C_t B) + Σ_{i≤k} λ_i ≥ ε·tr C_t`. What older tasks already span is not counted twice, and if they span enough
//! the task gets no directions of its own.
//!
//! **2. The pool.** The task opens prompts ([`PromptPool`]): its own under [`Allocation::Partitioned`], or all of them
//! if it is the first under [`Allocation::Shared`]. A sample selects the K prompts whose image key and text key are nearest to its
//! queries: `s[j] = cos(q_img, k_img[j]) + cos(q_txt, k_txt[j])`. New prompts are normal numbers, or begin with the best of a
//! [`Library`] of prompts that were tuned on other tasks ([`Start`]). At inference it selects among all prompts, or takes none if it is
//! further from each task than that task's own samples ([`Rejection`]): what was not learnt here is left to the model as it is. It may
//! also select a task and take that one's prompts alone ([`Inference`]).
//!
//! **3. A training step.** The model returns the loss of a batch and its gradient with respect to the prompt tokens. The gradient is
//! clipped, added up over the samples that selected each prompt, and goes through the rule's
//! `Π(G) = δ·G + ((G B) ⊙ c) Bᵀ` ([`Rule`]), AdamW, and Π again: `ΔP ← ΔP − η·Π(adamw(Π(G)))`. The second projection
//! is what makes the promise hold, because AdamW rescales every coordinate. Keys learn from `−λ·mean s[j]` alone.
//!
//! **4. The promise.** At the end `P ← P + ΔP`, and for every subspace that the rule forbids
//! `‖ΔP V_s‖_F ≤ 1e-5·‖ΔP‖_F` ([`Interference`]). It is measured after every task, reported, and a property test.
//!
//! **5. Other methods.** Replay and elastic weight consolidation hook into these steps ([`Method`](fwd_continual::Method)), with any
//! rule; [`TrainingSelection`] decides which prompts a training sample is given.
//!
//! **6. The scores.** A function of yours scores every task, seen or not; [`ScoreMatrix`](fwd_continual::ScoreMatrix) turns the scores
//! into average, forgetting, backward and forward transfer.
//!
//! The loop of [`fwd_continual`] does all of it: [`trainer`] makes one for a [`Curriculum`](fwd_continual::Curriculum). It tells
//! [`Event`](fwd_continual::Event)s and can be killed at any time: [`resume`] goes on from its folder to the same bytes (with the same
//! number of threads). [`analysis`] looks at spectra and overlaps. `examples/vision_only.rs` and `examples/text_only.rs` are whole runs
//! with small models that are pre-trained on the spot.

#![forbid(unsafe_code)]

pub mod analysis;
mod batch;
mod config;
mod error;
mod gradient;
mod keys;
mod learner;
mod ledger;
mod library;
mod map;
mod model;
mod pool;
mod prompts;
mod rejection;
mod selection;
mod start;

pub use config::{
    Allocation, Anchors, Config, Fallback, Inference, KeyInit, LrUnit, PoolConfig, Rejection, Start,
    SubspaceOptions, TrainingConfig,
};
pub use error::{PromptError, Result};
pub use fwd_continual as continual;
pub use fwd_linalg as linalg;
pub use learner::{PromptLearner, PromptNote, PromptTrainer, PromptTraining, resume, trainer};
pub use ledger::{Entry, Interference, Rule, SubspaceLedger};
pub use library::Library;
pub use map::{InputMap, MapConfig, MapForm, Reading};
pub use model::{
    Dims, Embeddings, FrozenModel, InputGradient, LossGradient, Place, PromptBatch, PromptGroup, Queries,
};
pub use pool::{PromptPool, Selection};
pub use prompts::{Prompts, Started};
pub use selection::TrainingSelection;
