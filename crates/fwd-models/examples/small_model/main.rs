//! Makes one Hugging Face-like directory of three pre-trained models: DINOv2 as the vision tower, the first layers of a BERT as the text side
//! of a Q-Former, and a LLaMA in a GGUF file as the language model. What lies between them (neck, queries, cross-attention, the queries'
//! feed-forward layers, projection) is missing there: `fwd-prompt pretrain` trains it.
//!
//! ```text
//! cargo run --release -p fwd-models --example small_model -- vision.onnx BERT_FOLDER model.gguf OUT
//! ```
//!
//! `cargo xtask fetch small` fetches the three and calls this.

mod onnx;
mod parts;

use std::path::PathBuf;

fn main() -> parts::Result<()> {
    let given: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [vision, bert, language, out] = &given[..] else {
        return Err("usage: small_model VISION.onnx BERT_FOLDER LANGUAGE.gguf OUT".into());
    };
    parts::assemble(vision, bert, language, out)
}
