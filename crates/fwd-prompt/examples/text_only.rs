//! Continual prompt tuning without images: in which language is this sentence?
//!
//! ```text
//! cargo run --release -p fwd-prompt --example text_only
//! ```
//! Data: 1,260 sentences of eight languages from Django's translation catalogues (`data/sentences.tsv`, BSD-3, see
//! `data/LICENSE-django.txt`). A small network learns to tell the languages apart from 40 characters, mostly of ordinary text with a
//! few capitals and leet-speak, and is frozen. Three kinds of writing then come one after another, CAPITALS, l33t, and wthtvwls; only nine prompt tokens are
//! trained. What was learnt for one is lost by plain tuning of the next, and less so under `fwd`.

#![allow(clippy::print_stdout)]

mod common;

use candle_core::{Device, Tensor, Var};
use common::{AnyResult, Network, Sizes, Split, compare};
use fwd_prompt::continual::{Decay, Schedule, stream};
use fwd_prompt::linalg::AdamW;
use fwd_prompt::{Allocation, Config, PoolConfig, Rule, SubspaceOptions, TrainingConfig};
use rand::Rng;
use rand::seq::SliceRandom;

const WINDOW: usize = 40;
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const WIDTH: usize = 64;

/// The way a sentence is written.
#[derive(Clone, Copy)]
enum Writing {
    Plain,
    Capitals,
    Leet,
    NoVowels,
}

/// The letter without its accents, in lower case: enough for these eight languages.
fn fold(c: char) -> char {
    let c = c.to_lowercase().next().unwrap_or(c);
    let plain = [
        ("àáâãäåăą", 'a'),
        ("çćč", 'c'),
        ("ďđ", 'd'),
        ("èéêëęě", 'e'),
        ("ìíîïı", 'i'),
        ("ľł", 'l'),
        ("ñńň", 'n'),
        ("òóôõöőø", 'o'),
        ("řŕ", 'r'),
        ("śšşș", 's'),
        ("ťţț", 't'),
        ("ùúûüűů", 'u'),
        ("ýÿ", 'y'),
        ("źżž", 'z'),
        ("ğ", 'g'),
        ("ß", 's'),
    ];
    plain.iter().find(|(all, _)| all.contains(c)).map_or(c, |(_, plain)| *plain)
}

impl Writing {
    fn write(self, text: &str) -> Vec<char> {
        let leet = |c: char| "aeiostbgl".find(c).map_or(c, |i| "431057861".as_bytes()[i] as char);
        match self {
            Self::Plain => text.chars().collect(),
            Self::Capitals => text.to_uppercase().chars().collect(),
            Self::Leet => text.chars().map(|c| leet(fold(c))).collect(),
            Self::NoVowels => text.chars().filter(|c| !"aeiouy".contains(fold(*c))).collect(),
        }
    }
}

/// The sentences with the number of their language, and the characters that occur in any writing of them.
fn read() -> AnyResult<(Vec<Sentence>, Vec<char>, usize)> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/sentences.tsv"))?;
    let mut languages: Vec<&str> = Vec::new();
    let mut sentences = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let (language, sentence) =
            line.split_once('\t').ok_or(format!("sentences.tsv, line {}: no tab", number + 1))?;
        let at = languages.iter().position(|l| *l == language);
        sentences.push((at.unwrap_or(languages.len()), sentence.to_owned()));
        if at.is_none() {
            languages.push(language);
        }
    }
    let written = |s: &str| [Writing::Plain, Writing::Capitals, Writing::Leet].map(|w| w.write(s)).concat();
    let mut alphabet: Vec<char> = sentences.iter().flat_map(|(_, s)| written(s)).collect();
    alphabet.push(' ');
    alphabet.sort_unstable();
    alphabet.dedup();
    Ok((sentences, alphabet, languages.len()))
}

/// A sentence and the number of its language.
type Sentence = (usize, String);

/// Windows of `WINDOW` characters, as indices into the alphabet, with their language.
fn windows<'a>(
    sentences: impl Iterator<Item = (&'a Sentence, Writing)>,
    step: usize,
    alphabet: &[char],
) -> AnyResult<(Vec<u32>, Vec<usize>)> {
    let (mut ids, mut labels) = (Vec::new(), Vec::new());
    for ((language, sentence), writing) in sentences {
        let text = writing.write(sentence);
        for start in (0..text.len().saturating_sub(WINDOW / 2).max(1)).step_by(step) {
            let window = text[start..].iter().copied().chain(std::iter::repeat(' ')).take(WINDOW);
            for c in window {
                ids.push(
                    alphabet.binary_search(&c).map_err(|_| format!("`{c}` is not in the alphabet"))? as u32
                );
            }
            labels.push(*language);
        }
    }
    Ok((ids, labels))
}

/// A pre-trained network and its tasks; the seed decides which sentences are for what.
fn build(seed: u64) -> AnyResult<(Network, Vec<Split>)> {
    let (sentences, alphabet, n_classes) = read()?;
    let sizes =
        Sizes { tokens: WINDOW, width: WIDTH, hidden: 2 * WIDTH, sharpness: 4.0, n_classes, is_image: false };
    let network = Network::new(sizes, seed)?;
    let mut rng = stream(seed, "text", [0, 0]);
    let mut order: Vec<&Sentence> = sentences.iter().collect();
    order.shuffle(&mut rng);
    let (pretraining, rest) = order.split_at(order.len() / 2);
    let (train, test) = rest.split_at(rest.len() / 2);

    let mut normal = |n: usize, scale: f32| -> Vec<f32> {
        (0..n).map(|_| scale * rng.sample::<f32, _>(rand_distr::StandardNormal)).collect()
    };
    let table = Var::from_vec(normal(alphabet.len() * WIDTH, 0.3), (alphabet.len(), WIDTH), &Device::Cpu)?;
    let positions = Var::from_vec(normal(WINDOW * WIDTH, 0.03), (WINDOW, WIDTH), &Device::Cpu)?;
    let embed = |ids: &[u32]| -> candle_core::Result<Tensor> {
        let rows = table.index_select(&Tensor::from_slice(ids, ids.len(), &Device::Cpu)?, 0)?;
        rows.reshape((ids.len() / WINDOW, WINDOW, WIDTH))?.broadcast_add(&positions)
    };

    // Mostly ordinary text; one sentence in sixteen is in capitals, one in leet-speak.
    let writing =
        |i: usize| [Writing::Capitals, Writing::Leet].get(i % 16).copied().unwrap_or(Writing::Plain);
    let seen = || pretraining.iter().enumerate().map(|(i, s)| (*s, writing(i)));
    let (ids, labels) = windows(seen(), 8, &alphabet)?;
    let all = [("characters", table.clone()), ("positions", positions.clone())];
    let batch = |indices: &[usize]| {
        let ids: Vec<u32> =
            indices.iter().flat_map(|&i| &ids[i * WINDOW..(i + 1) * WINDOW]).copied().collect();
        embed(&ids)
    };
    network.pretrain(&all, &labels, (400, 32, 3e-3), &batch)?;

    let sample = |(ids, labels): (Vec<u32>, Vec<usize>)| network.samples(&embed(&ids)?.detach(), &labels);
    let written = |sentences: &[&Sentence], writing| {
        sample(windows(sentences.iter().map(|s| (*s, writing)), WINDOW, &alphabet)?)
    };
    let split = |name, writing| -> AnyResult<Split> {
        Ok(Split { name, train: written(train, writing)?, test: written(test, writing)? })
    };
    let mut splits = vec![
        split("capitals", Writing::Capitals)?,
        split("leet", Writing::Leet)?,
        split("no vowels", Writing::NoVowels)?,
    ];
    splits.push(Split {
        name: "pre-training",
        train: sample(windows(seen(), WINDOW, &alphabet)?)?,
        test: written(test, Writing::Plain)?,
    });
    Ok((network, splits))
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
        // V_0 holds the few directions that all texts of this small network share.
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
    println!("Eight languages, three ways of writing, nine prompt tokens of {WIDTH} numbers");
    let rules = [("none", Rule::None), ("residual", Rule::Residual), ("fwd", Rule::Fwd)];
    let forgetting = compare(&rules, &config, 0..3, &build)?;
    println!("\nforgotten by plain tuning: {:.1} points, under `fwd`: {:.1}", forgetting[0], forgetting[2]);
    Ok(())
}
