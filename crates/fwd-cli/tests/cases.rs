//! Small inputs that people really have, from the command line to the figure.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, fail, stderr, succeed};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Copies a folder of the data crate's cases beside the model and the benchmark.
fn copy_case(place: &Place, name: &str) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for (file, bytes) in common::files(&crates.join("fwd-data/tests/fixtures/cases").join(name)) {
        let path = place.path(name).join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

/// What `score --json` says of predictions, given by the id and the text of each.
fn score(place: &Place, bench: &str, task: &str, predictions: &[(&str, &str)]) -> Value {
    let lines: Vec<Value> =
        predictions.iter().map(|(id, text)| json!({ "question_id": id, "text": text })).collect();
    fs::write(place.path("predictions.json"), Value::from(lines).to_string()).unwrap();
    let args = ["score", "predictions.json", "--bench", bench, "--task", task, "--json"];
    serde_json::from_str(&succeed(&mut place.program(&args))).unwrap()
}

#[test]
fn rejected_captions_count_neither_for_nor_against_a_prediction() {
    let place = Place::new();
    copy_case(&place, "vizrej");
    let right = [("0", "a can of soup on a table"), ("1", "a red box of tea"), ("2", "anything")];
    let found = score(&place, "vizrej", "cap", &right);
    // CIDEr-D of the reference itself is 10, in percent 1000.
    assert!((found["score"].as_f64().unwrap() - 1000.0).abs() < 1e-9, "{found}");
    assert_eq!((&found["n_annotations"], &found["n_unscored"]), (&json!(2), &json!(1)), "{found}");
}

#[test]
fn answers_that_are_no_normal_form_score_as_in_the_official_evaluation() {
    let place = Place::new();
    fs::create_dir_all(place.path("vqa/T")).unwrap();
    let asked = |id: usize, answer: &str| json!({ "question_id": id, "image": "", "text": format!("Q{id}"), "answers": vec![answer; 10] });
    let records = [
        asked(0, "a"),
        asked(1, "two"),
        asked(2, "2"),
        asked(3, "answering does not require reading text in the image"),
    ];
    fs::write(place.path("vqa/T/test.json"), json!(records).to_string()).unwrap();
    let task = "[[task]]\nname = \"t\"\nkind = \"vqa\"\nscorer = \"vqa-soft\"\ntest = \"T/test.json\"\n";
    fs::write(place.path("vqa/tasks.toml"), task).unwrap();
    let said = [
        ("0", "a"),
        ("1", "two"),
        ("2", "two"),
        ("3", "answering does not require reading text in the image"),
    ];
    let found = score(&place, "vqa", "t", &said);
    // The prediction is normalised ("", "2", "2", without "the"), unanimous annotations are not: only the third is right.
    assert_eq!((&found["score"], &found["n_unreachable"]), (&json!(25.0), &json!(3)), "{found}");
}

#[test]
fn an_instruction_beyond_the_limit_is_refused_by_its_record_left_out_or_cut() {
    let place = Place::new();
    let path = place.path("bench/tasks/colours.jsonl");
    let text = fs::read_to_string(&path).unwrap();
    let long = format!("What colour is it? {}", "really ".repeat(100).trim());
    fs::write(&path, text.replacen("What colour is it?", &long, 1)).unwrap();
    // The Q-Former reads the beginning of it, the language model all of it.
    let output = place.train("whole", &[]).output().unwrap();
    let said = stderr(&output);
    assert!(
        output.status.success() && said.contains("1 instructions are longer than the Q-Former's positions"),
        "{said}"
    );
    let cut = json!({ "instructions": 0, "answers": 0, "bridge_instructions": 1 });
    assert_eq!(place.json("whole/manifest.json")["cut"], cut);
    let limit = ["--set", "limits.max_instruction_tokens=20"];
    let refused = fail(&mut place.train("refused", &limit));
    assert!(refused.contains("colours/train/0") && refused.contains("its instruction has"), "{refused}");
    let output = place.train("left-out", &[&limit[..], &["--skip-bad"]].concat()).output().unwrap();
    assert!(output.status.success() && stderr(&output).contains("1 records left out"), "{}", stderr(&output));
    succeed(&mut place.train("cut", &[&limit[..], &["--set", "limits.too_long=cut"]].concat()));
    assert_eq!(
        place.json("cut/manifest.json")["cut"],
        json!({ "instructions": 1, "answers": 0, "bridge_instructions": 0 })
    );
}
