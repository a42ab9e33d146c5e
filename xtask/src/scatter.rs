//! The picture of results/README.md: how much each method learns against how many numbers it trains, from `results/comparison.json` and
//! `results/adapters.json`.

use crate::shell::root;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt::Write;

/// A method in the picture.
struct Point {
    method: String,
    trained: f64,
    average: f64,
    interval: [f64; 2],
    is_adapter: bool,
}

const LEFT: f64 = 56.0;
const TOP: f64 = 40.0;
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 380.0;
/// Decades of the axis of trained numbers.
const DECADES: [f64; 2] = [4.0, 6.6];
const MOST: f64 = 70.0;
/// Least distance between two labels of one column.
const LINE: f64 = 12.0;

/// Draws the picture.
///
/// # Errors
/// A table that is missing or lacks a measure.
pub(crate) fn draw() -> Result<String> {
    let mut points = points("comparison", false)?;
    let adapters = points_of_adapters()?;
    // What both tables have was measured with the other methods of its own table.
    points.retain(|point| adapters.iter().all(|adapter| adapter.method != point.method));
    points.extend(adapters);
    points.retain(|point| point.trained > 0.0);
    let x = |trained: f64| LEFT + (trained.log10() - DECADES[0]) / (DECADES[1] - DECADES[0]) * WIDTH;
    let y = |average: f64| TOP + HEIGHT - average / MOST * HEIGHT;
    let (width, height) = (LEFT + WIDTH + 24.0, TOP + HEIGHT + 46.0);
    let title = "A against trained numbers: prompts and weights (grey), adapters (blue)";
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"13\">{title}</text>\n"
    );
    for tick in (0..=7).map(|tick| f64::from(tick) * 10.0) {
        let at = y(tick);
        writeln!(out, "<path d=\"M{LEFT} {at:.1}h{WIDTH}\" stroke=\"#dddddd\"/>")?;
        writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555555\">{tick}</text>",
            LEFT - 8.0,
            at + 4.0
        )?;
    }
    for (trained, label) in [(1e4, "10,000"), (1e5, "100,000"), (1e6, "1,000,000")] {
        let at = x(trained);
        writeln!(out, "<path d=\"M{at:.1} {TOP}v{HEIGHT}\" stroke=\"#dddddd\"/>")?;
        writeln!(
            out,
            "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555555\">{label}</text>",
            TOP + HEIGHT + 18.0
        )?;
    }
    writeln!(out, "<text x=\"{LEFT}\" y=\"{}\">trained numbers</text>", TOP + HEIGHT + 36.0)?;
    points.sort_by(|a, b| a.trained.total_cmp(&b.trained).then(b.average.total_cmp(&a.average)));
    let mut last: Option<(f64, f64)> = None;
    for Point { method, trained, average, interval, is_adapter } in &points {
        let (at, colour) = (x(*trained), if *is_adapter { "#1f6fb4" } else { "#777777" });
        let [low, high] = interval.map(|end| y(end.clamp(0.0, MOST)));
        writeln!(
            out,
            "<path d=\"M{at:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\" stroke-opacity=\"0.4\"/>"
        )?;
        writeln!(out, "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"/>", y(*average))?;
        // Below the label before it in the same column.
        let wanted = y(*average) + 4.0;
        let label = match last {
            Some((column, above)) if (at - column).abs() < 50.0 => wanted.max(above + LINE),
            _ => wanted,
        };
        last = Some((at, label));
        writeln!(out, "<text x=\"{:.1}\" y=\"{label:.1}\" fill=\"{colour}\">{method}</text>", at + 8.0)?;
    }
    out += "</svg>\n";
    Ok(out)
}

fn points_of_adapters() -> Result<Vec<Point>> {
    let all = points("adapters", true)?;
    ensure!(!all.is_empty(), "results/adapters.json has no groups");
    Ok(all)
}

/// The methods of a table; of one of adapters those whose names say so.
fn points(table: &str, has_adapters: bool) -> Result<Vec<Point>> {
    let path = root().join("results").join(format!("{table}.json"));
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let table: Value = serde_json::from_str(&text)?;
    let groups = table["groups"].as_array().with_context(|| format!("{} has no groups", path.display()))?;
    let point = |group: &Value| {
        let method = group["method"].as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| {
            value.as_f64().with_context(|| format!("{}: a measure of `{method}` is missing", path.display()))
        };
        let average = &group["measures"]["average"];
        Ok(Point {
            trained: number(&group["measures"]["trainable_parameters"]["mean"])?,
            average: number(&average["mean"])?,
            interval: [number(&average["interval"][0])?, number(&average["interval"][1])?],
            is_adapter: has_adapters && (method.contains("lora") || method == "hide"),
            method,
        })
    };
    groups.iter().map(point).collect()
}
