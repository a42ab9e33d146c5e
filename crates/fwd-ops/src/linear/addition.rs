//! Low-rank additions to the weight of a linear map (LoRA, Hu et al. 2021).

use crate::cpu::Elem;
use crate::cpu::low_rank::LowRankValues;
use crate::dispatch::Read;
use crate::error::{OpError, Result};
use candle_core::{DType, Device, Tensor};

/// Says what is added to a linear map: asked with the name of the map, which in a model is that of its weight without `.weight`
/// (`language_model.model.layers.0.self_attn.q_proj`), and with `[n_out, n_in]`. None leaves the map as it is.
pub type Additions<'a> = dyn FnMut(&str, [usize; 2]) -> Result<Option<LowRank>> + 'a;

/// `s·B·A`, which is added to the weight of a linear map. With a router it is a mixture of experts, each of which has an equal part of the rows of `A`
/// and columns of `B`, one behind another: `y += s·Σ_e g_e·B_e·(A_e·x)`, `g = softmax(R·x)` (MoELoRA, Chen et al. 2024).
#[derive(Debug, Clone)]
pub struct LowRank {
    /// `(rank, n_in)`.
    pub a: Tensor,
    /// `(n_out, rank)`.
    pub b: Tensor,
    /// The factor `s`: `alpha/rank`, or `alpha/√rank` (rsLoRA).
    pub scale: f64,
    /// `R (n_experts, n_in)`.
    pub router: Option<Tensor>,
}

impl LowRank {
    /// [`OpError::Shape`] unless it fits a map of these widths, [`OpError::DType`] unless all parts are in f32 or all in f64.
    fn check(&self, [n_out, n_in]: [usize; 2]) -> Result<()> {
        let fits = match (self.a.dims(), self.b.dims()) {
            (&[rank, a_in], &[b_out, b_rank]) => rank > 0 && b_rank == rank && a_in == n_in && b_out == n_out,
            _ => false,
        };
        if !fits {
            let what = format!("A {:?} and B {:?} for a map {n_out}x{n_in}", self.a.shape(), self.b.shape());
            return Err(OpError::shape("low_rank", what));
        }
        if let Some(router) = &self.router {
            let rank = self.rank();
            let is_part = |n: usize| n > 0 && rank.is_multiple_of(n);
            if !matches!(router.dims(), &[n_experts, r_in] if is_part(n_experts) && r_in == n_in) {
                let what = format!(
                    "a router {:?} of an addition of rank {rank} to a map {n_out}x{n_in}; it is (n_experts, n_in), and the rank a multiple of n_experts",
                    router.shape()
                );
                return Err(OpError::shape("low_rank", what));
            }
        }
        let dtype = self.a.dtype();
        let differs = |part: &Tensor| part.dtype() != dtype;
        if differs(&self.b)
            || self.router.as_ref().is_some_and(differs)
            || !matches!(dtype, DType::F32 | DType::F64)
        {
            return Err(OpError::DType {
                op: "low_rank",
                dtype,
                supported: "A, B and a router are all f32 or all f64",
            });
        }
        Ok(())
    }

    fn is_trained(&self) -> bool {
        self.a.track_op() || self.b.track_op() || self.router.as_ref().is_some_and(Tensor::track_op)
    }

    /// 0 without a router.
    pub(super) fn n_experts(&self) -> usize {
        self.router.as_ref().map_or(0, |router| router.dims()[0])
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
        let router = map.router.map(|router| router.contiguous()).transpose()?;
        Ok(Self { first, map: LowRank { a, b, router, scale: map.scale } })
    }

    /// The same, of outputs that stand behind `n` others.
    pub(crate) fn behind(&self, n: usize) -> Self {
        Self { first: self.first + n, map: self.map.clone() }
    }

    pub(crate) fn is_trained(&self) -> bool {
        self.map.is_trained()
    }

    pub(crate) fn is_routed(&self) -> bool {
        self.map.router.is_some()
    }

    pub(crate) fn frozen_on(&self, device: &Device) -> Result<Self> {
        let LowRank { a, b, scale, router } = &self.map;
        let [a, b] = [a, b].map(|factor| factor.detach().to_device(device));
        let router = router.as_ref().map(|router| router.detach().to_device(device)).transpose()?;
        Ok(Self { first: self.first, map: LowRank { a: a?, b: b?, scale: *scale, router } })
    }

    pub(crate) fn read(&self) -> AdditionRead<'_> {
        let LowRank { a, b, router, .. } = &self.map;
        AdditionRead {
            addition: self,
            a: Read::new(a),
            b: Read::new(b),
            router: router.as_ref().map(Read::new),
        }
    }
}

/// An [`Addition`] locked for reading.
pub(crate) struct AdditionRead<'a> {
    addition: &'a Addition,
    a: Read<'a>,
    b: Read<'a>,
    router: Option<Read<'a>>,
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
            router: self
                .router
                .as_ref()
                .map(|r| Ok::<_, candle_core::Error>((map.n_experts(), r.values()?)))
                .transpose()?,
        })
    }
}
