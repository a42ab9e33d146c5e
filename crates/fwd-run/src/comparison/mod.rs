//! Finished runs beside each other: which may be compared, which are one method under several seeds, and what they come to.

mod finished_run;
mod grouping;
mod measures;
mod summary;
mod table;

pub use finished_run::FinishedRun;
pub use grouping::{Comparison, Group};
pub use measures::{Form, MEASURES, Measure};
pub use summary::{CONFIDENCE, Summary};
pub use table::ComparisonTable;
