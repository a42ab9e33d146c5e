//! A small model directory that tests write and may damage.

use serde_json::json;
use std::fs;
use std::path::Path;

/// The reference InstructBLIP of the model crate's tests, random weights, with the tokenizers of the data crate's tests.
pub(crate) fn write(dir: &Path) {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let set = crates.join("fwd-models/tests/fixtures/sets/instructblip-small");
    let tokenizers = crates.join("fwd-data/tests/fixtures/tokenizers");
    fs::create_dir_all(dir.join("qformer_tokenizer")).unwrap();
    for name in ["config.json", "generation_config.json", "model.safetensors"] {
        fs::copy(set.join(name), dir.join(name)).unwrap();
    }
    fs::copy(tokenizers.join("t5_unigram/tokenizer.json"), dir.join("tokenizer.json")).unwrap();
    let qformer = dir.join("qformer_tokenizer/tokenizer.json");
    fs::copy(tokenizers.join("bert_wordpiece/tokenizer.json"), qformer).unwrap();
    let processor = json!({ "size": { "height": 56, "width": 56 }, "resample": 3 });
    fs::write(dir.join("preprocessor_config.json"), processor.to_string()).unwrap();
}
