//! Multimodal models behind soft prompts: what the continual algorithm asks of a sample, the loss with its gradient, and answers.
//!
//! The samples of a batch may have different numbers of prompt tokens. Samples of equal numbers run together, so that nothing is
//! padded and the result of a sample does not depend on what the others have.

use crate::error::{ModelError, Result};
use crate::generate::{GenerationConfig, Hypothesis, generate};
use crate::language::{LanguageInput, MOST_OF_BATCH, Prefix, Scored, Segment, SegmentKind};
use crate::multimodal::{Blip, Llava, MultimodalModel, Sample, TextOnly, padded};
use crate::tap::Tap;
use candle_core::{Device, Tensor, Var};
use fwd_ops::IGNORE_INDEX;
use fwd_prompt::{
    Dims, Embeddings, FrozenModel, InputGradient, LossGradient, Place, PromptBatch, PromptGroup, Queries,
};
use std::sync::Arc;

impl FrozenModel for dyn MultimodalModel + '_ {
    type Features = Sample;
    type Error = ModelError;

    fn dims(&self) -> Dims {
        self.prompt_dims()
    }

    fn embeddings<'s>(&'s self, sample: &'s Sample) -> Result<Embeddings<'s>> {
        Ok(Embeddings { image: sample.image_rows(), text: sample.text_rows() })
    }

    fn queries<'s>(&'s self, sample: &'s Sample) -> Result<Queries<'s>> {
        Ok(Queries { image: sample.image_query[..].into(), text: sample.text_query[..].into() })
    }

    fn loss_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<LossGradient> {
        check(batch, prompts)?;
        if let Some(n_tokens) = prompts.uniform_length() {
            return loss_gradient(self, batch, prompts, n_tokens);
        }
        let of_groups = in_groups(batch, prompts, |batch, prompts, n_tokens| {
            let prompts = loss_gradient(self, batch, prompts, n_tokens)?;
            Ok(InputGradient { prompts, embeddings: Vec::new() })
        });
        Ok(of_groups?.prompts)
    }

    fn with_embeddings(&self, sample: &Sample, embeddings: &Embeddings<'_>) -> Result<Option<Sample>> {
        Ok(Some(sample.with_rows(&embeddings.image, &embeddings.text)?))
    }

    fn input_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<Option<InputGradient>> {
        check(batch, prompts)?;
        let of_groups = in_groups(batch, prompts, |batch, prompts, n_tokens| {
            input_gradient(self, batch, prompts, n_tokens)
        });
        Ok(Some(of_groups?))
    }

    fn loss(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<f64> {
        check(batch, prompts)?;
        let mut loss = 0.0;
        for (PromptGroup { prompts, .. }, group, share) in groups(batch, prompts) {
            let input = behind(self, &group, &prompts)?;
            loss += share * f64::from(loss_of(self, &group, &input)?.to_scalar::<f32>()?);
        }
        Ok(loss)
    }
}

/// The gradient of a batch, from those of the samples of each number of prompt tokens; `gradient` may leave the embeddings' out.
fn in_groups(
    batch: &[&Sample],
    prompts: &PromptBatch,
    gradient: impl Fn(&[&Sample], &PromptBatch, usize) -> Result<InputGradient>,
) -> Result<InputGradient> {
    let mut loss = 0.0;
    let mut gradients = vec![Vec::new(); batch.len()];
    let nothing = Embeddings { image: Vec::new().into(), text: Vec::new().into() };
    let mut embeddings = vec![nothing; batch.len()];
    for (PromptGroup { samples, prompts }, group, share) in groups(batch, prompts) {
        let n_tokens = prompts.lengths[0];
        let of_group = gradient(&group, &prompts, n_tokens)?;
        let scaled =
            |rows: &[f32]| -> Vec<f32> { rows.iter().map(|g| (share * f64::from(*g)) as f32).collect() };
        loss += share * of_group.prompts.loss;
        let size = n_tokens * prompts.dim;
        for (at, &i) in samples.iter().enumerate() {
            gradients[i] = scaled(&of_group.prompts.gradient[at * size..(at + 1) * size]);
        }
        for (i, rows) in samples.into_iter().zip(of_group.embeddings) {
            let [image, text] = [&rows.image, &rows.text].map(|rows| scaled(rows).into());
            embeddings[i] = Embeddings { image, text };
        }
    }
    Ok(InputGradient { prompts: LossGradient { loss, gradient: gradients.concat() }, embeddings })
}

/// The samples of each number of prompt tokens, with their share of the loss: that is a mean over label tokens, so each group counts by
/// its own.
fn groups<'s>(
    batch: &[&'s Sample],
    prompts: &PromptBatch,
) -> impl Iterator<Item = (PromptGroup, Vec<&'s Sample>, f64)> {
    let n_labels = |samples: &[&Sample]| {
        samples.iter().flat_map(|s| &s.labels).filter(|&&id| id != IGNORE_INDEX).count() as f64
    };
    let all = n_labels(batch);
    prompts.groups().into_iter().map(move |group| {
        let samples: Vec<&Sample> = group.samples.iter().map(|&i| batch[i]).collect();
        let share = n_labels(&samples) / all;
        (group, samples, share)
    })
}

/// The loss of a batch whose input is ready.
fn loss_of(model: &(dyn MultimodalModel + '_), batch: &[&Sample], input: &LanguageInput) -> Result<Tensor> {
    Ok(scored(model, batch, input)?.loss)
}

fn scored(model: &(dyn MultimodalModel + '_), batch: &[&Sample], input: &LanguageInput) -> Result<Scored> {
    model.language().score(input, &labels_of(batch)?, &mut Tap::none())
}

/// The labels of samples, in rows of one length.
pub(crate) fn labels_of(batch: &[&Sample]) -> Result<Tensor> {
    let labels: Vec<&[i64]> = batch.iter().map(|s| &s.labels[..]).collect();
    padded(&labels, IGNORE_INDEX, &Device::Cpu)
}

/// What the language model keeps of each sample, where prompts stand at the end; none if it keeps nothing, or these would take too much.
fn prefixes(
    model: &(dyn MultimodalModel + '_),
    batch: &[&Sample],
    place: Place,
) -> Result<Option<Vec<Arc<Prefix>>>> {
    if place != Place::End {
        return Ok(None);
    }
    let language = model.language();
    let n_tokens = |sample: &&Sample| -> usize {
        sample.segments.iter().map(|part| part.embeds.len() / language.d_model()).sum()
    };
    let n_bytes: Option<usize> = batch.iter().map(|sample| language.prefix_bytes(n_tokens(sample))).sum();
    if n_bytes.is_none_or(|n| n > MOST_OF_BATCH) {
        return Ok(None);
    }
    let of_sample = |sample: &&Sample| {
        let is_usable = |prefix: &Prefix| language.owns(prefix) && prefix.n_tokens() == n_tokens(sample);
        sample.prefix.get_or(is_usable, || language.read_prefix(&model.input(&[sample])?))
    };
    batch.iter().map(of_sample).collect::<Result<Vec<_>>>().map(Some)
}

/// What every model does as a [`MultimodalModel`].
macro_rules! frozen_model {
    ($($model:ty),*) => {$(
        impl FrozenModel for $model {
            type Features = Sample;
            type Error = ModelError;

            fn dims(&self) -> Dims {
                self.prompt_dims()
            }

            fn embeddings<'s>(&'s self, sample: &'s Sample) -> Result<Embeddings<'s>> {
                (self as &dyn MultimodalModel).embeddings(sample)
            }

            fn queries<'s>(&'s self, sample: &'s Sample) -> Result<Queries<'s>> {
                (self as &dyn MultimodalModel).queries(sample)
            }

            fn loss_gradient(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<LossGradient> {
                (self as &dyn MultimodalModel).loss_gradient(batch, prompts)
            }

            fn loss(&self, batch: &[&Sample], prompts: &PromptBatch) -> Result<f64> {
                (self as &dyn MultimodalModel).loss(batch, prompts)
            }

            fn with_embeddings(
                &self,
                sample: &Sample,
                embeddings: &Embeddings<'_>,
            ) -> Result<Option<Sample>> {
                (self as &dyn MultimodalModel).with_embeddings(sample, embeddings)
            }

            fn input_gradient(
                &self,
                batch: &[&Sample],
                prompts: &PromptBatch,
            ) -> Result<Option<InputGradient>> {
                (self as &dyn MultimodalModel).input_gradient(batch, prompts)
            }
        }
    )*};
}
frozen_model!(Blip, Llava, TextOnly);

/// The best answer to each sample of a batch behind its prompts.
///
/// # Errors
/// Prompts for another number of samples or of another width; those of [`generate`].
pub fn answer(
    model: &dyn MultimodalModel,
    batch: &[&Sample],
    prompts: &PromptBatch,
    config: &GenerationConfig,
) -> Result<Vec<Hypothesis>> {
    check(batch, prompts)?;
    let mut answers: Vec<Option<Hypothesis>> = vec![None; batch.len()];
    for PromptGroup { samples, prompts } in prompts.groups() {
        let group: Vec<&Sample> = samples.iter().map(|&i| batch[i]).collect();
        let input = behind(model, &group, &prompts)?;
        let hypotheses = generate(model.language(), &input, config, None)?;
        for (i, hypotheses) in samples.into_iter().zip(hypotheses) {
            answers[i] = hypotheses.into_iter().next();
        }
    }
    let missing = || ModelError::input("answer", "a sample without hypothesis");
    answers.into_iter().collect::<Option<_>>().ok_or_else(missing)
}

/// What the model says of each token of the samples' answers, behind their prompts and the tokens before it: log-probabilities over the
/// vocabulary, in nats.
///
/// # Shapes
/// For each sample `(labels, vocab)` row-major, f32.
///
/// # Errors
/// Prompts for another number of samples or of another width; those of the model.
pub fn label_log_probs(
    model: &dyn MultimodalModel,
    batch: &[&Sample],
    prompts: &PromptBatch,
) -> Result<Vec<Vec<f32>>> {
    check(batch, prompts)?;
    let mut all = vec![Vec::new(); batch.len()];
    for (PromptGroup { samples, prompts }, group, _) in groups(batch, prompts) {
        let input = behind(model, &group, &prompts)?;
        let n_labels: Vec<usize> = group.iter().map(|sample| sample.labels.len()).collect();
        let of_group = scored(model, &group, &input)?.log_probs(&n_labels)?;
        samples.into_iter().zip(of_group).for_each(|(i, rows)| all[i] = rows);
    }
    Ok(all)
}

fn check(batch: &[&Sample], prompts: &PromptBatch) -> Result<()> {
    let (n, size) = (prompts.lengths.len(), prompts.lengths.iter().sum::<usize>() * prompts.dim);
    if n == batch.len() && size == prompts.values.len() {
        return Ok(());
    }
    let what = format!(
        "prompts of {size} elements for {n} samples; there are {} elements and {} samples",
        prompts.values.len(),
        batch.len()
    );
    Err(ModelError::input("prompts", what))
}

/// The input of samples without prompts, in which prompts have their place.
fn input_of(model: &(dyn MultimodalModel + '_), batch: &[&Sample], place: Place) -> Result<LanguageInput> {
    let input = model.input(batch)?;
    match place {
        Place::Front => Ok(input),
        Place::End => {
            let n_segments = input.segments().len();
            input.with_prompt_at(n_segments)
        }
    }
}

/// The input of samples with their prompts, all of one length.
fn behind(
    model: &(dyn MultimodalModel + '_),
    batch: &[&Sample],
    prompts: &PromptBatch,
) -> Result<LanguageInput> {
    let input = input_of(model, batch, prompts.place)?;
    match tensor(prompts, model.device())? {
        Some(prompt) => input.with_prompt(&prompt),
        None => Ok(input),
    }
}

/// Prompts of one length as `(batch, tokens, d)`; none if they have no tokens.
fn tensor(prompts: &PromptBatch, device: &Device) -> Result<Option<Tensor>> {
    match prompts.uniform_length() {
        None | Some(0) => Ok(None),
        Some(n) => {
            let shape = (prompts.lengths.len(), n, prompts.dim);
            Ok(Some(Tensor::from_slice(&prompts.values, shape, device)?))
        }
    }
}

/// The loss of samples that all have `n_tokens` prompt tokens.
fn loss_gradient(
    model: &(dyn MultimodalModel + '_),
    batch: &[&Sample],
    prompts: &PromptBatch,
    n_tokens: usize,
) -> Result<LossGradient> {
    let input = || input_of(model, batch, prompts.place);
    if n_tokens == 0 {
        let input = input()?;
        let loss = f64::from(loss_of(model, batch, &input)?.to_scalar::<f32>()?);
        return Ok(LossGradient { loss, gradient: Vec::new() });
    }
    let prompt = Var::from_slice(&prompts.values, (batch.len(), n_tokens, prompts.dim), model.device())?;
    let loss = match prefixes(model, batch, prompts.place)? {
        Some(prefixes) => model.language().score_behind(&prefixes, &prompt, &labels_of(batch)?)?.loss,
        None => loss_of(model, batch, &input()?.with_prompt(&prompt)?)?,
    };
    let gradient = fwd_ops::backward(&loss, &[("prompt", &prompt)])?;
    Ok(LossGradient {
        loss: f64::from(loss.to_scalar::<f32>()?),
        gradient: gradient[0].flatten_all()?.to_vec1()?,
    })
}

/// As [`loss_gradient`], with the gradient of the samples' own embeddings.
fn input_gradient(
    model: &(dyn MultimodalModel + '_),
    batch: &[&Sample],
    prompts: &PromptBatch,
    n_tokens: usize,
) -> Result<InputGradient> {
    let own = input_of(model, batch, prompts.place)?;
    let segments = own.segments();
    let leaves = segments.iter().map(|segment| Var::from_tensor(&segment.embeds));
    let leaves = leaves.collect::<candle_core::Result<Vec<Var>>>()?;
    let tracked = segments
        .iter()
        .zip(&leaves)
        .map(|(segment, leaf)| Segment { embeds: leaf.as_tensor().clone(), ..segment.clone() });
    let mut input = LanguageInput::new(tracked.collect())?.with_prompt_at(own.prompt_at())?;
    let mut parameters: Vec<(&str, &Var)> = leaves.iter().map(|leaf| ("embeddings", leaf)).collect();
    let shape = (batch.len(), n_tokens, prompts.dim);
    let prompt = Var::from_slice(&prompts.values, shape, model.device())?;
    if n_tokens > 0 {
        input = input.with_prompt(&prompt)?;
        parameters.push(("prompt", &prompt));
    }
    let loss = loss_of(model, batch, &input)?;
    let mut gradients = fwd_ops::backward(&loss, &parameters)?;
    let of_prompts = if n_tokens > 0 { gradients.pop() } else { None };
    let gradient = of_prompts.map_or(Ok(Vec::new()), |gradient| gradient.flatten_all()?.to_vec1())?;
    let mut rows = vec![[Vec::new(), Vec::new()]; batch.len()];
    for (segment, gradient) in segments.iter().zip(gradients) {
        let (masks, gradient) = (segment.mask.to_vec2::<f32>()?, gradient.to_vec3::<f32>()?);
        for (rows, (mask, gradient)) in rows.iter_mut().zip(masks.iter().zip(gradient)) {
            let of_kind = match segment.kind {
                SegmentKind::Image => &mut rows[0],
                SegmentKind::Text => &mut rows[1],
                SegmentKind::Prompt => continue,
            };
            let real = gradient.into_iter().zip(mask).filter(|(_, mask)| **mask != 0.0);
            real.for_each(|(row, _)| of_kind.extend(row));
        }
    }
    let embeddings =
        rows.into_iter().map(|[image, text]| Embeddings { image: image.into(), text: text.into() });
    let loss = f64::from(loss.to_scalar::<f32>()?);
    Ok(InputGradient { prompts: LossGradient { loss, gradient }, embeddings: embeddings.collect() })
}
