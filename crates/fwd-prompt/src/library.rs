//! Prompts that were tuned on other tasks before a run, from which the prompts of its tasks may start. This is ours, not the paper's.
//!
//! Prompts act on a frozen model through its attention, and what they make it do is found by training alone. A task that resembles one
//! that was learnt elsewhere, as a pre-training task of the model, need not find it anew: of all blocks of prompts in the library, its own
//! prompts take on the values of that which suits its samples best ([`Start`](crate::Start)), and are trained from there.

use crate::config::{Fallback, PoolConfig};
use crate::error::{PromptError, Result};
use crate::model::{Dims, Place, Queries};
use crate::pool::{Guests, PromptPool, slot};
use crate::prompts::{Prompts, runs};
use fwd_continual::ContinualError;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::{Deserialize, Serialize};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// The prompts of finished runs, block by block: one for each task that opened prompts of its own.
///
/// A library knows the width of the model's embeddings and not the model. Prompts of another model of the same widths are no error; they
/// start a task from values that mean nothing to its model.
#[derive(Debug, Clone, PartialEq)]
pub struct Library {
    pool: PromptPool,
    /// Each block's task, and where its prompts stand in the pool.
    blocks: Vec<(String, Range<usize>)>,
}

/// What a file of a library says beside its tensors.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// The model that the prompts were learnt with, in the words of whoever wrote the file.
    model: String,
    /// The tasks, and how many prompts each has.
    tasks: Vec<(String, usize)>,
    top_k: usize,
    /// Where samples read them.
    #[serde(default, skip_serializing_if = "Place::is_default")]
    place: Place,
}

/// The key of [`Header`] in the metadata of a file.
const HEADER: &str = "fwd-prompt.library";
/// A file that is larger is none of ours.
const MAX_BYTES: u64 = 1 << 30;

impl Library {
    /// The prompts that the tasks of one run have learnt, or of several, as where each task was learnt alone.
    ///
    /// # Errors
    /// [`PromptError::Config`] if there are none, or if widths, tokens of a prompt or prompts of a sample differ from run to run.
    pub fn of<'p>(all: impl IntoIterator<Item = &'p Prompts>) -> Result<Self> {
        let mut library: Option<Self> = None;
        for prompts in all {
            let own = prompts.pool();
            if own.map().is_some() {
                let what = "a library of prompts that were learnt behind a map of the input (map.form), which a library does not take along";
                return Err(PromptError::Config(what.to_owned()));
            }
            let sizes = |pool: &PromptPool| (pool.dims(), pool.prompt_len(), pool.top_k(), pool.place());
            let empty = || Self { pool: own.emptied(), blocks: Vec::new() };
            let library = library.get_or_insert_with(empty);
            if sizes(own) != sizes(&library.pool) {
                let what = format!(
                    "a library of prompts of {:?} and {:?} (widths, tokens of a prompt, prompts of a sample, place)",
                    sizes(&library.pool),
                    sizes(own)
                );
                return Err(PromptError::Config(what));
            }
            let (before, entries) = (library.pool.len(), prompts.ledger().entries());
            let blocks = runs(prompts.owners()).into_iter().filter_map(|(t, of)| {
                Some((entries.get(t)?.task.clone(), before + of.start..before + of.end))
            });
            library.blocks.extend(blocks);
            library.pool.append(own.clone());
        }
        let library = library.filter(|library| !library.blocks.is_empty());
        library.ok_or_else(|| PromptError::Config("a library of prompts without any prompt".to_owned()))
    }

    /// The prompts of the run that was saved in a folder.
    ///
    /// # Errors
    /// Those of [`Prompts::load`], and [`ContinualError::Config`] if it has none.
    pub fn load(dir: &Path) -> Result<Self, ContinualError> {
        Self::of([&Prompts::load(dir)?])
            .map_err(|error| ContinualError::Config(format!("{}: {error}", dir.display())))
    }

    /// Writes the library into one file, in the safetensors format: `prompts (M, L_p, d)`, `image_keys (M, d_v)`, `text_keys (M, d_t)` and
    /// `thresholds (M)`, and in the metadata the tasks and `model`, which says what model the prompts are for.
    ///
    /// # Errors
    /// If the file cannot be written; an older one of this name is then still whole.
    pub fn write(&self, path: &Path, model: &str) -> Result<(), ContinualError> {
        let pool = &self.pool;
        let (m, Dims { model: d, image_query: dv, text_query: dt }) = (pool.len(), pool.dims());
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let tensors = [
            ("prompts", vec![m, pool.prompt_len(), d], bytes(&pool.prompts)),
            ("image_keys", vec![m, dv], bytes(&pool.image_keys)),
            ("text_keys", vec![m, dt], bytes(&pool.text_keys)),
            ("thresholds", vec![m], bytes(&pool.thresholds)),
        ];
        let tasks = self.blocks.iter().map(|(task, of)| (task.clone(), of.len())).collect();
        let (top_k, place) = (pool.top_k(), pool.place());
        let header = Header { model: model.to_owned(), tasks, top_k, place };
        let failed = |what: String| ContinualError::State { path: path.to_owned(), what };
        let views = tensors.iter().map(|(name, shape, bytes)| {
            Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(|e| failed(e.to_string()))?))
        });
        let views = views.collect::<Result<Vec<_>, ContinualError>>()?;
        let header = serde_json::to_string(&header).map_err(|e| failed(e.to_string()))?;
        let metadata = [(HEADER.to_owned(), header)].into();
        let bytes = serialize(views, Some(metadata)).map_err(|e| failed(e.to_string()))?;
        fwd_files::write_atomically(path, &bytes).map_err(|e| failed(e.to_string()))
    }

    /// Reads a file that [`Self::write`] wrote: the library, and what was said of its model.
    ///
    /// # Errors
    /// [`ContinualError::State`] that names the file, if it cannot be read, is no library or is damaged.
    pub fn read(path: &Path) -> Result<(Self, String), ContinualError> {
        let failed = |what: String| ContinualError::State { path: path.to_owned(), what };
        let bytes = fwd_files::read(path, MAX_BYTES).map_err(|e| failed(e.to_string()))?;
        Self::of_bytes(&bytes).map_err(|what| failed(format!("it is no library of prompts: {what}")))
    }

    fn of_bytes(bytes: &[u8]) -> std::result::Result<(Self, String), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|e| text(&e))?;
        let header = metadata.metadata().as_ref().and_then(|all| all.get(HEADER));
        let header = header.ok_or_else(|| format!("its metadata has no `{HEADER}`"))?;
        let Header { model, tasks, top_k, place } = serde_json::from_str(header).map_err(|e| text(&e))?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| text(&e))?;
        let tensor = |name: &str, n_dims: usize| {
            let view = file.tensor(name).map_err(|e| text(&e))?;
            if view.dtype() != Dtype::F32 || view.shape().len() != n_dims {
                return Err(format!("tensor {name} is {:?} {:?}", view.dtype(), view.shape()));
            }
            let values = view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            let values: Vec<f32> = values.collect();
            // Every prompt may have the threshold that lets all samples in.
            if name != "thresholds" && !values.iter().all(|x| x.is_finite()) {
                return Err(format!("tensor {name} has numbers that are not finite"));
            }
            Ok((view.shape().to_vec(), values))
        };
        let ((shape, prompts), (image, image_keys)) = (tensor("prompts", 3)?, tensor("image_keys", 2)?);
        let ((words, text_keys), (bounds, thresholds)) = (tensor("text_keys", 2)?, tensor("thresholds", 1)?);
        let (m, len) = (shape[0], shape[1]);
        let dims = Dims { model: shape[2], image_query: image[1], text_query: words[1] };
        let n: usize = tasks.iter().fold(0, |sum, (_, n)| sum.saturating_add(*n));
        if [image[0], words[0], bounds[0], n] != [m; 4] || m * len * dims.model * top_k == 0 {
            return Err(format!("{m} prompts of {len} tokens do not fit their keys and tasks"));
        }
        let mut pool = PromptPool::new(dims, len, top_k);
        pool.place = place;
        for j in 0..m {
            let keys = (slot(&image_keys, j, dims.image_query), slot(&text_keys, j, dims.text_query));
            pool.push(keys.0, keys.1, slot(&prompts, j, len * dims.model)).map_err(|e| text(&e))?;
        }
        pool.thresholds = thresholds;
        let mut end = 0;
        let range = |(task, n): (String, usize)| {
            let of = end..end + n;
            end = of.end;
            (task, of)
        };
        Ok((Self { pool, blocks: tasks.into_iter().map(range).collect() }, model))
    }

    /// The widths of keys and tokens.
    pub fn dims(&self) -> Dims {
        self.pool.dims()
    }

    /// The tasks whose prompts these are, in the order in which they were learnt.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &str> {
        self.blocks.iter().map(|(task, _)| task.as_str())
    }

    /// The tokens of the block of each task, `(n, d)` row-major.
    pub fn tokens(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        let size = self.pool.prompt_size();
        self.blocks.iter().map(move |(_, of)| &self.pool.prompts()[of.start * size..of.end * size])
    }

    /// For each block, the mean over some samples of the score of its best prompt ([`PromptPool::select`]).
    pub(crate) fn nearness(&self, queries: &[Queries<'_>]) -> Result<Vec<f64>> {
        let of_block = |(_, of): &(String, Range<usize>)| {
            let selections = self.pool.select_all_among(queries, of.clone())?;
            let best = selections.iter().filter_map(|selection| selection.scores.first());
            Ok(best.map(|&score| f64::from(score)).sum::<f64>() / queries.len().max(1) as f64)
        };
        self.blocks.iter().map(of_block).collect()
    }

    /// These prompts for samples that no learnt task is for.
    pub(crate) fn guests(&self, fallback: Fallback) -> Option<Arc<Guests>> {
        let takes_all = match fallback {
            Fallback::Nothing => return None,
            Fallback::Nearest => true,
            Fallback::Claimed => false,
        };
        Some(Arc::new(Guests::new(self.pool.clone(), self.blocks.clone(), takes_all)))
    }

    /// Refuses a pool that takes prompts of this library for another place than they were tuned at, or whose samples are to take them
    /// ([`PoolConfig::fallback`]) beside prompts of another length.
    ///
    /// # Errors
    /// [`PromptError::Config`] that names the keys.
    pub fn check(&self, pool: &PoolConfig) -> Result<()> {
        let (prompt_len, place) = (pool.prompt_len, self.pool.place());
        let is_used = !pool.start.is_default() || pool.fallback != Fallback::Nothing;
        if is_used && pool.place != place {
            return Err(PromptError::Config(format!(
                "pool.place is {:?}, the prompts of the library were tuned at {place:?}; take that place, or another library",
                pool.place
            )));
        }
        if pool.fallback == Fallback::Nothing || self.pool.prompt_len() == prompt_len {
            return Ok(());
        }
        Err(PromptError::Config(format!(
            "pool.fallback gives samples prompts of the library, which have {} tokens; pool.prompt_len is {prompt_len}, must be the same, or pool.fallback \"nothing\"",
            self.pool.prompt_len()
        )))
    }

    /// A number that differs where names or values do: FNV-1a of all of them.
    pub fn digest(&self) -> u64 {
        let names = self
            .blocks
            .iter()
            .flat_map(|(task, of)| task.bytes().chain(of.clone().flat_map(|i| (i as u64).to_le_bytes())));
        let pool = &self.pool;
        let values =
            [&pool.prompts, &pool.image_keys, &pool.text_keys, &pool.thresholds].into_iter().flatten();
        names
            .chain(values.flat_map(|value| value.to_le_bytes()))
            .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    }
}
