//! The sections about input embeddings: how their rank grows along a sequence, their spectra, and how the subspaces of tasks and
//! modalities lie to each other.

use super::chart::{Axis, Chart, Heat, Lines, Point, Scale, Series};
use super::html::{Block, Figure, Section, Table};
use super::shared::{minus, numbered, over_table};
use anyhow::Result;
use fwd_prompt::analysis::{Modality, Pair, Spectrum};
use fwd_run::Method;
use fwd_run::analysis::EmbeddingAnalysis;
use fwd_run::comparison::{Comparison, Group, Summary};
use fwd_run::run::{Rank, RankStage, Rows, read_ranks};
use fwd_run::samples::PRETRAINING;
use std::collections::HashMap;

/// The energy whose ranks are drawn.
const ENERGY: f64 = 0.95;
/// Singular values that are smaller, relative to the largest, are rounding.
const SMALLEST: f64 = 1e-6;

const MODALITIES: [(Modality, &str, &str); 3] = [
    (Modality::Image, "image", "visual tokens"),
    (Modality::Text, "text", "instruction tokens"),
    (Modality::Both, "both", "visual and instruction tokens"),
];

/// Ranks along the sequence, of the runs that recorded them.
///
/// # Errors
/// A damaged record.
pub(super) fn growth(comparison: &Comparison) -> Result<Option<Section>> {
    let (mut recorded, mut input) = (Vec::new(), None);
    for (number, group) in numbered(comparison) {
        let runs = group.runs.iter().map(|run| read_ranks(&run.dir)).collect::<Result<Vec<_>>>()?;
        let runs: Vec<Vec<RankStage>> = runs.into_iter().filter(|stages| !stages.is_empty()).collect();
        if runs.is_empty() {
            continue;
        }
        if group.method != Method::Finetune && input.is_none() {
            input = Some(runs.clone());
        }
        recorded.push((number, group, runs));
    }
    type Value = fn(&RankStage, &Rank) -> f64;
    let values: [(&str, &str, &str, Value); 2] = [
        (
            "rank-growth",
            "Rank of the language model's input along the sequence",
            "directions that hold 95 % of the energy",
            rank_at,
        ),
        (
            "effective-rank-growth",
            "Effective rank of the language model's input along the sequence",
            "effective rank, exp(entropy)",
            |_, rank| rank.effective_rank,
        ),
    ];
    let figures = values.into_iter().filter_map(|(id, title, unit, value)| {
        let course = |name: String, number, runs: &[Vec<RankStage>], rows| Series {
            name,
            number,
            points: points(runs, rows, value),
        };
        let rows = |group: &Group| if group.method == Method::Finetune { Rows::Both } else { Rows::Prompted };
        let lines = recorded.iter().map(|(i, group, runs)| course(group.name(), *i, runs, rows(group)));
        let input = input.iter().map(|runs| {
            course("frozen input, no prompts".to_owned(), comparison.groups.len(), runs, Rows::Both)
        });
        let series: Vec<Series> = lines.chain(input).filter(|series| !series.points.is_empty()).collect();
        (!series.is_empty()).then(|| Figure {
            id: id.to_owned(),
            title: title.to_owned(),
            text: "The same samples of all tasks at every moment, with the prompts that each sample selects. Without prompts the input of a \
                   frozen model cannot change."
                .to_owned(),
            alt: format!("{title}: {} lines; the numbers are in the table below.", series.len()),
            numbers: over_table(title, "method", &series),
            chart: Chart::Lines(Lines {
                x: Axis::new("tasks learnt", Scale::Whole),
                y: Axis::new(unit, Scale::Linear),
                series,
            }),
        })
    });
    let figures: Vec<Figure> = figures.collect();
    let blocks = vec![Block::Figures(figures)];
    let is_empty = recorded.is_empty();
    Ok((!is_empty).then_some(Section { id: "growth", title: "Growth of the rank", blocks }))
}

/// The rank at [`ENERGY`].
fn rank_at(stage: &RankStage, rank: &Rank) -> f64 {
    let place = stage.energies.iter().position(|energy| *energy == ENERGY);
    place.map_or(f64::NAN, |i| rank.ranks[i] as f64)
}

/// A value of all tasks' rows together at each stage, over seeds.
fn points(runs: &[Vec<RankStage>], rows: Rows, value: fn(&RankStage, &Rank) -> f64) -> Vec<Point> {
    let at = |after: usize| {
        let values = runs.iter().filter_map(|stages| {
            let stage = stages.iter().find(|stage| stage.after == after)?;
            let rank = stage.ranks.iter().find(|rank| rank.task.is_none() && rank.rows == rows)?;
            Some(value(stage, rank))
        });
        let summary = Summary::of(&values.collect::<Vec<_>>())?;
        Some(Point { x: after as f64, y: summary.mean, ends: (summary.low().max(0.0), summary.high()) })
    };
    let last = runs.iter().flatten().map(|stage| stage.after).max().unwrap_or(0);
    (0..=last).filter_map(at).collect()
}

/// Spectra, ranks and overlaps.
pub(super) fn analysis(analysis: &EmbeddingAnalysis) -> Section {
    let figures = MODALITIES.iter().filter_map(|m| spectra(analysis, *m));
    let overlaps = MODALITIES.iter().filter_map(|m| overlaps(analysis, *m));
    let mut blocks = vec![
        Block::Text(format!(
            "Embeddings have {} dimensions. A subspace holds {} % of the energy of its rows; the overlap of two is 1 if the smaller lies in the \
             larger, and for two at random the larger rank divided by the dimensions.",
            analysis.dim,
            100.0 * analysis.embeddings.energy
        )),
        Block::Figures(figures.collect()),
        Block::Table(ranks_table(analysis)),
        Block::Figures(overlaps.collect()),
    ];
    if !analysis.embeddings.modalities.is_empty() {
        blocks.push(Block::Table(modalities(analysis)));
    }
    blocks.extend(pretrained(analysis).map(Block::Table));
    Section { id: "embeddings", title: "Embeddings of tasks and modalities", blocks }
}

/// Of the tasks and of pre-training.
fn all_spectra(analysis: &EmbeddingAnalysis) -> impl Iterator<Item = &Spectrum> {
    analysis.embeddings.spectra.iter().chain(analysis.pretrained.iter().flat_map(|p| &p.spectra))
}

fn spectra(analysis: &EmbeddingAnalysis, (modality, id, words): (Modality, &str, &str)) -> Option<Figure> {
    let spectra: Vec<&Spectrum> = all_spectra(analysis).filter(|s| s.modality == modality).collect();
    let series = spectra.iter().enumerate().map(|(number, spectrum)| {
        let first = spectrum.singular_values.first().copied().unwrap_or(1.0);
        let relative = spectrum.singular_values.iter().map(|sigma| sigma / first);
        let kept = relative.take_while(|share| *share >= SMALLEST).enumerate();
        let points = kept.map(|(i, share)| Point::single((i + 1) as f64, share)).collect();
        Series { name: spectrum.task.clone(), number, points }
    });
    let series: Vec<Series> = series.collect();
    let title = format!("Spectrum of {words}");
    let some = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
    let longest = spectra.iter().map(|s| s.singular_values.len()).max().unwrap_or(0);
    let some: Vec<usize> = some.into_iter().filter(|i| *i <= longest).collect();
    let numbers = Table {
        caption: format!("{title}: singular values relative to the first"),
        head: std::iter::once("task".to_owned()).chain(some.iter().map(|i| format!("no. {i}"))).collect(),
        rows: spectra
            .iter()
            .map(|spectrum| {
                let first = spectrum.singular_values.first().copied().unwrap_or(1.0);
                let cells = some.iter().map(|i| match spectrum.singular_values.get(i - 1) {
                    Some(sigma) => format!("{:.4}", sigma / first),
                    None => "–".to_owned(),
                });
                std::iter::once(spectrum.task.clone()).chain(cells).collect()
            })
            .collect(),
    };
    (!series.is_empty()).then(|| Figure {
        id: format!("spectrum-{id}"),
        title: title.clone(),
        text: "Singular values of the rows of embeddings, relative to the largest. The faster a line falls, the fewer directions the task uses."
            .to_owned(),
        alt: format!("{title}: a falling line for each of {} tasks; the numbers are in the table below.", series.len()),
        chart: Chart::Lines(Lines {
            x: Axis::new("number of the singular value", Scale::Linear),
            y: Axis::new("σ / largest σ", Scale::Log),
            series,
        }),
        numbers,
    })
}

fn ranks_table(analysis: &EmbeddingAnalysis) -> Table {
    let rows = all_spectra(analysis).map(|s| {
        let mut cells = vec![s.task.clone(), words(s.modality).to_owned(), s.n_rows.to_string()];
        cells.extend(s.ranks.iter().map(usize::to_string));
        cells.push(format!("{:.1}", s.effective_rank));
        cells
    });
    Table {
        caption: "Directions that hold a share of the energy, and effective rank exp(entropy)".to_owned(),
        head: ["task", "rows of", "rows", "90 %", "95 %", "99 %", "effective rank"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
    }
}

fn overlaps(analysis: &EmbeddingAnalysis, (modality, id, words): (Modality, &str, &str)) -> Option<Figure> {
    let pairs: Vec<&Pair> =
        analysis.embeddings.pairs.iter().filter(|pair| pair.modality == modality).collect();
    if pairs.is_empty() {
        return None;
    }
    let names: Vec<&String> = analysis.tasks.iter().map(|task| &task.name).collect();
    let halves = analysis.halves.iter().filter(|pair| pair.modality == modality);
    let overlaps: HashMap<(&String, &String), f64> = pairs
        .iter()
        .copied()
        .chain(halves)
        .flat_map(|pair| [((&pair.a, &pair.b), pair.overlap), ((&pair.b, &pair.a), pair.overlap)])
        .collect();
    let cells: Vec<Vec<Option<f64>>> =
        names.iter().map(|&a| names.iter().map(|&b| overlaps.get(&(a, b)).copied()).collect()).collect();
    let largest = pairs.iter().flat_map(|pair| pair.ranks).max().unwrap_or(0);
    let rows = names.iter().enumerate().map(|(i, name)| format!("{} {name}", i + 1)).collect::<Vec<_>>();
    let title = format!("Overlap of tasks, {words}");
    let numbers = Table {
        caption: title.clone(),
        head: std::iter::once("task".to_owned()).chain(rows.iter().cloned()).collect(),
        rows: rows
            .iter()
            .zip(&cells)
            .map(|(name, row)| {
                let cells = row.iter().map(|v| v.map_or("–".to_owned(), |v| format!("{v:.3}")));
                std::iter::once(name.clone()).chain(cells).collect()
            })
            .collect(),
    };
    Some(Figure {
        id: format!("overlap-{id}"),
        title,
        text: format!(
            "How much the subspaces of two tasks share; on the diagonal, framed, two halves of one task's samples, which is as much as can be \
             expected. At random: up to {:.2}.{}",
            largest as f64 / analysis.dim.max(1) as f64,
            super::heat::note(names.len(), names.len())
        ),
        alt: format!(
            "Overlap of {0} tasks with each other, {0} by {0} cells; the numbers are in the table below.",
            names.len()
        ),
        chart: Chart::Heat(Heat {
            columns: (1..=names.len()).map(|i| i.to_string()).collect(),
            framed: (0..names.len()).map(|i| (i, i)).collect(),
            rows,
            cells,
            title: "overlap".to_owned(),
            column_title: "with task".to_owned(),
            range: (0.0, 1.0),
            digits: 2,
        }),
        numbers,
    })
}

/// Image against text of each task.
fn modalities(analysis: &EmbeddingAnalysis) -> Table {
    let rows = analysis.embeddings.modalities.iter().map(|pair| {
        let chance = pair.ranks.iter().copied().max().unwrap_or(0) as f64 / analysis.dim.max(1) as f64;
        vec![
            pair.a.clone(),
            pair.ranks[0].to_string(),
            pair.ranks[1].to_string(),
            format!("{:.3}", pair.overlap),
            format!("{chance:.3}"),
            pair.angles.first().map_or("–".to_owned(), |angle| format!("{angle:.1}°")),
        ]
    });
    Table {
        caption: "Visual against instruction tokens of the same task".to_owned(),
        head: [
            "task",
            "directions, visual",
            "directions, instruction",
            "overlap",
            "at random",
            "smallest angle",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: rows.collect(),
    }
}

/// Where the tasks lie to what was pre-trained.
fn pretrained(analysis: &EmbeddingAnalysis) -> Option<Table> {
    let pretrained = analysis.pretrained.as_ref()?;
    let rows = pretrained.tasks.iter().map(|task| {
        vec![
            task.task.clone(),
            words(task.modality).to_owned(),
            task.rank.to_string(),
            format!("{:.1} %", 100.0 * task.captured),
            task.beyond.to_string(),
            format!("{:.3}", task.overlap),
            minus(&task.angles.first().map_or("–".to_owned(), |angle| format!("{angle:.1}°"))),
        ]
    });
    let head =
        ["task", "rows of", "directions", "energy inside", "directions beyond", "overlap", "smallest angle"];
    Some(Table {
        caption: format!("Tasks against the {} directions of {PRETRAINING}", pretrained.rank),
        head: head.map(str::to_owned).to_vec(),
        rows: rows.collect(),
    })
}

fn words(modality: Modality) -> &'static str {
    MODALITIES.iter().find(|(m, ..)| *m == modality).map_or("", |(_, _, words)| words)
}
