//! What the adapters of several tasks have to do with each other: the methods of this crate.

use crate::config::LoraConfig;
use crate::error::{AdapterError, Result};
use crate::lora::Lora;
use crate::module::Module;
use fwd_prompt::{Rule, SubspaceOptions};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What the adapters of several tasks have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// One adapter, which every task trains on.
    One,
    /// One adapter of several experts ([`LoraConfig::experts`](crate::LoraConfig::experts)), whose gates are a softmax of each token as each map
    /// reads it; every task trains it on (MoELoRA of Chen et al. 2024, "CoIN", NeurIPS, arXiv 2403.08350, as in its public code).
    Experts,
    /// An adapter for each task, which begins anew. A sample is answered with that of the task whose mean queries are nearest to its own.
    OnePerTask,
    /// As [`Self::OnePerTask`] while a task is learnt. A sample is answered with the nearest task's adapter in the last layer, and with the sum of all
    /// tasks' in those before it (HiDe-LLaVA, Guo et al. 2025, ACL, arXiv 2503.12941). There the last layer mixes the tasks' adapters by a softmax
    /// of their similarities; here, as in public code that followed, the nearest one has it all.
    Hierarchical,
    /// An adapter for each task, which begins anew; those of older tasks stay, frozen, and all are added up. A penalty keeps the new one away
    /// from them.
    Summed(Penalty),
    /// An adapter for each task, which begins anew; those of older tasks stay, frozen, and all are added up. Rows of `A` obey a rule of
    /// Fwd-Prompt in the space of what each map reads: under `fwd` they are orthogonal to what older tasks have read, but for what
    /// pre-training reads, under `residual` to that too. The options say how many directions the subspaces have.
    Projected(Rule, SubspaceOptions),
    /// An adapter for each task; those of older tasks stay, frozen, and all are added up. `A` begins with the directions that a task's gradient
    /// wants changed most, outside of the principal directions of the weight's rows and of what older tasks have read, and stays; `B` alone is
    /// trained (KeepLoRA, Luo et al. 2026, ICLR, arXiv 2601.19659). The options say how many directions are kept; the authors' code takes an
    /// energy of 0.99 for both.
    Keep(SubspaceOptions),
}

/// What a new adapter is kept away from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Penalty {
    /// The row spaces of older adapters' `A` (O-LoRA, [`add_overlap`](crate::add_overlap)).
    Overlap,
    /// The elements of the weight that older adapters changed most (RegLoRA, [`KeyElements`](crate::KeyElements)).
    KeyElements,
}

impl Sharing {
    /// Refuses a configuration that cannot be under this way of sharing.
    ///
    /// # Errors
    /// [`AdapterError::Config`] for a rank that cannot be divided among the experts.
    pub fn check(self, config: &LoraConfig) -> Result<()> {
        let LoraConfig { rank, experts, .. } = config;
        if self == Self::Experts && !rank.is_multiple_of(*experts) {
            let what =
                format!("lora.rank is {rank}; it must be a multiple of lora.experts, which is {experts}");
            return Err(AdapterError::Config(what));
        }
        Ok(())
    }

    /// Whether every task trains the same adapter.
    pub(crate) fn is_one(self) -> bool {
        matches!(self, Self::One | Self::Experts)
    }

    /// Whether a sample is answered by way of the nearest task.
    pub(crate) fn has_keys(self) -> bool {
        matches!(self, Self::OnePerTask | Self::Hierarchical)
    }

    /// Whether older tasks' adapters take part while a task is learnt.
    pub(crate) fn is_sum(self) -> bool {
        matches!(self, Self::Summed(_) | Self::Projected(..) | Self::Keep(_))
    }

    /// The adapters that are added up to answer samples, for each combination: one, or where a sample is answered by way of the nearest task, one for
    /// each adapter.
    pub(crate) fn combinations(self, adapters: &[Lora]) -> impl Iterator<Item = Vec<Cow<'_, Lora>>> {
        let n = if self.has_keys() { adapters.len() } else { adapters.len().min(1) };
        // Of the last map that belongs to any.
        let last = adapters.first().and_then(|adapter| adapter.modules().filter_map(Module::layer).last());
        let is_below = move |module: &Module| last.is_none() || module.layer() != last;
        (0..n).map(move |i| match self {
            Self::One | Self::Experts | Self::Summed(_) | Self::Projected(..) | Self::Keep(_) => {
                adapters.iter().map(Cow::Borrowed).collect()
            }
            Self::OnePerTask => vec![Cow::Borrowed(&adapters[i])],
            Self::Hierarchical => {
                let part = |(j, adapter): (usize, &'_ Lora)| match j {
                    _ if i == j => Cow::Borrowed(&adapters[j]),
                    _ => Cow::Owned(adapter.of_modules(is_below)),
                };
                adapters.iter().enumerate().map(part).collect()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(names: &[&str], number: u64) -> Lora {
        let module = |name: &&str| Module { name: (*name).to_owned(), n_out: 3, n_in: 2 };
        let modules: Vec<Module> = names.iter().map(module).collect();
        Lora::new(&modules, &LoraConfig { rank: 1, ..LoraConfig::default() }, 0, number)
    }

    #[test]
    fn the_last_layer_is_the_nearest_tasks_and_those_below_are_everybodys() {
        let names = [
            "model.layers.0.q",
            "model.layers.1.q",
            "model.layers.10.q",
            "model.layers.10.mlp.0.up",
            "lm_head",
        ];
        let adapters = [adapter(&names, 1), adapter(&names, 2)];
        let combinations: Vec<_> = Sharing::Hierarchical.combinations(&adapters).collect();
        assert_eq!(combinations.len(), 2);
        for (i, combination) in combinations.iter().enumerate() {
            assert_eq!(*combination[i], adapters[i]);
            let other = &combination[1 - i];
            let names: Vec<&str> = other.modules().map(|module| module.name.as_str()).collect();
            assert_eq!(names, ["model.layers.0.q", "model.layers.1.q", "lm_head"]);
            for name in names {
                assert_eq!(other.factors(name), adapters[1 - i].factors(name));
            }
        }
        // Without layers all of them are added up.
        let flat = [adapter(&["map"], 1), adapter(&["map"], 2)];
        let mut combinations = Sharing::Hierarchical.combinations(&flat);
        assert!(combinations.all(|c| *c[0] == flat[0] && *c[1] == flat[1]));
        assert_eq!(Sharing::Hierarchical.combinations(&[]).count(), 0);
    }
}
