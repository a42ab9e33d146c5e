//! Continual prompt tuning without text: which digit is this?
//!
//! ```text
//! cargo run --release -p fwd-prompt --example vision_only
//! ```
//! Data: the 1,797 handwritten digits of scikit-learn, 8×8 pixels (`data/digits.bin`, BSD-3, see
//! `data/LICENSE-scikit-learn.txt`). A small network learns the ten digits, mostly as they are, and is frozen. Three damaged displays then
//! come one after another: every other column twice as bright and the rest dark, every other row, a chequerboard; only nine prompt
//! tokens are trained. What was learnt for one display is lost by plain tuning for the next, and less so under `fwd`.
//!
//! At the end: what happens to the rank of the embeddings when the embedding itself is trained along, which is the other of the
//! paper's observations.

#![allow(clippy::print_stdout)]

mod common;

use candle_core::{Device, Tensor, Var};
use common::{AnyResult, Network, Sizes, Split, compare};
use fwd_prompt::analysis::{ENERGIES, rank_growth};
use fwd_prompt::linalg::{AdamW, Gram};
use fwd_prompt::{
    Allocation, Config, Decay, PoolConfig, Rule, Schedule, SubspaceOptions, TrainingConfig, stream,
};
use rand::Rng;
use rand::seq::SliceRandom;

const SIDE: usize = 8;
/// A patch is 4×4 pixels; there are four.
const PATCH: usize = 4;
const TOKENS: usize = 4;
const WIDTH: usize = 32;

/// What a display does to an image.
#[derive(Clone, Copy)]
enum Display {
    Good,
    Columns,
    Rows,
    Chequers,
}

#[derive(Clone)]
struct Digit {
    pixels: [f32; SIDE * SIDE],
    label: usize,
}

impl Display {
    /// The pixels in the order of their patches, `(4, 16)`.
    fn show(self, digit: &Digit) -> Vec<f32> {
        let gain = |row: usize, column: usize| {
            let is_bright = match self {
                Self::Good => return 1.0,
                Self::Columns => column.is_multiple_of(2),
                Self::Rows => row.is_multiple_of(2),
                Self::Chequers => (row + column).is_multiple_of(2),
            };
            if is_bright { 2.0 } else { 0.0 }
        };
        let mut out = Vec::with_capacity(SIDE * SIDE);
        for patch in 0..TOKENS {
            for i in 0..PATCH * PATCH {
                let row = patch / 2 * PATCH + i / PATCH;
                let column = patch % 2 * PATCH + i % PATCH;
                out.push(gain(row, column) * digit.pixels[row * SIDE + column]);
            }
        }
        out
    }
}

/// All digits: 64 bytes from 0 to 16 and the label, 1,797 times.
fn read() -> AnyResult<Vec<Digit>> {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/digits.bin"))?;
    let records = bytes.chunks_exact(SIDE * SIDE + 1);
    if !records.remainder().is_empty() {
        return Err("digits.bin is cut short".into());
    }
    let digit = |record: &[u8]| Digit {
        pixels: std::array::from_fn(|i| f32::from(record[i]) / 16.0),
        label: usize::from(record[SIDE * SIDE]),
    };
    Ok(records.map(digit).collect())
}

/// The embedding of patches: `W x + position`.
struct Embedding {
    weight: Var,
    positions: Var,
}

impl Embedding {
    fn new(rng: &mut impl Rng) -> AnyResult<Self> {
        let mut normal = |n: usize, scale: f32| -> Vec<f32> {
            (0..n).map(|_| scale * rng.sample::<f32, _>(rand_distr::StandardNormal)).collect()
        };
        let weight = Var::from_vec(normal(PATCH * PATCH * WIDTH, 0.5), (PATCH * PATCH, WIDTH), &Device::Cpu)?;
        let positions = Var::from_vec(normal(TOKENS * WIDTH, 0.1), (TOKENS, WIDTH), &Device::Cpu)?;
        Ok(Self { weight, positions })
    }

    fn parameters(&self) -> [(&'static str, Var); 2] {
        [("patches", self.weight.clone()), ("positions", self.positions.clone())]
    }

    fn embed<'a>(&self, digits: impl Iterator<Item = (&'a Digit, Display)>) -> candle_core::Result<Tensor> {
        let pixels: Vec<f32> = digits.flat_map(|(digit, display)| display.show(digit)).collect();
        let n = pixels.len() / (SIDE * SIDE);
        let patches = Tensor::from_vec(pixels, (n * TOKENS, PATCH * PATCH), &Device::Cpu)?;
        patches.matmul(&self.weight)?.reshape((n, TOKENS, WIDTH))?.broadcast_add(&self.positions)
    }
}

/// A seed decides which digits are for pre-training, for the tasks, and for the tests.
fn parts(seed: u64) -> AnyResult<[Vec<Digit>; 3]> {
    let mut digits = read()?;
    digits.shuffle(&mut stream(seed, "digits", [0, 0]));
    let test = digits.split_off(1300);
    let train = digits.split_off(700);
    Ok([digits, train, test])
}

/// Mostly good displays; one digit in sixteen with columns, one with rows.
fn seen(i: usize) -> Display {
    [Display::Columns, Display::Rows].get(i % 16).copied().unwrap_or(Display::Good)
}

fn pretrain(seed: u64, digits: &[Digit]) -> AnyResult<(Network, Embedding)> {
    let sizes = Sizes { tokens: TOKENS, width: WIDTH, hidden: 2 * WIDTH, n_classes: 10, is_image: true };
    let network = Network::new(sizes, seed)?;
    let embedding = Embedding::new(&mut stream(seed, "embedding", [0, 0]))?;
    let labels: Vec<usize> = digits.iter().map(|d| d.label).collect();
    let batch = |indices: &[usize]| embedding.embed(indices.iter().map(|&i| (&digits[i], seen(i))));
    network.pretrain(&embedding.parameters(), &labels, (400, 64, 3e-3), &batch)?;
    Ok((network, embedding))
}

/// A pre-trained network and its tasks.
fn build(seed: u64) -> AnyResult<(Network, Vec<Split>)> {
    let [pretraining, train, test] = parts(seed)?;
    let (network, embedding) = pretrain(seed, &pretraining)?;
    let samples = |digits: &[Digit], display: &dyn Fn(usize) -> Display| {
        let labels: Vec<usize> = digits.iter().map(|d| d.label).collect();
        let embedded = embedding.embed(digits.iter().enumerate().map(|(i, d)| (d, display(i))))?;
        network.samples(&embedded.detach(), &labels)
    };
    let tasks = [("columns", Display::Columns), ("rows", Display::Rows), ("chequers", Display::Chequers)];
    let mut splits = Vec::new();
    for (name, display) in tasks {
        splits.push(Split {
            name,
            train: samples(&train, &|_| display)?,
            test: samples(&test, &|_| display)?,
        });
    }
    let (train, test) = (samples(&pretraining, &seen)?, samples(&test, &|_| Display::Good)?);
    splits.push(Split { name: "pre-training", train, test });
    Ok((network, splits))
}

/// Trains network and embedding on one display after another and prints the rank of the embeddings of all digits as good displays
/// show them, after each.
fn trained_along(seed: u64) -> AnyResult<()> {
    let [pretraining, train, test] = parts(seed)?;
    let (network, embedding) = pretrain(seed, &pretraining)?;
    let mut stages = Vec::new();
    let mut look = || -> AnyResult<()> {
        let displays = [Display::Good, Display::Columns, Display::Rows, Display::Chequers];
        let shown = displays.iter().flat_map(|display| test.iter().map(|digit| (digit, *display)));
        let rows: Vec<f32> = embedding.embed(shown)?.flatten_all()?.to_vec1()?;
        let mut gram = Gram::new(WIDTH);
        gram.push(&rows)?;
        stages.push(gram);
        Ok(())
    };
    look()?;
    let labels: Vec<usize> = train.iter().map(|d| d.label).collect();
    for display in [Display::Columns, Display::Rows, Display::Chequers] {
        let batch = |indices: &[usize]| embedding.embed(indices.iter().map(|&i| (&train[i], display)));
        network.pretrain(&embedding.parameters(), &labels, (200, 64, 3e-3), &batch)?;
        look()?;
    }
    println!("\nrank of the embeddings when they are trained along (frozen, they stay as in the first row)");
    println!("  {:18}{:>10}{:>10}{:>10}{:>12}", "", "at 0.90", "at 0.95", "at 0.99", "effective");
    debug_assert_eq!(ENERGIES, [0.90, 0.95, 0.99]);
    for (name, (ranks, effective)) in
        ["before", "after columns", "after rows", "after chequers"].iter().zip(rank_growth(&stages)?)
    {
        println!("  {name:18}{:10}{:10}{:10}{effective:12.2}", ranks[0], ranks[1], ranks[2]);
    }
    Ok(())
}

fn main() -> AnyResult<()> {
    let config = Config {
        pool: PoolConfig {
            allocation: Allocation::Shared(3),
            prompt_len: 3,
            top_k: 3,
            prompt_scale: 0.05,
            ..PoolConfig::default()
        },
        // V_0 holds the few directions that all images of this small network share.
        subspace: SubspaceOptions { pretrained_energy: 0.3, task_energy: 0.99, ..SubspaceOptions::default() },
        training: TrainingConfig {
            epochs: 6,
            batch_size: 32,
            prompts: AdamW { lr: 0.05, ..AdamW::default() },
            schedule: Schedule { warmup_steps: 0, decay: Decay::Cosine },
            max_grad_norm: None,
            ..TrainingConfig::default()
        },
        ..Config::default()
    };
    println!("Ten digits, three damaged displays, nine prompt tokens of {WIDTH} numbers");
    let rules = [
        ("none", Rule::None),
        ("residual", Rule::Residual),
        ("fwd", Rule::Fwd),
        ("fwd-strict", Rule::FwdStrict),
    ];
    let forgetting = compare(&rules, &config, 0..5, &build)?;
    println!("\nforgotten by plain tuning: {:.1} points, under `fwd`: {:.1}", forgetting[0], forgetting[2]);
    trained_along(0)
}
