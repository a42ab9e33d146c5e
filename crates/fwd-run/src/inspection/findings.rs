//! What an inspection finds: the layout of `inspection.json`. Shares and overlaps lie in [0, 1], cosines in [−1, 1].

use crate::method::Method;
use serde::{Deserialize, Serialize};

/// The name of the file of [`Inspection`], in whatever folder it is written to, which may be the run directory.
pub const INSPECTION: &str = "inspection.json";

/// What the prompts of a run have learnt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The run directory, as it was named.
    pub run: String,
    /// How its tasks were learnt.
    pub method: Method,
    /// The seed of its random streams.
    pub seed: u64,
    /// The split whose samples select.
    pub split: String,
    /// The tasks, in the order in which they were learnt.
    pub tasks: Vec<String>,
    /// L_p: tokens of a prompt.
    pub prompt_len: usize,
    /// K: prompts of a sample.
    pub top_k: usize,
    /// Whether all tasks share the prompts, so that none has an owner.
    pub is_shared: bool,
    /// What each task's samples select; pre-training last, if the run knows of it.
    pub selection: Vec<TaskSelection>,
    /// Which task's prompts each task's samples select; none if the prompts are shared.
    pub confusion: Option<Confusion>,
    /// `Σ_j min(p_a[j], p_b[j])` for each pair of rows of `selection`, `p[j]` the share of prompt j in what a task selects: 1 for
    /// tasks that select alike, 0 for tasks with no prompt in common.
    pub similarity: Vec<Vec<f64>>,
    /// Every prompt of the pool, in its order.
    pub prompts: Vec<PromptFindings>,
    /// Tasks whose prompts a library of prompts was looked at for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub starts: Vec<StartFindings>,
    /// What of the embedding space is taken.
    pub capacity: Capacity,
}

/// What the new prompts of a task began with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StartFindings {
    /// The task that opened the prompts.
    pub task: String,
    /// The task of the library whose prompts they began with; none if normal numbers had a lower loss.
    pub from: Option<String>,
    /// For each task of the library, the mean loss with its prompts, or how near their keys were, as `pool.start` says.
    pub scores: Vec<(String, f64)>,
}

/// What the samples of one task select.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSelection {
    /// The task, or `pre-training`.
    pub task: String,
    /// How many samples of the task select.
    pub n_samples: usize,
    /// Samples that take no prompts of the pool, because they are too far from all of them, or nearer to an anchor of pre-training. They are counted below as if they took some.
    pub rejected: usize,
    /// For each prompt, how many samples have it among their K.
    pub selected: Vec<usize>,
    /// For each prompt, how many samples have it as their best.
    pub best: Vec<usize>,
    /// The two terms of the score.
    pub keys: KeyShares,
}

/// What image key and text key have to do with a selection. All are means over the samples of a task, of its best prompt.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct KeyShares {
    /// cos(q_img, k_img): the image query of a sample with the image key of its best prompt.
    pub image: f64,
    /// cos(q_txt, k_txt): the text query of a sample with the text key of its best prompt.
    pub text: f64,
    /// By how much the image term of the best prompt lies above that of the pool's mean prompt.
    pub image_margin: f64,
    /// The same of the text term.
    pub text_margin: f64,
    /// `image_margin / (image_margin + text_margin)`: the image's part in the choice; beyond 0 or 1 if one key speaks against it;
    /// none if nothing decides.
    pub image_share: Option<f64>,
    /// The share of samples whose best prompt by the image key alone belongs to the same task (is the same, if prompts are shared).
    pub image_alone: f64,
    /// The same by the text key alone.
    pub text_alone: f64,
}

/// Samples of each task by the task whose prompt they like best.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Confusion {
    /// True tasks: those of `selection`.
    pub rows: Vec<String>,
    /// Tasks that own prompts.
    pub columns: Vec<String>,
    /// Samples by the owner of their best prompt: a row sums to the task's samples.
    pub best: Vec<Vec<usize>>,
    /// Selected prompts by their owner: a row sums to K times the task's samples.
    pub selected: Vec<Vec<usize>>,
}

/// A prompt: what its tokens are near to, and where training moved it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PromptFindings {
    /// Its place in the pool.
    pub index: usize,
    /// The task that opened it; under a shared pool others train it as well.
    pub task: String,
    /// What each of its tokens is near to.
    pub tokens: Vec<TokenFindings>,
    /// `‖P‖_F` before any training.
    pub initial_norm: f64,
    /// `‖P_after − P_before‖_F`.
    pub moved: f64,
    /// The share of `‖P_after − P_before‖²` in each subspace, in the order of [`Capacity::subspaces`]. What lies in none is 1 less
    /// their sum. A random direction would have the share `rank / dim`.
    pub inside: Vec<f64>,
    /// 1 − Σ `inside`; 0 if the prompt did not move.
    pub outside: f64,
}

/// One prompt token beside the vocabulary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenFindings {
    /// Its Euclidean length.
    pub norm: f64,
    /// The nearest tokens of the vocabulary, nearest first.
    pub nearest: Vec<Neighbour>,
    /// The cosine of the nearest one before any training: what chance brings.
    pub initial_cosine: f64,
}

/// A token of the vocabulary.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Neighbour {
    /// Its number in the vocabulary.
    pub id: u32,
    /// As the tokenizer writes it.
    pub token: String,
    /// Of its embedding with the prompt token.
    pub cosine: f64,
}

/// How much of the embedding space belongs to tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// d: the width of an embedding.
    pub dim: usize,
    /// Directions that belong to pre-training or a task.
    pub used: usize,
    /// Directions that are free.
    pub left: usize,
    /// V_0, V_1, …: pre-training first.
    pub subspaces: Vec<SubspaceFindings>,
}

/// The directions that belong to one task, and what they hold of its energy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SubspaceFindings {
    /// The task, or `pre-training`.
    pub task: String,
    /// k_t: how many directions it has.
    pub rank: usize,
    /// Rows of embeddings it was made of.
    pub n_rows: u64,
    /// The share of the task's energy that older subspaces hold.
    pub captured_before: f64,
    /// The share that they hold together with this one.
    pub captured: f64,
}
