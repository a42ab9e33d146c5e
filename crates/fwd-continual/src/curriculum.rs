//! What is learnt, in which order, and how tasks, moments and columns of the score matrix are named.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A task of a curriculum.
///
/// # Examples
/// ```
/// use fwd_continual::TaskId;
/// let second = TaskId::from_index(1);
/// assert_eq!((second.index(), second.number()), (1, 2));
/// assert_eq!(second.to_string(), "2");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TaskId(usize);

impl TaskId {
    /// The task at a position of [`Curriculum::tasks`], counted from 0.
    pub const fn from_index(index: usize) -> Self {
        Self(index)
    }

    /// Its position in [`Curriculum::tasks`], counted from 0.
    pub const fn index(self) -> usize {
        self.0
    }

    /// How the literature counts it: task t of `1 … T`. Random streams and messages use this number; 0 stands for pre-training.
    pub const fn number(self) -> usize {
        self.0 + 1
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
    }
}

/// A moment of a run at which everything is scored: a row of the score matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(usize);

impl Moment {
    /// Before anything was trained.
    pub const START: Self = Self(0);

    /// When this task had been learnt.
    pub const fn after(task: TaskId) -> Self {
        Self(task.number())
    }

    /// How many tasks have been learnt: the number of the row, from 0.
    pub const fn n_learnt(self) -> usize {
        self.0
    }

    /// The task that was learnt last.
    pub fn last_task(self) -> Option<TaskId> {
        self.0.checked_sub(1).map(TaskId::from_index)
    }

    /// The task that is learnt next, if the curriculum has one more.
    pub const fn next_task(self) -> TaskId {
        TaskId::from_index(self.0)
    }
}

/// What is scored: a column of the score matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Column {
    /// A task of the curriculum.
    Task(TaskId),
    /// The skills that the model had before the first task.
    Pretraining,
}

/// The training samples of one task. `D` is anything that lends a slice of samples: a `Vec`, a slice, an `Arc<[S]>`.
#[derive(Debug, Clone)]
pub struct Task<D> {
    /// The name that stands in events, errors and files.
    pub name: String,
    /// What the task is learnt from; it may be empty, then the task is only scored.
    pub train: D,
}

/// The tasks of a run, in order.
#[derive(Debug, Clone)]
pub struct Curriculum<D> {
    /// Samples of the pre-training tasks. If there are none, there is no pre-training column either.
    pub pretraining: D,
    /// What is learnt, one after another.
    pub tasks: Vec<Task<D>>,
}

/// The name under which pre-training stands among tasks.
pub const PRETRAINING: &str = "pre-training";

impl<D> Curriculum<D> {
    pub(crate) fn train<S>(&self, task: TaskId) -> &[S]
    where
        D: AsRef<[S]>,
    {
        self.tasks[task.index()].train.as_ref()
    }

    /// The name of a column in events, errors and tables.
    pub fn name(&self, column: Column) -> &str {
        match column {
            Column::Task(task) => &self.tasks[task.index()].name,
            Column::Pretraining => PRETRAINING,
        }
    }

    /// The columns of the score matrix: the tasks, and pre-training behind them if there are samples of it.
    pub fn columns<S>(&self) -> Vec<Column>
    where
        D: AsRef<[S]>,
    {
        let tasks = (0..self.tasks.len()).map(|i| Column::Task(TaskId::from_index(i)));
        let pretraining = (!self.pretraining.as_ref().is_empty()).then_some(Column::Pretraining);
        tasks.chain(pretraining).collect()
    }

    /// The tasks by name and size.
    pub fn infos<S>(&self) -> Vec<TaskInfo>
    where
        D: AsRef<[S]>,
    {
        let info =
            |task: &Task<D>| TaskInfo { name: task.name.clone(), n_samples: task.train.as_ref().len() };
        self.tasks.iter().map(info).collect()
    }
}

/// The name of a task and how many samples it has: what a saved state knows of its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskInfo {
    /// As in [`Task::name`].
    pub name: String,
    /// Number of training samples.
    pub n_samples: usize,
}

/// A training sample of a learnt task, by its place in the caller's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredSample {
    /// The task that it belongs to.
    pub task: TaskId,
    /// Its position in the task's training samples, from 0.
    pub sample: usize,
}
