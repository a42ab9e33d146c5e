//! A model is put together of three pre-trained ones, what lies between them is trained, and it learns tasks like any other.

#![cfg(unix)]
#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;
mod stand_ins;

use common::{Place, RECIPE, fail, succeed};
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;

/// The recipe of [`common`] for a model whose sizes its parts say.
fn recipe() -> String {
    let (before, sizes) = RECIPE.split_once("[model]").unwrap();
    let phases = &sizes[sizes.find("[[phases]]").unwrap()..];
    let before =
        before.replace("min_word_count = 1\n", "").replace("rank = 0.1", "rank = 0.1, is_logarithmic = true");
    format!("{before}[optimiser.lr_share_of]\n\"_query.\" = 0.5\n{phases}")
}

#[test]
fn parts_become_a_model_whose_bridge_is_trained() {
    let place = Place::with_model(|_| {});
    stand_ins::write_onnx(&place.path("vision.onnx"));
    stand_ins::write_bert(&place.path("bert"));
    stand_ins::write_gguf(&place.path("language.gguf"));
    fs::write(place.path("recipe.toml"), recipe()).unwrap();
    let assemble = |out: &str| {
        let parts = ["pretrain", "--out", out, "--parts", "vision.onnx", "bert", "language.gguf"];
        succeed(&mut place.program(&parts));
    };
    let pretrain =
        |out: &str| place.program(&["pretrain", "--out", out, "--recipe", "recipe.toml", "--bench", "bench"]);
    assemble("small");
    succeed(&mut pretrain("small"));

    // What is trained is what the parts lack, and their files stay as they are.
    let trained = fs::read(place.path("small/trained.safetensors")).unwrap();
    let names: BTreeSet<String> =
        SafeTensors::deserialize(&trained).unwrap().names().into_iter().map(String::from).collect();
    let begins: BTreeSet<&str> = names.iter().map(|name| name.split('.').next().unwrap()).collect();
    let between =
        ["language_projection", "language_projection_norm", "qformer", "query_tokens", "vision_model"];
    assert_eq!(begins, between.into_iter().collect());
    let of_bridge = |name: &String| name.contains(".crossattention.") || name.contains("_query.");
    assert!(names.iter().filter(|name| name.starts_with("qformer.")).all(of_bridge), "{names:?}");
    assemble("again");
    for file in ["vision.safetensors", "qformer.safetensors", "language.gguf"] {
        let [used, made] = ["small", "again"].map(|dir| fs::read(place.path(dir).join(file)).unwrap());
        assert!(used == made, "{file} is not what it was");
    }
    // Linear maps of the ONNX file are turned, the head behind the tower is left out.
    let vision = fs::read(place.path("small/vision.safetensors")).unwrap();
    let vision = SafeTensors::deserialize(&vision).unwrap();
    let fc1 = vision.tensor("vision_model.encoder.layer.1.mlp.fc1.weight").unwrap();
    assert_eq!(fc1.shape(), [256, 64]);
    assert!(vision.names().iter().all(|name| name.starts_with("vision_model.")));

    // A second training ends in the same bytes.
    succeed(&mut pretrain("again"));
    assert!(trained == fs::read(place.path("again/trained.safetensors")).unwrap());

    // The recipe of another model changes nothing here, and a part that is missing is not trained in its place.
    assemble("parts");
    let before = common::files(&place.path("parts"));
    fs::write(place.path("own.toml"), RECIPE).unwrap();
    let pretrain_parts = |recipe: &str| {
        fail(&mut place.program(&["pretrain", "--out", "parts", "--recipe", recipe, "--bench", "bench"]))
    };
    let refused = pretrain_parts("own.toml");
    assert!(refused.contains("without the section [model]"), "{refused}");
    assert!(common::files(&place.path("parts")) == before);
    fs::remove_file(place.path("parts/language.gguf")).unwrap();
    let refused = pretrain_parts("recipe.toml");
    assert!(refused.contains("lacks parts of the model") && refused.contains("language_model."), "{refused}");

    // Gates are measured of the tasks that are named, without fine-tuning a language model in blocks.
    let gates = ["pretrain", "--gates", "--out", "small", "--bench", "bench", "--tasks", "corners"];
    let measured = place.program(&gates).output().unwrap();
    assert_eq!(measured.status.code(), Some(1), "{measured:?}");
    assert!(!place.path("small/gates.json").exists());
    let whole = place.program(&[&["pretrain", "--json"][..], &gates[1..6]].concat()).output().unwrap();
    assert_eq!(whole.status.code(), Some(1), "{whole:?}");
    let mut report = place.json("small/gates.json");
    let named = |task: &serde_json::Value| task["task"] == "corners";
    report["downstream"].as_array_mut().unwrap().retain(named);
    let downstream = report["downstream"].as_array().unwrap();
    assert_eq!((downstream.len(), &downstream[0]["task"]), (1, &"corners".into()));
    assert!(downstream[0]["fine_tuned"].is_null() && downstream[0]["prompt_tuned"].is_number());
    assert_eq!(report["pretraining"].as_array().map(Vec::len), Some(1));
    assert!(String::from_utf8_lossy(&measured.stdout).contains("| – |"), "{measured:?}");
    for (task, what) in [("circles", "circles"), ("squares", "pre-training task")] {
        let refused = fail(&mut place.program(&[&gates[..7], &[task]].concat()));
        assert!(refused.contains(what), "{refused}");
    }

    // It answers, is written to by its chat template, and learns in sequence like any model.
    image::RgbImage::new(8, 8).save(place.path("x.png")).unwrap();
    let ask = ["ask", "--backbone", "small", "--image", "x.png", "Is there a square?"];
    succeed(&mut place.program(&ask));
    let shown = succeed(&mut place.program(&[&ask[..], &["--show-prompt"]].concat()));
    assert!(shown.contains("<|im_start|>assistant"), "{shown}");
    succeed(&mut place.train("run", &["--backbone", "small"]));
    assert!(place.metrics("run")["measures"]["leakage"].as_f64().unwrap() <= 1e-5);
}

#[test]
fn a_folder_without_parts_is_refused_with_what_makes_one() {
    let place = Place::with_model(|_| {});
    fs::write(place.path("recipe.toml"), recipe()).unwrap();
    let refused = fail(&mut place.program(&[
        "pretrain",
        "--out",
        "none",
        "--recipe",
        "recipe.toml",
        "--bench",
        "bench",
    ]));
    assert!(refused.contains("cargo xtask fetch small"), "{refused}");
    assert!(!place.path("none").exists());
}

#[test]
fn a_language_model_alone_learns_and_needs_no_image() {
    let place = Place::new();
    stand_ins::write_gguf(&place.path("language.gguf"));
    succeed(&mut place.program(&["pretrain", "--out", "text", "--parts", "language.gguf"]));
    let ask = ["ask", "--backbone", "text", "What is this?"];
    let answer = succeed(&mut place.program(&ask));
    let shown = succeed(&mut place.program(&[&ask[..], &["--show-prompt"]].concat()));
    assert!(shown.starts_with("<|im_start|>user\nWhat is this?<|im_end|>"), "{shown}");
    // An image says nothing to it, and a model that reads images wants one.
    image::RgbImage::new(8, 8).save(place.path("x.png")).unwrap();
    assert_eq!(answer, succeed(&mut place.program(&[&ask[..], &["--image", "x.png"]].concat())));
    let refused = fail(&mut place.program(&["ask", "--backbone", "model", "What is this?"]));
    assert!(refused.contains("--image FILE"), "{refused}");

    // Prompts at either end, under the paper's rule; two runs are the same.
    for (name, at) in [("front", "front"), ("end", "end"), ("again", "end")] {
        let more = ["--backbone", "text", "--set", &format!("pool.place={at}"), "--method", "fwd"];
        succeed(&mut place.train(name, &more));
        assert!(place.metrics(name)["measures"]["leakage"].as_f64().unwrap() <= 1e-5);
    }
    assert_eq!(place.metrics_bytes("end"), place.metrics_bytes("again"));
    assert!(place.metrics_bytes("end") != place.metrics_bytes("front"));

    // Questions about no image: the same text in two splits is a leak, as a picture would be.
    fs::create_dir_all(place.path("facts/tasks")).unwrap();
    let task = r#"{"name": "facts", "title": "Facts", "metric": "exact", "synthetic": false, "stage": "downstream", "order": 1}"#;
    fs::write(place.path("facts/benchmark.json"), format!(r#"{{"version": 1, "tasks": [{task}]}}"#)).unwrap();
    let line = |split: &str, i: usize| {
        format!(
            "{{\"split\": \"{split}\", \"instruction\": \"Is {i} even?\", \"answer\": \"{}\"}}\n",
            i.is_multiple_of(2)
        )
    };
    let mut lines: String = (0..12).map(|i| line(["train", "val", "test"][i / 4], i)).collect();
    fs::write(place.path("facts/tasks/facts.jsonl"), &lines).unwrap();
    succeed(&mut place.program(&["data", "check", "facts"]));
    let more = ["--backbone", "text", "--bench", "facts", "--method", "sequential"];
    succeed(&mut place.train("facts-run", &more));
    assert!(place.path("facts-run/metrics.json").exists());
    // The questions themselves are what its library is tuned with, as the settings say.
    let make = ["pretrain", "--library", "--out", "text", "--bench", "facts", "--pretraining-tasks", "facts"];
    let settings = ["--set", "pool.place=end", "--set", "training.steps=2"];
    succeed(&mut place.program(&[&make[..], &settings].concat()));
    let of_library = place.json("text/library/run/manifest.json")["run"]["config"].clone();
    assert_eq!((&of_library["instruction"], &of_library["pool"]["place"]), (&Value::Null, &"end".into()));
    let file = place.path("text/library/prompts.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    succeed(&mut place.program(&[&make[..], &settings].concat()));
    assert_eq!(fs::read(&file).unwrap(), bytes, "what was tuned is not what is written again");
    let other = fail(&mut place.program(&[&make[..], &settings[..3], &["training.steps=3"]].concat()));
    assert!(other.contains("other tasks or settings"), "{other}");
    let other =
        fail(&mut place.program(&[&make[..], &settings, &["--set", "instruction=\"Well?\""]].concat()));
    assert!(other.contains("other tasks or settings"), "{other}");
    // The demo takes it where it is, and asks nobody.
    let demo = ["demo", "--text", "--quick", "--bench", "facts", "--backbone", "text", "--out", "demo"];
    let table = succeed(&mut place.program(&demo));
    assert!(table.contains("sequential") && table.contains("fwd"), "{table}");
    let config = place.json("demo/fwd/manifest.json")["run"]["config"].clone();
    assert_eq!(
        (&config["pool"]["place"], &config["training"]["lr_unit"]),
        (&"end".into(), &"embedding".into())
    );
    let refused = fail(&mut place.program(&["demo", "--text", "--backbone", "nowhere"]));
    assert!(refused.contains("no model in nowhere") && refused.contains("--yes"), "{refused}");
    assert!(!place.path("nowhere").exists());
    let refused = fail(&mut place.program(&["demo", "--text", "--yes", "--backbone", "facts"]));
    assert!(refused.contains("facts has no model and is no empty folder"), "{refused}");
    lines += &line("test", 0);
    fs::write(place.path("facts/tasks/facts.jsonl"), &lines).unwrap();
    let leak = place.program(&["data", "check", "facts"]).output().unwrap();
    assert_eq!(leak.status.code(), Some(1), "{leak:?}");
    assert!(String::from_utf8_lossy(&leak.stdout).contains("Is 0 even?"), "{leak:?}");
    // What needs images is refused by what it lacks.
    let tuned = fail(&mut place.train("tuned", &["--backbone", "text", "--method", "finetune"]));
    assert!(tuned.contains("has no bridge"), "{tuned}");
    let gates = fail(&mut place.program(&["pretrain", "--gates", "--out", "text", "--bench", "bench"]));
    assert!(gates.contains("reads images"), "{gates}");
    let two = fail(&mut place.program(&["pretrain", "--out", "two", "--parts", "language.gguf", "bert"]));
    assert!(two.contains("a GGUF file alone"), "{two}");
}
