//! The parameters of each architecture by the names that Hub files have, with sane sizes: weights with variance 1/n_in, norms 1, small
//! biases.

use super::kind::{Kind, Language, size};
use super::random::Fill;
use anyhow::Result;
use serde_json::Value;

/// A parameter of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Its name in a safetensors file.
    pub name: String,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// What its elements are.
    pub fill: Fill,
    /// Whether it belongs to the language model.
    pub is_language: bool,
}

impl Parameter {
    /// The number of its elements.
    pub fn n_elements(&self) -> usize {
        self.shape.iter().product()
    }
}

const BIAS: Fill = Fill::Normal(0.01);

/// Collects parameters below a prefix.
struct List {
    all: Vec<Parameter>,
    is_language: bool,
}

impl List {
    fn push(&mut self, name: String, shape: &[usize], fill: Fill) {
        self.all.push(Parameter { name, shape: shape.into(), fill, is_language: self.is_language });
    }

    /// A weight of a linear map or a convolution, `(n_out, …)`.
    fn weight(&mut self, name: String, shape: &[usize]) {
        let n_in: usize = shape[1..].iter().product();
        self.push(name, shape, Fill::Normal((n_in as f32).powf(-0.5)));
    }

    /// `name.weight` of shape `(n_out, n_in)` and `name.bias`.
    fn linear(&mut self, name: &str, n_out: usize, n_in: usize) {
        self.weight(format!("{name}.weight"), &[n_out, n_in]);
        self.push(format!("{name}.bias"), &[n_out], BIAS);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.push(format!("{name}.weight"), &[width], Fill::One);
    }

    fn layer_norm(&mut self, name: &str, width: usize) {
        self.norm(name, width);
        self.push(format!("{name}.bias"), &[width], BIAS);
    }
}

/// All parameters of a checkpoint, in the order in which they are written.
pub(crate) fn parameters(kind: Kind, config: &Value) -> Result<Vec<Parameter>> {
    let mut list = List { all: Vec::new(), is_language: false };
    let (vision, text) = (&config["vision_config"], &config["text_config"]);
    match kind {
        Kind::Dinov2Small => dinov2(&mut list, config)?,
        Kind::SmolLm2_135m => {
            list.is_language = true;
            llama(&mut list, config, "")?;
        }
        Kind::FlanT5Base => {
            list.is_language = true;
            t5(&mut list, config, "")?;
        }
        Kind::Llava1_5_7b => {
            clip(&mut list, vision, "vision_tower.vision_model")?;
            let (width, features) = (size(text, "hidden_size")?, size(vision, "hidden_size")?);
            list.linear("multi_modal_projector.linear_1", width, features);
            list.linear("multi_modal_projector.linear_2", width, width);
            list.is_language = true;
            llama(&mut list, text, "language_model.")?;
        }
        _ => {
            let queries =
                [1, size(config, "num_query_tokens")?, size(&config["qformer_config"], "hidden_size")?];
            list.push("query_tokens".into(), &queries, Fill::Normal(0.5));
            eva(&mut list, vision)?;
            qformer(&mut list, &config["qformer_config"], kind.is_instructblip())?;
            let width = if kind.language() == Some(Language::T5) { "d_model" } else { "hidden_size" };
            list.linear("language_projection", size(text, width)?, queries[2]);
            list.is_language = true;
            match kind.language() {
                Some(Language::Opt) => opt(&mut list, text)?,
                Some(Language::Llama) => llama(&mut list, text, "language_model.")?,
                _ => t5(&mut list, text, "language_model.")?,
            }
        }
    }
    Ok(list.all)
}

/// The number of patches of an image.
fn n_patches(config: &Value) -> Result<usize> {
    Ok((size(config, "image_size")? / size(config, "patch_size")?).pow(2))
}

fn eva(list: &mut List, config: &Value) -> Result<()> {
    let (width, ff, patch) =
        (size(config, "hidden_size")?, size(config, "intermediate_size")?, size(config, "patch_size")?);
    list.push("vision_model.embeddings.class_embedding".into(), &[1, 1, width], Fill::Normal(0.1));
    list.push(
        "vision_model.embeddings.position_embedding".into(),
        &[1, n_patches(config)? + 1, width],
        Fill::Normal(0.1),
    );
    list.weight("vision_model.embeddings.patch_embedding.weight".into(), &[width, 3, patch, patch]);
    list.push("vision_model.embeddings.patch_embedding.bias".into(), &[width], BIAS);
    for layer in 0..size(config, "num_hidden_layers")? {
        let at = format!("vision_model.encoder.layers.{layer}");
        list.layer_norm(&format!("{at}.layer_norm1"), width);
        list.linear(&format!("{at}.self_attn.qkv"), 3 * width, width);
        list.linear(&format!("{at}.self_attn.projection"), width, width);
        list.layer_norm(&format!("{at}.layer_norm2"), width);
        list.linear(&format!("{at}.mlp.fc1"), ff, width);
        list.linear(&format!("{at}.mlp.fc2"), width, ff);
    }
    list.layer_norm("vision_model.post_layernorm", width);
    Ok(())
}

fn clip(list: &mut List, config: &Value, at: &str) -> Result<()> {
    let (width, ff, patch) =
        (size(config, "hidden_size")?, size(config, "intermediate_size")?, size(config, "patch_size")?);
    list.push(format!("{at}.embeddings.class_embedding"), &[width], Fill::Normal(0.1));
    list.push(
        format!("{at}.embeddings.position_embedding.weight"),
        &[n_patches(config)? + 1, width],
        Fill::Normal(0.1),
    );
    list.weight(format!("{at}.embeddings.patch_embedding.weight"), &[width, 3, patch, patch]);
    list.layer_norm(&format!("{at}.pre_layrnorm"), width);
    for layer in 0..size(config, "num_hidden_layers")? {
        let at = format!("{at}.encoder.layers.{layer}");
        list.layer_norm(&format!("{at}.layer_norm1"), width);
        for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
            list.linear(&format!("{at}.self_attn.{part}"), width, width);
        }
        list.layer_norm(&format!("{at}.layer_norm2"), width);
        list.linear(&format!("{at}.mlp.fc1"), ff, width);
        list.linear(&format!("{at}.mlp.fc2"), width, ff);
    }
    list.layer_norm(&format!("{at}.post_layernorm"), width);
    Ok(())
}

fn dinov2(list: &mut List, config: &Value) -> Result<()> {
    let (width, patch) = (size(config, "hidden_size")?, size(config, "patch_size")?);
    let ff = width * size(config, "mlp_ratio")?;
    list.push("embeddings.cls_token".into(), &[1, 1, width], Fill::Normal(0.1));
    list.push("embeddings.mask_token".into(), &[1, width], Fill::Normal(0.1));
    list.push(
        "embeddings.position_embeddings".into(),
        &[1, n_patches(config)? + 1, width],
        Fill::Normal(0.1),
    );
    list.weight("embeddings.patch_embeddings.projection.weight".into(), &[width, 3, patch, patch]);
    list.push("embeddings.patch_embeddings.projection.bias".into(), &[width], BIAS);
    for layer in 0..size(config, "num_hidden_layers")? {
        let at = format!("encoder.layer.{layer}");
        list.layer_norm(&format!("{at}.norm1"), width);
        for part in ["query", "key", "value"] {
            list.linear(&format!("{at}.attention.attention.{part}"), width, width);
        }
        list.linear(&format!("{at}.attention.output.dense"), width, width);
        list.push(format!("{at}.layer_scale1.lambda1"), &[width], Fill::One);
        list.layer_norm(&format!("{at}.norm2"), width);
        list.linear(&format!("{at}.mlp.fc1"), ff, width);
        list.linear(&format!("{at}.mlp.fc2"), width, ff);
        list.push(format!("{at}.layer_scale2.lambda1"), &[width], Fill::One);
    }
    list.layer_norm("layernorm", width);
    Ok(())
}

/// The Q-Former; that of InstructBLIP reads text too.
fn qformer(list: &mut List, config: &Value, reads_text: bool) -> Result<()> {
    let (width, ff) = (size(config, "hidden_size")?, size(config, "intermediate_size")?);
    let features = size(config, "encoder_hidden_size")?;
    if reads_text {
        let (vocab, positions) = (size(config, "vocab_size")?, size(config, "max_position_embeddings")?);
        list.push("qformer.embeddings.word_embeddings.weight".into(), &[vocab, width], Fill::Normal(0.5));
        list.push(
            "qformer.embeddings.position_embeddings.weight".into(),
            &[positions, width],
            Fill::Normal(0.1),
        );
        list.layer_norm("qformer.embeddings.layernorm", width);
    } else {
        list.layer_norm("qformer.layernorm", width);
    }
    let every = size(config, "cross_attention_frequency")?;
    for layer in 0..size(config, "num_hidden_layers")? {
        let at = format!("qformer.encoder.layer.{layer}");
        let attention = |list: &mut List, name: &str, n_in: usize| {
            list.linear(&format!("{at}.{name}.attention.query"), width, width);
            list.linear(&format!("{at}.{name}.attention.key"), width, n_in);
            list.linear(&format!("{at}.{name}.attention.value"), width, n_in);
            list.linear(&format!("{at}.{name}.output.dense"), width, width);
            list.layer_norm(&format!("{at}.{name}.output.LayerNorm"), width);
        };
        attention(list, "attention", width);
        if layer % every == 0 {
            attention(list, "crossattention", features);
        }
        for suffix in ["_query", ""].into_iter().take(1 + usize::from(reads_text)) {
            list.linear(&format!("{at}.intermediate{suffix}.dense"), ff, width);
            list.linear(&format!("{at}.output{suffix}.dense"), width, ff);
            list.layer_norm(&format!("{at}.output{suffix}.LayerNorm"), width);
        }
    }
    Ok(())
}

fn t5(list: &mut List, config: &Value, prefix: &str) -> Result<()> {
    let (width, ff, vocab) = (size(config, "d_model")?, size(config, "d_ff")?, size(config, "vocab_size")?);
    let (heads, d_kv) = (size(config, "num_heads")?, size(config, "d_kv")?);
    let inner = heads * d_kv;
    list.push(format!("{prefix}shared.weight"), &[vocab, width], Fill::Normal(1.0));
    for (stack, layers) in [("encoder", "num_layers"), ("decoder", "num_decoder_layers")] {
        for layer in 0..size(config, layers)? {
            let at = format!("{prefix}{stack}.block.{layer}.layer");
            let attention = |list: &mut List, at: &str, name: &str| {
                // T5 does not scale its scores; its queries are smaller instead.
                list.push(
                    format!("{at}.{name}.q.weight"),
                    &[inner, width],
                    Fill::Normal(((width * d_kv) as f32).powf(-0.5)),
                );
                list.weight(format!("{at}.{name}.k.weight"), &[inner, width]);
                list.weight(format!("{at}.{name}.v.weight"), &[inner, width]);
                list.weight(format!("{at}.{name}.o.weight"), &[width, inner]);
                list.norm(&format!("{at}.layer_norm"), width);
            };
            attention(list, &format!("{at}.0"), "SelfAttention");
            if layer == 0 {
                let buckets = size(config, "relative_attention_num_buckets")?;
                let name = format!("{at}.0.SelfAttention.relative_attention_bias.weight");
                list.push(name, &[buckets, heads], Fill::Normal(0.5));
            }
            if stack == "decoder" {
                attention(list, &format!("{at}.1"), "EncDecAttention");
            }
            let at = format!("{at}.{}", if stack == "decoder" { 2 } else { 1 });
            list.weight(format!("{at}.DenseReluDense.wi_0.weight"), &[ff, width]);
            list.weight(format!("{at}.DenseReluDense.wi_1.weight"), &[ff, width]);
            list.weight(format!("{at}.DenseReluDense.wo.weight"), &[width, ff]);
            list.norm(&format!("{at}.layer_norm"), width);
        }
        list.norm(&format!("{prefix}{stack}.final_layer_norm"), width);
    }
    list.weight(format!("{prefix}lm_head.weight"), &[vocab, width]);
    Ok(())
}

fn llama(list: &mut List, config: &Value, prefix: &str) -> Result<()> {
    let (width, ff, vocab) =
        (size(config, "hidden_size")?, size(config, "intermediate_size")?, size(config, "vocab_size")?);
    let heads = size(config, "num_attention_heads")?;
    let d_head = width / heads;
    let d_kv = d_head * size(config, "num_key_value_heads")?;
    list.weight(format!("{prefix}model.embed_tokens.weight"), &[vocab, width]);
    for layer in 0..size(config, "num_hidden_layers")? {
        let at = format!("{prefix}model.layers.{layer}");
        list.norm(&format!("{at}.input_layernorm"), width);
        list.weight(format!("{at}.self_attn.q_proj.weight"), &[width, width]);
        list.weight(format!("{at}.self_attn.k_proj.weight"), &[d_kv, width]);
        list.weight(format!("{at}.self_attn.v_proj.weight"), &[d_kv, width]);
        list.weight(format!("{at}.self_attn.o_proj.weight"), &[width, width]);
        list.norm(&format!("{at}.post_attention_layernorm"), width);
        list.weight(format!("{at}.mlp.gate_proj.weight"), &[ff, width]);
        list.weight(format!("{at}.mlp.up_proj.weight"), &[ff, width]);
        list.weight(format!("{at}.mlp.down_proj.weight"), &[width, ff]);
    }
    list.norm(&format!("{prefix}model.norm"), width);
    if config["tie_word_embeddings"] != true {
        list.weight(format!("{prefix}lm_head.weight"), &[vocab, width]);
    }
    Ok(())
}

fn opt(list: &mut List, config: &Value) -> Result<()> {
    let (width, ff, vocab) =
        (size(config, "hidden_size")?, size(config, "ffn_dim")?, size(config, "vocab_size")?);
    let at = "language_model.model.decoder";
    list.weight(format!("{at}.embed_tokens.weight"), &[vocab, width]);
    // OPT's positions begin at row 2.
    let n_positions = size(config, "max_position_embeddings")? + 2;
    list.push(format!("{at}.embed_positions.weight"), &[n_positions, width], Fill::Normal(0.02));
    for layer in 0..size(config, "num_hidden_layers")? {
        let at = format!("{at}.layers.{layer}");
        for part in ["k_proj", "v_proj", "q_proj", "out_proj"] {
            list.linear(&format!("{at}.self_attn.{part}"), width, width);
        }
        list.layer_norm(&format!("{at}.self_attn_layer_norm"), width);
        list.linear(&format!("{at}.fc1"), ff, width);
        list.linear(&format!("{at}.fc2"), width, ff);
        list.layer_norm(&format!("{at}.final_layer_norm"), width);
    }
    list.layer_norm(&format!("{at}.final_layer_norm"), width);
    Ok(())
}
