//! A comparison as a table of numbers: the measures of each group, as values or as differences to a method.

use super::finished_run::FinishedRun;
use super::grouping::{Comparison, Group};
use super::measures::{Form, MEASURES, Measure};
use super::summary::Summary;
use crate::method::Method;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

/// The measures of the groups of a comparison.
#[derive(Debug)]
pub struct ComparisonTable {
    comparison: Comparison,
    measures: Vec<Measure>,
    /// The method, and the values of its runs by seed and order.
    against: Option<(Method, ByPairing)>,
}

/// What two runs share whose difference is taken.
type Pairing = (u64, Vec<String>);

/// The measures of runs, in the order of columns.
type ByPairing = BTreeMap<Pairing, Vec<Option<f64>>>;

impl ComparisonTable {
    /// Values, or differences to the runs of a method by seed and order of the tasks; those in points only.
    ///
    /// # Errors
    /// A method without runs, or with several of one seed and order.
    pub fn new(comparison: Comparison, against: Option<Method>) -> Result<Self> {
        let Some(method) = against else {
            return Ok(Self { comparison, measures: MEASURES.to_vec(), against: None });
        };
        let is_in_points = |m: &Measure| matches!(m.form, Form::Score | Form::Points | Form::Difference);
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

    /// The groups, and what a reader must know of them.
    pub fn comparison(&self) -> &Comparison {
        &self.comparison
    }

    /// The measures that the table shows, one a column.
    pub fn measures(&self) -> &[Measure] {
        &self.measures
    }

    /// The method to which differences are taken; none for values.
    pub fn against(&self) -> Option<Method> {
        self.against.as_ref().map(|(method, _)| *method)
    }

    /// The groups, but for that which others are compared with.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        let against = self.against();
        self.comparison.groups.iter().filter(move |group| against != Some(group.method))
    }

    /// A measure of each run of a group; none where the run, or its partner, has none.
    pub fn values(&self, group: &Group, measure: usize) -> Vec<Option<f64>> {
        let value = |run: &FinishedRun| {
            let value = (self.measures[measure].of)(run)?;
            let Some((_, of_runs)) = &self.against else { return Some(value) };
            Some(value - of_runs.get(&pairing(run))?[measure]?)
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

fn pairing(run: &FinishedRun) -> Pairing {
    (run.metrics.seed, run.order())
}
