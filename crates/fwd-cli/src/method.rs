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

use crate::config::RunConfig;
use clap::ValueEnum;
use fwd_prompt::{Allocation, Config, MethodConfig, PoolConfig, Rule};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a sequence of tasks is learnt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
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

/// What a method does, with the configuration of the trainer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    /// Scores, no training.
    ZeroShot,
    /// One task after another.
    Sequence(Config),
    /// A run of its own for each task.
    Alone(Config),
    /// One run on the union of all tasks.
    Joint(Config),
    /// Weights instead of prompts.
    Finetune,
}

impl Method {
    /// What this method does with `n_tasks` tasks.
    pub(crate) fn plan(self, config: &RunConfig, n_tasks: usize) -> Plan {
        let n_tasks = n_tasks.max(1);
        let pool = &config.pool;
        let shared = match pool.allocation {
            Allocation::Shared(n) => Allocation::Shared(n),
            Allocation::Partitioned(n) => Allocation::Shared(n * n_tasks),
        };
        // A shared pool that one task has to itself is as large as its share of it would be, and can fill a selection.
        let own = match pool.allocation {
            Allocation::Shared(n) => Allocation::Partitioned(n.div_ceil(n_tasks).max(pool.top_k)),
            Allocation::Partitioned(n) => Allocation::Partitioned(n),
        };
        let trainer = |rule, allocation| config.trainer(rule, PoolConfig { allocation, ..pool.clone() });
        let with = |method, allocation| Config { method, ..trainer(Rule::None, allocation) };
        match self {
            Self::ZeroShot => Plan::ZeroShot,
            Self::Sequential => Plan::Sequence(trainer(Rule::None, pool.allocation)),
            Self::Residual => Plan::Sequence(trainer(Rule::Residual, pool.allocation)),
            Self::Fwd => Plan::Sequence(trainer(Rule::Fwd, pool.allocation)),
            Self::FwdStrict => Plan::Sequence(trainer(Rule::FwdStrict, pool.allocation)),
            Self::FwdWeighted => Plan::Sequence(trainer(Rule::FwdWeighted(config.alpha), pool.allocation)),
            Self::L2p => Plan::Sequence(trainer(Rule::None, shared)),
            Self::Replay => Plan::Sequence(with(MethodConfig::Replay(config.replay), shared)),
            Self::Ewc => Plan::Sequence(with(MethodConfig::Ewc(config.ewc), shared)),
            Self::ModalPrompt => {
                // One prompt, as long as a task's share of the pool; a sample has its own task's and the two most similar ones.
                let (Allocation::Shared(n) | Allocation::Partitioned(n)) = own;
                let pool = PoolConfig {
                    allocation: Allocation::Partitioned(1),
                    prompt_len: pool.prompt_len * n,
                    top_k: n_tasks.min(3),
                    ..pool.clone()
                };
                Plan::Sequence(Config {
                    method: MethodConfig::ModalPrompt,
                    ..config.trainer(Rule::None, pool)
                })
            }
            Self::Independent => Plan::Alone(trainer(Rule::None, own)),
            Self::Joint => Plan::Joint(trainer(Rule::None, shared)),
            Self::Finetune => Plan::Finetune,
        }
    }

    /// Whether the samples of pre-training are needed: their subspace, and what is left of those tasks.
    pub(crate) fn needs_pretraining(self) -> bool {
        !matches!(self, Self::ZeroShot | Self::Independent | Self::Joint | Self::Finetune)
    }

    /// Whether prompts are trained.
    pub(crate) fn trains(self) -> bool {
        !matches!(self, Self::ZeroShot | Self::Finetune)
    }
}

/// The name on the command line and in files.
impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => Err(fmt::Error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool_of(plan: Plan) -> (Rule, Allocation) {
        let (Plan::Sequence(c) | Plan::Alone(c) | Plan::Joint(c)) = plan else { panic!("{plan:?}") };
        (c.rule, c.pool.allocation)
    }

    #[test]
    fn each_method_has_its_rule_and_its_pool() {
        let mut config = RunConfig::default();
        config.pool.allocation = Allocation::Partitioned(4);
        config.pool.top_k = 2;
        let found = |method: Method, config: &RunConfig| pool_of(method.plan(config, 3));
        assert_eq!(found(Method::Sequential, &config), (Rule::None, Allocation::Partitioned(4)));
        assert_eq!(found(Method::Fwd, &config), (Rule::Fwd, Allocation::Partitioned(4)));
        assert_eq!(found(Method::L2p, &config), (Rule::None, Allocation::Shared(12)));
        assert_eq!(found(Method::Joint, &config), (Rule::None, Allocation::Shared(12)));
        assert_eq!(found(Method::Ewc, &config), (Rule::None, Allocation::Shared(12)));
        assert_eq!(found(Method::FwdWeighted, &config), (Rule::FwdWeighted(0.5), Allocation::Partitioned(4)));
        let Plan::Sequence(modal) = Method::ModalPrompt.plan(&config, 3) else { panic!() };
        assert_eq!(
            (modal.pool.allocation, modal.pool.prompt_len),
            (Allocation::Partitioned(1), 4 * config.pool.prompt_len)
        );
        config.pool.allocation = Allocation::Shared(4);
        assert_eq!(found(Method::L2p, &config), (Rule::None, Allocation::Shared(4)));
        assert_eq!(found(Method::Independent, &config), (Rule::None, Allocation::Partitioned(2)));
        assert_eq!(Method::ZeroShot.plan(&config, 3), Plan::ZeroShot);
    }

    #[test]
    fn a_method_is_called_the_same_on_the_command_line_and_in_files() {
        for method in Method::value_variants() {
            assert_eq!(serde_json::to_value(method).unwrap(), method.to_string());
        }
    }
}
