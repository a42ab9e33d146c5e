//! Small things that readers read: a picture, a benchmark, a model with random weights, and a finished run.

use crate::reader::root;
use anyhow::{Context, Result};
use fwd_run::run::train;
use fwd_run::{RunConfig, Session, SessionOptions, Silent};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::json;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

/// A PNG file.
pub(crate) fn picture(shade: u8) -> Result<Vec<u8>> {
    let image = RgbImage::from_fn(12, 12, |x, y| Rgb([shade, (x * 20) as u8, (y * 20) as u8]));
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png)?;
    Ok(file.into_inner())
}

/// An image pack.
pub(crate) fn pack(images: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut pack = b"FWDPACK1".to_vec();
    for (key, bytes) in images {
        pack.extend((key.len() as u16).to_le_bytes());
        pack.extend((bytes.len() as u32).to_le_bytes());
        pack.extend(key.as_bytes());
        pack.extend(bytes);
    }
    pack
}

/// The files of a benchmark of three tasks: `benchmark.json`, records and images.
pub(crate) fn benchmark() -> Result<Vec<(String, Vec<u8>)>> {
    let (mut files, mut infos, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for (t, name) in ["colours", "corners", "squares"].into_iter().enumerate() {
        let mut lines = String::new();
        for i in 0..4 {
            let key = format!("toy/{name}-{i}");
            images.push((key.clone(), picture((60 * t + 10 * i) as u8)?));
            let split = ["train", "train", "val", "test"][i];
            let answer = ["red", "blue"][i % 2];
            let line =
                json!({ "split": split, "image": key, "instruction": "What is it?", "answer": answer });
            lines += &format!("{line}\n");
        }
        files.push((format!("tasks/{name}.jsonl"), lines.into_bytes()));
        let mut info = json!({ "name": name, "title": name, "metric": "exact", "synthetic": true, "stage": "pretraining" });
        if t < 2 {
            (info["stage"], info["order"]) = ("downstream".into(), (t + 1).into());
        }
        infos.push(info);
    }
    files.push(("benchmark.json".into(), json!({ "version": 1, "tasks": infos }).to_string().into_bytes()));
    files.push(("toy/images.pack".into(), pack(&images)));
    Ok(files)
}

/// Where a model, a benchmark and a finished run are, below a folder that all children share.
pub(crate) struct Toy {
    pub(crate) model: PathBuf,
    pub(crate) bench: PathBuf,
    pub(crate) run: PathBuf,
}

impl Toy {
    /// Makes them, if no other child has.
    pub(crate) fn open(work: &Path) -> Result<Self> {
        let toy = work.join("toy");
        let of = |name: &str| toy.join(name);
        let places = Self { model: of("model"), bench: of("bench"), run: of("run") };
        if !places.run.join("metrics.json").exists() {
            if toy.exists() {
                fs::remove_dir_all(&toy)?;
            }
            places.make()?;
        }
        Ok(places)
    }

    pub(crate) fn session(&self) -> Result<Session> {
        let (backbone, bench) = (Some(self.model.clone()), Some(self.bench.clone()));
        Session::open(&SessionOptions { backbone, bench, ..SessionOptions::default() }, &Silent)
    }

    fn make(&self) -> Result<()> {
        for (name, bytes) in benchmark()? {
            write(&self.bench.join(name), &bytes)?;
        }
        let set = "crates/fwd-models/tests/fixtures/sets/instructblip-small";
        let tokenizers = "crates/fwd-data/tests/fixtures/tokenizers";
        for (name, from) in [
            ("config.json", format!("{set}/config.json")),
            ("generation_config.json", format!("{set}/generation_config.json")),
            ("model.safetensors", format!("{set}/model.safetensors")),
            ("tokenizer.json", format!("{tokenizers}/t5_unigram/tokenizer.json")),
            ("qformer_tokenizer/tokenizer.json", format!("{tokenizers}/bert_wordpiece/tokenizer.json")),
        ] {
            write(&self.model.join(name), &fs::read(root().join(from))?)?;
        }
        let processor = json!({ "size": { "height": 56, "width": 56 }, "resample": 3 });
        write(&self.model.join("preprocessor_config.json"), processor.to_string().as_bytes())?;
        let text = "max_new_tokens = 2\npretraining_samples = 4\nretention_samples = 1\n[pool]\nallocation = { partitioned = 1 }\n\
                    top_k = 1\nprompt_len = 2\n[training]\nsteps = 2\nbatch_size = 2\n";
        let config = RunConfig::parse(text, "toy")?;
        train(&self.session()?, config, &self.run, &Silent).context("the toy run")?;
        Ok(())
    }
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(path))?;
    Ok(fs::write(path, bytes)?)
}
