//! BLIP-2 and InstructBLIP with FlanT5, frozen and promptable, equal to Hugging Face transformers' outputs.
//!
//! [`Blip::load`] reads a Hugging Face directory. [`Blip::features`] computes what does not depend on a prompt; the language
//! model runs from embeddings, with soft prompts in front, exact gradients to the prompt, greedy and beam search:
//!
//! ```no_run
//! use candle_core::{Device, Tensor, Var};
//! use fwd_models::{Blip, GenerationConfig, Instructions, Tap, WeightDtype};
//!
//! # fn batch() -> (Tensor, Instructions, Tensor) { unimplemented!() }
//! let model = Blip::load("instructblip-flan-t5-xl".as_ref(), WeightDtype::Bf16, &Device::Cpu)?;
//! let (pixels, instructions, labels) = batch();
//! let features = model.features(&pixels, &instructions, &mut Tap::none())?;
//!
//! let prompt = Var::randn(0f32, 1.0, (16, model.language().d_model()), &Device::Cpu)?;
//! let input = features.input()?.with_prompt(&prompt)?;
//! let loss = model.language().score(&input, &labels, &mut Tap::none())?.loss;
//! let gradient = fwd_ops::backward(&loss, &[("prompt", &prompt)])?;
//!
//! let encoded = model.language().encode(&input, &mut Tap::none())?;
//! let config = GenerationConfig::greedy(8, model.special_tokens().clone());
//! let answers = model.language().generate(&encoded, &config, None)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`EfficientNetLite0`] is an image encoder for the CPU, with weights of its own.

#![forbid(unsafe_code)]

mod blip;
mod config;
mod error;
mod generate;
mod lite0;
mod promptable;
mod qformer;
pub mod relative;
mod t5;
mod tap;
mod trainable;
mod vision;
mod vit;
mod weights;

pub use blip::{Blip, FrozenFeatures, Instructions};
pub use config::{ModelConfig, ModelKind, OneOrMany, QFormerConfig, SpecialTokens, T5Config, VisionConfig};
pub use error::{ModelError, Result, TensorProblems};
pub use generate::{EarlyStopping, GenerationConfig, Hypothesis, OnStep};
pub use lite0::{EfficientNetLite0, Lite0Features};
pub use promptable::{BlipSample, padded};
pub use qformer::{QFormer, QFormerText};
pub use t5::{DecoderState, Encoded, LanguageInput, Scored, T5};
pub use tap::Tap;
pub use trainable::{FirstValues, Gradient, StepConfig, StepReport, Tracked, Trainable};
pub use vision::{CELL_CHANNELS, Neck, VisionTower};
pub use vit::VisionTransformer;
pub use weights::{Checkpoint, WeightDtype, Weights};
