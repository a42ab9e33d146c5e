//! Line charts with intervals.

use super::chart::{Lines, Point, Scale, Series};
use super::palette::{self, MUTED};
use super::pen::{Anchor, Drawn, Pen, TEXT, legend_height};
use plotters::prelude::*;

const PLOT_HEIGHT: i32 = 270;
/// The title of the vertical axis, which stands above it to be read without turning the head.
const Y_TITLE: i32 = 24;
/// Lines with more points have markers at some of them only.
const MANY: usize = 12;

/// The height of a chart.
pub(super) fn height(chart: &Lines) -> i32 {
    legend_height(&entries(chart)) + Y_TITLE + PLOT_HEIGHT
}

fn entries(chart: &Lines) -> Vec<(usize, String)> {
    chart.series.iter().map(|series| (series.number, series.name.clone())).collect()
}

/// Draws a chart.
///
/// # Errors
/// The backend's.
pub(super) fn draw<DB: DrawingBackend>(chart: &Lines, pen: &Pen<'_, DB>) -> Drawn<DB> {
    let (s, entries) = (pen.scale, entries(chart));
    pen.legend(&entries)?;
    let top = legend_height(&entries);
    pen.text(&chart.y.title, (8, top + Y_TITLE / 2), Anchor::Left, (TEXT - 2, MUTED))?;
    let below = pen.area.margin((top + Y_TITLE) * s, 0, 0, 0);
    let points = || chart.series.iter().flat_map(|series| &series.points);
    let x_span = chart.x.span(points().map(|p| p.x));
    let y_span = chart.y.span(points().flat_map(|p| [p.ends.0, p.ends.1, p.y]));
    let mut plot = ChartBuilder::on(&below)
        .margin_top(8 * s)
        .margin_right(14 * s)
        .x_label_area_size(46 * s)
        .y_label_area_size(54 * s)
        .build_cartesian_2d(x_span.0..x_span.1, y_span.0..y_span.1)?;
    let n_moments = if chart.x.scale == Scale::Whole { (x_span.1 - x_span.0).ceil() as usize + 1 } else { 8 };
    plot.configure_mesh()
        .disable_x_mesh()
        .max_light_lines(0)
        .bold_line_style(pen.grid())
        .axis_style(MUTED.stroke_width(s as u32))
        .label_style(pen.style(TEXT - 2, MUTED))
        .axis_desc_style(pen.style(TEXT - 2, MUTED))
        .set_all_tick_mark_size(4 * s)
        .x_labels(n_moments.min(14))
        .y_labels(6)
        .x_label_formatter(&|place| chart.x.label(*place))
        .y_label_formatter(&|place| chart.y.label(*place))
        .x_desc(chart.x.title.clone())
        .draw()?;
    // Intervals of several lines at one place would hide each other.
    let step = if chart.x.scale == Scale::Whole {
        0.05_f64.min(0.4 / chart.series.len().max(1) as f64)
    } else {
        0.0
    };
    for (i, series) in chart.series.iter().enumerate() {
        let shift = step * (i as f64 - 0.5 * (chart.series.len() - 1) as f64);
        let at = |x: f64, y: f64| (chart.x.place(x) + shift, chart.y.place(y));
        let colour = palette::series(series.number);
        let style = colour.stroke_width((2 * s) as u32);
        plot.draw_series(LineSeries::new(series.points.iter().map(|p| at(p.x, p.y)), style))?;
        let bars = series.points.iter().filter(|p| p.ends.0 < p.ends.1);
        plot.draw_series(bars.map(|p| PathElement::new(vec![at(p.x, p.ends.0), at(p.x, p.ends.1)], style)))?;
        for p in marked(series) {
            pen.marker_at(series.number, plot.backend_coord(&at(p.x, p.y)))?;
        }
    }
    Ok(())
}

/// The points that have a marker; on long lines each series has them elsewhere.
fn marked(series: &Series) -> impl Iterator<Item = &Point> {
    let every = if series.points.len() > MANY { series.points.len() / 6 } else { 1 };
    series.points.iter().skip(series.number % every).step_by(every)
}
