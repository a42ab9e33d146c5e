//! The saved state of a run: named sections, each some JSON and some tensors, in safetensors files beside a JSON manifest.
//!
//! ```text
//! state.json                            version, the JSON of every section, name and checksum of each file of tensors, its own checksum
//! state-SECTION-<crc32>.safetensors        the tensors of a section that may still change, called SECTION/NAME
//! state-SECTION-PART-<crc32>.safetensors   tensors of a section that never change again
//! ```
//! The tensors are written first, then the manifest, each to a temporary file that is flushed and renamed: whenever a process dies,
//! the folder holds one whole state. Tensors are named by their content, so the files that an older manifest names are still there
//! until the newer manifest is.
//!
//! What was sealed once ([`Section::seal`]) is named by every later manifest and never written again: a run of many tasks writes what is
//! new, and not what all tasks have left behind.
//!
//! Version 5. The first three held the state of prompts alone, the fourth held all tensors in one file; they are refused by their version.

use crate::curriculum::{StoredSample, TaskId, TaskInfo};
use crate::error::{ContinualError, Result};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const MANIFEST: &str = "state.json";
const VERSION: u32 = 5;
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
    /// The part that is being filled; none while tensors may still change.
    filling: Option<String>,
    /// Parts that the folder holds already.
    kept: BTreeSet<String>,
    /// Those of them that this state has too.
    taken_over: BTreeSet<String>,
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
    /// The sealed part that it belongs to.
    part: Option<String>,
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
        let part = self.filling.clone();
        self.tensors.insert(name.to_owned(), Tensor { dtype, shape: shape.to_vec(), bytes, part });
    }

    /// Adds tensors that never change again in the course of a run, as a part with a file of its own. `fill` puts them; it is not called
    /// where the folder that is saved to holds the part already, so that a save costs what is new and not what the whole run has kept.
    ///
    /// `part` is a name of letters, digits, `.` and `_`, of one content only: another state of the same run must not seal other tensors
    /// under it.
    pub fn seal(&mut self, part: &str, fill: impl FnOnce(&mut Self)) {
        if self.kept.contains(part) {
            self.taken_over.insert(part.to_owned());
            return;
        }
        self.filling = Some(part.to_owned());
        fill(self);
        self.filling = None;
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

    /// The length of a tensor of one dimension, whose length only the tensor itself tells.
    ///
    /// # Errors
    /// If it is missing, of another number of dimensions, or longer than `at_most`.
    pub fn length(&self, name: &str, at_most: usize) -> Result<usize, SectionError> {
        match self.shape(name) {
            Some(&[n]) if n <= at_most => Ok(n),
            shape => {
                let what = format!("tensor {name} is {shape:?}, expected one dimension of at most {at_most}");
                Err(SectionError(what))
            }
        }
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

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    version: u32,
    sections: BTreeMap<String, Value>,
    /// The files of tensors: of `SECTION`, and of each `SECTION/PART` that is sealed.
    tensors: BTreeMap<String, TensorFile>,
    /// Of this manifest with 0 in this place, without white space.
    checksum: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorFile {
    file: String,
    crc32: u32,
}

impl Manifest {
    fn with_checksum(mut self) -> serde_json::Result<Self> {
        self.checksum = 0;
        self.checksum = crc32fast::hash(&serde_json::to_vec(&self)?);
        Ok(self)
    }
}

/// What a folder holds of a state after it was saved or loaded: the next save there writes only what is new.
#[derive(Debug)]
pub(crate) struct Kept {
    dir: PathBuf,
    manifest: Manifest,
}

impl Kept {
    /// What this folder holds, if it is the one that was saved to and all files are still there.
    pub(crate) fn of<'k>(kept: Option<&'k Self>, dir: &Path) -> Option<&'k Self> {
        kept.filter(|kept| kept.dir == dir)
            .filter(|kept| kept.manifest.tensors.values().all(|part| dir.join(&part.file).is_file()))
    }

    /// The files of a section by part; none for the tensors that may change.
    fn files_of<'k>(
        &'k self,
        section: &'k str,
    ) -> impl Iterator<Item = (Option<&'k str>, &'k str, &'k TensorFile)> {
        self.manifest.tensors.iter().filter_map(move |(key, file)| {
            let (of, part) = part_of(key);
            (of == section).then_some((part, key.as_str(), file))
        })
    }
}

/// Section and part of a key of [`Manifest::tensors`].
fn part_of(key: &str) -> (&str, Option<&str>) {
    key.split_once('/').map_or((key, None), |(section, part)| (section, Some(part)))
}

impl SavedState {
    /// A state to be saved where `kept` is: its sections need not seal again what that folder holds.
    pub(crate) fn after(kept: Option<&Kept>) -> Self {
        let mut state = Self::default();
        for key in kept.iter().flat_map(|kept| kept.manifest.tensors.keys()) {
            if let (section, Some(part)) = part_of(key) {
                state.section_mut(section).kept.insert(part.to_owned());
            }
        }
        state
    }

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
    pub fn manifest(dir: &Path) -> PathBuf {
        dir.join(MANIFEST)
    }

    /// Writes the state into a folder, which is made if need be; an older state there is replaced.
    ///
    /// # Errors
    /// [`ContinualError::Io`]; the older state is still whole then.
    pub fn save(&self, dir: &Path) -> Result<()> {
        self.save_after(dir, None, &[]).map(|_| ())
    }

    /// [`Self::save`] of a state that was made by [`Self::after`]. The sections of these names have not changed since, and are taken over
    /// from `kept` as they are.
    pub(crate) fn save_after(&self, dir: &Path, kept: Option<&Kept>, same: &[&str]) -> Result<Kept> {
        let mut manifest =
            Manifest { version: VERSION, sections: BTreeMap::new(), tensors: BTreeMap::new(), checksum: 0 };
        for (name, section) in &self.sections {
            let is_same = same.contains(&name.as_str());
            for (part, key, file) in kept.iter().flat_map(|kept| kept.files_of(name)) {
                if is_same || part.is_some_and(|part| section.taken_over.contains(part)) {
                    manifest.tensors.insert(key.to_owned(), file.clone());
                }
            }
            let info = kept.filter(|_| is_same).and_then(|kept| kept.manifest.sections.get(name));
            manifest.sections.insert(name.clone(), info.unwrap_or(&section.info).clone());
            for (part, tensors) in section.parts().into_iter().filter(|_| !is_same) {
                let key = part.map_or_else(|| name.clone(), |part| format!("{name}/{part}"));
                manifest.tensors.insert(key.clone(), write_part(dir, name, &key, &tensors)?);
            }
        }
        let path = Self::manifest(dir);
        let manifest = manifest.with_checksum().map_err(|error| io(&path)(error.into()))?;
        let json = serde_json::to_vec_pretty(&manifest).map_err(|error| io(&path)(error.into()))?;
        fwd_files::write_atomically(&path, &json).map_err(io(&path))?;
        let named: BTreeSet<&str> = manifest.tensors.values().map(|part| part.file.as_str()).collect();
        for entry in fs::read_dir(dir).map_err(io(dir))?.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with("state-") && name.ends_with(".safetensors") && !named.contains(&*name) {
                // An older state that nothing names any more; if it cannot be deleted, it only takes space.
                let _ = fs::remove_file(entry.path());
            }
        }
        Ok(Kept { dir: dir.to_path_buf(), manifest })
    }

    /// Reads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`ContinualError::Io`], or [`ContinualError::State`] that says which file is damaged, cut short or of another version.
    pub fn load(dir: &Path) -> Result<Self> {
        Ok(Self::load_kept(dir)?.0)
    }

    /// [`Self::load`], with what the next save in this folder need not write again.
    pub(crate) fn load_kept(dir: &Path) -> Result<(Self, Kept)> {
        let manifest = read_manifest(dir)?;
        let mut loaded = Self::default();
        for (name, info) in &manifest.sections {
            loaded.section_mut(name).info = info.clone();
        }
        for (key, file) in &manifest.tensors {
            let (section, part) = part_of(key);
            read_part(dir, file, section, part, &mut loaded)?;
        }
        Ok((loaded, Kept { dir: dir.to_path_buf(), manifest }))
    }
}

impl Section {
    /// The tensors by the part that they are sealed in, those that may still change under none.
    fn parts(&self) -> BTreeMap<Option<&str>, Vec<(&str, &Tensor)>> {
        let mut parts: BTreeMap<Option<&str>, Vec<(&str, &Tensor)>> = BTreeMap::new();
        for (name, tensor) in &self.tensors {
            parts.entry(tensor.part.as_deref()).or_default().push((name, tensor));
        }
        parts
    }
}

/// Writes one file of tensors, unless it is there.
fn write_part(dir: &Path, section: &str, key: &str, tensors: &[(&str, &Tensor)]) -> Result<TensorFile> {
    let views = tensors.iter().map(|(name, t)| {
        Ok((format!("{section}/{name}"), TensorView::new(t.dtype, t.shape.clone(), &t.bytes)?))
    });
    let bytes = views
        .collect::<std::result::Result<Vec<_>, _>>()
        .and_then(|views| safetensors::serialize(views, None))
        .map_err(|error| io(dir)(std::io::Error::other(error)))?;
    let crc32 = crc32fast::hash(&bytes);
    let file = format!("state-{}-{crc32:08x}.safetensors", key.replace('/', "-"));
    let path = dir.join(&file);
    // The file is named by its content: what has not changed needs no second copy.
    if !fs::read(&path).is_ok_and(|kept| kept == bytes) {
        fwd_files::write_atomically(&path, &bytes).map_err(io(&path))?;
    }
    Ok(TensorFile { file, crc32 })
}

fn read_manifest(dir: &Path) -> Result<Manifest> {
    let path = SavedState::manifest(dir);
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
        let what = format!("damaged: its checksum is {:08x}, it says {written:08x}", manifest.checksum);
        return Err(state(what));
    }
    Ok(manifest)
}

/// Reads one file of tensors into the sections.
fn read_part(
    dir: &Path,
    TensorFile { file, crc32 }: &TensorFile,
    section: &str,
    part: Option<&str>,
    into: &mut SavedState,
) -> Result<()> {
    let path = dir.join(file);
    let bytes = fwd_files::read(&path, MAX_TENSORS).map_err(io(&path))?;
    let damaged =
        |what: String| ContinualError::State { path: path.clone(), what: format!("damaged: {what}") };
    let crc = crc32fast::hash(&bytes);
    if crc != *crc32 {
        return Err(damaged(format!("its checksum is {crc:08x}, {MANIFEST} says {crc32:08x}")));
    }
    let tensors = SafeTensors::deserialize(&bytes).map_err(|e| damaged(e.to_string()))?;
    for (name, view) in tensors.tensors() {
        let name = name.strip_prefix(section).and_then(|name| name.strip_prefix('/'));
        let name = name.ok_or_else(|| damaged(format!("a tensor is not of section `{section}`")))?;
        let (dtype, shape, bytes) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
        let tensor = Tensor { dtype, shape, bytes, part: part.map(str::to_owned) };
        into.section_mut(section).tensors.insert(name.to_owned(), tensor);
    }
    Ok(())
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
    fn what_is_sealed_is_written_once_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let files = || -> BTreeSet<String> {
            let names =
                fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
            names.filter(|name| name != MANIFEST).collect()
        };
        let of = |kept: Option<&Kept>, n_sealed: usize, n_filled: &mut usize| {
            let mut state = SavedState::after(kept);
            let section = state.section_mut("a");
            section.set_info(&n_sealed);
            for i in 0..n_sealed {
                section.seal(&format!("task.{i}"), |section| {
                    *n_filled += 1;
                    section.put_f32(&format!("x.{i}"), &[1], &[i as f32]);
                });
            }
            section.put_f32("now", &[1], &[n_sealed as f32]);
            state
        };
        let mut n_filled = 0;
        let mut kept = of(None, 1, &mut n_filled).save_after(dir.path(), None, &[]).unwrap();
        for n in 2..6 {
            let before = files();
            kept = of(Some(&kept), n, &mut n_filled).save_after(dir.path(), Some(&kept), &[]).unwrap();
            // The new part, and the tensors that change.
            assert_eq!((n_filled, files().difference(&before).count(), files().len()), (n, 2, n + 1));
            let mut anew = 0;
            assert_eq!(SavedState::load(dir.path()).unwrap(), of(None, n, &mut anew));
        }
        // A section that has not changed is taken over whole, whatever it is now.
        let (before, manifest) = (files(), fs::read(dir.path().join(MANIFEST)).unwrap());
        SavedState::after(Some(&kept)).save_after(dir.path(), Some(&kept), &["a"]).unwrap();
        assert_eq!((files(), fs::read(dir.path().join(MANIFEST)).unwrap()), (before.clone(), manifest));
        // A folder that has lost a file, and another folder, are written whole.
        let lost = before.iter().find(|name| name.contains("task.2")).unwrap();
        fs::remove_file(dir.path().join(lost)).unwrap();
        assert!(Kept::of(Some(&kept), dir.path()).is_none());
        assert!(SavedState::load(dir.path()).unwrap_err().to_string().contains(lost.as_str()));
        fs::write(dir.path().join(lost), "").unwrap();
        assert!(
            Kept::of(Some(&kept), dir.path()).is_some() && Kept::of(Some(&kept), Path::new("x")).is_none()
        );
    }

    #[test]
    fn an_older_version_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MANIFEST), r#"{"version": 3, "config": {}}"#).unwrap();
        let error = SavedState::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains("state.json") && error.contains("version 3, this program reads 5"), "{error}");
    }
}
