//! Training of a model on the pre-training tasks of a benchmark: all of it over a frozen EfficientNet-Lite0, or what lies between frozen
//! parts that the model directory has.

use super::curve::Curve;
use super::initial::{self, Given};
use super::paths::ModelPaths;
use super::recipe::{Diversity, Recipe, StoredAs};
use super::sampler::{Draw, Drawn, Sampler};
use super::vision::features;
use super::vocabulary::{self, texts_of};
use crate::assets;
use crate::files::{read, write_atomically, write_json};
use crate::model::{Model, Reader, TextFormat, end_of_answer, processor_of};
use crate::observer::{Interrupted, Observer};
use crate::weight_training::{
    Batch, ImageFeatures, PROMPTS, Statistics, View, load_weights, save_weights, step,
};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use fwd_continual::SavedState;
use fwd_data::Processor;
use fwd_data::bench::{Benchmark, Record, Split};
use fwd_models::{
    Blip, Checkpoint, FrozenFeatures, ModelConfig, Precision, SpecialTokens, StepConfig, Trainable,
    WeightDtype, Weights,
};
use fwd_ops::Compute;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Steps between two points of the loss curve, at each of which the model is written.
const POINT_EVERY: usize = 200;
/// What training goes on from is saved at least as often as this.
const SAVE_EVERY: Duration = Duration::from_secs(120);
/// Validation samples of each task whose loss goes into the curve.
const WATCHED: usize = 48;
/// The section of the saved state that holds the weights.
const WEIGHTS: &str = "weights";
/// The section that holds the losses since the last point of the curve.
const LOSSES: &str = "losses";

/// Where a pre-training finds its parts, and where it puts the model.
#[derive(Debug, Clone)]
pub struct PretrainingOptions {
    /// The model directory: it is made, or an unfinished training of the same recipe in it goes on.
    pub out: PathBuf,
    /// A model directory, of the same sizes and words, whose weights are the first ones; none: random ones.
    pub from: Option<PathBuf>,
    /// The folder of the benchmark.
    pub bench: PathBuf,
    /// Where frozen features are kept; none: in the model directory.
    pub cache: Option<PathBuf>,
    /// Where the model computes.
    pub device: Device,
}

/// Everything that the steps of a pre-training share.
struct Pretraining<'a> {
    recipe: &'a Recipe,
    out: ModelPaths,
    observer: &'a dyn Observer,
    processor: Processor,
    format: TextFormat,
    /// The model whose parameters are replaced at each step.
    base: Box<Model>,
    /// Its trained parameters with their first values.
    first: Trainable,
    images: ImageFeatures,
    statistics: Statistics,
    /// As [`initial::embedding_rms`].
    embedding_rms: Option<f64>,
    /// Samples whose loss is watched, by task.
    watched: Vec<(&'a str, Vec<&'a Record>)>,
}

/// Trains a model into a folder, or goes on with an unfinished training there.
///
/// # Errors
/// A folder with another recipe or a finished training, damaged data, an error of the model; [`Interrupted`] if the observer
/// asks it to stop. Checkpoints are kept in all cases.
pub fn pretrain(recipe: &Recipe, options: &PretrainingOptions, observer: &dyn Observer) -> Result<()> {
    let text = toml::to_string(recipe)?;
    let out = ModelPaths::new(&options.out);
    if out.recipe().exists() {
        let kept = Recipe::read(&out.recipe())?;
        let dir = out.dir().display();
        ensure!(kept == *recipe, "{dir} holds a training of another recipe; use another folder");
        let old = out.dir().join("training-state.safetensors");
        ensure!(
            !old.exists(),
            "{} was written by an older version of this program, which this one cannot go on from; use another folder",
            old.display()
        );
        let is_finished = out.trained().exists() && !SavedState::exists(&out.state());
        ensure!(!is_finished, "{dir} holds a finished training; use another folder");
    }
    check_folder(recipe, &out)?;
    ensure!(
        recipe.compute == Compute::F32 || options.device.is_cpu(),
        "the recipe's compute is `{}`, which only the CPU has",
        recipe.compute
    );
    let bench = Benchmark::open(&options.bench)?;
    write_atomically(&out.recipe(), text.as_bytes())?;
    Pretraining::prepare(recipe, &bench, options, observer)?.train(&bench, options.from.as_deref())
}

/// Whether a recipe goes with what lies in the folder, of which nothing is changed before.
fn check_folder(recipe: &Recipe, out: &ModelPaths) -> Result<()> {
    let dir = out.dir().display();
    if recipe.model.is_none() {
        ensure!(
            out.vision().exists() && out.config().exists(),
            "{dir} has no parts to train a model between: the recipe has no section [model], so that vision.safetensors, config.json and \
             the rest must be there (`cargo xtask fetch small` makes such a folder)"
        );
        let config = ModelConfig::read(&out.config())?;
        let n = config.num_query_tokens;
        let origin = out.config().display().to_string();
        ensure!(
            n.isqrt().pow(2) == n,
            "{origin}: num_query_tokens is {n}, must be a square: they begin as the cells of a grid"
        );
        ensure!(
            config.vision.is_lite0() || config.vision.neck_width.is_some(),
            "{origin}: vision_config.neck_width is missing: a bridge is trained behind a neck"
        );
        return Ok(());
    }
    ensure!(
        out.recipe().exists() || !out.config().exists(),
        "{dir} has the parts of a model, for which the recipe is not: name one without the section [model] (--recipe), or another folder"
    );
    Ok(())
}

impl<'a> Pretraining<'a> {
    fn prepare(
        recipe: &'a Recipe,
        bench: &'a Benchmark,
        options: &PretrainingOptions,
        observer: &'a dyn Observer,
    ) -> Result<Self> {
        let out = ModelPaths::new(&options.out);
        let tasks = bench.pretraining();
        let of_phases = recipe.phases.iter().flat_map(|phase| phase.weights.keys());
        for name in recipe.weights.keys().chain(of_phases).chain(recipe.augmentation.views_of.keys()) {
            ensure!(tasks.iter().any(|t| t.name == *name), "the recipe names `{name}`, no pre-training task");
        }
        let vision = out.vision();
        if !vision.exists() {
            let embedded = ModelPaths::new(&assets::backbone()?).vision();
            let bytes = read(&embedded)?;
            write_atomically(&vision, &bytes)?;
        }
        if let Some(sizes) = &recipe.model {
            let train = || tasks.iter().flat_map(|t| t.split(Split::Train));
            let min_word_count = recipe.min_word_count.unwrap_or_default();
            let vocabulary = vocabulary::tokenizer_json(train().flat_map(texts_of), min_word_count);
            let n_words = vocabulary["model"]["vocab"].as_object().map_or(0, serde_json::Map::len);
            for (name, value) in [
                ("tokenizer.json", &vocabulary),
                ("qformer_tokenizer/tokenizer.json", &vocabulary),
                ("preprocessor_config.json", &preprocessor_json(sizes.image_size)),
                ("config.json", &sizes.config_json(n_words)),
                (
                    "generation_config.json",
                    &json!({ "eos_token_id": 1, "pad_token_id": 0, "decoder_start_token_id": 0 }),
                ),
            ] {
                write_json(&out.dir().join(name), value)?;
            }
        }
        let reading = fwd_models::reading(out.dir())?;
        let processor = processor_of(out.dir(), &reading)?;
        let config = ModelConfig::read(&out.config())?;
        let shape = [config.text.vocab_size(), config.text.d_model()];
        let embedding_rms =
            initial::embedding_rms(&mut frozen_parts(&out, Precision::default(), &Device::Cpu)?, &shape)?;
        let (base, first) = new_model(recipe, embedding_rms, &out, &options.device)?;
        let eos = end_of_answer(&processor.text, base.special_tokens());
        let format = TextFormat::open(out.dir(), None, reading, eos)?;

        let watched: Vec<(&str, Vec<&Record>)> =
            tasks.iter().map(|t| (t.name.as_str(), t.split(Split::Val).take(WATCHED).collect())).collect();
        let upright: BTreeSet<&str> = tasks
            .iter()
            .filter(|t| recipe.augmentation.upright.contains(&t.name))
            .flat_map(|t| t.split(Split::Train).map(|r| r.image.as_str()))
            .collect();
        let mut n_views: BTreeMap<&str, u32> = BTreeMap::new();
        for task in &tasks {
            for record in task.split(Split::Train) {
                let n = n_views.entry(&record.image).or_default();
                *n = recipe.views_of(&task.name).max(*n);
            }
        }
        let all_of = |(key, n): (&'a str, u32)| {
            let may_flip = !upright.contains(key);
            (0..n).map(move |number| View { key, number, may_flip })
        };
        let mut views: Vec<View<'_>> = n_views.into_iter().flat_map(all_of).collect();
        let n_training = views.len();
        let held_out: BTreeSet<&str> =
            watched.iter().flat_map(|(_, records)| records.iter().map(|r| r.image.as_str())).collect();
        views.extend(held_out.into_iter().map(View::plain));
        let cache = out.cache(options.cache.as_deref());
        let images =
            features((&*base, &vision), recipe.compute, &processor.image, bench, &views, &cache, observer)?;
        let statistics = images.statistics(views[..n_training].iter().copied());
        Ok(Self {
            recipe,
            out,
            observer,
            processor,
            format,
            base,
            first,
            images,
            statistics,
            embedding_rms,
            watched,
        })
    }

    fn train(&self, bench: &Benchmark, from: Option<&Path>) -> Result<()> {
        let mut sampler = Sampler::new(self.recipe, bench);
        let (mut trainable, mut recent) = self.start(&sampler, from)?;
        let mut n_done = trainable.n_steps();
        let names: Vec<&str> = self.watched.iter().map(|(name, _)| *name).collect();
        let mut curve = Curve::read(&self.out.curve(), n_done, &names)?;
        (0..n_done).for_each(|done| drop(sampler.draw(done)));
        let n = trainable.n_parameters();
        self.observer.note(&format!(
            "{n} trained numbers, {} samples, step {n_done} of {}",
            sampler.n_samples(),
            self.recipe.n_steps()
        ));
        let progress = self.observer.begin("pre-training", self.recipe.n_steps());
        let (mut n_timed, mut began, mut saved) = (0, Instant::now(), Instant::now());
        while n_done < self.recipe.n_steps() {
            let config = StepConfig {
                optimiser: self.recipe.optimiser_at(n_done),
                max_norm: self.recipe.optimiser.max_norm,
            };
            let batches = self.batches(&sampler.draw(n_done))?;
            let diversity_weight = self.recipe.diversity_weight_at(n_done);
            let report = step(&*self.base, &mut trainable, &batches, &config, |features, loss| {
                self.with_diversity(diversity_weight, features, loss)
            });
            let report = report.with_context(|| format!("step {n_done}"))?;
            tracing::debug!("step {n_done}: loss {:.4}, gradient {:.3}", report.loss, report.grad_norm);
            recent.push(report.loss);
            n_done += 1;
            n_timed += 1;
            progress.set(n_done);
            let is_stopped = self.observer.is_stop_requested();
            let is_point = n_done % POINT_EVERY == 0 || n_done == self.recipe.n_steps();
            if is_point {
                let mean = recent.iter().sum::<f64>() / recent.len() as f64;
                let rate = (n_timed * self.recipe.batch_size) as f64 / began.elapsed().as_secs_f64();
                progress.say(&format!("loss {mean:.3}, {rate:.0}/s"));
                let watched = self.watch(&trainable)?;
                tracing::info!(
                    "step {n_done}: loss {mean:.4}, {rate:.0} samples/s, validation {watched:.3?}"
                );
                curve.add(n_done, mean, &watched);
                write_atomically(&self.out.curve(), curve.text().as_bytes())?;
                recent.clear();
                (n_timed, began) = (0, Instant::now());
            }
            if is_point || is_stopped || saved.elapsed() >= SAVE_EVERY {
                self.save(&trainable, &recent)?;
                saved = Instant::now();
            }
            if is_point {
                // After the state: a model without one counts as finished.
                self.export(&trainable)?;
            }
            if is_stopped {
                return Err(Interrupted.into());
            }
        }
        drop(progress);
        // What a process that was killed after the last step may not have written.
        self.export(&trainable)?;
        let state = SavedState::manifest(&self.out.state());
        if state.exists() {
            // Without its manifest it is no state any more, whatever else of it is left.
            fs::remove_file(state).context("cannot remove the training state")?;
        }
        let _ = fs::remove_dir_all(self.out.state());
        self.observer.note(&format!("finished: {}", self.out.dir().display()));
        Ok(())
    }

    /// The two halves of a step's batch.
    fn batches(&self, draw: &Draw<'_>) -> Result<Vec<Batch>> {
        let half = |drawn: &[Drawn<'_>]| -> Result<Batch> {
            let samples: Vec<_> = drawn.iter().map(|d| d.sample.clone()).collect();
            let batch = Batch::of(self.reader(), &self.images, Some(&self.statistics), &samples)?;
            if draw.is_prompted {
                return batch.with_prompts(drawn.iter().map(|d| d.task).collect());
            }
            Ok(batch)
        };
        draw.samples.chunks(draw.samples.len().div_ceil(2).max(1)).map(half).collect()
    }

    /// The parameters before the next step: of the state, if there is one; before the first step those of the model `from`, or random. And the
    /// losses of the steps since the last point of the curve.
    fn start(&self, sampler: &Sampler<'_>, from: Option<&Path>) -> Result<(Trainable, Vec<f64>)> {
        let mut trainable = self.first.clone();
        if let Some(model) = from.filter(|_| !SavedState::exists(&self.out.state())) {
            self.take_over(&mut trainable, model)?;
        }
        let n_tokens = self.recipe.prompting.tokens;
        if n_tokens > 0 {
            let shape = [sampler.n_tasks(), n_tokens, self.base.language().d_model()];
            let given = given(self.recipe, self.embedding_rms);
            let values = initial::value(given, PROMPTS, &shape);
            trainable.insert(PROMPTS, &shape, values)?;
        }
        let (dir, mut recent) = (self.out.state(), Vec::new());
        if SavedState::exists(&dir) {
            let state = SavedState::load(&dir)?;
            let loaded = state.section(WEIGHTS).and_then(|section| load_weights(&mut trainable, section));
            loaded.with_context(|| dir.display().to_string())?;
            // Saved by an older version of this program, at a point of the curve, a state has no such section.
            if let Ok(section) = state.section(LOSSES) {
                let n = section.shape("recent").map_or(0, |shape| shape.iter().product());
                recent = section.f64("recent", &[n]).with_context(|| dir.display().to_string())?;
            }
        }
        let shares: Vec<(String, f64)> =
            trainable.names().map(|name| (name.to_owned(), self.recipe.lr_share(name))).collect();
        shares.iter().for_each(|(name, share)| trainable.set_lr_share(name, *share));
        Ok((trainable, recent))
    }

    /// Writes what training goes on from.
    fn save(&self, trainable: &Trainable, recent_losses: &[f64]) -> Result<()> {
        let mut state = SavedState::default();
        save_weights(trainable, state.section_mut(WEIGHTS));
        state.section_mut(LOSSES).put_f64("recent", &[recent_losses.len()], recent_losses);
        Ok(state.save(&self.out.state())?)
    }

    fn reader(&self) -> Reader<'_> {
        Reader { processor: &self.processor, format: &self.format }
    }

    /// The values of another model, with the standardisation of the features taken out of its neck again.
    fn take_over(&self, trainable: &mut Trainable, model: &Path) -> Result<()> {
        let mut checkpoint =
            Checkpoint::open_file(&ModelPaths::new(model).trained(), WeightDtype::F32, &Device::Cpu)?;
        let names: Vec<String> = trainable.names().map(String::from).collect();
        for name in &names {
            let (shape, _) = trainable.get(name).context("a parameter without a shape")?;
            let shape = shape.to_vec();
            let values = checkpoint.get(name, &shape)?.flatten_all()?.to_vec1::<f32>()?;
            trainable.insert(name, &shape, values)?;
        }
        checkpoint.finish(|_| None)?;
        let Statistics { mean, std } = &self.statistics;
        let inverse = Statistics {
            mean: mean.iter().zip(std).map(|(mean, std)| -mean / std).collect(),
            std: std.iter().map(|std| 1.0 / std).collect(),
        };
        fold(trainable, &inverse)
    }

    /// `loss + w·max(0, t − share) + w·max(0, t' − rank)`: queries that come to say the same are driven apart, until the share of
    /// the variance of the visual tokens that lies between the queries of a sample is t; and tokens that come to lie in few
    /// directions are spread, until the participation ratio of their second moment, `(tr C)²/‖C‖²`, is t' of the width. The second
    /// hinge may be on the logarithm ([`Diversity`]).
    fn with_diversity(&self, weight: f64, features: &FrozenFeatures, loss: &Tensor) -> Result<Tensor> {
        let Diversity { share, rank, is_logarithmic, .. } = self.recipe.diversity;
        if weight == 0.0 {
            return Ok(loss.clone());
        }
        let tokens = features.visual_tokens()?;
        let rows = tokens.flatten(0, 1)?;
        let moment = (rows.t()?.contiguous()?.matmul(&rows)? / rows.dim(0)? as f64)?;
        let trace = rows.sqr()?.mean_all()?;
        // tr C = d·trace: (tr C)²/(d·‖C‖²), and ‖C‖² is d² times its mean.
        let ratio = ((trace.sqr()? / moment.sqr()?.mean_all()?)? / rows.dim(1)? as f64)?;
        let narrow = if is_logarithmic { (ratio.log()?.neg()? + rank.ln())? } else { (ratio.neg()? + rank)? }
            .relu()?;
        let between = tokens.broadcast_sub(&tokens.mean_keepdim(1)?)?.sqr()?.mean_all()?;
        let overall = tokens.broadcast_sub(&tokens.mean_keepdim((0, 1))?)?.sqr()?.mean_all()?;
        let missing = ((between / overall)?.neg()? + share)?.relu()?;
        Ok((loss + ((missing + narrow)? * weight)?)?)
    }

    /// The validation loss of each task.
    fn watch(&self, trainable: &Trainable) -> Result<Vec<f64>> {
        let model = self.base.with_parameters(&mut trainable.frozen(self.base.device())?)?;
        let loss = |(_, records): &(&str, Vec<&Record>)| -> Result<f64> {
            let batch = Batch::new(self.reader(), &self.images, Some(&self.statistics), records)?;
            Ok(f64::from(batch.score(&*model, None)?.1.loss.to_scalar::<f32>()?))
        };
        self.watched.iter().map(loss).collect()
    }

    /// Writes the model, with the standardisation folded into the neck.
    fn export(&self, trainable: &Trainable) -> Result<()> {
        let mut model = trainable.clone();
        model.remove(PROMPTS);
        fold(&mut model, &self.statistics)?;
        let file = match self.recipe.stored {
            StoredAs::Bf16 => model.to_bf16_checkpoint()?,
            StoredAs::Int8 => model.to_int8_checkpoint()?,
        };
        write_atomically(&self.out.trained(), &file)?;
        let mut map = BTreeMap::new();
        let parts = [self.out.vision(), self.out.qformer(), self.out.trained()];
        for path in parts.into_iter().filter(|path| path.exists()) {
            let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = read(&path)?;
            let tensors =
                safetensors::SafeTensors::deserialize(&bytes).with_context(|| path.display().to_string())?;
            map.extend(tensors.names().into_iter().map(|name| (name.to_owned(), file.clone())));
        }
        write_json(&self.out.dir().join("model.safetensors.index.json"), &json!({ "weight_map": map }))
    }
}

/// A model with first values, and those of its parameters that are trained.
fn new_model(
    recipe: &Recipe,
    embedding_rms: Option<f64>,
    paths: &ModelPaths,
    device: &Device,
) -> Result<(Box<Model>, Trainable)> {
    let config = ModelConfig::read(&paths.config())?;
    let precision = Precision { dtype: WeightDtype::F32, compute: recipe.compute };
    let mut beside = frozen_parts(paths, precision, &Device::Cpu)?;
    let given = given(recipe, embedding_rms);
    let mut source = |name: &str, shape: &[usize]| match initial::twin(name).filter(|twin| beside.has(twin)) {
        Some(twin) => Ok(beside.get(&twin, shape)?.flatten_all()?.to_vec1::<f32>()?),
        None => Ok(initial::value(given, name, shape)),
    };
    let frozen = frozen_parts(paths, precision, device)?;
    let tokens = SpecialTokens::read(&paths.dir().join("generation_config.json"), &config.text)?;
    let (model, trainable) = Blip::with_trained(config, frozen, &mut source, device)?;
    let lacking: Vec<&str> = trainable.names().filter(|name| !may_be_trained(recipe, name)).collect();
    ensure!(
        lacking.is_empty(),
        "{} lacks parts of the model that are not trained: {}{}; make the folder anew",
        paths.dir().display(),
        lacking[..lacking.len().min(3)].join(", "),
        if lacking.len() > 3 { format!(" and {} more", lacking.len() - 3) } else { String::new() }
    );
    Ok((Box::new(model.with_special_tokens(tokens)?), trainable))
}

/// Whether a parameter is one of those that a recipe trains: between the parts of a model, or all but EfficientNet-Lite0, whose published
/// names begin with an underscore.
fn may_be_trained(recipe: &Recipe, name: &str) -> bool {
    if recipe.model.is_some() {
        return !name.starts_with('_');
    }
    let begins = ["vision_model.neck.", "query_tokens", "language_projection"];
    let has = [".crossattention.", "_query."];
    begins.iter().any(|part| name.starts_with(part)) || has.iter().any(|part| name.contains(part))
}

fn given(recipe: &Recipe, embedding_rms: Option<f64>) -> Given<'_> {
    Given { seed: recipe.seed, sizes: recipe.model.as_ref(), embedding_rms }
}

/// The weights in a model directory that are not trained.
fn frozen_parts(paths: &ModelPaths, precision: Precision, device: &Device) -> Result<Checkpoint> {
    let files = [paths.vision(), paths.qformer()].into_iter().filter(|file| file.exists());
    let files: Vec<PathBuf> = files.collect();
    Ok(Checkpoint::open_parts(paths.dir(), &files, precision, device)?)
}

/// `W·(x − m)/s + b = (W/s)·x + (b − (W/s)·m)`.
fn fold(model: &mut Trainable, statistics: &Statistics) -> Result<()> {
    let [weight, bias] = ["weight", "bias"].map(|part| format!("vision_model.neck.map.{part}"));
    let (shape, values) = model.get(&weight).context("the model has no neck")?;
    let (shape, mut values) = (shape.to_vec(), values.to_vec());
    let (bias_shape, offset) = model.get(&bias).context("the model has no neck")?;
    let (bias_shape, mut offset) = (bias_shape.to_vec(), offset.to_vec());
    for (row, b) in values.chunks_exact_mut(shape[1]).zip(&mut offset) {
        let mut shift = 0f64;
        for ((w, mean), std) in row.iter_mut().zip(&statistics.mean).zip(&statistics.std) {
            *w /= std;
            shift += f64::from(*w) * f64::from(*mean);
        }
        *b -= shift as f32;
    }
    model.insert(&weight, &shape, values)?;
    model.insert(&bias, &bias_shape, offset)?;
    Ok(())
}

/// `(x − 127)/128`, as EfficientNet-Lite0 was trained, and drawings on white: the file of [`ImageProcessor::efficientnet_lite`].
fn preprocessor_json(side: usize) -> serde_json::Value {
    json!({
        "size": { "height": side, "width": side }, "resample": 3, "do_resize": true,
        "do_rescale": false, "do_normalize": true, "image_mean": [127.0, 127.0, 127.0], "image_std": [128.0, 128.0, 128.0],
        "background": [255, 255, 255],
    })
}
