//! Gate 1: sums over the input embeddings of validation samples.

use super::report::Embeddings;
use super::vectors::{mean_of, norm, square_distance};
use crate::model::Model;
use crate::samples::Exam;
use anyhow::Result;
use fwd_prompt::FrozenModel;
use fwd_prompt::linalg::{Gram, energy_curve, symmetric_eigen};

/// Adds up what gate 1 looks at.
pub(super) struct Accumulator {
    gram: Gram,
    /// The width of an embedding.
    d: usize,
    /// The visual tokens of each sample.
    tokens: Vec<Vec<f32>>,
    /// The sum of the text tokens' lengths, and how many there are.
    text_norm: (f64, usize),
}

impl Accumulator {
    /// Nothing yet, of embeddings of width `d`.
    pub(super) fn new(d: usize) -> Self {
        Self { gram: Gram::new(d), d, tokens: Vec::new(), text_norm: (0.0, 0) }
    }

    /// Adds the embeddings of some samples.
    pub(super) fn add(&mut self, model: &Model, exam: &Exam<'_>) -> Result<()> {
        for case in &exam.cases {
            let embeddings = model.embeddings(&case.sample)?;
            self.gram.push(&embeddings.image)?;
            self.gram.push(&embeddings.text)?;
            for token in embeddings.text.chunks_exact(self.d) {
                self.text_norm.0 += norm(token);
                self.text_norm.1 += 1;
            }
            self.tokens.push(embeddings.image.into_owned());
        }
        Ok(())
    }

    /// What the sums come to.
    pub(super) fn finish(self) -> Result<Embeddings> {
        let all = || self.tokens.iter().flat_map(|t| t.chunks_exact(self.d));
        let n = all().count().max(1) as f64;
        let mean = mean_of(all(), self.d);
        let total: f64 = all().map(|t| square_distance(t, &mean)).sum();
        let around = |sample: &Vec<f32>| -> f64 {
            let mean = mean_of(sample.chunks_exact(self.d), self.d);
            sample.chunks_exact(self.d).map(|t| square_distance(t, &mean)).sum()
        };
        let eigen = symmetric_eigen(&self.gram.matrix(), self.d)?;
        let curve = energy_curve(&eigen.values);
        Ok(Embeddings {
            between_queries: self.tokens.iter().map(around).sum::<f64>() / total.max(f64::MIN_POSITIVE),
            visual_norm: all().map(norm).sum::<f64>() / n,
            text_norm: self.text_norm.0 / self.text_norm.1.max(1) as f64,
            rank: curve.iter().take_while(|&&share| share < 0.95).count() + 1,
            d_model: self.d,
        })
    }
}
