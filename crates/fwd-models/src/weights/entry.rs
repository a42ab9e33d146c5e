//! Where a tensor lies in a weight file, and how its elements are stored there.

use fwd_ops::Format;
use safetensors::tensor::Dtype;
use std::fmt;

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// Numbers, one by one or in blocks.
    Floats(Format),
    /// A matrix of signed bytes, each row with a factor in the tensor [`scales_of`](super::scaled::scales_of) its name.
    ScaledRows,
    /// What only safetensors files have: integers and other types that no weight has.
    Other(Dtype),
}

impl Stored {
    pub(super) fn of(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => Self::Floats(Format::F32),
            Dtype::BF16 => Self::Floats(Format::Bf16),
            Dtype::F16 => Self::Floats(Format::F16),
            other => Self::Other(other),
        }
    }

    /// The format of floats.
    pub(super) fn format(self) -> Option<Format> {
        match self {
            Self::Floats(format) => Some(format),
            Self::ScaledRows | Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Floats(format) => write!(f, "{format:?}"),
            Self::ScaledRows => f.write_str("I8 with scales"),
            Self::Other(dtype) => write!(f, "{dtype:?}"),
        }
    }
}

/// A tensor in a weight file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) stored: Stored,
    /// The outermost dimension first.
    pub(super) shape: Vec<usize>,
    /// The first byte, from the beginning of the file.
    pub(super) start: u64,
    pub(super) n_bytes: u64,
    /// llama.cpp interleaves the two halves of each head's rows in the projections of queries and keys. The number of heads, where it
    /// has done so.
    pub(super) interleaved: Option<usize>,
}

impl Entry {
    pub(super) fn n_elements(&self) -> u64 {
        self.shape.iter().map(|&side| side as u64).product()
    }

    /// The pieces in which a tensor is read, of about `n_bytes` bytes but of whole blocks: where each begins, and how many bytes it has.
    pub(super) fn pieces(&self, n_bytes: u64) -> impl Iterator<Item = (u64, u64)> + use<> {
        let block = self.stored.format().map_or(8, |format| format.block_bytes() as u64);
        let (all, step) = (self.n_bytes, (n_bytes / block).max(1) * block);
        (0..all).step_by(step as usize).map(move |from| (from, (all - from).min(step)))
    }
}
