//! Saved states: the manifest and the tensors.

use crate::folder::Folder;
use crate::reader::{Reader, Seed};
use anyhow::{Context, Result};
use fwd_continual::{SavedState, TaskInfo};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const MANIFEST: &str = "state.json";

/// The manifest, in the order of its keys that the checksum is of.
#[derive(Serialize, Deserialize)]
struct Manifest {
    version: Value,
    sections: Value,
    tensors: BTreeMap<String, TensorFile>,
    checksum: u32,
}

#[derive(Serialize, Deserialize)]
struct TensorFile {
    file: String,
    crc32: u32,
}

/// The files of a saved state.
pub(crate) fn state(folder: &Path) -> Result<Reader> {
    let mut state = SavedState::default();
    let section = state.section_mut("learner");
    section.set_info(&json!({ "tasks": [{ "name": "a", "n": 3 }], "rate": 0.25 }));
    section.put_f32("prompts", &[2, 3], &[0.5; 6]);
    section.seal("task.1", |section| section.put_f64("sums", &[2], &[1.0, -2.0]));
    let method = state.section_mut("method");
    method.set_info(&json!(null));
    method.put_u64("stored", &[2, 2], &[1, 0, 1, 2]);
    state.save(folder)?;
    let mut seeds = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        seeds.push(Seed::new(entry.file_name().to_string_lossy(), fs::read(entry.path())?));
    }
    seeds.sort_by(|a, b| a.name.cmp(&b.name));
    let manifest = fs::read(folder.join(MANIFEST))?;
    let mut folder = Folder::new(folder, &seeds)?;
    let reader = Reader::new(seeds, move |input| {
        folder.damage(input)?;
        if input.file != MANIFEST {
            // The manifest knows the tensors' checksum.
            let manifest = match input.is_repaired {
                true => of_tensors(&manifest, &input.file, &input.bytes)?,
                false => manifest.clone(),
            };
            fs::write(folder.path().join(MANIFEST), manifest)?;
        }
        read(&SavedState::load(folder.path())?)
    });
    Ok(reader.repaired_by(seal))
}

/// Makes the checksum of a manifest right again; other files stay as they are.
pub(super) fn seal(bytes: &mut Vec<u8>) {
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(bytes)
        && let Ok(sealed) = sealed(manifest)
    {
        *bytes = sealed;
    }
}

/// A manifest with the checksum of these tensors in the file of this name.
pub(super) fn of_tensors(manifest: &[u8], name: &str, tensors: &[u8]) -> Result<Vec<u8>> {
    let mut manifest: Manifest = serde_json::from_slice(manifest)?;
    for part in manifest.tensors.values_mut().filter(|part| part.file == name) {
        part.crc32 = crc32fast::hash(tensors);
    }
    sealed(manifest)
}

fn sealed(mut manifest: Manifest) -> Result<Vec<u8>> {
    manifest.checksum = 0;
    manifest.checksum = crc32fast::hash(&serde_json::to_vec(&manifest)?);
    Ok(serde_json::to_vec(&manifest)?)
}

/// Everything that an owner of a section asks for.
fn read(state: &SavedState) -> Result<()> {
    let tasks = [TaskInfo { name: "a".into(), n_samples: 3 }];
    for name in ["learner", "method"] {
        let section = state.section(name)?;
        let _: Value = section.info()?;
        for name in section.tensor_names().map(str::to_owned).collect::<Vec<_>>() {
            let shape = section.shape(&name).context("a shape")?;
            let _ = (section.f32(&name, shape), section.f64(&name, shape), section.u64(&name, shape));
            let _ = section.load_samples(&name, &tasks);
        }
    }
    Ok(())
}
