//! From a chart to SVG and PNG: one drawing, two backends of plotters.

use super::chart::Chart;
use super::escape::escape;
use super::palette::{self, SURFACE};
use super::pen::{Drawn, Pen, WIDTH, register};
use super::{dots, heat, lines};
use anyhow::{Result, anyhow};
use image::{ImageFormat, RgbImage};
use plotters::prelude::*;
use std::io::Cursor;

/// Pixels of the drawing to one of the chart: plotters rounds to whole ones.
const SVG_SCALE: i32 = 4;
const PNG_SCALE: i32 = 2;

/// A chart as an SVG document that stands alone, readable on light and dark ground.
///
/// # Errors
/// If plotters cannot draw it.
pub(super) fn svg(chart: &Chart, title: &str) -> Result<String> {
    let (open, body) = svg_parts(chart)?;
    let style = palette::dark_css("");
    let title = escape(title);
    Ok(format!(
        "{open} xmlns=\"http://www.w3.org/2000/svg\"><title>{title}</title><style>\n{style}</style>\n{body}"
    ))
}

/// A chart as an SVG element of a page, which has the style sheet and says what the picture shows.
///
/// # Errors
/// If plotters cannot draw it.
pub(super) fn inline_svg(chart: &Chart, alt: &str) -> Result<String> {
    let (open, body) = svg_parts(chart)?;
    Ok(format!("{open} class=\"chart\" role=\"img\" aria-label=\"{}\">\n{body}", escape(alt)))
}

/// The opening tag without its end, and the rest.
fn svg_parts(chart: &Chart) -> Result<(String, String)> {
    let mut text = String::new();
    let (width, height) = (WIDTH as u32, height(chart) as u32);
    let size = (width * SVG_SCALE as u32, height * SVG_SCALE as u32);
    draw(SVGBackend::with_string(&mut text, size), chart, SVG_SCALE)?;
    let (_, body) = text.split_once('>').ok_or_else(|| anyhow!("plotters wrote no SVG"))?;
    let open = format!("<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {} {}\"", size.0, size.1);
    Ok((open, body.trim_start().to_owned()))
}

/// A chart as a PNG file on white ground.
///
/// # Errors
/// If plotters cannot draw it.
pub(super) fn png(chart: &Chart) -> Result<Vec<u8>> {
    let size = ((WIDTH * PNG_SCALE) as u32, (height(chart) * PNG_SCALE) as u32);
    let mut pixels = vec![0; size.0 as usize * size.1 as usize * 3];
    draw(BitMapBackend::with_buffer(&mut pixels, size), chart, PNG_SCALE)?;
    let image = RgbImage::from_raw(size.0, size.1, pixels).ok_or_else(|| anyhow!("an image of no size"))?;
    let mut file = Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png)?;
    Ok(file.into_inner())
}

fn draw<DB: DrawingBackend>(backend: DB, chart: &Chart, scale: i32) -> Result<()> {
    register()?;
    let area = backend.into_drawing_area();
    let drawn = area
        .fill(&SURFACE)
        .and_then(|()| draw_on(&Pen { area: &area, scale }, chart))
        .and_then(|()| area.present());
    drawn.map_err(|error| anyhow!("cannot draw a figure: {error}"))
}

/// The height of a chart at the width of all charts.
fn height(chart: &Chart) -> i32 {
    match chart {
        Chart::Lines(chart) => lines::height(chart),
        Chart::Dots(chart) => dots::height(chart),
        Chart::Heat(chart) => heat::height(chart),
    }
}

fn draw_on<DB: DrawingBackend>(pen: &Pen<'_, DB>, chart: &Chart) -> Drawn<DB> {
    match chart {
        Chart::Lines(chart) => lines::draw(chart, pen),
        Chart::Dots(chart) => dots::draw(chart, pen),
        Chart::Heat(chart) => heat::draw(chart, pen),
    }
}
