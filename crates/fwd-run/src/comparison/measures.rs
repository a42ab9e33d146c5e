//! The measures that a comparison of runs shows, in the order of its columns.

use super::finished_run::FinishedRun;
use super::summary::Summary;

/// A measure of a run: a column of a comparison.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Its name in CSV and JSON.
    pub key: &'static str,
    /// At the head of a table.
    pub head: &'static str,
    /// What it is, with its unit.
    pub what: &'static str,
    /// Its value for a run; none where the run does not have it.
    pub of: fn(&FinishedRun) -> Option<f64>,
    /// What kind of number it is, which decides its digits.
    pub form: Form,
}

/// What kind of number a measure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A score from 0 to 100 points (more where CIDEr-D is among the metrics).
    Score,
    /// A loss of points, written without a sign unless it is a gain.
    Points,
    /// A difference of points.
    Difference,
    /// A number of things, such as parameters or samples.
    Count,
    /// A share in percent.
    Percent,
    /// A divergence of distributions, in nats.
    Nats,
    /// A small share, of which the largest counts.
    Largest,
}

impl Measure {
    /// The ends of the interval of a summary, for a score within the scores that there are; none for one value.
    pub fn interval(&self, summary: &Summary) -> Option<(f64, f64)> {
        summary.half_width?;
        let is_score = self.form == Form::Score;
        Some(if is_score { summary.score_interval() } else { (summary.low(), summary.high()) })
    }
}

/// All measures, in the order of columns.
pub const MEASURES: [Measure; 11] = [
    Measure {
        key: "average",
        head: "A",
        what: "mean score over all tasks at the end, in points",
        of: |run| run.metrics.measures.average,
        form: Form::Score,
    },
    Measure {
        key: "forgetting",
        head: "F",
        what: "forgetting: best score of a task before the end less its score at the end, in points",
        of: |run| run.metrics.measures.forgetting,
        form: Form::Points,
    },
    Measure {
        key: "backward_transfer",
        head: "BWT",
        what: "backward transfer: score at the end less the score right after learning, in points",
        of: |run| run.metrics.measures.backward_transfer,
        form: Form::Difference,
    },
    Measure {
        key: "forward_transfer",
        head: "FWT",
        what: "forward transfer: what a task gained before it was learnt, in points",
        of: |run| run.metrics.measures.forward_transfer,
        form: Form::Difference,
    },
    Measure {
        key: "plasticity",
        head: "FWT*",
        what: "score right after learning less that of the task learnt alone, in points",
        of: |run| run.metrics.measures.plasticity,
        form: Form::Difference,
    },
    Measure {
        key: "retention",
        head: "pre-training",
        what: "change of the pre-training tasks' mean score, in points",
        of: |run| run.metrics.measures.retention,
        form: Form::Difference,
    },
    Measure {
        key: "trainable_parameters",
        head: "trained",
        what: "trained numbers",
        of: |run| Some(run.metrics.trainable_parameters as f64),
        form: Form::Count,
    },
    Measure {
        key: "stored_samples",
        head: "stored",
        what: "samples of older tasks that are kept",
        of: |run| Some(run.metrics.stored_samples as f64),
        form: Form::Count,
    },
    Measure {
        key: "leakage",
        head: "leakage",
        what: "largest share of a task's change in a subspace that the rule forbids, over tasks and seeds",
        of: |run| run.metrics.measures.leakage,
        form: Form::Largest,
    },
    Measure {
        key: "output_kl",
        head: "output KL",
        what: "how far the outputs of a task moved after it was learnt: KL(then || at the end) in nats a token",
        of: |run| run.metrics.measures.output_kl,
        form: Form::Nats,
    },
    Measure {
        key: "optimiser_percent",
        head: "optimiser %",
        what: "optimiser's step with its projection, in percent of the training time",
        of: FinishedRun::optimiser_percent,
        form: Form::Percent,
    },
];
