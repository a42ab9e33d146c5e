//! What the adapters of a run have changed, layer by layer.

use crate::method::Method;
use crate::run::SavedRun;
use crate::session::Session;
use anyhow::{Context, Result, ensure};
use fwd_adapters::{AdaptableModel, Factors, Lora, change_norm, shared_inputs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the adapters of a run have changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdapterInspection {
    /// The run directory, as it was named.
    pub run: String,
    /// How its tasks were learnt.
    pub method: Method,
    /// The seed of its random streams.
    pub seed: u64,
    /// For each adapter the task that it was begun for; of one that all tasks share, `all tasks`.
    pub adapters: Vec<String>,
    /// The layers of the language model, from the first on; maps outside of any layer stand alone.
    pub layers: Vec<LayerFindings>,
}

/// What the adapters have changed in a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerFindings {
    /// The beginning of the names of its maps (`model.layers.0`).
    pub layer: String,
    /// How many of its maps are adapted.
    pub n_maps: usize,
    /// For each adapter `‖s·B·A‖/‖W‖`, over all adapted maps of the layer together.
    pub change: Vec<f64>,
    /// For each adapter, how much of what each older one reads it reads too, the mean over the layer's maps of the mean squared cosine of the
    /// angles between the row spaces of `A`: from 0 (orthogonal) to 1.
    pub shared_inputs: Vec<Vec<f64>>,
    /// What `shared_inputs` is by chance: the mean of `rank/n_in`.
    pub by_chance: f64,
}

/// Inspects the adapters of a run.
///
/// # Errors
/// A run of a method without adapters, or before its first task; those of the model.
pub fn inspect_adapters(run: &SavedRun, session: &Session) -> Result<AdapterInspection> {
    let config = &run.manifest().run.config;
    let model = &*session.backbone.model;
    let learner = run.adapters(model)?;
    let adapters = learner.adapters();
    ensure!(
        !adapters.is_empty(),
        "{} has no adapters yet: its first task has not begun",
        run.dir().display()
    );
    let names = match learner.adapters_of_tasks() {
        Some(of_tasks) => of_tasks.map(|(task, _)| task.to_owned()).collect(),
        None => vec!["all tasks".to_owned()],
    };
    let mut norms = BTreeMap::new();
    model.weights(&mut |name, rows| {
        norms.insert(name.to_owned(), rows.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>());
    })?;
    let mut layers: Vec<(&str, Vec<&str>)> = Vec::new();
    for module in adapters[0].modules() {
        let layer = module.layer().unwrap_or(&module.name);
        match layers.iter_mut().find(|(name, _)| *name == layer) {
            Some((_, maps)) => maps.push(&module.name),
            None => layers.push((layer, vec![&module.name])),
        }
    }
    let layers = layers.into_iter().map(|(layer, maps)| findings(layer, &maps, adapters, &norms));
    Ok(AdapterInspection {
        run: run.dir().display().to_string(),
        method: config.method,
        seed: config.seed,
        adapters: names,
        layers: layers.collect::<Result<_>>()?,
    })
}

fn findings(
    layer: &str,
    maps: &[&str],
    adapters: &[Lora],
    norms: &BTreeMap<String, f64>,
) -> Result<LayerFindings> {
    let of_map = |adapter: &'_ Lora, map: &str| -> Result<f64> {
        let factors = adapter.factors(map).with_context(|| format!("an adapter has no `{map}`"))?;
        Ok(change_norm(factors).powi(2))
    };
    let weight: f64 = maps.iter().filter_map(|map| norms.get(*map)).sum();
    let change = |adapter: &Lora| -> Result<f64> {
        let squared = maps.iter().map(|map| of_map(adapter, map)).sum::<Result<f64>>()?;
        Ok(if weight > 0.0 { (squared / weight).sqrt() } else { 0.0 })
    };
    let shared = |newer: &Lora, older: &Lora| -> Result<f64> {
        let of = |map: &&str| Some([newer.factors(map)?, older.factors(map)?]);
        let shares = maps.iter().filter_map(of).map(|[newer, older]| Ok(shared_inputs(newer, older)?));
        Ok(shares.sum::<Result<f64>>()? / maps.len() as f64)
    };
    let of_older =
        |(i, newer): (usize, &Lora)| adapters[..i].iter().map(|older| shared(newer, older)).collect();
    let by_chance = |Factors { a, rank, .. }: Factors<'_>| (rank * rank) as f64 / a.len() as f64;
    let chances = maps.iter().filter_map(|map| adapters[0].factors(map)).map(by_chance);
    Ok(LayerFindings {
        layer: layer.to_owned(),
        n_maps: maps.len(),
        change: adapters.iter().map(change).collect::<Result<_>>()?,
        shared_inputs: adapters.iter().enumerate().map(of_older).collect::<Result<_>>()?,
        by_chance: chances.sum::<f64>() / maps.len() as f64,
    })
}
