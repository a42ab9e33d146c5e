//! The map from the Q-Former to the language model: `W·q + b`, followed by an RMS norm where the configuration asks for one.

use crate::config::ModelConfig;
use crate::error::Result;
use crate::weights::Scope;
use candle_core::Tensor;
use fwd_ops::{Linear, MapChange, Norm};

/// The map from queries to visual tokens.
#[derive(Debug, Clone)]
pub(crate) struct Projection {
    map: Linear,
    norm: Norm,
}

impl Projection {
    /// Reads `language_projection`, and `language_projection_norm` if the model has one.
    pub(crate) fn new(config: &ModelConfig, mut root: Scope<'_>) -> Result<Self> {
        let (d_model, d_qformer) = (config.text.d_model(), config.qformer.hidden_size);
        let map = root.linear("language_projection", d_model, d_qformer, true)?;
        let norm = if config.projection_norm {
            root.rms_norm("language_projection_norm", d_model, config.text.norm_epsilon())?
        } else {
            Norm::identity()
        };
        Ok(Self { map, norm })
    }

    /// The same with what `change` makes of its linear maps.
    pub(crate) fn with_maps(&self, change: &mut MapChange<'_>) -> Result<Self> {
        Ok(Self { map: change(&self.map)?, norm: self.norm.clone() })
    }

    /// The width of a visual token.
    pub(crate) fn d_model(&self) -> usize {
        self.map.n_out()
    }

    /// `(batch, n_queries, d_qformer)` -> `(batch, n_queries, d_model)`.
    pub(crate) fn forward(&self, queries: &Tensor) -> Result<Tensor> {
        Ok(self.norm.forward(&self.map.forward(queries)?)?)
    }
}
