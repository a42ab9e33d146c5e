//! The result of a run: score matrix and measures, as JSON and CSV. Nothing in it depends on time, and of the machine only what the level
//! of vector instructions and the number of threads make of last digits, so two runs of one configuration at one level write the same bytes.

use super::paths::RunPaths;
use crate::files::{read_json, write_atomically, write_json};
use crate::method::Method;
use crate::samples::PRETRAINING;
use anyhow::{Context, Result, ensure};
use fwd_continual::ScoreMatrix;
use fwd_data::bench::{BenchTask, Metric, Split};
use fwd_ops::Compute;
use fwd_prompt::Interference;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

/// The result of a run: `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunMetrics {
    /// How the tasks were learnt.
    pub method: Method,
    /// The seed of every random stream of the run.
    pub seed: u64,
    /// The split that was scored.
    pub split: String,
    /// The tasks in the order in which they were learnt: the columns of `scores`.
    pub tasks: Vec<TaskInfo>,
    /// Row i: after so many tasks (for `joint` and `independent`, row 1 is after training), in percent of each task's metric;
    /// a last column more than tasks is the mean of the pre-training tasks.
    pub scores: Vec<Vec<f64>>,
    /// What the matrix comes to.
    pub measures: Measures,
    /// For each task so far, how much of its change lies in each older subspace.
    pub interference: Vec<Vec<Interference>>,
    /// Directions of each subspace, pre-training first.
    pub ranks: Vec<usize>,
    /// Trained numbers: prompts and keys.
    pub trainable_parameters: u64,
    /// Numbers in the frozen model's files.
    pub backbone_parameters: u64,
    /// The former in percent of the latter.
    pub trainable_percent: f64,
    /// Samples of older tasks that are kept.
    pub stored_samples: u64,
    /// How the model's frozen products were computed; in f32 if the file does not say.
    #[serde(default)]
    pub compute: Compute,
    /// The levels of vector instructions ([`fwd_simd::Level`]) that the run was computed at, in the order in which they came: more than
    /// one if it was continued at another. Empty if the file is from before levels were written down.
    #[serde(default)]
    pub levels: Vec<String>,
}

/// A task of a run: a column of its score matrix.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskInfo {
    /// Its name in the benchmark.
    pub name: String,
    /// By which its answers are scored.
    pub metric: Metric,
    /// Whether its images were made by a program.
    pub synthetic: bool,
    /// How many training samples it has.
    pub n_train: usize,
    /// How many samples of the scored split it has.
    pub n_scored: usize,
}

/// The measures of continual learning, in points; none where one is not defined for the method, or needs what is not there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measures {
    /// A_T: mean over all tasks at the end.
    pub average: Option<f64>,
    /// Mean of A_t over the sequence.
    pub mean_average: Option<f64>,
    /// F_T: the best score of a task before the end less its score at the end, the mean over tasks.
    pub forgetting: Option<f64>,
    /// BWT_T: the score of a task at the end less that right after it was learnt, the mean over tasks.
    pub backward_transfer: Option<f64>,
    /// FWT, zero-shot form: what a task gained before it was learnt, the mean over tasks.
    pub forward_transfer: Option<f64>,
    /// FWT*, plasticity form: against each task alone.
    pub plasticity: Option<f64>,
    /// What is left of pre-training.
    pub retention: Option<f64>,
    /// The largest share of a change in a subspace that the rule forbids.
    pub leakage: Option<f64>,
    /// How far the outputs of a task have moved at the end since it was learnt: the mean over tasks and tokens of `KL(then ‖ now)`, in
    /// nats. None also if the run is from before it was measured.
    #[serde(default)]
    pub output_kl: Option<f64>,
}

impl TaskInfo {
    /// That of a task whose split `split` is scored.
    pub fn new(task: &BenchTask, split: Split) -> Self {
        Self {
            name: task.name.clone(),
            metric: task.metric,
            synthetic: task.synthetic,
            n_train: task.split(Split::Train).count(),
            n_scored: task.split(split).count(),
        }
    }
}

impl Measures {
    /// Those of a sequence; `alone` are the scores of each task learnt alone. A score that is NaN is missing, and with it every measure
    /// that it is part of.
    pub fn of_sequence(
        scores: &ScoreMatrix,
        interference: &[Vec<Interference>],
        alone: Option<&[f64]>,
    ) -> Self {
        let t = scores.n_tasks;
        let forbidden = interference.iter().flatten().filter(|i| i.forbidden).map(|i| i.leakage);
        let known = |measure: Option<f64>| measure.filter(|value| !value.is_nan());
        Self {
            average: known(scores.average(t)),
            mean_average: known(scores.mean_average()),
            forgetting: known(scores.forgetting(t)),
            backward_transfer: known(scores.backward_transfer(t)),
            forward_transfer: known(scores.forward_transfer()),
            plasticity: known(alone.and_then(|alone| scores.plasticity(alone))),
            retention: known(scores.retention(t)),
            leakage: forbidden.reduce(f64::max),
            output_kl: None,
        }
    }

    /// Those of one row: the mean.
    pub fn of_row(row: &[f64]) -> Self {
        let average = row.iter().sum::<f64>() / row.len().max(1) as f64;
        Self { average: (!row.is_empty()).then_some(average), ..Self::default() }
    }

    /// Names and values, in the order of tables.
    pub fn named(&self) -> [(&'static str, Option<f64>); 9] {
        [
            ("average", self.average),
            ("mean_average", self.mean_average),
            ("forgetting", self.forgetting),
            ("backward_transfer", self.backward_transfer),
            ("forward_transfer", self.forward_transfer),
            ("plasticity", self.plasticity),
            ("retention", self.retention),
            ("leakage", self.leakage),
            ("output_kl", self.output_kl),
        ]
    }
}

impl RunMetrics {
    /// Writes both files; the JSON last, because it says that the run is finished.
    ///
    /// # Errors
    /// If one cannot be written.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let paths = RunPaths::new(dir);
        write_atomically(&paths.metrics_csv(), self.csv().as_bytes())?;
        write_json(&paths.metrics_json(), self)
    }

    /// Reads the JSON file of a run.
    ///
    /// # Errors
    /// If the run is not finished, or the file damaged: also if its measures are not those of its scores.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = RunPaths::new(dir).metrics_json();
        let name = path.file_name().unwrap_or_default().display();
        ensure!(path.is_file(), "{} is no finished run: it has no {name}", dir.display());
        let metrics: Self = read_json(&path)?;
        metrics.check(dir)?;
        Ok(metrics)
    }

    /// The score of each task learnt alone, by name, from a run of the method `independent`.
    ///
    /// # Errors
    /// If the run is not finished, of another method, split or compute, or if its scores are not those of its answers.
    pub fn read_alone(dir: &Path, split: Split, compute: Compute) -> Result<BTreeMap<String, f64>> {
        let metrics = Self::read(dir)?;
        metrics.check_answers(dir)?;
        let dir = dir.display();
        ensure!(
            metrics.method == Method::Independent,
            "{dir} is a run of `{}`, not of `independent`",
            metrics.method
        );
        ensure!(
            metrics.split == split.name(),
            "{dir} scored `{}`, this run scores `{}`",
            metrics.split,
            split.name()
        );
        ensure!(
            metrics.compute == compute,
            "{dir} was computed in {}, this run is in {compute}: begin one of `independent` with --compute {compute}",
            metrics.compute
        );
        let row = metrics.scores.get(1).with_context(|| format!("{dir} has no scores after training"))?;
        Ok(metrics.tasks.iter().map(|t| t.name.clone()).zip(row.iter().copied()).collect())
    }

    /// `kind,after,name,value`: scores, then measures and sizes.
    fn csv(&self) -> String {
        let mut out = String::from("kind,after,name,value\n");
        let names = self.tasks.iter().map(|t| t.name.as_str()).chain([PRETRAINING]);
        for (after, row) in self.scores.iter().enumerate() {
            for (name, score) in names.clone().zip(row) {
                let _ = writeln!(out, "score,{after},{name},{score}");
            }
        }
        for (name, value) in self.measures.named() {
            let value = value.map(|v| v.to_string()).unwrap_or_default();
            let _ = writeln!(out, "measure,,{name},{value}");
        }
        for (name, value) in [
            ("trainable_parameters", self.trainable_parameters),
            ("backbone_parameters", self.backbone_parameters),
            ("stored_samples", self.stored_samples),
        ] {
            let _ = writeln!(out, "size,,{name},{value}");
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(method: Method) -> RunMetrics {
        let task = |name: &str| TaskInfo {
            name: name.to_owned(),
            metric: Metric::Exact,
            synthetic: false,
            n_train: 3,
            n_scored: 2,
        };
        let scores = vec![vec![10.0, 20.0, 50.0], vec![60.0, 24.0, 49.0], vec![50.0, 70.0, 48.0]];
        let leak = |leakage, forbidden| Interference { task: "a".to_owned(), leakage, forbidden };
        let interference = vec![vec![leak(0.9, false)], vec![leak(0.5, false), leak(1e-7, true)]];
        let matrix = ScoreMatrix { n_tasks: 2, rows: scores.clone() };
        RunMetrics {
            method,
            seed: 7,
            split: "test".to_owned(),
            tasks: vec![task("a"), task("b")],
            scores,
            measures: Measures::of_sequence(&matrix, &interference, Some(&[61.0, 71.0])),
            interference,
            ranks: vec![3, 2, 1],
            trainable_parameters: 12,
            backbone_parameters: 1200,
            trainable_percent: 1.0,
            stored_samples: 0,
            compute: Compute::F32,
            levels: vec!["avx2".to_owned()],
        }
    }

    #[test]
    fn measures_of_a_sequence() {
        let measures = metrics(Method::Fwd).measures;
        assert_eq!((measures.average, measures.forgetting), (Some(60.0), Some(10.0)));
        assert_eq!((measures.forward_transfer, measures.plasticity), (Some(4.0), Some(-1.0)));
        assert_eq!((measures.retention, measures.leakage), (Some(-2.0), Some(1e-7)));
        assert_eq!(Measures::of_row(&[1.0, 2.0]).average, Some(1.5));
        assert_eq!(Measures::of_row(&[]).average, None);
    }

    #[test]
    fn files_come_back_and_read_alike() {
        let dir = tempfile::tempdir().unwrap();
        assert!(RunMetrics::read(dir.path()).unwrap_err().to_string().contains("no finished run"));
        let sequence = metrics(Method::Fwd);
        sequence.write(dir.path()).unwrap();
        assert_eq!(RunMetrics::read(dir.path()).unwrap(), sequence);
        let csv = std::fs::read_to_string(RunPaths::new(dir.path()).metrics_csv()).unwrap();
        assert!(csv.contains("score,1,b,24\n") && csv.contains("score,2,pre-training,48\n"), "{csv}");
        assert!(csv.contains("measure,,leakage,0.0000001\n"), "{csv}");
        independent().write(dir.path()).unwrap();
        let alone = RunMetrics::read_alone(dir.path(), Split::Test, Compute::F32).unwrap();
        assert_eq!(alone.get("b"), Some(&24.0));
        assert!(RunMetrics::read_alone(dir.path(), Split::Val, Compute::F32).is_err());
        let error = RunMetrics::read_alone(dir.path(), Split::Test, Compute::Bf16).unwrap_err().to_string();
        assert!(error.contains("computed in f32, this run is in bf16"), "{error}");
    }

    fn independent() -> RunMetrics {
        let scores = vec![vec![10.0, 20.0], vec![60.0, 24.0]];
        let measures = Measures::of_row(&scores[1]);
        RunMetrics { scores, measures, interference: Vec::new(), ..metrics(Method::Independent) }
    }

    #[test]
    fn a_result_that_was_changed_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = RunPaths::new(dir.path());
        metrics(Method::Fwd).write(dir.path()).unwrap();
        let text = std::fs::read_to_string(path.metrics_json()).unwrap();
        let message = |from: &str, to: &str| {
            assert!(text.contains(from), "{from}");
            std::fs::write(path.metrics_json(), text.replacen(from, to, 1)).unwrap();
            RunMetrics::read(dir.path()).unwrap_err().to_string()
        };
        let changed = message("\"average\": 60.0", "\"average\": 66.0");
        assert!(
            changed.contains("metrics.json, `measures.average`: 66, but the scores give 60"),
            "{changed}"
        );
        let changed = message("70.0", "71.0");
        assert!(changed.contains("`measures.average`: 60, but the scores give 60.5"), "{changed}");
        let changed = message("\"forgetting\": 10.0", "\"forgetting\": null");
        assert!(changed.contains("`measures.forgetting`: nothing, but the scores give 10"), "{changed}");
        let changed = message("\"trainable_percent\": 1.0", "\"trainable_percent\": 0.1");
        assert!(changed.contains("`trainable_percent`: 0.1, but the parameters give 1"), "{changed}");
        let changed = message("\"fwd\"", "\"zero-shot\"");
        assert!(changed.contains("`scores`: 2 tasks under `zero-shot` have 1 rows"), "{changed}");
    }

    #[test]
    fn scores_that_are_not_those_of_the_answers_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let metrics = independent();
        metrics.write(dir.path()).unwrap();
        let answers = RunPaths::new(dir.path()).answers(1, "b");
        let line = |text: &str| {
            let line = serde_json::json!({
                "question_id": "1", "prompt": "Is it?", "text": text, "answers": ["yes"], "score": 0.0
            });
            format!("{line}\n")
        };
        std::fs::create_dir_all(answers.parent().unwrap()).unwrap();
        std::fs::write(&answers, line("yes") + &line("no")).unwrap();
        let error = RunMetrics::read_alone(dir.path(), Split::Test, Compute::F32).unwrap_err().to_string();
        assert!(error.contains("`scores[1][1]`: 24, but") && error.contains("b.jsonl give 50"), "{error}");
        std::fs::write(&answers, line("yes")).unwrap();
        let error = metrics.check_answers(dir.path()).unwrap_err().to_string();
        assert!(error.contains("`tasks[1].n_scored`: 2, but") && error.contains("has 1 answers"), "{error}");
    }
}
