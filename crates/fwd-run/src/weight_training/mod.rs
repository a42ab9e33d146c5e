//! Training of weights, as opposed to prompts: what pre-training, full fine-tuning and the method `finetune` share.

mod batch;
mod image_features;
mod step;

pub(crate) use batch::{Batch, Example, PROMPTS, halves};
pub(crate) use image_features::{ImageFeatures, Network, Statistics, View};
pub(crate) use step::{gradient, load_weights, save_weights, step, weights_of};
