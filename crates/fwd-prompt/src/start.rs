//! What a learner takes of a library: the values that the new prompts of a task begin with, and prompts for samples of no learnt task.

use crate::config::{Fallback, Start};
use crate::error::PromptError;
use crate::gradient::queries_of;
use crate::learner::PromptLearner;
use crate::library::Library;
use crate::model::{FrozenModel, PromptBatch};
use crate::pool::{Guests, PromptPool};
use crate::prompts::Started;
use fwd_continual::{Failure, NotFinite, TaskAt, permutation, stream};
use std::sync::Arc;

/// Training samples that a library is tried on, at most.
const TRIED: usize = 64;

impl<M: FrozenModel> PromptLearner<M> {
    /// The library, which a key of the configuration asks for.
    fn wanted_library(&self, key: &str) -> Result<&Library, PromptError> {
        let missing =
            || PromptError::Config(format!("{key} asks for a library of prompts, and there is none"));
        self.library.as_deref().ok_or_else(missing)
    }

    /// What the library gives to samples that no learnt task is for.
    pub(crate) fn guests(&self) -> Result<Option<Arc<Guests>>, PromptError> {
        let config = &self.config().pool;
        if config.fallback == Fallback::Nothing {
            return Ok(None);
        }
        let library = self.wanted_library("pool.fallback")?;
        library.check(config)?;
        Ok(library.guests(config.fallback))
    }

    /// What the new prompts of a task begin with instead of the normal numbers that they hold, if a library is to be looked at.
    pub(crate) fn started(
        &self,
        samples: &[M::Features],
        task: &TaskAt<'_>,
        opened: &PromptPool,
    ) -> Result<Option<Started>, Failure> {
        let (config, size) = (self.config(), opened.prompts().len());
        if config.pool.start == Start::Normal || size == 0 {
            return Ok(None);
        }
        let library = self.wanted_library("pool.start")?;
        let mut tried =
            permutation(&mut stream(config.seed, "start samples", [task.number() as u64, 0]), samples.len());
        tried.truncate(TRIED);
        let mut starts: Vec<Vec<f32>> = library
            .tokens()
            .map(|block| {
                let n = block.len().min(size);
                [&block[..n], &opened.prompts()[n..]].concat()
            })
            .collect();
        let (scores, chosen) = if config.pool.start == Start::Nearest {
            let queries = tried.iter().map(|&i| queries_of(&self.model, &samples[i], i));
            let scores = library.nearness(&queries.collect::<Result<Vec<_>, Failure>>()?)?;
            let best = (0..scores.len()).max_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(b.cmp(&a)));
            (scores, best)
        } else {
            let loss = |tokens: &[f32]| self.mean_loss(samples, &tried, tokens);
            let scores = starts.iter().map(|start| loss(start)).collect::<Result<Vec<_>, Failure>>()?;
            let best = (0..scores.len()).min_by(|&a, &b| scores[a].total_cmp(&scores[b]));
            let normal = loss(opened.prompts())?;
            let best = best.filter(|&best| scores[best] <= normal);
            (scores, best)
        };
        let block = chosen.and_then(|chosen| library.tasks().nth(chosen)).map(str::to_owned);
        let tokens = chosen.map_or_else(|| opened.prompts().to_vec(), |chosen| starts.swap_remove(chosen));
        let scores = library.tasks().map(str::to_owned).zip(scores).collect();
        Ok(Some(Started { block, scores, tokens }))
    }

    /// The mean loss of some samples that all have the same tokens in front of them.
    fn mean_loss(&self, samples: &[M::Features], chosen: &[usize], tokens: &[f32]) -> Result<f64, Failure> {
        let dim = self.model.dims().model;
        let mut sum = 0.0;
        for batch in chosen.chunks(self.config().training.batch_size) {
            let read = batch.iter().map(|&i| self.prompts.pool.read(&self.model, &samples[i]));
            let read = read.collect::<Result<Vec<_>, PromptError>>()?;
            let samples: Vec<&M::Features> = read.iter().map(|sample| &**sample).collect();
            let lengths = vec![tokens.len() / dim; batch.len()];
            let (values, place) = (tokens.repeat(batch.len()), self.config().pool.place);
            let prompts = PromptBatch { values, lengths, dim, place };
            let loss = self.model.loss(&samples, &prompts)?;
            if !loss.is_finite() {
                return Err(NotFinite("the loss behind prompts of the library").into());
            }
            sum += loss * batch.len() as f64;
        }
        Ok(sum / chosen.len().max(1) as f64)
    }
}
