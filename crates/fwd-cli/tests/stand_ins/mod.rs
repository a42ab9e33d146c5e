//! Small files of random numbers in the layout of those that `cargo xtask fetch small` fetches: an ONNX file with a DINOv2 and a head, a BERT,
//! and a LLaMA in a GGUF file with its vocabulary.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use half::f16;
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::Path;

/// Widths of the three models.
const VISION: usize = 64;
const BERT: usize = 32;
const LANGUAGE: usize = 64;

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// From −scale to scale.
    fn floats(&mut self, n: usize, scale: f32) -> Vec<f32> {
        (0..n).map(|_| scale * (self.next() as f32 / (1u64 << 30) as f32 - 1.0)).collect()
    }
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// A DINOv2 of two layers for images of 5 × 5 patches, with a head behind it that is to be left out.
pub(crate) fn write_onnx(path: &Path) {
    let (mut numbers, mut graph, d) = (Numbers(1), Vec::new(), VISION);
    let mut tensor = |graph: &mut Vec<u8>, name: &str, shape: &[usize], scale: f32, around: f32| {
        let values: Vec<f32> =
            numbers.floats(shape.iter().product(), scale).into_iter().map(|v| v + around).collect();
        let mut message = Vec::new();
        shape.iter().for_each(|&side| number(&mut message, 1, side as u64));
        number(&mut message, 2, 1);
        field(&mut message, 8, name.as_bytes());
        field(&mut message, 9, &bytes_of(&values));
        field(graph, 5, &message);
    };
    let node = |graph: &mut Vec<u8>, name: &str, inputs: [&str; 2]| {
        let mut message = Vec::new();
        inputs.iter().for_each(|input| field(&mut message, 1, input.as_bytes()));
        field(&mut message, 2, b"y");
        field(&mut message, 3, name.as_bytes());
        field(&mut message, 4, b"MatMul");
        field(graph, 1, &message);
    };
    tensor(&mut graph, "backbone.embeddings.cls_token", &[1, 1, d], 1.0, 0.0);
    tensor(&mut graph, "backbone.embeddings.patch_embeddings.projection.weight", &[d, 3, 14, 14], 0.05, 0.0);
    tensor(&mut graph, "backbone.embeddings.patch_embeddings.projection.bias", &[d], 0.1, 0.0);
    tensor(&mut graph, "onnx::Concat_7", &[1, 1, d], 0.5, 0.0);
    tensor(&mut graph, "onnx::Reshape_8", &[1, 25, d], 0.5, 0.0);
    for i in 0..2 {
        let layer = format!("encoder.layer.{i}");
        for norm in ["norm1", "norm2"] {
            tensor(&mut graph, &format!("backbone.{layer}.{norm}.weight"), &[d], 0.1, 1.0);
            tensor(&mut graph, &format!("backbone.{layer}.{norm}.bias"), &[d], 0.1, 0.0);
        }
        for (map, n_in, n_out) in [
            ("attention.attention.query", d, d),
            ("attention.attention.key", d, d),
            ("attention.attention.value", d, d),
            ("attention.output.dense", d, d),
            ("mlp.fc1", d, 4 * d),
            ("mlp.fc2", 4 * d, d),
        ] {
            let stored = format!("onnx::MatMul_{i}{map}");
            tensor(&mut graph, &stored, &[n_in, n_out], 0.2, 0.0);
            let path = format!("/backbone/encoder/layer.{i}/{}/MatMul", map.replace('.', "/"));
            node(&mut graph, &path, ["x", &stored]);
            tensor(&mut graph, &format!("backbone.{layer}.{map}.bias"), &[n_out], 0.1, 0.0);
        }
        for scale in ["layer_scale1", "layer_scale2"] {
            tensor(&mut graph, &format!("backbone.{layer}.{scale}.lambda1"), &[d], 0.5, 1.0);
        }
    }
    tensor(&mut graph, "backbone.layernorm.weight", &[d], 0.1, 1.0);
    tensor(&mut graph, "backbone.layernorm.bias", &[d], 0.1, 0.0);
    tensor(&mut graph, "decoder.final_conv.weight", &[1, d, 1, 1], 1.0, 0.0);
    let mut model = Vec::new();
    number(&mut model, 1, 8);
    field(&mut model, 7, &graph);
    fs::write(path, model).unwrap();
}

/// A number of a protocol buffer.
fn number(out: &mut Vec<u8>, field: u64, value: u64) {
    varint(out, field << 3);
    varint(out, value);
}

/// Bytes of a protocol buffer.
fn field(out: &mut Vec<u8>, field: u64, bytes: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, bytes.len() as u64);
    out.extend(bytes);
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A BERT of four layers with a pooler, and its tokenizer.
pub(crate) fn write_bert(dir: &Path) {
    let (mut numbers, d) = (Numbers(2), BERT);
    let tokenizers = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fwd-data/tests/fixtures/tokenizers");
    let tokenizer = fs::read(tokenizers.join("bert_wordpiece/tokenizer.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&tokenizer).unwrap();
    let n_words = file["model"]["vocab"].as_object().unwrap().len();
    let mut arrays: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut add = |name: &str, shape: &[usize], scale: f32, around: f32| {
        let values: Vec<f32> =
            numbers.floats(shape.iter().product(), scale).into_iter().map(|v| v + around).collect();
        arrays.push((name.to_owned(), shape.to_vec(), bytes_of(&values)));
    };
    for (name, n) in [("word", n_words), ("position", 40), ("token_type", 2)] {
        add(&format!("embeddings.{name}_embeddings.weight"), &[n, d], 0.5, 0.0);
    }
    add("embeddings.LayerNorm.weight", &[d], 0.1, 1.0);
    add("embeddings.LayerNorm.bias", &[d], 0.1, 0.0);
    for i in 0..4 {
        for (map, n_out, n_in) in [
            ("attention.self.query", d, d),
            ("attention.self.key", d, d),
            ("attention.self.value", d, d),
            ("attention.output.dense", d, d),
            ("intermediate.dense", 2 * d, d),
            ("output.dense", d, 2 * d),
        ] {
            add(&format!("encoder.layer.{i}.{map}.weight"), &[n_out, n_in], 0.3, 0.0);
            add(&format!("encoder.layer.{i}.{map}.bias"), &[n_out], 0.1, 0.0);
        }
        for norm in ["attention.output", "output"] {
            add(&format!("encoder.layer.{i}.{norm}.LayerNorm.weight"), &[d], 0.1, 1.0);
            add(&format!("encoder.layer.{i}.{norm}.LayerNorm.bias"), &[d], 0.1, 0.0);
        }
    }
    add("pooler.dense.weight", &[d, d], 0.3, 0.0);
    let ids: Vec<u8> = (0..40i64).flat_map(i64::to_le_bytes).collect();
    let position_ids = TensorView::new(Dtype::I64, vec![1, 40], &ids).unwrap();
    let views = arrays.iter().map(|(name, shape, bytes)| {
        (name.as_str(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let views = views.chain([("embeddings.position_ids", position_ids)]);
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    fs::write(dir.join("tokenizer.json"), tokenizer).unwrap();
    let config = r#"{"num_attention_heads": 2, "hidden_act": "gelu", "layer_norm_eps": 1e-12}"#;
    fs::write(dir.join("config.json"), config).unwrap();
}

/// A LLaMA of one layer in blocks of four bits, with a byte-level vocabulary.
pub(crate) fn write_gguf(path: &Path) {
    const TEXT: u32 = 8;
    let tokens = vocabulary();
    let (d, hidden) = (LANGUAGE as u32, 96u32);
    let mut values: Vec<(String, Vec<u8>)> = Vec::new();
    let whole = |n: u32| [&4u32.to_le_bytes()[..], &n.to_le_bytes()].concat();
    let float = |x: f32| [&6u32.to_le_bytes()[..], &x.to_le_bytes()].concat();
    let text = |t: &str| [&TEXT.to_le_bytes()[..], &string(t)].concat();
    let list = |kind: u32, items: Vec<Vec<u8>>| {
        let head =
            [&9u32.to_le_bytes()[..], &kind.to_le_bytes(), &(items.len() as u64).to_le_bytes()].concat();
        [head, items.concat()].concat()
    };
    values.push(("general.architecture".into(), text("llama")));
    for (key, n) in [
        ("block_count", 1),
        ("context_length", 256),
        ("embedding_length", d),
        ("feed_forward_length", hidden),
        ("attention.head_count", 2),
        ("attention.head_count_kv", 1),
        ("rope.dimension_count", d / 2),
        ("vocab_size", tokens.len() as u32),
    ] {
        values.push((format!("llama.{key}"), whole(n)));
    }
    values.push(("llama.rope.freq_base".into(), float(10000.0)));
    values.push(("llama.attention.layer_norm_rms_epsilon".into(), float(1e-5)));
    values.push(("tokenizer.ggml.model".into(), text("gpt2")));
    values.push(("tokenizer.ggml.pre".into(), text("smollm")));
    values.push((
        "tokenizer.ggml.tokens".into(),
        list(TEXT, tokens.iter().map(|token| string(token)).collect()),
    ));
    let kinds = (0..tokens.len()).map(|id| if id < 3 { 3u32 } else { 1 }.to_le_bytes().to_vec());
    values.push(("tokenizer.ggml.token_type".into(), list(5, kinds.collect())));
    values.push(("tokenizer.ggml.merges".into(), list(TEXT, vec![string("e d"), string("\u{120} t")])));
    for (key, id) in [("bos", 1), ("eos", 2), ("padding", 2)] {
        values.push((format!("tokenizer.ggml.{key}_token_id"), whole(id)));
    }
    // Sides from the innermost on; blocks of Q4_1, for the embeddings Q8_0, and f32 for norms.
    let (d, hidden, n_words) = (LANGUAGE, hidden as usize, tokens.len());
    let tensors: [(&str, [usize; 2], u32); 11] = [
        ("token_embd.weight", [d, n_words], 8),
        ("blk.0.attn_norm.weight", [d, 1], 0),
        ("blk.0.attn_q.weight", [d, d], 3),
        ("blk.0.attn_k.weight", [d, d / 2], 3),
        ("blk.0.attn_v.weight", [d, d / 2], 3),
        ("blk.0.attn_output.weight", [d, d], 3),
        ("blk.0.ffn_norm.weight", [d, 1], 0),
        ("blk.0.ffn_gate.weight", [d, hidden], 3),
        ("blk.0.ffn_up.weight", [d, hidden], 3),
        ("blk.0.ffn_down.weight", [hidden, d], 3),
        ("output_norm.weight", [d, 1], 0),
    ];
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((values.len() as u64).to_le_bytes());
    for (key, value) in values {
        out.extend(string(&key));
        out.extend(value);
    }
    let (mut numbers, mut data) = (Numbers(3), Vec::new());
    for &(name, [inner, outer], kind) in &tensors {
        out.extend(string(name));
        let sides = if outer == 1 { vec![inner] } else { vec![inner, outer] };
        out.extend((sides.len() as u32).to_le_bytes());
        sides.iter().for_each(|&side| out.extend((side as u64).to_le_bytes()));
        out.extend(kind.to_le_bytes());
        out.extend((data.len() as u64).to_le_bytes());
        match kind {
            0 => data.extend(bytes_of(&vec![1.0; inner])),
            kind => (0..inner * outer / 32).for_each(|_| data.extend(block(&mut numbers, kind))),
        }
        data.resize(data.len().next_multiple_of(32), 0);
    }
    out.resize(out.len().next_multiple_of(32), 0);
    out.extend(data);
    fs::write(path, out).unwrap();
}

/// A block of 32 numbers from about −0.3 to 0.3: of Q4_1 the step, the least and the nibbles, of Q8_0 the step and the bytes.
fn block(numbers: &mut Numbers, kind: u32) -> Vec<u8> {
    let half = |x: f32| f16::from_f32(x).to_le_bytes();
    if kind == 3 {
        let nibbles = (0..16).map(|_| numbers.next() as u8);
        return [half(0.04), half(-0.3)].concat().into_iter().chain(nibbles).collect();
    }
    half(0.0025).into_iter().chain((0..32).map(|_| numbers.next() as u8)).collect()
}

fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// Three special tokens, the 256 bytes in GPT-2's alphabet, and two words that merges make.
fn vocabulary() -> Vec<String> {
    let is_printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let mut tokens: Vec<String> = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"].map(String::from).to_vec();
    let mut next = 256u32;
    for byte in 0..256u32 {
        let code = if is_printable(&byte) {
            byte
        } else {
            next += 1;
            next - 1
        };
        tokens.push(char::from_u32(code).unwrap().to_string());
    }
    tokens.extend(["ed".to_owned(), "\u{120}t".to_owned()]);
    tokens
}
