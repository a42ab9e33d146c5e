//! The names under which LLaVA checkpoints hold their parameters.
//!
//! The Hub and transformers 4 say `vision_tower.vision_model.encoder…` and `language_model.model.layers…`; that is what the model asks for.
//! transformers 5 writes `vision_tower.encoder…`, and states that were saved without its conversion begin with `model.` and have the
//! head outside of the language model.

/// What a name begins with in checkpoints of other spellings, and on the Hub; the longer ones first where one contains another.
const SPELLINGS: [(&str, &str); 6] = [
    ("model.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
];

/// Whether a checkpoint with a tensor of this name is that of a LLaVA.
pub(super) fn is_of_llava(name: &str) -> bool {
    name.strip_prefix("model.").unwrap_or(name).starts_with("multi_modal_projector.")
}

/// The name that a tensor of a LLaVA has on the Hub.
pub(super) fn hub_name(name: &str) -> String {
    if name.starts_with("vision_tower.vision_model.") {
        return name.into();
    }
    let known = |(theirs, ours): &(&str, &str)| Some(format!("{ours}{}", name.strip_prefix(theirs)?));
    SPELLINGS.iter().find_map(known).unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::{hub_name, is_of_llava};

    #[test]
    fn every_spelling_becomes_that_of_the_hub() {
        let hub = [
            "vision_tower.vision_model.pre_layrnorm.bias",
            "multi_modal_projector.linear_1.bias",
            "language_model.lm_head.weight",
            "language_model.model.norm.weight",
        ];
        let five = [
            "vision_tower.pre_layrnorm.bias",
            "multi_modal_projector.linear_1.bias",
            "language_model.lm_head.weight",
            "language_model.model.norm.weight",
        ];
        let raw = [
            "model.vision_tower.vision_model.pre_layrnorm.bias",
            "model.multi_modal_projector.linear_1.bias",
            "lm_head.weight",
            "model.language_model.norm.weight",
        ];
        for names in [hub, five, raw] {
            assert_eq!(names.map(hub_name), hub);
            assert_eq!(names.map(is_of_llava), [false, true, false, false]);
        }
        assert_eq!(hub_name("model.vision_tower.pre_layrnorm.bias"), hub[0]);
    }
}
