//! Slice kernels for the CPU, generic over `f32` and `f64`.
//!
//! Nothing here knows about tensors or graphs: plain row-major slices in, plain slices out. The functions marked
//! `#[inline(always)]` are meant to be called inside [`simd`], which compiles its closure for the vector extension that the
//! running processor has.

pub(crate) mod attention;
pub(crate) mod conv;
pub(crate) mod elem;
pub(crate) mod ffn;
pub(crate) mod gelu;
pub(crate) mod gemm;
pub(crate) mod norm;
pub(crate) mod scratch;
pub(crate) mod softmax;

pub(crate) use elem::Elem;

/// Runs `body` compiled for the best vector extension of this processor (AVX2 + FMA on x86-64, NEON on Arm).
///
/// The closure must be `#[inline(always)]`, and so must everything it calls: what is not inlined is compiled for the
/// baseline, four times slower on x86-64.
#[inline(always)]
pub(crate) fn simd<R>(body: impl FnOnce() -> R) -> R {
    struct Body<F>(F);
    impl<R, F: FnOnce() -> R> pulp::NullaryFnOnce for Body<F> {
        type Output = R;
        #[inline(always)]
        fn call(self) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Body(body))
}

/// Number of rows a task should take: the same for every thread, and few enough for a task's data to stay in cache.
pub(crate) fn rows_per_task(n_rows: usize) -> usize {
    const ROWS_IN_CACHE: usize = 256;
    let per_thread = n_rows.div_ceil(rayon::current_num_threads());
    per_thread.div_ceil(per_thread.div_ceil(ROWS_IN_CACHE).max(1)).max(1)
}
