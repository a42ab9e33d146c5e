//! Finished runs beside each other: comparisons and reports.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

mod common;

use common::{Place, fail, files, succeed};
use serde_json::Value;
use std::fs;

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

    let refused = |runs: &[&str]| fail(&mut place.program(&[&["compare"], runs].concat()));
    let message = refused(&["a", "c", "--against", "l2p"]);
    assert!(message.contains("none of the runs is of the method `l2p`"), "{message}");
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
    for attribute in [" href=\"", " src=\""] {
        for target in page.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            let is_inside = target.strip_prefix('#').map(|id| page.contains(&format!("id=\"{id}\"")));
            assert!(is_inside.unwrap_or_else(|| found.contains_key(target)), "{target}");
        }
    }
    for forbidden in ["<script", "@import", "url(", "<link", "<img"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
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
