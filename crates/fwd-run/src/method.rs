//! The methods, and what each one trains.
//!
//! | method | prompts | rule | trained on |
//! |---|---|---|---|
//! | `zero-shot` | none | | nothing |
//! | `sequential` | as configured | none | task after task |
//! | `residual`, `fwd`, `fwd-strict` | as configured | of this name | task after task |
//! | `fwd-weighted` | as configured | `fwd`, the pre-trained part times `alpha` | task after task |
//! | `reuse` (ours) | as configured; they begin with those of a library, a sample takes those of one task, of the library if it is like no learnt task, and none if it is like pre-training | none | task after task |
//! | `reuse-map` (ours) | as `reuse`, and a map of the input | `residual` | task after task |
//! | `l2p` | one pool shared by all tasks (Wang et al. 2022) | none | task after task |
//! | every method of [`fwd_continual::MethodConfig`] (`replay`, `ewc`, `agem`, `gem`) | one pool shared by all tasks | none | task after task |
//! | `modal-prompt` | one for each task, selected by image and text (Zeng et al. 2024) | none | task after task |
//! | `independent` | new ones for each task | none | each task alone: gives b_j of FWT* |
//! | `joint` | as many as all tasks have together | none | all tasks at once: the upper bound |
//! | `finetune` | none: Q-Former and projection are trained | none | task after task |
//! | `lora` | none: a low-rank adapter of the language model is trained (Hu et al. 2021) | none | task after task |
//! | `lora-replay`, `lora-ewc`, `lora-agem`, `lora-gem` | as `lora`, beside the method of this name | none | task after task |
//! | `lora-per-task` | as `lora`, a new adapter for each task; a sample has that of the task with the nearest queries | none | task after task |
//! | `moe-lora` | as `lora`, an adapter of experts that gates of each token weigh (Chen et al. 2024) | none | task after task |
//! | `hide` | as `lora-per-task` in the last layer, the sum of all tasks' adapters below it (Guo et al. 2025) | none | task after task |
//! | `reg-lora` | as `o-lora`, with a penalty on the elements that older adapters changed most instead of its own (Chen et al. 2025) | none | task after task |
//! | `o-lora` | as `lora`, a new adapter for each task, added to the older ones, which stay (Wang et al. 2023) | none | task after task |
//! | `keep-lora` | as `o-lora`, `A` of the task's gradient and kept, outside of what weights and older tasks keep (Luo et al. 2026) | `residual`, on the rows of `A` | task after task |
//! | `lora-residual`, `lora-fwd`, `lora-fwd-weighted` (ours) | as `o-lora`, without its penalty | of this name, on the rows of `A` in the space of each map's input | task after task |

use crate::choice::Choice;
use crate::model::library_beside;
use fwd_continual::MethodConfig;
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use std::path::Path;
use std::sync::OnceLock;

/// How a sequence of tasks is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
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
    /// Prompts that begin with those of pre-training tasks and are selected task by task (ours).
    Reuse,
    /// As [`Self::Reuse`], and a map of the input whose updates are orthogonal to all older subspaces (ours).
    ReuseMap,
    /// One pool shared by all tasks, no projection.
    L2p,
    /// A shared pool under the method of [`fwd_continual::MethodConfig`] that has this name.
    Shared(&'static str),
    /// One prompt for each task, selected by similarity of image and text.
    ModalPrompt,
    /// Each task alone, from an empty pool.
    Independent,
    /// All tasks at once.
    Joint,
    /// The bridge between image and language model trained in sequence, no prompts.
    Finetune,
    /// A low-rank adapter of the language model, trained in sequence.
    Lora,
    /// The same, with the method of [`fwd_continual::MethodConfig`] of this name against forgetting.
    LoraBeside(&'static str),
    /// A low-rank adapter for each task; a sample has that of the nearest one.
    LoraPerTask,
    /// A low-rank adapter for each task, added up, their row spaces kept apart.
    OLora,
    /// A low-rank adapter of experts, trained in sequence.
    MoeLora,
    /// A low-rank adapter for each task: the nearest one's in the last layer, the sum of all below it.
    Hide,
    /// A low-rank adapter for each task, added up, away from the elements that older ones changed most.
    RegLora,
    /// A low-rank adapter for each task, added up, its `A` from the gradient, away from the weights' principal directions.
    KeepLora,
    /// A low-rank adapter for each task, added up, away from all that older tasks and pre-training read (ours).
    LoraResidual,
    /// A low-rank adapter for each task, added up, away from what older tasks read and free in what pre-training reads (ours).
    LoraFwd,
    /// As [`Self::LoraFwd`], the pre-trained part scaled by alpha (ours).
    LoraFwdWeighted,
}

/// Sequential adapters beside each method of [`fwd_continual::MethodConfig`]: their name, `lora-` and the method's, and the method.
fn beside_lora() -> &'static [(&'static str, MethodConfig)] {
    static ALL: OnceLock<Vec<(&'static str, MethodConfig)>> = OnceLock::new();
    // Made once, and as many as there are methods.
    let named = |method: MethodConfig| (&*format!("lora-{}", method.name()).leak(), method);
    ALL.get_or_init(|| MethodConfig::all().into_iter().map(named).collect())
}

impl Choice for Method {
    fn all() -> Vec<(Self, &'static str, String)> {
        let row = |method, name, about: &str| (method, name, about.to_owned());
        let mut all = vec![
            row(Self::ZeroShot, "zero-shot", "The frozen model as it is"),
            row(Self::Sequential, "sequential", "Plain prompt tuning, one task after another"),
            row(
                Self::Residual,
                "residual",
                "Updates orthogonal to all older subspaces, the pre-trained one included",
            ),
            row(
                Self::Fwd,
                "fwd",
                "Updates orthogonal to older tasks' subspaces, free in the pre-trained one (Fwd-Prompt)",
            ),
            row(Self::FwdStrict, "fwd-strict", "Updates in the pre-trained and the task's own subspace only"),
            row(
                Self::FwdWeighted,
                "fwd-weighted",
                "As fwd, the pre-trained part of an update scaled by alpha",
            ),
            row(
                Self::Reuse,
                "reuse",
                "Prompts that begin with those of pre-training tasks and are selected task by task (ours)",
            ),
            row(
                Self::ReuseMap,
                "reuse-map",
                "As reuse, and a map of the input whose updates are orthogonal to all older subspaces (ours)",
            ),
            row(Self::L2p, "l2p", "One pool shared by all tasks, no projection"),
        ];
        all.extend(MethodConfig::all().iter().map(|method| {
            let about = format!("A shared pool, and {}", method.build().about());
            (Self::Shared(method.name()), method.name(), about)
        }));
        all.extend([
            row(
                Self::ModalPrompt,
                "modal-prompt",
                "One prompt for each task, selected by similarity of image and text",
            ),
            row(Self::Independent, "independent", "Each task alone, from an empty pool"),
            row(Self::Joint, "joint", "All tasks at once"),
            row(Self::Finetune, "finetune", "Q-Former and projection trained in sequence, no prompts"),
            row(Self::Lora, "lora", "A low-rank adapter of the language model, trained in sequence"),
        ]);
        all.extend(beside_lora().iter().map(|(name, method)| {
            (Self::LoraBeside(method.name()), *name, format!("As lora, and {}", method.build().about()))
        }));
        all.extend([
            row(
                Self::LoraPerTask,
                "lora-per-task",
                "A low-rank adapter for each task; a sample has that of the nearest one",
            ),
            row(
                Self::MoeLora,
                "moe-lora",
                "A low-rank adapter of experts, weighed by gates of each token, trained in sequence (MoELoRA)",
            ),
            row(
                Self::Hide,
                "hide",
                "A low-rank adapter for each task: the nearest task's in the last layer, the sum of all below it (HiDe-LLaVA)",
            ),
            row(
                Self::OLora,
                "o-lora",
                "A low-rank adapter for each task, added up, their row spaces kept apart (O-LoRA)",
            ),
            row(
                Self::RegLora,
                "reg-lora",
                "A low-rank adapter for each task, added up, away from the elements that older ones changed most (RegLoRA)",
            ),
            row(
                Self::KeepLora,
                "keep-lora",
                "A low-rank adapter for each task, added up, its A from the task's gradient, away from what the weights and older tasks keep (KeepLoRA)",
            ),
            row(
                Self::LoraResidual,
                "lora-residual",
                "A low-rank adapter for each task, added up, away from all that older tasks and pre-training read (ours)",
            ),
            row(
                Self::LoraFwd,
                "lora-fwd",
                "A low-rank adapter for each task, added up, away from what older tasks read and free in what pre-training reads (ours)",
            ),
            row(Self::LoraFwdWeighted, "lora-fwd-weighted", "As lora-fwd, the pre-trained part scaled by alpha (ours)"),
        ]);
        all
    }
}

/// By its name.
impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::named(&name).ok_or_else(|| {
            // In serde's own words, in which suggestions are looked for.
            let known: Vec<String> = Self::all().iter().map(|(_, name, _)| format!("`{name}`")).collect();
            D::Error::custom(format!("unknown variant `{name}`, expected one of {}", known.join(", ")))
        })
    }
}

impl Method {
    /// Whether the samples of pre-training are needed: their subspace, and what is left of those tasks.
    pub fn needs_pretraining(self) -> bool {
        !matches!(self, Self::ZeroShot | Self::Independent | Self::Joint | Self::Finetune)
    }

    /// Whether tasks are learnt one after another, so that row t of the scores is after task t.
    pub fn is_sequence(self) -> bool {
        !matches!(self, Self::ZeroShot | Self::Independent | Self::Joint)
    }

    /// Whether prompts begin with those of a library, and other samples than those of the learnt tasks may take some of it.
    pub fn reuses(self) -> bool {
        matches!(self, Self::Reuse | Self::ReuseMap)
    }

    /// What is learnt with where nobody says how: `reuse` with a model that comes with a library of prompts, as the embedded one (no folder),
    /// and `fwd` otherwise.
    pub fn suited_to(backbone: Option<&Path>) -> Self {
        let has_library = backbone.is_none_or(|dir| library_beside(dir).is_file());
        if has_library { Self::Reuse } else { Self::Fwd }
    }

    /// Whether anything is trained on frozen features, which are then computed of the training samples: prompts or adapters. The method
    /// `finetune` trains the bridge, which makes these features.
    pub fn trains(self) -> bool {
        !matches!(self, Self::ZeroShot | Self::Finetune)
    }

    /// Whether low-rank adapters are trained.
    pub fn has_adapters(self) -> bool {
        matches!(
            self,
            Self::Lora
                | Self::LoraBeside(_)
                | Self::LoraPerTask
                | Self::MoeLora
                | Self::Hide
                | Self::OLora
                | Self::RegLora
                | Self::KeepLora
                | Self::LoraResidual
                | Self::LoraFwd
                | Self::LoraFwdWeighted
        )
    }

    /// Whether prompts are trained.
    pub fn has_prompts(self) -> bool {
        self.trains() && !self.has_adapters()
    }

    /// The name of the method of [`fwd_continual::MethodConfig`] that acts against forgetting, if one does.
    pub fn beside(self) -> Option<&'static str> {
        match self {
            Self::Shared(name) | Self::LoraBeside(name) => Some(name),
            _ => None,
        }
    }
}

/// The name on the command line and in files.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
