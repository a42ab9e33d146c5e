//! `y = x·Wᵀ` for few rows of activations (decoding): dot products with the stored bytes, without a tile.
//!
//! Reading the matrix should take longest here. Of a group of elements `scale·q + offset`, the integers `q` are multiplied with `x` in
//! vector registers, and scale and offset are applied to the sum: `Σ (scale·q + offset)·x = scale·Σ q·x + offset·Σ x`. Up to [`AT_ONCE`]
//! rows of `x` share the decoding.

use super::blocks::{Block, GROUP, for_format, padded_block};
use super::{FORWARD_ROWS, Format, StoredRows};
use crate::cpu::scratch::Scratch;
use crate::cpu::{has_fused_multiply_add, simd};

/// Rows of activations that are multiplied with a decoded group.
const AT_ONCE: usize = 4;
/// Partial sums of a dot product.
const LANES: usize = 8;

/// Products of `n_rows` rows from `first` on with the rows of `x (m, n_in)`; `put(i, j, product)` for row `i` of `x`, row `first + j`.
pub(super) fn products(
    part: &StoredRows<'_>,
    (first, n_rows): (usize, usize),
    x: &[f32],
    mut put: impl FnMut(usize, usize, f32),
) {
    let bytes = &part.bytes[first * part.row_bytes()..][..n_rows * part.row_bytes()];
    let mut sums = [0f32; FORWARD_ROWS * AT_ONCE];
    for (chunk, x) in x.chunks(AT_ONCE * part.n_cols).enumerate() {
        let m = x.len() / part.n_cols;
        let sums = &mut sums[..n_rows * m];
        match m {
            1 => for_format!(part.format, dots::<1>(bytes, x, sums)),
            2 => for_format!(part.format, dots::<2>(bytes, x, sums)),
            3 => for_format!(part.format, dots::<3>(bytes, x, sums)),
            _ => for_format!(part.format, dots::<4>(bytes, x, sums)),
        }
        for (j, sums) in sums.chunks_exact(m).enumerate() {
            sums.iter().enumerate().for_each(|(i, &sum)| put(chunk * AT_ONCE + i, j, sum));
        }
    }
}

/// `out (rows, M)`: the dot products of the rows in `bytes` with each of the `M` rows of `x`.
fn dots<B: Block<BYTES>, const BYTES: usize, const M: usize>(bytes: &[u8], x: &[f32], out: &mut [f32]) {
    let (n_cols, row_bytes) = (x.len() / M, bytes.len() / (out.len() / M));
    let has_fused = has_fused_multiply_add();
    // The sums of each group of x, which all rows share.
    let n_groups = if B::HAS_OFFSET { n_cols / GROUP } else { 0 };
    let mut sums = Scratch::new(M * n_groups);
    simd(
        #[inline(always)]
        || {
            let x: [&[f32]; M] = std::array::from_fn(|i| &x[i * n_cols..][..n_cols]);
            for (sum, i) in sums.iter_mut().zip(0..) {
                *sum = x[i % M].as_chunks::<GROUP>().0[i / M].iter().sum();
            }
            let sums = sums.as_chunks::<M>().0;
            for (out, row) in out.as_chunks_mut::<M>().0.iter_mut().zip(bytes.chunks_exact(row_bytes)) {
                *out = if has_fused {
                    dot::<B, BYTES, M, true>(row, &x, sums)
                } else {
                    dot::<B, BYTES, M, false>(row, &x, sums)
                };
            }
        },
    );
}

#[inline(always)]
fn dot<B: Block<BYTES>, const BYTES: usize, const M: usize, const FUSED: bool>(
    row: &[u8],
    x: &[&[f32]; M],
    sums: &[[f32; M]],
) -> [f32; M] {
    let mut lanes = [[0f32; LANES]; M];
    let mut offsets = [0f32; M];
    let groups = x.map(|x| x.as_chunks::<GROUP>().0);
    let n_blocks = groups[0].len() / B::GROUPS;
    for (i, block) in row.as_chunks::<BYTES>().0[..n_blocks].iter().enumerate() {
        let scales = B::scales(block);
        for j in 0..B::GROUPS {
            let at = i * B::GROUPS + j;
            let mut q = [0f32; GROUP];
            B::quants(block, j, &mut q);
            let (scale, offset) = B::affine(&scales, j);
            for m in 0..M {
                add_group::<B, BYTES, FUSED>(&q, scale, &groups[m][at], &mut lanes[m]);
                if B::HAS_OFFSET {
                    offsets[m] = multiply_add::<FUSED>(offset, sums[at][m], offsets[m]);
                }
            }
        }
    }
    let tail = x[0].len() % GROUP;
    if tail > 0 {
        let block = padded_block::<BYTES>(row, n_blocks, tail);
        let mut q = [0f32; GROUP];
        B::quants(&block, 0, &mut q);
        let (scale, _) = B::affine(&B::scales(&block), 0);
        for m in 0..M {
            let mut end = [0f32; GROUP];
            end[..tail].copy_from_slice(&x[m][n_blocks * GROUP..]);
            add_group::<B, BYTES, FUSED>(&q, scale, &end, &mut lanes[m]);
        }
    }
    for (offset, lanes) in offsets.iter_mut().zip(&lanes) {
        *offset += sum_of_lanes(lanes);
    }
    offsets
}

/// Not inlined: next to this sum the compiler gives up keeping the lanes of the loop in one register.
#[inline(never)]
fn sum_of_lanes(l: &[f32; LANES]) -> f32 {
    ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
}

/// Adds `scale·Σ q·x` of a group, in lanes.
#[allow(clippy::needless_range_loop)] // Counted loops over arrays become vector instructions; iterators here are slower by half.
#[inline(always)]
fn add_group<B: Block<BYTES>, const BYTES: usize, const FUSED: bool>(
    q: &[f32; GROUP],
    scale: [f32; 2],
    x: &[f32; GROUP],
    lanes: &mut [f32; LANES],
) {
    let half = |from: usize| -> [f32; LANES] {
        let mut sum = [0f32; LANES];
        for i in 0..LANES {
            sum[i] = q[from + i] * x[from + i];
        }
        for i in 0..LANES {
            let at = from + LANES + i;
            sum[i] = multiply_add::<FUSED>(q[at], x[at], sum[i]);
        }
        sum
    };
    let (low, high) = (half(0), half(GROUP / 2));
    for i in 0..LANES {
        lanes[i] = if B::TWO_SCALES {
            multiply_add::<FUSED>(high[i], scale[1], multiply_add::<FUSED>(low[i], scale[0], lanes[i]))
        } else {
            multiply_add::<FUSED>(low[i] + high[i], scale[0], lanes[i])
        };
    }
}

/// `a·b + c`, rounded once if the processor has an instruction for that.
#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}
