//! Low-rank additions to the weight of a linear map (LoRA, Hu et al. 2021).

use crate::cpu::Elem;
use crate::cpu::low_rank::LowRankValues;
use crate::dispatch::Read;
use crate::error::{OpError, Result};
use candle_core::{DType, Device, Tensor};

/// Says what is added to a linear map: asked with the name of the map, which in a model is that of its weight without `.weight`
/// (`language_model.model.layers.0.self_attn.q_proj`), and with `[n_out, n_in]`. None leaves the map as it is.
pub type Additions<'a> = dyn FnMut(&str, [usize; 2]) -> Result<Option<LowRank>> + 'a;

/// `s·B·A`, which is added to the weight of a linear map.
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `(rank, n_in)`.
    pub a: Tensor,
    /// `(n_out, rank)`.
    pub b: Tensor,
    /// The factor `s`: `alpha/rank`, or `alpha/√rank` (rsLoRA).
    pub scale: f64,
}

impl LowRank {
    /// [`OpError::Shape`] unless it fits a map of these widths, [`OpError::DType`] unless both factors are in f32 or both in f64.
    fn check(&self, [n_out, n_in]: [usize; 2]) -> Result<()> {
        let fits = match (self.a.dims(), self.b.dims()) {
            (&[rank, a_in], &[b_out, b_rank]) => rank > 0 && b_rank == rank && a_in == n_in && b_out == n_out,
            _ => false,
        };
        if !fits {
            let what = format!("A {:?} and B {:?} for a map {n_out}x{n_in}", self.a.shape(), self.b.shape());
            return Err(OpError::shape("low_rank", what));
        }
        let dtype = self.a.dtype();
        if dtype != self.b.dtype() || !matches!(dtype, DType::F32 | DType::F64) {
            return Err(OpError::DType {
                op: "low_rank",
                dtype,
                supported: "A and B are both f32 or both f64",
            });
        }
        Ok(())
    }

    fn is_trained(&self) -> bool {
        self.a.track_op() || self.b.track_op()
    }

    pub(super) fn rank(&self) -> usize {
        self.a.dims()[0]
    }

    pub(super) fn n_out(&self) -> usize {
        self.b.dims()[0]
    }
}

/// A [`LowRank`] of some outputs of a map.
#[derive(Debug, Clone)]
pub(crate) struct Addition {
    pub(super) first: usize,
    pub(super) map: LowRank,
}

impl Addition {
    pub(crate) fn new(map: LowRank, first: usize, shape: [usize; 2]) -> Result<Self> {
        map.check(shape)?;
        let (a, b) = (map.a.contiguous()?, map.b.contiguous()?);
        Ok(Self { first, map: LowRank { a, b, ..map } })
    }

    /// The same, of outputs that stand behind `n` others.
    pub(crate) fn behind(&self, n: usize) -> Self {
        Self { first: self.first + n, map: self.map.clone() }
    }

    pub(crate) fn is_trained(&self) -> bool {
        self.map.is_trained()
    }

    pub(crate) fn frozen_on(&self, device: &Device) -> Result<Self> {
        let LowRank { a, b, scale } = &self.map;
        let [a, b] = [a, b].map(|factor| factor.detach().to_device(device));
        Ok(Self { first: self.first, map: LowRank { a: a?, b: b?, scale: *scale } })
    }

    pub(crate) fn read(&self) -> AdditionRead<'_> {
        AdditionRead { addition: self, a: Read::new(&self.map.a), b: Read::new(&self.map.b) }
    }
}

/// An [`Addition`] locked for reading.
pub(crate) struct AdditionRead<'a> {
    addition: &'a Addition,
    a: Read<'a>,
    b: Read<'a>,
}

impl AdditionRead<'_> {
    pub(crate) fn values<E: Elem>(&self) -> candle_core::Result<LowRankValues<'_, E>> {
        let Addition { first, map } = self.addition;
        let (n_rows, rank) = (map.n_out(), map.rank());
        Ok(LowRankValues {
            first: *first,
            n_rows,
            rank,
            scale: map.scale,
            a: self.a.values()?,
            b: self.b.values()?,
        })
    }
}
