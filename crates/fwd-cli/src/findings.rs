//! What `analyze`, `inspect` and the record of ranks in a run directory write: the layout of their JSON files.
//!
//! ```text
//! OUT/analysis.json        analyze --out OUT     Analyzed
//! RUN/ranks/after-T.json   train                 Stage
//! OUT/inspection.json      inspect --out OUT     Inspection
//! ```
//! Shares and overlaps lie in [0, 1], angles are in degrees, cosines in [−1, 1].

use crate::method::Method;
use fwd_prompt::analysis::{Analysis, Modality, Pair, Spectrum};
use serde::{Deserialize, Serialize};

/// The file of [`Analyzed`].
pub(crate) const ANALYSIS: &str = "analysis.json";
/// The file of [`Inspection`].
pub(crate) const INSPECTION: &str = "inspection.json";
/// The name under which pre-training stands among tasks.
pub(crate) const PRETRAINING: &str = "pre-training";

/// What `analyze` finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Analyzed {
    /// The model's folder.
    pub(crate) backbone: String,
    /// Of the model.
    pub(crate) backbone_hash: String,
    /// Of the benchmark.
    pub(crate) data_hash: String,
    /// d.
    pub(crate) dim: usize,
    /// The tasks, in order.
    pub(crate) tasks: Vec<TaskSamples>,
    /// Spectra of tasks and modalities, and how their subspaces lie to each other.
    pub(crate) embeddings: Analysis,
    /// Every second sample of a task against the others (`a` and `b` are the same task), by modality: how much two subspaces
    /// overlap that should be the same one.
    pub(crate) halves: Vec<Pair>,
    /// Where the tasks lie to what was pre-trained; none without pre-training tasks.
    pub(crate) pretrained: Option<Pretrained>,
    /// Ranks along the sequence of each run that was named.
    pub(crate) growth: Vec<Growth>,
}

/// A task that is analysed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskSamples {
    /// Its name.
    pub(crate) name: String,
    /// Training samples that went in.
    pub(crate) n_samples: usize,
}

/// The pre-trained subspace `V_0` and where tasks lie to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pretrained {
    /// Training samples of all pre-training tasks that went in.
    pub(crate) n_samples: usize,
    /// k_0: directions of all rows together, at the energy of the analysis.
    pub(crate) rank: usize,
    /// Of its rows, by modality.
    pub(crate) spectra: Vec<Spectrum>,
    /// For each task and modality.
    pub(crate) tasks: Vec<FromPretrained>,
}

/// The rows of a task against `V_0`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct FromPretrained {
    /// The task.
    pub(crate) task: String,
    /// Which of its rows.
    pub(crate) modality: Modality,
    /// Directions of the task's own subspace, whatever lies in V_0.
    pub(crate) rank: usize,
    /// `tr(V_0ᵀ C V_0) / tr C`: the share of the task's energy that lies in V_0.
    pub(crate) captured: f64,
    /// Directions that the task needs beside V_0 to reach the energy.
    pub(crate) beyond: usize,
    /// Of the task's subspace with V_0.
    pub(crate) overlap: f64,
    /// Principal angles of the same two, in degrees, smallest first.
    pub(crate) angles: Vec<f64>,
}

/// The ranks of one run's input embeddings along its sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Growth {
    /// The run directory.
    pub(crate) run: String,
    /// Its method.
    pub(crate) method: Method,
    /// Its seed.
    pub(crate) seed: u64,
    /// Its tasks, in order.
    pub(crate) tasks: Vec<String>,
    /// After 0, 1, … tasks.
    pub(crate) stages: Vec<Stage>,
}

/// The ranks of the input embeddings of all tasks' samples, as the model stands after so many tasks.
///
/// The samples are the same at every stage: some training samples of every task of the run, learnt or not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Stage {
    /// How many tasks are learnt.
    pub(crate) after: usize,
    /// The one that was learnt last.
    pub(crate) learnt: Option<String>,
    /// d.
    pub(crate) dim: usize,
    /// Samples of all tasks together.
    pub(crate) n_samples: usize,
    /// At which `ranks` are given.
    pub(crate) energies: [f64; 3],
    /// Of all tasks together, then of each task, by kind of rows.
    pub(crate) ranks: Vec<Rank>,
}

/// Ranks of some rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rank {
    /// The task; none: all together.
    pub(crate) task: Option<String>,
    /// Which rows.
    pub(crate) rows: Rows,
    /// N.
    pub(crate) n_rows: u64,
    /// The fewest directions with each of the energies.
    pub(crate) ranks: [usize; 3],
    /// `exp(H(λ/Σλ))`.
    pub(crate) effective_rank: f64,
}

/// Rows of the language model's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Rows {
    /// Visual tokens.
    Image,
    /// Instruction tokens.
    Text,
    /// Both.
    Both,
    /// Both, and the prompt tokens that each sample selects: all that the language model reads. Not under `finetune`.
    Prompted,
}

/// What `inspect` finds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Inspection {
    /// The run directory.
    pub(crate) run: String,
    /// Its method.
    pub(crate) method: Method,
    /// Its seed.
    pub(crate) seed: u64,
    /// The split whose samples select.
    pub(crate) split: String,
    /// The tasks, in the order in which they were learnt.
    pub(crate) tasks: Vec<String>,
    /// L_p: tokens of a prompt.
    pub(crate) prompt_len: usize,
    /// K: prompts of a sample.
    pub(crate) top_k: usize,
    /// Whether all tasks share the prompts, so that none has an owner.
    pub(crate) is_shared: bool,
    /// What each task's samples select; pre-training last, if the run knows of it.
    pub(crate) selection: Vec<TaskSelection>,
    /// Which task's prompts each task's samples select; none if the prompts are shared.
    pub(crate) confusion: Option<Confusion>,
    /// `Σ_j min(p_a[j], p_b[j])` for each pair of rows of `selection`, `p[j]` the share of prompt j in what a task selects: 1 for
    /// tasks that select alike, 0 for tasks with no prompt in common.
    pub(crate) similarity: Vec<Vec<f64>>,
    /// The prompts.
    pub(crate) prompts: Vec<PromptFindings>,
    /// What of the embedding space is taken.
    pub(crate) capacity: Capacity,
}

/// What the samples of one task select.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TaskSelection {
    /// The task, or `pre-training`.
    pub(crate) task: String,
    /// Samples.
    pub(crate) n_samples: usize,
    /// Samples that take no prompts, because they are too far from all of them. They are counted below as if they took some.
    pub(crate) rejected: usize,
    /// For each prompt, how many samples have it among their K.
    pub(crate) selected: Vec<usize>,
    /// For each prompt, how many samples have it as their best.
    pub(crate) best: Vec<usize>,
    /// The two terms of the score.
    pub(crate) keys: KeyShares,
}

/// What image key and text key have to do with a selection. All are means over the samples of a task, of its best prompt.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct KeyShares {
    /// cos(q_img, k_img).
    pub(crate) image: f64,
    /// cos(q_txt, k_txt).
    pub(crate) text: f64,
    /// By how much the image term of the best prompt lies above that of the pool's mean prompt.
    pub(crate) image_margin: f64,
    /// The same of the text term.
    pub(crate) text_margin: f64,
    /// `image_margin / (image_margin + text_margin)`: the image's part in the choice; beyond 0 or 1 if one key speaks against it;
    /// none if nothing decides.
    pub(crate) image_share: Option<f64>,
    /// The share of samples whose best prompt by the image key alone belongs to the same task (is the same, if prompts are shared).
    pub(crate) image_alone: f64,
    /// The same by the text key alone.
    pub(crate) text_alone: f64,
}

/// Samples of each task by the task whose prompt they like best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Confusion {
    /// True tasks: those of `selection`.
    pub(crate) rows: Vec<String>,
    /// Tasks that own prompts.
    pub(crate) columns: Vec<String>,
    /// Samples by the owner of their best prompt: a row sums to the task's samples.
    pub(crate) best: Vec<Vec<usize>>,
    /// Selected prompts by their owner: a row sums to K times the task's samples.
    pub(crate) selected: Vec<Vec<usize>>,
}

/// One prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct PromptFindings {
    /// Its place in the pool.
    pub(crate) index: usize,
    /// The task that opened it; under a shared pool others train it as well.
    pub(crate) task: String,
    /// Its tokens.
    pub(crate) tokens: Vec<TokenFindings>,
    /// `‖P‖_F` before any training.
    pub(crate) initial_norm: f64,
    /// `‖P_after − P_before‖_F`.
    pub(crate) moved: f64,
    /// The share of `‖P_after − P_before‖²` in each subspace, in the order of [`Capacity::subspaces`]. What lies in none is 1 less
    /// their sum. A random direction would have the share `rank / dim`.
    pub(crate) inside: Vec<f64>,
    /// 1 − Σ `inside`; 0 if the prompt did not move.
    pub(crate) outside: f64,
}

/// One prompt token beside the vocabulary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct TokenFindings {
    /// Its length.
    pub(crate) norm: f64,
    /// The nearest tokens of the vocabulary, nearest first.
    pub(crate) nearest: Vec<Neighbour>,
    /// The cosine of the nearest one before any training: what chance brings.
    pub(crate) initial_cosine: f64,
}

/// A token of the vocabulary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Neighbour {
    /// Its id.
    pub(crate) id: u32,
    /// As the tokenizer writes it.
    pub(crate) token: String,
    /// Of the two embeddings.
    pub(crate) cosine: f64,
}

/// How much of the embedding space belongs to tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Capacity {
    /// d.
    pub(crate) dim: usize,
    /// Directions that belong to pre-training or a task.
    pub(crate) used: usize,
    /// Directions that are free.
    pub(crate) left: usize,
    /// V_0, V_1, …: pre-training first.
    pub(crate) subspaces: Vec<SubspaceFindings>,
}

/// One subspace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct SubspaceFindings {
    /// The task, or `pre-training`.
    pub(crate) task: String,
    /// k_t.
    pub(crate) rank: usize,
    /// Rows of embeddings it was made of.
    pub(crate) n_rows: u64,
    /// The share of the task's energy that older subspaces hold.
    pub(crate) captured_before: f64,
    /// The share that they hold together with this one.
    pub(crate) captured: f64,
}
