//! Times what stands between the files and the model, and prints JSON: decoding and preprocessing of images, CIDEr-D of captions.
//!
//! The images are pictures of the embedded benchmark, enlarged to 640 × 480 and written as JPEG into a folder that the peer's
//! benchmark reads too; the captions are those of the benchmark, five references each, in a file beside them.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use fwd_data::bench::{Benchmark, Split};
use fwd_data::{ImageLimits, ImageProcessor, Orientation, RgbImage, resize_bicubic};
use fwd_eval::cider_d;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IMAGES: usize = 600;
const CAPTIONS: usize = 5000;
const REFERENCES: usize = 5;
const SIDES: (usize, usize) = (640, 480);

#[derive(Parser)]
#[command(about)]
struct Args {
    /// Folder of images and captions; it is made if it is not there.
    #[arg(long)]
    data: PathBuf,
    /// Timed runs of each row.
    #[arg(long, default_value_t = 3)]
    iters: usize,
    /// Threads of the pool that decodes the images.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

#[allow(clippy::print_stdout)]
fn main() -> Result<()> {
    let args = Args::parse();
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    if !args.data.exists() {
        prepare(&args.data)?;
    }
    let mut paths: Vec<PathBuf> =
        fs::read_dir(args.data.join("images"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    paths.sort();
    let processor = ImageProcessor::clip(224);
    let images = median(args.iters, || {
        let read = |path: &PathBuf| -> Result<f32> {
            let (bytes, limits) = (fs::read(path)?, ImageLimits::default());
            let pixels = processor.process_bytes(&bytes, "image", limits, Orientation::Stored)?;
            Ok(pixels.iter().sum())
        };
        black_box(paths.par_iter().map(read).collect::<Result<Vec<_>>>()?);
        Ok(())
    })?;
    let text: Value = serde_json::from_slice(&fs::read(args.data.join("captions.json"))?)?;
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|t| t.as_str().map(str::to_owned)).collect()
    };
    let candidates = strings(&text["candidates"]);
    let references: Vec<Vec<String>> =
        text["references"].as_array().into_iter().flatten().map(strings).collect();
    let words = |text: &String| -> Vec<String> { text.split(' ').map(str::to_owned).collect() };
    let captions = median(args.iters, || {
        let candidates: Vec<_> = candidates.iter().map(words).collect();
        let references: Vec<Vec<_>> = references.iter().map(|r| r.iter().map(words).collect()).collect();
        black_box(cider_d(&candidates, &references)?);
        Ok(())
    })?;
    let (n_images, n_captions) = (paths.len(), candidates.len());
    let rows = json!({ format!("images {n_images}"): { "median": images }, format!("cider {n_captions}"): { "median": captions } });
    println!("{}", json!({ "ms": rows }));
    Ok(())
}

fn median(iters: usize, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    run()?;
    let mut ms = Vec::new();
    for _ in 0..iters.max(1) {
        let start = Instant::now();
        run()?;
        ms.push(start.elapsed().as_secs_f64() * 1e3);
    }
    ms.sort_by(f64::total_cmp);
    Ok(ms[ms.len() / 2])
}

/// Writes images and captions, the same every time.
fn prepare(dir: &Path) -> Result<()> {
    let bench = Benchmark::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/bench"))?;
    let folder = dir.join("images");
    fs::create_dir_all(&folder)?;
    let caption = bench.task("caption")?;
    let records: Vec<_> = caption.split(Split::Train).collect();
    let write = |(i, record): (usize, &&fwd_data::bench::Record)| -> Result<()> {
        let small = RgbImage::decode(&bench.image(&record.image)?, &record.image, ImageLimits::default())?;
        let large = resize_bicubic(&small, SIDES.0, SIDES.1);
        let size = (SIDES.0 as u32, SIDES.1 as u32);
        let image = image::RgbImage::from_raw(size.0, size.1, large.data().to_vec()).context("a picture")?;
        Ok(image.save(folder.join(format!("{i:04}.jpg")))?)
    };
    records.iter().take(IMAGES).enumerate().collect::<Vec<_>>().into_par_iter().try_for_each(write)?;
    // Two captions make a sentence of some length.
    let sentence = |i: usize| {
        let part = |i: usize| records[i % records.len()].answers[0].as_str();
        format!("{} and {}", part(i), part(7 * i + 3))
    };
    let candidates: Vec<String> = (0..CAPTIONS).map(sentence).collect();
    let references: Vec<Vec<String>> =
        (0..CAPTIONS).map(|i| (0..REFERENCES).map(|j| sentence(i + 11 * j)).collect()).collect();
    fs::write(
        dir.join("captions.json"),
        json!({ "candidates": candidates, "references": references }).to_string(),
    )?;
    Ok(())
}
