//! How near a sample must be to what was learnt: the bounds of a task's prompts, and the anchors of pre-training.

use crate::config::Rejection;
use crate::gradient::queries_of;
use crate::learner::PromptLearner;
use crate::model::{FrozenModel, Queries};
use crate::pool::{BATCH, PromptPool};
use fwd_continual::{Failure, permutation, stream};
use std::ops::Range;

impl<M: FrozenModel> PromptLearner<M> {
    /// The score from which on a sample is near enough to the prompts that a task has trained.
    pub(crate) fn threshold(&self, samples: &[M::Features], trained: Range<usize>) -> Result<f32, Failure> {
        let Rejection::BelowQuantile(q) = self.config().pool.rejection else {
            return Ok(f32::NEG_INFINITY);
        };
        let all: Vec<usize> = (0..samples.len()).collect();
        Ok(quantile(self.nearest(&self.prompts.pool, samples, &all, trained)?, q))
    }

    /// The queries of some samples of pre-training as keys without prompts ([`Anchors`](crate::Anchors)).
    pub(crate) fn anchors(&self, samples: &[M::Features]) -> Result<Option<PromptPool>, Failure> {
        let (config, of) = (self.config(), self.config().pool.anchors);
        let order = permutation(&mut stream(config.seed, "anchors", [0, 0]), samples.len());
        let (chosen, others) = order.split_at(of.count.min(samples.len() / 2));
        let mut anchors = PromptPool::new(self.model.dims(), 0, 1);
        for &i in chosen {
            let Queries { image, text } = queries_of(&self.model, &samples[i], i)?;
            anchors.push(&image, &text, &[])?;
        }
        if chosen.is_empty() {
            return Ok(None);
        }
        let bound = quantile(self.nearest(&anchors, samples, others, 0..chosen.len())?, of.quantile);
        anchors.thresholds.fill(bound);
        Ok(Some(anchors))
    }

    /// For each of the chosen samples, the score of the best key of a part of a pool.
    fn nearest(
        &self,
        pool: &PromptPool,
        samples: &[M::Features],
        chosen: &[usize],
        among: Range<usize>,
    ) -> Result<Vec<f32>, Failure> {
        let mut best = Vec::with_capacity(chosen.len());
        for batch in chosen.chunks(BATCH) {
            let queries = batch.iter().map(|&i| queries_of(&self.model, &samples[i], i));
            let queries = queries.collect::<Result<Vec<_>, Failure>>()?;
            let selections = pool.select_all_among(&queries, among.clone())?;
            let score = |scores: Vec<f32>| scores.first().copied().unwrap_or(f32::NEG_INFINITY);
            best.extend(selections.into_iter().map(|selection| score(selection.scores)));
        }
        Ok(best)
    }
}

/// The score that a share `q` of all is below; −∞ of none.
fn quantile(mut scores: Vec<f32>, q: f64) -> f32 {
    scores.sort_by(f32::total_cmp);
    let at = (scores.len().saturating_sub(1) as f64 * q) as usize;
    scores.get(at).copied().unwrap_or(f32::NEG_INFINITY)
}
