//! What is added to attention scores before the softmax: relative positions, padding mask and causal mask.
//!
//! `s[b, h, i, j] = scale·q·k + position[h, i, j] + (0 or −∞ of key j of entry b) + (0 or −∞ of a later token)`.

use crate::cpu::Elem;
use crate::cpu::attention::ScoreTerms;
use crate::dispatch::Read;
use crate::embedding::embedding;
use crate::error::{OpError, Result};
use candle_core::{DType, Device, Tensor};
use std::borrow::Cow;

/// What is added to attention scores before the softmax. Of this the position bias alone gets a gradient, if it is tracked.
#[derive(Debug, Clone, Default)]
pub struct AttentionBias {
    position: Option<Tensor>,
    keys: Option<Tensor>,
    causal: bool,
}

impl AttentionBias {
    /// No bias and no mask.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds `position (n_heads, t_q, t_k)` to the scores of every batch entry.
    ///
    /// # Errors
    /// [`OpError::Shape`] if it is not of rank 3.
    pub fn with_position(mut self, position: &Tensor) -> Result<Self> {
        if position.rank() != 3 {
            let what = format!("the position bias must be (heads, t_q, t_k), got {:?}", position.shape());
            return Err(OpError::shape("attention", what));
        }
        self.position = Some(position.contiguous()?);
        Ok(self)
    }

    /// Hides padding: `mask (batch, t_k)`, integer or float, 0 for a key that must not be seen.
    ///
    /// # Errors
    /// [`OpError::Shape`] if it is not of rank 2.
    pub fn with_padding_mask(mut self, mask: &Tensor) -> Result<Self> {
        if mask.rank() != 2 {
            let what = format!("the mask must be (b, t_k), got {:?}", mask.shape());
            return Err(OpError::shape("attention", what));
        }
        // Computed where the mask is: reading it on the CPU would wait for a GPU.
        let hidden = mask.detach().to_dtype(DType::F32)?.contiguous()?.eq(0f32)?;
        let value = |v: f32| Tensor::full(v, mask.shape(), mask.device());
        self.keys = Some(hidden.where_cond(&value(f32::NEG_INFINITY)?, &value(0.0)?)?);
        Ok(self)
    }

    /// The same bias for activations of another type (f32 or f64).
    ///
    /// # Errors
    /// An error of candle.
    pub fn to_dtype(&self, dtype: DType) -> Result<Self> {
        let cast = |t: &Option<Tensor>| t.as_ref().map(|t| t.to_dtype(dtype)).transpose();
        Ok(Self { position: cast(&self.position)?, keys: cast(&self.keys)?, causal: self.causal })
    }

    /// What is said of the first `n_keys` keys: a step of generation knows as many of those for which the bias was made.
    ///
    /// # Errors
    /// An error of candle if it is for fewer keys.
    pub fn first_keys(&self, n_keys: usize) -> Result<Self> {
        let first = |t: &Option<Tensor>, dim: usize| -> Result<Option<Tensor>> {
            Ok(t.as_ref().map(|t| t.narrow(dim, 0, n_keys)?.contiguous()).transpose()?)
        };
        Ok(Self { position: first(&self.position, 2)?, keys: first(&self.keys, 1)?, causal: self.causal })
    }

    /// The position bias, if it gets a gradient.
    pub(crate) fn trained(&self) -> Option<&Tensor> {
        self.position.as_ref().filter(|p| p.track_op())
    }

    /// The same values without a history.
    pub(crate) fn frozen(&self) -> Self {
        Self { position: self.position.as_ref().map(Tensor::detach), ..self.clone() }
    }

    /// Query `i` sees keys `0 ..= i + t_k − t_q`.
    pub fn causal(mut self) -> Self {
        self.causal = true;
        self
    }

    /// [`OpError::Shape`] unless bias and mask fit the sizes of an attention.
    pub(crate) fn check(
        &self,
        op: &'static str,
        batch: usize,
        n_heads: usize,
        t_q: usize,
        t_k: usize,
    ) -> Result<()> {
        let misfit = |what: &str, want: &[usize], got: &Tensor| {
            Err(OpError::shape(op, format!("{what} must be {want:?}, got {:?}", got.shape())))
        };
        match (&self.position, &self.keys) {
            (Some(p), _) if p.dims() != [n_heads, t_q, t_k] => {
                misfit("position bias", &[n_heads, t_q, t_k], p)
            }
            (_, Some(k)) if k.dims() != [batch, t_k] => misfit("padding mask", &[batch, t_k], k),
            _ => Ok(()),
        }
    }

    pub(crate) fn position(&self) -> Option<&Tensor> {
        self.position.as_ref()
    }

    pub(crate) fn keys(&self) -> Option<&Tensor> {
        self.keys.as_ref()
    }

    pub(crate) fn is_causal(&self) -> bool {
        self.causal
    }

    pub(crate) fn read(&self) -> BiasRead<'_> {
        BiasRead {
            position: self.position.as_ref().map(Read::new),
            keys: self.keys.as_ref().map(Read::new),
            causal: self.causal,
        }
    }
}

/// An [`AttentionBias`] locked for reading.
pub(crate) struct BiasRead<'a> {
    position: Option<Read<'a>>,
    keys: Option<Read<'a>>,
    causal: bool,
}

/// The values of an [`AttentionBias`] in one element type.
pub(crate) struct BiasValues<'a, E: Clone> {
    position: Option<Cow<'a, [E]>>,
    keys: Option<Cow<'a, [E]>>,
    causal: bool,
}

impl BiasRead<'_> {
    pub(crate) fn values<E: Elem>(&self) -> candle_core::Result<BiasValues<'_, E>> {
        Ok(BiasValues {
            position: self.position.as_ref().map(Read::values).transpose()?,
            keys: self.keys.as_ref().map(Read::values).transpose()?,
            causal: self.causal,
        })
    }
}

impl<E: Elem> BiasValues<'_, E> {
    /// The terms of batch entry `entry`.
    pub(crate) fn terms(&self, entry: usize, t_k: usize, scale: f64) -> ScoreTerms<'_, E> {
        ScoreTerms {
            scale,
            position: self.position.as_deref(),
            keys: self.keys.as_deref().map(|keys| &keys[entry * t_k..][..t_k]),
            causal: self.causal,
        }
    }
}

/// The additive bias of T5's relative positions: `bias[h, i, j] = table[bucket(j − (i + offset)), h]`.
///
/// # Shapes
/// `table (n_buckets, n_heads)`, `buckets (t_q·t_k)` row-major with every value below `n_buckets` -> `(n_heads, t_q, t_k)`.
///
/// # Errors
/// [`OpError::Shape`] if the sizes do not fit, [`OpError::IdOutOfRange`] for a bucket outside the table.
pub fn position_bias(table: &Tensor, buckets: &[u32], t_q: usize, t_k: usize) -> Result<Tensor> {
    let (_, n_heads) = table.dims2()?;
    if buckets.len() != t_q * t_k {
        return Err(OpError::shape(
            "position_bias",
            format!("{} buckets for {t_q}·{t_k} pairs", buckets.len()),
        ));
    }
    let ids = Tensor::from_slice(buckets, buckets.len(), &Device::Cpu)?;
    let rows = embedding(table, &ids)?;
    Ok(rows.t()?.contiguous()?.reshape((n_heads, t_q, t_k))?)
}
