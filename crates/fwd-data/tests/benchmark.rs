//! The committed benchmark is sound, and within its budget.

#![allow(clippy::unwrap_used)]

use flate2::{Compression, write::ZlibEncoder};
use fwd_data::bench::{Benchmark, Stage, check};
use fwd_data::task::Skipped;
use std::io::Write;
use std::path::{Path, PathBuf};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../assets/bench")
}

#[test]
fn the_embedded_benchmark_is_clean() {
    let bench = Benchmark::open(&dir()).unwrap();
    let report = check(&bench, Skipped::default());
    assert!(report.is_clean(), "{report}");
    assert!(bench.pretraining().len() >= 8, "pre-training tasks");
    assert!(
        bench.tasks.iter().filter(|task| task.stage == Stage::Downstream).count() >= 5,
        "downstream tasks"
    );
}

/// Bytes of all files below a folder as git keeps them, deflated.
fn size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| if path.is_dir() { size(&path) } else { deflated(&std::fs::read(path).unwrap()) })
        .sum()
}

fn deflated(bytes: &[u8]) -> u64 {
    let mut encoder = ZlibEncoder::new(std::io::sink(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.try_finish().unwrap();
    encoder.total_out()
}

#[test]
fn the_embedded_benchmark_stays_small() {
    assert!(size(&dir()) <= 16_000_000, "{} bytes", size(&dir()));
}

#[test]
fn each_folder_of_images_says_where_they_come_from() {
    for entry in std::fs::read_dir(dir()).unwrap() {
        let folder = entry.unwrap().path();
        if folder.join("images.pack").exists() {
            assert!(folder.join("README.md").exists(), "{} has no README.md", folder.display());
            assert!(folder.join("LICENSE").exists(), "{} has no LICENSE", folder.display());
        }
    }
}
