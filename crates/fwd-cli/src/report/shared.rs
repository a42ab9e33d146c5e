//! What several sections need: numbers and names as text, lines as a table.

use super::chart::Series;
use super::html::Table;
use fwd_run::comparison::{Comparison, Group};

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
            Some(p) if p.ends.0 < p.ends.1 => minus(&format!("{:.1} ± {:.1}", p.y, p.ends.1 - p.y)),
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
        let short = Series { name: "b".to_owned(), number: 1, points: points[..1].to_vec() };
        let table = over_table("c", "method", &[Series { name: "a".to_owned(), number: 0, points }, short]);
        assert_eq!(table.head, ["method", "after 0", "after 1"]);
        assert_eq!(table.rows, [["a", "−1.0", "2.0 ± 0.5"], ["b", "−1.0", "–"]]);
    }
}
