//! Predictions that are already there, of any toolbox, scored against a benchmark: one file, or a folder that holds a whole sequence;
//! and tables of scores.

mod file;
mod folder;
mod table;

pub use file::{Counts, FileScore, FileScoring, PeerScore, score_file};
pub use folder::{FolderScores, FolderScoring, score_folder};
pub use table::read_table;
