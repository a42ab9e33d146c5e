//! The pen that all charts are drawn with, in units of a chart, and how much room text takes.

use super::palette::{self, GRID, INK, MUTED};
use crate::output::one_line;
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontStyle, register_font};

/// What drawing returns.
pub(super) type Drawn<DB> = Result<(), DrawingAreaErrorKind<<DB as DrawingBackend>::ErrorType>>;

/// Width of every chart. It is small, so that text can still be read where a narrow page shrinks the chart.
pub(super) const WIDTH: i32 = 480;
/// Font size of most text, as plotters counts it: 1.24 times that of CSS.
pub(super) const TEXT: i32 = 18;

const FAMILY: &str = "sans-serif";
const FONT: &[u8] = include_bytes!("font/DejaVuSans-subset.ttf");

/// Draws in units of the chart.
pub(super) struct Pen<'a, DB: DrawingBackend> {
    /// Where it draws, in pixels.
    pub(super) area: &'a DrawingArea<DB, Shift>,
    /// Pixels to a unit of the chart.
    pub(super) scale: i32,
}

/// Where a text lies to its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    /// It begins at the point.
    Left,
    /// The point is its middle.
    Centre,
    /// It ends at the point.
    Right,
}

impl<DB: DrawingBackend> Pen<'_, DB> {
    /// The style of text in a colour.
    pub(super) fn style(&self, size: i32, colour: RGBColor) -> TextStyle<'static> {
        let style = TextStyle::from((FAMILY, size * self.scale).into_font());
        TextStyle { color: colour.to_backend_color(), ..style }
    }

    /// A text, centred on its point vertically.
    pub(super) fn text(
        &self,
        text: &str,
        at: (i32, i32),
        anchor: Anchor,
        style: (i32, RGBColor),
    ) -> Drawn<DB> {
        let h_pos = match anchor {
            Anchor::Left => HPos::Left,
            Anchor::Centre => HPos::Center,
            Anchor::Right => HPos::Right,
        };
        let style = self.style(style.0, style.1).pos(Pos::new(h_pos, VPos::Center));
        // No SVG may hold control characters.
        self.area.draw_text(&one_line(text), &style, self.pixels(at))
    }

    /// A line through points.
    pub(super) fn line(&self, points: &[(i32, i32)], width: f64, colour: RGBAColor) -> Drawn<DB> {
        let points: Vec<_> = points.iter().map(|p| self.pixels(*p)).collect();
        let style = colour.stroke_width((width * f64::from(self.scale)).round() as u32);
        self.area.draw(&PathElement::new(points, style))
    }

    /// A filled rectangle.
    pub(super) fn rectangle(&self, corners: [(i32, i32); 2], colour: RGBColor) -> Drawn<DB> {
        let corners = corners.map(|corner| self.pixels(corner));
        self.area.draw(&Rectangle::new(corners, colour.filled()))
    }

    /// The edge of a rectangle, inside it.
    pub(super) fn frame(
        &self,
        [(left, top), (right, bottom)]: [(i32, i32); 2],
        width: i32,
        colour: RGBColor,
    ) -> Drawn<DB> {
        let sides = [
            [(left, top), (right, top + width)],
            [(left, bottom - width), (right, bottom)],
            [(left, top), (left + width, bottom)],
            [(right - width, top), (right, bottom)],
        ];
        sides.into_iter().try_for_each(|side| self.rectangle(side, colour))
    }

    /// The marker of a series, with an edge that keeps pale colours visible.
    pub(super) fn marker(&self, series: usize, at: (i32, i32)) -> Drawn<DB> {
        self.marker_at(series, self.pixels(at))
    }

    /// The same at a point in pixels.
    pub(super) fn marker_at(&self, series: usize, (x, y): (i32, i32)) -> Drawn<DB> {
        let colour = palette::series(series);
        let corners = |r: f64| -> Vec<(i32, i32)> {
            let at = |dx: f64, dy: f64| (x + (r * dx).round() as i32, y + (r * dy).round() as i32);
            match series % 5 {
                1 => vec![at(-0.9, -0.9), at(0.9, -0.9), at(0.9, 0.9), at(-0.9, 0.9)],
                2 => vec![at(0.0, -1.2), at(1.1, 0.8), at(-1.1, 0.8)],
                3 => vec![at(0.0, -1.3), at(1.1, 0.0), at(0.0, 1.3), at(-1.1, 0.0)],
                _ => vec![at(0.0, 1.2), at(1.1, -0.8), at(-1.1, -0.8)],
            }
        };
        let scale = f64::from(self.scale);
        for (radius, colour) in [(6.0, INK), (4.6, colour)] {
            let r = radius * scale;
            if series.is_multiple_of(5) {
                self.area.draw(&Circle::new((x, y), (0.95 * r).round() as i32, colour.filled()))?;
            } else {
                self.area.draw(&Polygon::new(corners(r), colour.filled()))?;
            }
        }
        Ok(())
    }

    /// A small dot at a point in pixels, for one run of several.
    pub(super) fn dot_at(&self, at: (i32, i32)) -> Drawn<DB> {
        let style = MUTED.mix(0.55).filled();
        self.area.draw(&Circle::new(at, 3 * self.scale, style))
    }

    /// Names of series with their markers, in as many lines as they need, from the top.
    pub(super) fn legend(&self, entries: &[(usize, String)]) -> Drawn<DB> {
        for (place, (series, name)) in legend_places(entries).into_iter().zip(entries) {
            self.line(
                &[(place.0, place.1), (place.0 + 24, place.1)],
                2.0,
                palette::series(*series).mix(1.0),
            )?;
            self.marker(*series, (place.0 + 12, place.1))?;
            self.text(name, (place.0 + 30, place.1), Anchor::Left, (TEXT - 1, INK))?;
        }
        Ok(())
    }

    /// The style of grid lines.
    pub(super) fn grid(&self) -> ShapeStyle {
        GRID.stroke_width(self.scale as u32)
    }

    fn pixels(&self, (x, y): (i32, i32)) -> (i32, i32) {
        (x * self.scale, y * self.scale)
    }
}

/// The width of a text in the embedded font.
pub(super) fn text_width(text: &str, size: i32) -> i32 {
    // Measured large, because plotters rounds down to whole pixels.
    const FINE: i32 = 16;
    let layout = register().ok().and_then(|()| (FAMILY, size * FINE).into_font().layout_box(text).ok());
    layout.map_or(0, |(_, (width, _))| width / FINE + 1)
}

/// The longest of some texts, a little wider: readers' fonts differ.
pub(super) fn room_for<'a>(texts: impl Iterator<Item = &'a str>, size: i32) -> i32 {
    texts.map(|text| text_width(text, size)).max().unwrap_or(0) * 11 / 10
}

/// The height of a legend of these entries.
pub(super) fn legend_height(entries: &[(usize, String)]) -> i32 {
    legend_places(entries).last().map_or(0, |place| place.1 + 14)
}

fn legend_places(entries: &[(usize, String)]) -> Vec<(i32, i32)> {
    let (mut x, mut y) = (8, 14);
    let mut places = Vec::new();
    for (_, name) in entries {
        let width = 30 + room_for([name.as_str()].into_iter(), TEXT - 1) + 16;
        if x + width > WIDTH && x > 8 {
            (x, y) = (8, y + 22);
        }
        places.push((x, y));
        x += width;
    }
    places
}

/// Makes the embedded font known to plotters; it may be called any number of times.
///
/// # Errors
/// If plotters cannot read the font.
pub(super) fn register() -> Result<()> {
    register_font(FAMILY, FontStyle::Normal, FONT).map_err(|_| anyhow!("the embedded font is damaged"))
}

/// A text cut to a width.
pub(super) fn shorten(text: &str, width: i32) -> String {
    if room_for([text].into_iter(), TEXT) <= width {
        return text.to_owned();
    }
    let mut short: String = text.to_owned();
    while !short.is_empty() && room_for([format!("{short}…").as_str()].into_iter(), TEXT) > width {
        short.pop();
    }
    format!("{}…", short.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_cut() {
        assert_eq!(shorten("fwd", 100), "fwd");
        let short = shorten("a name that nobody could put into so little room", 120);
        assert!(short.starts_with("a name") && short.ends_with('…') && short.len() < 25, "{short}");
    }
}
