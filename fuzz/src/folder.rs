//! A folder of intact files, one of which is damaged at a time.

use crate::reader::{Input, Seed};
use anyhow::Result;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) struct Folder {
    path: PathBuf,
    seeds: Vec<Seed>,
    /// The file that is damaged at present.
    damaged: Option<String>,
}

impl Folder {
    /// Writes all files.
    pub(crate) fn new(path: &Path, seeds: &[Seed]) -> Result<Self> {
        for seed in seeds {
            let path = path.join(&seed.name);
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            fs::write(path, &seed.bytes)?;
        }
        Ok(Self { path: path.into(), seeds: seeds.to_vec(), damaged: None })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Damages a file, after the last one was made intact again. Its path.
    pub(crate) fn damage(&mut self, input: &Input) -> Result<PathBuf> {
        if let Some(last) = self.damaged.take().filter(|last| *last != input.file)
            && let Some(seed) = self.seeds.iter().find(|seed| seed.name == last)
        {
            fs::write(self.path.join(last), &seed.bytes)?;
        }
        let path = self.path.join(&input.file);
        fs::write(&path, &input.bytes)?;
        self.damaged = Some(input.file.clone());
        Ok(path)
    }
}
