//! Whole runs of every method, scoring again, and questions.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, TASKS, fail, picture, stderr, succeed};
use serde_json::Value;
use std::fs;

#[test]
fn two_runs_of_one_seed_write_the_same_metrics() {
    let place = Place::new();
    let table = succeed(&mut place.train("a", &["--seed", "3"]));
    assert!(table.contains("colours") && table.contains("pre-training") && table.contains("fwd"), "{table}");
    // Another process, without kept features, started without cargo's environment.
    succeed(
        place
            .train("b", &["--seed", "3", "--cache", "other"])
            .env_remove("CANDLE_NUM_THREADS")
            .env_remove("MIMALLOC_PURGE_DELAY"),
    );
    // From the features of the first.
    succeed(&mut place.train("c", &["--seed", "3"]));
    assert_eq!(place.metrics_bytes("a"), place.metrics_bytes("b"));
    assert_eq!(place.metrics_bytes("a"), place.metrics_bytes("c"));

    let metrics = place.metrics("a");
    assert_eq!(metrics["scores"].as_array().unwrap().len(), 3);
    assert_eq!(metrics["scores"][0].as_array().unwrap().len(), 3);
    assert!(metrics["measures"]["leakage"].as_f64().unwrap() <= 1e-5, "{metrics}");
    assert!(metrics["trainable_parameters"].as_u64().unwrap() > 0);
    let log = fs::read_to_string(place.path("a/log.txt")).unwrap();
    assert!(log.contains("learnt colours"), "{log}");
    assert_eq!(fs::read_to_string(place.path("a/lock")).unwrap(), "");
    let manifest: Value = serde_json::from_slice(&fs::read(place.path("a/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest["run"]["config"]["seed"], 3);
    assert_eq!(manifest["run"]["config"]["tasks"][1], TASKS[1]);

    // Another seed learns something else.
    succeed(&mut place.train("d", &["--seed", "4"]));
    let prompts = |run: &str| {
        let state: Value =
            serde_json::from_slice(&fs::read(place.path(run).join("state/state.json")).unwrap()).unwrap();
        // A checksum for each file of tensors.
        state["tensors"].as_object().unwrap().clone()
    };
    assert_ne!(prompts("a"), prompts("d"));
}

#[test]
fn answers_are_kept_and_scoring_again_agrees() {
    let place = Place::new();
    succeed(&mut place.train("run", &[]));
    let metrics = place.metrics("run");
    let path = place.path("run/predictions/after-2/corners.jsonl");
    let lines: Vec<Value> =
        fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 4);
    assert_eq!(lines[0]["question_id"], "corners/test/0");
    assert_eq!((&lines[0]["prompt"], &lines[0]["answers"][0]), (&"Where is it?".into(), &"top left".into()));
    assert!(lines[0]["text"].is_string());
    let mean = 25.0 * lines.iter().map(|line| line["score"].as_f64().unwrap()).sum::<f64>();
    assert_eq!(metrics["scores"][2][1], mean);

    let again = succeed(&mut place.program(&["eval", "run", "--json", "--predictions", "answers"]));
    let again: Value = serde_json::from_str(&again).unwrap();
    for (i, task) in TASKS.into_iter().enumerate() {
        assert_eq!(again["scores"][i]["task"], task);
        assert_eq!(again["scores"][i]["score"], metrics["scores"][2][i]);
        let file = format!("{task}.jsonl");
        let kept = fs::read(place.path("run/predictions/after-2").join(&file)).unwrap();
        assert_eq!(fs::read(place.path("answers").join(&file)).unwrap(), kept);
    }
    let one = succeed(&mut place.program(&["eval", "run", "--split", "train", "--task", "squares"]));
    assert!(one.contains("squares") && one.contains("12"), "{one}");
    assert!(fail(&mut place.program(&["eval", "run", "--task", "corner"])).contains("corner"));
}

#[test]
fn every_method_runs_and_the_plasticity_is_against_tasks_alone() {
    let place = Place::new();
    let few = ["--steps", "2", "--set", "pretraining_samples=4"];
    let methods = [
        "zero-shot",
        "sequential",
        "residual",
        "fwd-strict",
        "fwd-weighted",
        "l2p",
        "replay",
        "ewc",
        "modal-prompt",
        "independent",
        "joint",
        "finetune",
        "lora",
        "lora-replay",
        "lora-gem",
        "lora-per-task",
        "moe-lora",
        "hide",
        "o-lora",
        "reg-lora",
        "keep-lora",
        "lora-fwd",
        "lora-residual",
    ];
    for method in methods {
        let found = succeed(&mut place.train(method, &[&few[..], &["--json", "--method", method]].concat()));
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!(found["method"], method);
        assert!(found["measures"]["average"].is_number(), "{method}: {found}");
        let keeps = method.ends_with("replay") || method.ends_with("gem");
        assert_eq!(found["stored_samples"].as_u64().unwrap() > 0, keeps, "{method}");
        let n_rows = found["scores"].as_array().unwrap().len();
        assert_eq!(
            n_rows,
            match method {
                "zero-shot" => 1,
                "independent" | "joint" => 2,
                _ => 3,
            },
            "{method}"
        );
    }
    // What adapters have learnt is there in PEFT's format: one, or one for each task.
    for (method, folders) in [("lora", vec!["all-tasks"]), ("o-lora", TASKS.to_vec())] {
        for folder in folders {
            let dir = place.path(&format!("{method}/adapters/{folder}"));
            let config: Value =
                serde_json::from_slice(&fs::read(dir.join("adapter_config.json")).unwrap()).unwrap();
            assert_eq!((&config["peft_type"], &config["r"]), (&"LORA".into(), &8.into()));
            let tensors = fs::read(dir.join("adapter_model.safetensors")).unwrap();
            let tensors = safetensors::SafeTensors::deserialize(&tensors).unwrap();
            let is_b = |name: &&str| name.ends_with(".lora_B.weight");
            let changed = |name: &str| tensors.tensor(name).unwrap().data().iter().any(|&byte| byte != 0);
            assert!(
                tensors.names().into_iter().filter(is_b).all(changed),
                "{method}: an adapter that has not learnt"
            );
        }
    }
    // Scored again, what was learnt answers as it did at the end of the run; and questions.
    for method in ["lora", "lora-per-task", "moe-lora", "hide", "o-lora", "keep-lora", "lora-fwd"] {
        let again = succeed(&mut place.program(&["eval", method, "--json"]));
        let again: Value = serde_json::from_str(&again).unwrap();
        for (i, row) in again["scores"].as_array().unwrap().iter().enumerate() {
            assert_eq!(row["score"], place.metrics(method)["scores"][2][i], "{method}");
        }
        let asked = ["ask", method, "Where is it?", "--image", "picture.png", "--json"];
        picture(0, 0).save(place.path("picture.png")).unwrap();
        let answer: Value = serde_json::from_str(&succeed(&mut place.program(&asked))).unwrap();
        assert!(answer["answer"].is_string() && answer["prompts"] == serde_json::json!([]), "{answer}");
    }
    for method in ["lora-fwd", "lora-residual"] {
        let metrics = place.metrics(method);
        let of_last = metrics["interference"][1].as_array().unwrap();
        assert_eq!(of_last.len(), 2, "pre-training and the first task: {metrics}");
        for older in of_last {
            let leakage = older["leakage"].as_f64().unwrap();
            assert!(older["forbidden"] != true || leakage <= 1e-5, "{method}: {older}");
        }
        assert!(of_last[1]["forbidden"] == true, "{method}: {of_last:?}");
    }
    // A batch that has nothing new in front of it is not asked again, and whoever asks it gets the same.
    let counts = |run: &str| {
        let timing = place.json(&format!("{run}/timing.json"));
        ["answers", "repeated"].map(|key| timing[key].as_u64().unwrap())
    };
    let ([n, repeated], of_one_row) = (counts("sequential"), counts("zero-shot"));
    assert_eq!(of_one_row[1], 0);
    assert!(repeated > 0 && n > 3 * of_one_row[0], "{repeated} of {n}, {of_one_row:?}");
    let again: Value =
        serde_json::from_str(&succeed(&mut place.program(&["eval", "sequential", "--json"]))).unwrap();
    for (i, row) in again["scores"].as_array().unwrap().iter().enumerate() {
        assert_eq!(row["score"], place.metrics("sequential")["scores"][2][i]);
    }
    // A task that is scored as one of the sequence and as one of pre-training is asked other samples in batches of the same number.
    let twice = ["--tasks", "squares,colours", "--method", "sequential", "--set", "eval_batch=2"];
    succeed(&mut place.train("twice", &[&few[..], &twice].concat()));
    let lines = |path: &str| -> Vec<String> {
        fs::read_to_string(place.path(path)).unwrap().lines().map(str::to_owned).collect()
    };
    let all = lines("twice/predictions/after-0/squares.jsonl");
    let some = lines("twice/predictions/after-0/pretraining/squares.jsonl");
    assert!(some.iter().all(|line| all.contains(line)), "{some:?} {all:?}");
    // Zero-shot is the first row of all.
    let first = place.metrics("zero-shot")["scores"][0].clone();
    assert_eq!(place.metrics("joint")["scores"][0], first);
    assert_eq!(place.metrics("independent")["scores"][0], first);
    succeed(&mut place.train("fwd", &[&few[..], &["--alone", "independent"]].concat()));
    assert!(place.metrics("fwd")["measures"]["plasticity"].is_number());
    let refused = fail(&mut place.train("x", &["--alone", "joint"]));
    assert!(refused.contains("not of `independent`"), "{refused}");

    let order = ["--method", "zero-shot", "--tasks", "corners,colours", "--order", "reversed"];
    succeed(&mut place.train("order", &order));
    assert_eq!(place.metrics("order")["tasks"][0]["name"], "colours");
}

#[test]
fn new_prompts_begin_with_those_of_another_run() {
    let place = Place::new();
    let few = ["--steps", "4", "--set", "pretraining_samples=4"];
    let train = |name: &str, more: &[&str]| place.train(name, &[&few[..], more].concat());
    succeed(&mut train("alone", &["--method", "independent", "--set", "training_samples=5"]));
    // Its prompts are tuned with one instruction for all tasks, which the run keeps for all that is done with it later.
    let asked = ["--method", "independent", "--set", "instruction=\"And?\""];
    succeed(&mut train("wordless", &asked));
    let prompts = |path: &str| -> Vec<String> {
        let lines = fs::read_to_string(place.path(path)).unwrap();
        let of =
            |line: &str| serde_json::from_str::<Value>(line).unwrap()["prompt"].as_str().unwrap().to_owned();
        lines.lines().map(of).collect()
    };
    assert!(prompts("wordless/predictions/after-1/corners.jsonl").iter().all(|prompt| prompt == "And?"));
    assert!(prompts("alone/predictions/after-1/corners.jsonl").iter().all(|prompt| prompt == "Where is it?"));
    succeed(&mut place.program(&["eval", "wordless", "--predictions", "again"]));
    assert!(prompts("again/corners.jsonl").iter().all(|prompt| prompt == "And?"));
    let refused = fail(&mut train("x", &["--set", "instruction=\" \""]));
    assert!(refused.contains("instruction is empty"), "{refused}");
    succeed(&mut train("shared", &["--method", "l2p"]));
    succeed(&mut train("with", &["--library", "alone"]));
    succeed(&mut train("nearest", &["--library", "alone", "--set", "pool.start=nearest"]));
    let manifest = place.json("with/manifest.json");
    assert_eq!(manifest["run"]["config"]["pool"]["start"], "library");
    assert_eq!(manifest["run"]["library"].as_str().unwrap().len(), 16);
    let log = fs::read_to_string(place.path("with/log.txt")).unwrap();
    assert!(log.contains("prompts of colours begin with"), "{log}");
    for name in ["with", "nearest"] {
        let found = succeed(&mut place.program(&["inspect", name, "--json"]));
        let found: Value = serde_json::from_str(&found).unwrap();
        let starts = found["starts"].as_array().unwrap();
        assert_eq!(starts.len(), 2);
        for start in starts {
            let scores = start["scores"].as_array().unwrap();
            assert_eq!((scores[0][0].as_str(), scores[1][0].as_str()), (Some("colours"), Some("corners")));
            // Each of the two tasks stands in the library itself, and nothing is nearer to its samples than its own keys.
            if name == "nearest" {
                assert_eq!(start["from"], start["task"], "{found}");
            }
        }
        let text = succeed(&mut place.program(&["inspect", name]));
        assert!(text.contains("began with"), "{text}");
    }
    // What a library does is told by a run that is alike in all else, and so is what another method does.
    succeed(&mut train("without", &[]));
    succeed(&mut train("other", &["--library", "alone", "--method", "sequential"]));
    succeed(&mut train("by-task", &["--library", "alone", "--set", "pool.inference=task"]));
    let average = |run: &str| place.metrics(run)["measures"]["average"].as_f64().unwrap();
    for (against, base, of) in [
        ("pool.start=normal", "without", "with"),
        ("method=fwd", "with", "other"),
        ("pool.inference=prompts", "with", "by-task"),
    ] {
        let runs = ["with", "without", "other", "by-task"];
        let list = [&["compare"][..], &runs, &["--format", "json", "--against", against]].concat();
        let found: Value = serde_json::from_str(&succeed(&mut place.program(&list))).unwrap();
        let groups = found["groups"].as_array().unwrap();
        let group = groups.iter().find(|group| group["runs"] == serde_json::json!([of])).unwrap();
        let difference = group["measures"]["average"]["values"][0].as_f64().unwrap();
        assert!((difference - (average(of) - average(base))).abs() < 1e-9, "{against}: {group}");
    }
    let text = succeed(&mut place.program(&["inspect", "alone", "--task", "colours"]));
    assert!(!text.contains("began with"), "{text}");

    // As a fallback the library is part of the run, and answers are given with it.
    succeed(&mut train("fallback", &["--library", "alone", "--set", "pool.fallback=nearest"]));
    let config = place.json("fallback/manifest.json")["run"]["config"].clone();
    assert_eq!((config["pool"]["fallback"].as_str(), config["pool"].get("start")), (Some("nearest"), None));
    succeed(&mut place.program(&["inspect", "fallback"]));
    fs::rename(place.path("alone"), place.path("elsewhere")).unwrap();
    succeed(&mut place.program(&["eval", "fallback"]));
    fs::rename(place.path("elsewhere"), place.path("alone")).unwrap();

    fs::rename(place.path("alone/metrics.json"), place.path("metrics.json")).unwrap();
    let refused = fail(&mut train("x", &["--library", "alone"]));
    assert!(refused.contains("alone: a library needs a finished run"), "{refused}");
    fs::rename(place.path("metrics.json"), place.path("alone/metrics.json")).unwrap();
    let refused = fail(&mut train("x", &["--set", "pool.start=library"]));
    assert!(refused.contains("--library RUN"), "{refused}");
    let refused = fail(&mut train("x", &["--set", "paths.library=alone"]));
    assert!(refused.contains("neither pool.start nor pool.fallback"), "{refused}");
    let refused = fail(&mut train("x", &["--library", "shared"]));
    assert!(refused.contains("shared") && refused.contains("share their prompts"), "{refused}");
    let refused = fail(&mut train("x", &["--set", "training_samples=0"]));
    assert!(refused.contains("training_samples is 0"), "{refused}");
    assert!(!place.path("x").exists());
}

#[test]
fn a_question_is_answered_with_and_without_a_run() {
    let place = Place::new();
    succeed(&mut place.train("run", &[]));
    let images = concat!(env!("CARGO_MANIFEST_DIR"), "/../fwd-data/tests/fixtures/images");
    let image = format!("{images}/chelsea_200.png");
    let ask = ["ask", "--image", &image, "--max-new-tokens", "3"];
    // A training sample of the first task takes its prompts; a cat is like nothing in this run.
    let square = place.path("square.png");
    picture(0, 0).save(&square).unwrap();
    for (image, question, n_prompts) in
        [(square.to_str().unwrap(), "What colour is it?", 2), (&image, "What does the cat think?", 0)]
    {
        let output = place.program(&["ask", "--json", "--image", image, "run", question]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let reply: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(reply["answer"].is_string());
        assert_eq!(reply["prompts"].as_array().unwrap().len(), n_prompts, "{question}");
        assert_eq!(stderr(&output).contains("answers without prompts"), n_prompts == 0);
    }
    succeed(&mut place.program(&[&ask[..], &["run", "What color is the cat?"]].concat()));
    succeed(&mut place.program(&[&ask[..], &["--backbone", "model", "What is it?"]].concat()));

    // The other formats.
    let formats = concat!(env!("CARGO_MANIFEST_DIR"), "/../fwd-data/tests/fixtures/formats");
    for name in ["420.jpg", "lossy.webp", "plain.gif", "rgb.bmp"] {
        let image = format!("{formats}/{name}");
        succeed(&mut place.program(&["ask", "--image", &image, "--backbone", "model", "What is it?"]));
    }

    // A photograph on its side: the camera's tag counts, and the answer is that for the upright one.
    let on_its_side = image::imageops::rotate270(&picture(0, 0));
    on_its_side.save(place.path("untagged.png")).unwrap();
    let untagged = fs::read(place.path("untagged.png")).unwrap();
    fs::write(place.path("tagged.png"), with_orientation(&untagged, 6)).unwrap();
    let reply = |name: &str| {
        let ask = ["ask", "--json", "--image", name, "run", "What colour is it?"];
        let output = place.program(&ask).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    assert_eq!(reply("tagged.png"), reply("square.png"));
    assert_ne!(reply("untagged.png"), reply("square.png"));
}

/// A PNG with an orientation tag: an `eXIf` chunk behind the header, which ends at byte 33.
fn with_orientation(png: &[u8], orientation: u8) -> Vec<u8> {
    let mut chunk = b"eXIfMM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    chunk.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = (chunk.len() as u32 - 4).to_be_bytes();
    let crc = crc32fast::hash(&chunk).to_be_bytes();
    [&png[..33], &length, &chunk, &crc, &png[33..]].concat()
}

#[test]
fn the_benchmark_is_examined_and_completions_are_printed() {
    let place = Place::new();
    let report = succeed(&mut place.program(&["data", "check", "bench", "--json"]));
    assert!(serde_json::from_str::<Value>(&report).is_ok(), "{report}");
    succeed(&mut place.program(&["data", "check", "bench"]));
    let script = succeed(&mut place.program(&["completions", "bash"]));
    assert!(script.contains("fwd-prompt"), "{script}");
}

#[test]
fn a_demo_compares_four_methods_and_is_the_same_every_time() {
    let place = Place::new();
    let demo = |out: &str| {
        succeed(&mut place.program(&["demo", "--out", out, "--backbone", "model", "--bench", "bench"]))
    };
    // A model without a library has nothing to reuse.
    let bare = ["demo", "--out", "three", "--backbone", "model", "--bench", "bench", "--json"];
    let three: Value = serde_json::from_str(&succeed(&mut place.program(&bare))).unwrap();
    let names = |runs: &Value| -> Vec<String> {
        runs.as_array().unwrap().iter().map(|run| run["method"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&three), ["sequential", "l2p", "fwd"]);
    succeed(&mut place.program(&["pretrain", "--library", "--out", "model", "--bench", "bench"]));
    let table = demo("one");
    demo("two");
    for method in ["sequential", "l2p", "fwd", "reuse"] {
        assert!(table.lines().any(|line| line.starts_with(method)), "{table}");
        let run = |out: &str| place.metrics_bytes(&format!("{out}/{method}"));
        assert_eq!(run("one"), run("two"));
        assert!(place.metrics(&format!("one/{method}"))["measures"]["plasticity"].is_number());
    }
    // What is finished is taken as it is, unless it is of another seed.
    assert_eq!(demo("one"), table);
    let other = ["demo", "--out", "one", "--seed", "1", "--backbone", "model", "--bench", "bench"];
    assert!(fail(&mut place.program(&other)).contains("another seed"));
}
