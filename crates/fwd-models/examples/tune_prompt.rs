//! Tunes one soft prompt of a frozen model on three photographs, and shows what the model says before and after.
//!
//! ```text
//! cargo run --release -p fwd-models --example tune_prompt [HUGGING_FACE_DIRECTORY]
//! ```
//! Without a directory it takes the reference InstructBLIP of the tests, whose weights are random: it knows nothing, and
//! learns its three answers by heart through 16 prompt tokens (1,024 numbers) alone.

#![allow(clippy::print_stdout)]

use candle_core::{Device, Tensor, Var};
use fwd_data::{ImageLimits, ImageProcessor, Processor, RgbImage, TextTokenizer, TokenBatch};
use fwd_linalg::{AdamW, AdamWState};
use fwd_models::{
    GenerationConfig, Instructions, LanguageInput, MultimodalModel, QFormerText, Tap, WeightDtype, generate,
    load,
};
use std::error::Error;
use std::path::{Path, PathBuf};

const PROMPT_LEN: usize = 16;
const STEPS: usize = 150;
const SAMPLES: [(&str, &str, &str); 3] = [
    ("astronaut_200.png", "What is in the image?", "a woman"),
    ("chelsea_200.png", "What color is the cat?", "brown and white"),
    ("coffee_200.png", "Who is holding the cup?", "no one"),
];

type AnyResult<T> = Result<T, Box<dyn Error>>;

/// The processors of the reference model lie with the fixtures of `fwd-data`.
fn reference() -> AnyResult<(PathBuf, Processor)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tokenizers = here.join("../fwd-data/tests/fixtures/tokenizers");
    let processor = Processor {
        image: ImageProcessor::clip(56),
        text: TextTokenizer::open(&tokenizers.join("t5_unigram/tokenizer.json"))?,
        qformer: Some(TextTokenizer::open(&tokenizers.join("bert_wordpiece/tokenizer.json"))?),
    };
    Ok((here.join("tests/fixtures/sets/instructblip-small"), processor))
}

fn tensor(values: &[i64], batch: &TokenBatch) -> AnyResult<Tensor> {
    Ok(Tensor::from_slice(values, (batch.rows, batch.width), &Device::Cpu)?)
}

fn answers(
    model: &dyn MultimodalModel,
    processor: &Processor,
    input: &LanguageInput,
) -> AnyResult<Vec<String>> {
    let config = GenerationConfig::greedy(16, model.special_tokens().clone());
    let rows = generate(model.language(), input, &config, None)?;
    Ok(rows.iter().map(|row| processor.text.decode(&row[0].ids)).collect::<Result<_, _>>()?)
}

fn main() -> AnyResult<()> {
    let (dir, processor) = match std::env::args_os().nth(1) {
        Some(dir) => (PathBuf::from(&dir), Processor::open(Path::new(&dir))?),
        None => reference()?,
    };
    let model = load(&dir, WeightDtype::F32, &Device::Cpu)?;
    let images = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fwd-data/tests/fixtures/images");
    let mut pixels = Vec::new();
    for (file, ..) in SAMPLES {
        pixels.extend(processor.image.process(&RgbImage::open(&images.join(file), ImageLimits::default())?));
    }
    let shape = (SAMPLES.len(), 3, processor.image.height, processor.image.width);
    let pixels = Tensor::from_vec(pixels, shape, &Device::Cpu)?;
    let text = processor.text.encode_batch(&SAMPLES.map(|s| s.1))?;
    let qformer = match &processor.qformer {
        Some(tokenizer) if model.bridge_reads_instruction() => {
            let batch = tokenizer.encode_batch(&SAMPLES.map(|s| s.1))?;
            Some(QFormerText { ids: tensor(&batch.ids, &batch)?, mask: tensor(&batch.mask, &batch)? })
        }
        _ => None,
    };
    let instructions =
        Instructions { ids: tensor(&text.ids, &text)?, mask: tensor(&text.mask, &text)?, qformer };
    let labels = processor.text.encode_batch(&SAMPLES.map(|s| s.2))?;
    let labels = tensor(&labels.labels(fwd_ops::IGNORE_INDEX), &labels)?;

    // The frozen part runs once.
    let input = model.features(&pixels, &instructions, &mut Tap::none())?.input;
    let before = answers(&*model, &processor, &input)?;
    let d = model.language().d_model();
    // A prompt starts as the embeddings of ordinary tokens.
    let ids: Vec<i64> = (10..10 + PROMPT_LEN as i64).collect();
    let start = model.language().embed(&Tensor::new(ids, &Device::Cpu)?)?;
    let mut values: Vec<f32> = start.flatten_all()?.to_vec1()?;
    let mut state = AdamWState::new(values.len());
    let optimiser = AdamW { lr: 0.1, ..AdamW::default() };
    println!("step   loss");
    for step in 0..=STEPS {
        let prompt = Var::from_slice(&values, (PROMPT_LEN, d), &Device::Cpu)?;
        let loss = model.language().score(&input.with_prompt(&prompt)?, &labels, &mut Tap::none())?.loss;
        if step % 25 == 0 {
            println!("{step:4} {:6.3}", loss.to_scalar::<f32>()?);
        }
        let gradient = fwd_ops::backward(&loss, &[("prompt", &prompt)])?;
        let gradient: Vec<f32> = gradient[0].flatten_all()?.to_vec1()?;
        optimiser.step(&mut state, &mut values, &gradient)?;
    }
    let prompt = Tensor::from_vec(values, (PROMPT_LEN, d), &Device::Cpu)?;
    let after = answers(&*model, &processor, &input.with_prompt(&prompt)?)?;
    for (((file, question, _), before), after) in SAMPLES.iter().zip(before).zip(after) {
        println!("\n{file}: {question}\n  before: {before}\n  after:  {after}");
    }
    Ok(())
}
