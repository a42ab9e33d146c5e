//! What was found, and the files that keep it.

use crate::reader::Input;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// How a reader failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// It panicked.
    Panic,
    /// The process ended: an abort, a signal, memory that was refused.
    Death,
    /// It took too long.
    Hang,
    /// It refused the input by an error that is too long or has control characters.
    Message,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panic => "panic",
            Self::Death => "death",
            Self::Hang => "hang",
            Self::Message => "message",
        })
    }
}

/// What stands beside the bytes of a finding.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) reader: String,
    pub(crate) seed: u64,
    pub(crate) number: u64,
    /// The file of the reader that the bytes stand for.
    pub(crate) file: String,
    pub(crate) is_repaired: bool,
    pub(crate) failure: Failure,
    pub(crate) message: String,
}

impl Finding {
    /// Two findings of one kind are one: the same failure of a reader, whatever the numbers in its message.
    pub(crate) fn kind(&self) -> (Failure, String) {
        let letters = self.message.chars().filter(|c| !c.is_ascii_digit());
        let message = match self.failure {
            // The place, not what was read there.
            Failure::Panic => self.message.chars().take(100).collect(),
            Failure::Death => letters.take(80).collect(),
            Failure::Hang => self.file.clone(),
            Failure::Message => letters.take(30).collect(),
        };
        (self.failure, message)
    }

    /// Writes `READER-SEED-NUMBER.bin` and the same with `.json`. The path of the first.
    pub(crate) fn save(&self, dir: &Path, input: &Input) -> Result<PathBuf> {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(format!("{}-{}-{}.bin", self.reader, self.seed, self.number));
        fs::write(path.with_extension("json"), serde_json::to_vec_pretty(self)?)?;
        fs::write(&path, &input.bytes)?;
        Ok(path)
    }

    /// Reads both files again.
    pub(crate) fn read(path: &Path) -> Result<(Self, Input)> {
        let about = path.with_extension("json");
        let text = fs::read(&about).with_context(|| format!("cannot read {}", about.display()))?;
        let finding: Self = serde_json::from_slice(&text)?;
        let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let input = Input { file: finding.file.clone(), bytes, is_repaired: finding.is_repaired };
        Ok((finding, input))
    }
}
