//! Agreement with the reference scorers on the cases of `tests/parity/*.json`, which `tests/parity/make_cases.py` made with
//! pycocoevalcap, the anls package, Stanford's tokenizer and the rules of the VQA evaluator.

#![allow(clippy::unwrap_used)]

use fwd_eval::*;
use serde::de::DeserializeOwned;

const TOLERANCE: f64 = 1e-6;

fn cases<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/parity/{name}", env!("CARGO_MANIFEST_DIR"));
    let cases: Vec<T> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() >= 1000);
    cases
}

/// Fails with the number of cases that differ and the first of them.
fn assert_none<T: std::fmt::Debug>(differing: Vec<T>) {
    let first = &differing[..differing.len().min(10)];
    assert!(differing.is_empty(), "{} differ (ours last), first {first:#?}", differing.len());
}

fn split(text: &str) -> Vec<String> {
    text.split(' ').map(String::from).collect()
}

#[test]
fn normal_forms_are_the_vqa_evaluators() {
    let cases = cases::<(String, String)>("normalise.json").into_iter();
    assert_none(
        cases
            .map(|(text, expected)| (normalise(&text), text, expected))
            .filter(|(ours, _, expected)| ours != expected)
            .collect(),
    );
}

#[test]
fn soft_accuracy_is_the_vqa_evaluators() {
    let mut differing = Vec::new();
    for (prediction, counts, expected) in cases::<(String, Vec<(String, usize)>, f64)>("vqa.json") {
        let answers: Vec<_> = counts.iter().flat_map(|(answer, n)| vec![answer; *n]).collect();
        assert_eq!(answers.len(), 10);
        let ours = vqa_soft(&prediction, &answers);
        if (ours - expected).abs() > TOLERANCE {
            differing.push((prediction, counts, expected, ours));
        }
    }
    assert_none(differing);
}

#[test]
fn captions_score_as_with_pycocoevalcap() {
    let cases = cases::<(String, Vec<String>, f64, f64)>("captions.json");
    let candidates: Vec<_> = cases.iter().map(|case| split(&case.0)).collect();
    let references: Vec<Vec<_>> =
        cases.iter().map(|case| case.1.iter().map(|text| split(text)).collect()).collect();
    let cider = cider_d(&candidates, &references).unwrap();
    let ours = candidates.iter().zip(&references).map(|(c, r)| rouge_l(c, r)).zip(cider);
    assert_none(
        cases
            .iter()
            .zip(ours)
            .filter(|(case, (rouge, cider))| {
                (rouge - case.2).abs() > TOLERANCE || (cider - case.3).abs() > TOLERANCE
            })
            .collect(),
    );
}

#[test]
fn anls_is_the_packages() {
    let cases = cases::<(String, Vec<String>, f64)>("anls.json").into_iter();
    assert_none(
        cases
            .map(|(prediction, answers, expected)| {
                let ours = anls(&prediction, &answers);
                (prediction, answers, expected, ours)
            })
            .filter(|(.., expected, ours)| (ours - expected).abs() > TOLERANCE)
            .collect(),
    );
}

#[test]
fn words_are_stanfords() {
    let cases = cases::<(String, String)>("words.json").into_iter();
    assert_none(
        cases
            .map(|(text, expected)| (tokenise(&text).join(" "), text, expected))
            .filter(|(ours, _, expected)| ours != expected)
            .collect(),
    );
}
