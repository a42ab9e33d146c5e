//! A dot with its interval for each of some names, single values as small dots, the value in words at the right. Names stand at the
//! left; if one is too long for that, each stands above its dot.

use super::chart::{Dots, Scale};
use super::palette::{self, INK, MUTED, SURFACE};
use super::pen::{Anchor, Drawn, Pen, TEXT, WIDTH, room_for, shorten};
use plotters::prelude::*;

const ROW: i32 = 34;
const TOP: i32 = 6;
const AXIS: i32 = 46;
/// The line of a name that stands above its dot.
const NAME: i32 = 22;
/// The longest name that stands at the left.
const MAX_NAME: i32 = 150;

/// The height of a chart.
pub(super) fn height(chart: &Dots) -> i32 {
    TOP + row_height(chart) * chart.rows.len().max(1) as i32 + AXIS
}

fn name_width(chart: &Dots) -> i32 {
    room_for(chart.rows.iter().map(|row| row.name.as_str()), TEXT)
}

fn row_height(chart: &Dots) -> i32 {
    if name_width(chart) > MAX_NAME { NAME + ROW } else { ROW }
}

/// Draws a chart.
///
/// # Errors
/// The backend's.
pub(super) fn draw<DB: DrawingBackend>(chart: &Dots, pen: &Pen<'_, DB>) -> Drawn<DB> {
    let s = pen.scale;
    let height = row_height(chart);
    let is_above = height > ROW;
    let left = if is_above { 28 } else { name_width(chart) + 18 };
    let right = room_for(chart.rows.iter().map(|row| row.text.as_str()), TEXT - 1) + 18;
    let values = chart.rows.iter().flat_map(|row| {
        row.singles.iter().copied().chain([row.value, row.ends.0, row.ends.1]).collect::<Vec<_>>()
    });
    let span = chart.axis.span(values.chain(chart.mark));
    let n_rows = chart.rows.len().max(1) as f64;
    let mut plot = ChartBuilder::on(pen.area)
        .margin_top(TOP * s)
        .margin_right(right * s)
        .margin_left(left * s)
        .x_label_area_size(AXIS * s)
        .build_cartesian_2d(span.0..span.1, n_rows..0.0)?;
    let labels = ((WIDTH - left - right) / 55).max(2) as usize;
    plot.configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .max_light_lines(0)
        .bold_line_style(pen.grid())
        .axis_style(MUTED.stroke_width(s as u32))
        .label_style(pen.style(TEXT - 2, MUTED))
        .axis_desc_style(pen.style(TEXT - 2, MUTED))
        .set_all_tick_mark_size(4 * s)
        .x_labels(labels)
        .x_label_formatter(&|place| chart.axis.label(*place))
        .x_desc(chart.axis.title.clone())
        .draw()?;
    let zero = (chart.axis.scale != Scale::Log && span.0 < 0.0 && span.1 > 0.0).then_some(0.0);
    for mark in zero.into_iter().chain(chart.mark) {
        let place = chart.axis.place(mark);
        let style = INK.stroke_width((3 * s / 2) as u32);
        plot.draw_series([PathElement::new(vec![(place, 0.0), (place, n_rows)], style)])?;
    }
    for (i, row) in chart.rows.iter().enumerate() {
        let top = TOP + height * i as i32;
        let middle = top + height - ROW / 2;
        let share = f64::from(height - ROW / 2) / f64::from(height);
        let at = |value: f64| (chart.axis.place(value), i as f64 + share);
        if is_above {
            let name = shorten(&row.name, WIDTH - left - 8);
            let end = left + room_for([name.as_str()].into_iter(), TEXT);
            // No line of the grid runs through a name.
            pen.rectangle([(left - 2, top - 2), (end, top + NAME)], SURFACE)?;
            pen.text(&name, (left, top + 2 + NAME / 2), Anchor::Left, (TEXT, INK))?;
        } else {
            pen.text(&row.name, (left - 12, middle), Anchor::Right, (TEXT, INK))?;
        }
        pen.text(&row.text, (WIDTH - 6, middle), Anchor::Right, (TEXT - 1, INK))?;
        if row.ends.0 < row.ends.1 {
            let style = palette::series(row.number).stroke_width((3 * s) as u32);
            plot.draw_series([PathElement::new(vec![at(row.ends.0), at(row.ends.1)], style)])?;
        }
        if row.singles.len() > 1 {
            for single in &row.singles {
                let (x, y) = plot.backend_coord(&at(*single));
                pen.dot_at((x, y + 9 * s))?;
            }
        }
        pen.marker_at(row.number, plot.backend_coord(&at(row.value)))?;
    }
    Ok(())
}
