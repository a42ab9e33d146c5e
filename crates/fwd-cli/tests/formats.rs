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
fn a_stream_of_tasks_in_parts_is_made_and_learnt_in_its_order() {
    let place = Place::new();
    let sequence = ["data", "convert", "bench", "split", "--to", "packed", "--sequence"];
    let said = succeed(&mut place.program(&[&sequence[..], &["corners,colours", "--parts", "2"]].concat()));
    assert!(said.contains("5 tasks"), "{said}");
    let records = |bench: &str, task: &str| -> Vec<Value> {
        let text = fs::read_to_string(place.path(bench).join(format!("tasks/{task}.jsonl"))).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    for task in TASKS {
        let parts = [1, 2].map(|i| records("split", &format!("{task}-{i}")));
        let answers = |part: &[Value]| -> Vec<String> {
            part.iter().map(|r| r["answer"].as_str().unwrap().to_owned()).collect()
        };
        assert!(answers(&parts[0]).iter().all(|answer| !answers(&parts[1]).contains(answer)));
        assert_eq!(parts.concat().len(), records("bench", task).len());
    }
    succeed(&mut place.train("run", &["--bench", "split", "--steps", "1"]));
    let metrics = place.metrics("run");
    let names = metrics["tasks"].as_array().unwrap().iter().map(|task| task["name"].as_str().unwrap());
    assert_eq!(names.collect::<Vec<_>>(), ["corners-1", "colours-1", "corners-2", "colours-2"]);

    for (given, expected) in [
        (&["colours,corner"][..], "did you mean `corners`"),
        (&["colours,colours"][..], "stands twice"),
        (&["squares"][..], "pre-training"),
        (&["colours", "--parts", "9"][..], "9 parts of"),
    ] {
        let refused = fail(&mut place.program(&[&sequence[..3], &["x"][..], &sequence[4..], given].concat()));
        assert!(refused.contains(expected), "{refused}");
    }
    assert!(!place.path("x").exists());
}

/// The benchmark in CoIN's layout, in the folder `coin`, where the third training record of `corners` names an image that is not there; and
/// these records.
fn damaged() -> (Place, Value) {
    let place = Place::new();
    succeed(&mut place.program(&["data", "convert", "bench", "coin", "--to", "coin"]));
    let path = place.path("coin/corners/train.json");
    let mut records: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    records[2]["image"] = "corners/images/none.png".into();
    fs::write(&path, records.to_string()).unwrap();
    (place, records)
}

#[test]
fn a_damaged_record_is_named_or_left_out() {
    let (place, _) = damaged();
    let message = fail(&mut place.train("run", &["--bench", "coin"]));
    assert!(
        message.contains("train.json") && message.contains("record 2") && message.contains("none.png"),
        "{message}"
    );
    let said =
        succeed(&mut place.program(&["data", "convert", "coin", "good", "--to", "packed", "--skip-bad"]));
    assert!(said.contains("1 records left out"), "{said}");
    succeed(&mut place.train("run", &["--bench", "good"]));
    assert!(!place.program(&["data", "check", "coin"]).output().unwrap().status.success());
    let report = succeed(&mut place.program(&["data", "check", "coin", "--skip-bad", "--json"]));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!((&report["missing_images"]["n"], &report["skip_bad"]), (&1.into(), &true.into()));
}

#[test]
fn a_file_that_ends_early_is_refused_by_every_command() {
    let (place, records) = damaged();
    let whole = records.to_string();
    fs::write(place.path("coin/corners/train.json"), &whole[..whole.len() / 3]).unwrap();
    for args in [
        &["data", "check", "coin", "--skip-bad"][..],
        &["data", "convert", "coin", "good", "--to", "packed", "--skip-bad"],
        &["score", "p.jsonl", "--bench", "coin", "--task", "corners", "--split", "train"],
    ] {
        let message = fail(&mut place.program(args));
        assert!(
            message.contains("train.json, byte ") && message.contains("truncated"),
            "{args:?}: {message}"
        );
    }
}

#[test]
fn folders_of_pictures_become_a_benchmark() {
    let place = Place::new();
    for (i, name) in ["red/0", "red/1", "dark_blue/0", "dark_blue/1"].iter().enumerate() {
        let path = place.path("photos").join(format!("{name}.png"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        image::RgbImage::from_pixel(8, 8, image::Rgb([60 * i as u8, 0, 9])).save(path).unwrap();
    }
    let said = succeed(&mut place.program(&["data", "init", "photos"]));
    assert!(
        said.contains("photos: 2 classes, 2 test, 2 train") && said.contains("next: fwd-prompt data check"),
        "{said}"
    );
    succeed(&mut place.program(&["data", "check", "photos"]));
    let refused = fail(&mut place.program(&["data", "init", "photos"]));
    assert!(refused.contains("tasks.toml") && refused.contains("is not overwritten"), "{refused}");
}

#[test]
fn a_run_may_leave_bad_records_out_and_knows_which() {
    let (place, records) = damaged();
    let flags = ["--bench", "coin", "--skip-bad", "--steps", "2"];
    let output = place.train("skipping", &flags).output().unwrap();
    assert!(output.status.success(), "{}", common::stderr(&output));
    let said = common::stderr(&output);
    assert!(
        said.contains("record 2: the image `corners/images/none.png`") && said.contains("1 records left out"),
        "{said}"
    );
    // As with a benchmark that never had the record.
    succeed(&mut place.program(&["data", "convert", "coin", "good", "--to", "packed", "--skip-bad"]));
    succeed(&mut place.train("good-run", &["--bench", "good", "--steps", "2"]));
    assert_eq!(place.metrics("skipping")["scores"], place.metrics("good-run")["scores"]);
    let manifest = fs::read_to_string(place.path("skipping/manifest.json")).unwrap();
    let manifest: Value = serde_json::from_str(&manifest).unwrap();
    assert_eq!(
        (&manifest["skipped"]["n_records"], &manifest["run"]["config"]["skip_bad"]),
        (&1.into(), &true.into())
    );
    // Scoring again leaves the same record out.
    succeed(&mut place.program(&["eval", "skipping"]));
    // The image turns up: another benchmark, which the run does not go on with.
    fs::copy(
        place.path("coin").join(records[1]["image"].as_str().unwrap()),
        place.path("coin/corners/images/none.png"),
    )
    .unwrap();
    fs::remove_file(place.path("skipping/metrics.json")).unwrap();
    let refused = fail(&mut place.train("skipping", &flags));
    assert!(refused.contains("data_hash"), "{refused}");
    assert!(fail(&mut place.program(&["eval", "skipping"])).contains("is not the benchmark of this run"));
}

/// A file of predictions by the ids of the records.
fn predictions(place: &Place, name: &str, lines: &[(&str, &str)]) {
    let line =
        |(id, text): &(&str, &str)| serde_json::json!({ "question_id": id, "text": text }).to_string() + "\n";
    let path = place.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, lines.iter().map(line).collect::<String>()).unwrap();
}

#[test]
fn predictions_are_scored_over_the_annotations() {
    let place = Place::new();
    predictions(&place, "p.jsonl", &[("corners/test/0", "Top left."), ("corners/test/3", "bottom right")]);
    let score = ["score", "p.jsonl", "--bench", "bench", "--task", "corners"];
    let json = succeed(
        &mut place.program(&[&score[..], &["--peer-compat", "--json", "--out", "out.jsonl"]].concat()),
    );
    let found: Value = serde_json::from_str(&json).unwrap();
    // Two of four; the peers divide by two, and know no full stop.
    assert_eq!(
        (&found["n_annotations"], &found["n_predictions"], &found["score"]),
        (&4.into(), &2.into(), &50.0.into())
    );
    assert_eq!((&found["peer"]["score"], &found["peer"]["difference"]), (&50.0.into(), &0.0.into()));
    assert_eq!((&found["metric"], &found["peer"]["rule"]), (&"exact".into(), &"exact-first".into()));
    predictions(&place, "p.jsonl", &[("corners/test/0", "top left")]);
    let table = succeed(&mut place.program(&[&score[..], &["--peer-compat"]].concat()));
    assert!(table.contains("25.00") && table.contains("100.00") && table.contains("+75.00"), "{table}");
    // What was written is a file of predictions again, with all samples.
    let again = ["score", "out.jsonl", "--bench", "bench", "--task", "corners", "--json"];
    let again: Value = serde_json::from_str(&succeed(&mut place.program(&again))).unwrap();
    assert_eq!((&again["n_predictions"], &again["score"]), (&4.into(), &50.0.into()));

    // Nothing is left out without a word.
    predictions(
        &place,
        "p.jsonl",
        &[("corners/test/0", "top left"), ("corners/test/1", " "), ("corners/test/9", "b")],
    );
    let table = succeed(&mut place.program(&score));
    for line in [
        "samples without prediction (they count as 0): 2\n",
        "samples with a blank prediction (they count as 0): 1\n",
        "predictions for samples that are not annotated (they are left out): 1\n",
    ] {
        assert!(table.contains(line), "{table}");
    }
    let json = succeed(&mut place.program(&[&score[..], &["--json"]].concat()));
    let found: Value = serde_json::from_str(&json).unwrap();
    let counts = ["n_predictions", "n_unanswered", "n_empty", "n_unasked", "n_unreachable"]
        .map(|key| found[key].as_u64());
    assert_eq!(counts, [3, 2, 1, 1, 0].map(Some));
    assert_eq!(found["score"], 25.0);
    // An array is read as lines are.
    let lines = fs::read_to_string(place.path("p.jsonl")).unwrap();
    fs::write(place.path("p.json"), format!("[{}]", lines.trim_end().replace('\n', ",\n"))).unwrap();
    let array = ["score", "p.json", "--bench", "bench", "--task", "corners", "--json"];
    assert_eq!(succeed(&mut place.program(&array)), json);
    // Predictions of another task.
    predictions(&place, "p.jsonl", &[("corners/test/8", "a"), ("corners/test/9", "b")]);
    let refused = fail(&mut place.program(&score));
    assert!(
        refused.contains("p.jsonl, line 1: no annotation has the `question_id` corners/test/8"),
        "{refused}"
    );
    fs::write(place.path("p.jsonl"), "{\"question_id\":1}\n").unwrap();
    assert!(fail(&mut place.program(&score)).contains("p.jsonl, line 1: the key `text` is missing"));
    let other = ["score", "p.jsonl", "--bench", "bench", "--task", "corner"];
    assert!(fail(&mut place.program(&other)).contains("did you mean `corners`?"));
}

#[test]
fn a_folder_of_results_is_a_matrix() {
    let place = Place::new();
    // As CoIN leaves it: each task before training, right after itself, and after the next.
    let colours = ["red", "green", "blue", "red"].map(|c| c.to_owned()); // Of the samples 16 to 19: 16 % 3 is 1.
    let right = |n: usize| -> Vec<(String, String)> {
        (0..n).map(|i| (format!("colours/test/{i}"), colours[(i + 1) % 3].clone())).collect()
    };
    let write = |name: &str, lines: Vec<(String, String)>| {
        let lines: Vec<_> = lines.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
        predictions(&place, &format!("results/{name}/merge.jsonl"), &lines);
    };
    write("colours/Zero_shot", right(0));
    write("colours/Finetune", right(4));
    write("colours/corners", right(2));
    write("colours/Multitask", right(3));
    predictions(&place, "results/corners/Zero_shot/merge.jsonl", &[("corners/test/1", "top right")]);
    predictions(&place, "results/corners/Finetune/merge.jsonl", &[("corners/test/1", "top left")]);
    let metrics = ["metrics", "results", "--bench", "bench", "--json"];
    let found: Value = serde_json::from_str(&succeed(&mut place.program(&metrics))).unwrap();
    assert_eq!(found["tasks"], serde_json::json!(TASKS));
    assert_eq!(found["scores"], serde_json::json!([[0.0, 25.0], [100.0], [50.0, 0.0]]));
    assert_eq!(
        (&found["measures"]["average"], &found["measures"]["forgetting"]),
        (&25.0.into(), &50.0.into())
    );
    let table = succeed(&mut place.program(&metrics[..4]));
    assert!(
        table.contains("1 colours") && table.contains("100.00") && table.contains("forgetting"),
        "{table}"
    );

    // Without annotations the toolbox's own figures.
    assert!(fail(&mut place.program(&["metrics", "results"])).contains("--tasks"));
    let tasks =
        ["metrics", "results", "--tasks", "colours,corners", "--stages", "Finetune,corners", "--json"];
    assert!(fail(&mut place.program(&tasks)).contains("Result.text"));
    for (cell, figure) in [("colours/last", "Accuracy: 61.50%"), ("corners/last", "ANLS: 40.5%")] {
        fs::create_dir_all(place.path("printed").join(cell)).unwrap();
        fs::write(place.path("printed").join(cell).join("Result.text"), format!("Samples: 4\n{figure}\n"))
            .unwrap();
    }
    let printed = ["metrics", "printed", "--tasks", "colours,corners", "--json"];
    let found: Value = serde_json::from_str(&succeed(&mut place.program(&printed))).unwrap();
    assert_eq!(found["scores"], serde_json::json!([[], [], [61.5, 40.5]]));
    assert_eq!(
        (&found["measures"]["average"], &found["measures"]["forgetting"]),
        (&51.0.into(), &Value::Null)
    );
    write("colours/best", right(1));
    assert!(fail(&mut place.program(&metrics)).contains("which moment is the stage `best`"));
    fs::create_dir(place.path("empty")).unwrap();
    assert!(fail(&mut place.program(&["metrics", "empty"])).contains("holds no results"));
}

#[test]
fn a_run_directory_is_a_folder_of_results() {
    let place = Place::new();
    succeed(&mut place.train("run", &["--steps", "2"]));
    let found = succeed(&mut place.program(&["metrics", "run", "--bench", "bench", "--json"]));
    let found: Value = serde_json::from_str(&found).unwrap();
    let run = place.metrics("run");
    for row in 0..3 {
        for column in 0..2 {
            assert_eq!(found["scores"][row][column], run["scores"][row][column], "{row} {column}");
        }
    }
    for measure in ["average", "forgetting", "forward_transfer"] {
        assert_eq!(found["measures"][measure], run["measures"][measure], "{measure}");
    }
    // Without a benchmark its result is read, from any of its files.
    for path in ["run", "run/metrics.json"] {
        let found = succeed(&mut place.program(&["metrics", path, "--json"]));
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!((&found["scores"], &found["measures"]), (&run["scores"], &run["measures"]), "{path}");
    }
    let found = succeed(&mut place.program(&["metrics", "run/metrics.csv", "--json"]));
    assert_eq!(serde_json::from_str::<Value>(&found).unwrap(), run["measures"]);
    assert!(succeed(&mut place.program(&["metrics", "run"])).contains("after"));
    // A changed result is refused, by all who read it.
    let changed = |from: &str, to: String| {
        let text = fs::read_to_string(place.path("run/metrics.json")).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(place.path("run/metrics.json"), text.replacen(from, &to, 1)).unwrap();
        let messages = [
            fail(&mut place.program(&["metrics", "run"])),
            fail(&mut place.program(&["compare", "run"])),
            fail(&mut place.program(&["report", "run", "--out", "report"])),
        ];
        fs::write(place.path("run/metrics.json"), text).unwrap();
        messages
    };
    let seed = format!("\"seed\": {}", run["seed"]);
    for message in changed(&seed, "\"seed\": 77".to_owned()) {
        assert!(message.contains("metrics.json, `seed`: 77, but the run's manifest says"), "{message}");
    }
    let average = format!("\"average\": {:?}", run["measures"]["average"].as_f64().unwrap());
    for message in changed(&average, "\"average\": 99.5".to_owned()) {
        assert!(message.contains("metrics.json, `measures.average`: 99.5, but the scores give"), "{message}");
    }
    let answers = place.path("run/predictions/after-2/corners.jsonl");
    let text = fs::read_to_string(&answers).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let right = lines.iter().map(|line| {
        let mut line = line.clone();
        line["text"] = line["answers"][0].clone();
        line.to_string() + "\n"
    });
    fs::write(&answers, right.collect::<String>()).unwrap();
    let message = fail(&mut place.program(&["compare", "run"]));
    assert!(message.contains("`scores[2][1]`") && message.contains("corners.jsonl give 100"), "{message}");
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
    for (text, average) in [
        ("90%,10\n80,85\n", 82.5),
        ("90,NA,NA\n80,85,10\n70,75,88\n", 233.0 / 3.0),
        ("[[90.   nan]\n [80.  85. ]]\n", 82.5),
        ("      0     1\n0  90.0   NaN\n1  80.0  85.0\n", 82.5),
    ] {
        fs::write(place.path("m.csv"), text).unwrap();
        let json = succeed(&mut place.program(&["metrics", "m.csv", "--json"]));
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["average"], average, "{text}");
    }
    fs::write(place.path("m.csv"), "9O,10,10\n80,85,10\n70,75,88\n").unwrap();
    assert!(
        fail(&mut place.program(&["metrics", "m.csv"])).contains("m.csv, line 1, column 1: `9O` is no score")
    );
    // A column of pre-training makes no row of the first task.
    fs::write(place.path("m.csv"), "10,20,50\n60,24,49\n50,70,48\n").unwrap();
    let json = succeed(&mut place.program(&["metrics", "m.csv", "--json", "--pretraining-column"]));
    let measures: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&measures["forward_transfer"], &measures["retention"]), (&4.0.into(), &(-2.0).into()));
    fs::write(place.path("m.csv"), "60,\n50,x\n").unwrap();
    let message = fail(&mut place.program(&["metrics", "m.csv"]));
    assert!(message.contains("m.csv") && message.contains("line 2"), "{message}");
}
