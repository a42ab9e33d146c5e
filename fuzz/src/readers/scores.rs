//! What scores come from: files of predictions, and matrices.

use crate::reader::{Reader, Seed};
use anyhow::Result;
use fwd_eval::{Metric, Predictions, ScoreTable, corpus_percent, listed_options, option_answers};
use std::path::Path;

/// Predictions in JSON lines, which are scored by every metric, and matrices in CSV.
pub(crate) fn scores(_: &Path) -> Result<Reader> {
    let lines = "{\"question_id\": 17, \"prompt\": \"Which?\\n(A) red (B) blue\", \"text\": \"(B)\"}\n\
                 {\"question_id\": \"a-18\", \"text\": \"[0.1, 0.2, 0.5, 0.6]\", \"answers\": [\"two dogs\", \"2 dogs\"]}\n";
    let table = "task,flags,posters,words\n0,10.5,3,0\n1,60.25,7,1\n2,50,70,2\n3,45,66.5,81\n";
    let bare = "90,NA,NA\n80,85,10\n70,75,88\n";
    let seeds = vec![
        Seed::new("predictions.jsonl", lines),
        Seed::new("table.csv", table),
        Seed::new("bare.csv", bare),
    ];
    Ok(Reader::new(seeds, |input| {
        if input.file.ends_with(".csv") {
            let table = ScoreTable::read(&input.bytes[..], &input.file)?;
            table.matrix(table.first_row(table.n_columns()), table.n_columns())?;
            return Ok(());
        }
        let predictions = Predictions::read(&input.bytes[..], &input.file)?;
        let texts: Vec<&str> = predictions.records().iter().map(|record| record.text.as_str()).collect();
        let answers: Vec<Vec<&str>> =
            texts.iter().rev().map(|text| vec![*text, "(B) blue", "[0, 0, 10, 4]"]).collect();
        for metric in METRICS {
            let _ = corpus_percent(metric, &texts, &answers);
        }
        for text in &texts {
            let options = listed_options(text);
            let _ = option_answers(text, &options);
        }
        let ids: Vec<&str> = predictions.records().iter().map(|record| record.question_id.as_str()).collect();
        predictions.join(&ids)?;
        predictions.write(std::io::sink())?;
        Ok(())
    }))
}

const METRICS: [Metric; 13] = [
    Metric::Exact,
    Metric::VqaSoft,
    Metric::TextVqa,
    Metric::MultipleChoice,
    Metric::Gqa,
    Metric::Grounding,
    Metric::Bleu1,
    Metric::Bleu2,
    Metric::Bleu3,
    Metric::Bleu4,
    Metric::RougeL,
    Metric::CiderD,
    Metric::Anls,
];
