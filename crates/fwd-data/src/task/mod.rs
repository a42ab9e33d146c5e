//! Tasks as the field keeps them on disk: LLaVA conversations, test questions, TextVQA, COCO captions, CSV and parquet.
//!
//! [`read`] streams the records of one file, whatever its format, in bounded memory; a [`TaskSet`] describes the files of several
//! tasks, or finds them in a folder, and [`open`] makes a [`Benchmark`](crate::bench::Benchmark) of it; [`check`] looks for what
//! makes scores worthless; [`init()`] makes a set from folders of pictures; [`convert`] writes the packed format and the LLaVA layout; [`annotations`] are what predictions are
//! scored against.
//!
//! ```no_run
//! use fwd_data::task::{self, OnBad};
//! let loaded = task::open("cl_dataset".as_ref(), OnBad::Refuse)?;
//! println!("{} tasks", loaded.bench.tasks.len());
//! # Ok::<(), fwd_data::DataError>(())
//! ```

mod annotations;
mod check;
mod coco;
pub mod convert;
mod csv;
mod description;
mod fields;
mod format;
mod images;
mod init;
mod json;
mod literal;
mod llava;
#[cfg(feature = "parquet")]
mod parquet;
mod picture;
mod presets;
mod questions;
mod reader;
mod record;
mod references;
mod set;
mod source;
mod textvqa;
pub use crate::leaks::{Closing, Share};
pub use crate::skip::{OnBad, Remarks, Skipped};
pub use annotations::{Annotation, Annotations, annotations, sequence};
pub use check::{Finding, Findings, Look, TaskReport, check, check_with};
pub use description::{FileNames, Kind, TaskSpec};
pub use format::Format;
pub use images::ImageRoot;
pub use init::{Init, Made, MadeTask, init};
pub use presets::{Preset, is_same_task};
pub use reader::{Records, read};
pub use record::{ImageSource, TaskRecord};
pub use set::{Loaded, TaskSet, open};

#[cfg(test)]
mod tests;
