//! A run through the library alone: it is stopped by its observer, goes on, and ends in the unbroken run's result.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

#[path = "../../fwd-models/tests/decoder/mod.rs"]
mod decoder;
mod model;

use candle_core::Device;
use decoder::Decoder;
use fwd_models::{Blip, MultimodalModel, WeightDtype};
use fwd_prompt::Allocation;
use fwd_run::comparison::{Comparison, FinishedRun};
use fwd_run::run::{RunMetrics, RunPaths, SavedRun, refuse_finished, train};
use fwd_run::{Method, Observer, Progress, RunConfig, Session, SessionOptions, Silent, is_interrupt};
use image::{ImageFormat, Rgb, RgbImage};
use serde_json::json;
use std::fs::{self, File};
use std::io::Cursor;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Asks the work to stop from its n-th question on, and takes note of everything.
struct Stopping {
    n_questions: AtomicUsize,
    stop_from: usize,
    n_going_on: AtomicUsize,
    works: Mutex<Vec<String>>,
    logs: Mutex<Vec<bool>>,
}

impl Stopping {
    fn from(stop_from: usize) -> Self {
        Self {
            n_questions: AtomicUsize::new(0),
            stop_from,
            n_going_on: AtomicUsize::new(0),
            works: Mutex::default(),
            logs: Mutex::default(),
        }
    }
}

impl Observer for Stopping {
    fn begin(&self, work: &str, _: usize) -> Box<dyn Progress + '_> {
        self.works.lock().unwrap().push(work.to_owned());
        self.n_going_on.fetch_add(1, Ordering::SeqCst);
        Box::new(Work(self))
    }

    fn note(&self, _: &str) {}

    fn is_stop_requested(&self) -> bool {
        self.n_questions.fetch_add(1, Ordering::SeqCst) + 1 >= self.stop_from
    }

    fn log_file(&self, file: Option<File>) {
        self.logs.lock().unwrap().push(file.is_some());
    }
}

struct Work<'a>(&'a Stopping);

impl Progress for Work<'_> {
    fn advance(&self) {}

    fn set(&self, _: usize) {}

    fn say(&self, _: &str) {}
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        self.0.n_going_on.fetch_sub(1, Ordering::SeqCst);
    }
}

fn config(method: Method) -> RunConfig {
    let mut config = RunConfig::default();
    (config.method, config.seed) = (method, 3);
    (config.pretraining_samples, config.retention_samples) = (4, 2);
    (config.max_new_tokens, config.save_every) = (4, 2);
    config.pool.allocation = Allocation::Partitioned(2);
    config.pool.top_k = 2;
    config.training.steps = Some(4);
    config.training.batch_size = 4;
    config
}

/// What the manifests of these runs say of the program.
const PROGRAM: &str = "a second front end 1.0";

/// A small model and a small benchmark, written into a folder and opened.
fn open(folder: &Path) -> Session {
    let (model, bench) = (folder.join("model"), folder.join("bench"));
    model::write(&model);
    write_benchmark(&bench);
    let options = SessionOptions {
        backbone: Some(model),
        bench: Some(bench),
        program: PROGRAM.to_owned(),
        ..SessionOptions::default()
    };
    Session::open(&options, &Silent).unwrap()
}

#[test]
fn a_run_stops_when_its_observer_says_so_and_goes_on_to_the_same_result() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let session = open(folder.path());
    for method in [Method::Fwd, Method::Finetune] {
        let unbroken = place(&format!("{method}-unbroken"));
        let metrics = train(&session, config(method), &unbroken, &Silent).unwrap();
        assert_eq!(RunMetrics::read(&unbroken).unwrap(), metrics);

        let broken = place(&format!("{method}-broken"));
        let (mut n_stops, mut stop_from, mut works) = (0, 1, Vec::new());
        loop {
            let observer = Stopping::from(stop_from);
            let ended = train(&session, config(method), &broken, &observer);
            assert_eq!(*observer.logs.lock().unwrap(), [true, false]);
            assert_eq!(observer.n_going_on.load(Ordering::SeqCst), 0);
            works.extend(observer.works.into_inner().unwrap());
            match ended {
                Ok(again) => break assert_eq!(again, metrics),
                Err(error) => assert!(is_interrupt(&error), "{error:?}"),
            }
            assert!(!RunPaths::new(&broken).is_finished());
            (n_stops, stop_from) = (n_stops + 1, stop_from + 3);
        }
        assert!(n_stops > 3, "{n_stops}");
        for work in ["frozen features", "scoring colours"] {
            assert!(works.iter().any(|known| known == work), "{works:?}");
        }
        let bytes = |dir: &Path| fs::read(RunPaths::new(dir).metrics_json()).unwrap();
        assert_eq!(bytes(&broken), bytes(&unbroken));
        assert!(refuse_finished(&broken).is_err());
        assert_eq!(SavedRun::read(&broken).unwrap().manifest().program, PROGRAM);
        assert_eq!(FinishedRun::read(&broken).unwrap().metrics, metrics);
        // The same run twice would count one seed as two.
        let twice = Comparison::read(&[unbroken.clone(), broken], false).unwrap_err().to_string();
        assert!(twice.contains("are the same run"), "{twice}");
        assert_eq!(Comparison::read(&[unbroken], false).unwrap().groups.len(), 1);
    }
}

/// An older version kept the weights of an unfinished fine-tuning in a file of their own.
#[test]
fn an_unfinished_fine_tuning_of_an_older_version_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let session = open(folder.path());
    let out = place("run");
    let stopped = train(&session, config(Method::Finetune), &out, &Stopping::from(1)).unwrap_err();
    assert!(is_interrupt(&stopped));
    fs::create_dir_all(RunPaths::new(&out).state(None)).unwrap();
    fs::write(RunPaths::new(&out).state(None).join("parameters.safetensors"), "old").unwrap();
    let refused = train(&session, config(Method::Finetune), &out, &Silent).unwrap_err().to_string();
    assert!(refused.contains("parameters.safetensors was written by an older version"), "{refused}");
}

#[test]
fn impossible_values_are_refused_before_anything_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let session = open(folder.path());
    let refused = |change: &dyn Fn(&mut RunConfig)| {
        let mut config = config(Method::Fwd);
        change(&mut config);
        let error = train(&session, config, &place("run"), &Silent).unwrap_err();
        assert!(!place("run").exists());
        error.to_string()
    };
    assert!(refused(&|c| c.eval_batch = 0).contains("eval_batch is 0"));
    assert!(refused(&|c| c.split = fwd_data::bench::Split::Train).contains("split is `train`"));
    assert!(refused(&|c| c.method = Method::Shared("replai")).contains("replai"));
}

/// The program's own methods learn, answer and score with a decoder-only language model, which no crate knows: prompts are learnt in
/// front of it, and the bridge before it is tuned.
#[test]
fn a_decoder_only_language_model_runs_through_everything() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let mut session = open(folder.path());
    let t5 = train(&session, config(Method::Fwd), &place("t5"), &Silent).unwrap();
    let blip = Blip::load(&place("model"), WeightDtype::F32, &Device::Cpu).unwrap();
    let (vocab, d) = (blip.language().vocab_size(), blip.language().d_model());
    let blip = blip.with_language(Arc::new(Decoder::new(vocab, d, 3))).unwrap();
    session.backbone.model = Box::new(blip.with_special_tokens(decoder::tokens()).unwrap());
    session.backbone.hash = "InstructBLIP in front of a decoder".to_owned();
    for method in [Method::Fwd, Method::Shared("replay"), Method::Finetune] {
        let out = place(&format!("decoder-{method}"));
        let metrics = train(&session, config(method), &out, &Silent).unwrap();
        let n_columns = if method == Method::Finetune { 2 } else { 3 };
        assert_eq!(metrics.scores.iter().map(Vec::len).collect::<Vec<_>>(), [n_columns; 3]);
        assert!(metrics.trainable_parameters > 0);
        let answers =
            |name: &str, after| fs::read(RunPaths::new(place(name)).answers(after, "colours")).unwrap();
        assert_ne!(answers(&format!("decoder-{method}"), 0), answers("t5", 0), "another model answers");
    }
    // Prompts were learnt, and the rule has kept its promise.
    let fwd = RunMetrics::read(&place("decoder-fwd")).unwrap();
    assert!(fwd.measures.leakage.unwrap() < 1e-5 && fwd.ranks.iter().all(|rank| *rank > 0));
    assert_ne!(fwd.interference, t5.interference);
}

/// Two tasks and one of pre-training on squares of one colour, as a packed benchmark.
fn write_benchmark(dir: &Path) {
    let colours: [(&str, [u8; 3]); 2] = [("red", [220, 30, 30]), ("blue", [40, 50, 230])];
    let tasks = [("colours", "What colour is it?"), ("shades", "How bright?"), ("squares", "A square?")];
    let (mut pack, mut infos) = (b"FWDPACK1".to_vec(), Vec::new());
    fs::create_dir_all(dir.join("tasks")).unwrap();
    fs::create_dir_all(dir.join("squares")).unwrap();
    for (t, (name, question)) in tasks.into_iter().enumerate() {
        let mut lines = String::new();
        for i in 0..10usize {
            let split = ["train", "val", "test"][usize::from(i >= 6) + usize::from(i >= 8)];
            let (colour, rgb) = colours[i % 2];
            let key = format!("squares/{name}-{i}");
            let picture = RgbImage::from_fn(24, 24, |x, _| {
                if x < 12 { Rgb(rgb) } else { Rgb([(t * 40 + i) as u8, 200, 128]) }
            });
            let mut png = Cursor::new(Vec::new());
            picture.write_to(&mut png, ImageFormat::Png).unwrap();
            let png = png.into_inner();
            pack.extend((key.len() as u16).to_le_bytes());
            pack.extend((png.len() as u32).to_le_bytes());
            pack.extend(key.as_bytes());
            pack.extend(png);
            let answer = [colour, ["dark", "light"][i % 2], "yes"][t];
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
    fs::write(dir.join("squares/images.pack"), pack).unwrap();
    fs::write(dir.join("benchmark.json"), json!({ "version": 1, "tasks": infos }).to_string()).unwrap();
}
