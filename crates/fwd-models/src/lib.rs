#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod adaptable;
mod bridge;
mod config;
mod error;
mod generate;
mod language;
mod multimodal;
mod promptable;
mod tap;
mod trainable;
mod vision;
mod weights;

pub use adaptable::with_adapters;
pub use bridge::{QFormer, QFormerText};
pub use config::{
    LlamaConfig, LlavaConfig, ModelConfig, ModelKind, OneOrMany, OptConfig, QFormerConfig, RopeConfig,
    SpecialTokens, T5Config, TextConfig, VisionConfig, VisionKind, ignored_generation,
};
pub use error::{ModelError, Result, TensorProblems};
pub use generate::{EarlyStopping, GenerationConfig, Hypothesis, OnStep, generate};
pub use language::relative;
pub use language::{
    Assembled, CausalLm, Decoding, Encoded, KeptPrefix, LanguageInput, LanguageModel, PaddingSide, Prefix,
    Scored, Segment, SegmentKind, T5, language_model, load_language_model,
};
pub use multimodal::{
    Blip, FrozenFeatures, Instructions, Llava, MultimodalModel, PromptPlace, Reading, Sample, SampleSegment,
    TextOnly, load, padded, reading,
};
pub use promptable::{answer, label_log_probs};
pub use tap::Tap;
pub use trainable::{FirstValues, Gradient, StepConfig, StepReport, Tracked, Trainable};
pub use vision::{
    CELL_CHANNELS, EfficientNetLite0, Lite0Features, Neck, VisionTower, VisionTransformer,
    interpolated_positions,
};
pub use weights::{Checkpoint, Precision, Redundant, WeightDtype, WeightFile, Weights, gguf_file};
