//! A table of scores in a file.

use anyhow::{Context, Result};
use fwd_eval::ScoreTable;
use std::path::Path;

/// Bytes that a file with a table may have.
const MAX_FILE: u64 = 16 << 20;

/// Reads a table of scores from a file of at most 16 MiB.
///
/// # Errors
/// A file that cannot be read, or that is no matrix, naming line and column.
pub fn read_table(path: &Path) -> Result<ScoreTable> {
    let name = path.display().to_string();
    let bytes = fwd_files::read(path, MAX_FILE).with_context(|| format!("cannot read {name}"))?;
    Ok(ScoreTable::read(bytes.as_slice(), &name)?)
}
