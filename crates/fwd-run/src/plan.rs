//! What a method trains: its rule, its pool, its memory, as the configuration of the trainer.

use crate::config::RunConfig;
use crate::method::Method;
use fwd_adapters::{Penalty, Sharing};
use fwd_prompt::{Allocation, Config, PoolConfig, Rule, TrainingSelection};

/// What a method does, with the configuration of the trainer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Plan {
    /// The frozen model is scored, nothing is trained.
    ZeroShot,
    /// One task after another.
    Sequence(Config),
    /// A run of its own for each task.
    Alone(Config),
    /// One run on the union of all tasks.
    Joint(Config),
    /// Weights instead of prompts.
    Finetune,
    /// Low-rank adapters instead of prompts.
    Lora(Sharing),
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
        let projected = |rule| Plan::Lora(Sharing::Projected(rule, config.subspace));
        match self {
            Self::ZeroShot => Plan::ZeroShot,
            // What `reuse` and `reuse-map` do beside that, the configuration says: `RunConfig::of`.
            Self::Sequential | Self::Reuse => Plan::Sequence(trainer(Rule::None, pool.allocation)),
            Self::Residual | Self::ReuseMap => Plan::Sequence(trainer(Rule::Residual, pool.allocation)),
            Self::Fwd => Plan::Sequence(trainer(Rule::Fwd, pool.allocation)),
            Self::FwdStrict => Plan::Sequence(trainer(Rule::FwdStrict, pool.allocation)),
            Self::FwdWeighted => Plan::Sequence(trainer(Rule::FwdWeighted(config.alpha), pool.allocation)),
            Self::L2p => Plan::Sequence(trainer(Rule::None, shared)),
            Self::Shared(name) => {
                let method = config.options.of(name).unwrap_or_default();
                Plan::Sequence(Config { method, ..trainer(Rule::None, shared) })
            }
            Self::ModalPrompt => {
                // One prompt, as long as a task's share of the pool; a sample has its own task's and the two most similar ones.
                let (Allocation::Shared(n) | Allocation::Partitioned(n)) = own;
                let pool = PoolConfig {
                    allocation: Allocation::Partitioned(1),
                    prompt_len: pool.prompt_len * n,
                    top_k: n_tasks.min(3),
                    selection: TrainingSelection::ModalPrompt,
                    ..pool.clone()
                };
                Plan::Sequence(config.trainer(Rule::None, pool))
            }
            Self::Independent => Plan::Alone(trainer(Rule::None, own)),
            Self::Joint => Plan::Joint(trainer(Rule::None, shared)),
            Self::Finetune => Plan::Finetune,
            Self::Lora | Self::LoraBeside(_) => Plan::Lora(Sharing::One),
            Self::LoraPerTask => Plan::Lora(Sharing::OnePerTask),
            Self::OLora => Plan::Lora(Sharing::Summed(Penalty::Overlap)),
            Self::RegLora => Plan::Lora(Sharing::Summed(Penalty::KeyElements)),
            Self::KeepLora => Plan::Lora(Sharing::Keep(config.subspace)),
            Self::MoeLora => Plan::Lora(Sharing::Experts),
            Self::Hide => Plan::Lora(Sharing::Hierarchical),
            Self::LoraResidual => projected(Rule::Residual),
            Self::LoraFwd => projected(Rule::Fwd),
            Self::LoraFwdWeighted => projected(Rule::FwdWeighted(config.alpha)),
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
        let rule_and_pool = |method: Method, config: &RunConfig| pool_of(method.plan(config, 3));
        assert_eq!(rule_and_pool(Method::Sequential, &config), (Rule::None, Allocation::Partitioned(4)));
        assert_eq!(rule_and_pool(Method::Fwd, &config), (Rule::Fwd, Allocation::Partitioned(4)));
        assert_eq!(rule_and_pool(Method::L2p, &config), (Rule::None, Allocation::Shared(12)));
        assert_eq!(rule_and_pool(Method::Joint, &config), (Rule::None, Allocation::Shared(12)));
        assert_eq!(rule_and_pool(Method::Shared("ewc"), &config), (Rule::None, Allocation::Shared(12)));
        assert_eq!(
            rule_and_pool(Method::FwdWeighted, &config),
            (Rule::FwdWeighted(0.5), Allocation::Partitioned(4))
        );
        let Plan::Sequence(modal) = Method::ModalPrompt.plan(&config, 3) else { panic!() };
        assert_eq!(
            (modal.pool.allocation, modal.pool.prompt_len),
            (Allocation::Partitioned(1), 4 * config.pool.prompt_len)
        );
        config.pool.allocation = Allocation::Shared(4);
        assert_eq!(rule_and_pool(Method::L2p, &config), (Rule::None, Allocation::Shared(4)));
        assert_eq!(rule_and_pool(Method::Independent, &config), (Rule::None, Allocation::Partitioned(2)));
        assert_eq!(Method::ZeroShot.plan(&config, 3), Plan::ZeroShot);
    }
}
