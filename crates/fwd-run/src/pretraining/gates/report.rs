//! What the gates measure, and when they are met.

use fwd_eval::Metric;
use serde::Serialize;

/// All gates of a backbone.
#[derive(Debug, Serialize)]
pub struct Report {
    /// SHA-256 of the model's files.
    pub backbone: String,
    /// SHA-256 of the benchmark.
    pub benchmark: String,
    /// What gate 1 looks at: are the input embeddings alive?
    pub embeddings: Embeddings,
    /// Gate 2, by pre-training task.
    pub pretraining: Vec<Pretrained>,
    /// Gate 3, by task that is not of pre-training.
    pub downstream: Vec<Downstream>,
    /// A sentence for each gate that is not met.
    pub failures: Vec<String>,
}

/// Gate 1: are the input embeddings alive?
#[derive(Debug, Serialize)]
pub struct Embeddings {
    /// Variance of the visual tokens of a sample around their mean, as a share of all their variance.
    pub between_queries: f64,
    /// Mean length of a visual token.
    pub visual_norm: f64,
    /// Mean length of a text token.
    pub text_norm: f64,
    /// Directions that carry 95 % of the energy of all embeddings.
    pub rank: usize,
    /// How many directions there are.
    pub d_model: usize,
}

/// Gate 2, one task: can the model do what it was pre-trained on? All scores are in percent of the task's metric.
#[derive(Debug, Serialize)]
pub struct Pretrained {
    /// Its name in the benchmark.
    pub task: String,
    /// By which its answers are scored.
    pub metric: Metric,
    /// How many validation samples were answered.
    pub samples: usize,
    /// Of the model.
    pub score: f64,
    /// Of the answer that is most frequent in training, to whatever instruction.
    pub global_majority: f64,
    /// Of the answer that is most frequent in training to the same instruction.
    pub instruction_majority: f64,
    /// Ridge regression on the pooled features of the vision network, for tasks with a closed set of answers; for captions the
    /// answer of the nearest training image.
    pub probe: f64,
}

/// Gate 3, one task: is it new to the model, and in its reach? All scores are in percent of the task's metric.
#[derive(Debug, Serialize)]
pub struct Downstream {
    /// Its name in the benchmark.
    pub task: String,
    /// By which its answers are scored.
    pub metric: Metric,
    /// How many validation samples were answered.
    pub samples: usize,
    /// Of the answer that is most frequent in training to the same instruction.
    pub instruction_majority: f64,
    /// Of the model as it is.
    pub zero_shot: f64,
    /// With prompts that were tuned on the task alone.
    pub prompt_tuned: f64,
    /// After all weights but the vision tower's were tuned on the task; none if the language model is in blocks of few bits, which are not
    /// trained.
    pub fine_tuned: Option<f64>,
    /// Whether it is part of the default sequence.
    pub in_sequence: bool,
}

/// The gates that are not met, in words.
pub(super) fn failures(
    embeddings: &Embeddings,
    pretraining: &[Pretrained],
    downstream: &[Downstream],
) -> Vec<String> {
    let mut unmet = Vec::new();
    let mut need = |holds: bool, what: String| {
        if !holds {
            unmet.push(what);
        }
    };
    let e = embeddings;
    need(
        e.between_queries > 0.2,
        format!("between-query variance share {:.2}, above 0.2 needed", e.between_queries),
    );
    let ratio = e.visual_norm / e.text_norm;
    need(
        (0.5..=2.0).contains(&ratio),
        format!("visual tokens are {ratio:.2} times as long as text tokens, 0.5 to 2 needed"),
    );
    need(5 * e.rank >= e.d_model, format!("rank {} of {}, a fifth needed", e.rank, e.d_model));
    for p in pretraining {
        let margin = p.score - p.instruction_majority;
        need(margin >= 10.0, format!("{}: {margin:.1} points above the majority, 10 needed", p.task));
        let bound = match p.task.as_str() {
            "attributes" => Some(90.0),
            "counting" => Some(80.0),
            "yes-no" => Some(95.0),
            "group" | "color" => Some(p.probe - 10.0),
            _ if p.metric.is_of_captions() => Some(p.probe - 10.0),
            _ => None,
        };
        if let Some(bound) = bound {
            need(p.score > bound, format!("{}: {:.1}, more than {bound:.1} needed", p.task, p.score));
        }
    }
    for t in downstream.iter().filter(|t| t.in_sequence) {
        need(t.is_in_reach(), format!("{}: not in reach, see the table", t.task));
    }
    unmet
}

impl Downstream {
    /// Fine-tuning beats the majority by 15 points, zero-shot is below that, and prompts learn a part: a quarter of the way from
    /// zero-shot to fine-tuning, or 15 points. Without fine-tuning: prompts learn 15 points, and beat the majority.
    pub fn is_in_reach(&self) -> bool {
        let bar = self.instruction_majority + 15.0;
        let gain = self.prompt_tuned - self.zero_shot;
        let Some(fine_tuned) = self.fine_tuned else {
            return gain >= 15.0 && self.prompt_tuned > self.instruction_majority;
        };
        let closed = gain / (fine_tuned - self.zero_shot).max(1.0);
        fine_tuned >= bar && self.zero_shot < bar && (closed >= 0.25 || gain >= 15.0)
    }
}

impl Report {
    /// Whether all gates are met.
    pub fn is_met(&self) -> bool {
        self.failures.is_empty()
    }
}
