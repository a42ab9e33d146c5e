//! Benchmarks in the field's layout, and matrices of other toolboxes.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, TASKS, fail, succeed};
use serde_json::Value;
use std::fs;

#[test]
fn a_folder_in_coins_layout_is_learnt_like_the_benchmark_it_was_made_from() {
    let place = Place::new();
    let said = succeed(&mut place.program(&["data", "convert", "bench", "coin", "--to", "coin"]));
    assert!(said.contains("3 tasks, 0 records left out"), "{said}");
    for task in TASKS {
        let text = fs::read_to_string(place.path("coin").join(task).join("train.json")).unwrap();
        let records: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(records[0]["conversations"][1]["from"], "gpt", "{task}");
    }
    succeed(&mut place.program(&["data", "check", "coin", "--json"]));
    succeed(&mut place.train("packed-run", &[]));
    let tasks = TASKS.join(",");
    succeed(&mut place.train("coin-run", &["--bench", "coin", "--tasks", &tasks]));
    let (ours, theirs) = (place.metrics("packed-run"), place.metrics("coin-run"));
    assert_eq!(ours["scores"], theirs["scores"]);
    let again = succeed(&mut place.program(&["eval", "coin-run", "--json"]));
    let again: Value = serde_json::from_str(&again).unwrap();
    assert_eq!(again["scores"][1]["score"], theirs["scores"][2][1]);

    // And back: the packed form has the same records.
    succeed(&mut place.program(&["data", "convert", "coin", "back", "--to", "packed", "--tasks", "corners"]));
    let lines = |bench: &str| fs::read_to_string(place.path(bench).join("tasks/corners.jsonl")).unwrap();
    assert_eq!(lines("back").lines().count(), lines("bench").lines().count());
    assert!(!place.path("back/tasks/colours.jsonl").exists());
    let refused = fail(&mut place.program(&["data", "convert", "bench", "coin", "--to", "coin"]));
    assert!(refused.contains("coin"), "{refused}");
    assert!(
        fail(&mut place.program(&["data", "convert", "bench", "x", "--to", "packed", "--tasks", "corner"]))
            .contains("corners")
    );
}

#[test]
fn a_damaged_record_is_named_or_left_out() {
    let place = Place::new();
    succeed(&mut place.program(&["data", "convert", "bench", "coin", "--to", "coin"]));
    let path = place.path("coin/corners/train.json");
    let mut records: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    records[2]["image"] = "corners/images/none.png".into();
    fs::write(&path, records.to_string()).unwrap();
    let message = fail(&mut place.train("run", &["--bench", "coin"]));
    assert!(
        message.contains("train.json") && message.contains("record 2") && message.contains("none.png"),
        "{message}"
    );
    let said =
        succeed(&mut place.program(&["data", "convert", "coin", "good", "--to", "packed", "--skip-bad"]));
    assert!(said.contains("1 records left out"), "{said}");
    succeed(&mut place.train("run", &["--bench", "good"]));
}

#[test]
fn any_matrix_gives_the_measures() {
    let place = Place::new();
    fs::write(place.path("m.csv"), "\u{feff}after,vqa,captions\r\nvqa,60,\r\ncaptions,50,70\r\n").unwrap();
    let json = succeed(&mut place.program(&["metrics", "m.csv", "--json", "--alone", "60,80"]));
    let measures: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&measures["average"], &measures["forgetting"]), (&60.0.into(), &10.0.into()));
    assert_eq!((&measures["plasticity"], &measures["forward_transfer"]), (&(-5.0).into(), &Value::Null));
    let table = succeed(&mut place.program(&["metrics", "m.csv"]));
    assert!(table.contains("forgetting") && table.contains("10.00"), "{table}");
    assert!(fail(&mut place.program(&["metrics", "m.csv", "--alone", "1"])).contains("2 tasks"));
    fs::write(place.path("m.csv"), "60,\n50,x\n").unwrap();
    let message = fail(&mut place.program(&["metrics", "m.csv"]));
    assert!(message.contains("m.csv") && message.contains("line 2"), "{message}");
}
