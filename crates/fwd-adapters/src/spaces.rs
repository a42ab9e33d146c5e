//! The subspaces of what adapted maps have read, and what of an adapter they leave: the idea of Fwd-Prompt for weights instead of prompts.
//!
//! An adapter of a task adds `s·B·A` to a map. On inputs that lie in a subspace which all rows of `A` are orthogonal to, it adds nothing, so
//! that what older tasks read there is answered as before. Each group of maps with one input has a ledger ([`SubspaceLedger`]) of its own:
//! `V_0` of the samples of pre-training, and of each task what it reads in the end beyond all older subspaces. The rule's Π is applied to the rows
//! of `A`: to its first values, to gradients and to updates. `B` is free. KeepLoRA takes the principal directions of each weight's rows for `V_0`.

use crate::lora::Lora;
use crate::model::AdaptableModel;
use crate::module::Module;
use fwd_continual::{Failure, NotFinite, Place, Section, SectionError};
use fwd_linalg::{Basis, Gram, LinalgError, Projection};
use fwd_prompt::{Entry, Interference, Rule, SubspaceLedger, SubspaceOptions};
use serde::{Deserialize, Serialize};

/// The subspaces of all inputs.
#[derive(Debug, Clone)]
pub(crate) struct Spaces {
    rule: Rule,
    options: SubspaceOptions,
    sites: Vec<Site>,
    /// For each learnt task, how much of its adapter lies in each older subspace.
    interference: Vec<Vec<Interference>>,
}

/// Maps that read one input.
#[derive(Debug, Clone)]
struct Site {
    modules: Vec<String>,
    ledger: SubspaceLedger,
}

/// The plain data of a saved state.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// For each site its entries.
    entries: Vec<Vec<SavedEntry>>,
    interference: Vec<Vec<Interference>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedEntry {
    task: String,
    n_rows: u64,
    rank: usize,
    energy: f64,
    captured_before: f64,
    captured: f64,
}

impl Spaces {
    /// No subspaces yet, of those of a model's sites that have one of some modules.
    pub(crate) fn new(
        rule: Rule,
        options: SubspaceOptions,
        sites: Vec<Vec<Module>>,
        adapted: &[Module],
    ) -> Self {
        let site = |modules: Vec<Module>| {
            let dim = modules.first()?.n_in;
            let names =
                modules.into_iter().filter(|module| adapted.contains(module)).map(|module| module.name);
            let modules: Vec<String> = names.collect();
            (!modules.is_empty()).then(|| Site { modules, ledger: SubspaceLedger::new(dim) })
        };
        Self { rule, options, sites: sites.into_iter().filter_map(site).collect(), interference: Vec::new() }
    }

    /// How much of each learnt task's adapter lies in each older subspace: the largest share of any map.
    pub(crate) fn interference(&self) -> &[Vec<Interference>] {
        &self.interference
    }

    /// The Π of a map's rows while the next task is learnt; that of no change for one without a site.
    pub(crate) fn projection(&self, module: &Module) -> Projection {
        let site = self.sites.iter().find(|site| site.modules.contains(&module.name));
        site.map_or_else(
            || Projection::identity(module.n_in),
            |site| site.ledger.projection(self.rule, site.ledger.entries().len()),
        )
    }

    /// Adds the subspaces of what the maps read of some samples behind some adapters, the last of which was learnt on them. `is_stopped` is asked
    /// after each sample, with their number so far; `None` and unchanged if it says so.
    ///
    /// # Errors
    /// Those of the model and of the decompositions; nothing is changed then.
    pub(crate) fn add<M: AdaptableModel>(
        &mut self,
        model: &M,
        samples: &[M::Sample],
        adapters: &[&Lora],
        task: &str,
        mut is_stopped: impl FnMut(usize) -> bool,
    ) -> Result<Option<()>, Failure> {
        let mut grams: Vec<Gram> = self.sites.iter().map(|site| Gram::new(site.ledger.dim())).collect();
        for (i, sample) in samples.iter().enumerate() {
            let mut broken = None;
            let mut see = |names: &[&str], rows: &[f32]| {
                broken = broken.take().or(self.push(&mut grams, names, rows).err());
            };
            model.inputs(sample, adapters, &mut see).map_err(|e| Failure::at(Place::Sample(i), e))?;
            if let Some(error) = broken {
                return Err(Failure::at(Place::Sample(i), error));
            }
            if is_stopped(i + 1) {
                return Ok(None);
            }
        }
        // What a rule forbids, learnt changes do not enter: measured before this task has a subspace of its own.
        let measured = match adapters.last().filter(|_| self.n_entries() > 0) {
            Some(learnt) => Some(self.measured(learnt)?),
            None => None,
        };
        let done = self.append(task, grams, |_| false)?;
        self.interference.extend(done.and(measured));
        Ok(done)
    }

    /// Adds the subspaces of the rows of the weights, in the place of what pre-training reads. `is_stopped` is asked after each map, with their
    /// number so far; `None` and unchanged if it says so.
    ///
    /// # Errors
    /// Those of the model and of the decompositions; nothing is changed then.
    pub(crate) fn add_weights<M: AdaptableModel>(
        &mut self,
        model: &M,
        task: &str,
        is_stopped: impl FnMut(usize) -> bool,
    ) -> Result<Option<()>, Failure> {
        let mut grams: Vec<Gram> = self.sites.iter().map(|site| Gram::new(site.ledger.dim())).collect();
        let mut broken = None;
        model.weights(&mut |name, rows| {
            broken = broken.take().or(self.push(&mut grams, &[name], rows).err())
        })?;
        match broken {
            Some(error) => Err(error.into()),
            None => self.append(task, grams, is_stopped),
        }
    }

    /// Adds rows to the Gram matrices of the sites that have one of some modules.
    fn push(&self, grams: &mut [Gram], names: &[&str], rows: &[f32]) -> Result<(), LinalgError> {
        let is_of = |site: &Site| names.iter().any(|name| site.modules.iter().any(|module| module == name));
        let of = self.sites.iter().zip(grams).filter(|(site, _)| is_of(site));
        of.into_iter().try_for_each(|(_, gram)| gram.push(rows))
    }

    /// How many inputs, or where they have subspaces of their own maps, have a ledger.
    pub(crate) fn n_sites(&self) -> usize {
        self.sites.len()
    }

    /// Appends a subspace of each site to its ledger, or to none after an error or if `is_stopped` says so.
    fn append(
        &mut self,
        task: &str,
        grams: Vec<Gram>,
        mut is_stopped: impl FnMut(usize) -> bool,
    ) -> Result<Option<()>, Failure> {
        let n_before = self.n_entries();
        let options = self.options.of_task(n_before);
        let add = || {
            for (i, (site, gram)) in self.sites.iter_mut().zip(grams).enumerate() {
                site.ledger.add(task, &gram, &options)?;
                if is_stopped(i + 1) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        let done: Result<Option<()>, LinalgError> = add();
        if !matches!(done, Ok(Some(()))) {
            self.sites.iter_mut().for_each(|site| site.ledger.truncate(n_before));
        }
        Ok(done?)
    }

    /// Takes note of a task without samples, which has no adapter.
    ///
    /// # Errors
    /// Those of the decompositions, of nothing.
    pub(crate) fn skip(&mut self, task: &str) -> Result<(), Failure> {
        let options = self.options.of_task(self.n_entries());
        for site in &mut self.sites {
            site.ledger.add(task, &Gram::new(site.ledger.dim()), &options)?;
        }
        self.interference.push(Vec::new());
        Ok(())
    }

    /// The bytes of the Gram matrices of all inputs, which are in memory together while a task's subspaces are found.
    pub(crate) fn n_bytes(&self) -> u64 {
        self.sites.iter().map(|site| 8 * (site.ledger.dim() as u64).pow(2)).sum()
    }

    fn n_entries(&self) -> usize {
        self.sites.first().map_or(0, |site| site.ledger.entries().len())
    }

    /// The largest share of the rows of `A` that lies in each older subspace, of all maps.
    fn measured(&self, learnt: &Lora) -> Result<Vec<Interference>, LinalgError> {
        let mut worst: Vec<Interference> = Vec::new();
        for (site, name) in
            self.sites.iter().flat_map(|site| site.modules.iter().map(move |name| (site, name)))
        {
            let Some(factors) = learnt.factors(name) else { continue };
            let of_map = site.ledger.interference(self.rule, site.ledger.entries().len(), factors.a)?;
            if worst.is_empty() {
                worst = of_map;
            } else {
                worst.iter_mut().zip(of_map).for_each(|(w, found)| w.leakage = w.leakage.max(found.leakage));
            }
        }
        Ok(worst)
    }

    /// Refuses an adapter whose rows are no longer finite.
    pub(crate) fn check(learnt: &Lora) -> Result<(), Failure> {
        if learnt.values().iter().all(|x| x.is_finite()) {
            Ok(())
        } else {
            Err(NotFinite("an adapter").into())
        }
    }

    /// Writes everything but the plain data, which it returns. Subspaces never change again, and are sealed task by task.
    pub(crate) fn save(&self, section: &mut Section) -> Saved {
        for t in 0..self.n_entries() {
            section.seal(&format!("space.{t}"), |section| {
                for (i, site) in self.sites.iter().enumerate() {
                    let Entry { basis, eigenvalues, .. } = &site.ledger.entries()[t];
                    let name = |what: &str| format!("site.{i}.task.{t}.{what}");
                    section.put_f32(&name("basis"), &[basis.len(), basis.dim()], basis.vectors());
                    section.put_f64(&name("eigenvalues"), &[eigenvalues.len()], eigenvalues);
                }
            });
        }
        let entry = |entry: &Entry| SavedEntry {
            task: entry.task.clone(),
            n_rows: entry.n_rows,
            rank: entry.basis.len(),
            energy: entry.energy,
            captured_before: entry.captured_before,
            captured: entry.captured,
        };
        let entries =
            self.sites.iter().map(|site| site.ledger.entries().iter().map(entry).collect()).collect();
        Saved { entries, interference: self.interference.clone() }
    }

    /// Takes back what [`Self::save`] wrote.
    pub(crate) fn load(&mut self, section: &Section, saved: Saved) -> Result<(), SectionError> {
        let text = |error: LinalgError| SectionError(error.to_string());
        if saved.entries.len() != self.sites.len() {
            let what =
                format!("subspaces of {} inputs, {} are adapted", saved.entries.len(), self.sites.len());
            return Err(SectionError(what));
        }
        for (i, (site, entries)) in self.sites.iter_mut().zip(saved.entries).enumerate() {
            let d = site.ledger.dim();
            let entry = |(t, entry): (usize, SavedEntry)| {
                let name = |what: &str| format!("site.{i}.task.{t}.{what}");
                let basis = section.f32(&name("basis"), &[entry.rank, d])?;
                let n = section.length(&name("eigenvalues"), d)?;
                Ok(Entry {
                    basis: Basis::from_orthonormal(d, basis).map_err(text)?,
                    eigenvalues: section.f64(&name("eigenvalues"), &[n])?,
                    task: entry.task,
                    n_rows: entry.n_rows,
                    energy: entry.energy,
                    captured_before: entry.captured_before,
                    captured: entry.captured,
                })
            };
            let entries = entries.into_iter().enumerate().map(entry).collect::<Result<_, SectionError>>()?;
            site.ledger = SubspaceLedger::from_entries(d, entries).map_err(text)?;
        }
        self.interference = saved.interference;
        Ok(())
    }
}
