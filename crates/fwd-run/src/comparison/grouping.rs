//! Finished runs beside each other: which may be compared, and which are one method under several seeds.

use super::finished_run::FinishedRun;
use super::summary::Summary;
use crate::choice::Choice;
use crate::method::Method;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Runs that differ in nothing but the seed, or, if orders are pooled, in seed and order of the tasks.
#[derive(Debug)]
pub struct Group {
    /// How their tasks were learnt.
    pub method: Method,
    /// What tells it from other groups of the method: the order of tasks, keys of the configuration. Empty if there is none.
    pub variant: String,
    /// Its runs, by seed and then by order of the tasks.
    pub runs: Vec<FinishedRun>,
}

/// Groups of runs on one benchmark, model and split.
#[derive(Debug)]
pub struct Comparison {
    /// The groups, in the order of the methods.
    pub groups: Vec<Group>,
    /// The orders of tasks, numbered from 1 where there is more than one.
    pub orders: Vec<Vec<String>>,
    /// What a reader must know of the comparison.
    pub notes: Vec<String>,
}

impl Group {
    /// The method, and what tells the group from others of it.
    pub fn name(&self) -> String {
        let Self { method, variant, .. } = self;
        if variant.is_empty() { method.to_string() } else { format!("{method} ({variant})") }
    }

    /// A measure over the runs that have it.
    pub fn summary(&self, measure: impl Fn(&FinishedRun) -> Option<f64>) -> Option<Summary> {
        let values: Vec<f64> = self.runs.iter().filter_map(measure).collect();
        Summary::of(&values)
    }

    /// Whether tasks were learnt one after another, so that row t of the scores is after task t.
    pub fn is_sequence(&self) -> bool {
        self.method.is_sequence()
    }

    /// The names of the tasks in their order.
    pub fn tasks(&self) -> Vec<String> {
        self.runs.first().map(FinishedRun::order).unwrap_or_default()
    }

    /// The score matrix, each cell the mean over the runs.
    pub fn mean_scores(&self) -> Vec<Vec<f64>> {
        let Some(first) = self.runs.first() else { return Vec::new() };
        let cell = |i: usize, j: usize| {
            let score = |run: &FinishedRun| run.metrics.scores.get(i).and_then(|row| row.get(j)).copied();
            self.summary(score).map_or(f64::NAN, |s| s.mean)
        };
        let rows = first.metrics.scores.iter().enumerate();
        rows.map(|(i, row)| (0..row.len()).map(|j| cell(i, j)).collect()).collect()
    }

    /// The seeds, in the order of the runs.
    pub fn seeds(&self) -> Vec<u64> {
        self.runs.iter().map(|run| run.metrics.seed).collect()
    }
}

impl Comparison {
    /// Reads runs and groups them; with `pooled` runs in several orders of the tasks are one group, as those of several seeds are.
    ///
    /// # Errors
    /// A directory that is no finished run; a run of another benchmark, model, split or set of tasks than the first, or one that is
    /// there twice. The message names the run and what differs.
    pub fn read(dirs: &[PathBuf], pooled: bool) -> Result<Self> {
        let runs = dirs.iter().map(|dir| FinishedRun::read(dir)).collect::<Result<Vec<_>>>()?;
        let (first, others) = runs.split_first().context("no run was named")?;
        others.iter().try_for_each(|run| comparable(first, run))?;
        let mut orders: Vec<Vec<String>> = Vec::new();
        let mut notes = Vec::new();
        let builds: BTreeSet<&str> = runs.iter().map(|run| run.manifest.program.as_str()).collect();
        if builds.len() > 1 {
            let builds: Vec<&str> = builds.into_iter().collect();
            notes.push(format!("The runs were made by different builds: {}.", builds.join("; ")));
        }
        let mut by_key: Vec<(Key, Vec<FinishedRun>)> = Vec::new();
        for run in runs {
            let order = run.order();
            let number = orders.iter().position(|known| *known == order).unwrap_or(orders.len());
            if number == orders.len() {
                orders.push(order);
            }
            let order = if pooled { 0 } else { number };
            let key = Key { method: run.metrics.method, order, settings: run.settings()? };
            match by_key.iter_mut().find(|(known, _)| *known == key) {
                Some((_, group)) => group.push(run),
                None => by_key.push((key, vec![run])),
            }
        }
        by_key.sort_by(|(a, _), (b, _)| {
            (a.method.place(), a.order, &a.settings).cmp(&(b.method.place(), b.order, &b.settings))
        });
        for (_, runs) in &mut by_key {
            runs.sort_by_key(|run| (run.metrics.seed, run.order()));
            for pair in runs.windows(2) {
                ensure!(
                    pair[0].metrics.seed != pair[1].metrics.seed || pair[0].order() != pair[1].order(),
                    "{} and {} are the same run: `{}`, seed {}, one configuration; an interval over both would count it twice",
                    pair[0].dir.display(),
                    pair[1].dir.display(),
                    pair[0].metrics.method,
                    pair[0].metrics.seed
                );
            }
        }
        if orders.len() > 1 {
            let listed =
                orders.iter().enumerate().map(|(i, order)| format!("{} is {}", i + 1, order.join(" → ")));
            let kind = if pooled { "Orders of tasks, pooled" } else { "Orders of tasks" };
            notes.push(format!("{kind}: {}.", listed.collect::<Vec<_>>().join("; ")));
        }
        let keys: Vec<&Key> = by_key.iter().map(|(key, _)| key).collect();
        for (name, values) in differing(&keys) {
            notes.push(format!("The groups differ in {name}: {}.", values.join(", ")));
        }
        let n_orders = if pooled { 1 } else { orders.len() };
        let variants: Vec<String> = keys.iter().map(|key| variant(key, &keys, n_orders)).collect();
        let groups = by_key.into_iter().zip(variants);
        let groups: Vec<Group> =
            groups.map(|((key, runs), variant)| Group { method: key.method, variant, runs }).collect();
        let single: Vec<String> =
            groups.iter().filter(|group| group.runs.len() == 1).map(Group::name).collect();
        if !single.is_empty() {
            notes.push(format!("One seed, so no interval: {}.", single.join(", ")));
        }
        for group in &groups {
            let without: Vec<String> = group
                .runs
                .iter()
                .filter(|run| run.metrics.measures.plasticity.is_none())
                .map(|run| run.dir.display().to_string())
                .collect();
            if group.is_sequence() && !without.is_empty() {
                notes.push(format!("No FWT* (`--alone` was not given): {}.", without.join(", ")));
            }
        }
        Ok(Self { groups, orders, notes })
    }

    /// Any run: benchmark, model and split are those of all.
    pub fn first(&self) -> Result<&FinishedRun> {
        self.groups.first().and_then(|group| group.runs.first()).context("no run was named")
    }
}

/// What the runs of a group share.
#[derive(Debug, Clone, PartialEq)]
struct Key {
    method: Method,
    order: usize,
    settings: BTreeMap<String, String>,
}

/// Keys of the configuration that groups do not share, with their values; `none` where a group lacks what another of its method has.
fn differing(keys: &[&Key]) -> Vec<(String, Vec<String>)> {
    let names: BTreeSet<&String> = keys.iter().flat_map(|key| key.settings.keys()).collect();
    let differs = |name: &String| {
        // The keys of one method are no keys of another.
        let reads = |method| keys.iter().any(|key| key.method == method && key.settings.contains_key(name));
        let readers = keys.iter().filter(|key| reads(key.method));
        let values: BTreeSet<&str> = readers.map(|key| value(key, name)).collect();
        (values.len() > 1).then(|| (name.clone(), values.into_iter().map(str::to_owned).collect()))
    };
    let found: Vec<(String, Vec<String>)> = names.into_iter().filter_map(differs).collect();
    // A section that some groups do not have at all, and the others alike, is told by its first key.
    let lacking =
        |name: &str| -> Vec<bool> { keys.iter().map(|key| !key.settings.contains_key(name)).collect() };
    let section = |name: &str| name.split_once('.').map(|(section, _)| section.to_owned());
    let is_told = |(at, (name, values)): &(usize, &(String, Vec<String>))| {
        let lacks = lacking(name);
        let stands_for_it = |(other, values): &(String, Vec<String>)| {
            values.len() == 2 && section(other) == section(name) && lacking(other) == lacks
        };
        let is_simple = values.len() == 2 && lacks.contains(&true) && section(name).is_some();
        is_simple && found[..*at].iter().any(stands_for_it)
    };
    found
        .iter()
        .enumerate()
        .filter(|differing| !is_told(differing))
        .map(|(_, differing)| differing.clone())
        .collect()
}

/// What a group has under a key of the configuration.
fn value<'a>(key: &'a Key, name: &str) -> &'a str {
    key.settings.get(name).map_or("none", String::as_str)
}

/// What tells a group from the others of its method.
fn variant(key: &Key, keys: &[&Key], n_orders: usize) -> String {
    let same: Vec<&Key> = keys.iter().copied().filter(|other| other.method == key.method).collect();
    let order = (n_orders > 1).then(|| format!("order {}", key.order + 1));
    let settings = differing(&same).into_iter().map(|(name, _)| format!("{name} {}", value(key, &name)));
    order.into_iter().chain(settings).collect::<Vec<_>>().join(", ")
}

/// Whether a run may stand beside another.
fn comparable(first: &FinishedRun, run: &FinishedRun) -> Result<()> {
    let (a, b) = (first.dir.display(), run.dir.display());
    let short = |hash: &str| hash.chars().take(12).collect::<String>();
    let (there, here) = (&first.manifest.run, &run.manifest.run);
    ensure!(
        there.data_hash == here.data_hash,
        "{b} cannot be compared with {a}: the benchmark differs ({} in {}, {} in {})",
        short(&here.data_hash),
        run.manifest.bench_dir.display(),
        short(&there.data_hash),
        first.manifest.bench_dir.display()
    );
    ensure!(
        there.backbone_hash == here.backbone_hash,
        "{b} cannot be compared with {a}: the model differs ({} in {}, {} in {})",
        short(&here.backbone_hash),
        run.manifest.backbone_dir.display(),
        short(&there.backbone_hash),
        first.manifest.backbone_dir.display()
    );
    ensure!(
        first.metrics.split == run.metrics.split,
        "{b} cannot be compared with {a}: it scored the split `{}`, not `{}`",
        run.metrics.split,
        first.metrics.split
    );
    let set = |run: &FinishedRun| run.order().into_iter().collect::<BTreeSet<_>>();
    let (there, here) = (set(first), set(run));
    let listed =
        |names: Vec<&String>| names.into_iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ");
    ensure!(
        there == here,
        "{b} cannot be compared with {a}: the tasks differ (only in the former: {}; only in the latter: {})",
        listed(here.difference(&there).collect()),
        listed(there.difference(&here).collect())
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(method: Method, order: usize, settings: &[(&str, &str)]) -> Key {
        let settings = settings.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Key { method, order, settings }
    }

    #[test]
    fn a_variant_names_what_differs_within_a_method() {
        let keys = [
            key(Method::Fwd, 0, &[("pool.prompt_len", "4"), ("eval_batch", "32")]),
            key(Method::Fwd, 1, &[("pool.prompt_len", "8"), ("eval_batch", "32")]),
            key(Method::L2p, 0, &[("pool.prompt_len", "4"), ("eval_batch", "16")]),
        ];
        let keys: Vec<&Key> = keys.iter().collect();
        let variants: Vec<String> = keys.iter().map(|key| variant(key, &keys, 2)).collect();
        assert_eq!(variants, ["order 1, pool.prompt_len 4", "order 2, pool.prompt_len 8", "order 1"]);
        assert_eq!(variant(keys[2], &keys, 1), "");
        let differ = differing(&keys);
        assert_eq!(differ[0], ("eval_batch".to_owned(), vec!["16".to_owned(), "32".to_owned()]));
        assert_eq!(differ[1].0, "pool.prompt_len");
    }

    #[test]
    fn a_section_that_some_groups_lack_is_told_by_its_first_key() {
        let map = [("map.form", "full"), ("map.lr", "1"), ("map.rank", "8")];
        let other = [("map.form", "full"), ("map.lr", "2"), ("map.rank", "8")];
        let keys =
            [key(Method::Fwd, 0, &map), key(Method::Fwd, 0, &other), key(Method::Fwd, 0, &[("x", "1")])];
        let keys: Vec<&Key> = keys.iter().collect();
        let told = |keys: &[&Key]| keys.iter().map(|key| variant(key, keys, 1)).collect::<Vec<_>>();
        assert_eq!(told(&keys)[0], "map.form full, map.lr 1, x none");
        assert_eq!(told(&[keys[0], keys[2]]), ["map.form full, x none", "map.form none, x 1"]);
        assert_eq!(told(&keys[..2]), ["map.lr 1", "map.lr 2"]);
    }

    #[test]
    fn a_key_that_one_group_of_a_method_lacks_tells_it_from_the_others() {
        let keys = [key(Method::Fwd, 0, &[("x", "1")]), key(Method::Fwd, 0, &[]), key(Method::L2p, 0, &[])];
        let keys: Vec<&Key> = keys.iter().collect();
        let variants: Vec<String> = keys.iter().map(|key| variant(key, &keys, 1)).collect();
        assert_eq!(variants, ["x 1", "x none", ""]);
        assert_eq!(differing(&keys), [("x".to_owned(), vec!["1".to_owned(), "none".to_owned()])]);
        // What only one method reads does not differ.
        assert!(differing(&[keys[0], keys[2]]).is_empty());
    }
}
