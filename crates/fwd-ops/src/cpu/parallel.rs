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
    let step = per_thread.div_ceil(per_thread.div_ceil(ROWS_IN_CACHE).max(1)).max(1);
    without_short_tasks(n_rows, 1, step)
}

/// The number of items of `rows` rows each that a task takes, near `step`, so that no task of several has few rows: products of few rows
/// sum in another order, and the number of threads would show in the results.
pub(crate) fn without_short_tasks(n_items: usize, rows: usize, step: usize) -> usize {
    const MIN_ROWS: usize = 8;
    let is_long = |items: usize| items == 0 || items * rows >= MIN_ROWS;
    (step..).find(|&step| n_items <= step || is_long(step) && is_long(n_items % step)).unwrap_or(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_task_of_several_is_short() {
        for (n_items, rows, step) in
            [(97, 1, 16), (3, 1, 2), (9, 5, 1), (100, 1, 3), (12, 8, 5), (33, 3, 11), (0, 1, 1)]
        {
            let taken = without_short_tasks(n_items, rows, step);
            assert!(taken >= step);
            let tail = n_items % taken;
            assert!(
                n_items <= taken || taken * rows >= 8 && (tail == 0 || tail * rows >= 8),
                "{n_items} {rows} {step}"
            );
        }
        assert_eq!(without_short_tasks(12, 8, 5), 5);
    }
}
