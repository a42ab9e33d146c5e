//! A comparison as a table of numbers: the measures of each group, as values or as differences to a method or to a setting.

use super::finished_run::FinishedRun;
use super::grouping::{Comparison, Group};
use super::measures::{Form, MEASURES, Measure};
use super::summary::Summary;
use crate::choice::Choice;
use crate::method::Method;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// What the runs of a comparison are less.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Against {
    /// The runs of a method; the partner of a run has its seed and order of the tasks.
    Method(Method),
    /// The runs that have this value under this key of the configuration; the partner of a run differs from it in nothing else. Under the
    /// key `method` that is a run of the method with the same settings.
    Setting {
        /// The dotted key, as `pool.prompt_len`.
        key: String,
        /// The value as `compare` prints it.
        value: String,
    },
}

/// The key that stands for the method itself.
const METHOD: &str = "method";

impl FromStr for Against {
    type Err = anyhow::Error;

    /// `fwd`, `compute=f32`, or `method=fwd`.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            Some((key, value)) => Ok(Self::Setting { key: key.trim().into(), value: value.trim().into() }),
            None => {
                let names: Vec<&str> = Method::all().into_iter().map(|(_, name, _)| name).collect();
                let method = Method::named(text).with_context(|| {
                    format!(
                        "`{text}` is no method ({}) and no KEY=VALUE of the configuration",
                        names.join(", ")
                    )
                })?;
                Ok(Self::Method(method))
            }
        }
    }
}

impl fmt::Display for Against {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Method(method) => method.fmt(f),
            Self::Setting { key, value } => write!(f, "{key} {value}"),
        }
    }
}

impl Against {
    /// What it is, in a sentence.
    fn named(&self) -> String {
        match self {
            Self::Method(method) => format!("the method `{method}`"),
            Self::Setting { key, value } => format!("the setting `{key}={value}`"),
        }
    }

    /// Whether the others are compared with this group.
    fn is_base(&self, group: &Group) -> Result<bool> {
        match self {
            Self::Method(method) => Ok(group.method == *method),
            Self::Setting { key, value } if key == METHOD => Ok(group.method.name() == value),
            Self::Setting { key, value } => {
                let first = group.runs.first().context("a group without runs")?;
                Ok(first.settings()?.get(key) == Some(value))
            }
        }
    }

    /// What a run and its partner share.
    fn pairing(&self, run: &FinishedRun) -> Result<Pairing> {
        let (seed, order) = (run.metrics.seed, run.order());
        match self {
            Self::Method(_) => Ok((seed, order, None)),
            Self::Setting { key, .. } => {
                let mut settings = run.settings()?;
                let below = format!("{key}.");
                settings.retain(|name, _| name != key && !name.starts_with(&below));
                let method = if key == METHOD { String::new() } else { run.metrics.method.to_string() };
                Ok((seed, order, Some((method, settings))))
            }
        }
    }
}

/// The measures of the groups of a comparison.
#[derive(Debug)]
pub struct ComparisonTable {
    comparison: Comparison,
    measures: Vec<Measure>,
    against: Option<Base>,
}

/// What the runs of a table are less.
#[derive(Debug)]
struct Base {
    against: Against,
    of_runs: ByPairing,
    /// The groups, by their place in the comparison, that others are compared with.
    groups: Vec<usize>,
}

/// Seed, order of the tasks and, where a setting is compared, the method with all other settings.
type Pairing = (u64, Vec<String>, Option<(String, BTreeMap<String, String>)>);

/// The measures of runs, in the order of columns.
type ByPairing = BTreeMap<Pairing, Vec<Option<f64>>>;

impl ComparisonTable {
    /// Values, or differences to the runs of a method or of a setting; those in points or nats only.
    ///
    /// # Errors
    /// A method or setting without runs, or with several for one partner.
    pub fn new(comparison: Comparison, against: Option<Against>) -> Result<Self> {
        let Some(against) = against else {
            return Ok(Self { comparison, measures: MEASURES.to_vec(), against: None });
        };
        let is_compared =
            |m: &Measure| matches!(m.form, Form::Score | Form::Points | Form::Difference | Form::Nats);
        let measures: Vec<Measure> = MEASURES.into_iter().filter(is_compared).collect();
        let (mut of_runs, mut groups) = (ByPairing::new(), Vec::new());
        for (place, group) in comparison.groups.iter().enumerate() {
            if !against.is_base(group)? {
                continue;
            }
            groups.push(place);
            for run in &group.runs {
                let values = measures.iter().map(|m| (m.of)(run)).collect();
                ensure!(
                    of_runs.insert(against.pairing(run)?, values).is_none(),
                    "{} has several runs of seed {} in one order, as {}; name those to compare with",
                    against.named(),
                    run.metrics.seed,
                    run.dir.display()
                );
            }
        }
        ensure!(!of_runs.is_empty(), "none of the runs is of {}", against.named());
        let mut lonely = None;
        for run in comparison
            .groups
            .iter()
            .enumerate()
            .filter(|(i, _)| !groups.contains(i))
            .flat_map(|(_, g)| &g.runs)
        {
            if of_runs.contains_key(&against.pairing(run)?) {
                lonely = None;
                break;
            }
            lonely = lonely.or(Some(run));
        }
        if let Some(run) = lonely {
            bail!(
                "no run of {} is like {} in everything else (seed, order of the tasks, other settings)",
                against.named(),
                run.dir.display()
            );
        }
        let signed = |form| if form == Form::Nats { form } else { Form::Difference };
        let measures = measures.into_iter().map(|m| Measure { form: signed(m.form), ..m }).collect();
        Ok(Self { comparison, measures, against: Some(Base { against, of_runs, groups }) })
    }

    /// The groups, and what a reader must know of them.
    pub fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// The measures that the table shows, one a column.
    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// To what differences are taken; none for values.
    pub fn against(&self) -> Option<&Against> {
        self.against.as_ref().map(|base| &base.against)
    }

    /// The groups, but for those which others are compared with.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        let is_base = |place: &usize| self.against.as_ref().is_some_and(|base| base.groups.contains(place));
        let groups = self.comparison.groups.iter().enumerate();
        groups.filter(move |(place, _)| !is_base(place)).map(|(_, group)| group)
    }

    /// A measure of each run of a group; none where the run, or its partner, has none.
    pub fn values(&self, group: &Group, measure: usize) -> Vec<Option<f64>> {
        let value = |run: &FinishedRun| {
            let value = (self.measures[measure].of)(run)?;
            let Some(base) = &self.against else { return Some(value) };
            Some(value - base.of_runs.get(&base.against.pairing(run).ok()?)?[measure]?)
        };
        group.runs.iter().map(value).collect()
    }

    /// Mean and interval of a measure over the runs of a group.
    pub fn summary(&self, group: &Group, measure: usize) -> Option<Summary> {
        let values: Vec<f64> = self.values(group, measure).into_iter().flatten().collect();
        Summary::of(&values)
    }

    /// The measures that a group has, with their columns.
    pub fn summaries(&self, group: &Group) -> Vec<(usize, Measure, Summary)> {
        let columns = self.measures.iter().enumerate();
        columns.filter_map(|(i, m)| Some((i, *m, self.summary(group, i)?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_or_a_setting() {
        assert_eq!("fwd".parse::<Against>().unwrap(), Against::Method(Method::Fwd));
        let setting = "compute=f32".parse::<Against>().unwrap();
        assert_eq!(setting, Against::Setting { key: "compute".into(), value: "f32".into() });
        assert_eq!(setting.to_string(), "compute f32");
        let error = "fast".parse::<Against>().unwrap_err().to_string();
        assert!(error.contains("fast") && error.contains("KEY=VALUE"), "{error}");
    }
}
