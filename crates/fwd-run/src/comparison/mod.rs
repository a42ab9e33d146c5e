//! Finished runs beside each other: which may be compared, which are one method under several seeds, and what they come to; and what
//! there is of a run that is not finished.

mod examples;
mod finished_run;
mod grouping;
mod measures;
mod summary;
mod table;
mod unfinished;

pub use examples::{Change, Example, Given, RIGHT, benchmark_of, examples};
pub use finished_run::FinishedRun;
pub use grouping::{Comparison, Group};
pub use measures::{Form, MEASURES, Measure};
pub use summary::{CONFIDENCE, Summary};
pub use table::{Against, ComparisonTable};
pub use unfinished::UnfinishedRun;
