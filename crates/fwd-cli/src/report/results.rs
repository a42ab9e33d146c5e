//! The sections that runs alone are enough for: measures, the course of the sequence, score matrices, cost, and the runs themselves.

use super::chart::{Axis, Chart, DotRow, Dots, Heat, Lines, Point, Scale, Series, group_digits};
use super::heat;
use super::html::{Block, Figure, Section, Table};
use super::shared::{
    MATRIX_LEGEND, left_out, machine, minus, numbered, over_table, run_head, score_table, slug,
};
use crate::table;
use anyhow::Result;
use fwd_run::comparison::{Comparison, FinishedRun, Form, Group, MEASURES, Measure, Summary};

/// What a reader must know of every figure with intervals.
fn intervals(comparison: &Comparison) -> &'static str {
    if comparison.groups.iter().any(|group| group.runs.len() > 1) {
        "Mean over seeds with its 95 % interval (Student's t)."
    } else {
        "One seed."
    }
}

/// The measures of all groups.
pub(super) fn overview(comparison: &Comparison) -> Result<Section> {
    let head = ["method", "seeds"].into_iter().chain(MEASURES.iter().map(|m| m.head));
    let rows = comparison.groups.iter().map(|group| {
        let cells = MEASURES.iter().map(|m| minus(&table::measure(m, group.summary(m.of))));
        [group.name(), group.runs.len().to_string()].into_iter().chain(cells).collect()
    });
    let table = Table {
        caption: "Measures by method: mean ± half of the 95 % interval over seeds, or [its ends] where it ends at the least or the largest \
                  possible score; leakage is the largest"
            .to_owned(),
        head: head.map(str::to_owned).collect(),
        rows: rows.collect(),
    };
    let terms = MEASURES.iter().map(|m| (m.head.to_owned(), m.what.to_owned())).collect();
    let figures = [
        ("average", "A: what is known at the end", "Higher is better."),
        ("forgetting", "F: what was forgotten", "Lower is better."),
        (
            "forward_transfer",
            "FWT: what older tasks did for new ones",
            "Higher is better; above zero is a gain.",
        ),
        (
            "plasticity",
            "FWT*: learnt in sequence against learnt alone",
            "Higher is better; above zero the sequence helped.",
        ),
        ("retention", "What became of pre-training", "Higher is better; zero is nothing lost."),
    ];
    let figures = figures.into_iter().filter_map(|(key, title, advice)| dots(comparison, key, title, advice));
    let mut blocks = vec![Block::Table(table)];
    if !comparison.notes.is_empty() {
        blocks.push(Block::List(comparison.notes.clone()));
    }
    blocks.extend([Block::Terms(terms), Block::Figures(figures.collect())]);
    Ok(Section { id: "results", title: "Results", blocks })
}

/// One measure as dots.
fn dots(comparison: &Comparison, key: &str, title: &str, advice: &str) -> Option<Figure> {
    let measure = MEASURES.iter().find(|m| m.key == key)?;
    let (unit, scale, mark) = match measure.form {
        Form::Count => ("number", Scale::Linear, Some(0.0)),
        Form::Percent => ("percent of the training time", Scale::Linear, Some(0.0)),
        Form::Nats => ("nats a token", Scale::Linear, Some(0.0)),
        Form::Largest => ("share of the change", Scale::Log, Some(1e-5)),
        Form::Score | Form::Points | Form::Difference => ("points", Scale::Linear, None),
    };
    let rows: Vec<DotRow> =
        numbered(comparison).filter_map(|(i, group)| dot_row(i, group, measure)).collect();
    let numbers = Table {
        caption: format!("{}: {}", measure.head, measure.what),
        head: ["method", "mean", "low", "high", "seeds"].map(str::to_owned).to_vec(),
        rows: numbered(comparison)
            .filter_map(|(_, group)| Some(summary_row(group.name(), group.summary(measure.of)?, measure)))
            .collect(),
    };
    let small =
        if rows.iter().any(|row| row.singles.len() > 1) { " Small dots are single seeds." } else { "" };
    let listed: Vec<String> = rows.iter().map(|row| format!("{} {}", row.name, row.text)).collect();
    (!rows.is_empty()).then(|| Figure {
        id: key.replace('_', "-"),
        title: title.to_owned(),
        text: format!("{}: {}. {advice} {}{small}", measure.head, measure.what, intervals(comparison)),
        alt: format!("{title}, in {unit}, by method: {}.", listed.join("; ")),
        chart: Chart::Dots(Dots { axis: Axis::new(format!("{}, {unit}", measure.head), scale), rows, mark }),
        numbers,
    })
}

fn dot_row(number: usize, group: &Group, measure: &Measure) -> Option<DotRow> {
    let summary = group.summary(measure.of)?;
    let is_largest = measure.form == Form::Largest;
    let singles: Vec<f64> = group.runs.iter().filter_map(measure.of).collect();
    Some(DotRow {
        name: group.name(),
        number,
        value: if is_largest { summary.max } else { summary.mean },
        ends: match measure.interval(&summary) {
            _ if is_largest => (summary.max, summary.max),
            Some(ends) => ends,
            None => (summary.mean, summary.mean),
        },
        singles,
        text: match measure.form {
            Form::Count if summary.half_width.unwrap_or(0.0) == 0.0 => group_digits(summary.mean),
            _ => minus(&table::measure(measure, Some(summary))),
        },
    })
}

fn summary_row(name: String, summary: Summary, measure: &Measure) -> Vec<String> {
    let number = |value: f64| match measure.form {
        Form::Largest => minus(&format!("{value:.1e}")),
        Form::Count => group_digits(value),
        _ => minus(&format!("{value:.2}")),
    };
    let value = if measure.form == Form::Largest { summary.max } else { summary.mean };
    let ends = match measure.interval(&summary) {
        Some((low, high)) if measure.form != Form::Largest => [number(low), number(high)],
        _ => ["–", "–"].map(str::to_owned),
    };
    let [low, high] = ends;
    vec![name, number(value), low, high, summary.n.to_string()]
}

/// The course of the sequence.
pub(super) fn sequence(comparison: &Comparison) -> Section {
    let n_tasks = n_tasks(comparison);
    let learnt = over_sequence(comparison, 1..=n_tasks, |run, t| run.matrix().average(t));
    let known = over_sequence(comparison, 0..=n_tasks, |run, t| run.matrix().get(t, n_tasks + 1));
    let figures = [
        (
            "average-over-sequence",
            "A over the sequence",
            "mean score of the tasks learnt so far, points",
            "After each task, the mean score of all tasks up to it.",
            learnt,
        ),
        (
            "pretraining-over-sequence",
            "Pre-training over the sequence",
            "mean score of the pre-training tasks, points",
            "What the model can still do of what it could before; 0 is before the first task.",
            known,
        ),
    ];
    let figures = figures.into_iter().filter(|(.., series)| !series.is_empty());
    let figures = figures.map(|(id, title, unit, text, series)| Figure {
        id: id.to_owned(),
        title: title.to_owned(),
        text: format!("{text} {}", intervals(comparison)),
        alt: format!(
            "{title}: a line for each of {} methods; the numbers are in the table below.",
            series.len()
        ),
        numbers: over_table(title, "method", &series),
        chart: Chart::Lines(Lines {
            x: Axis::new("tasks learnt", Scale::Whole),
            y: Axis::new(unit, Scale::Linear),
            series,
        }),
    });
    let figures: Vec<Figure> = figures.collect();
    let blocks = if figures.is_empty() { Vec::new() } else { vec![Block::Figures(figures)] };
    Section { id: "sequence", title: "Over the sequence", blocks }
}

/// A line for each group that learns in sequence.
fn over_sequence(
    comparison: &Comparison,
    moments: std::ops::RangeInclusive<usize>,
    value: impl Fn(&FinishedRun, usize) -> Option<f64>,
) -> Vec<Series> {
    let series = numbered(comparison).filter(|(_, group)| group.is_sequence()).map(|(number, group)| {
        let points = moments.clone().filter_map(|t| {
            let summary = group.summary(|run| value(run, t))?;
            Some(Point { x: t as f64, y: summary.mean, ends: summary.score_interval() })
        });
        Series { name: group.name(), number, points: points.collect() }
    });
    series.filter(|series| !series.points.is_empty()).collect()
}

/// The score matrices as heat maps.
pub(super) fn matrices(comparison: &Comparison) -> Section {
    let scores = comparison.groups.iter().flat_map(Group::mean_scores).flatten();
    // One scale for all, so that colours can be compared.
    let top = (scores.fold(10.0, f64::max) / 10.0).ceil() * 10.0;
    let figures = numbered(comparison).map(|(i, group)| matrix(i, group, top)).collect();
    Section { id: "matrices", title: "Score matrices", blocks: vec![Block::Figures(figures)] }
}

fn matrix(number: usize, group: &Group, top: f64) -> Figure {
    let (scores, name, tasks) = (group.mean_scores(), group.name(), group.tasks());
    let moment = |after: usize| match (after, group.runs.first()) {
        (0, _) | (_, None) => "before".to_owned(),
        (after, Some(run)) => table::moment(&run.metrics, after),
    };
    let rows: Vec<String> = (0..scores.len()).map(moment).collect();
    let n_columns = scores.first().map_or(0, Vec::len);
    let columns =
        (0..n_columns).map(|j| if j < tasks.len() { (j + 1).to_string() } else { "pre".to_owned() });
    let full = tasks.iter().enumerate().map(|(j, task)| format!("{} {task}", j + 1));
    let full = full.chain(std::iter::once("pre-training".to_owned())).take(n_columns);
    let caption = format!("Scores of {name}, mean over {} seed(s), in points", group.runs.len());
    let numbers = score_table(caption, (&rows, &full.collect::<Vec<_>>()), |row, column| {
        scores[row].get(column).map(|score| format!("{score:.1}"))
    });
    let note = heat::note(rows.len(), n_columns);
    Figure {
        id: format!("scores-{}-{}", number + 1, slug(&name)),
        title: name.clone(),
        text: match group.runs.len() {
            1 => format!("One seed. {MATRIX_LEGEND}{note}"),
            n => format!("Mean over {n} seeds. {MATRIX_LEGEND}{note}"),
        },
        alt: format!(
            "Score matrix of {name}: {} moments by {n_columns} columns; the numbers are in the table below.",
            rows.len()
        ),
        chart: Chart::Heat(Heat {
            rows,
            columns: columns.collect(),
            cells: scores
                .iter()
                .map(|row| row.iter().map(|v| v.is_finite().then_some(*v)).collect())
                .collect(),
            title: "score, points".to_owned(),
            column_title: "score of task".to_owned(),
            range: (0.0, top),
            digits: 1,
            framed: if group.is_sequence() {
                (1..=tasks.len()).map(|t| (t, t - 1)).collect()
            } else {
                Vec::new()
            },
        }),
        numbers,
    }
}

/// Parameters, samples, time, leakage, capacity.
pub(super) fn cost(comparison: &Comparison) -> Section {
    let figures = [
        dots(
            comparison,
            "trainable_parameters",
            "Trained numbers",
            "Prompts and keys, or weights where a method trains them.",
        ),
        dots(
            comparison,
            "optimiser_percent",
            "The optimiser's step with its projection",
            "The rest of the training time is the frozen model, forwards and backwards. Methods without a rule show what the optimiser takes alone.",
        ),
        dots(
            comparison,
            "leakage",
            "Leakage",
            "The largest share of a task's change that lies in a subspace its rule forbids; the line is what rounding may leave, 1e-5. \
             Methods without a rule forbid nothing and are not shown.",
        ),
        capacity(comparison),
    ];
    type Seconds = (&'static str, fn(&FinishedRun) -> f64);
    let seconds: [Seconds; 5] = [
        ("frozen pass", |run| run.timing.frozen),
        ("training", |run| run.timing.training),
        ("optimiser in it", |run| run.timing.optimiser),
        ("answers and scores", |run| run.timing.scoring),
        ("all", |run| run.timing.total),
    ];
    let is_timed = |run: &FinishedRun| run.timing.total > 0.0;
    let rows = comparison.groups.iter().map(|group| {
        let cells = seconds.iter().map(|(_, of)| {
            let summary = group.summary(|run| is_timed(run).then(|| of(run)));
            summary.map_or("–".to_owned(), |s| format!("{:.2}", s.mean))
        });
        std::iter::once(group.name()).chain(cells).collect()
    });
    let table = Table {
        caption: "Seconds of a run, mean over seeds. The frozen pass is short where an earlier run had filled the cache".to_owned(),
        head: std::iter::once("method").chain(seconds.iter().map(|s| s.0)).map(str::to_owned).collect(),
        rows: rows.collect(),
    };
    let figures = figures.into_iter().flatten().collect();
    Section {
        id: "cost",
        title: "Cost and guarantees",
        blocks: vec![Block::Figures(figures), Block::Table(table)],
    }
}

/// Directions that subspaces have taken, over the sequence: a line for each course that occurs.
fn capacity(comparison: &Comparison) -> Option<Figure> {
    let mut courses: Vec<(Vec<usize>, usize, Vec<String>)> = Vec::new();
    for (number, group) in numbered(comparison) {
        let Some(run) = group.runs.iter().find(|run| !run.metrics.ranks.is_empty()) else { continue };
        match courses.iter_mut().find(|(ranks, ..)| *ranks == run.metrics.ranks) {
            Some((.., names)) => names.push(group.name()),
            None => courses.push((run.metrics.ranks.clone(), number, vec![group.name()])),
        }
    }
    let series: Vec<Series> = courses
        .into_iter()
        .map(|(ranks, number, names)| {
            let sums = ranks.iter().scan(0, |sum, rank| {
                *sum += rank;
                Some(*sum as f64)
            });
            let points = sums.enumerate().map(|(t, sum)| Point::single(t as f64, sum)).collect();
            Series { name: names.join(", "), number, points }
        })
        .collect();
    let title = "Directions that subspaces have taken";
    (!series.is_empty()).then(|| Figure {
        id: "capacity".to_owned(),
        title: title.to_owned(),
        text: "The pre-trained subspace at 0, then with each task's own. Groups with the same course share a line; where seeds differ it is \
               that of the first."
            .to_owned(),
        alt: format!("{title}, over the sequence; the numbers are in the table below."),
        numbers: over_table(title, "groups", &series),
        chart: Chart::Lines(Lines {
            x: Axis::new("tasks learnt", Scale::Whole),
            y: Axis::new("directions, sum", Scale::Linear),
            series,
        }),
    })
}

/// Tasks and runs.
pub(super) fn runs(comparison: &Comparison) -> Result<Section> {
    let first = comparison.first()?;
    let tasks = first.metrics.tasks.iter().enumerate().map(|(i, task)| {
        let metric = serde_json::to_value(task.metric)?;
        Ok(vec![
            format!("{} {}", i + 1, task.name),
            metric.as_str().unwrap_or_default().to_owned(),
            if task.synthetic { "synthetic" } else { "real" }.to_owned(),
            task.n_train.to_string(),
            task.n_scored.to_string(),
        ])
    });
    let tasks = Table {
        caption: "Tasks, in the order of the first group".to_owned(),
        head: ["task", "metric", "images", "training samples", "scored samples"].map(str::to_owned).to_vec(),
        rows: tasks.collect::<Result<_>>()?,
    };
    let runs = comparison.groups.iter().flat_map(|group| &group.runs).map(|run| {
        let manifest = &run.manifest;
        vec![
            run.dir.display().to_string(),
            run.metrics.method.to_string(),
            run.metrics.seed.to_string(),
            manifest.started.clone(),
            manifest.program.clone(),
            machine(&manifest.machine),
        ]
    });
    let runs = Table { caption: "Runs".to_owned(), head: run_head(), rows: runs.collect() };
    let identity = &first.manifest.run;
    let hashes = format!("Benchmark {}, model {}.", identity.data_hash, identity.backbone_hash);
    let colours = "Colours of lines and dots are those of Okabe and Ito (2008), of heat maps viridis: both can be told apart with any colour vision.";
    let files =
        "The program also writes each figure as SVG and PNG, into the folder `figures` beside the page.";
    let texts = [hashes, colours.to_owned(), files.to_owned()].map(Block::Text);
    let mut blocks: Vec<Block> = [Block::Table(tasks), Block::Table(runs)].into_iter().chain(texts).collect();
    blocks.extend(left_out(&first.manifest));
    Ok(Section { id: "runs", title: "Tasks and runs", blocks })
}

fn n_tasks(comparison: &Comparison) -> usize {
    comparison.orders.first().map_or(0, Vec::len)
}
