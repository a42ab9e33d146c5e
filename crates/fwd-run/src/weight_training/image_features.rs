//! What the frozen vision network computes of each image, in memory in f16, standardised channel by channel.
//!
//! Each image's features are also kept on disk under the hashes of network and image, so that a second start does not compute
//! them again.

use crate::model::{Model, hex};
use crate::observer::{Observer, check};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use fwd_data::bench::Benchmark;
use fwd_data::{ImageLimits, ImageProcessor, Orientation};
use fwd_models::Tap;
use half::f16;
use rand::Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Features of images by key and view.
pub(crate) struct ImageFeatures {
    rows: BTreeMap<(String, u32), Vec<f16>>,
    n_tokens: usize,
    n_channels: usize,
}

/// A frozen vision network with the processor that makes its pixels.
pub(crate) struct Network<'a> {
    /// The model that it belongs to.
    pub(crate) model: &'a Model,
    /// What tells its features from those of others in a cache.
    pub(crate) hash: &'a str,
    /// Turns an image into its pixels.
    pub(crate) processor: &'a ImageProcessor,
}

/// Mean and standard deviation of every channel.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Statistics {
    /// By channel, in the network's own units.
    pub(crate) mean: Vec<f32>,
    /// By channel; never 0.
    pub(crate) std: Vec<f32>,
}

/// An image to compute: view 0 is the image as it is, others are scaled and shifted at random, each number in its own way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct View<'a> {
    /// The image, as the benchmark names it.
    pub(crate) key: &'a str,
    /// Which view; 0 is the image as it is.
    pub(crate) number: u32,
    /// Whether odd views are mirrored.
    pub(crate) may_flip: bool,
}

impl<'a> View<'a> {
    /// The image as it is.
    pub(crate) fn plain(key: &'a str) -> Self {
        Self { key, number: 0, may_flip: false }
    }
}

/// Images that go through the network at a time.
const BATCH: usize = 16;

/// Added to a standard deviation, in units of the features: a channel that never moves stays finite.
const FLOOR: f32 = 1e-3;

impl ImageFeatures {
    /// Runs a network over views of images, or takes what is kept in `cache`.
    ///
    /// # Errors
    /// That names the image; an interrupt between two batches.
    pub(crate) fn compute(
        network: &Network<'_>,
        bench: &Benchmark,
        views: &[View<'_>],
        cache: &Path,
        observer: &dyn Observer,
    ) -> Result<Self> {
        fwd_files::sweep(&folder(cache));
        let progress = observer.begin("vision network", views.len());
        let (mut rows, mut shape) = (BTreeMap::new(), (0, 0));
        for batch in views.chunks(BATCH) {
            check(observer)?;
            let paths = batch
                .iter()
                .map(|view| path(cache, network.hash, bench, view))
                .collect::<Result<Vec<_>>>()?;
            let kept: Option<Vec<_>> = paths.iter().map(|path| read(path)).collect();
            let features = match kept {
                Some(kept) => kept,
                None => {
                    let decode = |view: &View<'_>| -> Result<Vec<f32>> {
                        let bytes = bench.image(view.key)?;
                        let limits = ImageLimits::default();
                        let pixels =
                            network.processor.process_bytes(&bytes, view.key, limits, Orientation::Stored)?;
                        Ok(seen(view, pixels, (network.processor.height, network.processor.width)))
                    };
                    let pixels: Vec<f32> = batch.par_iter().map(decode).collect::<Result<Vec<_>>>()?.concat();
                    let size = (batch.len(), 3, network.processor.height, network.processor.width);
                    let pixels = Tensor::from_vec(pixels, size, &Device::Cpu)?;
                    let features = network.model.image_features(&pixels, &mut Tap::none())?;
                    let (n, tokens, channels) = features.dims3()?;
                    let flat = features.flatten_all()?.to_vec1::<f32>()?;
                    let of_image =
                        |row: &[f32]| (tokens, channels, row.iter().map(|&x| f16::from_f32(x)).collect());
                    let computed: Vec<Kept> = flat.chunks_exact(flat.len() / n).map(of_image).collect();
                    for (path, kept) in paths.iter().zip(&computed) {
                        write(cache, path, kept)
                            .with_context(|| format!("cannot write {}", path.display()))?;
                    }
                    computed
                }
            };
            for (view, (tokens, channels, row)) in batch.iter().zip(features) {
                let key = view.key;
                ensure!(shape == (0, 0) || shape == (tokens, channels), "{key}: features of another size");
                shape = (tokens, channels);
                rows.insert((key.to_owned(), view.number), row);
                progress.advance();
            }
        }
        Ok(Self { rows, n_tokens: shape.0, n_channels: shape.1 })
    }

    /// Mean and standard deviation of every channel over some views.
    pub(crate) fn statistics<'k>(&self, views: impl Iterator<Item = View<'k>>) -> Statistics {
        let (mut sum, mut square) = (vec![0f64; self.n_channels], vec![0f64; self.n_channels]);
        let mut n = 0f64;
        for row in views.filter_map(|view| self.rows.get(&(view.key.to_owned(), view.number))) {
            for token in row.chunks_exact(self.n_channels) {
                for (i, x) in token.iter().map(|x| x.to_f64()).enumerate() {
                    sum[i] += x;
                    square[i] += x * x;
                }
                n += 1.0;
            }
        }
        let n = n.max(1.0);
        let mean: Vec<f32> = sum.iter().map(|s| (s / n) as f32).collect();
        let std =
            sum.iter().zip(&square).map(|(s, q)| (q / n - (s / n).powi(2)).max(0.0).sqrt() as f32 + FLOOR);
        Statistics { mean, std: std.collect() }
    }

    /// Features of some views, `(images, tokens, channels)`, standardised if statistics are given.
    ///
    /// # Errors
    /// An image that was not computed.
    pub(crate) fn batch(&self, views: &[(&str, u32)], statistics: Option<&Statistics>) -> Result<Tensor> {
        let size = self.n_tokens * self.n_channels;
        let mut values = vec![0f32; views.len() * size];
        let row = |(key, number): &(&str, u32)| {
            let row = self.rows.get(&((*key).to_owned(), *number));
            row.with_context(|| format!("no features of {key}, view {number}"))
        };
        let rows = views.iter().map(row).collect::<Result<Vec<_>>>()?;
        values.par_chunks_mut(size).zip(rows).for_each(|(out, row)| {
            for (out, token) in out.chunks_exact_mut(self.n_channels).zip(row.chunks_exact(self.n_channels)) {
                match statistics {
                    Some(s) => {
                        for (i, (o, x)) in out.iter_mut().zip(token).enumerate() {
                            *o = (x.to_f32() - s.mean[i]) / s.std[i];
                        }
                    }
                    None => out.iter_mut().zip(token).for_each(|(o, x)| *o = x.to_f32()),
                }
            }
        });
        Ok(Tensor::from_vec(values, (views.len(), self.n_tokens, self.n_channels), &Device::Cpu)?)
    }
}

/// Tokens, channels, and the features of one image.
type Kept = (usize, usize, Vec<f16>);

/// A view of an image, `(3, height, width)`: a window of .82 to 1.12 of its sides, within it or a little beyond, by bilinear
/// interpolation; what lies outside continues the border.
fn seen(view: &View<'_>, pixels: Vec<f32>, (height, width): (usize, usize)) -> Vec<f32> {
    if view.number == 0 {
        return pixels;
    }
    let mut rng = fwd_continual::stream(0, view.key, [u64::from(view.number), 0]);
    let scale: f32 = rng.random_range(0.82..1.12);
    let [x, y] = [width, height].map(|side| {
        let free = (1.0 - scale) * side as f32;
        rng.random_range(free.min(0.0) - 0.03 * side as f32..free.max(0.0) + 0.03 * side as f32)
    });
    let is_mirrored = view.may_flip && view.number % 2 == 1;
    // Two neighbours and the weight of the second.
    let between = |i: usize, from: f32, side: usize| {
        let at = (from + (i as f32 + 0.5) * scale - 0.5).clamp(0.0, (side - 1) as f32);
        let low = at as usize;
        (low, (low + 1).min(side - 1), at - low as f32)
    };
    let columns: Vec<_> = (0..width).map(|i| between(i, x, width)).collect();
    let mut out = Vec::with_capacity(pixels.len());
    for plane in pixels.chunks_exact(height * width) {
        for i in 0..height {
            let (above, below, v) = between(i, y, height);
            let rows = [above, below].map(|row| &plane[row * width..(row + 1) * width]);
            let start = out.len();
            out.extend(columns.iter().map(|&(left, right, u)| {
                let [a, b] = rows.map(|row| row[left] * (1.0 - u) + row[right] * u);
                a * (1.0 - v) + b * v
            }));
            if is_mirrored {
                out[start..].reverse();
            }
        }
    }
    out
}

/// Pixels that are decoded otherwise have other features, which get other names.
const DECODING: &[u8] = b"libjpeg-turbo";

/// Where they lie in a cache.
fn folder(cache: &Path) -> PathBuf {
    cache.join("vision")
}

/// Of the plain view, the name does not depend on views.
fn path(cache: &Path, tower_hash: &str, bench: &Benchmark, view: &View<'_>) -> Result<PathBuf> {
    let mut hasher = Sha256::new();
    hasher.update(DECODING);
    hasher.update(tower_hash);
    hasher.update(bench.content_hash(view.key)?.to_string());
    if view.number > 0 {
        hasher.update(format!("{} {} {}", view.number, view.may_flip, view.key));
    }
    let name = hex(&hasher.finalize());
    Ok(folder(cache).join(&name[..2]).join(&name[2..]))
}

/// The largest file that is read, in bytes: 65,536 tokens of 2048 channels.
const MAX_BYTES: u64 = 1 << 28;

/// Tokens, channels, CRC-32, values. None for a file that is missing, cut short or damaged.
fn read(path: &Path) -> Option<Kept> {
    let bytes = fwd_files::read(path, MAX_BYTES).ok()?;
    let (head, body) = bytes.split_first_chunk::<12>()?;
    let word =
        |i: usize| u32::from_le_bytes([head[4 * i], head[4 * i + 1], head[4 * i + 2], head[4 * i + 3]]);
    let (tokens, channels) = (word(0) as usize, word(1) as usize);
    // A damaged head may say anything.
    let n_bytes = tokens.checked_mul(channels).and_then(|n| n.checked_mul(2));
    if word(2) != crc32fast::hash(body) || n_bytes != Some(body.len()) {
        return None;
    }
    Some((tokens, channels, body.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b)).collect()))
}

/// The temporary file is in the folder of `cache`, where the next process looks for leftovers.
fn write(cache: &Path, path: &Path, (tokens, channels, row): &Kept) -> std::io::Result<()> {
    let body: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
    let dir = folder(cache);
    fs::create_dir_all(path.parent().unwrap_or(&dir))?;
    let mut file = fwd_files::temporary(&dir)?;
    for word in [*tokens as u32, *channels as u32, crc32fast::hash(&body)] {
        file.write_all(&word.to_le_bytes())?;
    }
    file.write_all(&body)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}
