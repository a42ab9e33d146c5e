//! What a terminal is shown: no control character of a data set, of a file or of a model reaches it.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::Place;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;

/// Sets the title, clears the screen, turns red by the one-character form, deletes, and goes back to the beginning of the line.
const EVIL: &str = "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\u{7f}\r";

/// Runs a command; both of its outputs, in which no control character but the line feed may be.
fn shown(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let found: Vec<char> = text.chars().filter(|c| c.is_control() && *c != '\n').collect();
    assert_eq!(found, [], "{command:?}: {text:?}");
    text
}

#[test]
fn no_control_character_of_the_data_reaches_the_terminal() {
    let place = Place::new();
    let path = place.path("bench/tasks/colours.jsonl");
    let mut text = String::new();
    for (i, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
        let mut record: Value = serde_json::from_str(line).unwrap();
        record["question_id"] = format!("{i}{EVIL}id").into();
        record["instruction"] = format!("What colour is it? {EVIL}").into();
        record["answer"] = format!("{}{EVIL}", record["answer"].as_str().unwrap()).into();
        text += &format!("{record}\n");
    }
    fs::write(&path, &text).unwrap();
    shown(&mut place.program(&["data", "check", "bench"]));
    shown(&mut place.program(&["data", "check", "bench", "--json"]));
    let log = shown(&mut place.train("run", &["--steps", "2", "-vv"]));
    assert!(log.contains("learnt colours"), "{log}");
    let log = fs::read_to_string(place.path("run/log.txt")).unwrap();
    assert!(!log.contains(|c: char| c.is_control() && c != '\n'), "{log:?}");
    for args in [
        &["inspect", "run"][..],
        &["inspect", "run", "--json"],
        &["eval", "run"],
        &["compare", "run"],
        &["report", "run", "--out", "report"],
        &["metrics", "run/predictions", "--bench", "bench"],
        &["ask", "run", "--backbone", "model", "--image", "picture.png", EVIL],
    ] {
        common::picture(0, 0).save(place.path("picture.png")).unwrap();
        shown(&mut place.program(args));
    }
    let page = fs::read_to_string(place.path("report/report.html")).unwrap();
    assert!(!page.contains(|c: char| c.is_control() && c != '\n' && c != '\t') && page.contains("id</p>"));

    // A prediction of which no sample knows is named; a file that has no such text shows that it is.
    let prediction = json!({ "question_id": format!("x{EVIL}"), "text": EVIL });
    fs::write(place.path("answers.jsonl"), format!("{prediction}\n")).unwrap();
    let message =
        shown(&mut place.program(&["score", "answers.jsonl", "--bench", "bench", "--task", "colours"]));
    assert!(message.starts_with("error: ") && message.contains("answers.jsonl"), "{message}");
    let message = shown(&mut place.program(&["score", "answers.jsonl", "--bench", "bench", "--task", EVIL]));
    assert!(message.contains("\\u{1b}"), "{message}");
    // A record that cannot be used.
    fs::write(&path, text.replace("squares/colours-03", "squares/\\u001b[31mgone")).unwrap();
    let message = shown(&mut place.program(&["data", "check", "bench"]));
    assert!(message.contains("[31mgone"), "{message}");
    let message = shown(&mut place.program(&["data", "check", "bench", "--skip-bad"]));
    assert!(message.contains("[31mgone"), "{message}");
    // The name of a file.
    let message = shown(&mut place.program(&["ask", "--backbone", "model", "--image", EVIL, "What?"]));
    assert!(message.contains("\\u{1b}"), "{message}");
}
