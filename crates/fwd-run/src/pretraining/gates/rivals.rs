//! What a model is compared with: the most frequent answer, a linear probe, and the nearest training image.

use super::vectors::{mean_of, norm};
use crate::predictions;
use anyhow::{Context, Result};
use fwd_data::bench::Record;
use fwd_eval::Metric;
use fwd_prompt::linalg::{Gram, symmetric_eigen};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// The most frequent answers of a training set.
pub(super) struct Majority {
    /// To whatever instruction.
    pub(super) overall: String,
    by_instruction: BTreeMap<String, String>,
}

impl Majority {
    /// Those of some records.
    pub(super) fn of(train: &[&Record]) -> Self {
        let most = |counts: BTreeMap<&str, usize>| {
            // The first in the alphabet among equals.
            let best = counts.into_iter().rev().max_by_key(|(_, n)| *n);
            best.map_or_else(String::new, |(answer, _)| answer.to_owned())
        };
        let mut overall: BTreeMap<&str, usize> = BTreeMap::new();
        let mut by: BTreeMap<&str, BTreeMap<&str, usize>> = BTreeMap::new();
        for record in train {
            let answer = target(record);
            *overall.entry(answer).or_default() += 1;
            *by.entry(&record.instruction).or_default().entry(answer).or_default() += 1;
        }
        let by_instruction =
            by.into_iter().map(|(instruction, counts)| (instruction.to_owned(), most(counts)));
        Self { overall: most(overall), by_instruction: by_instruction.collect() }
    }

    /// To the same instruction; if training does not have it, to whatever one.
    pub(super) fn of_instruction(&self, record: &Record) -> String {
        self.by_instruction.get(&record.instruction).unwrap_or(&self.overall).clone()
    }
}

fn target(record: &Record) -> &str {
    record.answers.first().map_or("", String::as_str)
}

/// The score of answers in percent.
pub(super) fn percent(
    metric: Metric,
    records: &[&Record],
    answer: impl Fn(usize, &Record) -> String,
) -> Result<f64> {
    let texts: Vec<String> = records.iter().enumerate().map(|(i, record)| answer(i, record)).collect();
    let answers: Vec<Vec<&str>> =
        records.iter().map(|record| record.answers.iter().map(String::as_str).collect()).collect();
    predictions::corpus_percent(metric, &texts.iter().map(String::as_str).collect::<Vec<_>>(), &answers)
}

/// At most `n` of some things, spread evenly.
pub(super) fn evenly<'r>(all: &[&'r Record], n: usize) -> Vec<&'r Record> {
    let n = all.len().min(n);
    (0..n).map(|i| all[i * all.len() / n]).collect()
}

/// The training answer of the image with the highest cosine.
pub(super) fn nearest_answers(train: &[&Record], of_train: &[Vec<f32>], of_val: &[Vec<f32>]) -> Vec<String> {
    let unit = |x: &Vec<f32>| -> Vec<f64> {
        let n = norm(x).max(f64::MIN_POSITIVE);
        x.iter().map(|&x| f64::from(x) / n).collect()
    };
    let known: Vec<Vec<f64>> = of_train.iter().map(unit).collect();
    let nearest = |x: &Vec<f32>| -> String {
        let x = unit(x);
        let cosine = |k: &Vec<f64>| k.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>();
        let best = known.iter().enumerate().max_by(|a, b| cosine(a.1).total_cmp(&cosine(b.1)));
        best.map_or_else(String::new, |(i, _)| target(train[i]).to_owned())
    };
    of_val.par_iter().map(nearest).collect()
}

/// Answers of a linear classifier on standardised features, among those that training has for the instruction:
/// `W = (XᵀX + αI)⁻¹ XᵀY` with one column of `Y` for each answer.
pub(super) fn ridge_answers(
    train: &[&Record],
    of_train: &[Vec<f32>],
    val: &[&Record],
    of_val: &[Vec<f32>],
) -> Result<Vec<String>> {
    let d = of_train.first().context("no training samples")?.len();
    let mean = mean_of(of_train.iter().map(Vec::as_slice), d);
    let mut scale = vec![0f64; d];
    for x in of_train {
        scale.iter_mut().zip(x).zip(&mean).for_each(|((s, &x), m)| *s += (f64::from(x) - m).powi(2));
    }
    scale.iter_mut().for_each(|s| *s = (*s / of_train.len() as f64).sqrt() + 1e-3);
    let standard = |x: &Vec<f32>| -> Vec<f64> {
        let scaled = x.iter().zip(&mean).zip(&scale).map(|((&x, m), s)| (f64::from(x) - m) / s);
        scaled.chain([1.0]).collect()
    };
    let rows: Vec<Vec<f64>> = of_train.iter().map(standard).collect();
    let mut gram = Gram::new(d + 1);
    for row in &rows {
        gram.push(&row.iter().map(|&x| x as f32).collect::<Vec<_>>())?;
    }
    let eigen = symmetric_eigen(&gram.matrix(), d + 1)?;
    let classes: Vec<&str> = train.iter().map(|r| target(r)).collect::<BTreeSet<_>>().into_iter().collect();
    // Of every class: XᵀY, then V·(VᵀXᵀY / (λ + α)). Eigenvectors lie one after another.
    let alpha = 0.05 * rows.len() as f64;
    let map = |class: &&str| -> Vec<f64> {
        let mut sum = vec![0f64; d + 1];
        for (row, record) in rows.iter().zip(train) {
            if target(record) == *class {
                sum.iter_mut().zip(row).for_each(|(s, x)| *s += x);
            }
        }
        let mut weights = vec![0f64; d + 1];
        for (vector, value) in eigen.vectors.chunks_exact(d + 1).zip(&eigen.values) {
            let share = vector.iter().zip(&sum).map(|(v, s)| v * s).sum::<f64>() / (value.max(0.0) + alpha);
            weights.iter_mut().zip(vector).for_each(|(w, v)| *w += share * v);
        }
        weights
    };
    let maps: Vec<Vec<f64>> = classes.par_iter().map(map).collect();
    let mut allowed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for record in train {
        allowed.entry(&record.instruction).or_default().insert(target(record));
    }
    let answer = |(record, x): (&&Record, &Vec<f32>)| -> String {
        let x = standard(x);
        let score = |w: &Vec<f64>| w.iter().zip(&x).map(|(a, b)| a * b).sum::<f64>();
        let is_allowed =
            |class: &str| allowed.get(record.instruction.as_str()).is_none_or(|set| set.contains(class));
        let open = classes.iter().zip(&maps).filter(|(class, _)| is_allowed(class));
        let best = open.max_by(|a, b| score(a.1).total_cmp(&score(b.1)));
        best.map_or_else(String::new, |(class, _)| (*class).to_owned())
    };
    Ok(val.par_iter().zip(of_val).map(answer).collect())
}
