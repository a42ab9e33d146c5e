//! Times models of a Hugging Face directory in one fresh process: opening it, prompt-tuning steps, prefill and greedy generation. Prints
//! one JSON object with medians and memory; `benches/models_torch.py` does the same in transformers.

#![forbid(unsafe_code)]

use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use clap::Parser;
use fwd_benches::flop::{Tokens, step_gflop};
use fwd_benches::{generate_exactly, memory_mib, tune};
use fwd_linalg::AdamWState;
use fwd_models::{
    LanguageInput, LanguageModel, MultimodalModel, Precision, Segment, SegmentKind, SpecialTokens, Tap,
    WeightDtype, load, load_language_model,
};
use fwd_ops::Compute;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROWS: [&str; 4] = ["open", "step", "prefill", "generate"];

#[derive(Parser)]
#[command(about)]
struct Args {
    /// A Hugging Face directory: a multimodal model, or a language model alone.
    #[arg(long)]
    model: PathBuf,
    /// Type of the weights: f32, bf16, f16, q8 or q4. A GGUF file keeps its own.
    #[arg(long, default_value = "bf16")]
    dtype: WeightDtype,
    /// What frozen products are computed in.
    #[arg(long, default_value_t = Compute::F32)]
    compute: Compute,
    /// What is timed.
    #[arg(long, value_delimiter = ',', value_parser = ROWS, default_values_t = ROWS.map(String::from))]
    rows: Vec<String>,
    /// Samples of a batch.
    #[arg(long, default_value_t = 16)]
    batch: usize,
    /// Tokens of the input, the soft prompt among them.
    #[arg(long, default_value_t = 52)]
    input_len: usize,
    /// Tokens of the soft prompt.
    #[arg(long, default_value_t = 16)]
    prompt_len: usize,
    /// Label tokens of a sample.
    #[arg(long, default_value_t = 6)]
    label_len: usize,
    /// Tokens to generate for a sample.
    #[arg(long, default_value_t = 32)]
    new_tokens: usize,
    /// Timed runs of each row.
    #[arg(long, default_value_t = 5)]
    iters: usize,
    /// Runs before the clock starts.
    #[arg(long, default_value_t = 1)]
    warmup: usize,
    /// Threads of the pool that does the arithmetic.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Seed of the inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A model of a directory.
enum Model {
    Whole(Box<dyn MultimodalModel>),
    Language(Arc<dyn LanguageModel>, SpecialTokens),
}

impl Model {
    fn open(dir: &Path, precision: Precision) -> Result<Self> {
        let text = fwd_files::read_to_string(&dir.join("config.json"), 1 << 20).context("config.json")?;
        let config: Value = serde_json::from_str(&text)?;
        if config["vision_config"].is_object() {
            return Ok(Self::Whole(load(dir, precision, &Device::Cpu)?));
        }
        let (language, tokens) = load_language_model(dir, precision, &Device::Cpu)?;
        Ok(Self::Language(language, tokens))
    }

    fn language(&self) -> &dyn LanguageModel {
        match self {
            Self::Whole(model) => model.language(),
            Self::Language(language, _) => &**language,
        }
    }

    fn tokens(&self) -> &SpecialTokens {
        match self {
            Self::Whole(model) => model.special_tokens(),
            Self::Language(_, tokens) => tokens,
        }
    }
}

/// A model and one batch for it.
struct Batch {
    model: Model,
    /// Without the soft prompt.
    input: LanguageInput,
    labels: Tensor,
    prompt: Vec<f32>,
    optimiser: AdamWState,
}

impl Batch {
    fn new(model: Model, args: &Args) -> Result<Self> {
        let language = model.language();
        let (d_model, vocab) = (language.d_model(), language.vocab_size());
        ensure!(
            args.input_len > args.prompt_len && args.batch > 0 && args.label_len > 0,
            "nothing to read or to predict"
        );
        let mut rng = StdRng::seed_from_u64(args.seed);
        let mut normal = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.sample(StandardNormal)).collect() };
        let shape = (args.batch, args.input_len - args.prompt_len, d_model);
        let embeds = Tensor::from_vec(normal(shape.0 * shape.1 * shape.2), shape, &Device::Cpu)?;
        let input = LanguageInput::new(vec![Segment::full(SegmentKind::Image, embeds)?])?;
        let prompt = normal(args.prompt_len * d_model);
        let n_labels = args.batch * args.label_len;
        let labels: Vec<i64> = (0..n_labels).map(|_| rng.random_range(3..vocab as i64 - 12)).collect();
        let labels = Tensor::from_vec(labels, (args.batch, args.label_len), &Device::Cpu)?;
        let optimiser = AdamWState::new(prompt.len());
        Ok(Self { model, input, labels, prompt, optimiser })
    }

    fn with_prompt(&self) -> Result<LanguageInput> {
        let d_model = self.model.language().d_model();
        let prompt = Tensor::from_slice(&self.prompt, (self.prompt.len() / d_model, d_model), &Device::Cpu)?;
        Ok(self.input.with_prompt(&prompt)?)
    }

    fn run(&mut self, row: &str, new_tokens: usize) -> Result<()> {
        match row {
            "step" => {
                let Self { model, input, labels, prompt, optimiser } = self;
                let loss = tune(model.language(), input, labels, prompt, optimiser)?;
                ensure!(loss.is_finite(), "the loss is {loss}");
            }
            "prefill" => {
                let input = self.with_prompt()?;
                let (_, logits) = fwd_ops::in_pool(|| {
                    self.model.language().start(&input, self.model.tokens(), new_tokens)
                })?;
                ensure!(logits.dims().len() == 2, "logits of shape {:?}", logits.shape());
            }
            "generate" => {
                let input = self.with_prompt()?;
                let n = generate_exactly(self.model.language(), &input, self.model.tokens(), new_tokens)?;
                ensure!(n == input.batch() * new_tokens, "{n} tokens were generated");
            }
            _ => bail!("there is no row `{row}`"),
        }
        Ok(())
    }

    /// The time of the first value that a pass shows: the output of the first layer, behind the first products.
    fn first_layer(&self) -> Result<Instant> {
        let mut first = None;
        let mut look = |name: &str, _: &Tensor| {
            // Layers end with their number.
            if name.rsplit('.').next().is_some_and(|layer| layer.parse::<usize>().is_ok()) {
                first.get_or_insert_with(Instant::now);
            }
        };
        self.model.language().score(&self.with_prompt()?, &self.labels, &mut Tap::new(&mut look))?;
        first.context("the model has shown no layer")
    }
}

fn main() -> Result<()> {
    let start = Instant::now();
    let args = Args::parse();
    ensure!(args.iters > 0, "--iters must be at least 1");
    rayon::ThreadPoolBuilder::new().num_threads(args.threads).build_global()?;
    let model = Model::open(&args.model, Precision { dtype: args.dtype, compute: args.compute })?;
    let opened = start.elapsed();
    let mut batch = Batch::new(model, &args)?;
    let (tensors, gguf) = stored(&args.model)?;
    let mut rows = Map::new();
    let one = |value: f64| json!({ "median": value });
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    for row in &args.rows {
        if row == "open" {
            rows.insert("open".into(), one(ms(opened)));
            rows.insert("first_layer".into(), one(ms(batch.first_layer()? - start)));
            batch.run("generate", 1)?;
            rows.insert("first_token".into(), one(ms(start.elapsed())));
            for (name, key) in [
                ("resident_mib", "VmRSS"),
                ("resident_own_mib", "RssAnon"),
                ("resident_mapped_mib", "RssFile"),
            ] {
                rows.insert(name.into(), one(memory_mib(key).map_or(f64::NAN, |mib| mib as f64)));
            }
            rows.insert("touched_mib".into(), one(touched(&tensors, gguf) as f64 / f64::from(1 << 20)));
            continue;
        }
        for _ in 0..args.warmup {
            batch.run(row, args.new_tokens)?;
        }
        let mut times = Vec::with_capacity(args.iters);
        for _ in 0..args.iters {
            let begin = Instant::now();
            batch.run(row, args.new_tokens)?;
            times.push(ms(begin.elapsed()));
        }
        times.sort_by(f64::total_cmp);
        rows.insert(row.clone(), json!({ "median": times[times.len() / 2], "min": times[0] }));
    }
    let tokens = Tokens { inputs: args.batch * args.input_len, labels: args.batch * args.label_len };
    let shapes = tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.as_slice()));
    // The shapes in a GGUF file are not read.
    let gflop = (gguf == 0).then(|| step_gflop(shapes, tokens));
    print_report(&json!({
        "ms": rows, "peak_rss_mib": memory_mib("VmHWM"), "step_gflop": gflop, "new_tokens": args.new_tokens,
        "token_mb": token_mb(&tensors, gguf, &args),
    }));
    Ok(())
}

#[allow(clippy::print_stdout)]
fn print_report(report: &Value) {
    println!("{report}");
}

/// Bytes of the weights that an answer needs: all of the language model, but of an embedding table that is no head only a few rows.
fn touched(tensors: &[Stored], gguf: u64) -> u64 {
    let is_alone = !tensors.iter().any(|tensor| tensor.name.starts_with("language_model."));
    let has_head = tensors.iter().any(|tensor| tensor.name.ends_with("lm_head.weight"));
    let is_read = |name: &str| {
        let is_table = name.ends_with("shared.weight") || name.ends_with("embed_tokens.weight");
        // Beside a GGUF file the safetensors files have no language model.
        (name.starts_with("language_model.") || (is_alone && gguf == 0)) && !(is_table && has_head)
    };
    gguf + tensors.iter().filter(|tensor| is_read(&tensor.name)).map(|tensor| tensor.bytes).sum::<u64>()
}

/// A tensor of a safetensors file.
struct Stored {
    name: String,
    shape: Vec<usize>,
    bytes: u64,
}

/// The tensors of all safetensors files of a directory, and the bytes of its GGUF files.
fn stored(dir: &Path) -> Result<(Vec<Stored>, u64)> {
    let (mut tensors, mut gguf) = (Vec::new(), 0);
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        match path.extension().and_then(|end| end.to_str()) {
            Some("gguf") => gguf += path.metadata()?.len(),
            Some("safetensors") => tensors.extend(header(&path)?),
            _ => {}
        }
    }
    Ok((tensors, gguf))
}

/// The tensors that the header of a safetensors file names.
fn header(path: &Path) -> Result<Vec<Stored>> {
    use std::io::Read;
    let mut file = fwd_files::open(path)?;
    let mut length = [0; 8];
    file.read_exact(&mut length)?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(length)).read_to_end(&mut header)?;
    let header: Map<String, Value> = serde_json::from_slice(&header)?;
    let tensor = |(name, tensor): (&String, &Value)| {
        let bytes = tensor["data_offsets"][1].as_u64()? - tensor["data_offsets"][0].as_u64()?;
        let shape = tensor["shape"]
            .as_array()?
            .iter()
            .map(|n| n.as_u64().map(|n| n as usize))
            .collect::<Option<_>>()?;
        Some(Stored { name: name.clone(), shape, bytes })
    };
    Ok(header.iter().filter_map(tensor).collect())
}

/// 10⁶ bytes of weights that are read for a new token of one sequence, as they are kept for these products: blocks as they are, floats in
/// the type of the products.
fn token_mb(tensors: &[Stored], gguf: u64, args: &Args) -> f64 {
    let n_elements = |tensor: &Stored| tensor.shape.iter().product::<usize>() as u64;
    let floats = tensors.iter().map(n_elements).sum::<u64>() as f64;
    let bytes = match (args.dtype, args.compute) {
        // Blocks of 32 with a scale of two bytes.
        (WeightDtype::Q8, _) => 34.0 / 32.0,
        (WeightDtype::Q4, _) => 18.0 / 32.0,
        (WeightDtype::F32, Compute::F32) => 4.0,
        _ => 2.0,
    };
    if gguf > 0 { gguf as f64 / 1e6 } else { floats * bytes / 1e6 }
}
