//! `compare`: finished runs as one table, a row for each method with mean and 95 % interval over its seeds.

use crate::args::{Common, CompareArgs, Format};
use crate::files::write_atomically;
use crate::interval::{CONFIDENCE, Summary};
use crate::method::Method;
use crate::runs::{Comparison, Group, Run};
use crate::{output, progress, table};
use anyhow::{Result, ensure};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::ExitCode;

/// A column.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measure {
    /// In CSV and JSON.
    pub(crate) key: &'static str,
    /// At the head of a table.
    pub(crate) head: &'static str,
    /// What it is, with its unit.
    pub(crate) what: &'static str,
    /// Of a run.
    pub(crate) of: fn(&Run) -> Option<f64>,
    /// How it is written.
    pub(crate) form: Form,
}

/// How a measure is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Points from 0 to 100.
    Points,
    /// A difference of points.
    Difference,
    /// A number of things.
    Count,
    /// Percent.
    Percent,
    /// A small share, of which the largest counts.
    Largest,
}

/// The columns, in order.
pub(crate) const MEASURES: [Measure; 10] = [
    Measure {
        key: "average",
        head: "A",
        what: "mean score over all tasks at the end, in points",
        of: |run| run.metrics.measures.average,
        form: Form::Points,
    },
    Measure {
        key: "forgetting",
        head: "F",
        what: "forgetting: best score of a task before the end less its score at the end, in points",
        of: |run| run.metrics.measures.forgetting,
        form: Form::Points,
    },
    Measure {
        key: "backward_transfer",
        head: "BWT",
        what: "backward transfer: score at the end less the score right after learning, in points",
        of: |run| run.metrics.measures.backward_transfer,
        form: Form::Difference,
    },
    Measure {
        key: "forward_transfer",
        head: "FWT",
        what: "forward transfer: what a task gained before it was learnt, in points",
        of: |run| run.metrics.measures.forward_transfer,
        form: Form::Difference,
    },
    Measure {
        key: "plasticity",
        head: "FWT*",
        what: "score right after learning less that of the task learnt alone, in points",
        of: |run| run.metrics.measures.plasticity,
        form: Form::Difference,
    },
    Measure {
        key: "retention",
        head: "pre-training",
        what: "change of the pre-training tasks' mean score, in points",
        of: |run| run.metrics.measures.retention,
        form: Form::Difference,
    },
    Measure {
        key: "trainable_parameters",
        head: "trained",
        what: "trained numbers",
        of: |run| Some(run.metrics.trainable_parameters as f64),
        form: Form::Count,
    },
    Measure {
        key: "stored_samples",
        head: "stored",
        what: "samples of older tasks that are kept",
        of: |run| Some(run.metrics.stored_samples as f64),
        form: Form::Count,
    },
    Measure {
        key: "leakage",
        head: "leakage",
        what: "largest share of a task's change in a subspace that the rule forbids, over tasks and seeds",
        of: |run| run.metrics.measures.leakage,
        form: Form::Largest,
    },
    Measure {
        key: "optimiser_percent",
        head: "optimiser %",
        what: "optimiser's step with its projection, in percent of the training time",
        of: Run::optimiser_percent,
        form: Form::Percent,
    },
];

impl Measure {
    /// As text; a dash where there is nothing.
    pub(crate) fn text(&self, summary: Option<Summary>) -> String {
        let Some(summary) = summary else { return "–".to_owned() };
        let number = |value: f64| match self.form {
            Form::Points => format!("{value:.1}"),
            Form::Difference => format!("{value:+.1}"),
            Form::Count => format!("{value:.0}"),
            Form::Percent => format!("{value:.2}"),
            Form::Largest => format!("{value:.0e}"),
        };
        match (self.form, summary.half_width) {
            (Form::Largest, _) => number(summary.max),
            // Seeds change nothing in these.
            (Form::Count, Some(0.0)) | (_, None) => number(summary.mean),
            (Form::Percent, Some(half)) => format!("{} ± {half:.2}", number(summary.mean)),
            (_, Some(half)) => format!("{} ± {half:.1}", number(summary.mean)),
        }
    }
}

/// What is told of each group: values, or differences to a method.
struct Table {
    comparison: Comparison,
    measures: Vec<Measure>,
    /// The method, and the values of its runs by seed and order.
    against: Option<(Method, ByPairing)>,
}

/// What two runs share whose difference is taken.
type Pairing = (u64, Vec<String>);

/// The measures of runs.
type ByPairing = BTreeMap<Pairing, Vec<Option<f64>>>;

impl Table {
    /// # Errors
    /// A method without runs, or with several of one seed and order.
    fn new(comparison: Comparison, against: Option<Method>) -> Result<Self> {
        let Some(method) = against else {
            return Ok(Self { comparison, measures: MEASURES.to_vec(), against: None });
        };
        let is_in_points = |m: &Measure| matches!(m.form, Form::Points | Form::Difference);
        let measures: Vec<Measure> = MEASURES.into_iter().filter(is_in_points).collect();
        let mut of_runs = ByPairing::new();
        for run in comparison.groups.iter().filter(|g| g.method == method).flat_map(|g| &g.runs) {
            let values = measures.iter().map(|m| (m.of)(run)).collect();
            ensure!(
                of_runs.insert(pairing(run), values).is_none(),
                "`{method}` has several runs of seed {} in one order, as {}; name those to compare with",
                run.metrics.seed,
                run.dir.display()
            );
        }
        ensure!(!of_runs.is_empty(), "none of the runs is of the method `{method}`");
        let measures = measures.into_iter().map(|m| Measure { form: Form::Difference, ..m }).collect();
        Ok(Self { comparison, measures, against: Some((method, of_runs)) })
    }

    /// The groups, but for that which others are compared with.
    fn groups(&self) -> impl Iterator<Item = &Group> {
        let against = self.against.as_ref().map(|(method, _)| *method);
        self.comparison.groups.iter().filter(move |group| against != Some(group.method))
    }

    /// A measure of each run of a group; none where the run, or its partner, has none.
    fn values(&self, group: &Group, measure: usize) -> Vec<Option<f64>> {
        let value = |run: &Run| {
            let value = (self.measures[measure].of)(run)?;
            let Some((_, of_runs)) = &self.against else { return Some(value) };
            Some(value - of_runs.get(&pairing(run))?[measure]?)
        };
        group.runs.iter().map(value).collect()
    }

    /// Mean and interval of a measure over the runs of a group.
    fn summary(&self, group: &Group, measure: usize) -> Option<Summary> {
        let values: Vec<f64> = self.values(group, measure).into_iter().flatten().collect();
        Summary::of(&values)
    }

    /// The measures that a group has.
    fn summaries(&self, group: &Group) -> Vec<(usize, Measure, Summary)> {
        let found = self.measures.iter().enumerate();
        found.filter_map(|(i, m)| Some((i, *m, self.summary(group, i)?))).collect()
    }
}

fn pairing(run: &Run) -> Pairing {
    (run.metrics.seed, run.order())
}

/// The command `compare`.
///
/// # Errors
/// Runs that cannot be compared (see [`Comparison::read`] and [`Table::new`]); a file that cannot be written.
pub(crate) fn command(args: &CompareArgs, common: &Common) -> Result<ExitCode> {
    let table = Table::new(Comparison::read(&args.runs, args.pool_orders)?, args.against)?;
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
        table.comparison.notes.iter().for_each(|note| progress::note(note));
    }
    Ok(ExitCode::SUCCESS)
}

fn header(table: &Table) -> Vec<String> {
    let head = match &table.against {
        Some((method, _)) => format!("less {method}"),
        None => "method".to_owned(),
    };
    let measures = table.measures.iter().map(|m| m.head.to_owned());
    [head, "runs".to_owned()].into_iter().chain(measures).collect()
}

/// A group's cells under [`header`].
fn cells(table: &Table, group: &Group) -> Vec<String> {
    let measures = table.measures.iter().enumerate().map(|(i, m)| m.text(table.summary(group, i)));
    [group.name(), group.runs.len().to_string()].into_iter().chain(measures).collect()
}

fn text_table(table: &Table) -> String {
    let rows = table.groups().map(|group| cells(table, group));
    table::render(&std::iter::once(header(table)).chain(rows).collect::<Vec<_>>())
}

/// `method,variant,seeds,measure,n,mean,low,high,max`: a line for each group and measure that it has.
fn csv(table: &Table) -> String {
    let mut out = String::from("method,variant,seeds,measure,n,mean,low,high,max\n");
    for group in table.groups() {
        let seeds: Vec<String> = group.seeds().iter().map(u64::to_string).collect();
        for (_, measure, found) in table.summaries(group) {
            let ends = found.half_width.map(|_| (found.low(), found.high()));
            let (low, high) = ends.map_or_else(Default::default, |(l, h)| (l.to_string(), h.to_string()));
            let _ = writeln!(
                out,
                "{},{},{},{},{},{},{low},{high},{}",
                group.method,
                csv_field(&group.variant),
                seeds.join(" "),
                measure.key,
                found.n,
                found.mean,
                found.max
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
fn latex(table: &Table) -> String {
    let mut out = String::from("% \\usepackage{booktabs}\n");
    for note in &table.comparison.notes {
        let _ = writeln!(out, "% {}", note.replace(['\n', '\r'], " "));
    }
    let columns = "r".repeat(table.measures.len() + 1);
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
fn as_json(table: &Table) -> Result<Value> {
    let groups = table.groups().map(|group| {
        let measures: Map<String, Value> = table
            .summaries(group)
            .into_iter()
            .map(|(i, measure, found)| {
                let ends = found.half_width.map(|_| [found.low(), found.high()]);
                let (mean, max) = (found.mean, found.max);
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
            "orders": group.runs.iter().map(Run::order).collect::<Vec<_>>(),
            "seeds": group.seeds(),
            "runs": group.runs.iter().map(|run| run.dir.display().to_string()).collect::<Vec<_>>(),
            "measures": measures,
        })
    });
    let first = table.comparison.first()?;
    Ok(json!({
        "less": table.against.as_ref().map(|(method, _)| method),
        "confidence": CONFIDENCE,
        "split": first.metrics.split,
        "data_hash": first.manifest.run.data_hash,
        "backbone_hash": first.manifest.run.backbone_hash,
        "backbone_parameters": first.metrics.backbone_parameters,
        "groups": groups.collect::<Vec<_>>(),
        "notes": table.comparison.notes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measure(key: &str) -> Measure {
        MEASURES.into_iter().find(|m| m.key == key).unwrap()
    }

    #[test]
    fn each_form_has_its_digits() {
        let three = Summary::of(&[38.0, 40.0, 42.0]);
        assert_eq!(measure("average").text(three), "40.0 ± 5.0");
        assert_eq!(measure("retention").text(Summary::of(&[-8.25])), "-8.2");
        assert_eq!(measure("forward_transfer").text(Summary::of(&[0.3])), "+0.3");
        assert_eq!(measure("trainable_parameters").text(Summary::of(&[448.0, 448.0])), "448");
        assert_eq!(measure("leakage").text(Summary::of(&[1e-7, 3e-7])), "3e-7");
        assert_eq!(measure("plasticity").text(None), "–");
    }

    #[test]
    fn text_of_other_people_is_escaped() {
        assert_eq!(latex_text(r"a_b & 50% \x"), r"a\_b \& 50\% \textbackslash{}x");
        assert_eq!(latex_number("-8.2 ± 1.0"), r"$-8.2 \pm 1.0$");
        assert_eq!(latex_number("3e-7"), r"$3 \cdot 10^{-7}$");
        assert_eq!(latex_number("–"), "--");
        assert_eq!(csv_field("order 1, x \"y\""), "\"order 1, x \"\"y\"\"\"");
    }
}
