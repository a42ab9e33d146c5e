//! Heat maps: a cell for each value, its number in it, and the scale of colours below.

use super::chart::{Heat, group_digits};
use super::palette::{self, INK, MUTED, SURFACE};
use super::pen::{Anchor, Drawn, Pen, TEXT, WIDTH, room_for, shorten, text_width};
use plotters::prelude::*;

const HEAD: i32 = 50;
const ROW: i32 = 34;
const SCALE: i32 = 54;
/// Names of rows that are longer are cut.
const MAX_NAME: i32 = 170;
/// Wider cells would tear a small matrix apart.
const MAX_CELL: i32 = 76;
/// Steps of the scale of colours.
const STEPS: i32 = 40;

/// The height of a chart.
pub(super) fn height(chart: &Heat) -> i32 {
    HEAD + ROW * chart.rows.len() as i32 + SCALE
}

/// Draws a chart.
///
/// # Errors
/// The backend's.
pub(super) fn draw<DB: DrawingBackend>(chart: &Heat, pen: &Pen<'_, DB>) -> Drawn<DB> {
    let left = room_for(chart.rows.iter().map(String::as_str), TEXT).min(MAX_NAME) + 18;
    let n_columns = chart.columns.len().max(1) as i32;
    let cell = ((WIDTH - left - 8) / n_columns).min(MAX_CELL);
    let middle = |row: i32| HEAD + ROW * row + ROW / 2;
    pen.text(&chart.column_title, (left, 13), Anchor::Left, (TEXT - 2, MUTED))?;
    for (column, name) in chart.columns.iter().enumerate() {
        pen.text(name, (left + cell * column as i32 + cell / 2, 37), Anchor::Centre, (TEXT - 1, INK))?;
    }
    for (row, (name, cells)) in chart.rows.iter().zip(&chart.cells).enumerate() {
        let row = row as i32;
        pen.text(&shorten(name, MAX_NAME), (left - 12, middle(row)), Anchor::Right, (TEXT, INK))?;
        for (column, value) in cells.iter().enumerate() {
            let Some(value) = value else { continue };
            let (x, y) = (left + cell * column as i32, HEAD + ROW * row);
            let colour = palette::cell(share(chart, *value));
            // A cell leaves a line of the ground free.
            pen.rectangle([(x, y), (x + cell - 1, y + ROW - 1)], colour)?;
            let text = number(*value, chart.digits);
            let size = if text_width(&text, TEXT - 1) > cell - 4 { TEXT - 4 } else { TEXT - 1 };
            let at = (x + cell / 2, middle(row));
            pen.text(&text, at, Anchor::Centre, (size, palette::on(colour)))?;
            if chart.framed.contains(&(row as usize, column)) {
                let corners = [(x + 3, y + 3), (x + cell - 4, y + ROW - 4)];
                pen.frame(corners, 2, palette::on(colour))?;
            }
        }
    }
    scale(chart, pen, left)
}

/// The scale of colours.
fn scale<DB: DrawingBackend>(chart: &Heat, pen: &Pen<'_, DB>, left: i32) -> Drawn<DB> {
    let top = HEAD + ROW * chart.rows.len() as i32 + 14;
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
