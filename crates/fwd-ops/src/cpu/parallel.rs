//! How loops use the processor: its vector extension within a thread, and rows shared out between threads.

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

/// Whether code in [`simd`] has `a·b + c` as one instruction; elsewhere `mul_add` is a slow function.
pub(crate) fn has_fused_multiply_add() -> bool {
    !matches!(pulp::Arch::new(), pulp::Arch::Scalar)
}

/// Number of rows a task should take: the same for every thread, and few enough for a task's data to stay in cache.
pub(crate) fn rows_per_task(n_rows: usize) -> usize {
    const ROWS_IN_CACHE: usize = 256;
    let per_thread = n_rows.div_ceil(rayon::current_num_threads());
    per_thread.div_ceil(per_thread.div_ceil(ROWS_IN_CACHE).max(1)).max(1)
}
