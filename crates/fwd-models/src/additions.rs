//! Low-rank additions to the linear maps of a model (LoRA, Hu et al. 2021).

use fwd_ops::LowRank;

/// Says what is added to a linear map: asked with the name of its module as in the checkpoint, which is that of its weight without `.weight`
/// (`language_model.model.layers.0.self_attn.q_proj`), and with `[n_out, n_in]`. None leaves the map as it is.
///
/// Tied heads, and maps that are made of several tensors (DINOv2's behind its layer scales), have no name and are not asked for.
pub type Additions<'a> = dyn FnMut(&str, [usize; 2]) -> fwd_ops::Result<Option<LowRank>> + 'a;
