//! Continual prompt tuning without text: which digit is this?
//!
//! ```text
//! cargo run --release -p fwd-prompt --example vision_only
//! ```
//! Data: the 1,797 handwritten digits of scikit-learn, 8×8 pixels (`data/digits.bin`, BSD-3, see
//! `data/LICENSE-scikit-learn.txt`). A small network learns the ten digits, nearly all of them as they are, and is frozen. A display
//! that shows every other column negative then stands upright, behind a mirror, and upside down; only eight prompt tokens are
//! trained. What was learnt for one position is lost by plain tuning for the next, and less so under `fwd`.
//!
//! At the end: what happens to the rank of the embeddings when the embedding itself is trained along, which is the other of the
//! paper's observations.

#![allow(clippy::print_stdout)]

mod common;

use candle_core::{Device, Tensor, Var};
use common::{AnyResult, Network, Sizes, Split, compare};
use fwd_prompt::analysis::{ENERGIES, rank_growth};
use fwd_prompt::continual::{Decay, Schedule, stream};
use fwd_prompt::linalg::{AdamW, Gram};
use fwd_prompt::{Allocation, Config, PoolConfig, Rule, SubspaceOptions, TrainingConfig};
use rand::Rng;
use rand::seq::SliceRandom;

const SIDE: usize = 8;
/// A patch is 4×4 pixels; there are four.
const PATCH: usize = 4;
const TOKENS: usize = 4;
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WIDTH: usize = 48;

/// How an image is shown.
#[derive(Clone, Copy)]
enum Display {
    Good,
    Upright,
    Mirrored,
    UpsideDown,
}

#[derive(Clone)]
struct Digit {
    pixels: [f32; SIDE * SIDE],
    label: usize,
}

impl Display {
    /// The pixels in the order of their patches, `(4, 16)`.
    fn show(self, digit: &Digit) -> Vec<f32> {
        let pixel = |row: usize, column: usize| {
            let sign = if column.is_multiple_of(2) { 1.0 } else { -1.0 };
            let at = |row: usize, column: usize| digit.pixels[row * SIDE + column];
            match self {
                Self::Good => at(row, column),
                Self::Upright => sign * at(row, column),
                Self::Mirrored => sign * at(row, SIDE - 1 - column),
                Self::UpsideDown => sign * at(SIDE - 1 - row, SIDE - 1 - column),
            }
        };
        let mut out = Vec::with_capacity(SIDE * SIDE);
        for patch in 0..TOKENS {
            for i in 0..PATCH * PATCH {
                out.push(pixel(patch / 2 * PATCH + i / PATCH, patch % 2 * PATCH + i % PATCH));
            }
        }
        out
    }
}

/// The tasks, in order.
const TASKS: [(&str, Display); 3] =
    [("upright", Display::Upright), ("mirrored", Display::Mirrored), ("upside down", Display::UpsideDown)];

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

/// In pre-training one digit in eight is on the bad display: without ever having seen it there is little to be prompted.
fn seen(i: usize) -> Display {
    match i % 32 {
        0 | 1 => Display::Upright,
        2 => Display::Mirrored,
        3 => Display::UpsideDown,
        _ => Display::Good,
    }
}

fn pretrain(seed: u64, digits: &[Digit]) -> AnyResult<(Network, Embedding)> {
    let sizes =
        Sizes { tokens: TOKENS, width: WIDTH, hidden: 64, sharpness: 3.0, n_classes: 10, is_image: true };
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
    let mut splits = Vec::new();
    for (name, display) in TASKS {
        splits.push(Split {
            name,
            train: samples(&train, &|_| display)?,
            test: samples(&test, &|_| display)?,
        });
    }
    let (train, test) = (samples(&pretraining, &|_| Display::Good)?, samples(&test, &|_| Display::Good)?);
    splits.push(Split { name: "pre-training", train, test });
    Ok((network, splits))
}

/// Trains network and embedding on one task after another and prints the rank of the embeddings of the digits shown so far, after each.
fn trained_along(seed: u64) -> AnyResult<()> {
    let [pretraining, train, test] = parts(seed)?;
    let (network, embedding) = pretrain(seed, &pretraining)?;
    let gram = |shown: &[Display]| -> AnyResult<Gram> {
        let digits = shown.iter().flat_map(|display| test.iter().map(|digit| (digit, *display)));
        let rows: Vec<f32> = embedding.embed(digits)?.flatten_all()?.to_vec1()?;
        let mut gram = Gram::new(WIDTH);
        gram.push(&rows)?;
        Ok(gram)
    };
    let mut shown = vec![Display::Good];
    let (mut frozen, mut trained) = (vec![gram(&shown)?], vec![gram(&shown)?]);
    for (_, display) in TASKS {
        shown.push(display);
        frozen.push(gram(&shown)?);
    }
    shown.truncate(1);
    let labels: Vec<usize> = train.iter().map(|d| d.label).collect();
    for (_, display) in TASKS {
        let batch = |indices: &[usize]| embedding.embed(indices.iter().map(|&i| (&train[i], display)));
        network.pretrain(&embedding.parameters(), &labels, (120, 64, 1e-2), &batch)?;
        shown.push(display);
        trained.push(gram(&shown)?);
    }
    println!(
        "\neffective rank of the embeddings of all digits shown so far (in brackets: rank at 0.95 and 0.99 of the energy)"
    );
    println!("  {:20}{:>20}{:>20}", "", "embedding frozen", "trained along");
    debug_assert_eq!(ENERGIES[1..], [0.95, 0.99]);
    let cell =
        |(ranks, effective): &([usize; 3], f64)| format!("{effective:8.2} ({}, {})", ranks[1], ranks[2]);
    let names = std::iter::once("before").chain(TASKS.map(|(name, _)| name));
    for ((name, frozen), trained) in names.zip(rank_growth(&frozen)?).zip(rank_growth(&trained)?) {
        println!("  {name:20}{:>20}{:>20}", cell(&frozen), cell(&trained));
    }
    Ok(())
}

fn main() -> AnyResult<()> {
    let config = Config {
        pool: PoolConfig {
            allocation: Allocation::Shared(2),
            prompt_len: 4,
            top_k: 2,
            prompt_scale: 0.05,
            ..PoolConfig::default()
        },
        // V_0 holds the few directions that clean digits share in this small network.
        subspace: SubspaceOptions { pretrained_energy: 0.5, task_energy: 0.98, ..SubspaceOptions::default() },
        training: TrainingConfig {
            epochs: 12,
            batch_size: 64,
            prompts: AdamW { lr: 0.05, ..AdamW::default() },
            schedule: Schedule { warmup_steps: 0, decay: Decay::Cosine },
            max_grad_norm: None,
            ..TrainingConfig::default()
        },
        ..Config::default()
    };
    println!("Ten digits, a damaged display in three positions, eight prompt tokens of {WIDTH} numbers");
    let rules = [
        ("none", Rule::None),
        ("residual", Rule::Residual),
        ("fwd", Rule::Fwd),
        ("fwd-strict", Rule::FwdStrict),
    ];
    let forgetting = compare(&rules, &config, 0..3, &build)?;
    println!("\nforgotten by plain tuning: {:.1} points, under `fwd`: {:.1}", forgetting[0], forgetting[2]);
    trained_along(0)
}
