//! Predictions that are already there, of any toolbox, scored against a benchmark: one file, or a folder that holds a whole sequence.

mod file;
mod folder;

pub use file::{FileScore, FileScoring, PeerScore, score_file};
pub use folder::{FolderScores, FolderScoring, score_folder};
