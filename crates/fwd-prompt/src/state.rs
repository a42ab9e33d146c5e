//! The whole state of a run: in memory, and on disk as one safetensors file beside a JSON manifest.
//!
//! `state.json` names its tensors file by content (`state-<crc32>.safetensors`). The tensors are written first, then the
//! manifest, each to a temporary file that is flushed and renamed: whenever a process dies, the folder holds one whole state.
//!
//! Version 3; the first two had no bounds of rejection.

use crate::config::Config;
use crate::error::{PromptError, Result};
use crate::ledger::{Entry, Interference, SubspaceLedger};
use crate::method::{Memory, MethodConfig, StoredSample};
use crate::model::Dims;
use crate::pool::{PromptPool, initial_values, slot};
use crate::scores::ScoreMatrix;
use fwd_linalg::{AdamWState, Basis};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

const MANIFEST: &str = "state.json";
const VERSION: u32 = 3;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// The task; 0 is pre-training.
    pub task: usize,
    /// What is to be done next.
    pub phase: Phase,
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The pass over the task's embeddings.
    Subspace,
    /// This training step, from 0.
    Train(usize),
    /// The score of this column, from 0.
    Evaluate(usize),
    /// Nothing: all tasks are learnt and scored.
    Done,
}

/// What exists while a task is being learnt. The prompts themselves move at its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Training {
    /// The first prompt that is trained; all after it are.
    pub(crate) first: usize,
    /// `P − P_start`. Kept apart, so that its rounding error is relative to the change, not to the prompts.
    pub(crate) change: Vec<f32>,
    pub(crate) prompts: AdamWState,
    pub(crate) image_keys: AdamWState,
    pub(crate) text_keys: AdamWState,
}

/// The name of a task and how many samples it has: what a saved state knows of its data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskInfo {
    /// The name.
    pub name: String,
    /// Training samples.
    pub n_samples: usize,
}

/// Everything that a run has computed.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    pub(crate) config: Config,
    pub(crate) tasks: Vec<TaskInfo>,
    pub(crate) cursor: Cursor,
    pub(crate) pool: PromptPool,
    pub(crate) ledger: SubspaceLedger,
    pub(crate) training: Option<Training>,
    pub(crate) scores: ScoreMatrix,
    pub(crate) interference: Vec<Vec<Interference>>,
    pub(crate) memory: Memory,
}

impl RunState {
    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Pre-training, then the tasks.
    pub fn tasks(&self) -> &[TaskInfo] {
        &self.tasks
    }

    /// Where the run stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The prompts, as they were when the last task was finished.
    pub fn pool(&self) -> &PromptPool {
        &self.pool
    }

    /// For each prompt of the pool, the task that opened it (from 1). Under a shared pool that is the first one, and later ones
    /// train it as well.
    pub fn owners(&self) -> Vec<usize> {
        let mut owners = Vec::new();
        for t in 1..self.ledger.entries().len() {
            let is_empty = self.tasks.get(t).is_none_or(|task| task.n_samples == 0);
            let n_new = if is_empty { 0 } else { self.config.pool.allocation.n_new(owners.len()) };
            owners.extend(std::iter::repeat_n(t, n_new));
        }
        owners
    }

    /// The prompts as they were before any training, `(M·L_p, d)` row-major, drawn anew from their random streams.
    pub fn initial_prompts(&self) -> Vec<f32> {
        let owners = self.owners();
        let draw = |of_task: &[usize]| {
            let entry = of_task.first().and_then(|&t| Some((t, self.ledger.entries().get(t)?)));
            entry.map(|(t, entry)| {
                let length = (entry.energy / entry.n_rows.max(1) as f64).sqrt();
                initial_values(&self.config, self.ledger.dim(), t, of_task.len(), length)
            })
        };
        owners.chunk_by(|a, b| a == b).filter_map(draw).flatten().collect()
    }

    /// The subspaces.
    pub fn ledger(&self) -> &SubspaceLedger {
        &self.ledger
    }

    /// The score matrix so far.
    pub fn scores(&self) -> &ScoreMatrix {
        &self.scores
    }

    /// For each task so far, how much of its change lies in each older subspace; nothing for a task without samples.
    pub fn interference(&self) -> &[Vec<Interference>] {
        &self.interference
    }

    /// The samples of learnt tasks that are kept for [`MethodConfig::Replay`]; none under every other method.
    pub fn stored_samples(&self) -> &[StoredSample] {
        &self.memory.buffer
    }

    /// Writes the state into a folder, which is made if need be; an older state there is replaced.
    ///
    /// # Errors
    /// [`PromptError::Io`]; the older state is still whole then.
    pub fn save(&self, dir: &Path) -> Result<()> {
        fs::create_dir_all(dir).map_err(io(dir))?;
        let tensors = self.tensors();
        let views =
            tensors.iter().map(|(name, t)| Ok((name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes)?)));
        let bytes = views
            .collect::<std::result::Result<Vec<_>, _>>()
            .and_then(|views| safetensors::serialize(views, None))
            .map_err(|error| io(dir)(std::io::Error::other(error)))?;
        let crc = crc32fast::hash(&bytes);
        let file = format!("state-{crc:08x}.safetensors");
        write_atomically(&dir.join(&file), &bytes)?;
        let manifest = self.manifest(file.clone(), crc);
        let path = dir.join(MANIFEST);
        let json = manifest
            .with_checksum()
            .and_then(|manifest| serde_json::to_vec_pretty(&manifest))
            .map_err(|error| io(&path)(error.into()))?;
        write_atomically(&path, &json)?;
        for entry in fs::read_dir(dir).map_err(io(dir))?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("state-") && name.ends_with(".safetensors") && name != file.as_str() {
                // An older state that nothing names any more; if it cannot be deleted, it only takes space.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Whether a folder holds a saved state.
    pub fn exists(dir: &Path) -> bool {
        dir.join(MANIFEST).is_file()
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`PromptError::Io`], or [`PromptError::State`] that says which file is damaged, cut short or of another version.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = dir.join(MANIFEST);
        let json = fs::read(&path).map_err(io(&path))?;
        let state = |what: String| PromptError::State { path: path.clone(), what };
        let version: Versioned =
            serde_json::from_slice(&json).map_err(|e| state(format!("not a saved state: {e}")))?;
        if version.version != VERSION {
            return Err(state(format!("version {}, this program reads {VERSION}", version.version)));
        }
        let manifest: Manifest = serde_json::from_slice(&json).map_err(|e| state(format!("damaged: {e}")))?;
        let (written, manifest) = (manifest.checksum, manifest.with_checksum());
        let manifest = manifest.map_err(|e| state(format!("damaged: {e}")))?;
        if manifest.checksum != written {
            return Err(state(format!(
                "damaged: its checksum is {:08x}, it says {written:08x}",
                manifest.checksum
            )));
        }
        let path = dir.join(&manifest.tensors);
        let bytes = fs::read(&path).map_err(io(&path))?;
        let damaged =
            |what: String| PromptError::State { path: path.clone(), what: format!("damaged: {what}") };
        let crc = crc32fast::hash(&bytes);
        if crc != manifest.crc32 {
            return Err(damaged(format!(
                "its checksum is {crc:08x}, {MANIFEST} says {:08x}",
                manifest.crc32
            )));
        }
        let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
        manifest
            .state(&Reader { tensors: &tensors })
            .map_err(|what| state(format!("does not fit its tensors: {what}")))
    }

    fn tensors(&self) -> BTreeMap<String, Stored> {
        let Dims { model: d, image_query: dv, text_query: dt } = self.pool.dims();
        let (m, len) = (self.pool.len(), self.pool.prompt_len());
        let mut out = BTreeMap::new();
        let mut put = |name: &str, shape: &[usize], values: &[f32]| {
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            out.insert(name.to_owned(), Stored { dtype: Dtype::F32, shape: shape.to_vec(), bytes });
        };
        put("pool.image_keys", &[m, dv], &self.pool.image_keys);
        put("pool.text_keys", &[m, dt], &self.pool.text_keys);
        put("pool.prompts", &[m, len, d], &self.pool.prompts);
        put("pool.floors", &[m], &self.pool.floors);
        for (t, entry) in self.ledger.entries().iter().enumerate() {
            put(&format!("ledger.{t}.basis"), &[entry.basis.len(), d], entry.basis.vectors());
        }
        if let Some(training) = &self.training {
            let n = m - training.first;
            put("training.change", &[n, len, d], &training.change);
            for (name, shape, state) in [
                ("prompts", vec![n, len, d], &training.prompts),
                ("image_keys", vec![n, dv], &training.image_keys),
                ("text_keys", vec![n, dt], &training.text_keys),
            ] {
                let (first, second) = state.moments();
                put(&format!("training.{name}.first"), &shape, first);
                put(&format!("training.{name}.second"), &shape, second);
            }
        }
        for (t, entry) in self.ledger.entries().iter().enumerate() {
            let bytes = entry.eigenvalues.iter().flat_map(|x| x.to_le_bytes()).collect();
            let shape = vec![entry.eigenvalues.len()];
            out.insert(format!("ledger.{t}.eigenvalues"), Stored { dtype: Dtype::F64, shape, bytes });
        }
        if let Some(info) = self.memory_info() {
            let places = self.memory.buffer.iter().flat_map(|s| [s.task as u64, s.sample as u64]);
            let bytes = places.flat_map(u64::to_le_bytes).collect();
            let shape = vec![info.n_stored, 2];
            out.insert("memory.buffer".to_owned(), Stored { dtype: Dtype::U64, shape, bytes });
            let bytes = self.memory.fisher.iter().flat_map(|x| x.to_le_bytes()).collect();
            let shape = vec![info.n_weighed, len, d];
            out.insert("memory.fisher".to_owned(), Stored { dtype: Dtype::F32, shape, bytes });
        }
        out
    }

    /// Nothing for a run without a method.
    fn memory_info(&self) -> Option<MemoryInfo> {
        let n_weighed = self.memory.fisher.len() / self.pool.prompt_size().max(1);
        let info = MemoryInfo { n_stored: self.memory.buffer.len(), n_weighed };
        (self.config.method != MethodConfig::Plain).then_some(info)
    }

    fn manifest(&self, tensors: String, crc32: u32) -> Manifest {
        let entry = |e: &Entry| EntryInfo {
            task: e.task.clone(),
            n_rows: e.n_rows,
            rank: e.basis.len(),
            energy: e.energy,
            captured_before: e.captured_before,
            captured: e.captured,
        };
        let training =
            self.training.as_ref().map(|t| TrainingInfo { first: t.first, n_steps: t.prompts.n_steps() });
        Manifest {
            version: VERSION,
            config: self.config.clone(),
            dims: self.pool.dims(),
            tasks: self.tasks.clone(),
            cursor: self.cursor,
            n_prompts: self.pool.len(),
            ledger: self.ledger.entries().iter().map(entry).collect(),
            training,
            scores: self.scores.clone(),
            interference: self.interference.clone(),
            memory: self.memory_info(),
            tensors,
            crc32,
            checksum: 0,
        }
    }
}

#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    config: Config,
    dims: Dims,
    tasks: Vec<TaskInfo>,
    cursor: Cursor,
    n_prompts: usize,
    ledger: Vec<EntryInfo>,
    training: Option<TrainingInfo>,
    scores: ScoreMatrix,
    interference: Vec<Vec<Interference>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory: Option<MemoryInfo>,
    tensors: String,
    /// Of the tensors file.
    crc32: u32,
    /// Of this manifest with 0 in this place, without white space.
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryInfo {
    task: String,
    n_rows: u64,
    rank: usize,
    energy: f64,
    captured_before: f64,
    captured: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainingInfo {
    first: usize,
    n_steps: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemoryInfo {
    /// Samples in the buffer.
    n_stored: usize,
    /// Prompts with Fisher information.
    n_weighed: usize,
}

impl Manifest {
    fn with_checksum(mut self) -> serde_json::Result<Self> {
        self.checksum = 0;
        self.checksum = crc32fast::hash(&serde_json::to_vec(&self)?);
        Ok(self)
    }

    fn state(self, read: &Reader<'_>) -> std::result::Result<RunState, String> {
        let Dims { model: d, image_query: dv, text_query: dt } = self.dims;
        let (m, len) = (self.n_prompts, self.config.pool.prompt_len);
        let mut pool = PromptPool::new(self.dims, len, self.config.pool.top_k);
        let keys = (read.f32("pool.image_keys", &[m, dv])?, read.f32("pool.text_keys", &[m, dt])?);
        let prompts = read.f32("pool.prompts", &[m, len, d])?;
        for j in 0..m {
            pool.push(slot(&keys.0, j, dv), slot(&keys.1, j, dt), slot(&prompts, j, len * d))
                .map_err(|e| e.to_string())?;
        }
        pool.floors = read.f32("pool.floors", &[m])?;
        let mut entries = Vec::new();
        for (t, info) in self.ledger.into_iter().enumerate() {
            let basis = read.f32(&format!("ledger.{t}.basis"), &[info.rank, d])?;
            entries.push(Entry {
                basis: Basis::from_orthonormal(d, basis).map_err(|e| e.to_string())?,
                eigenvalues: read.f64(&format!("ledger.{t}.eigenvalues"), &[d])?,
                task: info.task,
                n_rows: info.n_rows,
                energy: info.energy,
                captured_before: info.captured_before,
                captured: info.captured,
            });
        }
        let ledger = SubspaceLedger::from_entries(d, entries).map_err(|e| e.to_string())?;
        let training = self.training.map(|info| read.training(&info, (m, len), self.dims)).transpose()?;
        let memory = match self.memory {
            Some(info) => read.memory(&info, &self.tasks, (len, d))?,
            None => Memory::default(),
        };
        let Self { config, tasks, cursor, scores, interference, .. } = self;
        if training.is_some() != matches!(cursor.phase, Phase::Train(_)) || cursor.task >= tasks.len() {
            return Err(format!("{cursor:?} does not fit the rest"));
        }
        Ok(RunState { config, tasks, cursor, pool, ledger, training, scores, interference, memory })
    }
}

/// A tensor on its way to the file.
struct Stored {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// Takes tensors of known shape out of a file.
struct Reader<'a> {
    tensors: &'a SafeTensors<'a>,
}

impl Reader<'_> {
    fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> std::result::Result<Vec<u8>, String> {
        let tensor = self.tensors.tensor(name).map_err(|e| format!("tensor {name}: {e}"))?;
        if tensor.dtype() != dtype || tensor.shape() != shape {
            let found = (tensor.dtype(), tensor.shape());
            return Err(format!("tensor {name} is {found:?}, expected {:?}", (dtype, shape)));
        }
        Ok(tensor.data().to_vec())
    }

    fn f32(&self, name: &str, shape: &[usize]) -> std::result::Result<Vec<f32>, String> {
        let bytes = self.bytes(name, Dtype::F32, shape)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }

    fn f64(&self, name: &str, shape: &[usize]) -> std::result::Result<Vec<f64>, String> {
        let bytes = self.bytes(name, Dtype::F64, shape)?;
        let value = |b: &[u8]| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        Ok(bytes.chunks_exact(8).map(value).collect())
    }

    fn memory(
        &self,
        info: &MemoryInfo,
        tasks: &[TaskInfo],
        (len, d): (usize, usize),
    ) -> std::result::Result<Memory, String> {
        let bytes = self.bytes("memory.buffer", Dtype::U64, &[info.n_stored, 2])?;
        let number = |b: &[u8]| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as usize;
        let place = |b: &[u8]| StoredSample { task: number(&b[..8]), sample: number(&b[8..]) };
        let buffer: Vec<StoredSample> = bytes.chunks_exact(16).map(place).collect();
        let exists =
            |s: &StoredSample| s.task > 0 && tasks.get(s.task).is_some_and(|t| s.sample < t.n_samples);
        if let Some(lost) = buffer.iter().find(|s| !exists(s)) {
            return Err(format!("tensor memory.buffer has {lost:?}, which is no sample of the tasks"));
        }
        Ok(Memory { buffer, fisher: self.f32("memory.fisher", &[info.n_weighed, len, d])? })
    }

    fn training(
        &self,
        info: &TrainingInfo,
        (m, len): (usize, usize),
        dims: Dims,
    ) -> std::result::Result<Training, String> {
        let n = m.checked_sub(info.first).ok_or("more prompts are trained than there are")?;
        let shape = [n, len, dims.model];
        let moments = |name: &str, shape: &[usize]| {
            let [first, second] =
                ["first", "second"].map(|part| self.f32(&format!("training.{name}.{part}"), shape));
            AdamWState::from_moments(first?, second?, info.n_steps).map_err(|e| e.to_string())
        };
        Ok(Training {
            first: info.first,
            change: self.f32("training.change", &shape)?,
            prompts: moments("prompts", &shape)?,
            image_keys: moments("image_keys", &[n, dims.image_query])?,
            text_keys: moments("text_keys", &[n, dims.text_query])?,
        })
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> PromptError {
    let path = path.to_path_buf();
    move |source| PromptError::Io { path: path.clone(), source }
}

/// Writes a file whole or not at all: a temporary file beside it, flushed to the disk, renamed, and the folder flushed.
fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(dir)?;
        file.write_all(bytes)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        #[cfg(unix)]
        fs::File::open(dir)?.sync_all()?;
        Ok(())
    };
    write().map_err(io(path))
}
