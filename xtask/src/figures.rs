//! `cargo xtask figures`: the pictures of docs/findings.md, drawn as SVG from the tables in results/streams/, and that of results/README.md.

use crate::scatter;
use crate::shell::root;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fmt::Write;
use std::path::Path;

/// A group of runs in a table: how it is called in the picture, its method, and what its settings must and must not say.
struct Row {
    label: &'static str,
    file: &'static str,
    method: &'static str,
    with: &'static [&'static str],
    without: &'static [&'static str],
    colour: &'static str,
}

/// A measure: its key, its heading, and where the axis begins and ends.
type Panel = (&'static str, &'static str, f64, f64);

struct Figure {
    name: &'static str,
    title: &'static str,
    panels: &'static [Panel],
    rows: &'static [Row],
}

const GREY: &str = "#777777";
const BLUE: &str = "#1f6fb4";
const ORANGE: &str = "#c8641e";

const fn own(label: &'static str, file: &'static str) -> Row {
    Row { label, file, method: "sequential", with: &[], without: &["pool.inference task"], colour: GREY }
}

const fn reuse(file: &'static str) -> Row {
    Row { label: "reuse", file, method: "reuse", with: &[], without: &[], colour: BLUE }
}

const fn map(label: &'static str, method: &'static str, with: &'static [&'static str]) -> Row {
    Row { label, file: "classes-64", method, with, without: &[], colour: ORANGE }
}

const FIGURES: [Figure; 2] = [
    Figure {
        name: "reuse",
        title: "Streams of tasks: own prompts (grey) and reuse (blue)",
        panels: &[
            ("average", "A, points", 10.0, 50.0),
            ("forward_transfer", "FWT, points", -4.0, 12.0),
            ("retention", "pre-training, points", -28.0, 4.0),
        ],
        rows: &[
            own("five tasks, 32 samples: own", "few-32-reuse"),
            reuse("few-32-reuse"),
            own("five tasks, 64: own", "few-64-reuse"),
            reuse("few-64-reuse"),
            own("five tasks, all: own", "five"),
            reuse("five"),
            own("six parts of three, 64: own", "classes-64-reuse"),
            reuse("classes-64-reuse"),
            own("ten tasks, 64: own", "ten-64"),
            reuse("ten-64"),
            own("thirty parts of five, all: own", "long"),
            reuse("long"),
        ],
    },
    Figure {
        name: "classes",
        title: "Six tasks that share three instructions, 64 samples each: prompts (grey, blue) and a map of the input (orange)",
        panels: &[
            ("average", "A, points", 20.0, 40.0),
            ("forgetting", "F, points", 0.0, 40.0),
            ("output_kl", "output KL, nats", 0.0, 2.0),
        ],
        rows: &[
            Row {
                label: "own prompts, by prompts",
                file: "classes-64",
                method: "sequential",
                with: &["map.form none"],
                without: &["pool.inference task"],
                colour: GREY,
            },
            Row {
                label: "own prompts, by task",
                file: "classes-64",
                method: "sequential",
                with: &["map.form none", "pool.inference task"],
                without: &["pool.start library"],
                colour: GREY,
            },
            Row {
                label: "library, by task",
                file: "classes-64",
                method: "sequential",
                with: &["pool.inference task", "pool.start library"],
                without: &[],
                colour: BLUE,
            },
            map("map, no rule", "sequential", &["pool.allocation.partitioned 0"]),
            map("map, fwd", "fwd", &[]),
            map("map, residual", "residual", &["pool.allocation.partitioned 0", "subspace.task_energy 0.95"]),
            map("map, residual, ε = 0.99", "residual", &["subspace.task_energy 0.99"]),
            map("own and map, no rule", "sequential", &["map.form full", "pool.inference task"]),
            map("own and map, residual", "residual", &["pool.inference task", "pool.start normal"]),
            map("library, by task, and map, residual", "residual", &["pool.start library"]),
        ],
    },
];

/// Draws all figures.
///
/// # Errors
/// A table that is missing, or that has no group or several for a row.
pub(crate) fn figures() -> Result<()> {
    let write = |path: &str, picture: String| {
        let path = root().join(path);
        std::fs::write(&path, picture).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("{}", path.display());
        Ok(())
    };
    std::fs::create_dir_all(root().join("docs/findings"))?;
    for figure in &FIGURES {
        write(&format!("docs/findings/{}.svg", figure.name), draw(figure)?)?;
    }
    write("results/trained.svg", scatter::draw()?)
}

/// Mean and ends of the interval of a measure.
fn values(row: &Row, measure: &str) -> Result<[f64; 3]> {
    let path = root().join("results/streams").join(format!("{}.json", row.file));
    let table: Value = read(&path)?;
    let groups = table["groups"].as_array().with_context(|| format!("{} has no groups", path.display()))?;
    let is_it = |group: &&Value| {
        let settings = group["variant"].as_str().unwrap_or_default();
        let says = |text: &&str| {
            settings.split(", ").any(|setting| setting.starts_with(*text) || setting.ends_with(*text))
        };
        group["method"] == row.method && row.with.iter().all(says) && !row.without.iter().any(says)
    };
    let found: Vec<&Value> = groups.iter().filter(is_it).collect();
    ensure!(found.len() == 1, "{}: {} groups are `{}`", path.display(), found.len(), row.label);
    let of = &found[0]["measures"][measure];
    let number = |value: &Value| {
        value.as_f64().with_context(|| format!("{}: no {measure} of `{}`", path.display(), row.label))
    };
    Ok([number(&of["mean"])?, number(&of["interval"][0])?, number(&of["interval"][1])?])
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(serde_json::from_str(&text)?)
}

const LABELS: f64 = 210.0;
const WIDTH: f64 = 190.0;
const GAP: f64 = 26.0;
const TOP: f64 = 62.0;
const HEIGHT: f64 = 24.0;

fn draw(figure: &Figure) -> Result<String> {
    let (n, m) = (figure.panels.len() as f64, figure.rows.len() as f64);
    let (width, height) = (LABELS + n * (WIDTH + GAP), TOP + m * HEIGHT + 34.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>{}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"8\" y=\"20\" font-size=\"13\">{0}</text>\n",
        figure.title
    );
    let y = |i: usize| TOP + (i as f64 + 0.5) * HEIGHT;
    for (i, row) in figure.rows.iter().enumerate() {
        writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LABELS - 10.0,
            y(i) + 4.0,
            row.label
        )?;
    }
    for (p, &(measure, heading, from, to)) in figure.panels.iter().enumerate() {
        let left = LABELS + p as f64 * (WIDTH + GAP);
        let x = |value: f64| left + (value.clamp(from, to) - from) / (to - from) * WIDTH;
        let bottom = TOP + m * HEIGHT;
        writeln!(out, "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{heading}</text>", TOP - 12.0)?;
        for tick in 0..=4 {
            let value = from + (to - from) * f64::from(tick) / 4.0;
            let at = x(value);
            writeln!(out, "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#dddddd\"/>")?;
            writeln!(
                out,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555555\">{value}</text>",
                bottom + 16.0
            )?;
        }
        if from < 0.0 && to > 0.0 {
            writeln!(out, "<path d=\"M{0:.1} {TOP}V{bottom}\" stroke=\"#888888\"/>", x(0.0))?;
        }
        for (i, row) in figure.rows.iter().enumerate() {
            let [mean, low, high] = values(row, measure)?;
            let (y, colour) = (y(i), row.colour);
            writeln!(
                out,
                "<path d=\"M{:.1} {y}H{:.1}\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                x(low),
                x(high)
            )?;
            writeln!(out, "<circle cx=\"{:.1}\" cy=\"{y}\" r=\"4\" fill=\"{colour}\"/>", x(mean))?;
        }
    }
    out += "</svg>\n";
    Ok(out)
}
