//! A small model, a small benchmark, and the program.

#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses a part of this; a helper of a test may panic.

use image::{Rgb, RgbImage};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder with a model, a benchmark and room for runs.
pub(crate) struct Place {
    root: TempDir,
}

/// Tasks that are learnt one after another.
pub(crate) const TASKS: [&str; 2] = ["colours", "corners"];

/// A pre-training of a small model, of few steps.
pub(crate) const RECIPE: &str = r#"
seed = 1
steps = 20
stop_after = 8
decay_from = 5
batch_size = 4
augmentation = { views = 3, upright = [] }
prompting = { tokens = 2, share = 0.5, replaced = 0.5, tasks = ["squares"] }
diversity = { weight = 3.0, share = 0.4, rank = 0.1 }
min_word_count = 1
[weights]
squares = 1.0
[optimiser]
lr = 1e-3
beta2 = 0.98
eps = 1e-6
weight_decay = 0.05
warm_up = 2
final_share = 0.05
max_norm = 1.0
[model]
image_size = 64
qformer_width = 32
qformer_hidden = 48
qformer_layers = 2
qformer_heads = 2
queries = 4
d_model = 32
d_ff = 48
d_kv = 16
heads = 2
encoder_layers = 1
decoder_layers = 1
[[phases]]
from = 0
only = { squares = ["square"] }
[[phases]]
from = 4
weights = { squares = 2.0 }
"#;

impl Place {
    pub(crate) fn new() -> Self {
        Self::with_model(write_backbone)
    }

    /// A place whose model a function writes.
    pub(crate) fn with_model(write: impl FnOnce(&Path)) -> Self {
        let place = Self { root: tempfile::tempdir().unwrap() };
        write(&place.path("model"));
        write_benchmark(&place.path("bench"));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The program with these arguments.
    pub(crate) fn program(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fwd-prompt"));
        // Results agree to the last bit for one number of threads.
        command.args(args).current_dir(self.root.path()).env("RAYON_NUM_THREADS", "2").env_remove("RUST_LOG");
        command
    }

    /// `train` into a folder, with a small pool and few steps; `more` comes last.
    pub(crate) fn train(&self, out: &str, more: &[&str]) -> Command {
        let common = [
            "train",
            "--out",
            out,
            "--backbone",
            "model",
            "--bench",
            "bench",
            "--steps",
            "6",
            "--batch-size",
            "4",
            "--set",
            "pool.allocation={partitioned=2}",
            "--set",
            "pool.top_k=2",
            "--set",
            "max_new_tokens=4",
            "--set",
            "pretraining_samples=6",
            "--set",
            "retention_samples=2",
            "--set",
            "save_every=2",
        ];
        self.program(&[&common[..], more].concat())
    }

    pub(crate) fn metrics(&self, run: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path(run).join("metrics.json")).unwrap()).unwrap()
    }

    /// A JSON file.
    pub(crate) fn json(&self, path: &str) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.path(path)).unwrap()).unwrap()
    }

    /// The record of ranks.
    pub(crate) fn ranks_bytes(&self, run: &str) -> [Vec<u8>; 3] {
        [0, 1, 2].map(|t| fs::read(self.path(run).join(format!("ranks/after-{t}.json"))).unwrap())
    }

    /// Both files of metrics.
    pub(crate) fn metrics_bytes(&self, run: &str) -> [Vec<u8>; 2] {
        ["metrics.json", "metrics.csv"].map(|file| fs::read(self.path(run).join(file)).unwrap())
    }
}

/// Runs a command that must succeed; its standard output.
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a command that must fail with exit code 1; its standard error.
pub(crate) fn fail(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{command:?}: {}\n{}", output.status, stderr(&output));
    stderr(&output)
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The reference InstructBLIP of the library's tests, random weights, with the tokenizers of the data crate's tests.
pub(crate) fn write_backbone(dir: &Path) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let set = crates.join("fwd-models/tests/fixtures/sets/instructblip-small");
    let tokenizers = crates.join("fwd-data/tests/fixtures/tokenizers");
    fs::create_dir_all(dir.join("qformer_tokenizer")).unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(set.join(name), dir.join(name)).unwrap();
    }
    fs::copy(tokenizers.join("t5_unigram/tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    let qformer = dir.join("qformer_tokenizer/tokenizer.json");
    fs::copy(tokenizers.join("bert_wordpiece/tokenizer.json"), qformer).unwrap();
    let processor = json!({ "size": { "height": 56, "width": 56 }, "resample": 3 });
    fs::write(dir.join("preprocessor_config.json"), processor.to_string()).unwrap();
}

const COLOURS: [(&str, [u8; 3]); 3] =
    [("red", [220, 30, 30]), ("green", [30, 200, 40]), ("blue", [40, 50, 230])];

/// The picture of sample `i` of task `t`: a square of one of the colours in a corner.
pub(crate) fn picture(t: usize, i: usize) -> RgbImage {
    let ((_, rgb), corner) = (COLOURS[i % 3], i % 4);
    // The shade of the ground makes every image another file.
    RgbImage::from_fn(24, 24, |x, y| {
        let (left, top) = (corner as u32 % 2 * 12, corner as u32 / 2 * 12);
        let is_inside = (left..left + 12).contains(&x) && (top..top + 12).contains(&y);
        if is_inside { Rgb(rgb) } else { Rgb([200, (t * 40 + i) as u8, 128]) }
    })
}

/// Two tasks and one of pre-training on squares: their colour, the corner they lie in, and whether there is one.
fn write_benchmark(dir: &Path) {
    const CORNERS: [&str; 4] = ["top left", "top right", "bottom left", "bottom right"];
    let tasks =
        [("colours", "What colour is it?"), ("corners", "Where is it?"), ("squares", "Is there a square?")];
    let (mut pack, mut infos) = (b"FWDPACK1".to_vec(), Vec::new());
    let mut images = Vec::new();
    fs::create_dir_all(dir.join("tasks")).unwrap();
    fs::create_dir_all(dir.join("squares")).unwrap();
    for (t, (name, question)) in tasks.into_iter().enumerate() {
        let mut lines = String::new();
        for i in 0..20usize {
            let split = ["train", "val", "test"][usize::from(i >= 12) + usize::from(i >= 16)];
            let ((colour, _), corner) = (COLOURS[i % 3], i % 4);
            let key = format!("squares/{name}-{i:02}");
            let mut png = Cursor::new(Vec::new());
            picture(t, i).write_to(&mut png, image::ImageFormat::Png).unwrap();
            images.push((key.clone(), png.into_inner()));
            let answer = [colour, CORNERS[corner], "yes"][t];
            let line = json!({ "split": split, "image": key, "instruction": question, "answer": answer });
            lines += &format!("{line}\n");
        }
        fs::write(dir.join(format!("tasks/{name}.jsonl")), lines).unwrap();
        let mut info = json!({ "name": name, "title": question, "metric": "exact", "synthetic": true });
        info["stage"] = if t == 2 { "pretraining" } else { "downstream" }.into();
        if t < 2 {
            info["order"] = (t + 1).into();
        }
        infos.push(info);
    }
    images.sort();
    for (key, bytes) in images {
        pack.extend((key.len() as u16).to_le_bytes());
        pack.extend((bytes.len() as u32).to_le_bytes());
        pack.extend(key.as_bytes());
        pack.extend(bytes);
    }
    fs::write(dir.join("squares/images.pack"), pack).unwrap();
    fs::write(dir.join("benchmark.json"), json!({ "version": 1, "tasks": infos }).to_string()).unwrap();
}

/// The files below a folder by their names in it.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut out = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            out.extend(
                files(&entry.path()).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)),
            );
        } else {
            out.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    out
}
