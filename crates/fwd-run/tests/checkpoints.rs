//! Model directories as people have them, opened as the program does it.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod model;

use candle_core::Device;
use fwd_data::Orientation;
use fwd_run::model::{Backbone, ModelOptions, ModelTokenizers, Template};
use fwd_run::{Observer, Progress, Session, SessionOptions, Silent};
use image::{ImageFormat, RgbImage};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

fn open(dir: &Path) -> Backbone {
    model::write(dir);
    Backbone::open(dir, ModelOptions::default(), &Device::Cpu).unwrap()
}

fn png() -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    RgbImage::new(24, 24).write_to(&mut png, ImageFormat::Png).unwrap();
    png.into_inner()
}

#[test]
fn of_an_instruction_beyond_its_positions_the_bridge_reads_the_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = open(folder.path());
    let reader = backbone.reader();
    assert_eq!((reader.max_bridge_tokens(), reader.max_instruction_tokens()), (Some(64), None));
    // [CLS] and [SEP] count too.
    let fitting = "a ".repeat(62);
    let of = |text: &str| backbone.features(&png(), "x.png", Orientation::Stored, text).unwrap();
    let visual = |text: &str| of(text).image_rows().into_owned();
    assert_eq!(backbone.bridge_cut(&fitting).unwrap(), None);
    let long = format!("{fitting} what is it");
    assert_eq!(reader.bridge_excess(&long).unwrap(), Some((67, 64)));
    let said = backbone.bridge_cut(&long).unwrap().unwrap();
    assert!(said.contains("67 tokens") && said.contains("64 positions") && said.len() < 200, "{said}");
    // The Q-Former sees the same of both, the language model more of the longer one.
    assert_eq!(visual(&long), visual(&fitting));
    assert!(of(&long).text_rows().len() > of(&fitting).text_rows().len());
    let answer = backbone.labels("what is it", "a cat").unwrap();
    assert_eq!(reader.count_answer_tokens("what is it", "a cat").unwrap(), answer.len());
}

#[test]
fn a_model_whose_bridge_reads_no_instruction_has_no_limit() {
    let folder = tempfile::tempdir().unwrap();
    let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fwd-models/tests/fixtures/sets/blip2-small");
    model::write(folder.path());
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(sets.join(name), folder.path().join(name)).unwrap();
    }
    let backbone = Backbone::open(folder.path(), ModelOptions::default(), &Device::Cpu).unwrap();
    assert_eq!(backbone.reader().max_instruction_tokens(), None);
    let long = "a cat ".repeat(200);
    let n_tokens = backbone.processor.text.encode(&long).unwrap().len();
    assert_eq!(backbone.reader().count_instruction_tokens(&long).unwrap(), n_tokens);
    backbone.features(&png(), "x.png", Orientation::Stored, &long).unwrap();
}

/// Where a file of the model is.
type Place<'a> = &'a dyn Fn(&str) -> PathBuf;

/// Opens the small model after a change to its files.
fn open_changed(dir: &Path, change: impl FnOnce(Place<'_>)) -> anyhow::Result<Backbone> {
    model::write(dir);
    change(&|name| dir.join(name));
    Backbone::open(dir, ModelOptions::default(), &Device::Cpu)
}

#[test]
fn a_placeholder_of_the_image_in_a_question_or_an_answer_is_never_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = open(folder.path());
    let of = |question: &str| backbone.features(&png(), "x.png", Orientation::Stored, question);
    let want = of("what is it?").unwrap();
    for question in ["<image>\nwhat is it?", "what is it? <image>", "<image><image> what is it?"] {
        assert_eq!(of(question).unwrap(), want, "{question}");
        assert_eq!(
            backbone.reader().count_instruction_tokens(question).unwrap(),
            backbone.reader().count_instruction_tokens("what is it?").unwrap()
        );
    }
    assert_eq!(backbone.labels("", "a <image> cat").unwrap(), backbone.labels("", "a cat").unwrap());
    let error = of("<image>").unwrap_err().to_string();
    assert!(error.contains("nothing but the placeholder"), "{error}");
}

#[test]
fn settings_of_generation_that_are_not_followed_are_remarked_on_when_a_session_opens() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(open(folder.path()).remarks, [""; 0]);
    let settings = r#"{"eos_token_id": 1, "num_beams": 5, "bad_words_ids": [[3]], "do_sample": false}"#;
    let backbone =
        open_changed(folder.path(), |file| fs::write(file("generation_config.json"), settings).unwrap());
    let said = "the model's generation settings that greedy search does not follow: bad_words_ids = [[3]], num_beams = 5";
    assert_eq!(backbone.unwrap().remarks, [said]);
    let notes = Notes(Mutex::default());
    let options = SessionOptions { backbone: Some(folder.path().into()), ..SessionOptions::default() };
    Session::open(&options, &notes).unwrap();
    assert_eq!(*notes.0.lock().unwrap(), [said]);
}

struct Notes(Mutex<Vec<String>>);

impl Observer for Notes {
    fn begin(&self, work: &str, len: usize) -> Box<dyn Progress + '_> {
        Silent.begin(work, len);
        Box::new(Silent)
    }

    fn note(&self, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }

    fn is_stop_requested(&self) -> bool {
        false
    }
}

#[test]
fn a_token_without_an_embedding_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = open_changed(folder.path(), |file| {
        let path = file("qformer_tokenizer/tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let tokens = tokenizer["added_tokens"].as_array_mut().unwrap();
        let mut more = tokens.last().unwrap().clone();
        (more["id"], more["content"]) = (256.into(), "[EXTRA]".into());
        tokens.push(more);
        fs::write(path, tokenizer.to_string()).unwrap();
    });
    let backbone = backbone.unwrap();
    // Without the weights it is refused as well, and so is a model without that tokenizer.
    let tokenizers = ModelTokenizers::open(folder.path(), None).unwrap();
    let error = tokenizers.reader().bridge_excess("what is [EXTRA]?").unwrap_err().to_string();
    assert!(error.contains("\"[EXTRA]\" has the id 256, the model has embeddings for 256 tokens"), "{error}");
    fs::remove_file(folder.path().join("qformer_tokenizer/tokenizer.json")).unwrap();
    let error = ModelTokenizers::open(folder.path(), None).unwrap_err().to_string();
    assert!(error.contains("InstructBLIP needs it"), "{error}");
    backbone.features(&png(), "x.png", Orientation::Stored, "what is it?").unwrap();
    let error =
        backbone.features(&png(), "x.png", Orientation::Stored, "what is [EXTRA]?").unwrap_err().to_string();
    assert!(error.contains("\"[EXTRA]\" has the id 256, the model has embeddings for 256 tokens"), "{error}");
}

#[test]
fn the_hash_of_a_model_is_that_of_names_lengths_and_contents_of_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let backbone = open(folder.path());
    let mut hasher = Sha256::new();
    let mut names =
        vec!["config.json", "generation_config.json", "model.safetensors", "preprocessor_config.json"];
    names.extend(["qformer_tokenizer/tokenizer.json", "tokenizer.json"]);
    for name in names {
        let content = fs::read(folder.path().join(name)).unwrap();
        for part in [name.as_bytes(), &content] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    }
    let digits: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(backbone.hash, digits);
}

#[test]
fn folders_and_files_that_lack_something_are_told_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(Place<'_>), parts: &[&str]| {
        let error = format!("{:#}", open_changed(folder.path(), |file| change(file)).unwrap_err());
        parts.iter().for_each(|part| assert!(error.contains(part), "`{part}` is missing in: {error}"));
        for entry in fs::read_dir(folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    };
    let swap =
        |file: &dyn Fn(&str) -> PathBuf, from: &str, to: &str| fs::rename(file(from), file(to)).unwrap();
    refused(
        &|file| swap(file, "tokenizer.json", "spiece.model"),
        &["tokenizer.json", "spiece.model", "save_pretrained"],
    );
    refused(
        &|file| swap(file, "model.safetensors", "pytorch_model.bin"),
        &["pytorch_model.bin", "safe_serialization"],
    );
    refused(&|file| fs::remove_file(file("config.json")).unwrap(), &["it has no config.json"]);
    refused(
        &|file| fs::remove_file(file("qformer_tokenizer/tokenizer.json")).unwrap(),
        &["InstructBLIP needs it"],
    );
    let file = folder.path().join("model.safetensors");
    fs::write(&file, "x").unwrap();
    let error = Backbone::open(&file, ModelOptions::default(), &Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("is a file"), "{error}");
}

#[test]
fn a_tokenizer_that_does_not_know_the_image_is_named_with_the_id_that_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    open_kind(folder.path(), "llava-tiny", "llama_bpe");
    let path = folder.path().join("tokenizer.json");
    let tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let refused = |tokenizer: &Value| {
        fs::write(&path, tokenizer.to_string()).unwrap();
        let opened = ModelTokenizers::open(folder.path(), Some(Template::Plain)).unwrap();
        let error = opened.reader().count_instruction_tokens("What is it?").unwrap_err().to_string();
        assert!(error.contains("tokenizer.json") && !error.contains("--template"), "{error}");
        error
    };
    // No token has the id.
    let mut without = tokenizer.clone();
    without["added_tokens"].as_array_mut().unwrap().retain(|token| token["id"].as_u64() < Some(128));
    assert!(refused(&without).contains("no token with the id 128"));
    // A word of the vocabulary has it, which is written by its letters.
    without["model"]["vocab"]["<image>"] = 128.into();
    let error = refused(&without);
    assert!(error.contains("0 images instead of 1") && error.contains("id 128"), "{error}");
}

/// A model of another kind, with the tokenizer that fits it, opened.
fn open_kind(dir: &Path, set: &str, tokenizer: &str) -> Backbone {
    model::write(dir);
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let set = crates.join("fwd-models/tests/fixtures/sets").join(set);
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(set.join(name), dir.join(name)).unwrap();
    }
    for (from, to) in [(tokenizer, dir.to_path_buf()), ("qformer_99", dir.join("qformer_tokenizer"))] {
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            let file = crates.join("fwd-data/tests/fixtures/tokenizers").join(from).join(name);
            fs::copy(file, to.join(name)).unwrap();
        }
    }
    fs::write(dir.join("preprocessor_config.json"), r#"{"size": 28}"#).unwrap();
    Backbone::open(dir, ModelOptions::default(), &Device::Cpu).unwrap()
}

#[test]
fn an_answer_of_a_decoder_only_model_has_no_beginning_and_ends_as_generation_does() {
    let folder = tempfile::tempdir().unwrap();
    let want = |backbone: &Backbone, text: &str, end: i64| -> Vec<i64> {
        let ids = backbone.processor.text.encode_plain(text).unwrap();
        ids.into_iter().map(i64::from).chain([end]).collect()
    };
    // Words of OPT carry their space in front; its answers end in a line feed.
    let opt = open_kind(folder.path(), "blip2-opt-tiny", "opt_bpe");
    assert_eq!(opt.labels("What is it?", "red").unwrap(), want(&opt, " red", 50));
    assert_ne!(want(&opt, " red", 50), want(&opt, "red", 50));
    assert_eq!(opt.labels("Answer:\n", "red").unwrap(), want(&opt, "red", 50));
    assert_eq!(opt.labels("What is it?", " red").unwrap(), want(&opt, " red", 50));
    assert_eq!(opt.labels("What is it?", "").unwrap(), [50]);
    // Without weights the counts are the same.
    let tokenizers = ModelTokenizers::open(folder.path(), None).unwrap();
    let n_tokens = tokenizers.reader().count_answer_tokens("What is it?", "red").unwrap();
    assert_eq!(n_tokens, opt.labels("What is it?", "red").unwrap().len());

    // Words of LLaMA begin by themselves. Its configuration says that sequences end with 1, its tokenizer that they do with 2.
    let folder = tempfile::tempdir().unwrap();
    let vicuna = open_kind(folder.path(), "instructblip-vicuna-tiny", "vicuna_bpe");
    assert_eq!(vicuna.labels("What is it?", "red").unwrap(), want(&vicuna, "red", 2));
    let sample = vicuna.features(&png(), "x.png", Orientation::Stored, "What is it?").unwrap();
    assert_eq!(sample.text_rows().len(), 32 * vicuna.processor.text.encode("What is it?").unwrap().len());
}
