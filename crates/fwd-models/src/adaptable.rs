//! Multimodal models whose language model has low-rank adapters: what a learner of adapters asks of a model, and the adapted model itself.
//!
//! What vision tower and bridge compute of a sample is computed once; adapters are in the language model.

use crate::error::{ModelError, Result};
use crate::language::LanguageModel;
use crate::multimodal::{MultimodalModel, Sample};
use crate::promptable::labels_of;
use crate::tap::Tap;
use candle_core::{Device, Tensor, Var};
use fwd_adapters::{AdaptableModel, Factors, Lora, LossGradient, Module};
use fwd_ops::{Additions, LowRank, Observer};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

impl AdaptableModel for dyn MultimodalModel + '_ {
    type Sample = Sample;
    type Error = ModelError;

    fn sites(&self) -> Vec<Vec<Module>> {
        let mut sites = Vec::new();
        // A language model that cannot change its maps has none for adapters; nothing fails where nothing is added.
        let _ = self.language().with_maps(&mut |map| {
            let mut modules = Vec::new();
            let seen = map.adapted(&mut |name, [n_out, n_in]| {
                modules.push(Module { name: name.to_owned(), n_out, n_in });
                Ok(None)
            });
            sites.extend((!modules.is_empty()).then_some(modules));
            seen
        });
        sites
    }

    fn adapter_gradient(&self, batch: &[&Sample], adapters: &[&Lora]) -> Result<LossGradient> {
        let Some((trained, older)) = adapters.split_last() else {
            return Err(ModelError::input("adapters", "there is none to be trained"));
        };
        let device = self.device();
        let mut variables = BTreeMap::new();
        for Module { name, n_out, n_in } in trained.modules() {
            let Some(factors) = trained.factors(name) else { continue };
            let mut parts = vec![
                Var::from_slice(factors.a, (factors.rank, *n_in), device)?,
                Var::from_slice(factors.b, (*n_out, factors.rank), device)?,
            ];
            if !factors.router.is_empty() {
                parts.push(Var::from_slice(factors.router, (factors.router.len() / n_in, *n_in), device)?);
            }
            variables.insert(name.as_str(), (parts, factors.scale));
        }
        let language = adapted(self.language(), &mut |name, shape| {
            let mut parts = frozen_parts(older, name, shape, device)?;
            if let Some((of_map, scale)) = variables.get(name)
                && let [a, b, router @ ..] = &of_map[..]
            {
                let (a, b) = (a.as_tensor().clone(), b.as_tensor().clone());
                let router = router.first().map(|router| router.as_tensor().clone());
                parts.push(LowRank { a, b, scale: *scale, router });
            }
            summed(parts)
        })?;
        let loss = language.score(&self.input(batch)?, &labels_of(batch)?, &mut Tap::none())?.loss;
        let parameters: Vec<(&str, &Var)> = trained
            .modules()
            .filter_map(|module| variables.get_key_value(module.name.as_str()))
            .flat_map(|(name, (parts, _))| parts.iter().map(|part| (*name, part)))
            .collect();
        let mut gradient = Vec::with_capacity(trained.values().len());
        for of_factor in fwd_ops::backward(&loss, &parameters)? {
            gradient.extend(of_factor.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(LossGradient { loss: f64::from(loss.to_scalar::<f32>()?), gradient })
    }

    fn inputs(
        &self,
        sample: &Sample,
        adapters: &[&Lora],
        see: &mut dyn FnMut(&[&str], &[f32]),
    ) -> Result<()> {
        type Seen = (Vec<String>, Tensor);
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let kept = Arc::clone(&seen);
        let observer = Observer::new(move |names, input| {
            let names = names.iter().map(|&name| name.to_owned()).collect();
            kept.lock().unwrap_or_else(PoisonError::into_inner).push((names, input.detach()));
        });
        let device = self.device();
        let mut additions = |name: &str, shape| summed(frozen_parts(adapters, name, shape, device)?);
        let language =
            self.language().with_maps(&mut |map| Ok(map.adapted(&mut additions)?.observed(&observer)))?;
        let language = language.ok_or_else(no_adapters)?;
        language.score(&self.input(&[sample])?, &labels_of(&[sample])?, &mut Tap::none())?;
        for (names, input) in seen.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            see(&names, &input.flatten_all()?.to_vec1::<f32>()?);
        }
        Ok(())
    }

    fn weights(&self, see: &mut dyn FnMut(&str, &[f32])) -> Result<()> {
        let language = self.language().with_maps(&mut |map| {
            for (name, weight) in map.named_weights()? {
                see(name, &weight);
            }
            Ok(map.clone())
        })?;
        language.map(|_| ()).ok_or_else(no_adapters)
    }

    fn keys<'s>(&'s self, sample: &'s Sample) -> [Cow<'s, [f32]>; 2] {
        [sample.image_query[..].into(), sample.text_query[..].into()]
    }
}

/// The same model with some adapters in its language model, all added up and frozen.
///
/// # Errors
/// [`ModelError::Input`] for a language model that takes no additions, and for an adapter of a map that it does not have or of another
/// shape.
pub fn with_adapters(model: &dyn MultimodalModel, adapters: &[&Lora]) -> Result<Box<dyn MultimodalModel>> {
    let modules = model.sites().concat();
    for adapted in adapters.iter().flat_map(|adapter| adapter.modules()) {
        let refuse = |what: String| Err(ModelError::input("adapters", what));
        match modules.iter().find(|module| module.name == adapted.name) {
            None => return refuse(format!("the language model has no linear map `{:.200}`", adapted.name)),
            Some(module) if module != adapted => {
                return refuse(format!(
                    "the adapter of `{:.200}` is for a map {}x{}, which is {}x{} here",
                    adapted.name, adapted.n_out, adapted.n_in, module.n_out, module.n_in
                ));
            }
            Some(_) => {}
        }
    }
    let device = model.device().clone();
    let mut additions = |name: &str, shape| summed(frozen_parts(adapters, name, shape, &device)?);
    model.with_maps(&mut |map| map.adapted(&mut additions))
}

fn adapted(language: &dyn LanguageModel, additions: &mut Additions<'_>) -> Result<Arc<dyn LanguageModel>> {
    language.with_maps(&mut |map| map.adapted(additions))?.ok_or_else(no_adapters)
}

fn no_adapters() -> ModelError {
    ModelError::input("adapters", "this language model takes no low-rank additions")
}

/// What some adapters add to a map.
fn frozen_parts(
    adapters: &[&Lora],
    name: &str,
    [n_out, n_in]: [usize; 2],
    device: &Device,
) -> fwd_ops::Result<Vec<LowRank>> {
    let part = |Factors { a, b, rank, scale, router }: Factors<'_>| {
        let a = Tensor::from_slice(a, (rank, n_in), device)?;
        let n_experts = router.len() / n_in;
        let router =
            (n_experts > 0).then(|| Tensor::from_slice(router, (n_experts, n_in), device)).transpose()?;
        Ok(LowRank { a, b: Tensor::from_slice(b, (n_out, rank), device)?, scale, router })
    };
    adapters.iter().filter_map(|adapter| adapter.factors(name)).map(part).collect()
}

/// `Σ s·B·A` as one product: the factors below and beside each other. One with a router stands alone.
fn summed(parts: Vec<LowRank>) -> fwd_ops::Result<Option<LowRank>> {
    if parts.len() < 2 {
        return Ok(parts.into_iter().next());
    }
    if parts.iter().any(|part| part.router.is_some()) {
        let what = "adapters of experts are not added up; give one of them alone".to_owned();
        return Err(fwd_ops::OpError::Shape { op: "low_rank", what });
    }
    let scaled = parts.iter().map(|part| &part.b * part.scale).collect::<candle_core::Result<Vec<_>>>()?;
    let a: Vec<&Tensor> = parts.iter().map(|part| &part.a).collect();
    let (a, b) = (Tensor::cat(&a, 0)?, Tensor::cat(&scaled, 1)?);
    Ok(Some(LowRank { a, b, scale: 1.0, router: None }))
}
