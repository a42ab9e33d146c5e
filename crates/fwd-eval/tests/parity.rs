//! Agreement with the reference scorers on the cases of `tests/parity/*.json.gz`, which `tests/parity/make_cases.py` made with
//! pycocoevalcap, the anls package, lmms-eval, Stanford's tokenizer and the rules of the VQA evaluator and others.

#![allow(clippy::unwrap_used)]

use fwd_eval::*;
use serde::de::DeserializeOwned;

const TOLERANCE: f64 = 1e-6;

fn cases<T: DeserializeOwned>(name: &str) -> Vec<T> {
    let path = format!("{}/tests/parity/{name}.gz", env!("CARGO_MANIFEST_DIR"));
    let file = flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap());
    let cases: Vec<T> = serde_json::from_reader(std::io::BufReader::new(file)).unwrap();
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
fn normal_forms_are_the_m4c_evaluators() {
    let cases = cases::<(String, String)>("m4c.json").into_iter();
    assert_none(
        cases
            .map(|(text, expected)| (normalise_m4c(&text), text, expected))
            .filter(|(ours, _, expected)| ours != expected)
            .collect(),
    );
}

/// A prediction, the answers with the number of annotators who gave each, and the score.
type Annotated = (String, Vec<(String, usize)>, f64);

fn assert_soft(name: &str, score: fn(&str, &[&String]) -> f64) {
    let mut differing = Vec::new();
    for (prediction, counts, expected) in cases::<Annotated>(name) {
        let answers: Vec<_> = counts.iter().flat_map(|(answer, n)| vec![answer; *n]).collect();
        assert_eq!(answers.len(), 10);
        let ours = score(&prediction, &answers);
        if (ours - expected).abs() > TOLERANCE {
            differing.push((prediction, counts, expected, ours));
        }
    }
    assert_none(differing);
}

#[test]
fn soft_accuracy_is_the_vqa_evaluators() {
    assert_soft("vqa.json", |prediction, answers| vqa_soft(prediction, answers));
}

#[test]
fn soft_accuracy_is_the_m4c_evaluators() {
    assert_soft("textvqa.json", |prediction, answers| text_vqa(prediction, answers));
}

/// A caption, its references, ROUGE-L, CIDEr-D and BLEU-1 to BLEU-4.
type Caption = (String, Vec<String>, f64, f64, [f64; 4]);

/// The captions and the references of a corpus as words.
fn words(cases: &[Caption]) -> (Vec<Vec<String>>, Vec<Vec<Vec<String>>>) {
    cases
        .iter()
        .map(|(caption, references, ..)| {
            (split(caption), references.iter().map(|text| split(text)).collect())
        })
        .unzip()
}

fn far(a: &[f64; 4], b: &[f64; 4]) -> bool {
    a.iter().zip(b).any(|(a, b)| (a - b).abs() > TOLERANCE)
}

#[test]
fn captions_score_as_with_pycocoevalcap() {
    let cases = cases::<Caption>("captions.json");
    let (candidates, references) = words(&cases);
    let cider = cider_d(&candidates, &references).unwrap();
    let bleu = bleu(&candidates, &references).unwrap().captions;
    let rouge = candidates.iter().zip(&references).map(|(c, r)| rouge_l(c, r));
    assert_none(
        cases
            .iter()
            .zip(rouge.zip(cider).zip(bleu))
            .filter(|(case, ((rouge, cider), bleu))| {
                (rouge - case.2).abs() > TOLERANCE || (cider - case.3).abs() > TOLERANCE || far(bleu, &case.4)
            })
            .collect(),
    );
}

#[test]
fn corpora_score_as_with_pycocoevalcap() {
    let (candidates, references) = words(&cases::<Caption>("captions.json"));
    assert_none(
        cases::<(usize, [f64; 4])>("bleu.json")
            .into_iter()
            .map(|(n, expected)| (n, expected, bleu(&candidates[..n], &references[..n]).unwrap().corpus))
            .filter(|(_, expected, ours)| far(ours, expected))
            .collect(),
    );
}

#[test]
fn choices_follow_the_documented_rule() {
    let cases = cases::<(String, Vec<String>, Option<usize>)>("choice.json");
    assert_none(
        cases
            .into_iter()
            .map(|(prediction, options, expected)| {
                let ours = chosen_option(&prediction, &options);
                (prediction, options, expected, ours)
            })
            .filter(|(.., expected, ours)| ours != expected)
            .collect(),
    );
}

#[test]
fn short_answers_are_gqas() {
    let cases = cases::<(String, String, f64)>("gqa.json").into_iter();
    assert_none(
        cases
            .map(|(prediction, answer, expected)| {
                (gqa(&prediction, &[&answer]), prediction, answer, expected)
            })
            .filter(|(ours, .., expected)| ours != expected)
            .collect(),
    );
}

#[test]
fn boxes_overlap_as_they_should() {
    let mut differing = Vec::new();
    for case in cases::<(String, String, String, [f64; 2], f64, f64)>("grounding.json") {
        let (prediction, unit, answer, size, overlap, expected) = &case;
        let unit = match unit.as_str() {
            "fractions" => BoxUnit::Fractions,
            "thousandths" => BoxUnit::Thousandths,
            _ => BoxUnit::Pixels,
        };
        let gold = BBox::parse(answer).unwrap();
        let ours = BBox::parse(prediction).map_or(0.0, |said| said.in_pixels(unit, *size).iou(gold));
        let score = grounding_in(unit, prediction, &[answer], *size);
        if (ours - overlap).abs() > TOLERANCE || score != *expected {
            differing.push((case, ours, score));
        }
    }
    assert_none(differing);
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
