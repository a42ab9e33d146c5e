//! The section of loss curves: what the training steps of each task logged.

use super::chart::{Axis, Chart, Lines, Point, Scale, Series};
use super::html::{Block, Figure, Section, Table};
use super::shared::{numbered, slug, spread};
use anyhow::Result;
use fwd_run::comparison::Comparison;
use fwd_run::run::{LossPoint, read_losses};
use std::path::Path;

/// Curves of a figure.
const CURVES: usize = 12;
/// Points of a curve: each is the mean over as many steps as it takes.
const POINTS: usize = 60;

/// The curves of the first run of each group.
///
/// # Errors
/// A damaged file of losses.
pub(super) fn of_groups(comparison: &Comparison) -> Result<Section> {
    let mut figures = Vec::new();
    for (number, group) in numbered(comparison) {
        let Some(run) = group.runs.first() else { continue };
        let name = format!("{}, seed {}", group.name(), run.metrics.seed);
        figures.extend(figure(&run.dir, &name, &format!("{}-{}", number + 1, slug(&group.name())))?);
    }
    Ok(section(figures))
}

/// The section of some figures; without blocks if there is none.
pub(super) fn section(figures: Vec<Figure>) -> Section {
    let blocks = if figures.is_empty() { Vec::new() } else { vec![Block::Figures(figures)] };
    Section { id: "losses", title: "Loss", blocks }
}

/// The curves of a run, one for each task; none if it has logged none.
///
/// # Errors
/// A damaged file of losses.
pub(super) fn figure(dir: &Path, name: &str, id: &str) -> Result<Option<Figure>> {
    let tasks = read_losses(dir)?;
    let Some(longest) = tasks.iter().map(Vec::len).max() else { return Ok(None) };
    let width = longest.div_ceil(POINTS).max(1);
    let shown = spread(tasks.len(), CURVES);
    let cut = match tasks.len() - shown.len() {
        0 => String::new(),
        _ => format!(" {} of the {} tasks are drawn, spread over the sequence.", shown.len(), tasks.len()),
    };
    let series = shown.into_iter().map(|place| (place, &tasks[place])).map(|(number, points)| Series {
        name: points.first().map(|point| point.task.clone()).unwrap_or_default(),
        number,
        points: points.chunks(width).filter_map(middle).collect(),
    });
    let each = if width == 1 {
        "Every point is a step".to_owned()
    } else {
        format!("Every point is the mean of {width} steps")
    };
    Ok(Some(Figure {
        id: format!("loss-{id}"),
        title: format!("Loss: {name}"),
        text: format!(
            "A line for each task, over the task's own training steps. {each}; the loss is the mean cross entropy over the labels of a \
             step's samples, before the step.{cut}"
        ),
        alt: format!(
            "Loss of {name}: a line for each of {} tasks; the numbers are in the table below.",
            tasks.len().min(CURVES)
        ),
        numbers: numbers(&tasks, name),
        chart: Chart::Lines(Lines {
            x: Axis::new("training step of the task", Scale::Linear),
            y: Axis::new("loss, nats a token", Scale::Linear),
            series: series.collect(),
        }),
    }))
}

/// Some steps as one point.
fn middle(points: &[LossPoint]) -> Option<Point> {
    let (first, last) = (points.first()?, points.last()?);
    let place = (first.step + last.step) as f64 / 2.0;
    Some(Point::single(place, mean(points)))
}

fn mean(points: &[LossPoint]) -> f64 {
    points.iter().map(|point| point.loss).sum::<f64>() / points.len().max(1) as f64
}

fn numbers(tasks: &[Vec<LossPoint>], name: &str) -> Table {
    let row = |points: &Vec<LossPoint>| {
        let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
        let tenth = points.len().div_ceil(10);
        let lowest = points.iter().map(|point| point.loss).fold(f64::INFINITY, f64::min);
        vec![
            first.task.clone(),
            format!("{} of {}", last.step, last.of),
            format!("{:.3}", mean(&points[..tenth])),
            format!("{:.3}", mean(&points[points.len() - tenth..])),
            format!("{lowest:.3}"),
        ]
    };
    Table {
        caption: format!("Loss of {name}"),
        head: ["task", "steps", "mean of the first tenth", "mean of the last tenth", "lowest"]
            .map(str::to_owned)
            .to_vec(),
        rows: tasks.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_curve_has_points_that_are_means() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(figure(dir.path(), "x", "x").unwrap(), None);
        let line = |step: usize| {
            let point = LossPoint {
                task: "a".to_owned(),
                step,
                of: 130,
                loss: if step.is_multiple_of(2) { 1.0 } else { 3.0 },
                grad_norm: 1.0,
            };
            format!("{}\n", serde_json::to_string(&point).unwrap())
        };
        let text: String = (1..=120).map(line).collect();
        std::fs::write(dir.path().join("losses.jsonl"), text).unwrap();
        let figure = figure(dir.path(), "x", "x").unwrap().unwrap();
        let Chart::Lines(chart) = figure.chart else { panic!("no lines") };
        let points = &chart.series[0].points;
        assert_eq!((points.len(), points[0]), (60, Point::single(1.5, 2.0)));
        assert_eq!(figure.numbers.rows, [["a", "120 of 130", "2.000", "2.000", "1.000"]]);
    }
}
