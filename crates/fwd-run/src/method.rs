//! The methods, and what each one trains.
//!
//! | method | prompts | rule | trained on |
//! |---|---|---|---|
//! | `zero-shot` | none | | nothing |
//! | `sequential` | as configured | none | task after task |
//! | `residual`, `fwd`, `fwd-strict` | as configured | of this name | task after task |
//! | `fwd-weighted` | as configured | `fwd`, the pre-trained part times `alpha` | task after task |
//! | `l2p` | one pool shared by all tasks (Wang et al. 2022) | none | task after task |
//! | `replay` | one pool shared by all tasks | none | task after task, with samples of older ones from a buffer |
//! | `ewc` | one pool shared by all tasks | none | task after task, held back where older ones are sensitive |
//! | `modal-prompt` | one for each task, selected by image and text (Zeng et al. 2024) | none | task after task |
//! | `independent` | new ones for each task | none | each task alone: gives b_j of FWT* |
//! | `joint` | as many as all tasks have together | none | all tasks at once: the upper bound |
//! | `finetune` | none: Q-Former and projection are trained | none | task after task |

use crate::choice::Choice;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a sequence of tasks is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// The frozen model as it is.
    ZeroShot,
    /// Plain prompt tuning, one task after another.
    Sequential,
    /// Updates orthogonal to all older subspaces, the pre-trained one included.
    Residual,
    /// Updates orthogonal to older tasks' subspaces, free in the pre-trained one (Fwd-Prompt).
    #[default]
    Fwd,
    /// Updates in the pre-trained and the task's own subspace only.
    FwdStrict,
    /// As fwd, the pre-trained part of an update scaled by alpha.
    FwdWeighted,
    /// One pool shared by all tasks, no projection.
    L2p,
    /// A shared pool, and samples of older tasks from a buffer among the new ones.
    Replay,
    /// A shared pool, and a penalty on changing what older tasks are sensitive to.
    Ewc,
    /// One prompt for each task, selected by similarity of image and text.
    ModalPrompt,
    /// Each task alone, from an empty pool.
    Independent,
    /// All tasks at once.
    Joint,
    /// Q-Former and projection trained in sequence, no prompts.
    Finetune,
}

impl Choice for Method {
    const ALL: &'static [(Self, &'static str, &'static str)] = &[
        (Self::ZeroShot, "zero-shot", "The frozen model as it is"),
        (Self::Sequential, "sequential", "Plain prompt tuning, one task after another"),
        (
            Self::Residual,
            "residual",
            "Updates orthogonal to all older subspaces, the pre-trained one included",
        ),
        (
            Self::Fwd,
            "fwd",
            "Updates orthogonal to older tasks' subspaces, free in the pre-trained one (Fwd-Prompt)",
        ),
        (Self::FwdStrict, "fwd-strict", "Updates in the pre-trained and the task's own subspace only"),
        (Self::FwdWeighted, "fwd-weighted", "As fwd, the pre-trained part of an update scaled by alpha"),
        (Self::L2p, "l2p", "One pool shared by all tasks, no projection"),
        (
            Self::Replay,
            "replay",
            "A shared pool, and samples of older tasks from a buffer among the new ones",
        ),
        (Self::Ewc, "ewc", "A shared pool, and a penalty on changing what older tasks are sensitive to"),
        (
            Self::ModalPrompt,
            "modal-prompt",
            "One prompt for each task, selected by similarity of image and text",
        ),
        (Self::Independent, "independent", "Each task alone, from an empty pool"),
        (Self::Joint, "joint", "All tasks at once"),
        (Self::Finetune, "finetune", "Q-Former and projection trained in sequence, no prompts"),
    ];
}

impl Method {
    /// Whether the samples of pre-training are needed: their subspace, and what is left of those tasks.
    pub fn needs_pretraining(self) -> bool {
        !matches!(self, Self::ZeroShot | Self::Independent | Self::Joint | Self::Finetune)
    }

    /// Whether prompts are trained. The method `finetune` trains weights of the model instead.
    pub fn trains(self) -> bool {
        !matches!(self, Self::ZeroShot | Self::Finetune)
    }
}

/// The name on the command line and in files.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
