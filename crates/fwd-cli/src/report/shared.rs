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

/// Tasks that are shown one by one; of more, some are, spread over the sequence.
pub(super) const MOST_TASKS: usize = 24;

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
    let n_places = places.len();
    let places: Vec<f64> = spread(n_places, MOST_TASKS).into_iter().map(|at| places[at]).collect();
    let caption = match n_places > places.len() {
        true => format!("{caption} ({} of {n_places} moments)", places.len()),
        false => caption.to_owned(),
    };
    let head = std::iter::once(name.to_owned()).chain(places.iter().map(|x| format!("after {x}")));
    let rows = series.iter().map(|series| {
        let cells = places.iter().map(|x| match series.points.iter().find(|p| p.x == *x) {
            Some(p) if p.ends.0 < p.ends.1 => minus(&table::with_interval(p.y, p.ends, 1)),
            Some(p) => minus(&format!("{:.1}", p.y)),
            None => "–".to_owned(),
        });
        std::iter::once(series.name.clone()).chain(cells).collect()
    });
    Table { caption, head: head.collect(), rows: rows.collect() }
}

/// A score matrix as a table: a row for each moment, a column for each task, none where there is no score. Of many, some are shown.
pub(super) fn score_table(
    caption: String,
    (rows, columns): (&[String], &[String]),
    cell: impl Fn(usize, usize) -> Option<String>,
) -> Table {
    let [shown_rows, shown_columns] = [rows, columns].map(|names| spread(names.len(), MOST_TASKS));
    let is_cut = shown_rows.len() < rows.len() || shown_columns.len() < columns.len();
    let cut = format!(
        "{caption} ({} of {} moments, {} of {} columns; metrics.csv of the run has all)",
        shown_rows.len(),
        rows.len(),
        shown_columns.len(),
        columns.len()
    );
    let names = shown_columns.iter().map(|&column| columns[column].clone());
    let line = |&row: &usize| {
        let cells = shown_columns.iter().map(|&column| cell(row, column));
        // A row that ends earlier than others has shorter lines, as it has where nothing is cut.
        let cells = cells.map_while(|cell| cell);
        std::iter::once(rows[row].clone()).chain(cells).collect()
    };
    Table {
        caption: if is_cut { cut } else { caption },
        head: std::iter::once("after".to_owned()).chain(names).collect(),
        rows: shown_rows.iter().map(line).collect(),
    }
}

/// At most so many of the numbers below `n`, spread evenly from the first to the last.
pub(super) fn spread(n: usize, at_most: usize) -> Vec<usize> {
    let n_shown = n.min(at_most);
    (0..n_shown).map(|i| i * n.saturating_sub(1) / n_shown.saturating_sub(1).max(1)).collect()
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
    fn many_are_shown_from_the_first_to_the_last() {
        assert_eq!([spread(0, 3), spread(1, 3), spread(3, 3)], [vec![], vec![0], vec![0, 1, 2]]);
        assert_eq!((spread(200, 3), spread(5, 1)), (vec![0, 99, 199], vec![0]));
        let points = (0..=200).map(|t| Point::single(f64::from(t), 1.0)).collect();
        let table = over_table("c", "method", &[Series { name: "a".to_owned(), number: 0, points }]);
        assert_eq!((table.head.len(), &*table.head[24]), (25, "after 200"));
        assert_eq!(table.caption, "c (24 of 201 moments)");
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
