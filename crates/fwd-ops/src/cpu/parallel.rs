//! How loops use the processor: its vector extension within a thread, and rows shared out between threads.

pub(crate) use fwd_simd::vectorize as simd;

/// Whether code in [`simd`] has `a·b + c` as one instruction; elsewhere `mul_add` is a slow function.
pub(crate) fn has_fused_multiply_add() -> bool {
    fwd_simd::Cpu::current().has_fused_multiply_add()
}

/// Number of rows a task should take: the same for every thread, and few enough for a task's data to stay in cache.
pub(crate) fn rows_per_task(n_rows: usize) -> usize {
    const ROWS_IN_CACHE: usize = 256;
    let per_thread = n_rows.div_ceil(rayon::current_num_threads());
    per_thread.div_ceil(per_thread.div_ceil(ROWS_IN_CACHE).max(1)).max(1)
}
