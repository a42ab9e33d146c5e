//! Scores a small file of predictions with three metrics, and shows what a peer's rule makes of it.
//!
//! ```text
//! cargo run -p fwd-eval --example score
//! ```

#![allow(clippy::print_stdout)]

use fwd_eval::peer_compat::{PeerRule, compare};
use fwd_eval::{EvalError, Metric, Predictions, corpus_percent, score_all};

/// Three predictions for four samples: sample 4 was not answered.
const FILE: &str = r#"{"question_id": 1, "prompt": "What is it?", "text": "The dog."}
{"question_id": 2, "prompt": "How many?", "text": "too"}
{"question_id": 3, "prompt": "What does the sign say?", "text": "Stop"}
"#;

fn main() -> Result<(), EvalError> {
    let predictions = Predictions::read(FILE.as_bytes(), "answers.jsonl")?;
    let texts = predictions.texts(&["1", "2", "3", "4"])?;
    let answers = [vec!["dog"], vec!["two", "2"], vec!["stop"], vec!["cat"]];

    for metric in [Metric::Exact, Metric::Anls, Metric::RougeL] {
        let scores = score_all(metric, &texts, &answers)?;
        let percent = corpus_percent(metric, &texts, &answers)?;
        let scores: Vec<String> = scores.iter().map(|score| format!("{score:.2}")).collect();
        println!("{metric}: {} -> {percent:.1} %", scores.join(", "));
    }

    // Some code bases divide by the number of predictions, so that an unanswered question costs nothing.
    let answered = [Some("The dog."), Some("too"), Some("Stop"), None];
    let both = compare(Metric::Exact, PeerRule::OverPredictions, &answered, &answers)?;
    println!("{} over all annotations: {both}", Metric::Exact);
    Ok(())
}
