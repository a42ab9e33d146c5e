//! A run: one method on a sequence of tasks, in a directory of its own that can be killed and taken up again at any time.

mod checked;
mod directory;
mod evaluate;
mod finetune;
mod library;
mod lora;
mod losses;
mod manifest;
mod metrics;
mod outputs;
mod paths;
mod ranks;
mod saved;
mod timing;
mod train;
mod watch;

pub use directory::{RunDir, refuse_finished};
pub use evaluate::{Evaluation, EvaluationOptions, TaskScore, evaluate};
pub(crate) use library::library_of;
pub use lora::answer_with_adapters;
pub use losses::{LossPoint, read_losses};
pub use manifest::{Identity, Machine, Manifest};
pub use metrics::{Measures, RunMetrics, TaskInfo};
pub(crate) use paths::CACHE;
pub use paths::RunPaths;
pub use ranks::{Rank, RankStage, Rows, read_ranks};
pub use saved::{ModelChanges, Reopening, SavedRun};
pub use timing::Timing;
pub(crate) use train::place_of;
pub use train::{directory_below, train};
