//! The packed benchmark: its images, and its index with the records.

use crate::folder::Folder;
use crate::reader::{Reader, Seed};
use crate::toy;
use anyhow::Result;
use fwd_data::bench::{Benchmark, check};
use fwd_data::task::{self, OnBad};
use fwd_data::{ImageLimits, RgbImage};
use std::path::Path;

/// `images.pack`, and every image in it.
pub(crate) fn pack(folder: &Path) -> Result<Reader> {
    files(folder, |name| name.ends_with(".pack"))
}

/// `benchmark.json` and the records.
pub(crate) fn index(folder: &Path) -> Result<Reader> {
    files(folder, |name| !name.ends_with(".pack"))
}

fn files(folder: &Path, is_damaged: fn(&str) -> bool) -> Result<Reader> {
    let intact: Vec<Seed> =
        toy::benchmark()?.into_iter().map(|(name, bytes)| Seed::new(name, bytes)).collect();
    let mut folder = Folder::new(folder, &intact)?;
    let seeds = intact.into_iter().filter(|seed| is_damaged(&seed.name)).collect();
    Ok(Reader::new(seeds, move |input| {
        folder.damage(input)?;
        // Also as `--skip-bad` has it, which decodes the images.
        let skipping = task::open(folder.path(), OnBad::Skip);
        if let Ok(loaded) = skipping {
            let report = check(&loaded.bench, loaded.skipped);
            let _ = report.to_string();
        }
        let bench = Benchmark::open(folder.path())?;
        for record in bench.tasks.iter().flat_map(|task| &task.records) {
            RgbImage::decode(&bench.image(&record.image)?, &record.image, ImageLimits::default())?;
        }
        Ok(())
    }))
}
