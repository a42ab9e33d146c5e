//! What a learner of adapters asks of a model.

use crate::lora::Lora;
use crate::module::Module;
use std::borrow::Cow;
use std::error::Error;

/// The loss of a batch with its gradient.
#[derive(Debug, Clone, PartialEq)]
pub struct LossGradient {
    /// The mean over all label tokens of the batch, in nats.
    pub loss: f64,
    /// With respect to the values of the adapter that is trained, in their order.
    pub gradient: Vec<f32>,
}

/// A frozen model whose linear maps can have low-rank additions.
pub trait AdaptableModel {
    /// A sample as the model reads it.
    type Sample;
    /// What can go wrong.
    type Error: Error + Send + Sync + 'static;

    /// The maps that may be adapted, in a fixed order; those that read the same input stand together.
    fn sites(&self) -> Vec<Vec<Module>>;

    /// The loss of a batch and its gradient with respect to the last of some adapters; the others are frozen, and all are added up.
    ///
    /// # Errors
    /// Its own, or a loss or gradient that is not finite.
    fn adapter_gradient(
        &self,
        batch: &[&Self::Sample],
        adapters: &[&Lora],
    ) -> Result<LossGradient, Self::Error>;

    /// Shows what the maps read of a sample and its labels behind some adapters, all added up: for each input the names of the maps that read
    /// it, and its rows `(tokens, n_in)`.
    ///
    /// # Errors
    /// Its own.
    fn inputs(
        &self,
        sample: &Self::Sample,
        adapters: &[&Lora],
        see: &mut dyn FnMut(&[&str], &[f32]),
    ) -> Result<(), Self::Error>;

    /// Shows the weights of the maps that may be adapted: their names, and their rows `(n_out, n_in)`.
    ///
    /// # Errors
    /// Its own.
    fn weights(&self, see: &mut dyn FnMut(&str, &[f32])) -> Result<(), Self::Error>;

    /// What a sample is told apart by, independent of any adapter: parts that are compared one by one, by their cosines.
    fn keys<'s>(&'s self, sample: &'s Self::Sample) -> [Cow<'s, [f32]>; 2];
}

impl<M: AdaptableModel + ?Sized> AdaptableModel for &M {
    type Sample = M::Sample;
    type Error = M::Error;

    fn sites(&self) -> Vec<Vec<Module>> {
        (**self).sites()
    }

    fn inputs(
        &self,
        sample: &Self::Sample,
        adapters: &[&Lora],
        see: &mut dyn FnMut(&[&str], &[f32]),
    ) -> Result<(), Self::Error> {
        (**self).inputs(sample, adapters, see)
    }

    fn adapter_gradient(
        &self,
        batch: &[&Self::Sample],
        adapters: &[&Lora],
    ) -> Result<LossGradient, Self::Error> {
        (**self).adapter_gradient(batch, adapters)
    }

    fn weights(&self, see: &mut dyn FnMut(&str, &[f32])) -> Result<(), Self::Error> {
        (**self).weights(see)
    }

    fn keys<'s>(&'s self, sample: &'s Self::Sample) -> [Cow<'s, [f32]>; 2] {
        (**self).keys(sample)
    }
}
