//! `inspect`: what the prompts or the adapters of a run have learnt, as tables and sentences.

use super::session;
use crate::args::{Common, InspectArgs};
use crate::output;
use crate::table::{self, cells, percent};
use crate::terminal::Terminal;
use anyhow::Result;
use fwd_run::DeviceKind;
use fwd_run::config::parse_split;
use fwd_run::files::write_json;
use fwd_run::inspection::{
    AdapterInspection, INSPECTION, Inspection, InspectionOptions, PromptFindings, TaskSelection,
    TokenFindings, inspect, inspect_adapters, refuse_without_findings,
};
use fwd_run::run::SavedRun;
use fwd_run::samples::PRETRAINING;
use serde::Serialize;
use std::fmt::Write;
use std::process::ExitCode;

/// The command `inspect`.
///
/// # Errors
/// A directory that is no run or has neither prompts nor adapters, another model or benchmark than the run's, a folder that cannot be written.
pub(super) fn command(args: &InspectArgs, common: &Common) -> Result<ExitCode> {
    let run = SavedRun::read(&args.run)?;
    refuse_without_findings(&run)?;
    let split = args.split.as_deref().map_or(Ok(run.manifest().run.config.split), parse_split)?;
    let session = session::of_run(&run, &args.places, DeviceKind::Cpu)?;
    if run.manifest().run.config.method.has_adapters() {
        let inspection = inspect_adapters(&run, &session)?;
        return show(&inspection, render_adapters, args, common);
    }
    let prompts = run.prompts(&*session.backbone.model, args.task.as_deref())?;
    let store = session.features(run.paths().cache(args.places.cache.as_deref()), &Terminal);
    let options = InspectionOptions { split, n_nearest: args.nearest };
    let inspection = inspect(&run, &prompts, &session, &store, &options)?;
    show(&inspection, render, args, common)
}

/// Writes and prints what was found.
fn show<T: Serialize>(
    found: &T,
    render: impl Fn(&T) -> String,
    args: &InspectArgs,
    common: &Common,
) -> Result<ExitCode> {
    if let Some(out) = &args.out {
        write_json(&out.join(INSPECTION), found)?;
    }
    if common.json {
        output::print_json(found)?
    } else {
        output::print(&render(found))?
    }
    Ok(ExitCode::SUCCESS)
}

fn render_adapters(inspection: &AdapterInspection) -> String {
    let AdapterInspection { run, method, seed, adapters, layers } = inspection;
    let mut changes = vec![cells(["layer", "maps"])];
    changes[0].extend(adapters.iter().cloned());
    for layer in layers {
        let mut row = vec![layer.layer.clone(), layer.n_maps.to_string()];
        row.extend(layer.change.iter().map(|share| format!("{:.2}", 100.0 * share)));
        changes.push(row);
    }
    let mut out = format!(
        "{run}: {method}, seed {seed}. How far each task's adapter moves the weights of a layer, ‖s·B·A‖ in percent of ‖W‖:\n\n{}",
        table::render(&changes)
    );
    if adapters.len() > 1 {
        let mut shared = vec![cells(["layer"])];
        shared[0].extend(adapters[1..].iter().cloned());
        shared[0].push("by chance".to_owned());
        for layer in layers {
            let mut row = vec![layer.layer.clone()];
            let most = |older: &Vec<f64>| percent(older.iter().copied().fold(0.0, f64::max));
            row.extend(layer.shared_inputs[1..].iter().map(most));
            row.push(percent(layer.by_chance));
            shared.push(row);
        }
        let _ = write!(
            out,
            "\nHow much of its input an adapter reads that an older one reads too: the mean squared cosine between the row spaces of both A, \
             with the older one that it shares most with.\n\n{}",
            table::render(&shared)
        );
    }
    out
}

/// Prompts that are named of each task.
const N_NAMED: usize = 4;

fn render(inspection: &Inspection) -> String {
    let mut out = format!(
        "{}: {}, seed {}. {} prompts of {} tokens; each sample has the best {} in front.\n\n",
        inspection.run,
        inspection.method,
        inspection.seed,
        inspection.prompts.len(),
        inspection.prompt_len,
        inspection.top_k.min(inspection.prompts.len())
    );
    let _ = writeln!(
        out,
        "What samples select (split {}): mean cosines of both keys of the best prompt, the image's part in the choice, and how often \
         one key alone would choose the same.\n\n{}",
        inspection.split,
        selection(inspection)
    );
    if let Some(text) = confusion(inspection) {
        let _ = writeln!(out, "{text}");
    }
    let _ = writeln!(out, "{}", capacity(inspection));
    if let Some(text) = starts(inspection) {
        let _ = writeln!(out, "{text}");
    }
    let _ = writeln!(out, "{}", prompts(inspection));
    out.push_str(&in_words(inspection));
    out
}

fn selection(inspection: &Inspection) -> String {
    let mut header = cells(["task", "samples", "take none"]);
    if !inspection.is_shared {
        header.extend(cells(["own first", "own of all"]));
    }
    header.extend(cells([
        "image key",
        "text key",
        "image's part",
        "image alone",
        "text alone",
        "most selected",
    ]));
    let mut rows = vec![header];
    for (i, row) in inspection.selection.iter().enumerate() {
        let mut line = vec![row.task.clone(), row.n_samples.to_string(), row.rejected.to_string()];
        if !inspection.is_shared {
            let own = own_shares(inspection, i);
            line.extend(own.map(|share| share.map_or("–".to_owned(), percent)));
        }
        let keys = &row.keys;
        line.extend([format!("{:+.2}", keys.image), format!("{:+.2}", keys.text)]);
        line.push(keys.image_share.map_or("–".to_owned(), percent));
        line.extend([percent(keys.image_alone), percent(keys.text_alone), most_selected(row)]);
        rows.push(line);
    }
    table::render(&rows)
}

/// The share of a task's samples whose best prompt is its own, and of its own prompts among all that it selects.
fn own_shares(inspection: &Inspection, row: usize) -> [Option<f64>; 2] {
    let Some(confusion) = &inspection.confusion else { return [None, None] };
    let Some(column) = confusion.columns.iter().position(|name| *name == inspection.selection[row].task)
    else {
        return [None, None];
    };
    [&confusion.best[row], &confusion.selected[row]].map(|counts| {
        let all: usize = counts.iter().sum();
        (all > 0).then(|| counts[column] as f64 / all as f64)
    })
}

fn most_selected(row: &TaskSelection) -> String {
    let mut order: Vec<usize> = (0..row.selected.len()).filter(|&j| row.selected[j] > 0).collect();
    order.sort_by_key(|&j| std::cmp::Reverse(row.selected[j]));
    let share =
        |&j: &usize| format!("{j}: {}", percent(row.selected[j] as f64 / row.n_samples.max(1) as f64));
    order.iter().take(N_NAMED).map(share).collect::<Vec<_>>().join(", ")
}

fn confusion(inspection: &Inspection) -> Option<String> {
    let confusion = inspection.confusion.as_ref()?;
    let mut rows = vec![vec!["samples of".to_owned()]];
    rows[0].extend(confusion.columns.iter().cloned());
    for (name, counts) in confusion.rows.iter().zip(&confusion.best) {
        rows.push(std::iter::once(name.clone()).chain(counts.iter().map(usize::to_string)).collect());
    }
    Some(format!(
        "Samples by the task whose prompt they like best, whether they take it or none.\n\n{}",
        table::render(&rows)
    ))
}

fn capacity(inspection: &Inspection) -> String {
    let mut rows =
        vec![cells(["subspace", "of", "directions", "embeddings", "held by older ones", "with these"])];
    for (i, space) in inspection.capacity.subspaces.iter().enumerate() {
        rows.push(vec![
            format!("V_{i}"),
            space.task.clone(),
            space.rank.to_string(),
            space.n_rows.to_string(),
            percent(space.captured_before),
            percent(space.captured),
        ]);
    }
    format!(
        "Directions of the embedding space that belong to tasks, and the share of each task's energy that they hold.\n\n{}",
        table::render(&rows)
    )
}

/// What the prompts of each task began with; none if no library was looked at.
fn starts(inspection: &Inspection) -> Option<String> {
    let first = inspection.starts.first()?;
    let mut header = cells(["task", "began with"]);
    header.extend(first.scores.iter().map(|(task, _)| task.clone()));
    let mut rows = vec![header];
    for start in &inspection.starts {
        let mut row =
            vec![start.task.clone(), start.from.clone().unwrap_or_else(|| "normal numbers".to_owned())];
        row.extend(start.scores.iter().map(|(_, score)| format!("{score:.3}")));
        rows.push(row);
    }
    Some(format!(
        "What each task's prompts began with, and how each block of the library suited its samples (`pool.start`: loss, or how near the \
         keys are).\n\n{}",
        table::render(&rows)
    ))
}

fn prompts(inspection: &Inspection) -> String {
    let spaces = &inspection.capacity.subspaces;
    let mut header = cells(["prompt", "of", "moved"]);
    header.extend((0..spaces.len()).map(|i| format!("V_{i}")));
    header.extend(cells(["none", "nearest word of each token, cosine"]));
    let mut random = cells(["random", "", ""]);
    let dim = inspection.capacity.dim.max(1) as f64;
    random.extend(spaces.iter().map(|space| percent(space.rank as f64 / dim)));
    random.extend([percent(inspection.capacity.left as f64 / dim), String::new()]);
    let mut rows = vec![header, random];
    for prompt in &inspection.prompts {
        let mut row = vec![prompt.index.to_string(), prompt.task.clone(), percent(relative(prompt))];
        row.extend(prompt.inside.iter().map(|&share| percent(share)));
        row.extend([percent(prompt.outside), words(prompt)]);
        rows.push(row);
    }
    format!(
        "How far training moved each prompt, in percent of its first length; which share of the squared displacement lies in the subspaces of \
         pre-training (V_0) and tasks; and the words nearest to where it stands.\n\n{}",
        table::render(&rows)
    )
}

/// `‖P_after − P_before‖ / ‖P_before‖`.
fn relative(prompt: &PromptFindings) -> f64 {
    if prompt.initial_norm > 0.0 { prompt.moved / prompt.initial_norm } else { 0.0 }
}

fn words(prompt: &PromptFindings) -> String {
    let word = |token: &TokenFindings| {
        token.nearest.first().map(|near| format!("{} {:.2}", near.token, near.cosine))
    };
    prompt.tokens.iter().filter_map(word).collect::<Vec<_>>().join("  ")
}

fn in_words(inspection: &Inspection) -> String {
    let mut out = String::new();
    let tasks = || inspection.selection.iter().enumerate().filter(|(_, row)| row.task != PRETRAINING);
    if let Some(confusion) = &inspection.confusion {
        let own: Vec<(usize, f64)> =
            tasks().filter_map(|(i, _)| Some((i, own_shares(inspection, i)[0]?))).collect();
        if let Some(&(least, share)) = own.iter().min_by(|a, b| a.1.total_cmp(&b.1)) {
            let mean = mean(own.iter().map(|(_, share)| *share));
            let _ = write!(
                out,
                "{} of a task's samples put one of its own prompts first in the mean",
                percent(mean)
            );
            let name = &confusion.rows[least];
            let others =
                confusion.columns.iter().zip(&confusion.best[least]).filter(|(task, _)| *task != name);
            let other = others.max_by_key(|(_, count)| **count);
            let _ = match other.filter(|(_, count)| **count > 0) {
                Some((task, _)) => writeln!(
                    out,
                    "; least often those of {name} ({}), which take prompts of {task} instead.",
                    percent(share)
                ),
                None => writeln!(out, "."),
            };
        }
        let pretraining = confusion.rows.iter().position(|name| name == PRETRAINING);
        if let Some(row) = pretraining
            && let Some((task, count)) =
                confusion.columns.iter().zip(&confusion.best[row]).max_by_key(|(_, count)| **count)
        {
            let TaskSelection { n_samples, rejected, .. } = inspection.selection[row];
            let share = |count: usize| percent(count as f64 / n_samples.max(1) as f64);
            let _ = writeln!(
                out,
                "{} of the samples of pre-training take prompts; what lies nearest is most often one of {task} ({}).",
                share(n_samples - rejected),
                share(*count)
            );
        }
    }
    let shares: Vec<f64> = tasks().filter_map(|(_, row)| row.keys.image_share).collect();
    if !shares.is_empty() {
        let image = mean(shares.iter().copied());
        let (key, part) = if image > 0.5 { ("image", image) } else { ("text", 1.0 - image) };
        let alone = |of: fn(&TaskSelection) -> f64| percent(mean(tasks().map(|(_, row)| of(row))));
        let _ = writeln!(
            out,
            "The {key} key decides more: {} of the margin is its. The image key alone would choose the same for {} of the samples, \
             the text key alone for {}.",
            percent(part),
            alone(|row| row.keys.image_alone),
            alone(|row| row.keys.text_alone)
        );
    }
    let capacity = &inspection.capacity;
    let base = capacity.subspaces.first().map_or(0, |space| space.rank);
    let _ = writeln!(
        out,
        "{} of {} directions are taken, {base} by pre-training and {} by tasks; {} are left.",
        capacity.used,
        capacity.dim,
        capacity.used - base,
        capacity.left
    );
    let moved: Vec<&PromptFindings> = inspection.prompts.iter().filter(|p| p.moved > 0.0).collect();
    if moved.is_empty() {
        out.push_str("No prompt has moved.\n");
    } else {
        let of = |share: &dyn Fn(&PromptFindings) -> f64| mean(moved.iter().map(|p| share(p)));
        let first = of(&|p| p.inside.first().copied().unwrap_or_default());
        let tasks = of(&|p| p.inside.iter().skip(1).sum());
        let dim = capacity.dim.max(1) as f64;
        let _ = writeln!(
            out,
            "Prompts moved by {} of their first length in the mean: {} of the squared displacement inside what was pre-trained (at random: \
             {}), {} inside the subspaces of tasks ({}), {} in none ({}).",
            percent(of(&relative)),
            percent(first),
            percent(base as f64 / dim),
            percent(tasks),
            percent((capacity.used - base) as f64 / dim),
            percent(of(&|p| p.outside)),
            percent(capacity.left as f64 / dim)
        );
    }
    let tokens = || inspection.prompts.iter().flat_map(|prompt| &prompt.tokens);
    if tokens().any(|token| !token.nearest.is_empty()) {
        let _ = writeln!(
            out,
            "The word nearest to a prompt token has a cosine of {:.2} in the mean; it was {:.2} before training, by chance.",
            mean(tokens().filter_map(|token| Some(token.nearest.first()?.cosine))),
            mean(tokens().map(|token| token.initial_cosine))
        );
    }
    out
}

/// 0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    table::mean(values).unwrap_or_default()
}
