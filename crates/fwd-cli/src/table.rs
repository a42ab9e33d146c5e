//! Results as aligned text. A cell may hold text of a data set: [`render`] spells its control characters out.

use crate::output::one_line;
use fwd_run::Method;
use fwd_run::comparison::{Form, Measure, Summary};
use fwd_run::run::{Measures, RunMetrics};
use std::borrow::Cow;

/// Rows under a header: the first column to the left, the others to the right.
pub(crate) fn render(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| one_line(cell)).collect()).collect();
    let n = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..n).map(width).collect();
    let mut out = String::new();
    for (r, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate();
        let cells = cells.map(|(i, (cell, &width))| match i {
            0 => format!("{cell:<width$}"),
            _ => format!("{cell:>width$}"),
        });
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
        if r == 0 {
            let rule = widths.iter().sum::<usize>() + 2 * n.saturating_sub(1);
            out.push_str(&"─".repeat(rule));
            out.push('\n');
        }
    }
    out
}

/// Texts as cells.
pub(crate) fn cells<const N: usize>(texts: [&str; N]) -> Vec<String> {
    texts.map(str::to_owned).to_vec()
}

/// A share in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

/// The mean; none of nothing.
pub(crate) fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (n, sum) = values.fold((0usize, 0.0), |(n, sum), value| (n + 1, sum + value));
    (n > 0).then(|| sum / n as f64)
}

/// The score matrix of a run: a row for each moment.
pub(crate) fn scores(metrics: &RunMetrics) -> String {
    let mut header = vec!["after".to_owned()];
    header.extend(metrics.tasks.iter().map(|task| task.name.clone()));
    if metrics.scores.iter().any(|row| row.len() > metrics.tasks.len()) {
        header.push("pre-training".to_owned());
    }
    let mut rows = vec![header];
    for (after, row) in metrics.scores.iter().enumerate() {
        let mut cells = vec![moment(metrics, after)];
        cells.extend(row.iter().map(|score| format!("{score:.1}")));
        rows.push(cells);
    }
    render(&rows)
}

/// The name of a row of the score matrix.
pub(crate) fn moment(metrics: &RunMetrics, after: usize) -> String {
    match (after, metrics.method) {
        (0, _) => "nothing".to_owned(),
        (_, Method::Independent) => "each alone".to_owned(),
        (_, Method::Joint) => "all at once".to_owned(),
        (i, _) => metrics.tasks.get(i - 1).map_or_else(|| i.to_string(), |task| format!("{i} {}", task.name)),
    }
}

/// The measures of one matrix, by their names.
pub(crate) fn measures(m: &Measures) -> String {
    let named = [
        ("A", "mean score at the end", m.average),
        ("Avg", "mean of A over the sequence", m.mean_average),
        ("F", "forgetting", m.forgetting),
        ("BWT", "backward transfer", m.backward_transfer),
        ("FWT", "forward transfer, zero-shot form", m.forward_transfer),
        ("FWT*", "forward transfer against each task alone", m.plasticity),
        ("pre-training", "change of what was known before", m.retention),
    ];
    let mut rows = vec![["measure", "points", "what"].map(str::to_owned).to_vec()];
    rows.extend(named.into_iter().map(|(name, what, value)| {
        vec![name.to_owned(), value.map_or("–".to_owned(), |v| format!("{v:.2}")), what.to_owned()]
    }));
    render(&rows)
}

/// A measure over seeds, with its interval; a dash where there is nothing.
pub(crate) fn measure(measure: &Measure, summary: Option<Summary>) -> String {
    let Some(summary) = summary else { return "–".to_owned() };
    let number = |value: f64| match measure.form {
        Form::Score | Form::Points => format!("{value:.1}"),
        Form::Difference => format!("{value:+.1}"),
        Form::Count => format!("{value:.0}"),
        Form::Percent | Form::Nats => format!("{value:.2}"),
        Form::Largest => format!("{value:.0e}"),
    };
    match (measure.form, summary.half_width) {
        (Form::Largest, _) => number(summary.max),
        // Seeds change nothing in these.
        (Form::Count, Some(0.0)) | (_, None) => number(summary.mean),
        (Form::Percent | Form::Nats, Some(half)) => format!("{} ± {half:.2}", number(summary.mean)),
        (Form::Score, Some(_)) => with_interval(summary.mean, summary.score_interval(), 1),
        (_, Some(half)) => format!("{} ± {half:.1}", number(summary.mean)),
    }
}

/// A value with its interval: `40.0 ± 5.0`, or `98.0 [90.5, 100.0]` where the interval ends at the limit of what can be.
pub(crate) fn with_interval(value: f64, (low, high): (f64, f64), digits: usize) -> String {
    let (below, above) = (value - low, high - value);
    let is_even = (below - above).abs() <= 1e-9 * (1.0 + below.abs());
    if is_even {
        format!("{value:.digits$} ± {above:.digits$}")
    } else {
        format!("{value:.digits$} [{low:.digits$}, {high:.digits$}]")
    }
}

/// Runs beside each other: a row for each.
pub(crate) fn comparison(runs: &[&RunMetrics]) -> String {
    let header = ["method", "A", "F", "BWT", "FWT", "FWT*", "pre-training", "trained", "%", "leakage"];
    let mut rows = vec![header.map(str::to_owned).to_vec()];
    for run in runs {
        let m = &run.measures;
        let points = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:.1}"));
        let signed = |value: Option<f64>| value.map_or("–".to_owned(), |v| format!("{v:+.1}"));
        rows.push(vec![
            run.method.to_string(),
            points(m.average),
            points(m.forgetting),
            signed(m.backward_transfer),
            signed(m.forward_transfer),
            signed(m.plasticity),
            signed(m.retention),
            run.trainable_parameters.to_string(),
            format!("{:.3}", run.trainable_percent),
            m.leakage.map_or("–".to_owned(), |v| format!("{v:.0e}")),
        ]);
    }
    render(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fwd_run::comparison::MEASURES;

    #[test]
    fn columns_are_aligned_by_characters() {
        let rows = [["µ", "value"], ["long name", "1.0"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(render(&rows), "µ          value\n────────────────\nlong name    1.0\n");
        assert_eq!(render(&[]), "");
        let rows = [["task"], ["a\u{1b}[2J\nb"]].map(|row| row.map(str::to_owned).to_vec());
        assert!(render(&rows).ends_with("a\\u{1b}[2J\\nb\n"), "{}", render(&rows));
    }

    fn text(key: &str, summary: Option<Summary>) -> String {
        let column = MEASURES.into_iter().find(|m| m.key == key).unwrap();
        measure(&column, summary)
    }

    #[test]
    fn each_form_has_its_digits() {
        let three = Summary::of(&[38.0, 40.0, 42.0]);
        assert_eq!(text("average", three), "40.0 ± 5.0");
        assert_eq!(text("average", Summary::of(&[97.0, 99.0])), "98.0 [85.3, 100.0]");
        // A difference may be below 0.
        assert_eq!(text("forgetting", Summary::of(&[1.0, 3.0])), "2.0 ± 12.7");
        assert_eq!(text("retention", Summary::of(&[-8.25])), "-8.2");
        assert_eq!(text("forward_transfer", Summary::of(&[0.3])), "+0.3");
        assert_eq!(text("trainable_parameters", Summary::of(&[448.0, 448.0])), "448");
        assert_eq!(text("leakage", Summary::of(&[1e-7, 3e-7])), "3e-7");
        assert_eq!(text("plasticity", None), "–");
    }
}
