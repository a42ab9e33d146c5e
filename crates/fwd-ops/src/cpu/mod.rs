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
pub(crate) mod softmax;

pub(crate) use elem::Elem;

/// Runs `body` compiled for the best vector extension of this processor (AVX2 + FMA on x86-64, NEON on Arm).
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

/// Number of rows a task should take, so that `n_rows` rows keep every thread busy and a task's data stays in cache.
pub(crate) fn rows_per_task(n_rows: usize) -> usize {
    const ROWS_IN_CACHE: usize = 128;
    n_rows.div_ceil(rayon::current_num_threads()).clamp(1, ROWS_IN_CACHE)
}
