//! The section about what a method learned: how far adapters moved each layer, or which prompts the samples of each task select, which key decides, where prompts moved,
//! which words they are near to, and how much room is left. It needs what `inspect` wrote into a run directory.

use super::chart::{Chart, Heat};
use super::html::{Block, Figure, Section, Table};
use super::shared::{minus, numbered, slug};
use anyhow::{Result, ensure};
use fwd_run::Method;
use fwd_run::comparison::Comparison;
use fwd_run::files::read_json;
use fwd_run::inspection::{AdapterInspection, INSPECTION, Inspection, LayerFindings};
use fwd_run::samples::PRETRAINING;
use std::path::Path;

/// Words of the vocabulary that are shown for each prompt token.
const WORDS: usize = 3;
/// Prompts that are shown; a large pool would fill the page.
const PROMPTS: usize = 40;

/// The section, of the first run of each group that was inspected; none if no run was.
///
/// # Errors
/// A damaged file, or one that is of another run.
pub(super) fn sections(comparison: &Comparison) -> Result<Option<Section>> {
    let (mut figures, mut tables) = (Vec::new(), Vec::new());
    for (number, group) in numbered(comparison) {
        let Some(run) = group.runs.iter().find(|run| run.dir.join(INSPECTION).is_file()) else { continue };
        let path = run.dir.join(INSPECTION);
        let check = |of: (Method, u64)| is_of(of, (run.metrics.method, run.metrics.seed), &path, &run.dir);
        let name = format!("{}, seed {}", group.name(), run.metrics.seed);
        if run.metrics.method.has_adapters() {
            let inspection: AdapterInspection = read_json(&path)?;
            check((inspection.method, inspection.seed))?;
            tables.push(changes(&inspection, &name));
            continue;
        }
        let inspection: Inspection = read_json(&path)?;
        check((inspection.method, inspection.seed))?;
        let id = format!("{}-{}", number + 1, slug(&group.name()));
        figures
            .extend([chosen(&inspection, &name, &id), moved(&inspection, &name, &id)].into_iter().flatten());
        tables.extend([keys(&inspection, &name), capacity(&inspection, &name), words(&inspection, &name)]);
    }
    let blocks = std::iter::once(Block::Figures(figures))
        .chain(tables.into_iter().map(Block::Table))
        .collect::<Vec<_>>();
    let is_empty = blocks.len() == 1;
    Ok((!is_empty).then_some(Section { id: "selection", title: "What was learned", blocks }))
}

fn is_of(of: (Method, u64), run: (Method, u64), path: &Path, dir: &Path) -> Result<()> {
    let (path, dir) = (path.display(), dir.display());
    ensure!(of == run, "{path} is of another run than {dir}; make it again with `fwd-prompt inspect`");
    Ok(())
}

/// How far adapters moved each layer.
fn changes(inspection: &AdapterInspection, name: &str) -> Table {
    let mut head = vec!["layer".to_owned(), "maps".to_owned()];
    head.extend(inspection.adapters.iter().cloned());
    let row = |layer: &LayerFindings| {
        let mut row = vec![layer.layer.clone(), layer.n_maps.to_string()];
        row.extend(layer.change.iter().map(|share| format!("{:.2} %", 100.0 * share)));
        row
    };
    Table {
        caption: format!("How far adapters moved the weights, ‖s·B·A‖ of ‖W‖: {name}"),
        head,
        rows: inspection.layers.iter().map(row).collect(),
    }
}

/// Whose prompts are selected; under a shared pool, how alike tasks select.
fn chosen(inspection: &Inspection, name: &str, id: &str) -> Option<Figure> {
    let (rows, columns, cells, title, text, column_title) = match &inspection.confusion {
        Some(confusion) => {
            let share = |row: &Vec<usize>| {
                let sum = row.iter().sum::<usize>().max(1) as f64;
                row.iter().map(|n| Some(100.0 * *n as f64 / sum)).collect()
            };
            let cells: Vec<Vec<Option<f64>>> = confusion.best.iter().map(share).collect();
            let text = "For the samples of each task, whose prompt comes first, whether they take it or none. A frame marks a task's own prompts.";
            (&confusion.rows, &confusion.columns, cells, format!("Selection: {name}"), text, "prompt of task")
        }
        None => {
            let names = inspection.selection.iter().map(|row| row.task.clone()).collect::<Vec<_>>();
            if names.len() != inspection.similarity.len() {
                return None;
            }
            return Some(alike(inspection, &names, name, id));
        }
    };
    let framed =
        rows.iter().enumerate().filter_map(|(i, row)| Some((i, columns.iter().position(|c| c == row)?)));
    Some(heat(
        HeatText { id: format!("selection-{id}"), title, text: text.to_owned(), column_title },
        &inspection.tasks,
        (rows, columns),
        cells,
        ("samples, percent", (0.0, 100.0), 0),
        framed.collect(),
    ))
}

fn alike(inspection: &Inspection, names: &[String], name: &str, id: &str) -> Figure {
    let cells = inspection.similarity.iter().map(|row| row.iter().copied().map(Some).collect()).collect();
    let text = "All tasks share the prompts. How alike two tasks select: 1 the same prompts as often, 0 none in common.";
    heat(
        HeatText {
            id: format!("selection-{id}"),
            title: format!("Selection: {name}"),
            text: text.to_owned(),
            column_title: "with task",
        },
        &inspection.tasks,
        (names, names),
        cells,
        ("similarity", (0.0, 1.0), 2),
        Vec::new(),
    )
}

/// The share of the prompts' change in each subspace, by the task that opened them.
fn moved(inspection: &Inspection, name: &str, id: &str) -> Option<Figure> {
    let mut columns: Vec<String> = inspection.capacity.subspaces.iter().map(|s| s.task.clone()).collect();
    if columns.is_empty() || inspection.prompts.iter().any(|p| p.inside.len() != columns.len()) {
        return None;
    }
    let owners: Vec<String> =
        if inspection.is_shared { vec!["all prompts".to_owned()] } else { inspection.tasks.clone() };
    let share = |owner: &String, of: &dyn Fn(usize) -> f64| {
        let own =
            inspection.prompts.iter().enumerate().filter(|(_, p)| inspection.is_shared || p.task == *owner);
        let (sum, weight) = own.fold((0.0, 0.0), |(sum, weight), (i, p)| {
            let w = p.moved * p.moved;
            (sum + w * of(i), weight + w)
        });
        (weight > 0.0).then(|| 100.0 * sum / weight)
    };
    let cells = owners
        .iter()
        .map(|owner| {
            let inside = (0..columns.len()).map(|c| share(owner, &|i| inspection.prompts[i].inside[c]));
            inside.chain(std::iter::once(share(owner, &|i| inspection.prompts[i].outside))).collect()
        })
        .collect();
    columns.push("none".to_owned());
    let framed = owners
        .iter()
        .enumerate()
        .filter_map(|(i, owner)| Some((i, columns.iter().position(|c| c == owner)?)));
    let framed = framed.collect();
    Some(heat(
        HeatText {
            id: format!("moved-{id}"),
            title: format!("Where prompts moved: {name}"),
            text: "The share of the prompts' whole change that lies in each subspace, none what lies in no one's. A frame marks a task's own."
                .to_owned(),
            column_title: "subspace of",
        },
        &inspection.tasks,
        (&owners, &columns),
        cells,
        ("share, percent", (0.0, 100.0), 0),
        framed,
    ))
}

/// The words of a heat map.
struct HeatText {
    id: String,
    title: String,
    text: String,
    column_title: &'static str,
}

/// A heat map whose columns are tasks, by their number.
fn heat(
    text: HeatText,
    tasks: &[String],
    (rows, columns): (&[String], &[String]),
    cells: Vec<Vec<Option<f64>>>,
    (unit, range, digits): (&str, (f64, f64), usize),
    framed: Vec<(usize, usize)>,
) -> Figure {
    let numbers = Table {
        caption: format!("{}, {unit}", text.title),
        head: std::iter::once("task").chain(columns.iter().map(String::as_str)).map(str::to_owned).collect(),
        rows: rows
            .iter()
            .zip(&cells)
            .map(|(name, row)| {
                let cells =
                    row.iter().map(|v| v.map_or("–".to_owned(), |v| format!("{v:.0$}", digits + 1)));
                std::iter::once(name.clone()).chain(cells).collect()
            })
            .collect(),
    };
    let numbered_rows = rows.iter().enumerate().map(|(i, name)| format!("{} {name}", i + 1));
    let number = |column: &String| rows.iter().position(|row| row == column);
    let short =
        columns.iter().map(|column| match number(column).or(tasks.iter().position(|t| t == column)) {
            Some(i) => (i + 1).to_string(),
            None if column == PRETRAINING => "pre".to_owned(),
            None => column.clone(),
        });
    Figure {
        alt: format!(
            "{}: {} by {} cells; the numbers are in the table below.",
            text.title,
            rows.len(),
            columns.len()
        ),
        id: text.id,
        title: text.title,
        text: text.text + &super::heat::note(rows.len(), columns.len()),
        chart: Chart::Heat(Heat {
            rows: numbered_rows.collect(),
            columns: short.collect(),
            cells,
            title: unit.to_owned(),
            column_title: text.column_title.to_owned(),
            range,
            digits,
            framed,
        }),
        numbers,
    }
}

/// Which key decides.
fn keys(inspection: &Inspection, name: &str) -> Table {
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    let rows = inspection.selection.iter().map(|row| {
        let keys = row.keys;
        // A task's name keeps its hyphens.
        let numbers = [
            row.n_samples.to_string(),
            row.rejected.to_string(),
            format!("{:.3}", keys.image),
            format!("{:.3}", keys.text),
            keys.image_share.map_or("–".to_owned(), percent),
            percent(keys.image_alone),
            percent(keys.text_alone),
        ];
        std::iter::once(row.task.clone()).chain(numbers.iter().map(|number| minus(number))).collect()
    });
    let head = [
        "task",
        "samples",
        "take none",
        "image key, cosine",
        "text key",
        "image's part in it",
        "same by image alone",
        "by text alone",
    ];
    Table {
        caption: format!("Image and text in the choice of the best prompt: {name}"),
        head: head.map(str::to_owned).to_vec(),
        rows: rows.collect(),
    }
}

fn capacity(inspection: &Inspection, name: &str) -> Table {
    let capacity = &inspection.capacity;
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let rows = capacity.subspaces.iter().map(|s| {
        vec![
            s.task.clone(),
            s.rank.to_string(),
            s.n_rows.to_string(),
            percent(s.captured_before),
            percent(s.captured),
        ]
    });
    Table {
        caption: format!(
            "Subspaces: {name}; {} of {} directions are taken, {} are left",
            capacity.used, capacity.dim, capacity.left
        ),
        head: ["subspace", "directions", "rows", "energy in older ones", "energy with its own"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
    }
}

fn words(inspection: &Inspection, name: &str) -> Table {
    let rows = inspection.prompts.iter().take(PROMPTS).map(|prompt| {
        let tokens = prompt.tokens.iter().map(|token| {
            let nearest = token.nearest.iter().take(WORDS);
            let nearest: Vec<String> = nearest
                .map(|n| format!("{} {}", n.token.replace('▁', "␣"), minus(&format!("{:.2}", n.cosine))))
                .collect();
            nearest.join(", ")
        });
        let head = [format!("{} ({})", prompt.index, prompt.task), format!("{:.2}", prompt.moved)];
        head.into_iter().chain(tokens).collect()
    });
    let head = ["prompt (task)", "moved by"].into_iter().map(str::to_owned);
    let head = head.chain((1..=inspection.prompt_len).map(|i| format!("token {i}")));
    let left_out = inspection.prompts.len().saturating_sub(PROMPTS);
    let rest = if left_out > 0 { format!("; {left_out} more are left out") } else { String::new() };
    Table {
        caption: format!(
            "Nearest words of each prompt token, with the cosine; ␣ is the space before a word: {name}{rest}"
        ),
        head: head.collect(),
        rows: rows.collect(),
    }
}
