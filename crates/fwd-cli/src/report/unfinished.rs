//! The sections about a run that is not finished: how far it is, and what there is of its results.

use super::chart::{Chart, Heat};
use super::html::{Block, Figure, Heading, Section, Table};
use super::samples::{self, Pictures};
use super::{heat, losses, shared};
use anyhow::Result;
use fwd_run::comparison::UnfinishedRun;

/// The heading of the page.
pub(super) fn heading(run: &UnfinishedRun) -> Heading {
    let config = &run.manifest.run.config;
    let (n, done) = (config.tasks.len(), run.n_finished());
    let tasks = if n == 1 { "task" } else { "tasks" };
    Heading {
        title: format!("Unfinished: {} on {n} {tasks}, seed {}", config.method, config.seed),
        verdict: format!(
            "This run is not finished: {done} of {n} {tasks} are learnt and scored, and nothing here is its result. It would go on with {}.",
            run.place
        ),
        is_unfinished: true,
        summary: format!(
            "{}, scored on the {} split. {}",
            run.dir.display(),
            config.split.name(),
            shared::left_out_in_short(&run.manifest)
        ),
    }
}

/// What there is.
///
/// # Errors
/// A damaged file of answers or losses.
pub(super) fn sections(run: &UnfinishedRun, pictures: &Pictures) -> Result<Vec<Section>> {
    let config = &run.manifest.run.config;
    let of_samples = samples::Run {
        name: config.method.to_string(),
        dir: &run.dir,
        tasks: config.tasks.iter().map(|task| (task.clone(), pictures.metric(task))).collect(),
        is_sequence: config.method.is_sequence(),
        split: config.split,
    };
    let name = format!("{}, seed {}", config.method, config.seed);
    let figures = losses::figure(&run.dir, &name, "1")?.into_iter().collect();
    Ok(vec![
        progress(run),
        matrix(run),
        samples::section(&[of_samples], pictures)?,
        losses::section(figures),
        about(run),
    ])
}

fn progress(run: &UnfinishedRun) -> Section {
    let score = |row: Option<&Vec<f64>>, t: usize| {
        row.and_then(|row| row.get(t)).map_or("–".to_owned(), |score| format!("{score:.1}"))
    };
    let (rows, is_sequence) = (&run.scores.rows, run.manifest.run.config.method.is_sequence());
    let tasks = run.manifest.run.config.tasks.iter().zip(&run.is_finished).enumerate();
    let lines = tasks.map(|(t, (task, is_finished))| {
        let own = if is_sequence { t + 1 } else { 1 };
        let last = if is_sequence { rows.iter().skip(own + 1).rfind(|row| row.len() > t) } else { None };
        vec![
            format!("{} {task}", t + 1),
            if *is_finished { "learnt and scored" } else { "not finished" }.to_owned(),
            score(rows.first(), t),
            score(rows.get(own), t),
            score(last, t),
        ]
    });
    let table = Table {
        caption: "Tasks so far, scores in points".to_owned(),
        head: ["task", "state", "before training", "after its training", "latest"]
            .map(str::to_owned)
            .to_vec(),
        rows: lines.collect(),
    };
    let timing = &run.timing;
    let seconds = match timing.sessions {
        0 => "No session of it has ended in order, so that its seconds are not known.".to_owned(),
        n => format!(
            "{:.0} seconds so far, {:.0} of them training; it was interrupted {n} times.",
            timing.total, timing.training
        ),
    };
    Section {
        id: "progress",
        title: "How far it is",
        blocks: vec![Block::Table(table), Block::Text(seconds)],
    }
}

/// The score matrix so far.
fn matrix(run: &UnfinishedRun) -> Section {
    let tasks = &run.manifest.run.config.tasks;
    let rows = &run.scores.rows;
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    if n_columns == 0 {
        return Section { id: "matrices", title: "Score matrix so far", blocks: Vec::new() };
    }
    let is_sequence = run.manifest.run.config.method.is_sequence();
    let moment = |after: usize| match (after, tasks.get(after.wrapping_sub(1))) {
        (0, _) => "before".to_owned(),
        (after, Some(task)) if is_sequence => format!("{after} {task}"),
        _ => "each alone".to_owned(),
    };
    let names: Vec<String> = (0..rows.len()).map(moment).collect();
    let full = tasks.iter().enumerate().map(|(j, task)| format!("{} {task}", j + 1));
    let full = full.chain(std::iter::once("pre-training".to_owned())).take(n_columns);
    let columns =
        (0..n_columns).map(|j| if j < tasks.len() { (j + 1).to_string() } else { "pre".to_owned() });
    let cells: Vec<Vec<Option<f64>>> =
        rows.iter().map(|row| (0..n_columns).map(|j| row.get(j).copied()).collect()).collect();
    let caption = "Scores so far, in points".to_owned();
    let numbers = shared::score_table(caption, (&names, &full.collect::<Vec<_>>()), |row, column| {
        Some(cells[row][column].map_or("–".to_owned(), |value| format!("{value:.1}")))
    });
    let top = (cells.iter().flatten().flatten().fold(10.0, |a: f64, b| a.max(*b)) / 10.0).ceil() * 10.0;
    let figure = Figure {
        id: "scores-so-far".to_owned(),
        title: "Score matrix so far".to_owned(),
        text: format!(
            "{} Empty cells are not scored yet.{}",
            shared::MATRIX_LEGEND,
            heat::note(rows.len(), n_columns)
        ),
        alt: format!(
            "Score matrix so far: {} moments by {n_columns} columns; the numbers are in the table below.",
            rows.len()
        ),
        chart: Chart::Heat(Heat {
            framed: if is_sequence {
                (1..rows.len().min(tasks.len() + 1)).map(|t| (t, t - 1)).collect()
            } else {
                Vec::new()
            },
            rows: names,
            columns: columns.collect(),
            cells,
            title: "score, points".to_owned(),
            column_title: "score of task".to_owned(),
            range: (0.0, top),
            digits: 1,
        }),
        numbers,
    };
    Section { id: "matrices", title: "Score matrix so far", blocks: vec![Block::Figures(vec![figure])] }
}

fn about(run: &UnfinishedRun) -> Section {
    let manifest = &run.manifest;
    let row = vec![
        run.dir.display().to_string(),
        manifest.run.config.method.to_string(),
        manifest.run.config.seed.to_string(),
        manifest.started.clone(),
        manifest.program.clone(),
        shared::machine(&manifest.machine),
    ];
    let table = Table { caption: "The run".to_owned(), head: shared::run_head(), rows: vec![row] };
    let identity = &manifest.run;
    let hashes = format!("Benchmark {}, model {}.", identity.data_hash, identity.backbone_hash);
    let mut blocks = vec![Block::Table(table), Block::Text(hashes)];
    blocks.extend(shared::left_out(manifest));
    Section { id: "runs", title: "The run", blocks }
}
