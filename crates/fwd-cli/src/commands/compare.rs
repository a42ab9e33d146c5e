//! `compare`: finished runs as one table, a row for each method with mean and 95 % interval over its seeds.

use crate::args::{Common, CompareArgs, Format};
use crate::{output, progress, table};
use anyhow::Result;
use fwd_run::comparison::{CONFIDENCE, Comparison, ComparisonTable, FinishedRun, Group};
use fwd_run::files::write_atomically;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::process::ExitCode;

/// The command `compare`.
///
/// # Errors
/// Runs that cannot be compared (see [`Comparison::read`] and [`ComparisonTable::new`]); a file that cannot be written.
pub(super) fn command(args: &CompareArgs, common: &Common) -> Result<ExitCode> {
    let table = ComparisonTable::new(Comparison::read(&args.runs, args.pool_orders)?, args.against.clone())?;
    let format = if common.json { Format::Json } else { args.format };
    let text = match format {
        Format::Table => text_table(&table),
        Format::Csv => csv(&table),
        Format::Latex => latex(&table),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&as_json(&table)?)?),
    };
    match &args.out {
        Some(path) => write_atomically(path, text.as_bytes())?,
        None => output::print(&text)?,
    }
    if format != Format::Json {
        table.comparison().notes.iter().for_each(|note| progress::note(note));
    }
    Ok(ExitCode::SUCCESS)
}

fn header(table: &ComparisonTable) -> Vec<String> {
    let head = match table.against() {
        Some(against) => format!("less {against}"),
        None => "method".to_owned(),
    };
    let measures = table.measures().iter().map(|m| m.head.to_owned());
    [head, "runs".to_owned()].into_iter().chain(measures).collect()
}

/// A group's cells under [`header`].
fn cells(table: &ComparisonTable, group: &Group) -> Vec<String> {
    let measures =
        table.measures().iter().enumerate().map(|(i, m)| table::measure(m, table.summary(group, i)));
    [group.name(), group.runs.len().to_string()].into_iter().chain(measures).collect()
}

fn text_table(table: &ComparisonTable) -> String {
    let rows = table.groups().map(|group| cells(table, group));
    table::render(&std::iter::once(header(table)).chain(rows).collect::<Vec<_>>())
}

/// `method,variant,seeds,measure,n,mean,low,high,max`: a line for each group and measure that it has.
fn csv(table: &ComparisonTable) -> String {
    let mut out = String::from("method,variant,seeds,measure,n,mean,low,high,max\n");
    for group in table.groups() {
        let seeds: Vec<String> = group.seeds().iter().map(u64::to_string).collect();
        for (_, measure, summary) in table.summaries(group) {
            let ends = measure.interval(&summary);
            let (low, high) = ends.map_or_else(Default::default, |(l, h)| (l.to_string(), h.to_string()));
            let _ = writeln!(
                out,
                "{},{},{},{},{},{},{low},{high},{}",
                group.method,
                csv_field(&group.variant),
                seeds.join(" "),
                measure.key,
                summary.n,
                summary.mean,
                summary.max
            );
        }
    }
    out
}

/// A field of CSV, quoted where it must be (RFC 4180).
fn csv_field(text: &str) -> String {
    let is_plain = !text.contains([',', '"', '\n', '\r']);
    if is_plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

/// A `tabular` with the rules of booktabs.
fn latex(table: &ComparisonTable) -> String {
    let mut out = String::from("% \\usepackage{booktabs}\n");
    for note in &table.comparison().notes {
        let _ = writeln!(out, "% {}", note.replace(['\n', '\r'], " "));
    }
    let columns = "r".repeat(table.measures().len() + 1);
    let line = |cells: Vec<String>| format!("{} \\\\\n", cells.join(" & "));
    let _ = writeln!(out, "\\begin{{tabular}}{{l{columns}}}\n\\toprule");
    out += &line(header(table).iter().map(|head| latex_text(head)).collect());
    out += "\\midrule\n";
    for group in table.groups() {
        let cells = cells(table, group).into_iter().enumerate();
        out += &line(
            cells.map(|(i, cell)| if i == 0 { latex_text(&cell) } else { latex_number(&cell) }).collect(),
        );
    }
    out += "\\bottomrule\n\\end{tabular}\n";
    out
}

/// A text with LaTeX's own characters escaped.
fn latex_text(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => out.extend(['\\', c]),
            '\\' => out.push_str("\\textbackslash{}"),
            '~' => out.push_str("\\textasciitilde{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '→' => out.push_str("$\\to$"),
            c => out.push(c),
        }
    }
    out
}

/// A number in mathematical mode, so that its sign is a minus.
fn latex_number(cell: &str) -> String {
    match cell.split_once('e') {
        _ if cell == "–" => "--".to_owned(),
        Some((mantissa, exponent)) => format!("${mantissa} \\cdot 10^{{{exponent}}}$"),
        None => format!("${}$", cell.replace('±', "\\pm")),
    }
}

/// Everything, for machines.
fn as_json(table: &ComparisonTable) -> Result<Value> {
    let groups = table.groups().map(|group| {
        let measures: Map<String, Value> = table
            .summaries(group)
            .into_iter()
            .map(|(i, measure, summary)| {
                let ends = measure.interval(&summary);
                let (mean, max) = (summary.mean, summary.max);
                let values = table.values(group, i);
                (
                    measure.key.to_owned(),
                    json!({ "mean": mean, "interval": ends, "max": max, "values": values }),
                )
            })
            .collect();
        json!({
            "method": group.method,
            "variant": group.variant,
            "orders": group.runs.iter().map(FinishedRun::order).collect::<Vec<_>>(),
            "seeds": group.seeds(),
            "runs": group.runs.iter().map(|run| run.dir.display().to_string()).collect::<Vec<_>>(),
            "measures": measures,
        })
    });
    let first = table.comparison().first()?;
    Ok(json!({
        "less": table.against().map(ToString::to_string),
        "confidence": CONFIDENCE,
        "split": first.metrics.split,
        "data_hash": first.manifest.run.data_hash,
        "backbone_hash": first.manifest.run.backbone_hash,
        "backbone_parameters": first.metrics.backbone_parameters,
        "groups": groups.collect::<Vec<_>>(),
        "notes": table.comparison().notes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_other_people_is_escaped() {
        assert_eq!(latex_text(r"a_b & 50% \x"), r"a\_b \& 50\% \textbackslash{}x");
        assert_eq!(latex_number("-8.2 ± 1.0"), r"$-8.2 \pm 1.0$");
        assert_eq!(latex_number("3e-7"), r"$3 \cdot 10^{-7}$");
        assert_eq!(latex_number("–"), "--");
        assert_eq!(csv_field("order 1, x \"y\""), "\"order 1, x \"\"y\"\"\"");
    }
}
