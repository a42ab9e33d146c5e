//! What a run leaves: its own files, and the features that it keeps.

use crate::folder::Folder;
use crate::reader::{Reader, Seed};
use crate::toy::Toy;
use anyhow::{Context, Result};
use fwd_run::comparison::{Comparison, ComparisonTable};
use fwd_run::model::FeatureStore;
use fwd_run::run::{RunMetrics, SavedRun, read_ranks};
use fwd_run::{Observer, Silent};
use std::fs;
use std::path::{Path, PathBuf};

/// The files of a finished run, as `compare`, `report`, `eval` and `ask` read them.
pub(crate) fn run(folder: &Path) -> Result<Reader> {
    let toy = Toy::open(folder.parent().context("a folder")?)?;
    let files = files(&toy.run)?;
    // Seconds are those of the machine.
    let is_read =
        |name: &str| !["log.txt", "lock", "timing.json"].contains(&name) && !name.starts_with("predictions");
    let mut seeds: Vec<Seed> = files.into_iter().filter(|seed| is_read(&seed.name)).collect();
    seeds.push(Seed::new("timing.json", fs::read(toy.run.join("timing.json"))?));
    let model = fwd_models::load(&toy.model, fwd_models::WeightDtype::F32, &candle_core::Device::Cpu)?;
    let manifest = fs::read(toy.run.join("state/state.json"))?;
    let mut folder = Folder::new(folder, &seeds)?;
    Ok(Reader::new(seeds, move |input| {
        folder.damage(input)?;
        if input.is_repaired && input.file.ends_with(".safetensors") {
            let name = input.file.trim_start_matches("state/");
            let manifest = super::state::of_tensors(&manifest, name, &input.bytes)?;
            fs::write(folder.path().join("state/state.json"), manifest)?;
        } else if input.file != "state/state.json" {
            fs::write(folder.path().join("state/state.json"), &manifest)?;
        }
        let dir = folder.path().to_path_buf();
        let ranks = read_ranks(&dir).map(drop);
        let table = Comparison::read(std::slice::from_ref(&dir), false)
            .and_then(|c| ComparisonTable::new(c, None))
            .map(drop);
        let metrics = RunMetrics::read(&dir).map(drop);
        SavedRun::read(&dir)?.prompts(&*model, None)?;
        ranks.and(table).and(metrics)
    })
    .repaired_by(super::state::seal))
}

/// Features on disk: what is damaged is computed anew.
pub(crate) fn features(folder: &Path) -> Result<Reader> {
    let toy = Toy::open(folder.parent().context("a folder")?)?;
    let session: &'static _ = Box::leak(Box::new(toy.session()?));
    let record = session.bench.tasks.first().and_then(|task| task.records.first()).context("a record")?;
    let store = FeatureStore::new(&session.backbone, &session.bench, folder.into(), &Silent);
    let sample = store.samples(&[record], &*Silent.begin("", 1))?;
    let seeds = files(folder)?;
    let mut folder = Folder::new(folder, &seeds)?;
    let reader = Reader::new(seeds, move |input| {
        folder.damage(input)?;
        let again = store.samples(&[record], &*Silent.begin("", 1))?;
        let is_read = input.is_repaired || again == sample;
        assert!(is_read, "damaged features were used");
        Ok(())
    });
    Ok(reader.repaired_by(|bytes| {
        if let Some((head, body)) = bytes.split_at_mut_checked(12) {
            head[8..].copy_from_slice(&crc32fast::hash(body).to_le_bytes());
        }
    }))
}

/// All files below a folder, by their names in it.
fn files(dir: &Path) -> Result<Vec<Seed>> {
    fn walk(dir: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            if path.is_dir() { walk(&path, paths)? } else { paths.push(path) }
        }
        Ok(())
    }
    let mut paths = Vec::new();
    walk(dir, &mut paths)?;
    paths.sort();
    let seed = |path: &PathBuf| Ok(Seed::new(path.strip_prefix(dir)?.to_string_lossy(), fs::read(path)?));
    paths.iter().map(seed).collect()
}
