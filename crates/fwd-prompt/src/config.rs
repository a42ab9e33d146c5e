//! The configuration of a continual run: plain data with defaults, readable from TOML or JSON; an unknown key is an error.

use crate::error::{PromptError, Result};
use crate::ledger::Rule;
use crate::map::{MapConfig, MapForm};
use crate::model::Place;
use crate::selection::TrainingSelection;
use fwd_continual::{MethodConfig, Plan, Schedule};
use fwd_linalg::{AdamW, Precision, ProjectAt, RankConvention, SubspaceConfig};
use serde::{Deserialize, Serialize};

/// Everything that decides what a run computes, but for model and data.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The seed of every random stream.
    pub seed: u64,
    /// The prompt pool.
    pub pool: PoolConfig,
    /// The subspaces.
    pub subspace: SubspaceOptions,
    /// What of an update is kept.
    pub rule: Rule,
    /// Where in the optimiser's step the rule is applied.
    pub project_at: ProjectAt,
    /// A map of the input embeddings that all tasks share.
    #[serde(skip_serializing_if = "MapConfig::is_none")]
    pub map: MapConfig,
    /// The training of one task.
    pub training: TrainingConfig,
    /// What is done beside projection.
    #[serde(skip_serializing_if = "MethodConfig::is_plain")]
    pub method: MethodConfig,
    /// The state is saved every so many steps, and after each stage in any case; 0: after each stage only.
    pub save_every: usize,
}

/// The prompt pool and how tasks share it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Who owns which prompts.
    pub allocation: Allocation,
    /// L_p: tokens of a prompt.
    pub prompt_len: usize,
    /// K: prompts of a sample.
    pub top_k: usize,
    /// Where a sample reads its prompts.
    #[serde(skip_serializing_if = "Place::is_default")]
    pub place: Place,
    /// New prompts are normal with this standard deviation, in units of the root mean square of the task's embeddings.
    pub prompt_scale: f32,
    /// What a task's new prompts begin with.
    #[serde(skip_serializing_if = "Start::is_default")]
    pub start: Start,
    /// What new keys are.
    pub key_init: KeyInit,
    /// Which prompts a sample takes at inference.
    #[serde(skip_serializing_if = "Inference::is_default")]
    pub inference: Inference,
    /// Which samples take no prompts at inference.
    pub rejection: Rejection,
    /// Samples of pre-training that are kept as keys; a sample that is nearest to one of them takes no prompts.
    #[serde(skip_serializing_if = "Anchors::is_none")]
    pub anchors: Anchors,
    /// What a sample is given at inference that no learnt task is for.
    #[serde(skip_serializing_if = "Fallback::is_default")]
    pub fallback: Fallback,
    /// Which prompts a sample has in front of it while its task is learnt.
    #[serde(skip_serializing_if = "TrainingSelection::is_default")]
    pub selection: TrainingSelection,
}

/// Who owns which prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Allocation {
    /// One pool of so many prompts, opened by the first task; every task may select and train any of them (Wang et al. 2022).
    Shared(usize),
    /// Each task opens so many prompts, selects among them in training and trains only them; inference selects among all.
    Partitioned(usize),
}

impl Allocation {
    /// How many prompts a task opens in a pool that has `n_prompts`.
    pub(crate) fn n_opened(self, n_prompts: usize) -> usize {
        match self {
            Self::Shared(n) if n_prompts == 0 => n,
            Self::Shared(_) => 0,
            Self::Partitioned(n) => n,
        }
    }
}

/// Which prompts a sample takes at inference, of those that are not too far from it ([`Rejection`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Inference {
    /// The K best of the whole pool, whichever tasks they are of.
    #[default]
    Prompts,
    /// The K best of the task that opened the best of all. Prompts that were trained together stay together. Ours, not the paper's; the
    /// same as [`Self::Prompts`] where all tasks share one pool.
    Task,
}

impl Inference {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which samples are given no prompts at inference, because nothing that was learnt is for them. Scores in the sense of
/// [`PromptPool::select`](crate::PromptPool::select).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rejection {
    /// None: every sample takes K prompts.
    #[default]
    Never,
    /// Those that are further from the prompts of every task than this quantile of its own training samples were when it had been
    /// learnt, measured by the score of the best prompt; 0: further than all of them. A prompt that several tasks trained has the
    /// lowest of their bounds.
    BelowQuantile(f64),
}

/// Samples of pre-training whose queries are kept as keys without prompts. Ours, not the paper's.
///
/// At inference a sample whose nearest anchor has a higher score than every prompt takes no prompts: the model can do it as it is. A sample
/// without prompts of a task that is as near to an anchor as samples of pre-training are takes none of the library either
/// ([`Fallback`]). Queries of the samples are kept, not the samples; nothing of a task that is learnt later is kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Anchors {
    /// How many, drawn at random; at most half of the samples of pre-training. 0: none.
    pub count: usize,
    /// This share of the other samples of pre-training is further from every anchor than what counts as near.
    pub quantile: f64,
}

impl Anchors {
    /// Whether there are none.
    pub fn is_none(&self) -> bool {
        self.count == 0
    }
}

impl Default for Anchors {
    fn default() -> Self {
        Self { count: 0, quantile: 0.05 }
    }
}

/// What a sample takes at inference that is further from every task's prompts than [`Rejection`] allows, or nearer to a sample of
/// pre-training, though not near to it ([`Anchors`]). All but [`Self::Nothing`] are ours,
/// not the paper's, and need a [`Library`](crate::Library).
///
/// The model as it is before the first task begins takes nothing of a library: what its scores gain on a task before that is learnt
/// ([`ScoreMatrix::forward_transfer`](fwd_continual::ScoreMatrix::forward_transfer)) is then what older tasks and the library did for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fallback {
    /// No prompts.
    #[default]
    Nothing,
    /// The prompts of the library's task that the best of them belongs to, however far it is.
    Nearest,
    /// The same, but no prompts if the sample is further from every task of the library than that task's own rejection allowed.
    Claimed,
}

impl Fallback {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What the keys of new prompts are before training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyInit {
    /// Queries of random samples of the task that opens the prompt.
    #[default]
    Queries,
    /// Normal numbers.
    Normal,
}

/// What the tokens of a task's new prompts are before training. All but [`Self::Normal`] are ours, not the paper's.
///
/// The tokens of a block of the library are taken one after another. If the task has more tokens, the rest are normal; if it has fewer, the
/// rest are left out. Keys begin as [`KeyInit`] says in all cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Normal numbers ([`PoolConfig::prompt_scale`]).
    #[default]
    Normal,
    /// The block of the [`Library`](crate::Library) whose keys are nearest to the queries of at most 64 training samples of the task.
    Nearest,
    /// The block of the [`Library`](crate::Library) with the least loss on at most 64 training samples of the task, or normal numbers
    /// if these have a lower one.
    Library,
}

impl Start {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            allocation: Allocation::Shared(10),
            prompt_len: 4,
            top_k: 4,
            place: Place::default(),
            prompt_scale: 1.0,
            start: Start::default(),
            key_init: KeyInit::default(),
            inference: Inference::default(),
            rejection: Rejection::default(),
            anchors: Anchors::default(),
            fallback: Fallback::default(),
            selection: TrainingSelection::default(),
        }
    }
}

/// ε of pre-training and of the tasks, and how ranks are counted.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SubspaceOptions {
    /// ε_0: share of the pre-training energy that V_0 captures.
    pub pretrained_energy: f64,
    /// ε_t: share of a task's energy that all subspaces up to its own capture.
    pub task_energy: f64,
    /// At most so many directions for a task.
    pub max_rank: Option<usize>,
    /// Which k is enough.
    pub convention: RankConvention,
    /// Arithmetic of the decompositions.
    pub precision: Precision,
}

impl Default for SubspaceOptions {
    fn default() -> Self {
        let SubspaceConfig { energy, max_rank, convention, precision } = SubspaceConfig::default();
        Self { pretrained_energy: energy, task_energy: energy, max_rank, convention, precision }
    }
}

impl SubspaceOptions {
    /// The options of task `t`; 0 is pre-training.
    pub fn of_task(&self, t: usize) -> SubspaceConfig {
        let energy = if t == 0 { self.pretrained_energy } else { self.task_energy };
        let Self { max_rank, convention, precision, .. } = *self;
        SubspaceConfig { energy, max_rank, convention, precision }
    }
}

/// What the learning rate of the prompts is a multiple of: the first step of AdamW moves each element by so much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LrUnit {
    /// 1, whatever the model.
    #[default]
    One,
    /// The root of the mean square of the elements of the task's embeddings, as for new prompts (`pool.prompt_scale`). Models differ by
    /// orders of magnitude in it, so that a learning rate in this unit carries over from one to another. Ours, not the paper's.
    Embedding,
}

impl LrUnit {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The training of one task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingConfig {
    /// Passes over the samples, each in an order of its own.
    pub epochs: usize,
    /// Exactly so many steps instead, over as many passes as they take.
    pub steps: Option<usize>,
    /// Samples of a step; the last step of an epoch may have fewer.
    pub batch_size: usize,
    /// AdamW of the prompts. Weight decay pulls a prompt back to where the task began, inside the allowed space.
    pub prompts: AdamW,
    /// What the learning rate of the prompts is a multiple of.
    #[serde(skip_serializing_if = "LrUnit::is_default")]
    pub lr_unit: LrUnit,
    /// AdamW of the keys.
    pub keys: AdamW,
    /// λ: weight of the key term.
    pub key_weight: f64,
    /// The factor of both learning rates.
    pub schedule: Schedule,
    /// The Euclidean norm that the prompt gradient is clipped to, before it is projected; none: no clipping.
    pub max_grad_norm: Option<f64>,
}

impl Default for TrainingConfig {
    fn default() -> Self {
        Self {
            epochs: 8,
            steps: None,
            batch_size: 16,
            prompts: AdamW { lr: 1e-2, ..AdamW::default() },
            lr_unit: LrUnit::default(),
            keys: AdamW::default(),
            key_weight: 0.5,
            schedule: Schedule::default(),
            max_grad_norm: Some(1.0),
        }
    }
}

impl Config {
    /// Refuses values that cannot be.
    ///
    /// # Errors
    /// [`PromptError::Config`] that names the key, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        let (Allocation::Shared(n_prompts) | Allocation::Partitioned(n_prompts)) = self.pool.allocation;
        let (pool, training, subspace) = (&self.pool, &self.training, &self.subspace);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let share = |x: f64| x > 0.0 && x <= 1.0;
        let optimiser = |a: &AdamW| {
            let decays = [a.beta1, a.beta2].iter().all(|b| (0.0..1.0).contains(b));
            decays
                && positive(a.lr)
                && positive(f64::from(a.eps as f32))
                && a.weight_decay >= 0.0
                && a.weight_decay.is_finite()
        };
        let quantile = if let Rejection::BelowQuantile(q) = pool.rejection { q } else { 0.0 };
        let weight = if let Rule::FwdWeighted(alpha) = self.rule { alpha } else { 0.0 };
        for (holds, what) in [
            (pool.prompt_len > 0, format!("pool.prompt_len is {}, must be at least 1", pool.prompt_len)),
            (pool.top_k > 0, "pool.top_k is 0, must be at least 1".to_owned()),
            (
                n_prompts > 0 || !self.map.is_none(),
                "pool.allocation is of 0 prompts, which only a map (map.form) can do without".to_owned(),
            ),
            (
                pool.top_k <= n_prompts || n_prompts == 0 || pool.selection != TrainingSelection::OwnPrompts,
                format!("pool.top_k is {}, but a task can only select among {n_prompts} prompts", pool.top_k),
            ),
            (
                pool.prompt_scale >= 0.0 && pool.prompt_scale.is_finite(),
                format!("pool.prompt_scale is {}, must be a number of at least 0", pool.prompt_scale),
            ),
            (
                (0.0..=1.0).contains(&quantile),
                format!("pool.rejection is below-quantile {quantile}, must be in [0, 1]"),
            ),
            (
                (0.0..=1.0).contains(&pool.anchors.quantile),
                format!("pool.anchors.quantile is {}, must be in [0, 1]", pool.anchors.quantile),
            ),
            (
                share(subspace.pretrained_energy),
                format!("subspace.pretrained_energy is {}, must be in (0, 1]", subspace.pretrained_energy),
            ),
            (
                share(subspace.task_energy),
                format!("subspace.task_energy is {}, must be in (0, 1]", subspace.task_energy),
            ),
            (
                weight >= 0.0 && weight.is_finite(),
                format!("the weight of rule fwd-weighted is {weight}, must be a number of at least 0"),
            ),
            (training.batch_size > 0, "training.batch_size is 0, must be at least 1".to_owned()),
            (
                pool.selection != TrainingSelection::ModalPrompt || pool.allocation == Allocation::Partitioned(1),
                format!(
                    "pool.allocation is {:?}, but the selection modal-prompt has one prompt a task: Partitioned(1), as long as \
                     all of the task's tokens",
                    pool.allocation
                ),
            ),
            (
                pool.selection != TrainingSelection::ModalPrompt || pool.inference == Inference::Prompts,
                "pool.inference is task, but the selection modal-prompt gives a sample the prompts of several tasks"
                    .to_owned(),
            ),
            (
                training.key_weight >= 0.0 && training.key_weight.is_finite(),
                format!("training.key_weight is {}, must be a number of at least 0", training.key_weight),
            ),
            (
                training.max_grad_norm.is_none_or(positive),
                format!("training.max_grad_norm is {:?}, must be positive", training.max_grad_norm),
            ),
            (
                self.map.rank > 0,
                "map.rank is 0, must be at least 1".to_owned(),
            ),
            (
                self.map.form != MapForm::LowRank || !matches!(self.method, MethodConfig::Ewc(_)),
                "map.form is low-rank, where each task trains factors of its own; ewc needs parameters that all tasks train: full"
                    .to_owned(),
            ),
            (
                [&training.prompts, &training.keys, &self.map.optimiser].into_iter().all(optimiser),
                "training.prompts, training.keys and map.optimiser need lr and eps above 0, betas in [0, 1), weight_decay of at least 0"
                    .to_owned(),
            ),
        ] {
            if !holds {
                return Err(PromptError::Config(what));
            }
        }
        self.method.build().check(&self.plan()).map_err(PromptError::Config)
    }

    /// How the loop goes through the samples.
    pub fn plan(&self) -> Plan {
        let TrainingConfig { epochs, steps, batch_size, schedule, .. } = self.training;
        let (seed, save_every) = (self.seed, self.save_every);
        let mut plan = Plan::default();
        (plan.seed, plan.save_every, plan.epochs, plan.steps) = (seed, save_every, epochs, steps);
        (plan.batch_size, plan.schedule) = (batch_size, schedule);
        plan
    }
}
