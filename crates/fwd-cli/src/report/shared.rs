//! What several sections need: numbers and names as text, lines as a table, what was left out.

use super::chart::Series;
use super::html::{Block, Table};
use crate::table;
use fwd_run::comparison::{Comparison, Group};
use fwd_run::run::{Machine, Manifest};

/// How a score matrix is read.
pub(super) const MATRIX_LEGEND: &str = "Rows are moments, columns are tasks by their number in the row names, pre the mean of the \
    pre-training tasks. A frame marks the task that was learnt last: left of it stand older tasks, which may be forgotten, right of it \
    tasks that are still to come.";

/// Records that were left out and are listed.
const LISTED: usize = 20;

/// How many records were left out of a run's benchmark, in a sentence.
pub(super) fn left_out_in_short(manifest: &Manifest) -> String {
    match manifest.skipped.n_records {
        0 => "No record of the benchmark was left out.".to_owned(),
        1 => {
            "1 record of the benchmark could not be used and was left out; it is named at the end.".to_owned()
        }
        n => format!(
            "{n} records of the benchmark could not be used and were left out; they are named at the end."
        ),
    }
}

/// Which records were left out of a run's benchmark; nothing if none was.
pub(super) fn left_out(manifest: &Manifest) -> Vec<Block> {
    let skipped = &manifest.skipped;
    if skipped.n_records == 0 {
        return Vec::new();
    }
    let mut reasons: Vec<String> = skipped.reasons.iter().take(LISTED).cloned().collect();
    let more = skipped.n_records.saturating_sub(reasons.len());
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    vec![Block::Heading(format!("Left out: {} records", skipped.n_records)), Block::List(reasons)]
}

/// The head of a table of runs.
pub(super) fn run_head() -> Vec<String> {
    ["directory", "method", "seed", "started", "program", "machine"].map(str::to_owned).to_vec()
}

/// A machine in words.
pub(super) fn machine(machine: &Machine) -> String {
    let levels = machine.levels.join(", then ");
    let levels = if levels.is_empty() { levels } else { format!(" ({levels})") };
    format!("{} {}{levels}, {} threads", machine.os, machine.arch, machine.threads)
}

/// The groups with their numbers, which decide their colours.
pub(super) fn numbered(comparison: &Comparison) -> impl Iterator<Item = (usize, &Group)> {
    comparison.groups.iter().enumerate()
}

/// The points of lines as a table: a row for each line.
pub(super) fn over_table(caption: &str, name: &str, series: &[Series]) -> Table {
    let places = series.first().map(|s| s.points.iter().map(|p| p.x).collect::<Vec<_>>()).unwrap_or_default();
    let head = std::iter::once(name.to_owned()).chain(places.iter().map(|x| format!("after {x}")));
    let rows = series.iter().map(|series| {
        let cells = places.iter().map(|x| match series.points.iter().find(|p| p.x == *x) {
            Some(p) if p.ends.0 < p.ends.1 => minus(&table::with_interval(p.y, p.ends, 1)),
            Some(p) => minus(&format!("{:.1}", p.y)),
            None => "–".to_owned(),
        });
        std::iter::once(series.name.clone()).chain(cells).collect()
    });
    Table { caption: caption.to_owned(), head: head.collect(), rows: rows.collect() }
}

/// A number with a true minus sign.
pub(super) fn minus(text: &str) -> String {
    text.replace('-', "−")
}

/// A name that any file system takes.
pub(super) fn slug(name: &str) -> String {
    let kept = name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' });
    let kept: String = kept.collect();
    kept.split_whitespace().collect::<Vec<_>>().join("-").chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::chart::Point;

    #[test]
    fn names_of_files_are_plain() {
        assert_eq!(slug("fwd (order 2, pool.prompt_len 8)"), "fwd-order-2-pool-prompt-len-8");
        assert_eq!(slug("<a>/../b"), "a-b");
    }

    #[test]
    fn lines_as_a_table() {
        let points = vec![Point::single(0.0, -1.0), Point { x: 1.0, y: 2.0, ends: (1.5, 2.5) }];
        let clipped = Point { x: 2.0, y: 98.0, ends: (90.5, 100.0) };
        let points = points.into_iter().chain([clipped]).collect::<Vec<_>>();
        let short = Series { name: "b".to_owned(), number: 1, points: points[..1].to_vec() };
        let table = over_table("c", "method", &[Series { name: "a".to_owned(), number: 0, points }, short]);
        assert_eq!(table.head, ["method", "after 0", "after 1", "after 2"]);
        assert_eq!(table.rows, [["a", "−1.0", "2.0 ± 0.5", "98.0 [90.5, 100.0]"], ["b", "−1.0", "–", "–"]]);
    }
}
