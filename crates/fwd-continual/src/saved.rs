//! The saved state of a run: named sections, each some JSON and some tensors, in one safetensors file beside a JSON manifest.
//!
//! ```text
//! state.json                    version, the JSON of every section, name and checksum of the tensors' file, its own checksum
//! state-<crc32>.safetensors     the tensors, called SECTION/NAME
//! ```
//! The tensors are written first, then the manifest, each to a temporary file that is flushed and renamed: whenever a process dies,
//! the folder holds one whole state. Tensors are named by their content, so the file that an older manifest names is still there
//! until the newer manifest is.
//!
//! Version 4. The first three held the state of prompts alone; they are refused by their version.

use crate::curriculum::{StoredSample, TaskId, TaskInfo};
use crate::error::{ContinualError, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const MANIFEST: &str = "state.json";
const VERSION: u32 = 4;
/// The largest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 1 << 28;
/// The largest file of tensors that is read, in bytes: fine-tuning keeps weights and two moments of each.
const MAX_TENSORS: u64 = 1 << 36;

/// All sections of a saved state.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SavedState {
    sections: BTreeMap<String, Section>,
}

/// One part of a saved state: what one owner wrote.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Section {
    info: Value,
    tensors: BTreeMap<String, Tensor>,
}

/// What is wrong with a section, with the name of the tensor or key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SectionError(pub String);

#[derive(Debug, Clone, PartialEq)]
struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Section {
    /// Sets the JSON of the section.
    pub fn set_info(&mut self, info: &impl Serialize) {
        // Plain data with string keys always have a JSON; what has none is saved as null and refused on loading.
        self.info = serde_json::to_value(info).unwrap_or_default();
    }

    /// The JSON of the section.
    ///
    /// # Errors
    /// A missing, unknown or wrong key.
    pub fn info<T: DeserializeOwned>(&self) -> Result<T, SectionError> {
        T::deserialize(&self.info).map_err(|e| SectionError(e.to_string()))
    }

    /// Adds a tensor of f32.
    pub fn put_f32(&mut self, name: &str, shape: &[usize], values: &[f32]) {
        self.put(name, Dtype::F32, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect());
    }

    /// Adds a tensor of f64.
    pub fn put_f64(&mut self, name: &str, shape: &[usize], values: &[f64]) {
        self.put(name, Dtype::F64, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect());
    }

    /// Adds a tensor of u64.
    pub fn put_u64(&mut self, name: &str, shape: &[usize], values: &[u64]) {
        self.put(name, Dtype::U64, shape, values.iter().flat_map(|x| x.to_le_bytes()).collect());
    }

    fn put(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: Vec<u8>) {
        self.tensors.insert(name.to_owned(), Tensor { dtype, shape: shape.to_vec(), bytes });
    }

    /// The elements of a tensor of f32 that must have this shape.
    ///
    /// # Errors
    /// If it is missing, or of another type or shape.
    pub fn f32(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, SectionError> {
        let (words, _) = self.bytes(name, Dtype::F32, shape)?.as_chunks::<4>();
        Ok(words.iter().map(|&word| f32::from_le_bytes(word)).collect())
    }

    /// The elements of a tensor of f64 that must have this shape.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn f64(&self, name: &str, shape: &[usize]) -> Result<Vec<f64>, SectionError> {
        let (words, _) = self.bytes(name, Dtype::F64, shape)?.as_chunks::<8>();
        Ok(words.iter().map(|&word| f64::from_le_bytes(word)).collect())
    }

    /// The elements of a tensor of u64 that must have this shape.
    ///
    /// # Errors
    /// As [`Self::f32`].
    pub fn u64(&self, name: &str, shape: &[usize]) -> Result<Vec<u64>, SectionError> {
        let (words, _) = self.bytes(name, Dtype::U64, shape)?.as_chunks::<8>();
        Ok(words.iter().map(|&word| u64::from_le_bytes(word)).collect())
    }

    fn bytes(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<&[u8], SectionError> {
        let tensor =
            self.tensors.get(name).ok_or_else(|| SectionError(format!("tensor {name} is missing")))?;
        if tensor.dtype != dtype || tensor.shape != shape {
            let actual = (tensor.dtype, &tensor.shape);
            return Err(SectionError(format!("tensor {name} is {actual:?}, expected {:?}", (dtype, shape))));
        }
        Ok(&tensor.bytes)
    }

    /// Adds a tensor of stored samples: `(n, 2)` in u64, the number of the task from 1 and the position from 0.
    pub fn save_samples(&mut self, name: &str, samples: &[StoredSample]) {
        let places: Vec<u64> =
            samples.iter().flat_map(|s| [s.task.number() as u64, s.sample as u64]).collect();
        self.put_u64(name, &[samples.len(), 2], &places);
    }

    /// The samples that [`Self::save_samples`] wrote, each of which must be one of these tasks'.
    ///
    /// # Errors
    /// If the tensor is missing, of another type or shape, or names a sample that does not exist.
    pub fn load_samples(&self, name: &str, tasks: &[TaskInfo]) -> Result<Vec<StoredSample>, SectionError> {
        let n = self.shape(name).and_then(|shape| shape.first().copied()).unwrap_or_default();
        let place = |&[task, sample]: &[u64; 2]| {
            let index = (task as usize).checked_sub(1);
            let exists = index.and_then(|i| tasks.get(i)).is_some_and(|t| (sample as usize) < t.n_samples);
            let stored = index.filter(|_| exists);
            let stored =
                stored.map(|i| StoredSample { task: TaskId::from_index(i), sample: sample as usize });
            let lost = || format!("tensor {name} has sample {sample} of task {task}, which does not exist");
            stored.ok_or_else(|| SectionError(lost()))
        };
        self.u64(name, &[n, 2])?.as_chunks::<2>().0.iter().map(place).collect()
    }

    /// The names of all tensors, in order.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|tensor| &tensor.shape[..])
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
    sections: BTreeMap<String, Value>,
    tensors: String,
    /// Of the file of tensors.
    crc32: u32,
    /// Of this manifest with 0 in this place, without white space.
    checksum: u32,
}

impl Manifest {
    fn with_checksum(mut self) -> serde_json::Result<Self> {
        self.checksum = 0;
        self.checksum = crc32fast::hash(&serde_json::to_vec(&self)?);
        Ok(self)
    }
}

impl SavedState {
    /// The section of a name, which is made if there is none.
    pub fn section_mut(&mut self, name: &str) -> &mut Section {
        self.sections.entry(name.to_owned()).or_default()
    }

    /// The section of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn section(&self, name: &str) -> Result<&Section, SectionError> {
        self.sections.get(name).ok_or_else(|| SectionError(format!("there is no section `{name}`")))
    }

    /// Whether a folder holds a saved state, of whatever version.
    pub fn exists(dir: &Path) -> bool {
        dir.join(MANIFEST).is_file()
    }

    /// The manifest of the state in a folder.
    pub fn manifest(dir: &Path) -> std::path::PathBuf {
        dir.join(MANIFEST)
    }

    /// Writes the state into a folder, which is made if need be; an older state there is replaced.
    ///
    /// # Errors
    /// [`ContinualError::Io`]; the older state is still whole then.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let all = self.sections.iter().flat_map(|(section, content)| {
            content.tensors.iter().map(move |(name, tensor)| (format!("{section}/{name}"), tensor))
        });
        let views = all.map(|(name, t)| Ok((name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes)?)));
        let bytes = views
            .collect::<std::result::Result<Vec<_>, _>>()
            .and_then(|views| safetensors::serialize(views, None))
            .map_err(|error| io(dir)(std::io::Error::other(error)))?;
        let crc32 = crc32fast::hash(&bytes);
        let tensors = format!("state-{crc32:08x}.safetensors");
        let path = dir.join(&tensors);
        // The file is named by its content: what only the manifest's part has changed needs no second copy.
        if !fs::read(&path).is_ok_and(|kept| kept == bytes) {
            fwd_files::write_atomically(&path, &bytes).map_err(io(&path))?;
        }
        let sections = self.sections.iter().map(|(name, section)| (name.clone(), section.info.clone()));
        let manifest = Manifest {
            version: VERSION,
            sections: sections.collect(),
            tensors: tensors.clone(),
            crc32,
            checksum: 0,
        };
        let path = Self::manifest(dir);
        let json = manifest
            .with_checksum()
            .and_then(|manifest| serde_json::to_vec_pretty(&manifest))
            .map_err(|error| io(&path)(error.into()))?;
        fwd_files::write_atomically(&path, &json).map_err(io(&path))?;
        for entry in fs::read_dir(dir).map_err(io(dir))?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("state-") && name.ends_with(".safetensors") && name != tensors.as_str() {
                // An older state that nothing names any more; if it cannot be deleted, it only takes space.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`ContinualError::Io`], or [`ContinualError::State`] that says which file is damaged, cut short or of another version.
    pub fn load(dir: &Path) -> Result<Self> {
        let path = Self::manifest(dir);
        let json = fwd_files::read(&path, MAX_MANIFEST).map_err(io(&path))?;
        let state = |what: String| ContinualError::State { path: path.clone(), what };
        let version: Versioned =
            serde_json::from_slice(&json).map_err(|e| state(format!("not a saved state: {e}")))?;
        if version.version != VERSION {
            return Err(state(format!(
                "version {}, this program reads {VERSION}; use the program that wrote it, or begin the run again",
                version.version
            )));
        }
        let manifest: Manifest = serde_json::from_slice(&json).map_err(|e| state(format!("damaged: {e}")))?;
        let written = manifest.checksum;
        let manifest = manifest.with_checksum().map_err(|e| state(format!("damaged: {e}")))?;
        if manifest.checksum != written {
            return Err(state(format!(
                "damaged: its checksum is {:08x}, it says {written:08x}",
                manifest.checksum
            )));
        }
        let path = dir.join(&manifest.tensors);
        let bytes = fwd_files::read(&path, MAX_TENSORS).map_err(io(&path))?;
        let damaged =
            |what: String| ContinualError::State { path: path.clone(), what: format!("damaged: {what}") };
        let crc = crc32fast::hash(&bytes);
        if crc != manifest.crc32 {
            return Err(damaged(format!(
                "its checksum is {crc:08x}, {MANIFEST} says {:08x}",
                manifest.crc32
            )));
        }
        let file = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
        let mut loaded = Self::default();
        for (name, info) in manifest.sections {
            loaded.section_mut(&name).info = info;
        }
        for (name, view) in file.tensors() {
            let (section, name) = name.split_once('/').ok_or_else(|| damaged(format!("tensor {name}")))?;
            let (dtype, shape, bytes) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            loaded.section_mut(section).tensors.insert(name.to_owned(), Tensor { dtype, shape, bytes });
        }
        Ok(loaded)
    }
}

/// Names a section and the folder in an error of a section.
pub(crate) fn misfit(dir: &Path, section: &str, error: &SectionError) -> ContinualError {
    let what = format!("its section `{section}` cannot be used: {error}");
    ContinualError::State { path: SavedState::manifest(dir), what }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> ContinualError {
    let path = path.to_path_buf();
    move |source| ContinualError::Io { path: path.clone(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> SavedState {
        let mut state = SavedState::default();
        let section = state.section_mut("a");
        section.set_info(&serde_json::json!({ "n": 3 }));
        section.put_f32("x", &[2, 1], &[1.5, f32::NAN]);
        section.put_f64("y", &[1], &[0.1]);
        section.put_u64("z", &[0, 2], &[]);
        state.section_mut("b").set_info(&7u8);
        state
    }

    #[test]
    fn sections_come_back_and_misfits_are_named() {
        let dir = tempfile::tempdir().unwrap();
        state().save(dir.path()).unwrap();
        let loaded = SavedState::load(dir.path()).unwrap();
        let section = loaded.section("a").unwrap();
        let x = section.f32("x", &[2, 1]).unwrap();
        assert!(x[0] == 1.5 && x[1].is_nan());
        assert_eq!(section.f64("y", &[1]).unwrap(), [0.1]);
        assert_eq!(section.u64("z", &[0, 2]).unwrap(), [0u64; 0]);
        assert_eq!(loaded.section("b").unwrap().info::<u8>().unwrap(), 7);
        assert!(section.f32("x", &[1, 2]).unwrap_err().0.contains("tensor x is"));
        assert!(section.f32("w", &[1]).unwrap_err().0.contains("tensor w is missing"));
        assert!(loaded.section("c").unwrap_err().0.contains("`c`"));
        assert!(section.info::<u8>().is_err());
    }

    #[test]
    fn an_older_version_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), r#"{"version": 3, "config": {}}"#).unwrap();
        let error = SavedState::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("state.json") && error.contains("version 3, this program reads 4"), "{error}");
    }
}
