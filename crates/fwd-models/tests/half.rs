//! bf16 and f16 weights through the same sets.
//!
//! Only the weight matrices are rounded (relative error up to u = 2⁻⁹ for bf16, 2⁻¹² for f16); norms, biases, queries and all
//! activations stay f32. The rounding errors of the layers are independent, so an output made by `n` matrices in a row is
//! off by about `u·sqrt(n)` of its own size, and the worst of some thousand elements by four times that. A gradient
//! depends on every matrix twice, and in the `lowvar` sets divides by norms close to their eps. Hence `4·u·sqrt(n)` for
//! outputs and `16·u·sqrt(n)` for the gradient, relative to the largest element.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use candle_core::{Tensor, Var};
use common::{BLIP_T5, Report, abs_max, sets_of};
use fwd_models::{Instructions, MultimodalModel, QFormerText, Tap, WeightDtype};

/// Matrices that an input passes one after the other: patches, 4 a layer, projection, head.
fn depth(config: &fwd_models::ModelConfig) -> f64 {
    let layers = config.vision.num_hidden_layers + config.qformer.num_hidden_layers + config.text.n_layers();
    (4 * layers + 3) as f64
}

fn check(dtype: WeightDtype, unit: f64) {
    let mut report = Report::default();
    for set in sets_of(&BLIP_T5) {
        report.enter(&format!("{} {dtype:?}", set.name));
        let model = set.model_in("config.json", dtype);
        let tolerance = 4.0 * unit * depth(model.config()).sqrt();
        let (ids, mask) =
            model.without_placeholders(&set.io("input_ids"), &set.io("attention_mask")).unwrap();
        let qformer = set.has("qformer_input_ids").then(|| QFormerText {
            ids: set.io("qformer_input_ids"),
            mask: set.io("qformer_attention_mask"),
        });
        let instructions = Instructions { ids, mask, qformer };
        let features = model.features(&set.io("pixel_values"), &instructions, &mut Tap::none()).unwrap();
        let input = &features.input;
        let scored = model.language().score(input, &set.io("labels"), &mut Tap::none()).unwrap();
        let against = |name: &str, ours: &Tensor, report: &mut Report| {
            let want = set.io(name);
            report.close(name, ours, &want, tolerance * abs_max(&want));
        };
        against("language_projection", &features.visual_tokens().unwrap(), &mut report);
        against("logits", &scored.logits, &mut report);
        against("loss", &scored.loss.unsqueeze(0).unwrap(), &mut report);
        let prompt = Var::from_tensor(&set.io("soft.prompt")).unwrap();
        let with_prompt = input.with_prompt(&prompt).unwrap();
        let loss = model.language().score(&with_prompt, &set.io("labels"), &mut Tap::none()).unwrap().loss;
        let gradient = &fwd_ops::backward(&loss, &[("prompt", &prompt)]).unwrap()[0];
        let want = set.io("soft.grad");
        report.close("soft.grad", gradient, &want, 4.0 * tolerance * abs_max(&want));
        // The rounding must be there: a model that silently stayed in f32 would pass every bound above.
        let off = common::max_diff(&scored.logits, &set.io("logits")) / abs_max(&set.io("logits"));
        assert!(off > unit / 8.0, "{}: the weights were not rounded to {dtype:?}", set.name);
    }
    report.finish();
}

#[test]
fn bf16_weights_stay_within_their_rounding() {
    check(WeightDtype::Bf16, (2f64).powi(-9));
}

#[test]
fn f16_weights_stay_within_their_rounding() {
    check(WeightDtype::F16, (2f64).powi(-12));
}
