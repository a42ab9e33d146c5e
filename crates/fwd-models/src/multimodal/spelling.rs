//! The names under which LLaVA checkpoints hold their parameters.
//!
//! The Hub and transformers 4 say `vision_tower.vision_model.encoder…` and `language_model.model.layers…`; that is what the model asks for.
//! transformers 5 writes `vision_tower.encoder…`, and states that were saved without its conversion begin with `model.` and have the
//! head outside of the language model.

use crate::error::Result;
use crate::weights::Weights;
use candle_core::Tensor;
use fwd_ops::Weight;

/// What a name begins with in the model and in checkpoints of other spellings.
const SPELLINGS: [(&str, &str); 6] = [
    (VISION[0], VISION[1]),
    (VISION[0], VISION[2]),
    (VISION[0], VISION[3]),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
];

/// What the names of the vision tower begin with; the longer ones first where one contains another.
const VISION: [&str; 4] = [
    "vision_tower.vision_model.",
    "vision_tower.",
    "model.vision_tower.vision_model.",
    "model.vision_tower.",
];

/// A source whose names may be of any spelling. It is asked with those of the Hub.
pub(super) struct Spelled<'a>(pub(super) &'a mut dyn Weights);

impl Spelled<'_> {
    /// The name under which the source has a parameter, or the given one.
    fn name(&self, name: &str) -> String {
        if self.0.has(name) {
            return name.into();
        }
        let other = |(ours, theirs): &(&str, &str)| Some(format!("{theirs}{}", name.strip_prefix(ours)?));
        SPELLINGS.iter().filter_map(other).find(|other| self.0.has(other)).unwrap_or_else(|| name.into())
    }
}

impl Weights for Spelled<'_> {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = self.name(name);
        self.0.get(&name, shape)
    }

    fn weight(&mut self, name: &str, shape: [usize; 2]) -> Result<Weight> {
        let name = self.name(name);
        self.0.weight(&name, shape)
    }

    fn has(&self, name: &str) -> bool {
        self.0.has(&self.name(name))
    }
}

/// Whether a tensor belongs to the vision tower behind its first `n_layers` layers, of which nothing is computed.
pub(super) fn is_unused_vision(name: &str, n_layers: usize) -> bool {
    let Some(part) = of_vision(name) else { return false };
    if part.starts_with("post_layernorm.") {
        return true;
    }
    let layer =
        part.strip_prefix("encoder.layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
    layer.is_some_and(|layer| layer >= n_layers)
}

/// Whether a tensor is the list of positions that older checkpoints of CLIP hold.
pub(super) fn is_vision_positions(name: &str) -> bool {
    of_vision(name) == Some("embeddings.position_ids")
}

/// The name within the vision tower.
fn of_vision(name: &str) -> Option<&str> {
    VISION.iter().find_map(|prefix| name.strip_prefix(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    /// Has these names and says which of them it was asked for.
    struct Names(Vec<&'static str>, Vec<String>);

    impl Weights for Names {
        fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
            self.1.push(name.into());
            Ok(Tensor::zeros(shape, DType::F32, &Device::Cpu)?)
        }

        fn has(&self, name: &str) -> bool {
            self.0.contains(&name)
        }
    }

    #[test]
    fn every_spelling_is_found() {
        let asked = [
            "vision_tower.vision_model.pre_layrnorm.bias",
            "language_model.lm_head.weight",
            "language_model.model.norm.weight",
        ];
        let found = |names: &[&'static str]| {
            let mut source = Names(names.to_vec(), Vec::new());
            for name in asked {
                Spelled(&mut source).get(name, &[1]).unwrap();
            }
            source.1
        };
        let five = [
            "vision_tower.pre_layrnorm.bias",
            "language_model.lm_head.weight",
            "language_model.model.norm.weight",
        ];
        let raw = [
            "model.vision_tower.vision_model.pre_layrnorm.bias",
            "lm_head.weight",
            "model.language_model.norm.weight",
        ];
        assert_eq!(
            (found(&asked), found(&five), found(&raw)),
            (asked.map(String::from).into(), five.map(String::from).into(), raw.map(String::from).into())
        );
        // A missing one is missing under the name that the Hub has.
        assert_eq!(found(&[]), asked);
    }

    #[test]
    fn what_is_behind_the_feature_layer_is_unused() {
        for prefix in VISION {
            let unused = |rest: &str| is_unused_vision(&format!("{prefix}{rest}"), 2);
            assert!(unused("encoder.layers.2.mlp.fc1.bias") && unused("encoder.layers.10.mlp.fc1.bias"));
            assert!(unused("post_layernorm.weight"));
            assert!(!unused("encoder.layers.1.mlp.fc1.bias") && !unused("embeddings.extra"));
            assert!(is_vision_positions(&format!("{prefix}embeddings.position_ids")));
        }
        assert!(!is_unused_vision("language_model.model.layers.5.mlp.up_proj.weight", 2));
    }
}
