//! The work that the benchmarks time: a BLIP-2 or InstructBLIP with random weights in the sizes of the PyTorch benchmark
//! (`bench_torch.py` in the fixtures of `fwd-models`), one batch, and the four things a researcher waits for.

#![forbid(unsafe_code)]

pub mod algebra;
pub mod checkpoint;
pub mod flop;
pub mod gpu;
#[cfg(feature = "cuda")]
pub mod gpu_run;
pub mod machine;
pub mod scaling;

use candle_core::{Device, Tensor, Var};
use clap::ValueEnum;
use flop::{Tokens, step_gflop};
use fwd_linalg::{AdamW, AdamWState};
use fwd_models::{
    Blip, FrozenFeatures, GenerationConfig, Instructions, LanguageInput, LanguageModel, ModelConfig,
    MultimodalModel, QFormerText, Result, SpecialTokens, Tap, Weights, generate,
};
use fwd_ops::Compute;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

/// The sizes of the PyTorch benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Size {
    /// 0.5 million parameters.
    Small,
    /// 13 million parameters.
    Base,
}

/// The model that the benchmarks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// BLIP-2, whose Q-Former sees the image only.
    Blip2,
    /// InstructBLIP, whose Q-Former sees the instruction too.
    Instructblip,
}

/// The number of samples in a batch.
pub const BATCH: usize = 16;
/// The number of soft-prompt tokens.
pub const PROMPT_LEN: usize = 16;
/// The number of tokens before the soft prompt is put in front: queries and text.
pub const ENCODER_LEN: usize = 32;
/// The number of label tokens of a sample, `</s>` included.
pub const LABEL_LEN: usize = 8;
/// The number of instruction tokens that the Q-Former reads.
pub const QFORMER_TEXT_LEN: usize = 16;
/// The number of tokens that are generated for a sample.
pub const NEW_TOKENS: usize = 8;

/// The configuration of a model of the benchmark.
pub fn config(size: Size, kind: Kind) -> ModelConfig {
    let (vision, qformer, text, n_queries) = match size {
        Size::Small => (
            r#"{"hidden_size":64,"intermediate_size":80,"num_hidden_layers":4,"num_attention_heads":4,"image_size":56,"patch_size":14}"#,
            r#"{"hidden_size":64,"intermediate_size":64,"num_hidden_layers":4,"num_attention_heads":4,"vocab_size":256,"max_position_embeddings":64}"#,
            r#"{"vocab_size":512,"d_model":64,"d_kv":8,"d_ff":48,"num_layers":4,"num_heads":4"#,
            8,
        ),
        Size::Base => (
            r#"{"hidden_size":192,"intermediate_size":768,"num_hidden_layers":6,"num_attention_heads":6,"image_size":96,"patch_size":16}"#,
            r#"{"hidden_size":192,"intermediate_size":768,"num_hidden_layers":4,"num_attention_heads":6,"vocab_size":1000,"max_position_embeddings":128}"#,
            r#"{"vocab_size":4096,"d_model":256,"d_kv":32,"d_ff":512,"num_layers":4,"num_heads":8"#,
            16,
        ),
    };
    let model_type = match kind {
        Kind::Blip2 => "blip-2",
        Kind::Instructblip => "instructblip",
    };
    let text = format!(
        r#"{text},"model_type":"t5","feed_forward_proj":"gated-gelu","scale_decoder_outputs":false}}"#
    );
    let json = format!(
        r#"{{"model_type":"{model_type}","num_query_tokens":{n_queries},"vision_config":{vision},"qformer_config":{qformer},"text_config":{text}}}"#
    );
    match serde_json::from_str(&json) {
        Ok(config) => config,
        Err(error) => unreachable!("the configurations above parse: {error}"),
    }
}

/// Random weights of sane size: normal with variance 1/fan_in, norm weights 1. Names and shapes are kept.
struct RandomWeights {
    rng: StdRng,
    compute: Compute,
    tensors: Vec<(String, Vec<usize>)>,
}

impl Weights for RandomWeights {
    fn get(&mut self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let n: usize = shape.iter().product();
        let norm_weight = name.to_lowercase().contains("norm") && name.ends_with("weight");
        let scale = if shape.len() < 2 { 0.1 } else { ((n / shape[0]) as f32).powf(-0.5) };
        self.tensors.push((name.to_owned(), shape.to_vec()));
        let rng = &mut self.rng;
        let values: Vec<f32> = (0..n)
            .map(|_| if norm_weight { 1.0 } else { scale * rng.sample::<f32, _>(StandardNormal) })
            .collect();
        Ok(Tensor::from_vec(values, shape, &Device::Cpu)?)
    }

    fn compute(&self) -> Compute {
        self.compute
    }

    fn has(&self, _: &str) -> bool {
        true
    }
}

/// A model with one batch of random data.
#[derive(Debug)]
pub struct Bench {
    model: Blip,
    pixels: Tensor,
    instructions: Instructions,
    labels: Tensor,
    cached: LanguageInput,
    prompt: Vec<f32>,
    optimiser: AdamWState,
    step_gflop: f64,
}

impl Bench {
    /// Builds model and batch from a seed; frozen products are computed in `compute`.
    ///
    /// # Errors
    /// An error of the model.
    pub fn new(size: Size, kind: Kind, compute: Compute, seed: u64) -> Result<Self> {
        let config = config(size, kind);
        let mut rng = StdRng::seed_from_u64(seed);
        let mut weights =
            RandomWeights { rng: StdRng::seed_from_u64(seed + 1), compute, tensors: Vec::new() };
        let model = Blip::new(config.clone(), &mut weights)?;
        let tokens = Tokens { inputs: BATCH * (PROMPT_LEN + ENCODER_LEN), labels: BATCH * LABEL_LEN };
        let shapes = weights.tensors.iter().map(|(name, shape)| (name.as_str(), shape.as_slice()));
        let step_gflop = step_gflop(shapes, tokens);
        let side = config.vision.image_size;
        let device = &Device::Cpu;
        let mut ids = |n: usize, limit: usize| -> Result<Tensor> {
            let values: Vec<i64> = (0..BATCH * n).map(|_| rng.random_range(3..limit as i64)).collect();
            Ok(Tensor::from_vec(values, (BATCH, n), device)?)
        };
        let n_text = ENCODER_LEN - config.num_query_tokens;
        let instructions = Instructions {
            ids: ids(n_text, config.text.vocab_size() - 12)?,
            mask: Tensor::ones((BATCH, n_text), candle_core::DType::F32, device)?,
            qformer: match kind {
                Kind::Blip2 => None,
                Kind::Instructblip => Some(QFormerText {
                    ids: ids(QFORMER_TEXT_LEN, config.qformer.vocab_size)?,
                    mask: Tensor::ones((BATCH, QFORMER_TEXT_LEN), candle_core::DType::F32, device)?,
                }),
            },
        };
        let labels = ids(LABEL_LEN, config.text.vocab_size() - 12)?;
        let pixels: Vec<f32> = (0..BATCH * 3 * side * side).map(|_| rng.sample(StandardNormal)).collect();
        let pixels = Tensor::from_vec(pixels, (BATCH, 3, side, side), device)?;
        let prompt: Vec<f32> =
            (0..PROMPT_LEN * config.text.d_model()).map(|_| rng.sample(StandardNormal)).collect();
        let cached = model.features(&pixels, &instructions, &mut Tap::none())?.input;
        let optimiser = AdamWState::new(prompt.len());
        Ok(Self { model, pixels, instructions, labels, cached, prompt, optimiser, step_gflop })
    }

    /// 10⁹ operations of the linear maps in [`Self::step_cached`].
    pub fn step_gflop(&self) -> f64 {
        self.step_gflop
    }

    /// Vision tower, Q-Former, projection and text embedding.
    ///
    /// # Errors
    /// An error of the model.
    pub fn features(&self) -> Result<FrozenFeatures> {
        self.model.features(&self.pixels, &self.instructions, &mut Tap::none())
    }

    fn step(&mut self, input: &LanguageInput) -> Result<f32> {
        tune(self.model.language(), input, &self.labels, &mut self.prompt, &mut self.optimiser)
    }

    /// One prompt-tuning step with the frozen features at hand: forward, backward to the shared prompt, AdamW.
    ///
    /// # Errors
    /// An error of the model.
    pub fn step_cached(&mut self) -> Result<f32> {
        let input = self.cached.clone();
        self.step(&input)
    }

    /// One prompt-tuning step from the pixels.
    ///
    /// # Errors
    /// An error of the model.
    pub fn step_full(&mut self) -> Result<f32> {
        let input = self.features()?.input;
        self.step(&input)
    }

    /// Exactly [`NEW_TOKENS`] tokens, greedy, with the prompt in front and the frozen features at hand.
    ///
    /// # Errors
    /// An error of the model.
    pub fn generate(&self) -> Result<usize> {
        let shape = (PROMPT_LEN, self.model.language().d_model());
        let prompt = Tensor::from_slice(&self.prompt, shape, &Device::Cpu)?;
        let input = self.cached.with_prompt(&prompt)?;
        generate_exactly(self.model.language(), &input, self.model.special_tokens(), NEW_TOKENS)
    }
}

/// One prompt-tuning step: forward, backward to the shared prompt, AdamW. Gives the loss before it.
///
/// # Errors
/// An error of the model.
pub fn tune(
    language: &dyn LanguageModel,
    input: &LanguageInput,
    labels: &Tensor,
    prompt: &mut [f32],
    optimiser: &mut AdamWState,
) -> Result<f32> {
    let d_model = language.d_model();
    let tracked = Var::from_slice(prompt, (prompt.len() / d_model, d_model), &Device::Cpu)?;
    let input = input.with_prompt(&tracked)?;
    let loss = language.score(&input, labels, &mut Tap::none())?.loss;
    let gradient = fwd_ops::backward(&loss, &[("prompt", &tracked)])?;
    let gradient: Vec<f32> = gradient[0].flatten_all()?.to_vec1()?;
    if let Err(error) = AdamW::default().step(optimiser, prompt, &gradient) {
        unreachable!("the lengths agree: {error}");
    }
    Ok(loss.to_scalar()?)
}

/// Exactly `n` tokens for every sample, greedy; gives the number of all.
///
/// # Errors
/// An error of the model.
pub fn generate_exactly(
    language: &dyn LanguageModel,
    input: &LanguageInput,
    tokens: &SpecialTokens,
    n: usize,
) -> Result<usize> {
    let config = GenerationConfig { min_new_tokens: n, ..GenerationConfig::greedy(n, tokens.clone()) };
    let rows = generate(language, input, &config, None)?;
    Ok(rows.iter().map(|row| row[0].ids.len()).sum())
}

/// A line of `/proc/self/status` in MiB, where the system has it: `VmHWM` is the most memory that the process has had, `VmRSS` what it has
/// now.
pub fn memory_mib(key: &str) -> Option<u64> {
    memory_of("/proc/self/status", key)
}

/// [`memory_mib`] of the process with this file of its status.
fn memory_of(status: &str, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(status).ok()?;
    let line = status.lines().find(|line| line.split(':').next() == Some(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib / 1024)
}
