//! Methods of continual learning beside projection: what each adds to the trainer's steps, all through one trait.
//!
//! | method | adds to a step | remembers |
//! |---|---|---|
//! | `plain` | nothing | nothing |
//! | `replay` | old samples in the batch | which samples the buffer holds |
//! | `ewc` | a penalty on the change of the prompts | the diagonal Fisher information of the prompts |
//! | `modal-prompt` | prompts of the most similar older tasks | nothing: its keys are the pool's |
//!
//! A further method is a file with a [`Hook`] and a variant of [`MethodConfig`].

mod ewc;
mod modal_prompt;
mod replay;

pub use ewc::EwcConfig;
pub(crate) use ewc::fisher;
pub use replay::{BufferPolicy, ReplayConfig, StoredSample};

use crate::config::Config;
use crate::error::Result;
use crate::model::Queries;
use crate::pool::{PromptPool, Selection};
use crate::state::RunState;
use modal_prompt::ModalPrompt;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::ops::Range;

/// What a run does beside projecting its updates. Any of it goes with any [`Rule`](crate::Rule); the methods as they were published
/// have [`Rule::None`](crate::Rule::None).
///
/// # Examples
/// ```
/// use fwd_prompt::{Config, MethodConfig, ReplayConfig};
/// let config: Config = serde_json::from_str(r#"{"rule": "none", "method": {"replay": {"size": 50}}}"#)?;
/// assert_eq!(config.method, MethodConfig::Replay(ReplayConfig { size: 50, ..ReplayConfig::default() }));
/// let config: Config = serde_json::from_str(r#"{"method": "modal-prompt"}"#)?;
/// assert!(config.check().is_err()); // it wants one prompt a task, the default is a shared pool
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MethodConfig {
    /// Nothing more.
    #[default]
    Plain,
    /// Experience replay: some samples of older tasks are kept, and every batch holds a share of them.
    Replay(ReplayConfig),
    /// Elastic weight consolidation of the prompts: what older tasks are sensitive to is held where it is.
    Ewc(EwcConfig),
    /// Prompts of one's own for each task, guided by image and text (Zeng et al. 2025, arXiv 2410.05849).
    ///
    /// A task owns one prompt with an image key and a text key, its prototypes, so the allocation must be
    /// [`Partitioned(1)`](crate::Allocation::Partitioned), with a `prompt_len` for the whole task. With
    /// `s[j] = cos(q_img, k_img[j]) + cos(q_txt, k_txt[j])` and K = `pool.top_k`, which here counts tasks:
    ///
    /// ```text
    /// training of task t   the prompt t and the K − 1 older ones with the largest s, which stay as they are
    /// L                    = L_LM + λ·mean_batch [(1 − cos(q_img, k_img[t])) + (1 − cos(q_txt, k_txt[t]))]
    /// inference            the K prompts with the largest s: [`PromptPool::select`](crate::PromptPool::select)
    /// ```
    /// Prompts stand in descending s both times. λ is [`TrainingConfig::key_weight`](crate::TrainingConfig::key_weight); what is
    /// reported as key loss is `−λ·mean s[t]`, the same but for a constant. Each sample is guided by its own queries, never by its
    /// batch. The source computes the prototypes from the prompts by a small network into CLIP's space, one for both modalities; ours
    /// are trained vectors of their own, one a modality.
    ModalPrompt,
}

impl MethodConfig {
    pub(crate) fn is_plain(&self) -> bool {
        *self == Self::Plain
    }

    pub(crate) fn hook(&self) -> &dyn Hook {
        match self {
            Self::Plain => &Plain,
            Self::Replay(config) => config,
            Self::Ewc(config) => config,
            Self::ModalPrompt => &ModalPrompt,
        }
    }
}

/// What a method remembers from task to task.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Memory {
    /// Samples of learnt tasks that may be rehearsed.
    pub(crate) buffer: Vec<StoredSample>,
    /// Diagonal Fisher information of the prompts, `(M·L_p, d)`; empty before there is any.
    pub(crate) fisher: Vec<f32>,
}

/// What a method adds to a run. The defaults add nothing, bit for bit.
pub(crate) trait Hook {
    /// Refuses values that cannot be.
    fn check(&self, _config: &Config) -> Result<()> {
        Ok(())
    }

    /// Whether a task's samples may only select among its own prompts, so that it needs K of them.
    fn selects_within_task(&self) -> bool {
        true
    }

    /// How many samples of each batch of the current task are old ones.
    fn n_rehearsed(&self, _run: &RunState) -> usize {
        0
    }

    /// The old samples of a step, as many as [`Self::n_rehearsed`] says.
    fn rehearsed(&self, _run: &RunState, _step: usize) -> Vec<StoredSample> {
        Vec::new()
    }

    /// The prompts of a sample of the current task, in training.
    fn select(&self, pool: &PromptPool, queries: &Queries, trained: &Range<usize>) -> Result<Selection> {
        pool.select_among(queries, trained.clone())
    }

    /// The prompts whose keys are drawn to the samples that selected them.
    fn keyed<'s>(&self, selections: &'s [Selection], _trained: &Range<usize>) -> Cow<'s, [Selection]> {
        Cow::Borrowed(selections)
    }

    /// The penalty on a change of the prompts, and its gradient, which is added to theirs. Elements count from `start` in the pool.
    fn penalise(&self, _memory: &Memory, _start: usize, _change: &[f32], _gradient: &mut [f32]) -> f64 {
        0.0
    }

    /// The samples of the task just learnt that its Fisher information is wanted of.
    fn fisher_samples(&self, _run: &RunState) -> Vec<usize> {
        Vec::new()
    }

    /// What is remembered after a task. `fisher` is empty if it was wanted of no samples.
    fn remember(&self, run: &RunState, _fisher: &[f64]) -> Memory {
        run.memory.clone()
    }
}

/// Nothing beside projection.
struct Plain;

impl Hook for Plain {}
