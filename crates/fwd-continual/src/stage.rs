//! Where a run stands, and every way from one stage to the next.
//!
//! ```text
//! Pretraining ──> Evaluate(row 0) ──> Begin(task) ──> Train(task, step) ──> Remember(task) ──> Evaluate(row) ──> … ──> Done
//!                                        └──────────── a task without samples ──────────────────┘
//! ```

use crate::curriculum::{Column, Moment, TaskId};
use serde::{Deserialize, Serialize};

/// What is to be done next, with all that exists only then. `T` is the learner's training; a stage without one, `Stage<()>`, says
/// where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[serde(bound(serialize = "", deserialize = "T: Default"))]
pub enum Stage<T = ()> {
    /// The learner looks at the samples of pre-training.
    Pretraining,
    /// The learner makes ready for a task.
    Begin(TaskId),
    /// A training step.
    Train {
        /// The task that is learnt.
        task: TaskId,
        /// How many of its steps are done.
        step: usize,
        /// What the learner keeps while it learns.
        #[serde(skip)]
        training: T,
    },
    /// The task is learnt, and the method takes from it what it wants to remember.
    Remember(TaskId),
    /// One entry of the score matrix.
    Evaluate {
        /// The moment of the score: the row of the score matrix.
        moment: Moment,
        /// The column that is scored next.
        column: Column,
    },
    /// Nothing: all tasks are learnt and scored.
    Done,
}

impl<T> Stage<T> {
    /// The stage without the training.
    pub fn position(&self) -> Stage {
        match *self {
            Self::Pretraining => Stage::Pretraining,
            Self::Begin(task) => Stage::Begin(task),
            Self::Train { task, step, .. } => Stage::Train { task, step, training: () },
            Self::Remember(task) => Stage::Remember(task),
            Self::Evaluate { moment, column } => Stage::Evaluate { moment, column },
            Self::Done => Stage::Done,
        }
    }

    /// The training, while a task is being learnt.
    pub fn training(&self) -> Option<&T> {
        match self {
            Self::Train { training, .. } => Some(training),
            _ => None,
        }
    }
}

impl Stage {
    /// The stage with the training that a saved state holds for it; none if one of them has a training and the other has not.
    pub(crate) fn with_training<T>(self, training: Option<T>) -> Option<Stage<T>> {
        match (self, training) {
            (Self::Train { task, step, .. }, Some(training)) => Some(Stage::Train { task, step, training }),
            (Self::Train { .. }, None) | (_, Some(_)) => None,
            (Self::Pretraining, None) => Some(Stage::Pretraining),
            (Self::Begin(task), None) => Some(Stage::Begin(task)),
            (Self::Remember(task), None) => Some(Stage::Remember(task)),
            (Self::Evaluate { moment, column }, None) => Some(Stage::Evaluate { moment, column }),
            (Self::Done, None) => Some(Stage::Done),
        }
    }
}

/// The columns of a run, which decide what follows a score.
#[derive(Debug, Clone)]
pub(crate) struct Route {
    columns: Vec<Column>,
    n_tasks: usize,
}

impl Route {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        let n_tasks = columns.iter().filter(|column| **column != Column::Pretraining).count();
        Self { columns, n_tasks }
    }

    /// How many scores a row has when it is full.
    pub(crate) fn n_columns(&self) -> usize {
        self.columns.len()
    }

    /// What follows when a row begins: its first score.
    pub(crate) fn scores<T>(&self, moment: Moment) -> Stage<T> {
        self.score_or_next(moment, 0)
    }

    /// What follows a score: the next one of the row, the next task, or the end.
    pub(crate) fn after_score<T>(&self, moment: Moment, column: Column) -> Stage<T> {
        let at = self.columns.iter().position(|other| *other == column);
        self.score_or_next(moment, at.map_or(self.columns.len(), |at| at + 1))
    }

    fn score_or_next<T>(&self, moment: Moment, at: usize) -> Stage<T> {
        match self.columns.get(at) {
            Some(&column) => Stage::Evaluate { moment, column },
            None if moment.n_learnt() < self.n_tasks => Stage::Begin(moment.next_task()),
            None => Stage::Done,
        }
    }

    /// Whether a stage is one of this run: its task and column exist.
    pub(crate) fn has(&self, stage: &Stage) -> bool {
        match *stage {
            Stage::Pretraining | Stage::Done => true,
            Stage::Begin(task) | Stage::Train { task, .. } | Stage::Remember(task) => {
                task.index() < self.n_tasks
            }
            Stage::Evaluate { moment, column } => {
                moment.n_learnt() <= self.n_tasks && self.columns.contains(&column)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_through_all_scores_and_tasks() {
        let task = TaskId::from_index;
        let route = Route::new(vec![Column::Task(task(0)), Column::Task(task(1)), Column::Pretraining]);
        let mut stage: Stage = route.scores(Moment::START);
        let mut seen = Vec::new();
        loop {
            seen.push(stage);
            stage = match stage {
                Stage::Evaluate { moment, column } => route.after_score(moment, column),
                Stage::Begin(task) => route.scores(Moment::after(task)),
                _ => break,
            };
            assert!(route.has(&stage));
        }
        assert_eq!(seen.len(), 3 * 3 + 2 + 1);
        assert_eq!((seen[3], seen[7], seen[11]), (Stage::Begin(task(0)), Stage::Begin(task(1)), Stage::Done));
        assert!(!route.has(&Stage::Begin(task(2))));
        // Without any column a run has nothing to do.
        assert_eq!(Route::new(vec![]).scores::<()>(Moment::START), Stage::Done);
    }

    #[test]
    fn a_stage_comes_back_from_json_without_its_training() {
        let stage = Stage::Train { task: TaskId::from_index(1), step: 7, training: "moments" };
        let json = serde_json::to_string(&stage.position()).unwrap();
        let position: Stage = serde_json::from_str(&json).unwrap();
        assert_eq!(position.with_training(Some("moments")), Some(stage));
        assert_eq!(position.with_training(None::<()>), None);
        assert_eq!(Stage::Done.with_training(Some(1)), None);
        assert_eq!((stage.training(), Stage::<u8>::Done.training()), (Some(&"moments"), None));
    }
}
