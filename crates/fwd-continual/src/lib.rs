#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod curriculum;
mod differences;
mod error;
mod event;
mod learner;
mod loop_state;
mod method;
mod plan;
mod saved;
mod schedule;
mod scores;
mod stage;
mod streams;
mod trainer;

pub use curriculum::{Column, Curriculum, Moment, PRETRAINING, StoredSample, Task, TaskId, TaskInfo};
pub use differences::differences;
pub use error::{ContinualError, Failure, NotFinite, Place, Result, chain};
pub use event::{Event, Observe, Reporter};
pub use learner::{Batch, Change, Gradients, Learner, StepReport, TaskAt};
pub use loop_state::LoopState;
pub use method::*;
pub use plan::Plan;
pub use saved::{SavedState, Section, SectionError};
pub use schedule::{Decay, Schedule};
pub use scores::ScoreMatrix;
pub use stage::Stage;
pub use streams::{normal, permutation, stream};
pub use trainer::{Evaluate, Status, Trainer};
