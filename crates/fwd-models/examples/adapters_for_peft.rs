//! Writes adapters of two small language models with the losses that they give, for PEFT to be held against:
//!
//! ```text
//! cargo run -p fwd-models --example adapters_for_peft -- OUT
//! python crates/fwd-models/tests/parity/load_in_peft.py OUT      # needs peft, torch and transformers
//! ```
//! The models are the reference models of the tests. The numbers of the adapters are arbitrary, and so is what the models are asked.

#![allow(clippy::print_stdout)]

use candle_core::{DType, Device, Tensor};
use fwd_adapters::{AdaptableModel, Lora, LoraConfig, write};
use fwd_models::{Instructions, MultimodalModel, Tap, TextOnly, WeightDtype};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

const QUESTION: [i64; 6] = [5, 9, 13, 7, 21, 3];
const ANSWER: [i64; 3] = [11, 3, 17];

fn main() -> Result<(), Box<dyn Error>> {
    let out = PathBuf::from(std::env::args().nth(1).ok_or("name a folder to write into")?);
    let sets = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sets");
    for base in ["peft-base-t5", "peft-base-llama"] {
        let model = TextOnly::load(&sets.join(base), WeightDtype::F32, &Device::Cpu)?;
        let model: &dyn MultimodalModel = &model;
        let (ids, labels) = (Tensor::new(&[QUESTION], &Device::Cpu)?, Tensor::new(&[ANSWER], &Device::Cpu)?);
        let instructions = Instructions { mask: ids.ones_like()?, ids, qformer: None };
        let image = Tensor::zeros((1, 1, 1), DType::F32, &Device::Cpu)?;
        let features = model.features_of(&image, &instructions, &mut Tap::none())?;
        let sample = features.samples(&labels)?.remove(0);
        for use_rslora in [false, true] {
            let config = LoraConfig { rank: 4, alpha: 6.0, use_rslora, ..LoraConfig::default() };
            let modules = config.chosen(&model.sites().concat())?;
            let mut adapter = Lora::new(&modules, &config, 1, 0);
            let values = adapter.values_mut().iter_mut().enumerate();
            values.for_each(|(i, x)| *x = ((i * 37 % 101) as f32 - 50.0) * 0.004);
            let found = model.adapter_gradient(&[&sample], &[&adapter])?;
            let dir = out.join(format!("{base}{}", if use_rslora { "-rslora" } else { "" }));
            write(&dir, &adapter, &config)?;
            let expected = serde_json::json!({
                "base": sets.join(base), "input_ids": QUESTION, "labels": ANSWER, "loss": found.loss, "gradient": found.gradient,
            });
            fs::write(dir.join("expected.json"), expected.to_string())?;
            println!("{}: loss {:.6}", dir.display(), found.loss);
        }
    }
    Ok(())
}
