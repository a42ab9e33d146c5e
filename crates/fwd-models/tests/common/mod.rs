//! Reading the reference sets and collecting differences.

#![allow(dead_code, clippy::unwrap_used)] // Each test binary uses a part of this; a helper of a test may panic.

use candle_core::{DType, Device, Tensor, safetensors};
use fwd_models::{Blip, Checkpoint, ModelConfig, T5, WeightDtype};
use std::collections::HashMap;
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
    io: HashMap<String, Tensor>,
}

/// All sets of the fixtures, or of `FWD_ORACLE_DIR`; at least one.
pub(crate) fn sets() -> Vec<Set> {
    // Cargo runs tests in the folder of their crate; a relative path is meant from the root of the workspace.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let root =
        std::env::var_os("FWD_ORACLE_DIR").map_or_else(|| fixtures().join("sets"), |dir| workspace.join(dir));
    let entries = std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
    let mut dirs: Vec<PathBuf> =
        entries.map(|e| e.unwrap().path()).filter(|d| d.join("io.safetensors").exists()).collect();
    dirs.sort();
    assert!(!dirs.is_empty(), "no folder with io.safetensors in {}", root.display());
    dirs.iter().map(|dir| Set::open(dir)).collect()
}

impl Set {
    pub(crate) fn open(dir: &Path) -> Self {
        let io = safetensors::load(dir.join("io.safetensors"), &Device::Cpu).unwrap();
        Self { name: dir.file_name().unwrap().to_string_lossy().into_owned(), dir: dir.into(), io }
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

    /// The language model alone.
    pub(crate) fn t5(&self, config: &str) -> T5 {
        let config = ModelConfig::read(&self.dir.join(config)).unwrap();
        let mut checkpoint = Checkpoint::open(&self.dir, WeightDtype::F32, &Device::Cpu).unwrap();
        T5::new(&config.text, &mut checkpoint, "language_model").unwrap()
    }
}

/// Differences of all sets, so that one run shows them all.
#[derive(Default)]
pub(crate) struct Report {
    set: String,
    n_checked: usize,
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
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.failures.push(format!("{}: {what}", self.set));
    }

    pub(crate) fn close(&mut self, name: &str, ours: &Tensor, want: &Tensor, tolerance: f64) {
        self.n_checked += 1;
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
        self.n_checked += 1;
        if ours != want {
            self.fail(format!("{name}: {ours:?}, expected {want:?}"));
        }
    }

    pub(crate) fn finish(self) {
        assert!(self.n_checked > 0, "nothing was checked");
        assert!(
            self.failures.is_empty(),
            "{} of {} checks failed:\n{}",
            self.failures.len(),
            self.n_checked,
            self.failures.join("\n")
        );
    }
}
