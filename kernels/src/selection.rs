//! The plan of prompt selection: cosine scores of two queries with a pool's keys, and the K best (`cuda/selection.cu`).
//!
//! One launch. A sample has a cluster of 8 blocks where the GPU has clusters and the pool more keys than a block scores at once, else
//! one block. Latency decides at usual sizes: 100 keys of 1408 + 768 elements are 870 KB a sample, 109 KB for each block of a
//! cluster, read in one or two rounds by 64 warps with 8 accesses of 16 bytes a lane under way. Large pools are bound by L2, from which
//! each sample reads all keys: 32 samples against 4096 such keys are 1.1 GB, 0.2 ms at 5.5 TB/s; their f64 arithmetic (a
//! conversion and two multiply-adds an element, 16 conversions a cycle and multiprocessor on an H100) is 0.08 ms. Nothing of this is
//! measured yet.
//!
//! | kernel | registers sm_80 / sm_90a / sm_100 | spilled | shared memory |
//! |---|---|---|---|
//! | `selection` | 116 / 126 / 128 | 0 | 2 KB + 8 bytes an element of the two queries |
//! | `selection_cluster` | none / 128 / 128 | 0 | the same |
//!
//! (nvcc 13.0.88, `-O3`; two blocks on a multiprocessor, 25 % of its warps.)

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, Target, to_grid, to_i32};
use crate::source::File;
use std::ops::Range;

/// Queries and the pool that they select from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectionShape {
    /// Samples b, each with an image query and a text query.
    pub batch: usize,
    /// Elements of an image query and key; 0 without images.
    pub d_image: usize,
    /// Elements of a text query and key; 0 without texts.
    pub d_text: usize,
    /// Prompts M of the pool.
    pub prompts: usize,
    /// Those that may be selected.
    pub among: Range<usize>,
    /// Prompts K to select for each sample, at most 32.
    pub top_k: usize,
}

impl SelectionShape {
    /// Prompts that a sample gets: K, or all of `among` if they are fewer.
    pub fn n_selected(&self) -> usize {
        self.top_k.min(self.among.len())
    }
}

/// Candidates that a warp keeps, one a lane.
const MAX_TOP_K: usize = 32;
/// Warps of a block, and keys that each scores at a time; the kernel's `WARPS`, and `KEYS` of large pools.
const WARPS: usize = 8;
const KEYS: usize = 4;
/// Blocks of a cluster; the kernel's `CLUSTER`.
const CLUSTER: usize = 8;

/// Plans the selection of the K best prompts of each sample, by `s[j] = cos(q_img, k_img[j]) + cos(q_txt, k_txt[j])`.
///
/// The cosine with a vector without length is 0. Products and sums are f64 and a score is rounded to f32 once, as on the CPU;
/// larger scores come first, in IEEE total order, equal ones by index. A sample's result does not depend on its batch.
///
/// # Shapes
/// Buffers, f32 but for the indices, row-major, addresses multiples of 16 bytes: `image (b, d_image)`, `text (b, d_text)`,
/// `image_keys (M, d_image)`, `text_keys (M, d_text)`, and the results, best first: `indices (b, k)` in u32, counted from the pool's first
/// prompt, and `scores (b, k)`, k = [`SelectionShape::n_selected`].
///
/// # Cost
/// `4·b·|among|·(d_image + d_text)` flop in f64; keys are read from L2 once a sample.
///
/// # Errors
/// [`KernelError::Shape`] for K above 32, a range beyond the pool, sizes beyond 2³¹ − 1, or queries that do not fit shared memory
/// (about 28,000 elements on an H100).
///
/// # Source
/// Two keys a prompt: Zheng et al. 2024 (arXiv 2401.09181); selection by cosine: Wang et al. 2022 (L2P).
pub fn plan_selection(shape: &SelectionShape, target: &Target) -> Result<Plan> {
    let op = "selection";
    let SelectionShape { batch, d_image, d_text, prompts, ref among, top_k } = *shape;
    if top_k > MAX_TOP_K {
        return Err(KernelError::shape(op, format!("K = {top_k} is more than {MAX_TOP_K}")));
    }
    if among.start > among.end || among.end > prompts {
        return Err(KernelError::shape(op, format!("prompts {among:?} of {prompts}")));
    }
    // The candidates' index is 32 bits; the kernel's loops step beyond the end by at most a cluster's keys.
    to_i32(op, "prompts", prompts.saturating_add(CLUSTER * WARPS * KEYS))?;
    let elements = d_image.saturating_add(d_text);
    let shared = elements.saturating_add(WARPS * 32).saturating_mul(8);
    if shared > target.shared_bytes as usize {
        let message = format!(
            "queries of {elements} elements need {shared} bytes of shared memory, a block has {}",
            target.shared_bytes
        );
        return Err(KernelError::shape(op, message));
    }
    let clustered = target.capability >= 90 && among.len() > WARPS;
    let cluster = if clustered { CLUSTER } else { 1 };
    let grid = to_grid(op, batch.saturating_mul(cluster))?;
    let selected = shape.n_selected();
    let mut plan = Plan::new(op);
    let mut args = vec![
        plan.buffer("image", Role::Input, DType::F32, batch * d_image),
        plan.buffer("text", Role::Input, DType::F32, batch * d_text),
        plan.buffer("image_keys", Role::Input, DType::F32, prompts * d_image),
        plan.buffer("text_keys", Role::Input, DType::F32, prompts * d_text),
        plan.buffer("indices", Role::Output, DType::U32, batch * selected),
        plan.buffer("scores", Role::Output, DType::F32, batch * selected),
    ];
    for (name, value) in [
        ("d_image", d_image),
        ("d_text", d_text),
        ("first", among.start),
        ("end", among.end),
        ("K", selected),
    ] {
        args.push(Arg::I32(to_i32(op, name, value)?));
    }
    if batch > 0 && selected > 0 {
        plan.launches.push(Launch {
            file: File::Selection,
            kernel: if clustered { "selection_cluster" } else { "selection" }.to_owned(),
            grid: [grid, 1, 1],
            block: 32 * WARPS as u32,
            cluster: cluster as u32,
            shared_bytes: shared as u32,
            args,
        });
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(batch: usize, prompts: usize, top_k: usize) -> SelectionShape {
        SelectionShape { batch, d_image: 1408, d_text: 768, prompts, among: 0..prompts, top_k }
    }

    #[test]
    fn clusters_serve_pools_beyond_one_round_where_there_are_clusters() {
        for (prompts, target, kernel, grid) in [
            (8, Target::H100, "selection", 3),
            (100, Target::H100, "selection_cluster", 24),
            (100, Target::A100, "selection", 3),
        ] {
            let plan = plan_selection(&shape(3, prompts, 5), &target).unwrap();
            let launch = &plan.launches[0];
            assert_eq!((launch.kernel.as_str(), launch.grid[0]), (kernel, grid));
            assert_eq!(launch.shared_bytes, 2048 + 8 * (1408 + 768));
        }
    }

    #[test]
    fn a_small_pool_gives_what_it_has() {
        let shape = SelectionShape { among: 3..5, ..shape(2, 6, 4) };
        let plan = plan_selection(&shape, &Target::H100).unwrap();
        assert_eq!((shape.n_selected(), plan.buffers[4].len, plan.buffers[5].len), (2, 4, 4));
    }

    #[test]
    fn what_the_kernel_cannot_do_is_refused() {
        let fine = shape(2, 6, 4);
        for wrong in [
            SelectionShape { top_k: 33, ..fine.clone() },
            SelectionShape { among: 4..7, ..fine.clone() },
            SelectionShape { d_text: 30_000, ..fine.clone() },
            SelectionShape { batch: 1 << 31, ..fine.clone() },
            SelectionShape { prompts: i32::MAX as usize, ..fine.clone() },
        ] {
            let error = plan_selection(&wrong, &Target::H100).unwrap_err();
            assert!(matches!(error, KernelError::Shape { .. }), "{wrong:?}");
        }
        for nothing in [shape(0, 6, 4), shape(2, 0, 4), shape(2, 6, 0)] {
            assert!(plan_selection(&nothing, &Target::H100).unwrap().launches.is_empty());
        }
    }
}
