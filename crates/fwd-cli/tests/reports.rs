//! Finished runs beside each other: comparisons and reports.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, fail, files, succeed};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Three short runs: `fwd` under two seeds, `sequential` under one.
fn runs() -> Place {
    let place = Place::new();
    for (out, method, seed) in [("a", "fwd", "0"), ("b", "fwd", "1"), ("c", "sequential", "0")] {
        succeed(&mut place.train(out, &["--steps", "2", "--method", method, "--seed", seed]));
    }
    place
}

/// Copies a run directory's own files, changed by `edit`.
fn copy_run(place: &Place, from: &str, to: &str, edit: impl Fn(&str, String) -> Option<String>) {
    fs::create_dir_all(place.path(to)).unwrap();
    for name in ["manifest.json", "metrics.json", "timing.json"] {
        let text = fs::read_to_string(place.path(from).join(name)).unwrap();
        if let Some(text) = edit(name, text) {
            fs::write(place.path(to).join(name), text).unwrap();
        }
    }
}

/// Whether a page refers to nothing outside of itself, so that it can be mailed alone.
fn stands_alone(page: &str) {
    for attribute in [" href=", " src=", " srcset=", " poster=", " data=", " action="] {
        for target in page.split(attribute).skip(1).map(|rest| rest.split('"').nth(1).unwrap()) {
            match target.strip_prefix('#') {
                Some(id) => assert!(page.contains(&format!("id=\"{id}\"")), "{target}"),
                None => assert!(attribute == " src=" && target.starts_with("data:image/"), "{target}"),
            }
        }
    }
    for forbidden in ["<script", "@import", "url(", "<link", "<iframe", "<object"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

/// The page of the report that a command writes into a folder.
fn page(place: &Place, args: &[&str], out: &str) -> String {
    succeed(&mut place.program(&[&["report"], args, &["--out", out]].concat()));
    let page = fs::read_to_string(place.path(out).join("report.html")).unwrap();
    stands_alone(&page);
    page
}

/// What stands between two texts.
fn between<'t>(text: &'t str, from: &str, to: &str) -> &'t str {
    let (_, rest) = text.split_once(from).unwrap_or_else(|| panic!("no {from}"));
    rest.split_once(to).unwrap_or_else(|| panic!("no {to} behind {from}")).0
}

/// Copies a folder with everything in it.
fn copy_all(from: &Path, to: &Path) {
    for (name, bytes) in files(from) {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

#[test]
fn a_comparison_is_over_seeds_and_refuses_what_cannot_be_compared() {
    let place = runs();
    let average = |run: &str| place.metrics(run)["measures"]["average"].as_f64().unwrap();
    let found = succeed(&mut place.program(&["compare", "c", "b", "a", "--json"]));
    let found: Value = serde_json::from_str(&found).unwrap();
    let groups = found["groups"].as_array().unwrap();
    assert_eq!((&groups[0]["method"], &groups[1]["method"]), (&"sequential".into(), &"fwd".into()));
    assert_eq!(groups[1]["seeds"], serde_json::json!([0, 1]));
    let (low, high) = (average("a").min(average("b")), average("a").max(average("b")));
    let measure = &groups[1]["measures"]["average"];
    assert_eq!(measure["mean"], (average("a") + average("b")) / 2.0);
    // Of two values the interval is 12.706 times half their distance to both sides.
    let end = measure["interval"][1].as_f64().unwrap();
    assert!((end - (low + high) / 2.0 - 12.7062 * (high - low) / 2.0).abs() < 1e-3, "{measure}");
    assert_eq!(groups[0]["measures"]["average"]["interval"], Value::Null);
    let leakage = |run: &str| place.metrics(run)["measures"]["leakage"].as_f64().unwrap();
    assert_eq!(groups[1]["measures"]["leakage"]["max"], leakage("a").max(leakage("b")));

    let table = succeed(&mut place.program(&["compare", "a", "b", "c"]));
    assert!(table.lines().any(|line| line.starts_with("fwd") && line.contains('±')), "{table}");
    let csv = succeed(&mut place.program(&["compare", "a", "b", "--format", "csv"]));
    assert!(
        csv.starts_with("method,variant,seeds,measure,n,mean") && csv.contains("fwd,,0 1,average,2,"),
        "{csv}"
    );
    succeed(&mut place.program(&["compare", "a", "b", "--format", "latex", "--out", "t/table.tex"]));
    let latex = fs::read_to_string(place.path("t/table.tex")).unwrap();
    assert!(latex.contains("\\begin{tabular}") && latex.contains("optimiser \\%"), "{latex}");

    // Another order is another group, under a name.
    let order = ["--steps", "2", "--method", "sequential", "--order", "reversed"];
    succeed(&mut place.train("reversed", &order));
    let table = succeed(&mut place.program(&["compare", "c", "reversed"]));
    assert!(table.contains("sequential (order 1)") && table.contains("sequential (order 2)"), "{table}");

    // Pooled it is one group, whose interval is over both.
    let json = |args: &[&str]| -> Value {
        serde_json::from_str(&succeed(&mut place.program(&[&["compare", "--json"], args].concat()))).unwrap()
    };
    let found = json(&["c", "reversed", "--pool-orders"]);
    assert_eq!(found["groups"].as_array().unwrap().len(), 1);
    let values = &found["groups"][0]["measures"]["average"]["values"];
    let both: Vec<f64> = values.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert!(both == [average("c"), average("reversed")] || both == [average("reversed"), average("c")]);
    // Differences are between runs of one seed and order: `b` and `reversed` have no partner.
    let found = json(&["a", "b", "c", "reversed", "--pool-orders", "--against", "fwd"]);
    assert_eq!(found["groups"].as_array().unwrap().len(), 1);
    let measures = &found["groups"][0]["measures"];
    assert_eq!(measures["average"]["mean"], average("c") - average("a"));
    assert_eq!(measures["average"]["interval"], Value::Null);
    assert_eq!(measures["leakage"], Value::Null);
    let table = succeed(&mut place.program(&["compare", "a", "c", "--against", "fwd"]));
    assert!(table.starts_with("less fwd") && !table.contains("leakage"), "{table}");

    // A setting: the partner is like the run in everything else.
    let args = ["--steps", "2", "--method", "sequential", "--set", "pool.rejection=never"];
    succeed(&mut place.train("never", &args));
    let found = json(&["a", "c", "never", "--against", "pool.rejection=never"]);
    let groups = found["groups"].as_array().unwrap();
    assert_eq!((groups.len(), &found["less"]), (2, &"pool.rejection never".into()));
    assert_eq!(groups[0]["measures"]["average"]["mean"], average("c") - average("never"));
    // `a` is of another method and has no partner.
    assert_eq!(groups[1]["measures"]["average"], Value::Null);

    let refused = |runs: &[&str]| fail(&mut place.program(&[&["compare"], runs].concat()));
    let message = refused(&["a", "c", "--against", "l2p"]);
    assert!(message.contains("none of the runs is of the method `l2p`"), "{message}");
    let message = refused(&["a", "c", "--against", "pool.prompt_len=77"]);
    assert!(message.contains("none of the runs is of the setting `pool.prompt_len=77`"), "{message}");
    let message = refused(&["a", "bench"]);
    assert!(message.contains("bench is no run directory"), "{message}");
    copy_run(&place, "b", "unfinished", |name, text| (name != "metrics.json").then_some(text));
    let message = refused(&["a", "unfinished"]);
    assert!(message.contains("unfinished is not finished"), "{message}");
    copy_run(&place, "a", "twice", |_, text| Some(text));
    let message = refused(&["a", "twice"]);
    assert!(message.contains("a and twice are the same run"), "{message}");
    let key = |name: &str| {
        let manifest: Value =
            serde_json::from_slice(&fs::read(place.path("a/manifest.json")).unwrap()).unwrap();
        manifest["run"][name].as_str().unwrap().to_owned()
    };
    for (what, from, to) in [
        ("the benchmark differs", key("data_hash"), "0".repeat(64)),
        ("the model differs", key("backbone_hash"), "0".repeat(64)),
        ("it scored the split `val`", "\"split\": \"test\"".to_owned(), "\"split\": \"val\"".to_owned()),
        ("the tasks differ (only in the former: `corner`", "\"corners\"".to_owned(), "\"corner\"".to_owned()),
    ] {
        copy_run(&place, "b", "other", |_, text| Some(text.replace(&from, &to)));
        let message = refused(&["a", "other"]);
        assert!(message.contains("other cannot be compared with a") && message.contains(what), "{message}");
    }
}

#[test]
fn a_report_needs_nothing_else_and_is_the_same_every_time() {
    let place = runs();
    // What the other two commands find has its place in it.
    succeed(&mut place.program(&["inspect", "a", "--out", "a"]));
    succeed(&mut place.program(&["analyze", "--run", "a", "--out", "analysis", "--samples", "6"]));
    let report = |out: &str| {
        let analysis = ["--analysis", "analysis/analysis.json"];
        let args = [&["report", "a", "b", "c", "--out", out, "--json"][..], &analysis].concat();
        serde_json::from_str::<Value>(&succeed(&mut place.program(&args))).unwrap()
    };
    let names = report("one")["figures"].as_array().unwrap().clone();
    let found = files(&place.path("one"));
    for name in [
        "average",
        "forgetting",
        "forward-transfer",
        "retention",
        "average-over-sequence",
        "scores-1-sequential",
        "scores-2-fwd",
        "trainable-parameters",
        "optimiser-percent",
        "leakage",
        "capacity",
        "rank-growth",
        "spectrum-image",
        "overlap-text",
        "selection-2-fwd",
        "moved-2-fwd",
        "loss-1-sequential",
        "loss-2-fwd",
    ] {
        assert!(names.contains(&name.into()), "{name} is not among {names:?}");
    }
    assert_eq!(found.len(), 1 + 2 * names.len());
    for name in &names {
        let name = name.as_str().unwrap();
        let svg = String::from_utf8(found[&format!("figures/{name}.svg")].clone()).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>") && svg.contains("<text"),
            "{name}"
        );
        let png = image::load_from_memory(&found[&format!("figures/{name}.png")]).unwrap().to_rgb8();
        let n_dark = png.pixels().filter(|pixel| pixel.0.iter().all(|c| *c < 120)).count();
        assert!(png.width() == 960 && n_dark > 100, "{name}: {n_dark} dark pixels");
    }
    let page = String::from_utf8(found["report.html"].clone()).unwrap();
    stands_alone(&page);
    assert_eq!(page.matches("<figure ").count(), names.len());
    assert_eq!(page.matches("role=\"img\" aria-label=").count(), names.len());

    report("two");
    assert_eq!(files(&place.path("two")), found);
    // An older report is replaced, figures that are no more included.
    succeed(&mut place.program(&["report", "c", "--out", "two"]));
    assert!(!place.path("two/figures/scores-2-fwd.svg").exists());
    let message = fail(&mut place.program(&["report", "a", "--out", "bench"]));
    assert!(message.contains("bench holds `") && message.contains("no part of a report"), "{message}");
    let analysis = fs::read_to_string(place.path("analysis/analysis.json")).unwrap();
    let hash = serde_json::from_str::<Value>(&analysis).unwrap()["data_hash"].as_str().unwrap().to_owned();
    fs::write(place.path("other.json"), analysis.replace(&hash, "0")).unwrap();
    let message = fail(&mut place.program(&["report", "a", "--out", "three", "--analysis", "other.json"]));
    assert!(message.contains("another model or benchmark"), "{message}");
    // Of the same files opened otherwise, and from before that was written down.
    for (key, other) in [("dtype", "q8"), ("compute", "int8"), ("template", "chat")] {
        let mut changed: Value = serde_json::from_str(&analysis).unwrap();
        changed[key] = other.into();
        fs::write(place.path("other.json"), changed.to_string()).unwrap();
        let args = ["report", "a", "--out", "three", "--analysis", "other.json"];
        let message = fail(&mut place.program(&args));
        assert!(
            message.contains("another dtype, compute or template") && message.contains(&format!("`{other}`")),
            "{message}"
        );
        changed.as_object_mut().unwrap().remove(key);
        fs::write(place.path("other.json"), changed.to_string()).unwrap();
        succeed(&mut place.program(&args));
    }
}

#[test]
fn names_from_files_are_text_and_no_markup() {
    let place = Place::new();
    succeed(&mut place.train("run", &["--steps", "2", "--method", "sequential"]));
    copy_run(&place, "run", "<i>run", |_, text| {
        Some(text.replace("\"colours\"", "\"<script>alert('&\\\"')</script>\""))
    });
    succeed(&mut place.program(&["report", "<i>run", "--out", "report"]));
    let found = files(&place.path("report"));
    for (name, bytes) in found.iter().filter(|(name, _)| !name.ends_with(".png")) {
        let text = std::str::from_utf8(bytes).unwrap();
        assert!(!text.contains("<script") && !text.contains("<i>"), "{name}");
    }
    let page = std::str::from_utf8(&found["report.html"]).unwrap();
    assert!(page.contains("&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;"));
    assert!(page.contains("&lt;i&gt;run"));
}

#[test]
fn samples_show_pictures_and_answers_of_the_run_and_do_without_the_benchmark() {
    let place = Place::new();
    succeed(&mut place.train("run", &["--steps", "2"]));
    // What became of the four samples of `colours`: forgotten, learnt, gained later, always right.
    let scores = [[1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 1, 1]];
    for after in 0..3 {
        let path = place.path(&format!("run/predictions/after-{after}/colours.jsonl"));
        let mut text = String::new();
        for (line, scores) in fs::read_to_string(&path).unwrap().lines().zip(scores) {
            let mut line: Value = serde_json::from_str(line).unwrap();
            line["score"] = f64::from(scores[after]).into();
            line["text"] = format!("answer <{after}>").into();
            text += &format!("{line}\n");
        }
        fs::write(path, text).unwrap();
    }
    let found = page(&place, &["run"], "report");
    let section = between(&found, "<section id=\"samples\"", "</section>");
    let colours = between(section, "<h3>fwd: 1 colours</h3>", "</ul>");
    let cards: Vec<&str> = colours.split("<li>").skip(1).collect();
    let kinds = cards.iter().map(|card| between(card, "class=\"change\">", "<")).collect::<Vec<_>>();
    assert_eq!(kinds, ["Forgotten", "Learnt", "Gained later"]);
    for (card, number) in cards.iter().zip([0, 1, 2]) {
        assert!(card.contains(&format!(">colours/test/{number}<")), "{card}");
        assert!(card.contains("What colour is it?"), "{card}");
        for after in 0..3 {
            assert!(card.contains(&format!("answer &lt;{after}&gt;")), "{card}");
        }
        // The picture is that of the sample: 24 pixels a side, its square in one of the three colours.
        let encoded = between(card, "src=\"data:image/", "\"").split_once(";base64,").unwrap().1;
        let shown = image::load_from_memory(&unbase64(encoded)).unwrap().to_rgb8();
        let real = common::picture(0, 16 + number);
        assert_eq!(shown.dimensions(), real.dimensions());
        let near = |(a, b): (&image::Rgb<u8>, &image::Rgb<u8>)| (0..3).all(|c| a[c].abs_diff(b[c]) < 60);
        let n_near = shown.pixels().zip(real.pixels()).filter(|pair| near(*pair)).count();
        assert!(n_near > 24 * 24 * 9 / 10, "{n_near}");
    }
    let forgotten = between(cards[0], "before training</dt>", "</dl>");
    let marks: Vec<&str> =
        forgotten.split("class=\"mark\">").skip(1).map(|m| m.split('<').next().unwrap()).collect();
    assert_eq!(marks, ["✓ right", "✓ right", "✗ wrong"]);

    // A moved benchmark is named, a missing or another one is said.
    copy_all(&place.path("bench"), &place.path("moved"));
    fs::remove_dir_all(place.path("bench")).unwrap();
    let found = page(&place, &["run"], "report");
    assert!(found.contains("Without pictures: ") && !found.contains("<img"));
    assert!(found.contains("answer &lt;2&gt;"));
    assert_eq!(
        page(&place, &["run", "--bench", "moved"], "report").matches("<img").count(),
        section.matches("<img").count()
    );
    let task = place.path("moved/tasks/colours.jsonl");
    fs::write(&task, fs::read_to_string(&task).unwrap().replace("What colour", "Which colour")).unwrap();
    let found = page(&place, &["run", "--bench", "moved"], "report");
    assert!(found.contains("is not the benchmark of this run") && !found.contains("<img"));
}

/// The bytes of a text in base64.
fn unbase64(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => c - b'A',
        b'a'..=b'z' => c - b'a' + 26,
        b'0'..=b'9' => c - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("{c} is no digit"),
    };
    let digits: Vec<u8> = text.trim_end_matches('=').bytes().map(digit).collect();
    let bits = digits.iter().flat_map(|d| (0..6).rev().map(move |i| d >> i & 1));
    let bits: Vec<u8> = bits.collect();
    bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |sum, bit| sum << 1 | bit)).collect()
}

#[test]
fn the_verdict_says_who_is_best_and_what_the_seeds_do_not_tell() {
    let place = Place::new();
    for (out, method) in [("fwd", "fwd"), ("seq", "sequential")] {
        succeed(&mut place.train(out, &["--steps", "2", "--method", method]));
    }
    // A run as if it had another seed and these measures.
    let doctored = |from: &str, to: &str, seed: u64, [a, f, fwt]: [f64; 3]| {
        copy_run(&place, from, to, |name, text| {
            let mut value: Value = serde_json::from_str(&text).unwrap();
            match name {
                "metrics.json" => {
                    value["seed"] = seed.into();
                    // The first task keeps `last` of the `first` that it had; the second one begins at 50.
                    let (first, last) = ((a + f).min(100.0), (a + f).min(100.0) - f);
                    let rows = [[10.0, 50.0], [first, 50.0 + fwt], [last, 2.0 * a - last]];
                    for (row, scores) in rows.into_iter().enumerate() {
                        for (column, score) in scores.into_iter().enumerate() {
                            value["scores"][row][column] = score.into();
                        }
                    }
                    for (key, number) in [
                        ("average", a),
                        ("mean_average", (first + a) / 2.0),
                        ("forgetting", f),
                        ("backward_transfer", -f),
                        ("forward_transfer", fwt),
                    ] {
                        value["measures"][key] = number.into();
                    }
                }
                "manifest.json" => value["run"]["config"]["seed"] = seed.into(),
                _ => {}
            }
            Some(value.to_string())
        });
    };
    let verdict =
        |runs: &[&str]| between(&page(&place, runs, "report"), "<p class=\"verdict\">", "</p>").to_owned();
    doctored("fwd", "f1", 1, [97.0, 1.0, -0.5]);
    doctored("fwd", "f2", 2, [99.0, 2.0, 0.7]);
    doctored("seq", "s1", 1, [40.0, 9.0, 3.0]);
    doctored("seq", "s2", 2, [40.2, 9.0, 3.1]);
    doctored("seq", "s3", 2, [99.0, 2.0, 3.1]);
    // Two values: 12.706 times half of their distance. No score is above 100.
    assert_eq!(
        verdict(&["f1", "f2", "s1", "s2"]),
        "fwd keeps 98.0 [85.3, 100.0] of 100 points after 2 tasks; it forgets 1.5 ± 6.4, which the seeds do not tell from 0; its forward \
         transfer is +0.1 ± 7.6, which the seeds do not tell from 0. Of 2 methods it has the highest A, 57.9 points before sequential; its 95 % \
         interval lies above that of sequential."
    );
    let both = verdict(&["f1", "f2", "s1", "s3"]);
    assert!(
        both.contains("overlaps that of sequential, so that these seeds do not tell them apart"),
        "{both}"
    );
    let one = verdict(&["s1"]);
    assert!(
        one.starts_with(
            "sequential keeps 40.0 of 100 points after 2 tasks; it forgets 9.0; its forward transfer is +3.0."
        ),
        "{one}"
    );
    assert!(one.contains("one seed, which does not tell how much of this is chance"), "{one}");
    let mixed = verdict(&["f1", "f2", "s1"]);
    assert!(mixed.contains("one seed (sequential) does not tell a difference from chance"), "{mixed}");
    // The drawn interval ends where scores end, and that of a difference does not.
    let found = page(&place, &["f1", "f2"], "report");
    let of = |id: &str| between(&found, &format!("<figure id=\"{id}\">"), "</figure>").to_owned();
    assert!(of("average").contains("<td>98.00</td><td>85.29</td><td>100.00</td>"), "{}", of("average"));
    assert!(of("forgetting").contains("<td>1.50</td><td>−4.85</td><td>7.85</td>"), "{}", of("forgetting"));
    let csv = succeed(&mut place.program(&["compare", "f1", "f2", "--format", "csv"]));
    assert!(
        csv.lines().any(|line| line.starts_with("fwd,,1 2,average,2,98,85.29") && line.ends_with(",100,99")),
        "{csv}"
    );
}

#[test]
fn a_run_that_is_not_finished_is_reported_alone_and_marked() {
    let place = Place::new();
    let long = ["--steps", "400"];
    let mut child = place.train("run", &long).stderr(std::process::Stdio::null()).spawn().unwrap();
    // Until the first task is learnt and scored, and a step of the second is saved.
    let began = std::time::Instant::now();
    let is_there = || {
        let text = fs::read_to_string(place.path("run/state/state.json")).unwrap_or_default();
        let state = serde_json::from_str::<Value>(&text).unwrap_or_default();
        // A full row of scores has a file of its own.
        state["tensors"]["loop/scores.1"].is_object()
            && fs::read_to_string(place.path("run/losses.jsonl")).is_ok_and(|text| text.contains("corners"))
            && text.contains("\"train\"")
    };
    while !is_there() {
        assert!(
            began.elapsed().as_secs() < 300 && child.try_wait().unwrap().is_none(),
            "no state of the second task"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let found = page(&place, &["run"], "report");
    assert!(
        found.contains(
            "<p class=\"verdict unfinished\">This run is not finished: 1 of 2 tasks are learnt and scored"
        ),
        "{found}"
    );
    assert!(between(&found, "It would go on with ", "</p>").starts_with("corners, after step "));
    let progress = between(&found, "<section id=\"progress\"", "</section>");
    assert!(
        progress.contains("1 colours</th><td>learnt and scored")
            && progress.contains("2 corners</th><td>not finished"),
        "{progress}"
    );
    assert!(found.contains("<figure id=\"scores-so-far\">") && found.contains("<h3>fwd: 1 colours</h3>"));
    assert!(!found.contains("<h3>fwd: 2 corners</h3>") && found.contains("<img src=\"data:image/"));
    let losses = between(&found, "<figure id=\"loss-1\">", "</figure>");
    assert!(
        losses.contains("<td>400 of 400</td>") && losses.contains("<th scope=\"row\">corners</th>"),
        "{losses}"
    );

    // Nobody compares it, and the message names it.
    succeed(&mut place.train("done", &["--steps", "2"]));
    let refused = fail(&mut place.program(&["report", "done", "run", "--out", "both"]));
    assert!(refused.contains("not finished: run;") && !place.path("both").exists(), "{refused}");
    // A run that has saved nothing yet.
    copy_run(&place, "done", "begun", |name, text| (name == "manifest.json").then_some(text));
    let found = page(&place, &["begun"], "report");
    assert!(found.contains("0 of 2 tasks") && found.contains("nothing is saved yet"), "{found}");
    // A damaged state is said.
    fs::write(place.path("run/state/state.json"), "{").unwrap();
    let refused = fail(&mut place.program(&["report", "run", "--out", "report"]));
    assert!(refused.contains("cannot tell how far run is") && refused.contains("state.json"), "{refused}");
}

#[test]
fn records_that_were_left_out_are_said_in_the_report() {
    let place = Place::new();
    let task = place.path("bench/tasks/colours.jsonl");
    let text = fs::read_to_string(&task).unwrap();
    fs::write(&task, text.replacen("squares/colours-03", "squares/gone", 1)).unwrap();
    succeed(&mut place.train("run", &["--steps", "2", "--skip-bad"]));
    let found = page(&place, &["run"], "report");
    let header = between(&found, "<header>", "</header>");
    assert!(header.contains("1 record of the benchmark could not be used and was left out"), "{header}");
    assert!(found.contains("Left out: 1 record") && found.contains("squares/gone"), "{found}");
}
