//! How keys learn: from the similarity to the queries of the samples that selected them.

use crate::model::Queries;
use crate::pool::{PromptPool, Selection, slot};
use fwd_linalg::dot;
use std::ops::Range;

impl PromptPool {
    /// The key term of the loss, `−λ · mean_batch mean_{j selected} s[j]`, and its gradient with respect to the keys of `trained`,
    /// `(n, d_v)` and `(n, d_t)`: `d cos(q, k)/dk = (q/‖q‖ − cos(q, k)·k/‖k‖) / ‖k‖`.
    pub(crate) fn key_loss(
        &self,
        queries: &[Queries<'_>],
        selections: &[Selection],
        lambda: f64,
        trained: Range<usize>,
    ) -> (f64, Vec<f32>, Vec<f32>) {
        let (dv, dt) = (self.dims().image_query, self.dims().text_query);
        let (mut image, mut text) = (vec![0.0; trained.len() * dv], vec![0.0; trained.len() * dt]);
        let mut loss = 0.0;
        for (queries, selection) in queries.iter().zip(selections) {
            let weight = -lambda / (selections.len() * selection.prompts.len().max(1)) as f64;
            for (&j, &score) in selection.prompts.iter().zip(&selection.scores) {
                loss += weight * f64::from(score);
                if trained.contains(&j) {
                    let at = j - trained.start;
                    let keys = (slot(&self.image_keys, j, dv), slot(&self.text_keys, j, dt));
                    add_cosine_gradient(&queries.image, keys.0, weight, &mut image[at * dv..(at + 1) * dv]);
                    add_cosine_gradient(&queries.text, keys.1, weight, &mut text[at * dt..(at + 1) * dt]);
                }
            }
        }
        (loss, image, text)
    }
}

/// The cosine between two vectors; 0 if one has no length.
fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let scale = (dot(a, a) * dot(b, b)).sqrt();
    if scale > 0.0 { dot(a, b) / scale } else { 0.0 }
}

/// Adds `weight` times the gradient of the cosine between a query and a key with respect to the key.
fn add_cosine_gradient(query: &[f32], key: &[f32], weight: f64, out: &mut [f32]) {
    let (q, k) = (dot(query, query).sqrt(), dot(key, key).sqrt());
    if q > 0.0 && k > 0.0 {
        let cosine = cosine(query, key);
        for ((out, &query), &key) in out.iter_mut().zip(query).zip(key) {
            *out += (weight / k * (f64::from(query) / q - cosine * f64::from(key) / k)) as f32;
        }
    }
}
