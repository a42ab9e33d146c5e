//! Reading the reference sets and collecting differences.

#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses a part of this; a helper of a test may panic.

use candle_core::{DType, Device, Tensor, safetensors};
use fwd_models::{Blip, CausalLm, Checkpoint, Llava, LlavaConfig, ModelConfig, T5, TextConfig, WeightDtype};
use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;
use std::path::{Path, PathBuf};

/// The folder of fixtures of this crate.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// One folder with a checkpoint and the tensors that transformers computed with it.
pub(crate) struct Set {
    pub(crate) name: String,
    pub(crate) dir: PathBuf,
    pub(crate) meta: serde_json::Value,
    io: HashMap<String, Tensor>,
}

/// BLIP-2 and InstructBLIP with FlanT5.
pub(crate) const BLIP_T5: [&str; 2] = ["blip2", "instructblip"];

/// The folder that `FWD_ORACLE_DIR` names, if it does.
pub(crate) fn elsewhere() -> Option<PathBuf> {
    // Cargo runs tests in the folder of their crate; a relative path is meant from the root of the workspace.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("FWD_ORACLE_DIR").map(|dir| workspace.join(dir))
}

/// All sets of these kinds among the fixtures, of which there is at least one of each kind, or in `FWD_ORACLE_DIR`, which may have none.
pub(crate) fn sets_of(kinds: &[&str]) -> Vec<Set> {
    let root = elsewhere().unwrap_or_else(|| fixtures().join("sets"));
    let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let is_set = |dir: &PathBuf| dir.join("io.safetensors").exists() && dir.join("meta.json").exists();
    let mut dirs: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).filter(is_set).collect();
    dirs.sort();
    assert!(!dirs.is_empty(), "no folder with io.safetensors in {}", root.display());
    let of_kind: Vec<(String, PathBuf)> = dirs
        .into_iter()
        .map(|dir| (kind(&read_meta(&dir)), dir))
        .filter(|(kind, _)| kinds.contains(&kind.as_str()))
        .collect();
    if elsewhere().is_none() {
        for wanted in kinds {
            assert!(of_kind.iter().any(|(kind, _)| kind == wanted), "no set of kind `{wanted}`");
        }
    }
    of_kind.iter().map(|(_, dir)| Set::open(dir)).collect()
}

fn read_meta(dir: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(dir.join("meta.json")).unwrap()).unwrap()
}

/// What a set is about: its `kind`, which for adapters and GGUF files is that of the model alone or absent.
fn kind(meta: &serde_json::Value) -> String {
    let has = |key: &str| !meta[key].is_null();
    let of_model = meta["kind"].as_str().unwrap_or_default();
    match () {
        () if has("lora") => format!("lora-{of_model}"),
        () if has("num_virtual_tokens") => format!("prompt-{of_model}"),
        () if has("gguf_types") => "gguf-llama".into(),
        () => of_model.into(),
    }
}

impl Set {
    pub(crate) fn open(dir: &Path) -> Self {
        let io = safetensors::load(dir.join("io.safetensors"), &Device::Cpu).unwrap();
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        Self { name, dir: dir.into(), meta: read_meta(dir), io }
    }

    /// What the set is about.
    pub(crate) fn kind(&self) -> String {
        kind(&self.meta)
    }

    pub(crate) fn io(&self, name: &str) -> Tensor {
        self.io.get(name).unwrap_or_else(|| panic!("{}: no tensor `{name}`", self.name)).clone()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.io.contains_key(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.io.keys().map(String::as_str)
    }

    pub(crate) fn model(&self, config: &str) -> Blip {
        self.model_in(config, WeightDtype::F32)
    }

    pub(crate) fn model_in(&self, config: &str, dtype: WeightDtype) -> Blip {
        let config = ModelConfig::read(&self.dir.join(config)).unwrap();
        Blip::load_with(&self.dir, config, dtype, &Device::Cpu).unwrap()
    }

    /// The ids of generation that the reference was made with: ends, and padding.
    pub(crate) fn eos_and_pad(&self) -> (u32, u32) {
        let ids: Vec<u32> = serde_json::from_value(self.meta["bos_eos_pad"].clone()).unwrap();
        (ids[1], ids[2])
    }

    /// The LLaVA of the set, with a changed configuration.
    pub(crate) fn llava(&self, config: &str, change: impl FnOnce(&mut LlavaConfig)) -> Llava {
        let mut config = LlavaConfig::read(&self.dir.join(config)).unwrap();
        change(&mut config);
        Llava::load_with(&self.dir, config, WeightDtype::F32, &Device::Cpu).unwrap()
    }

    /// The decoder-only language model alone, with its configuration.
    pub(crate) fn causal(&self, config: &str) -> (CausalLm, TextConfig) {
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.dir.join(config)).unwrap()).unwrap();
        let (config, prefix) = if json["text_config"].is_null() {
            (TextConfig::read(&self.dir.join(config)).unwrap(), "")
        } else {
            let path = self.dir.join(config);
            let is_llava = json["model_type"] == "llava";
            let text = if is_llava {
                LlavaConfig::read(&path).unwrap().text
            } else {
                ModelConfig::read(&path).unwrap().text
            };
            (text, "language_model")
        };
        let mut checkpoint = Checkpoint::open(&self.dir, WeightDtype::F32, &Device::Cpu).unwrap();
        (CausalLm::new(&config, &mut checkpoint, prefix).unwrap(), config)
    }

    /// The T5 language model alone.
    pub(crate) fn t5(&self, config: &str) -> T5 {
        let config = ModelConfig::read(&self.dir.join(config)).unwrap();
        let mut checkpoint = Checkpoint::open(&self.dir, WeightDtype::F32, &Device::Cpu).unwrap();
        let TextConfig::T5(text) = &config.text else { panic!("{}: the language model is no T5", self.name) };
        T5::new(text, &mut checkpoint, "language_model").unwrap()
    }
}

/// Which test checks a tensor of a multimodal or a decoder-only set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// None: it is put in.
    Input,
    Stages,
    Prompts,
    Training,
    Generation,
}

impl Share {
    /// The share of a tensor; what belongs to no other is a stage.
    pub(crate) fn of(name: &str) -> Self {
        const INPUTS: [&str; 8] = [
            "pixel_values",
            "qformer_input_ids",
            "qformer_attention_mask",
            "input_ids",
            "attention_mask",
            "labels",
            "soft.prompt",
            "soft_shared.prompt",
        ];
        let of_rows = ["right.", "left.", "gen."].iter().find_map(|rows| name.strip_prefix(rows));
        let group = name.rsplit_once('.').map_or("", |(group, _)| group);
        match name {
            _ if INPUTS.contains(&name) || of_rows.is_some_and(|part| INPUTS[3..6].contains(&part)) => {
                Self::Input
            }
            _ if group.ends_with("greedy") || name.starts_with("beam") || name.starts_with("noprompt.") => {
                Self::Generation
            }
            _ if name.starts_with("soft") => Self::Prompts,
            _ if name.starts_with("train") => Self::Training,
            _ => Self::Stages,
        }
    }
}

/// Differences of all sets, so that one run shows them all.
#[derive(Default)]
pub(crate) struct Report {
    set: String,
    n_checked: usize,
    /// What was compared since a set was entered; what stands behind a comma says only where.
    checked: BTreeSet<String>,
    failures: Vec<String>,
}

pub(crate) fn abs_max(tensor: &Tensor) -> f64 {
    tensor
        .to_dtype(DType::F64)
        .unwrap()
        .abs()
        .unwrap()
        .flatten_all()
        .unwrap()
        .max(0)
        .unwrap()
        .to_scalar()
        .unwrap()
}

/// Largest absolute difference; NaN if any element is NaN.
pub(crate) fn max_diff(ours: &Tensor, want: &Tensor) -> f64 {
    let (a, b) = (ours.to_dtype(DType::F64).unwrap(), want.to_dtype(DType::F64).unwrap());
    let diff: Vec<f64> = (a - b).unwrap().abs().unwrap().flatten_all().unwrap().to_vec1().unwrap();
    diff.into_iter().fold(0.0, |m, d| if d.is_nan() || m.is_nan() { f64::NAN } else { m.max(d) })
}

impl Report {
    pub(crate) fn enter(&mut self, set: &str) {
        self.set = set.into();
        self.checked.clear();
    }

    fn count(&mut self, name: &str) {
        self.n_checked += 1;
        self.checked.insert(name.split(", ").next().unwrap_or(name).into());
    }

    /// Fails for every tensor of a set that is in this share and was not compared with anything.
    pub(crate) fn covers(&mut self, set: &Set, is_in_share: impl Fn(&str) -> bool) {
        for name in set.names().filter(|name| is_in_share(name)) {
            if !self.checked.contains(name) {
                self.failures.push(format!("{}: nothing checks `{name}`", self.set));
            }
        }
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failures.push(format!("{}: {what}", self.set));
    }

    pub(crate) fn close(&mut self, name: &str, ours: &Tensor, want: &Tensor, tolerance: f64) {
        self.count(name);
        // The queries of BLIP-2 are the same for every sample; transformers keeps one row of them.
        let ours = if want.dims().first() == Some(&1) && ours.dims().len() > 1 {
            &ours.narrow(0, 0, 1).unwrap()
        } else {
            ours
        };
        if ours.dims() != want.dims() {
            return self.fail(format!("{name}: shape {:?}, expected {:?}", ours.shape(), want.shape()));
        }
        let diff = max_diff(ours, want);
        if diff.is_nan() || diff > tolerance {
            self.fail(format!(
                "{name}: off by {diff:.2e}, allowed {tolerance:.2e} (|want| up to {:.2e})",
                abs_max(want)
            ));
        }
    }

    pub(crate) fn same<T: PartialEq + Debug + ?Sized>(&mut self, name: &str, ours: &T, want: &T) {
        self.count(name);
        if ours != want {
            self.fail(format!("{name}: {ours:?}, expected {want:?}"));
        }
    }

    pub(crate) fn finish(self) {
        // A folder from elsewhere need not have sets of every kind.
        assert!(self.n_checked > 0 || (self.set.is_empty() && elsewhere().is_some()), "nothing was checked");
        assert!(
            self.failures.is_empty(),
            "{} of {} checks failed:\n{}",
            self.failures.len(),
            self.n_checked,
            self.failures.join("\n")
        );
    }
}
