//! What every scorer must hold to, whatever the texts: gold is 100, nothing is 0, a constant is about 0, order is no matter.

#![allow(clippy::unwrap_used)]

use fwd_eval::*;
use proptest::prelude::*;

const SAMPLE_METRICS: [Metric; 7] = [
    Metric::Exact,
    Metric::VqaSoft,
    Metric::TextVqa,
    Metric::MultipleChoice,
    Metric::Gqa,
    Metric::RougeL,
    Metric::Anls,
];
const BLEU: [Metric; 4] = [Metric::Bleu1, Metric::Bleu2, Metric::Bleu3, Metric::Bleu4];

/// What scores texts; boxes are apart.
fn text_metrics() -> Vec<Metric> {
    [&SAMPLE_METRICS[..], &BLEU, &[Metric::CiderD]].concat()
}

/// What a perfect system reaches: CIDEr-D of single references is 10 in a scale where 1 counts as 100 percent.
fn best(metric: Metric) -> f64 {
    if metric == Metric::CiderD { 1000.0 } else { 100.0 }
}

/// BLEU's small constants show in the ninth digit.
fn tolerance(metric: Metric) -> f64 {
    if BLEU.contains(&metric) { 1e-6 } else { 1e-9 }
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
    // Each case is a corpus for all metrics.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn gold_is_100((gold, answers) in corpus()) {
        for metric in text_metrics() {
            let percent = percent(metric, &gold, &answers);
            prop_assert!((percent - best(metric)).abs() < tolerance(metric), "{metric:?}: {percent}");
            let corpus = corpus_percent(metric, &gold, &answers).unwrap();
            prop_assert!((corpus - best(metric)).abs() < tolerance(metric), "{metric:?}: {corpus}");
        }
    }

    #[test]
    fn a_constant_is_about_0((gold, answers) in corpus()) {
        for metric in text_metrics().into_iter().filter(|metric| *metric != Metric::Anls) {
            let foreign = vec!["a photo of something".to_owned(); gold.len()];
            prop_assert!(percent(metric, &foreign, &answers) < 1e-9);
            prop_assert!(corpus_percent(metric, &foreign, &answers).unwrap() < 1e-9);
            // The answer to one sample helps with that one alone.
            let first = vec![gold[0].clone(); gold.len()];
            let share = best(metric) / gold.len() as f64;
            prop_assert!((percent(metric, &first, &answers) - share).abs() < tolerance(metric), "{:?}", metric);
        }
        let foreign = vec!["-".to_owned(); gold.len()];
        prop_assert_eq!(percent(Metric::Anls, &foreign, &answers), 0.0);
    }

    #[test]
    fn a_missing_prediction_counts_as_0((gold, answers) in corpus()) {
        for metric in text_metrics() {
            let mut answered = gold.clone();
            answered[0].clear();
            let expected = best(metric) * (gold.len() - 1) as f64 / gold.len() as f64;
            prop_assert!((percent(metric, &answered, &answers) - expected).abs() < tolerance(metric));
            let corpus = corpus_percent(metric, &answered, &answers).unwrap();
            prop_assert!(corpus < best(metric) - 1.0, "{metric:?}: {corpus}");
        }
        let kept = score_all(Metric::Exact, &gold[1..], &answers[1..]).unwrap();
        let expected = 100.0 * (gold.len() - 1) as f64 / gold.len() as f64;
        prop_assert!((mean_percent(&kept, answers.len()).unwrap() - expected).abs() < 1e-9);
    }
}

proptest! {
    #[test]
    fn gold_is_100_in_any_writing(text in any_text()) {
        let answers = vec![text.clone(); 10];
        // The VQA evaluator normalises predictions and not annotations.
        let is_symmetric = |metric: &Metric| *metric != Metric::VqaSoft;
        for metric in SAMPLE_METRICS.into_iter().filter(is_symmetric) {
            // Captions without a word have nothing to compare.
            let blank = text.trim().is_empty() || metric == Metric::RougeL && tokenise(&text).is_empty();
            let expected = if blank { 0.0 } else { 1.0 };
            let score = score(metric, &text, &answers);
            prop_assert!((score - expected).abs() < 1e-12, "{metric:?}: {score}");
        }
    }

    #[test]
    fn scores_stay_in_their_range(prediction in any_text(), answers in prop::collection::vec(any_text(), 1..12)) {
        for metric in [&SAMPLE_METRICS[..], &BLEU, &[Metric::Grounding]].concat() {
            let score = score(metric, &prediction, &answers);
            prop_assert!((0.0..=1.0 + 1e-12).contains(&score), "{metric:?}: {score}");
        }
        let cider = score_all(Metric::CiderD, &[&prediction, &prediction], &[answers.clone(), answers]).unwrap();
        prop_assert!(cider.iter().all(|score| (0.0..=10.0 + 1e-9).contains(score)));
    }

    #[test]
    fn nothing_is_0(blank in "[ \t\n\r]{0,5}", answers in prop::collection::vec(any_text(), 1..12)) {
        for metric in [&SAMPLE_METRICS[..], &BLEU, &[Metric::Grounding]].concat() {
            prop_assert_eq!(score(metric, &blank, &answers), 0.0);
            prop_assert_eq!(score(metric, &blank, &vec![blank.clone(); 10]), 0.0);
        }
        prop_assert_eq!(score_all(Metric::CiderD, &[&blank], &[answers]).unwrap(), [0.0]);
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
        for metric in text_metrics() {
            let before = score_all(metric, &predictions, &answers).unwrap();
            let after = score_all(metric, &moved, &moved_answers).unwrap();
            for (place, &sample) in order.iter().enumerate() {
                prop_assert!((before[sample] - after[place]).abs() < 1e-12, "{metric:?}");
            }
            let before = corpus_percent(metric, &predictions, &answers).unwrap();
            let after = corpus_percent(metric, &moved, &moved_answers).unwrap();
            prop_assert!((before - after).abs() < 1e-9, "{metric:?}");
        }
    }

    #[test]
    fn letters_score_by_letter(gold in prop::collection::vec(0_u8..5, 5..40)) {
        let letter = |place: u8| char::from(b'A' + place).to_string();
        let answers: Vec<Vec<String>> = gold.iter().map(|&place| vec![letter(place)]).collect();
        let said: Vec<String> = gold.iter().map(|&place| format!("The answer is ({}).", letter(place))).collect();
        let percent = |texts: &[String]| corpus_percent(Metric::MultipleChoice, texts, &answers).unwrap();
        prop_assert_eq!(percent(&said), 100.0);
        // A constant has the share of its letter; who names all letters has nothing.
        let constant = vec!["B".to_owned(); gold.len()];
        let share = gold.iter().filter(|&&place| place == 1).count() as f64 / gold.len() as f64;
        prop_assert!((percent(&constant) - 100.0 * share).abs() < 1e-9);
        prop_assert_eq!(percent(&vec!["(A) (B) (C) (D) (E)".to_owned(); gold.len()]), 0.0);
    }

    #[test]
    fn boxes_score_by_overlap(boxes in prop::collection::vec((0_u32..400, 0_u32..400, 5_u32..90, 5_u32..90), 1..20)) {
        let text = |(x, y, w, h): (u32, u32, u32, u32)| format!("[{x}, {y}, {}, {}]", x + w, y + h);
        let answers: Vec<Vec<String>> = boxes.iter().map(|&corners| vec![text(corners)]).collect();
        let percent = |texts: &[String]| corpus_percent(Metric::Grounding, texts, &answers).unwrap();
        let gold: Vec<String> = answers.iter().map(|answers| answers[0].clone()).collect();
        prop_assert_eq!(percent(&gold), 100.0);
        // The whole image is far more than twice as large as any box.
        prop_assert_eq!(percent(&vec!["[0,0,500,500]".to_owned(); boxes.len()]), 0.0);
        let mut missing = gold.clone();
        missing[0].clear();
        let expected = 100.0 * (boxes.len() - 1) as f64 / boxes.len() as f64;
        prop_assert!((percent(&missing) - expected).abs() < 1e-9);
        for (&(x, y, w, h), answers) in boxes.iter().zip(&answers) {
            let fractions = [x, y, x + w, y + h].map(|corner| f64::from(corner) / 500.0);
            let said = format!("{fractions:?}");
            prop_assert_eq!(grounding_in(BoxUnit::Fractions, &said, answers, [500.0, 500.0]), 1.0);
        }
    }

    #[test]
    fn predictions_join_in_any_order(
        texts in prop::collection::vec(any_text(), 1..12),
        missing in any::<prop::sample::Index>(),
        seed in any::<usize>(),
    ) {
        let n = texts.len();
        let missing = missing.index(n);
        let ids: Vec<String> = (0..n).map(|i| i.to_string()).collect();
        let order = (0..n).map(|i| (seed % n + i) % n).filter(|&i| i != missing);
        let records = order.map(|i| match i % 2 {
            0 => Prediction::new(i as u64, texts[i].clone()),
            _ => Prediction::new(ids[i].as_str(), texts[i].clone()),
        });
        let predictions = Predictions::new("p", records.collect()).unwrap();
        let mut file = Vec::new();
        predictions.write(&mut file).unwrap();
        let read = Predictions::read(file.as_slice(), "p").unwrap();
        prop_assert_eq!(&read, &predictions);
        let joined = read.texts(&ids).unwrap();
        for i in 0..n {
            prop_assert_eq!(joined[i], if i == missing { "" } else { texts[i].as_str() });
        }
    }

    #[test]
    fn files_of_any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60), text in "[{}\\[\\]\",:a-c0-2.\r\n-]{0,60}") {
        for bytes in [bytes.as_slice(), text.as_bytes()] {
            let _ = Predictions::read(bytes, "p");
            if let Ok(table) = ScoreTable::read(bytes, "s") {
                let _ = table.matrix(table.first_row(table.n_columns()), table.n_columns());
            }
        }
    }

    #[test]
    fn tables_come_back(
        cells in prop::collection::vec(-1e6_f64..1e6, 36),
        (n_rows, width) in (1..6_usize, 1..6_usize),
        named: bool,
        crlf: bool,
    ) {
        let end = if crlf { "\r\n" } else { "\n" };
        let rows: Vec<Vec<f64>> = cells.chunks(width).take(n_rows).map(<[f64]>::to_vec).collect();
        let mut csv = String::new();
        if named {
            csv += &format!("\"\"{}{end}", ",\"a \"\"task\"\", or two\"".repeat(width));
        }
        for row in &rows {
            let cells: Vec<String> = row.iter().map(f64::to_string).collect();
            csv += &format!("{}{}{end}", if named { "m," } else { "" }, cells.join(","));
        }
        let table = ScoreTable::read(csv.as_bytes(), "s").unwrap();
        prop_assert_eq!(table.tasks, vec!["a \"task\", or two"; if named { width } else { 0 }]);
        prop_assert_eq!(table.moments.len(), if named { rows.len() } else { 0 });
        prop_assert_eq!(table.rows, rows);
    }
}
