//! How rows are cut into the blocks that kernels take.

/// First row and height of blocks of about equal height, at most `max_rows`.
pub(crate) fn blocks(n_rows: usize, max_rows: usize) -> impl Iterator<Item = (usize, usize)> {
    let n_blocks = n_rows.div_ceil(max_rows);
    let (short, n_tall) = (n_rows / n_blocks.max(1), n_rows % n_blocks.max(1));
    (0..n_blocks).map(move |i| (i * short + i.min(n_tall), short + usize::from(i < n_tall)))
}
