//! Adapters as a learner of the continual loop.

use crate::config::LoraConfig;
use crate::first::{fresh_states, project_first};
use crate::keep;
use crate::key_elements::KeyElements;
use crate::lora::{Factors, Lora};
use crate::model::AdaptableModel;
use crate::module::Module;
use crate::overlap::add_overlap;
use crate::sharing::{Penalty, Sharing};
use crate::spaces::{self, Spaces};
use fwd_continual::{
    Batch, Change, ContinualError, Event, Failure, Gradients, Learner, NotFinite, Place, Reporter, Section,
    SectionError, StepReport, TaskAt,
};
use fwd_linalg::{AdamW, AdamWState, ProjectAt, ProjectedAdamW, Projection, clip_factor, cosines};
use fwd_prompt::{Interference, Rule};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::time::Instant;

/// Low-rank adapters of a frozen model, and what was learnt with them.
#[derive(Debug, Clone)]
pub struct LoraLearner<M> {
    model: M,
    config: LoraConfig,
    sharing: Sharing,
    max_norm: f64,
    seed: u64,
    modules: Vec<Module>,
    /// One, or one for each task so far.
    adapters: Vec<Lora>,
    /// For each adapter the task that it began with.
    tasks: Vec<String>,
    /// For each adapter the mean of its task's keys, each part divided by its length; only where a sample has that of the nearest task.
    keys: Vec<[Vec<f32>; 2]>,
    /// What the maps have read; only where the rows of `A` are projected.
    spaces: Option<Spaces>,
}

/// What exists while a task is being learnt.
#[derive(Debug, Clone)]
pub struct LoraTraining {
    /// The values of the trained adapter when the task began.
    before: Vec<f32>,
    /// Of the factors of each map: `A`, `B` and router.
    states: Vec<[AdamWState; 3]>,
    /// Of the rows of each map's `A`.
    projections: Vec<Projection>,
    /// What older adapters changed most; nothing where that is not penalised.
    key_elements: KeyElements,
}

/// What adapters tell beside the loop's own events.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "note", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum LoraNote {
    /// Of so many adapted maps the rule leaves nothing to change: the inputs of older tasks fill their space.
    NothingAllowed {
        /// Maps that stay as they are.
        n_maps: usize,
        /// All adapted maps.
        of: usize,
    },
    /// How much of a learnt task's adapter lies in each older subspace; nothing where rows are not projected.
    Interference(Vec<Interference>),
}

/// The plain data of a saved state.
#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    /// The task that each adapter began with.
    tasks: Vec<String>,
    key_sizes: Vec<[usize; 2]>,
    /// Steps of the optimiser, if a task is being learnt.
    n_steps: Option<u32>,
    spaces: Option<spaces::Saved>,
}

impl<M: AdaptableModel> LoraLearner<M> {
    /// No adapters yet. The gradient of a step is clipped to the norm `max_norm`, if there is one.
    ///
    /// # Errors
    /// [`ContinualError::Config`] for an impossible configuration, and for targets that the model does not have.
    pub fn new(
        model: M,
        config: LoraConfig,
        sharing: Sharing,
        max_norm: Option<f64>,
        seed: u64,
    ) -> Result<Self, ContinualError> {
        let refused = |e: crate::AdapterError| ContinualError::Config(e.to_string());
        config.check().and_then(|()| sharing.check(&config)).map_err(refused)?;
        let sites = model.sites();
        let modules = config.chosen(&sites.concat()).map_err(refused)?;
        let max_norm = max_norm.unwrap_or(f64::INFINITY);
        let spaces = match sharing {
            Sharing::Projected(rule, options) => Some(Spaces::new(rule, options, sites, &modules)),
            Sharing::Keep(options) => {
                // Weights differ where inputs do not.
                let sites = modules.iter().map(|module| vec![module.clone()]).collect();
                Some(Spaces::new(Rule::Residual, options, sites, &modules))
            }
            _ => None,
        };
        let (adapters, tasks, keys) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { model, config, sharing, max_norm, seed, modules, adapters, tasks, keys, spaces })
    }

    /// The frozen model.
    pub fn model(&self) -> &M {
        &self.model
    }

    /// The adapters so far: none before the first task.
    pub fn adapters(&self) -> &[Lora] {
        &self.adapters
    }

    /// The adapters by the names of their tasks; none where all tasks share one.
    pub fn adapters_of_tasks(&self) -> Option<impl Iterator<Item = (&str, &Lora)>> {
        let all = || self.tasks.iter().map(String::as_str).zip(&self.adapters);
        (!self.sharing.is_one()).then(all)
    }

    /// The bytes that `n_tasks` tasks take at least: their adapters as they are learnt and as samples are answered, and what is kept or computed
    /// of their maps beside them.
    pub fn n_bytes(&self, n_tasks: usize) -> u64 {
        let n_tasks = n_tasks as u64;
        let n_elements: u64 = self.modules.iter().map(|module| (module.n_in * module.n_out) as u64).sum();
        let (n_adapters, beside) = match self.sharing {
            Sharing::One | Sharing::Experts => (1, 0),
            Sharing::OnePerTask | Sharing::Summed(Penalty::Overlap) => (n_tasks, 0),
            // Each combination has a copy of the layers that all share.
            Sharing::Hierarchical => (n_tasks * (n_tasks + 2), 0),
            Sharing::Summed(Penalty::KeyElements) => {
                (n_tasks, n_tasks.saturating_sub(1) * KeyElements::n_bytes(n_elements, self.config.key_share))
            }
            Sharing::Projected(..) | Sharing::Keep(_) => {
                (n_tasks, self.spaces.as_ref().map_or(0, Spaces::n_bytes))
            }
        };
        // A gradient, two moments, the values at the beginning, and the factors in the model.
        4 * self.n_parameters_of_one() as u64 * (n_adapters + 5) + beside
    }

    /// How many numbers each adapter has.
    pub fn n_parameters_of_one(&self) -> usize {
        let LoraConfig { rank, experts, .. } = self.config;
        let n_routers = if self.sharing == Sharing::Experts { experts } else { 0 };
        self.modules.iter().map(|module| rank * (module.n_in + module.n_out) + n_routers * module.n_in).sum()
    }

    /// How many numbers all adapters so far have.
    fn n_parameters(&self) -> usize {
        self.adapters.iter().map(|adapter| adapter.values().len()).sum()
    }

    /// How many numbers are trained, of all adapters so far.
    pub fn n_trained(&self) -> usize {
        let of_a =
            |adapter: &Lora| adapter.all_factors().map(|(_, _, factors)| factors.a.len()).sum::<usize>();
        let n_kept = if self.keeps_a() { self.adapters.iter().map(of_a).sum() } else { 0 };
        self.n_parameters() - n_kept
    }

    /// Whether `A` stays as it began.
    fn keeps_a(&self) -> bool {
        matches!(self.sharing, Sharing::Keep(_))
    }

    /// For each learnt task, how much of the rows of its `A` lies in the subspace of each older task's inputs, the largest share of any map;
    /// nothing where rows are not projected.
    pub fn interference(&self) -> &[Vec<Interference>] {
        self.spaces.as_ref().map_or(&[], Spaces::interference)
    }

    /// How the adapters are made and trained.
    pub fn config(&self) -> &LoraConfig {
        &self.config
    }

    /// The adapters that are added up to answer samples: of each combination all of them. There is one combination, or where a sample is answered
    /// by way of the nearest task, one for each task; none before the first task.
    pub fn combinations(&self) -> impl Iterator<Item = Vec<Cow<'_, Lora>>> {
        self.sharing.combinations(&self.adapters)
    }

    /// The number of the combination that answers a sample.
    ///
    /// # Errors
    /// Keys of other sizes than those of the tasks.
    pub fn combination_of(&self, sample: &M::Sample) -> Result<usize, Failure> {
        if self.sharing.has_keys() { Ok(self.nearest(sample)?.unwrap_or(0)) } else { Ok(0) }
    }

    /// The task whose mean keys are nearest to a sample's, by the sum of the cosines of both parts; the earlier one of equal ones.
    ///
    /// # Errors
    /// Keys of other sizes than those of the tasks.
    fn nearest(&self, sample: &M::Sample) -> Result<Option<usize>, Failure> {
        let parts = self.model.keys(sample);
        let mut sums = vec![0.0; self.keys.len()];
        for (i, part) in parts.iter().enumerate() {
            let all: Vec<f32> = self.keys.iter().flat_map(|keys| &keys[i]).copied().collect();
            let of_part = cosines(part, &all, (1, self.keys.len()), part.len())?;
            sums.iter_mut().zip(of_part).for_each(|(sum, cosine)| *sum += cosine);
        }
        let best = sums.iter().enumerate().fold(None, |best: Option<(usize, f64)>, (i, &sum)| match best {
            Some((_, most)) if sum <= most => best,
            _ => Some((i, sum)),
        });
        Ok(best.map(|(i, _)| i))
    }

    /// The mean of the samples' keys, each divided by its length.
    fn mean_keys(&self, samples: &[M::Sample]) -> [Vec<f32>; 2] {
        let mut means = [Vec::new(), Vec::new()];
        for sample in samples {
            for (mean, part) in means.iter_mut().zip(self.model.keys(sample)) {
                mean.resize(part.len(), 0f64);
                let length = part.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
                if length > 0.0 {
                    mean.iter_mut().zip(part.iter()).for_each(|(m, &x)| *m += f64::from(x) / length);
                }
            }
        }
        means.map(|mean| mean.into_iter().map(|x| (x / samples.len() as f64) as f32).collect())
    }

    fn trained(&self) -> Result<&Lora, Failure> {
        self.adapters.last().ok_or_else(|| NotBegun.into())
    }

    /// The adapters of a step, the trained one last.
    fn active(&self) -> &[Lora] {
        let first = if self.sharing.is_sum() { 0 } else { self.adapters.len().saturating_sub(1) };
        &self.adapters[first..]
    }

    /// An adapter as it begins, the `number`-th of the run.
    fn fresh(&self, number: u64) -> Lora {
        let begin = if self.sharing == Sharing::Experts { Lora::with_experts } else { Lora::new };
        begin(&self.modules, &self.config, self.seed, number)
    }

    /// The adapter that a task begins with. `None` if it was stopped before that was found.
    fn begun(
        &self,
        samples: &[M::Sample],
        task: &TaskAt<'_>,
        report: &mut Reporter<'_, LoraNote>,
    ) -> Result<Option<Lora>, Failure> {
        let number = task.number() as u64;
        let fresh = self.fresh(number);
        if !self.keeps_a() {
            return Ok(Some(fresh));
        }
        let n = self.config.gradient_samples.min(samples.len());
        let chosen: Vec<&M::Sample> = (0..n).map(|i| &samples[i * samples.len() / n]).collect();
        let (projections, of) = (self.projections(), keep::N_PASSES * n);
        let is_stopped = |done| {
            report.tell(Event::Examined { task: task.name.to_owned(), done, of });
            report.is_stopped()
        };
        keep::begun(
            &self.model,
            &chosen,
            &self.adapters,
            fresh,
            &projections,
            (self.seed, number),
            is_stopped,
        )
    }

    /// Takes what is not trained out of a gradient, so that its norm is that of the rest.
    fn leave_kept(&self, gradient: &mut [f32]) -> Result<(), Failure> {
        if self.keeps_a() {
            for (_, place, factors) in self.trained()?.all_factors() {
                gradient[place][..factors.a.len()].fill(0.0);
            }
        }
        Ok(())
    }

    /// The elements that the adapters before the trained one changed most.
    fn key_elements(&self) -> KeyElements {
        match (self.sharing, self.adapters.split_last()) {
            (Sharing::Summed(Penalty::KeyElements), Some((_, older))) => {
                KeyElements::of(older, self.config.key_share)
            }
            _ => KeyElements::default(),
        }
    }

    /// Adds the gradient of the penalty on a trained adapter, and returns the penalty.
    fn add_penalty(&self, training: &LoraTraining, gradient: &mut [f32]) -> f64 {
        let (Sharing::Summed(penalty), Some((trained, older))) = (self.sharing, self.adapters.split_last())
        else {
            return 0.0;
        };
        let LoraConfig { overlap_weight, key_weight, .. } = self.config;
        match penalty {
            Penalty::Overlap => {
                let older: Vec<&Lora> = older.iter().collect();
                overlap_weight * add_overlap(trained, &older, overlap_weight, gradient)
            }
            Penalty::KeyElements => {
                key_weight * training.key_elements.add_penalty(trained, key_weight, gradient)
            }
        }
    }

    /// The Π of the rows of each map's `A` while the next task is learnt.
    fn projections(&self) -> Vec<Projection> {
        let of = |module: &Module| match &self.spaces {
            Some(spaces) => spaces.projection(module),
            None => Projection::identity(module.n_in),
        };
        self.modules.iter().map(of).collect()
    }

    /// A gradient of the trained adapter among those of all adapters so far.
    fn among_all(&self, gradient: Vec<f32>) -> Vec<f32> {
        let mut all = vec![0.0; self.n_parameters() - gradient.len()];
        all.extend(gradient);
        all
    }
}

/// A step before any task.
#[derive(Debug, thiserror::Error)]
#[error("no task has begun")]
struct NotBegun;

impl<M: AdaptableModel> Learner for LoraLearner<M> {
    type Sample = M::Sample;
    type Training = LoraTraining;
    type Note = LoraNote;

    fn kind(&self) -> &'static str {
        "lora"
    }

    fn identity(&self) -> serde_json::Value {
        let Self { config, sharing, max_norm, seed, modules, .. } = self;
        let max_norm = max_norm.is_finite().then_some(max_norm);
        serde_json::json!({ "seed": seed, "lora": config, "sharing": sharing, "max_norm": max_norm, "modules": modules })
    }

    fn shares_parameters(&self) -> bool {
        self.sharing.is_one()
    }

    fn skip_task(&mut self, task: &TaskAt<'_>, _report: &mut Reporter<'_, LoraNote>) -> Result<(), Failure> {
        match &mut self.spaces {
            Some(spaces) => spaces.skip(task.name),
            None => Ok(()),
        }
    }

    fn begin_pretraining(
        &mut self,
        samples: &[M::Sample],
        task: &TaskAt<'_>,
        report: &mut Reporter<'_, LoraNote>,
    ) -> Result<Option<()>, Failure> {
        let Some(spaces) = &mut self.spaces else { return Ok(Some(())) };
        let is_of_weights = matches!(self.sharing, Sharing::Keep(_));
        let of = if is_of_weights { spaces.n_sites() } else { samples.len() };
        let is_stopped = |done| {
            report.tell(Event::Examined { task: task.name.to_owned(), done, of });
            report.is_stopped()
        };
        if is_of_weights {
            spaces.add_weights(&self.model, task.name, is_stopped)
        } else {
            spaces.add(&self.model, samples, &[], task.name, is_stopped)
        }
    }

    fn begin_task(
        &mut self,
        samples: &[M::Sample],
        task: &TaskAt<'_>,
        report: &mut Reporter<'_, LoraNote>,
    ) -> Result<Option<LoraTraining>, Failure> {
        if self.adapters.is_empty() || !self.sharing.is_one() {
            let keys = self.mean_keys(samples);
            if !keys.iter().flatten().all(|x| x.is_finite()) {
                return Err(NotFinite("the mean of the keys of a task").into());
            }
            let Some(begun) = self.begun(samples, task, report)? else { return Ok(None) };
            self.adapters.push(begun);
            self.tasks.push(task.name.to_owned());
            if self.sharing.has_keys() {
                self.keys.push(keys);
            }
        }
        let projections = self.projections();
        if let (Some(_), Some(trained)) = (&self.spaces, self.adapters.last_mut()) {
            for (a, projection) in trained.rows_of_a().zip(&projections) {
                project_first(a, projection)?;
            }
            let n_still = projections.iter().filter(|projection| projection.is_zero()).count();
            if n_still > 0 {
                let note = LoraNote::NothingAllowed { n_maps: n_still, of: projections.len() };
                report.tell(Event::Note { task: task.name.to_owned(), note });
            }
        }
        let trained = self.trained()?;
        Ok(Some(LoraTraining {
            before: trained.values().to_vec(),
            states: fresh_states(trained),
            projections,
            key_elements: self.key_elements(),
        }))
    }

    fn gradients(
        &self,
        training: &LoraTraining,
        _task: &TaskAt<'_>,
        batch: &Batch<'_, M::Sample>,
    ) -> Result<Gradients, Failure> {
        let samples: Vec<&M::Sample> = batch.samples().collect();
        let active: Vec<&Lora> = self.active().iter().collect();
        let found = self.model.adapter_gradient(&samples, &active)?;
        let (loss, mut parameters) = (found.loss, found.gradient);
        self.leave_kept(&mut parameters)?;
        let auxiliary_loss = self.add_penalty(training, &mut parameters);
        Ok(Gradients { loss, auxiliary_loss, parameters, auxiliary: Vec::new() })
    }

    fn step(
        &mut self,
        training: &mut LoraTraining,
        gradients: &Gradients,
        factor: f64,
    ) -> Result<StepReport, Failure> {
        let optimiser = AdamW { lr: self.config.optimiser.lr * factor, ..self.config.optimiser };
        let (scale, grad_norm) = clip_factor(&gradients.parameters, self.max_norm);
        let (began, keeps_a) = (Instant::now(), self.keeps_a());
        let Some(trained) = self.adapters.last_mut() else { return Err(NotBegun.into()) };
        if gradients.parameters.len() != trained.values().len()
            || !gradients.parameters.iter().all(|g| g.is_finite())
        {
            return Err(NotFinite("the gradient of an adapter").into());
        }
        let mut rest = &gradients.parameters[..];
        let parts = trained.factors_mut().zip(&mut training.states).zip(&training.projections);
        for (([a, b, router], [of_a, of_b, of_router]), projection) in parts {
            let mut gradient = |n: usize| {
                let (gradient, behind) = rest.split_at(n);
                rest = behind;
                gradient
            };
            let step = ProjectedAdamW { optimiser, projection, at: ProjectAt::Both, gradient_scale: scale };
            let gradient_a = gradient(a.len());
            if !keeps_a {
                step.step(of_a, a, gradient_a)?;
            }
            for (state, values) in [(of_b, b), (of_router, router)] {
                if !values.is_empty() {
                    let projection = &Projection::identity(values.len());
                    ProjectedAdamW { projection, ..step }.step(state, values, gradient(values.len()))?;
                }
            }
        }
        Ok(StepReport { grad_norm, lr: optimiser.lr, optimiser_seconds: began.elapsed().as_secs_f64() })
    }

    fn change<'t>(&'t self, training: &'t LoraTraining) -> Change<'t> {
        let now = self.adapters.last().map_or(&[][..], Lora::values);
        let values: Vec<f32> = now.iter().zip(&training.before).map(|(now, before)| now - before).collect();
        Change { first: self.n_parameters() - values.len(), values: values.into() }
    }

    fn end_task(
        &mut self,
        _training: &LoraTraining,
        samples: &[M::Sample],
        task: &TaskAt<'_>,
    ) -> Result<LoraNote, Failure> {
        Spaces::check(self.trained()?)?;
        if let Some(spaces) = &mut self.spaces {
            let adapters: Vec<&Lora> = self.adapters.iter().collect();
            spaces.add(&self.model, samples, &adapters, task.name, |_| false)?;
        }
        Ok(LoraNote::Interference(self.interference().last().cloned().unwrap_or_default()))
    }

    fn gradient_of(&self, sample: &M::Sample) -> Result<Vec<f32>, Failure> {
        let active: Vec<&Lora> = self.active().iter().collect();
        let found =
            self.model.adapter_gradient(&[sample], &active).map_err(|e| Failure::at(Place::Sample(0), e))?;
        Ok(self.among_all(found.gradient))
    }

    fn save(&self, training: Option<&LoraTraining>, section: &mut Section) {
        let key_sizes = self.keys.iter().map(|[image, text]| [image.len(), text.len()]).collect();
        let n_steps = training.and_then(|training| Some(training.states.first()?[1].n_steps()));
        let spaces = self.spaces.as_ref().map(|spaces| spaces.save(section));
        section.set_info(&Saved { tasks: self.tasks.clone(), key_sizes, n_steps, spaces });
        // Adapters of older tasks never change again, the last one may.
        let n_sealed = if self.sharing.is_one() { 0 } else { self.adapters.len().saturating_sub(1) };
        for (i, adapter) in self.adapters.iter().enumerate() {
            let put = |section: &mut Section| {
                section.put_f32(&format!("adapter.{i}"), &[adapter.values().len()], adapter.values());
            };
            if i < n_sealed { section.seal(&format!("adapter.{i}"), put) } else { put(section) }
        }
        for (i, keys) in self.keys.iter().enumerate() {
            for (part, keys) in keys.iter().enumerate() {
                section.put_f32(&format!("keys.{i}.{part}"), &[keys.len()], keys);
            }
        }
        if let Some(LoraTraining { before, states, .. }) = training {
            let moments = || states.iter().flatten().map(AdamWState::moments);
            let first: Vec<f32> = moments().flat_map(|(first, _)| first).copied().collect();
            let second: Vec<f32> = moments().flat_map(|(_, second)| second).copied().collect();
            for (name, values) in [("before", before), ("first", &first), ("second", &second)] {
                section.put_f32(&format!("training.{name}"), &[values.len()], values);
            }
        }
    }

    fn load(&mut self, section: &Section) -> Result<Option<LoraTraining>, SectionError> {
        let Saved { tasks, key_sizes, n_steps, spaces } = section.info()?;
        let fresh = self.fresh(0);
        let n = fresh.values().len();
        let adapter = |i: usize| {
            let mut adapter = fresh.clone();
            adapter.values_mut().copy_from_slice(&section.f32(&format!("adapter.{i}"), &[n])?);
            Ok(adapter)
        };
        self.adapters = (0..tasks.len()).map(adapter).collect::<Result<_, SectionError>>()?;
        self.tasks = tasks;
        let key = |i: usize, part: usize, n: usize| section.f32(&format!("keys.{i}.{part}"), &[n]);
        let sizes = key_sizes.iter().enumerate();
        let keys = sizes.map(|(i, &[image, text])| Ok([key(i, 0, image)?, key(i, 1, text)?]));
        self.keys = keys.collect::<Result<_, SectionError>>()?;
        match (&mut self.spaces, spaces) {
            (Some(own), Some(saved)) => own.load(section, saved)?,
            (None, None) => {}
            _ => {
                return Err(SectionError(
                    "subspaces are there or missing against the configuration".to_owned(),
                ));
            }
        }
        let Some(n_steps) = n_steps else { return Ok(None) };
        let part = |name: &str| section.f32(&format!("training.{name}"), &[n]);
        let (first, second) = (part("first")?, part("second")?);
        let mut at = 0;
        let mut next = |n: usize| {
            let of = at..at + n;
            at = of.end;
            AdamWState::from_moments(first[of.clone()].to_vec(), second[of].to_vec(), n_steps)
                .map_err(|e| SectionError(e.to_string()))
        };
        let states = fresh.all_factors().map(|(_, _, Factors { a, b, router, .. })| {
            Ok([next(a.len())?, next(b.len())?, next(router.len())?])
        });
        let states = states.collect::<Result<_, SectionError>>()?;
        let (projections, key_elements) = (self.projections(), self.key_elements());
        Ok(Some(LoraTraining { before: part("before")?, states, projections, key_elements }))
    }
}
