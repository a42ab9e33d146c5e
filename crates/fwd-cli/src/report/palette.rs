//! The colours of figures. Series have those of Okabe and Ito (2008, "Color Universal Design"), which people with any kind of
//! colour vision tell apart, and each a marker of its own besides; heat maps are in viridis (van der Walt and Smith 2015).
//!
//! On a dark page only what is neither series nor cell changes: a style sheet exchanges the colours of [`DARK`], so one drawing
//! serves light, dark and print.

use plotters::prelude::RGBColor;
use plotters::style::colors::colormaps::{ColorMap, ViridisRGB};
use std::fmt::Write;

/// Text and the seventh series.
pub(super) const INK: RGBColor = RGBColor(0x1B, 0x1F, 0x24);
/// Text of less weight, and axes.
pub(super) const MUTED: RGBColor = RGBColor(0x5A, 0x64, 0x70);
/// Grid lines.
pub(super) const GRID: RGBColor = RGBColor(0xD9, 0xDE, 0xE4);
/// The ground.
pub(super) const SURFACE: RGBColor = RGBColor(0xFF, 0xFF, 0xFF);
/// Text on a dark cell of a heat map, and on a light one; the same on every page, as the cells are.
const ON_DARK: RGBColor = RGBColor(0xFD, 0xFD, 0xFD);
const ON_LIGHT: RGBColor = RGBColor(0x10, 0x10, 0x10);

/// What a colour becomes on a dark page.
const DARK: [(RGBColor, RGBColor); 4] = [
    (INK, RGBColor(0xE6, 0xE9, 0xEE)),
    (MUTED, RGBColor(0xA3, 0xAC, 0xB8)),
    (GRID, RGBColor(0x36, 0x3C, 0x45)),
    (SURFACE, RGBColor(0x16, 0x19, 0x1E)),
];

/// Okabe and Ito's, without the yellow that white swallows.
const SERIES: [RGBColor; 7] = [
    RGBColor(0x00, 0x72, 0xB2),
    RGBColor(0xD5, 0x5E, 0x00),
    RGBColor(0x00, 0x9E, 0x73),
    RGBColor(0xCC, 0x79, 0xA7),
    RGBColor(0xE6, 0x9F, 0x00),
    RGBColor(0x56, 0xB4, 0xE9),
    INK,
];

/// Of series number `i`.
pub(super) fn series(i: usize) -> RGBColor {
    SERIES[i % SERIES.len()]
}

/// Of a cell whose value lies at `share` of the scale, from 0 to 1.
pub(super) fn cell(share: f64) -> RGBColor {
    ViridisRGB.get_color(share.clamp(0.0, 1.0))
}

/// Of text and lines on a cell: whichever has more contrast.
pub(super) fn on(cell: RGBColor) -> RGBColor {
    let contrast = |text: RGBColor| {
        let (a, b) = (luminance(cell), luminance(text));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    };
    if contrast(ON_DARK) > contrast(ON_LIGHT) { ON_DARK } else { ON_LIGHT }
}

/// Relative luminance (WCAG 2.1).
fn luminance(RGBColor(r, g, b): RGBColor) -> f64 {
    let linear = |channel: u8| {
        let c = f64::from(channel) / 255.0;
        if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
    };
    0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b)
}

/// A colour in CSS, as plotters writes it in SVG.
fn hex(RGBColor(r, g, b): RGBColor) -> String {
    format!("#{r:02X}{g:02X}{b:02X}")
}

/// The style sheet that exchanges colours inside `scope` on a dark screen.
pub(super) fn dark_css(scope: &str) -> String {
    let mut out = String::from("@media screen and (prefers-color-scheme: dark) {\n");
    for (light, dark) in DARK {
        for property in ["fill", "stroke"] {
            let _ = writeln!(out, "{scope}[{property}=\"{}\"] {{ {property}: {} }}", hex(light), hex(dark));
        }
    }
    out.push_str("}\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contrast(a: RGBColor, b: RGBColor) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn text_is_readable_on_every_ground() {
        assert!((contrast(RGBColor(0, 0, 0), RGBColor(255, 255, 255)) - 21.0).abs() < 1e-9);
        let dark = |colour| DARK.iter().find(|(light, _)| *light == colour).unwrap().1;
        for text in [INK, MUTED] {
            assert!(contrast(text, SURFACE) > 4.5);
            assert!(contrast(dark(text), dark(SURFACE)) > 4.5);
        }
        for step in 0..=100 {
            let cell = cell(f64::from(step) / 100.0);
            assert!(contrast(on(cell), cell) > 4.3, "{step}: {cell:?}");
        }
    }

    #[test]
    fn the_style_sheet_exchanges_what_is_no_data() {
        let css = dark_css(".chart ");
        assert!(css.contains(".chart [fill=\"#1B1F24\"] { fill: #E6E9EE }"), "{css}");
        for i in 0..6 {
            assert!(!css.contains(&hex(series(i))));
        }
    }
}
