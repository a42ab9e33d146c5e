//! What the input embeddings of tasks look like: spectra, ranks, and how the subspaces of tasks and modalities lie to each other.
//!
//! Two facts of the paper show here: the embeddings of different tasks and modalities differ strongly, and along a continual
//! sequence their rank grows when the layer that makes them is trained, which it cannot with a frozen one.

use crate::error::{PromptError, Result, linalg_error};
use crate::model::FrozenModel;
use fwd_linalg::{
    Gram, LinalgError, Precision, Subspace, SubspaceConfig, choose_rank, effective_rank, energy_curve,
    overlap, principal_angles, subspace,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// The energies at which ranks are reported.
pub const ENERGIES: [f64; 3] = [0.90, 0.95, 0.99];

/// The rows that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Modality {
    /// Visual tokens.
    Image,
    /// Instruction tokens.
    Text,
    /// Visual and instruction tokens together.
    Both,
}

/// The spectrum of some rows `Z`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// The task whose rows they are.
    pub task: String,
    /// Which of its rows.
    pub modality: Modality,
    /// N: the number of rows.
    pub n_rows: u64,
    /// `σ_i`, largest first: square roots of the eigenvalues of `ZᵀZ`.
    pub singular_values: Vec<f64>,
    /// The share of the energy in the first 1, 2, … directions.
    pub energy_curve: Vec<f64>,
    /// The fewest directions that carry each of [`ENERGIES`].
    pub ranks: [usize; 3],
    /// `exp(H(λ/Σλ))`.
    pub effective_rank: f64,
}

/// Two subspaces of one modality, at the energy the analysis was asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pair {
    /// The name of one task.
    pub a: String,
    /// The name of the other task.
    pub b: String,
    /// Which rows.
    pub modality: Modality,
    /// `k_a` and `k_b`. Random subspaces of these sizes have an overlap of `max(k_a, k_b) / d` in the mean.
    pub ranks: [usize; 2],
    /// `‖V_aᵀ V_b‖²_F / min(k_a, k_b)`.
    pub overlap: f64,
    /// Principal angles in degrees, smallest first.
    pub angles: Vec<f64>,
}

/// The report on some tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Analysis {
    /// ε of the subspaces that are compared.
    pub energy: f64,
    /// One for each task and modality that has rows.
    pub spectra: Vec<Spectrum>,
    /// One for each pair of tasks and modality.
    pub pairs: Vec<Pair>,
    /// For each task with both, image against text: overlap and angles.
    pub modalities: Vec<Pair>,
}

/// The Gram matrices of a task's rows, by modality.
#[derive(Debug, Clone)]
pub struct TaskGram {
    /// The task whose samples were embedded.
    pub task: String,
    /// Visual tokens.
    pub image: Gram,
    /// Instruction tokens.
    pub text: Gram,
}

impl TaskGram {
    /// One pass over a task's samples.
    ///
    /// # Errors
    /// [`PromptError::Sample`] if the model cannot embed a sample, or for embeddings with a NaN.
    pub fn accumulate<'s, M: FrozenModel + ?Sized>(
        model: &M,
        task: &str,
        samples: impl IntoIterator<Item = &'s M::Features>,
    ) -> Result<Self>
    where
        M::Features: 's,
    {
        let dim = model.dims().model;
        let mut grams = Self { task: task.to_owned(), image: Gram::new(dim), text: Gram::new(dim) };
        for (sample, features) in samples.into_iter().enumerate() {
            let failed = |source| PromptError::Sample { task: task.to_owned(), sample, source };
            let rows = model.embeddings(features).map_err(|e| failed(e.into()))?;
            for (gram, rows) in [(&mut grams.image, &rows.image), (&mut grams.text, &rows.text)] {
                gram.push(rows).map_err(|e| failed(e.into()))?;
            }
        }
        Ok(grams)
    }

    /// All rows together.
    ///
    /// # Errors
    /// [`LinalgError::Shape`] if the modalities differ in width.
    pub fn both(&self) -> std::result::Result<Gram, LinalgError> {
        let mut both = self.image.clone();
        both.merge(&self.text)?;
        Ok(both)
    }

    /// The Gram matrices of the modalities that have rows; a task of one modality has that one only.
    ///
    /// # Errors
    /// As [`Self::both`].
    pub fn by_modality(&self) -> std::result::Result<Vec<(Modality, Cow<'_, Gram>)>, LinalgError> {
        let single = [(Modality::Image, &self.image), (Modality::Text, &self.text)];
        let mut grams: Vec<_> = single
            .into_iter()
            .filter(|(_, gram)| gram.n_rows() > 0)
            .map(|(modality, gram)| (modality, Cow::Borrowed(gram)))
            .collect();
        if grams.len() == 2 {
            grams.push((Modality::Both, Cow::Owned(self.both()?)));
        }
        Ok(grams)
    }
}

/// Compares tasks by the subspaces that carry the share `energy` of each.
///
/// # Errors
/// [`PromptError::Linalg`] that names the task.
pub fn analyze(tasks: &[TaskGram], energy: f64) -> Result<Analysis> {
    let mut spectra = Vec::new();
    let mut spaces: Vec<(usize, Modality, Subspace)> = Vec::new();
    for (t, task) in tasks.iter().enumerate() {
        let error = |source| linalg_error(&task.task, "analysis", source);
        for (modality, gram) in task.by_modality().map_err(error)? {
            let space = decompose(&gram, energy).map_err(error)?;
            spectra.push(spectrum(&task.task, modality, gram.n_rows(), &space));
            spaces.push((t, modality, space));
        }
    }
    let (mut pairs, mut modalities) = (Vec::new(), Vec::new());
    for (i, (ta, ma, a)) in spaces.iter().enumerate() {
        for (tb, mb, b) in &spaces[i + 1..] {
            let is_within = ta == tb && *ma == Modality::Image && *mb == Modality::Text;
            if (ta != tb && ma == mb) || is_within {
                let error = |source| linalg_error(&tasks[*tb].task, "analysis", source);
                let angles = principal_angles(&a.basis, &b.basis).map_err(error)?;
                let pair = Pair {
                    a: tasks[*ta].task.clone(),
                    b: tasks[*tb].task.clone(),
                    modality: if is_within { Modality::Both } else { *ma },
                    ranks: [a.basis.len(), b.basis.len()],
                    overlap: overlap(&a.basis, &b.basis).map_err(error)?,
                    angles: angles.into_iter().map(f64::to_degrees).collect(),
                };
                if is_within { modalities.push(pair) } else { pairs.push(pair) }
            }
        }
    }
    Ok(Analysis { energy, spectra, pairs, modalities })
}

/// Ranks at [`ENERGIES`] and effective rank of each stage of a sequence: feed it the Gram matrices of the same samples as the model
/// embeds them after each task, and see whether the rank grows.
///
/// # Errors
/// [`PromptError::Linalg`] that names the stage.
pub fn rank_growth(stages: &[Gram]) -> Result<Vec<([usize; 3], f64)>> {
    let stage = |(i, gram): (usize, &Gram)| {
        let name = format!("stage {i}");
        let space = decompose(gram, 1.0).map_err(|source| linalg_error(&name, "analysis", source))?;
        let of_stage = spectrum(&name, Modality::Both, gram.n_rows(), &space);
        Ok((of_stage.ranks, of_stage.effective_rank))
    };
    stages.iter().enumerate().map(stage).collect()
}

fn decompose(gram: &Gram, energy: f64) -> std::result::Result<Subspace, LinalgError> {
    subspace(gram, &SubspaceConfig { energy, precision: Precision::Double, ..SubspaceConfig::default() })
}

fn spectrum(task: &str, modality: Modality, n_rows: u64, space: &Subspace) -> Spectrum {
    let values = &space.eigenvalues;
    let total = values.iter().sum();
    let rank =
        |energy| choose_rank(values, 0.0, total, &SubspaceConfig { energy, ..SubspaceConfig::default() });
    Spectrum {
        task: task.to_owned(),
        modality,
        n_rows,
        singular_values: values.iter().map(|x| x.sqrt()).collect(),
        energy_curve: energy_curve(values),
        ranks: ENERGIES.map(rank),
        effective_rank: effective_rank(values),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes(dim: usize, scales: &[(usize, f32)]) -> Gram {
        let mut gram = Gram::new(dim);
        for &(axis, scale) in scales {
            let row: Vec<f32> = (0..dim).map(|i| if i == axis { scale } else { 0.0 }).collect();
            gram.push(&row).unwrap();
        }
        gram
    }

    #[test]
    fn known_spectra_and_overlaps() {
        let task = |name: &str, image: &[(usize, f32)], text: &[(usize, f32)]| TaskGram {
            task: name.to_owned(),
            image: axes(4, image),
            text: axes(4, text),
        };
        let tasks = [task("a", &[(0, 3.0), (1, 1.0)], &[(2, 1.0)]), task("b", &[(1, 2.0), (3, 2.0)], &[])];
        let analysis = analyze(&tasks, 1.0).unwrap();
        let image = &analysis.spectra[0];
        assert_eq!((image.task.as_str(), image.modality, image.n_rows), ("a", Modality::Image, 2));
        assert!((image.singular_values[0] - 3.0).abs() < 1e-9 && (image.energy_curve[0] - 0.9).abs() < 1e-9);
        assert_eq!(image.ranks[1..], [2, 2]);
        assert_eq!(analysis.spectra.len(), 4); // a: image, text, both; b: image
        assert!((analysis.spectra[3].effective_rank - 2.0).abs() < 1e-9);
        assert_eq!(analysis.pairs.len(), 1); // the images; b has no text
        assert!((analysis.pairs[0].overlap - 0.5).abs() < 1e-9);
        assert_eq!(analysis.pairs[0].ranks, [2, 2]);
        assert!(analysis.pairs[0].angles[0] < 1e-2 && (analysis.pairs[0].angles[1] - 90.0).abs() < 1e-6);
        assert_eq!((analysis.modalities.len(), analysis.modalities[0].overlap), (1, 0.0));
    }

    #[test]
    fn rank_growth_counts_each_stage() {
        let stages =
            [axes(3, &[(0, 1.0)]), axes(3, &[(0, 1.0), (1, 1.0)]), axes(3, &[(0, 1.0), (1, 1.0), (2, 0.01)])];
        let growth = rank_growth(&stages).unwrap();
        assert_eq!(growth.iter().map(|x| x.0[2]).collect::<Vec<_>>(), [1, 2, 2]);
        assert!(growth.windows(2).all(|w| w[1].1 > w[0].1));
        assert_eq!(rank_growth(&[Gram::new(3)]).unwrap(), [([0, 0, 0], 0.0)]);
    }
}
