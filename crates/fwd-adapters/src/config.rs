//! What is adapted, and how.

use crate::error::{AdapterError, Result};
use crate::module::Module;
use fwd_linalg::AdamW;
use serde::{Deserialize, Serialize};

/// In the place of names: all linear maps but the language model's head.
const ALL: &str = "all-linear";

/// The head of a language model, which PEFT's `all-linear` leaves out too.
const HEAD: &str = "lm_head";

/// How adapters are made and trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// Rows of `A` and columns of `B`.
    pub rank: usize,
    /// The scale of `B·A` is `alpha/rank`.
    pub alpha: f64,
    /// The scale is `alpha/√rank` instead (rsLoRA, Kalajdzievski 2023).
    pub use_rslora: bool,
    /// The adapted maps: ends of their modules' names at a dot (`q_proj`, `mlp.fc1`), or `all-linear` alone for all maps but the head.
    pub targets: Vec<String>,
    /// AdamW of `A` and `B`.
    pub optimiser: AdamW,
    /// The factor of O-LoRA's penalty `Σ |A_old·Aᵀ|` (Wang et al. 2023; the sum of magnitudes is that of their code); only where adapters are
    /// summed.
    pub overlap_weight: f64,
    /// Among how many experts the rank is divided, where there are experts (MoELoRA).
    pub experts: usize,
    /// Of how many samples of a task, evenly spread over it, KeepLoRA takes the gradient that its adapter begins with.
    pub gradient_samples: usize,
    /// The share of a map's elements that RegLoRA keeps as those which a task changed most.
    pub key_share: f64,
    /// The factor of RegLoRA's penalty on changing them, a mean of magnitudes over all of them.
    pub key_weight: f64,
}

impl Default for LoraConfig {
    /// Rank 8, alpha 16, all linear maps; a learning rate of 2e-4 without weight decay; O-LoRA's penalty as its authors weigh it, 0.5, RegLoRA's
    /// as its do, 2,500 on 2 %; 8 experts as in CoIN.
    fn default() -> Self {
        Self {
            rank: 8,
            alpha: 16.0,
            use_rslora: false,
            targets: vec![ALL.to_owned()],
            optimiser: AdamW { lr: 2e-4, weight_decay: 0.0, ..AdamW::default() },
            overlap_weight: 0.5,
            experts: 8,
            gradient_samples: 64,
            key_share: 0.02,
            key_weight: 2500.0,
        }
    }
}

impl LoraConfig {
    /// Refuses values that cannot be.
    ///
    /// # Errors
    /// [`AdapterError::Config`] that names the key, its value and what it may be.
    pub fn check(&self) -> Result<()> {
        let refuse = |what: String| Err(AdapterError::Config(what));
        if self.rank == 0 {
            return refuse("lora.rank is 0; it must be 1 or more".to_owned());
        }
        if !(self.alpha.is_finite() && self.alpha > 0.0) {
            return refuse(format!("lora.alpha is {}; it must be a number above 0", self.alpha));
        }
        for (key, weight) in [("overlap_weight", self.overlap_weight), ("key_weight", self.key_weight)] {
            if !(weight.is_finite() && weight >= 0.0) {
                return refuse(format!("lora.{key} is {weight}; it must be 0 or a number above it"));
            }
        }
        if !(0.0..=1.0).contains(&self.key_share) {
            return refuse(format!("lora.key_share is {}; it must be between 0 and 1", self.key_share));
        }
        for (key, value) in [("experts", self.experts), ("gradient_samples", self.gradient_samples)] {
            if value == 0 {
                return refuse(format!("lora.{key} is 0; it must be 1 or more"));
            }
        }
        let AdamW { lr, beta1, beta2, eps, weight_decay } = self.optimiser;
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let decays = [beta1, beta2].iter().all(|beta| (0.0..1.0).contains(beta));
        if !(positive(lr)
            && positive(eps)
            && (eps as f32) > 0.0
            && decays
            && weight_decay >= 0.0
            && weight_decay.is_finite())
        {
            return refuse(
                "lora.optimiser needs lr and eps above 0, betas in [0, 1), weight_decay of at least 0"
                    .to_owned(),
            );
        }
        if self.targets.is_empty() || self.targets.iter().any(String::is_empty) {
            return refuse(format!("lora.targets must be names of modules or `{ALL}`"));
        }
        if self.targets.len() > 1 && self.targets.iter().any(|target| target == ALL) {
            return refuse(format!("lora.targets is {:?}; `{ALL}` stands alone", self.targets));
        }
        Ok(())
    }

    /// The scale of `B·A`.
    pub fn scale(&self) -> f64 {
        let rank = self.rank as f64;
        self.alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Those of a model's maps that are adapted, in their order.
    ///
    /// # Errors
    /// [`AdapterError::Config`] for a target that no module has, with the names that there are; for a model without any, and for a rank above
    /// a width of one of them.
    pub fn chosen(&self, modules: &[Module]) -> Result<Vec<Module>> {
        let chosen = self.named(modules)?;
        if chosen.is_empty() {
            return Err(AdapterError::Config("the model has no linear map that can be adapted".to_owned()));
        }
        let least = |module: &&Module| module.n_in.min(module.n_out);
        match chosen.iter().min_by_key(least).filter(|module| self.rank > least(module)) {
            Some(Module { name, n_out, n_in }) => Err(AdapterError::Config(format!(
                "lora.rank is {}; `{name}` is {n_out}x{n_in}, and the rank may be its smaller width at most",
                self.rank
            ))),
            None => Ok(chosen),
        }
    }

    fn named(&self, modules: &[Module]) -> Result<Vec<Module>> {
        if self.targets == [ALL] {
            let is_head = |module: &Module| ends_with(&module.name, HEAD);
            return Ok(modules.iter().filter(|module| !is_head(module)).cloned().collect());
        }
        for target in &self.targets {
            if !modules.iter().any(|module| ends_with(&module.name, target)) {
                let mut ends: Vec<&str> =
                    modules.iter().filter_map(|module| module.name.rsplit('.').next()).collect();
                ends.sort_unstable();
                ends.dedup();
                let known = if ends.is_empty() { "none".to_owned() } else { ends.join(", ") };
                let what = format!(
                    "lora.targets: no linear map of this model is called `{target}`; their names end with: {known}"
                );
                return Err(AdapterError::Config(what));
            }
        }
        let is_chosen = |module: &&Module| self.targets.iter().any(|target| ends_with(&module.name, target));
        Ok(modules.iter().filter(is_chosen).cloned().collect())
    }
}

/// Whether a name is `end`, or ends with it behind a dot.
fn ends_with(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules() -> Vec<Module> {
        ["layers.0.self_attn.q_proj", "layers.0.mlp.fc1", "layers.1.mlp.xfc1", "lm_head"]
            .map(|name| Module { name: name.into(), n_out: 3, n_in: 2 })
            .into()
    }

    fn chosen(targets: &[&str]) -> Result<Vec<String>> {
        let targets = targets.iter().map(|&target| target.to_owned()).collect();
        let chosen = LoraConfig { targets, rank: 2, ..LoraConfig::default() }.chosen(&modules())?;
        Ok(chosen.into_iter().map(|module| module.name).collect())
    }

    #[test]
    fn targets_are_ends_of_names_at_a_dot() {
        assert_eq!(chosen(&["fc1"]).unwrap(), ["layers.0.mlp.fc1"]);
        assert_eq!(
            chosen(&["mlp.fc1", "q_proj"]).unwrap(),
            ["layers.0.self_attn.q_proj", "layers.0.mlp.fc1"]
        );
        assert_eq!(chosen(&[ALL]).unwrap().len(), 3);
        assert_eq!(chosen(&[HEAD]).unwrap(), [HEAD]);
        let refused = chosen(&["q_proj", "v_proj"]).unwrap_err().to_string();
        assert!(refused.contains("`v_proj`") && refused.contains("fc1, lm_head, q_proj, xfc1"), "{refused}");
        let wide = LoraConfig { rank: usize::MAX, ..LoraConfig::default() }.chosen(&modules());
        assert!(wide.unwrap_err().to_string().contains("3x2"));
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        let refused = |change: fn(&mut LoraConfig), key: &str| {
            let mut config = LoraConfig::default();
            config.check().unwrap();
            change(&mut config);
            let refused = config.check().unwrap_err().to_string();
            assert!(refused.contains(key), "{refused}");
        };
        refused(|c| c.rank = 0, "lora.rank");
        refused(|c| c.alpha = f64::NAN, "lora.alpha");
        refused(|c| c.overlap_weight = -1.0, "lora.overlap_weight");
        refused(|c| c.key_weight = f64::NAN, "lora.key_weight");
        refused(|c| c.key_share = 1.5, "lora.key_share");
        refused(|c| c.experts = 0, "lora.experts");
        refused(|c| c.gradient_samples = 0, "lora.gradient_samples");
        refused(|c| c.optimiser.lr = -1e-3, "lora.optimiser");
        refused(|c| c.optimiser.eps = 1e-60, "lora.optimiser");
        refused(|c| c.targets.clear(), "lora.targets");
        refused(|c| c.targets.push("fc1".into()), "all-linear");
        let scale =
            |use_rslora| LoraConfig { rank: 4, alpha: 8.0, use_rslora, ..LoraConfig::default() }.scale();
        assert_eq!([scale(false), scale(true)], [2.0, 4.0]);
    }
}
