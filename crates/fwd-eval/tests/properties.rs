//! What every scorer must hold to, whatever the texts: gold is 100, nothing is 0, a constant is about 0, order is no matter.

#![allow(clippy::unwrap_used)]

use fwd_eval::*;
use proptest::prelude::*;

const SAMPLE_METRICS: [Metric; 4] = [Metric::Exact, Metric::VqaSoft, Metric::RougeL, Metric::Anls];
const METRICS: [Metric; 5] = [Metric::Exact, Metric::VqaSoft, Metric::RougeL, Metric::Anls, Metric::CiderD];

/// What a perfect system reaches: CIDEr-D of single references is 10 in a scale where 1 counts as 100 percent.
fn best(metric: Metric) -> f64 {
    if metric == Metric::CiderD { 1000.0 } else { 100.0 }
}

fn percent(metric: Metric, predictions: &[String], answers: &[Vec<String>]) -> f64 {
    mean_percent(&score_all(metric, predictions, answers).unwrap(), answers.len()).unwrap()
}

/// Captions of four to eight words, all words different; and the ten annotators who agree on each.
fn corpus() -> impl Strategy<Value = (Vec<String>, Vec<Vec<String>>)> {
    prop::collection::vec(4_usize..9, 4..12).prop_map(|lengths| {
        let word = |sample: usize, i: usize| format!("word{}x{sample}", "y".repeat(i));
        let captions = lengths
            .iter()
            .enumerate()
            .map(|(sample, &n)| (0..n).map(|i| word(sample, i)).collect::<Vec<_>>().join(" "));
        captions.map(|caption| (caption.clone(), vec![caption; 10])).unzip()
    })
}

/// Any printable text and some that is not, often such as the scorers treat in a special way.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof!["\\PC{0,30}", "[aAthe1,.'\"?!n -]{0,20}", ".{0,10}"]
}

proptest! {
    #[test]
    fn gold_is_100((gold, answers) in corpus()) {
        for metric in METRICS {
            let percent = percent(metric, &gold, &answers);
            prop_assert!((percent - best(metric)).abs() < 1e-9, "{metric:?}: {percent}");
        }
    }

    #[test]
    fn gold_is_100_in_any_writing(text in any_text()) {
        let answers = vec![text.clone(); 10];
        for metric in SAMPLE_METRICS {
            // Captions without a word have nothing to compare.
            let blank = text.trim().is_empty() || metric == Metric::RougeL && tokenise(&text).is_empty();
            let expected = if blank { 0.0 } else { 1.0 };
            let score = score(metric, &text, &answers);
            prop_assert!((score - expected).abs() < 1e-12, "{metric:?}: {score}");
        }
    }

    #[test]
    fn scores_stay_in_their_range(prediction in any_text(), answers in prop::collection::vec(any_text(), 1..12)) {
        for metric in SAMPLE_METRICS {
            let score = score(metric, &prediction, &answers);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&score), "{metric:?}: {score}");
        }
        let cider = score_all(Metric::CiderD, &[&prediction, &prediction], &[answers.clone(), answers]).unwrap();
        prop_assert!(cider.iter().all(|score| (0.0..=10.0 + 1e-9).contains(score)));
    }

    #[test]
    fn nothing_is_0(blank in "[ \t\n\r]{0,5}", answers in prop::collection::vec(any_text(), 1..12)) {
        for metric in SAMPLE_METRICS {
            prop_assert_eq!(score(metric, &blank, &answers), 0.0);
            prop_assert_eq!(score(metric, &blank, &vec![blank.clone(); 10]), 0.0);
        }
        prop_assert_eq!(score_all(Metric::CiderD, &[&blank], &[answers]).unwrap(), [0.0]);
    }

    #[test]
    fn a_constant_is_about_0((gold, answers) in corpus()) {
        for metric in [Metric::Exact, Metric::VqaSoft, Metric::RougeL, Metric::CiderD] {
            let foreign = vec!["a photo of something".to_owned(); gold.len()];
            prop_assert_eq!(percent(metric, &foreign, &answers), 0.0);
            // The answer to one sample helps with that one alone.
            let first = vec![gold[0].clone(); gold.len()];
            let share = best(metric) / gold.len() as f64;
            prop_assert!((percent(metric, &first, &answers) - share).abs() < 1e-9, "{:?}", metric);
        }
        let foreign = vec!["-".to_owned(); gold.len()];
        prop_assert_eq!(percent(Metric::Anls, &foreign, &answers), 0.0);
    }

    #[test]
    fn order_is_no_matter(
        samples in prop::collection::vec((any_text(), prop::collection::vec(any_text(), 1..6)), 1..8),
        seed in any::<usize>(),
    ) {
        let n = samples.len();
        let (predictions, answers): (Vec<_>, Vec<_>) = samples.iter().cloned().unzip();
        let order: Vec<usize> = (0..n).map(|i| (seed % n + i) % n).collect();
        let moved: Vec<_> = order.iter().map(|&i| predictions[i].clone()).collect();
        let moved_answers: Vec<Vec<_>> =
            order.iter().map(|&i| answers[i].iter().rev().cloned().collect()).collect();
        for metric in METRICS {
            let before = score_all(metric, &predictions, &answers).unwrap();
            let after = score_all(metric, &moved, &moved_answers).unwrap();
            for (place, &sample) in order.iter().enumerate() {
                prop_assert!((before[sample] - after[place]).abs() < 1e-12, "{metric:?}");
            }
        }
    }

    #[test]
    fn a_missing_prediction_counts_as_0((gold, answers) in corpus()) {
        for metric in METRICS {
            let mut answered = gold.clone();
            answered[0].clear();
            let expected = best(metric) * (gold.len() - 1) as f64 / gold.len() as f64;
            prop_assert!((percent(metric, &answered, &answers) - expected).abs() < 1e-9);
        }
        let kept = score_all(Metric::Exact, &gold[1..], &answers[1..]).unwrap();
        let expected = 100.0 * (gold.len() - 1) as f64 / gold.len() as f64;
        prop_assert!((mean_percent(&kept, answers.len()).unwrap() - expected).abs() < 1e-9);
    }
}
