//! The library of prompts that comes with a model, the method that begins with it, and maps of the input.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, fail, stderr, succeed};
use serde_json::Value;
use std::fs;

#[test]
fn a_library_is_made_beside_a_model_and_reused() {
    let place = Place::new();
    let refused = fail(&mut place.train("x", &["--method", "reuse"]));
    assert!(refused.contains("pretrain --library") && refused.contains("prompts.safetensors"), "{refused}");
    let make = ["pretrain", "--library", "--out", "model", "--bench", "bench"];
    let printed = succeed(&mut place.program(&make));
    assert!(printed.trim().ends_with("library/prompts.safetensors"), "{printed}");
    let of_library = place.json("model/library/run/manifest.json")["run"].clone();
    assert_eq!(of_library["config"]["instruction"], "What is the answer?");
    assert_eq!(of_library["config"]["tasks"], serde_json::json!(["squares"]));
    // It is made once, and again from what was tuned if only the file is gone.
    let file = place.path("model/library/prompts.safetensors");
    let bytes = fs::read(&file).unwrap();
    fs::remove_file(&file).unwrap();
    succeed(&mut place.program(&make));
    assert_eq!(fs::read(&file).unwrap(), bytes);

    succeed(&mut place.train("reuse", &["--method", "reuse"]));
    let run = place.json("reuse/manifest.json")["run"].clone();
    let pool = &run["config"]["pool"];
    assert_eq!((&pool["start"], &pool["inference"]), (&"library".into(), &"task".into()));
    assert_eq!((&pool["fallback"], &pool["anchors"]["count"]), (&"nearest".into(), &256.into()));
    assert_eq!(run["library"].as_str().unwrap().len(), 16);
    // The model beside which the library lies is the same model.
    assert_eq!(run["backbone_hash"], of_library["backbone_hash"]);
    let found: Value =
        serde_json::from_str(&succeed(&mut place.program(&["inspect", "reuse", "--json"]))).unwrap();
    assert_eq!(found["starts"][0]["scores"][0][0], "squares");
    // It is what such a model does where nothing else is said, on the command line or in a file.
    succeed(&mut place.train("open", &[]));
    assert_eq!(place.metrics_bytes("open"), place.metrics_bytes("reuse"));
    fs::write(place.path("fwd.toml"), "method = \"fwd\"").unwrap();
    for (name, chosen) in [("file", ["--config", "fwd.toml"]), ("set", ["--set", "method=\"fwd\""])] {
        succeed(&mut place.train(name, &chosen));
        assert_eq!(place.metrics(name)["method"], "fwd");
    }
    // Fewer anchors than were asked for are no secret.
    let few = place.train("few", &["--method", "reuse", "--set", "pretraining_samples=4"]).output().unwrap();
    assert!(few.status.success() && stderr(&few).contains("2 anchors are kept"), "{}", stderr(&few));
    // What is said otherwise holds, unless nothing is left of the method.
    let own =
        ["pool.fallback=nothing", "pool.anchors.count=0", "pool.inference=prompts", "pool.prompt_len=8"];
    let own: Vec<&str> = own.iter().flat_map(|own| ["--set", own]).collect();
    succeed(&mut place.train("own", &[&["--method", "reuse"], &own[..]].concat()));
    let pool = place.json("own/manifest.json")["run"]["config"]["pool"].clone();
    assert_eq!((&pool["start"], &pool["prompt_len"]), (&"library".into(), &8.into()));
    assert_eq!((pool.get("fallback"), pool.get("anchors"), pool.get("inference")), (None, None, None));
    for (settings, what) in [
        (&["--set", "pool.prompt_len=8"][..], "which have 4 tokens; pool.prompt_len is 8"),
        (&["--set", "pool.start=normal"], "pool.start is normal"),
        (&["--method", "reuse-map", "--set", "map.form=none"], "map.form is none"),
    ] {
        let refused = fail(&mut place.train("x", settings));
        assert!(refused.contains(what), "{refused}");
    }
    // With a map beside it, whose updates stay out of older subspaces; what is said otherwise, holds.
    let own = ["--set", "pool.anchors.count=3", "--set", "map.form=low-rank"];
    succeed(&mut place.train("map", &[&["--method", "reuse-map"], &own[..]].concat()));
    let config = place.json("map/manifest.json")["run"]["config"].clone();
    assert_eq!(
        (&config["map"]["form"], &config["pool"]["anchors"]["count"]),
        (&"low-rank".into(), &3.into())
    );
    assert!(place.metrics("map")["measures"]["leakage"].as_f64().unwrap() <= 1e-5);
    // The same library by name, and other methods with it.
    succeed(&mut place.train("named", &["--library", "model/library/prompts.safetensors"]));
    let config = place.json("named/manifest.json")["run"].clone();
    assert_eq!((&config["config"]["method"], &config["library"]), (&"fwd".into(), &run["library"]));

    // That of another model is refused, and so is what is none.
    let config = place.path("model/config.json");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n")).unwrap();
    let refused = fail(&mut place.train("x", &["--method", "reuse"]));
    assert!(refused.contains("is of another model"), "{refused}");
    fs::write(&config, text).unwrap();
    fs::write(&file, &bytes[..100]).unwrap();
    let refused = fail(&mut place.train("x", &["--method", "reuse"]));
    assert!(refused.contains("prompts.safetensors: it is no library of prompts"), "{refused}");
    fs::write(&file, &bytes).unwrap();
    let refused = fail(&mut place.program(&[&make[..], &["--pretraining-tasks", "nothing"]].concat()));
    assert!(refused.contains("nothing"), "{refused}");
    let refused = fail(&mut place.program(&[&make[..], &["--pretraining-tasks", "corners"]].concat()));
    assert!(refused.contains("library/run holds the prompts of squares"), "{refused}");
    assert!(!place.path("x").exists());
}

#[test]
fn a_map_is_learnt_scored_and_asked() {
    let place = Place::new();
    let no_prompts = ["--set", "pool.allocation={partitioned=0}"];
    let full = ["--set", "map.form=full", "--set", "map.optimiser.lr=0.02"];
    let alone = [&no_prompts[..], &full].concat();
    succeed(&mut place.train("free", &[&alone[..], &["--method", "sequential"]].concat()));
    succeed(&mut place.train("held", &[&alone[..], &["--method", "residual"]].concat()));
    let low = ["--set", "map.form=low-rank", "--set", "map.rank=3"];
    succeed(&mut place.train("both", &[&low[..], &["--method", "fwd"]].concat()));
    succeed(&mut place.train("plain", &["--method", "sequential"]));
    let kl = |run: &str| place.metrics(run)["measures"]["output_kl"].as_f64().unwrap();
    assert!(kl("free") > 2.0 * kl("held") && kl("free") > 0.0, "{} {}", kl("free"), kl("held"));
    let moved = place.json("free/outputs/after-2.json");
    assert_eq!(moved["colours"].as_f64().unwrap(), kl("free"));
    assert!(place.metrics("held")["measures"]["leakage"].as_f64().unwrap() <= 1e-5);
    let trained = |run: &str| place.metrics(run)["trainable_parameters"].as_u64().unwrap();
    assert_eq!((trained("free"), trained("both") - trained("plain")), (64 * 64, 2 * 2 * 3 * 64));
    // The map is in what a run answers with, whoever asks it.
    for run in ["free", "both"] {
        let again: Value =
            serde_json::from_str(&succeed(&mut place.program(&["eval", run, "--json"]))).unwrap();
        for (i, row) in again["scores"].as_array().unwrap().iter().enumerate() {
            assert_eq!(row["score"], place.metrics(run)["scores"][2][i], "{run}");
        }
    }
    let answers = |after: usize| {
        fs::read(place.path(&format!("free/predictions/after-{after}/corners.jsonl"))).unwrap()
    };
    assert_ne!(answers(2), answers(0));
    let table = succeed(&mut place.program(&["compare", "free", "held", "both", "plain"]));
    assert!(table.contains("output KL") && table.contains("map.form"), "{table}");
    let refused = fail(&mut place.train("x", &[&low[..], &["--method", "ewc"]].concat()));
    assert!(refused.contains("ewc needs parameters that all tasks train"), "{refused}");
    let refused = fail(&mut place.train("x", &no_prompts));
    assert!(refused.contains("of 0 prompts"), "{refused}");
    let refused = fail(&mut place.program(&["inspect", "free"]));
    assert!(refused.contains("prompts"), "{refused}");
    let refused = fail(&mut place.train("x", &["--library", "both"]));
    assert!(refused.contains("behind a map"), "{refused}");
}
