//! Heat maps: a cell for each value, its number in it, and the scale of colours below.
//!
//! Numbers and frames are left out where cells are too narrow for them, and a matrix of more than [`MOST`] rows or columns is drawn as the
//! means of square blocks, so that a picture of 200 tasks can be read, and is no larger than one of 50.

use super::chart::{Heat, group_digits};
use super::palette::{self, INK, MUTED, SURFACE};
use super::pen::{Anchor, Drawn, Pen, TEXT, WIDTH, room_for, shorten, text_width};
use plotters::prelude::*;
use std::borrow::Cow;

const HEAD: i32 = 50;
const ROW: i32 = 34;
const SCALE: i32 = 54;
/// Names of rows that are longer are cut.
const MAX_NAME: i32 = 170;
/// Wider cells would tear a small matrix apart.
const MAX_CELL: i32 = 76;
/// Rows or columns that are drawn one by one.
const MOST: usize = 50;
/// Cells of more columns are too narrow for numbers.
const MOST_NUMBERS: usize = 20;
/// The height of a line of text: names that would stand closer are left out.
const LINE: i32 = 17;
/// Steps of the scale of colours.
const STEPS: i32 = 40;

/// The height of a chart.
pub(super) fn height(chart: &Heat) -> i32 {
    let chart = condensed(chart);
    HEAD + Grid::of(&chart).row * chart.rows.len() as i32 + SCALE
}

/// What a reader must know of a picture of so many rows and columns beside what it shows; nothing where each cell has its number.
pub(super) fn note(n_rows: usize, n_columns: usize) -> String {
    match block(n_rows, n_columns) {
        1 if n_columns <= MOST_NUMBERS => String::new(),
        1 => " There are too many columns for numbers and frames in the cells.".to_owned(),
        n => format!(
            " Each cell is the mean of up to {n} × {n} values; the first of its rows and columns is named."
        ),
    }
}

/// Rows and columns that make one cell of the picture.
fn block(n_rows: usize, n_columns: usize) -> usize {
    n_rows.max(n_columns).div_ceil(MOST).max(1)
}

/// The chart with the means of blocks for cells, if it has many.
fn condensed(chart: &Heat) -> Cow<'_, Heat> {
    let n = block(chart.rows.len(), chart.columns.len());
    if n == 1 {
        return Cow::Borrowed(chart);
    }
    let mean = |rows: &[Vec<Option<f64>>], column: usize| {
        let values = rows.iter().flat_map(|row| row.iter().skip(column * n).take(n)).flatten();
        let (sum, count) = values.fold((0.0, 0usize), |(sum, count), value| (sum + value, count + 1));
        (count > 0).then(|| sum / count as f64)
    };
    let n_columns = chart.columns.len().div_ceil(n);
    let cells = chart.cells.chunks(n).map(|rows| (0..n_columns).map(|column| mean(rows, column)).collect());
    let firsts = |names: &[String]| names.iter().step_by(n).cloned().collect();
    Cow::Owned(Heat {
        rows: firsts(&chart.rows),
        columns: firsts(&chart.columns),
        cells: cells.collect(),
        framed: Vec::new(),
        ..chart.clone()
    })
}

/// Where the cells of a chart stand.
struct Grid {
    left: i32,
    cell: i32,
    row: i32,
    has_numbers: bool,
}

impl Grid {
    fn of(chart: &Heat) -> Self {
        let left = room_for(chart.rows.iter().map(String::as_str), TEXT).min(MAX_NAME) + 18;
        let cell = ((WIDTH - left - 8) / chart.columns.len().max(1) as i32).clamp(1, MAX_CELL);
        let has_numbers = chart.columns.len() <= MOST_NUMBERS;
        Self { left, cell, row: if has_numbers { ROW } else { cell.max(6) }, has_numbers }
    }
}

/// Draws a chart.
///
/// # Errors
/// The backend's.
pub(super) fn draw<DB: DrawingBackend>(chart: &Heat, pen: &Pen<'_, DB>) -> Drawn<DB> {
    let chart = &*condensed(chart);
    let Grid { left, cell, row: height, has_numbers } = Grid::of(chart);
    let middle = |row: i32| HEAD + height * row + height / 2;
    pen.text(&chart.column_title, (left, 13), Anchor::Left, (TEXT - 2, MUTED))?;
    let widest = room_for(chart.columns.iter().map(String::as_str), TEXT - 1) + 4;
    let every = if has_numbers { 1 } else { (widest / cell + 1) as usize };
    for (column, name) in chart.columns.iter().enumerate().step_by(every) {
        pen.text(name, (left + cell * column as i32 + cell / 2, 37), Anchor::Centre, (TEXT - 1, INK))?;
    }
    let every = if has_numbers { 1 } else { LINE / height + 1 };
    for (row, (name, cells)) in chart.rows.iter().zip(&chart.cells).enumerate() {
        let row = row as i32;
        if row % every == 0 {
            pen.text(&shorten(name, MAX_NAME), (left - 12, middle(row)), Anchor::Right, (TEXT, INK))?;
        }
        for (column, value) in cells.iter().enumerate() {
            let Some(value) = value else { continue };
            let (x, y) = (left + cell * column as i32, HEAD + height * row);
            let colour = palette::cell(share(chart, *value));
            // A cell leaves a line of the ground free.
            pen.rectangle([(x, y), (x + (cell - 1).max(1), y + height - 1)], colour)?;
            if !has_numbers {
                continue;
            }
            let text = number(*value, chart.digits);
            let size = if text_width(&text, TEXT - 1) > cell - 4 { TEXT - 4 } else { TEXT - 1 };
            let at = (x + cell / 2, middle(row));
            pen.text(&text, at, Anchor::Centre, (size, palette::on(colour)))?;
            if chart.framed.contains(&(row as usize, column)) {
                let corners = [(x + 3, y + 3), (x + cell - 4, y + height - 4)];
                pen.frame(corners, 2, palette::on(colour))?;
            }
        }
    }
    scale(chart, pen, left, HEAD + height * chart.rows.len() as i32 + 14)
}

/// The scale of colours.
fn scale<DB: DrawingBackend>(chart: &Heat, pen: &Pen<'_, DB>, left: i32, top: i32) -> Drawn<DB> {
    let step = (WIDTH - left - 24).min(280) / STEPS;
    pen.rectangle([(left, top), (left + step * STEPS, top + 12)], SURFACE)?;
    for i in 0..STEPS {
        let colour = palette::cell(f64::from(i) / f64::from(STEPS - 1));
        pen.rectangle([(left + step * i, top), (left + step * (i + 1), top + 12)], colour)?;
    }
    let style = (TEXT - 2, MUTED);
    let below = top + 26;
    pen.text(&number(chart.range.0, 0), (left, below), Anchor::Left, style)?;
    pen.text(&number(chart.range.1, 0), (left + step * STEPS, below), Anchor::Right, style)?;
    pen.text(&chart.title, (left + step * STEPS / 2, below), Anchor::Centre, (TEXT - 2, INK))
}

fn share(chart: &Heat, value: f64) -> f64 {
    (value - chart.range.0) / (chart.range.1 - chart.range.0).max(f64::MIN_POSITIVE)
}

fn number(value: f64, digits: usize) -> String {
    if digits == 0 { group_digits(value) } else { format!("{value:.digits$}").replace('-', "−") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(n: usize) -> Heat {
        let names = |n: usize| (1..=n).map(|i| format!("{i} task")).collect::<Vec<_>>();
        Heat {
            rows: names(n + 1),
            columns: (1..=n).map(|i| i.to_string()).collect(),
            cells: (0..=n)
                .map(|i| (0..n).map(|j| (j + 9 > i).then_some((i * n + j) as f64)).collect())
                .collect(),
            title: "points".to_owned(),
            column_title: "task".to_owned(),
            range: (0.0, 100.0),
            digits: 1,
            framed: vec![(1, 0)],
        }
    }

    #[test]
    fn a_small_matrix_is_drawn_as_it_is() {
        for n in [1, 8, 49] {
            assert_eq!(*condensed(&chart(n)), chart(n));
        }
        assert_eq!((note(6, 5), note(21, 20)), (String::new(), String::new()));
        assert!(note(22, 21).contains("numbers") && !Grid::of(&chart(21)).has_numbers);
        assert!(Grid::of(&chart(20)).has_numbers);
        assert_eq!(height(&chart(5)), HEAD + 6 * ROW + SCALE);
    }

    #[test]
    fn a_large_matrix_is_the_means_of_blocks_and_no_larger_picture() {
        let (all, small) = (chart(200), condensed(&chart(200)).into_owned());
        assert_eq!((small.rows.len(), small.columns.len(), &*small.rows[1]), (41, 40, "6 task"));
        let block = (5..10).flat_map(|i| (10..15).map(move |j| (i * 200 + j) as f64));
        assert_eq!(small.cells[1][2], Some(block.sum::<f64>() / 25.0));
        // What has no value is left out of a mean, and a block without any stays empty.
        let part: Vec<f64> = all.cells[10..15].iter().flat_map(|row| &row[..5]).flatten().copied().collect();
        assert!(part.len() < 25 && part.len() > 1);
        assert_eq!(small.cells[2][0], Some(part.iter().sum::<f64>() / part.len() as f64));
        assert_eq!(small.cells[9][0], None);
        assert!(note(201, 200).contains("5 × 5"));
        let tallest = HEAD + MOST as i32 * ROW / 2 + SCALE;
        assert!([60, 200, 1000].iter().all(|&n| height(&chart(n)) < tallest));
    }
}
