//! Which files of a directory hold its weights, and what to do where they are of another format.

use super::file::is_gguf;
use crate::config::read_json;
use crate::error::{ModelError, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const SINGLE: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// The weight files of a directory.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) files: Vec<PathBuf>,
    /// The tensors that the index lists, if there is one.
    pub(super) names: Vec<String>,
    /// The one GGUF file, if there is one: the language model.
    pub(super) gguf: Option<PathBuf>,
}

#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Finds the weights of a directory: `model.safetensors`, the shards of an index, or shards that are complete by their names; and a
/// `.gguf` file.
pub(super) fn list(dir: &Path) -> Result<Listing> {
    let names = file_names(dir)?;
    let gguf = gguf(&names).map(|found| found.map(|name| dir.join(name)));
    let (single, index) = (dir.join(SINGLE), dir.join(INDEX));
    // Which of several is meant cannot be known, and beside all tensors none is needed.
    let beside = || gguf.clone().unwrap_or_default();
    if single.exists() {
        return Ok(Listing { files: vec![single], names: Vec::new(), gguf: beside() });
    }
    if index.exists() {
        return Ok(Listing { gguf: beside(), ..of_index(dir, &index)? });
    }
    match (shards(&names), &gguf) {
        (Some(Ok(files)), _) => {
            let files = files.iter().map(|name| dir.join(name)).collect();
            Ok(Listing { files, names: Vec::new(), gguf: beside() })
        }
        (Some(Err(what)), _) => Err(fail(dir, what)),
        (None, Err(what)) => Err(fail(dir, what.clone())),
        (None, Ok(Some(_))) => Ok(Listing { gguf: beside(), ..Listing::default() }),
        (None, Ok(None)) => Err(fail(dir, other_formats(dir, &names))),
    }
}

/// The GGUF file of a directory that [`Checkpoint::open`](crate::Checkpoint::open) reads beside its safetensors files or instead of them, if
/// there is one.
///
/// # Errors
/// As [`Checkpoint::open`](crate::Checkpoint::open) for a directory without weights or with an incomplete set of them.
pub fn gguf_file(dir: &Path) -> Result<Option<PathBuf>> {
    Ok(list(dir)?.gguf)
}

/// The one GGUF file of a directory that may hold a language model, whatever else the directory has.
pub(super) fn gguf_within(dir: &Path) -> Result<Option<PathBuf>> {
    let names = file_names(dir)?;
    let found = gguf(&names).map_err(|what| fail(dir, what))?;
    Ok(found.map(|name| dir.join(name)))
}

/// The one GGUF file that may hold a language model.
fn gguf(names: &[String]) -> std::result::Result<Option<&String>, String> {
    let is_model = |name: &&String| is_gguf(Path::new(name)) && !name.starts_with("mmproj");
    match names.iter().filter(is_model).collect::<Vec<_>>()[..] {
        [] => Ok(None),
        [name] => Ok(Some(name)),
        [a, b, ..] => {
            Err(format!("there are several GGUF files ({a}, {b}); keep the one that is meant in the folder"))
        }
    }
}

fn fail(dir: &Path, what: String) -> ModelError {
    ModelError::Directory { dir: dir.into(), what }
}

fn of_index(dir: &Path, path: &Path) -> Result<Listing> {
    let index: ShardIndex = read_json(path)?;
    let files: BTreeSet<&String> = index.weight_map.values().collect();
    if let Some(outside) = files.iter().find(|name| !is_plain(name)) {
        let what = format!("shard {outside:.100?} is not a plain file name");
        return Err(ModelError::WeightFile { path: path.into(), what });
    }
    let missing: Vec<&str> =
        files.iter().map(|name| name.as_str()).filter(|name| !dir.join(name).exists()).collect();
    if !missing.is_empty() {
        let what = format!("{} of the index {INDEX}; download them too", absent(&missing, files.len()));
        return Err(fail(dir, what));
    }
    let files = files.into_iter().map(|name| dir.join(name)).collect();
    Ok(Listing { files, names: index.weight_map.into_keys().collect(), gguf: None })
}

fn is_plain(name: &str) -> bool {
    Path::new(name).components().count() == 1 && !name.starts_with("..") && name != "." && !name.is_empty()
}

/// `2 of 3 shards are missing (a, b)`, with at most three names.
fn absent(missing: &[&str], n_all: usize) -> String {
    let shown = missing.iter().take(3).copied().collect::<Vec<_>>().join(", ");
    let more = if missing.len() > 3 { ", …" } else { "" };
    format!("{} of {n_all} shards are missing ({shown}{more})", missing.len())
}

fn file_names(dir: &Path) -> Result<Vec<String>> {
    let io = |source| ModelError::Io { path: dir.into(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        names.push(entry.map_err(io)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// The files `model-00001-of-0000N.safetensors` and so on; what is missing of them; none if there is no such file.
fn shards(names: &[String]) -> Option<std::result::Result<Vec<String>, String>> {
    let total = |name: &String| -> Option<usize> {
        let numbers = name.strip_prefix("model-")?.strip_suffix(".safetensors")?;
        let (number, total) = numbers.split_once("-of-")?;
        let is_number = |digits: &str| digits.len() == 5 && digits.bytes().all(|b| b.is_ascii_digit());
        if is_number(number) && is_number(total) { total.parse().ok() } else { None }
    };
    let totals: BTreeSet<usize> = names.iter().filter_map(total).collect();
    let &n_all = totals.first()?;
    if totals.len() > 1 {
        return Some(Err(format!("there are shards of several checkpoints (of {totals:?}) and no {INDEX}")));
    }
    let all: Vec<String> = (1..=n_all).map(|i| format!("model-{i:05}-of-{n_all:05}.safetensors")).collect();
    let missing: Vec<&str> =
        all.iter().map(String::as_str).filter(|name| !names.iter().any(|n| n == name)).collect();
    Some(if missing.is_empty() {
        Ok(all)
    } else {
        Err(format!("{}; download them too", absent(&missing, n_all)))
    })
}

/// What a directory without weights that are read has in their place, and what to do.
fn other_formats(dir: &Path, names: &[String]) -> String {
    let with = |ends: &[&str]| names.iter().find(|name| ends.iter().any(|end| name.ends_with(end)));
    if let Some(name) = with(&[".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".h5", ".msgpack"]) {
        let class = architecture(dir).unwrap_or_else(|| "AutoModel".into());
        return format!(
            "the weights are in {name}, only safetensors files are read; convert them in Python: `import transformers as t; \
             t.{class}.from_pretrained(\"{0}\").save_pretrained(\"{0}\", safe_serialization=True)`",
            dir.display()
        );
    }
    if let Some(name) = with(&[".safetensors"]) {
        return format!("no {SINGLE} and no {INDEX}; if {name} holds all weights, name it {SINGLE}");
    }
    format!("has no weights: neither {SINGLE} nor {INDEX} with its shards; was the download complete?")
}

/// The class of transformers that a directory's `config.json` names.
fn architecture(dir: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Architectures {
        architectures: Vec<String>,
    }
    let name = read_json::<Architectures>(&dir.join("config.json")).ok()?.architectures.into_iter().next()?;
    let is_class = name.len() < 80 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    is_class.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_known_by_their_names_and_gaps_are_named() {
        let names = |all: &[&str]| all.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        let of = |all: &[&str]| shards(&names(all));
        let (a, b) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
        assert_eq!(of(&[b, a, "README.md"]), Some(Ok(names(&[a, b]))));
        assert_eq!(of(&["model.safetensors", "model-1-of-2.safetensors"]), None);
        let missing = of(&[a]).unwrap().unwrap_err();
        assert_eq!(missing, format!("1 of 2 shards are missing ({b}); download them too"));
        let several = of(&[a, "model-00001-of-00003.safetensors"]).unwrap().unwrap_err();
        assert!(several.contains("several checkpoints"), "{several}");
        assert!(of(&["model-00001-of-99999.safetensors"]).unwrap().unwrap_err().len() < 250);
    }
}
