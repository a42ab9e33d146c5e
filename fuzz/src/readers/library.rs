//! Libraries of prompts: one file in the safetensors format whose metadata names the tasks.

use crate::folder::Folder;
use crate::reader::{Reader, Seed};
use anyhow::Result;
use fwd_prompt::Library;
use serde_json::json;
use std::path::Path;

const FILE: &str = "prompts.safetensors";

/// The file of two tasks with two prompts of two tokens.
pub(crate) fn library(folder: &Path) -> Result<Reader> {
    let told = json!({ "model": "toy", "tasks": [["a", 1], ["b", 1]], "top_k": 1 }).to_string();
    let tensor = |shape: &[usize], from: usize, to: usize| json!({ "dtype": "F32", "shape": shape, "data_offsets": [from, to] });
    let header = json!({
        "__metadata__": { "fwd-prompt.library": told },
        "prompts": tensor(&[2, 2, 3], 0, 48),
        "image_keys": tensor(&[2, 2], 48, 64),
        "text_keys": tensor(&[2, 1], 64, 72),
        "thresholds": tensor(&[2], 72, 80),
    });
    let header = header.to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..20u8).flat_map(|i| (f32::from(i) / 8.0 - 1.0).to_le_bytes()));
    let seeds = vec![Seed::new(FILE, bytes)];
    let mut folder = Folder::new(folder, &seeds)?;
    Ok(Reader::new(seeds, move |input| {
        let (library, _) = Library::read(&folder.damage(input)?)?;
        // What a run asks of one.
        let n: usize = library.tokens().map(<[f32]>::len).sum();
        anyhow::ensure!(n > 0 && library.tasks().len() > 0, "an empty library");
        let _ = (library.digest(), library.dims());
        Ok(())
    }))
}
