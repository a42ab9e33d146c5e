//! Whether the result of a run is what its parts say. `metrics.json` has no checksum, so what follows from the score matrix is computed
//! again, and the matrix from the answers that lie beside it, when a result is read.
//!
//! Numbers agree if they differ by at most 1e-9 of the larger of 1 and themselves: they are written with every bit, and sums may be taken
//! in another order.

use super::manifest::Manifest;
use super::metrics::{Measures, RunMetrics};
use super::paths::RunPaths;
use crate::method::Method;
use crate::predictions;
use anyhow::{Result, bail, ensure};
use fwd_continual::ScoreMatrix;
use std::path::Path;

/// The largest difference of two computations of one number.
const TOLERANCE: f64 = 1e-9;

impl RunMetrics {
    /// Refuses a result whose measures are not those of its scores; but for the plasticity, which needs scores of other runs.
    pub(super) fn check(&self, dir: &Path) -> Result<()> {
        let file = RunPaths::new(dir).metrics_json();
        let (file, n_tasks) = (file.display(), self.tasks.len());
        let n_rows = match self.method {
            Method::ZeroShot => 1,
            Method::Independent | Method::Joint => 2,
            _ => n_tasks + 1,
        };
        let width = self.scores.first().map_or(0, Vec::len);
        let is_whole = width == n_tasks || width == n_tasks + 1;
        ensure!(
            is_whole && self.scores.len() == n_rows && self.scores.iter().all(|row| row.len() == width),
            "{file}, `scores`: {n_tasks} tasks under `{}` have {n_rows} rows of as many scores each, these are {:?} long; the file was changed or is damaged",
            self.method,
            self.scores.iter().map(Vec::len).collect::<Vec<_>>()
        );
        let ours = self.measures_of(None).named();
        for ((name, ours), (_, theirs)) in ours.into_iter().zip(self.measures.named()) {
            // These are not of the scores.
            if name != "plasticity" && name != "output_kl" {
                compare(&format!("{file}, `measures.{name}`"), theirs, ours, "the scores")?;
            }
        }
        let percent = 100.0 * self.trainable_parameters as f64 / self.backbone_parameters.max(1) as f64;
        let what = format!("{file}, `trainable_percent`");
        compare(&what, Some(self.trainable_percent), Some(percent), "the parameters")
    }

    /// Refuses a result that is not of the run of this manifest.
    pub(crate) fn check_manifest(&self, dir: &Path, manifest: &Manifest) -> Result<()> {
        let file = RunPaths::new(dir).metrics_json();
        let (file, config) = (file.display(), &manifest.run.config);
        let tasks: Vec<&str> = self.tasks.iter().map(|task| task.name.as_str()).collect();
        let pairs = [
            ("method", self.method.to_string(), config.method.to_string()),
            ("seed", self.seed.to_string(), config.seed.to_string()),
            ("compute", self.compute.name().to_owned(), config.compute.name().to_owned()),
            ("split", self.split.clone(), config.split.name().to_owned()),
            ("tasks", tasks.join(", "), config.tasks.join(", ")),
        ];
        for (key, here, there) in pairs {
            ensure!(here == there, "{file}, `{key}`: {here}, but the run's manifest says {there}");
        }
        let alone = manifest.run.alone.as_ref();
        let alone: Option<Vec<f64>> =
            alone.and_then(|all| tasks.iter().map(|task| all.get(*task).copied()).collect());
        let ours = self.measures_of(alone.as_deref()).plasticity;
        compare(&format!("{file}, `measures.plasticity`"), self.measures.plasticity, ours, "the scores")
    }

    /// Refuses scores that are not those of the answers beside them. Those of pre-training tasks are not looked at, nor what has no file.
    pub(crate) fn check_answers(&self, dir: &Path) -> Result<()> {
        let paths = RunPaths::new(dir);
        let file = paths.metrics_json();
        for (after, row) in self.scores.iter().enumerate() {
            for (j, (task, &score)) in self.tasks.iter().zip(row).enumerate() {
                let answers = paths.answers(after, &task.name);
                if !answers.is_file() {
                    continue;
                }
                let (figure, n) = predictions::read_figure(task.metric, &answers)?;
                ensure!(
                    n == task.n_scored,
                    "{}, `tasks[{j}].n_scored`: {}, but {} has {n} answers; one of the files was changed or is damaged",
                    file.display(),
                    task.n_scored,
                    answers.display()
                );
                let what = format!("{}, `scores[{after}][{j}]`", file.display());
                compare(&what, Some(score), Some(figure), &answers.display().to_string())?;
            }
        }
        Ok(())
    }

    /// What the matrix comes to.
    fn measures_of(&self, alone: Option<&[f64]>) -> Measures {
        match (self.method, self.scores.as_slice()) {
            (Method::ZeroShot | Method::Independent | Method::Joint, [.., last]) => Measures::of_row(last),
            _ => {
                let matrix = ScoreMatrix { n_tasks: self.tasks.len(), rows: self.scores.clone() };
                Measures::of_sequence(&matrix, &self.interference, alone)
            }
        }
    }
}

/// Refuses a number of a file that is not the one computed from `source`.
fn compare(what: &str, theirs: Option<f64>, ours: Option<f64>, source: &str) -> Result<()> {
    let is_equal = match (theirs, ours) {
        (None, None) => true,
        (Some(a), Some(b)) => (a - b).abs() <= TOLERANCE * a.abs().max(b.abs()).max(1.0),
        _ => false,
    };
    if is_equal {
        return Ok(());
    }
    let text = |value: Option<f64>| value.map_or("nothing".to_owned(), |value| value.to_string());
    bail!(
        "{what}: {}, but {source} give {}; one of the files was changed or is damaged",
        text(theirs),
        text(ours)
    )
}
