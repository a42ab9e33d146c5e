//! What an analysis finds: the layout of `analysis.json`. Shares and overlaps lie in [0, 1], angles are in degrees.

use crate::method::Method;
use crate::model::Template;
use crate::run::RankStage;
use fwd_models::WeightDtype;
use fwd_ops::Compute;
use fwd_prompt::analysis::{Analysis, Modality, Pair, Spectrum};
use serde::{Deserialize, Serialize};

/// The name of the file of [`EmbeddingAnalysis`], in whatever folder it is written to.
pub const ANALYSIS: &str = "analysis.json";

/// The input embeddings of some tasks under a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EmbeddingAnalysis {
    /// The model's folder.
    pub backbone: String,
    /// Of the model's files.
    pub backbone_hash: String,
    /// How its matrices were kept in memory.
    #[serde(default)]
    pub dtype: WeightDtype,
    /// How its frozen products were computed.
    #[serde(default)]
    pub compute: Compute,
    /// How the prompts were written.
    #[serde(default)]
    pub template: Template,
    /// Of the benchmark that the tasks are of.
    pub data_hash: String,
    /// d: the width of an embedding.
    pub dim: usize,
    /// The tasks that were analysed, in order.
    pub tasks: Vec<TaskSamples>,
    /// Spectra of tasks and modalities, and how their subspaces lie to each other.
    pub embeddings: Analysis,
    /// Every second sample of a task against the others (`a` and `b` are the same task), by modality: how much two subspaces
    /// overlap that should be the same one.
    pub halves: Vec<Pair>,
    /// Where the tasks lie to what was pre-trained; none without pre-training tasks.
    pub pretrained: Option<Pretrained>,
    /// Ranks along the sequence of each run that was named.
    pub growth: Vec<Growth>,
}

/// A task that is analysed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskSamples {
    /// Its name in the benchmark.
    pub name: String,
    /// Training samples that went in.
    pub n_samples: usize,
}

/// The pre-trained subspace `V_0` and where tasks lie to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pretrained {
    /// Training samples of all pre-training tasks that went in.
    pub n_samples: usize,
    /// k_0: directions of all rows together, at the energy of the analysis.
    pub rank: usize,
    /// Of its rows, by modality.
    pub spectra: Vec<Spectrum>,
    /// For each task and modality.
    pub tasks: Vec<FromPretrained>,
}

/// The rows of a task against `V_0`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FromPretrained {
    /// Whose rows.
    pub task: String,
    /// Which of its rows.
    pub modality: Modality,
    /// Directions of the task's own subspace, whatever lies in V_0.
    pub rank: usize,
    /// `tr(V_0ᵀ C V_0) / tr C`: the share of the task's energy that lies in V_0.
    pub captured: f64,
    /// Directions that the task needs beside V_0 to reach the energy.
    pub beyond: usize,
    /// Of the task's subspace with V_0.
    pub overlap: f64,
    /// Principal angles of the same two, in degrees, smallest first.
    pub angles: Vec<f64>,
}

/// The ranks of one run's input embeddings along its sequence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// The run directory, as it was named.
    pub run: String,
    /// How its tasks were learnt.
    pub method: Method,
    /// The seed of its random streams.
    pub seed: u64,
    /// Its tasks, in the order in which they were learnt.
    pub tasks: Vec<String>,
    /// One for each moment: after 0, 1, … tasks.
    pub stages: Vec<RankStage>,
}
