//! Slice kernels for the CPU, generic over `f32` and `f64`.
//!
//! Nothing here knows about tensors or graphs: plain row-major slices in, plain slices out. The functions marked
//! `#[inline(always)]` are meant to be called inside [`simd`], which compiles its closure for the vector extension that the
//! running processor has.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod elem;
pub(crate) mod feed_forward;
pub(crate) mod gemm;
pub(crate) mod linear;
pub(crate) mod low_rank;
pub(crate) mod norm;
pub(crate) mod packed;
mod parallel;
pub(crate) mod rotary;
pub(crate) mod router;
pub(crate) mod scratch;
pub(crate) mod softmax;
pub(crate) mod stored;

pub(crate) use elem::Elem;
pub(crate) use parallel::{rows_per_task, simd, without_short_tasks};
