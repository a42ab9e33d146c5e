//! PEFT's files of a LoRA adapter: a folder with `adapter_config.json` and `adapter_model.safetensors`, whose tensors are called
//! `base_model.model.MODULE.lora_A.weight` `(rank, n_in)` and `….lora_B.weight` `(n_out, rank)`. Experts, which PEFT does not have, are written as CoIN's
//! code names them: `….lora_A.loraA.E.mlp.weight`, `….lora_B.loraB.E.mlp.weight` and `….lora_router.weight` `(n_experts, n_in)`.

use crate::config::LoraConfig;
use crate::error::{AdapterError, Result};
use crate::lora::{Factors, Lora, OwnedFactors};
use crate::module::Module;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const CONFIG: &str = "adapter_config.json";
const TENSORS: &str = "adapter_model.safetensors";
const PREFIX: &str = "base_model.model.";

/// The largest files that are read, in bytes.
const MAX_CONFIG: u64 = 1 << 24;
const MAX_TENSORS: u64 = 1 << 34;

/// The keys of a configuration that decide what is computed. All others are PEFT's own affair.
#[derive(Debug, Deserialize)]
struct Config {
    peft_type: String,
    lora_alpha: f64,
    #[serde(default)]
    use_rslora: bool,
    #[serde(default)]
    alpha_pattern: BTreeMap<String, Value>,
    #[serde(default)]
    bias: Option<String>,
    #[serde(default)]
    modules_to_save: Option<Vec<String>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Switches that change what an adapter computes, none of which is known here.
const SWITCHES: [&str; 5] = ["use_dora", "use_qalora", "use_bdlora", "fan_in_fan_out", "lora_bias"];

/// Beginnings of `init_lora_weights` under which PEFT takes something off the base model's weights.
const CHANGES_BASE: [&str; 4] = ["pissa", "olora", "loftq", "corda"];

/// Keys that, if they are set, limit an adapter to some tokens, or add to it what is no linear map's.
const PARTS: [&str; 3] = ["alora_invocation_tokens", "trainable_token_indices", "target_parameters"];

/// Reads the folder of an adapter.
///
/// Ranks are those of the tensors, so that `rank_pattern` need not be understood; the scale of each is `lora_alpha/rank`, with `use_rslora`
/// `lora_alpha/√rank`.
///
/// # Errors
/// [`AdapterError::Io`] for a missing or too large file; [`AdapterError::File`] that names the key or tensor for another kind of adapter (DoRA,
/// trained biases or whole modules), and for a damaged file.
pub fn read(dir: &Path) -> Result<Lora> {
    let config = read_config(&dir.join(CONFIG))?;
    let path = dir.join(TENSORS);
    let bytes = read_file(&path, MAX_TENSORS)?;
    let wrong = |what: String| AdapterError::File { path: path.clone(), what };
    if let Some(what) = fwd_files::foreign(&bytes) {
        return Err(wrong(what.to_owned()));
    }
    let tensors = SafeTensors::deserialize(&bytes)
        .map_err(|e| wrong(format!("not a valid safetensors file: {e}; copy it again")))?;
    let mut halves: BTreeMap<String, [Option<TensorView<'_>>; 2]> = BTreeMap::new();
    for (name, tensor) in tensors.tensors() {
        let inside = name.strip_prefix(PREFIX);
        let half = inside.and_then(|name| {
            let of = |(i, end): (usize, &str)| Some((name.strip_suffix(end)?.to_owned(), i));
            [".lora_A.weight", ".lora_B.weight"].into_iter().enumerate().find_map(of)
        });
        let Some((module, i)) = half else {
            return Err(wrong(format!(
                "tensor `{name:.200}` is neither `{PREFIX}MODULE.lora_A.weight` nor `….lora_B.weight`; adapters of linear maps alone are read"
            )));
        };
        halves.entry(module).or_default()[i] = Some(tensor);
    }
    if halves.is_empty() {
        return Err(wrong("it has no tensors".to_owned()));
    }
    let mut factors = Vec::with_capacity(halves.len());
    for (name, [a, b]) in halves {
        let (Some(a), Some(b)) = (a, b) else {
            return Err(wrong(format!("module `{name:.200}` has only one of lora_A and lora_B")));
        };
        let (&[rank, n_in], &[n_out, of_b]) = (a.shape(), b.shape()) else {
            return Err(wrong(format!(
                "the factors of `{name:.200}` are {:?} and {:?}",
                a.shape(),
                b.shape()
            )));
        };
        if rank == 0 || rank != of_b || n_in * n_out == 0 {
            return Err(wrong(format!(
                "the factors of `{name:.200}` are {:?} and {:?}, which have no common rank",
                a.shape(),
                b.shape()
            )));
        }
        let values = |part: &str, tensor: &TensorView<'_>| {
            floats(tensor).map_err(|what| wrong(format!("lora_{part} of `{name:.200}` {what}")))
        };
        let (a, b) = (values("A", &a)?, values("B", &b)?);
        let of_rank = rank as f64;
        let scale = config.lora_alpha / if config.use_rslora { of_rank.sqrt() } else { of_rank };
        let module = Module { name, n_out, n_in };
        factors.push(OwnedFactors { module, rank, scale, a, b, router: Vec::new() });
    }
    Ok(Lora::of_factors(factors.into_iter()))
}

/// Writes the folder of an adapter that was made with this configuration, as PEFT's `save_pretrained` would. The modules have the names of the
/// model's checkpoint. Each file is written whole; the tensors come first. An adapter of experts gets the names of CoIN's files.
///
/// # Errors
/// [`AdapterError::Config`] if rank or scale are not those of the configuration, and for a rank that is no multiple of the experts;
/// [`AdapterError::Io`].
pub fn write(dir: &Path, lora: &Lora, config: &LoraConfig) -> Result<()> {
    let is_other =
        |f: Factors<'_>| f.rank != config.rank || (f.scale - config.scale()).abs() > 1e-12 * config.scale();
    if let Some((module, _, factors)) = lora.all_factors().find(|(_, _, factors)| is_other(*factors)) {
        return Err(AdapterError::Config(format!(
            "the adapter of `{}` has rank {} and scale {}, the configuration says {} and {}",
            module.name,
            factors.rank,
            factors.scale,
            config.rank,
            config.scale()
        )));
    }
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|x| x.to_le_bytes()).collect() };
    let mut tensors = Vec::new();
    let divides = |(module, _, f): &(&Module, _, Factors<'_>)| {
        let n_experts = f.router.len() / module.n_in;
        n_experts == 0 || f.rank.is_multiple_of(n_experts)
    };
    if let Some((module, _, factors)) = lora.all_factors().find(|part| !divides(part)) {
        return Err(AdapterError::Config(format!(
            "the rank {} of the adapter of `{}` cannot be divided among its experts",
            factors.rank, module.name
        )));
    }
    let mut n_experts = 0;
    for (module, _, Factors { a, b, rank, router, .. }) in lora.all_factors() {
        let (n_in, n_out) = (module.n_in, module.n_out);
        let key = |part: &str| format!("{PREFIX}{}.lora_{part}.weight", module.name);
        if router.is_empty() {
            tensors.push((key("A"), vec![rank, n_in], bytes(a)));
            tensors.push((key("B"), vec![n_out, rank], bytes(b)));
            continue;
        }
        n_experts = router.len() / n_in;
        let n_each = rank / n_experts;
        for (e, a) in a.chunks_exact(n_each * n_in).enumerate() {
            let columns: Vec<f32> =
                b.chunks_exact(rank).flat_map(|row| &row[e * n_each..][..n_each]).copied().collect();
            tensors.push((key(&format!("A.loraA.{e}.mlp")), vec![n_each, n_in], bytes(a)));
            tensors.push((key(&format!("B.loraB.{e}.mlp")), vec![n_out, n_each], bytes(&columns)));
        }
        tensors.push((key("router"), vec![n_experts, n_in], bytes(router)));
    }
    let path = dir.join(TENSORS);
    let broken =
        |e: safetensors::SafeTensorError| AdapterError::File { path: path.clone(), what: e.to_string() };
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(broken)?))
        })
        .collect::<Result<Vec<_>>>()?;
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let file = safetensors::serialize(views, Some(format)).map_err(broken)?;
    let io = |path: &Path| {
        let path: PathBuf = path.into();
        move |source| AdapterError::Io { path, source }
    };
    fwd_files::write_atomically(&path, &file).map_err(io(&path))?;
    let names: Vec<&str> = lora.modules().map(|module| module.name.as_str()).collect();
    let kind = if n_experts == 0 { "LORA" } else { "MOE_LORA_CoIN" };
    let mut json = json!({
        "peft_type": kind, "task_type": null, "base_model_name_or_path": null, "inference_mode": true,
        "r": config.rank, "lora_alpha": config.alpha, "use_rslora": config.use_rslora, "lora_dropout": 0.0,
        "bias": "none", "fan_in_fan_out": false, "target_modules": names,
    });
    if n_experts > 0 {
        json["expert_num"] = n_experts.into();
    }
    let path = dir.join(CONFIG);
    fwd_files::write_atomically(&path, format!("{json:#}\n").as_bytes()).map_err(io(&path))
}

fn read_file(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    fwd_files::read(path, max_bytes).map_err(|source| AdapterError::Io { path: path.into(), source })
}

fn read_config(path: &Path) -> Result<Config> {
    let wrong = |what: String| AdapterError::File { path: path.into(), what };
    let bytes = read_file(path, MAX_CONFIG)?;
    let config: Config = serde_json::from_slice(&bytes).map_err(|e| wrong(e.to_string()))?;
    let refuse = |what: String| Err(wrong(format!("{what}, which is not supported")));
    if config.peft_type != "LORA" {
        return refuse(format!("peft_type is {:?}", config.peft_type));
    }
    if let Some(name) = SWITCHES.iter().find(|name| config.rest.get(**name) == Some(&Value::Bool(true))) {
        return refuse(format!("{name} is true"));
    }
    let init = config.rest.get("init_lora_weights").and_then(Value::as_str).unwrap_or_default();
    if CHANGES_BASE.iter().any(|kind| init.starts_with(kind)) {
        return refuse(format!("init_lora_weights is {init:?}, which changes the weights of the base model"));
    }
    if let Some(key) = PARTS.iter().find(|key| config.rest.get(**key).is_some_and(|value| !value.is_null())) {
        return refuse(format!("{key} is set"));
    }
    if !config.alpha_pattern.is_empty() {
        return refuse("alpha_pattern gives some modules another alpha".to_owned());
    }
    if let Some(bias) = config.bias.filter(|bias| bias != "none") {
        return refuse(format!("bias is {bias:?}: biases were trained too"));
    }
    if let Some(modules) = config.modules_to_save.filter(|modules| !modules.is_empty()) {
        return refuse(format!("modules_to_save is {modules:?}: whole modules were trained too"));
    }
    if !(config.lora_alpha.is_finite() && config.lora_alpha > 0.0) {
        return Err(wrong(format!("lora_alpha is {}; it must be above 0", config.lora_alpha)));
    }
    Ok(Config { bias: None, modules_to_save: None, ..config })
}

/// The elements in f32, or what is wrong with them.
fn floats(tensor: &TensorView<'_>) -> Result<Vec<f32>, String> {
    let data = tensor.data();
    let values: Vec<f32> = match tensor.dtype() {
        Dtype::F32 => data.as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        Dtype::BF16 => data.as_chunks::<2>().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
        Dtype::F16 => data.as_chunks::<2>().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
        other => return Err(format!("is of type {other:?}; F32, BF16 and F16 are read")),
    };
    if values.iter().all(|x| x.is_finite()) {
        Ok(values)
    } else {
        Err("has values that are not finite".to_owned())
    }
}
