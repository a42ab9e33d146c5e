//! Products of activations with stored rows: `y = x·Wᵀ` and `dx = dy·W`.
//!
//! A tile of the matrix is widened into working memory that fits the second-level cache, multiplied, and dropped. Forward, the rows of
//! the matrix are shared out over the threads; backward, its columns: so every element is widened once, and each element of
//! the result is summed by one thread in an order that does not depend on their number.

use super::{FORWARD_ROWS, StoredRows, few_rows};
use crate::cpu::Elem;
use crate::cpu::gemm::{MIN_PARALLEL_WORK, Threads, rows};
use crate::cpu::scratch::Scratch;
use faer::{Accum, MatMut, MatRef};
use rayon::prelude::*;

/// Elements of the widened tile of a thread: 256 KiB in f32.
const TILE: usize = 1 << 16;
/// Columns of the matrix in a backward tile, about.
const BACKWARD_COLUMNS: usize = 128;
/// Up to as many rows of f32 activations are multiplied with the stored bytes, without a tile.
const FEW_ROWS: usize = 8;

/// `y = x·Wᵀ`, or `y += …`, for `x (m, n_in)` and the rows of all parts.
pub(crate) fn forward<E: Elem>(
    parts: &[StoredRows<'_>],
    x: &[E],
    y: MatMut<'_, E>,
    accum: Accum,
    threads: Threads,
) {
    let m = y.nrows();
    let work = x.len() * y.ncols();
    let mut tiles = Vec::new();
    let mut rest = y;
    for part in parts {
        for first in (0..part.n_rows).step_by(FORWARD_ROWS) {
            let (tile, other) = rest.split_at_col_mut(FORWARD_ROWS.min(part.n_rows - first));
            rest = other;
            tiles.push((part, first, tile));
        }
    }
    let few = if m <= FEW_ROWS { E::as_f32s(x) } else { None };
    for_each(tiles, work, threads, |(part, first, mut y)| match few {
        Some(x) => few_rows::products(part, (first, y.ncols()), x, |i, j, value| {
            let value = E::of(f64::from(value));
            y[(i, j)] = if accum == Accum::Add { y[(i, j)] + value } else { value };
        }),
        None => forward_tile(part, first, rows(x, m, part.n_cols, part.n_cols), y, accum),
    });
}

fn forward_tile<E: Elem>(
    part: &StoredRows<'_>,
    first: usize,
    x: MatRef<'_, E>,
    mut y: MatMut<'_, E>,
    accum: Accum,
) {
    let (n_in, n_rows) = (x.ncols(), y.ncols());
    let step = (TILE / FORWARD_ROWS).min(n_in);
    let mut tile = Scratch::new(n_rows * step);
    let mut accum = accum;
    for from in (0..n_in).step_by(step) {
        let width = step.min(n_in - from);
        let tile = &mut tile[..n_rows * width];
        for (row, out) in tile.chunks_exact_mut(width).enumerate() {
            part.widen(first + row, from, out);
        }
        let tile = rows(tile, n_rows, width, width).transpose();
        E::gemm(y.as_mut(), accum, x.subcols(from, width), tile, E::one());
        accum = Accum::Add;
    }
}

/// `dx = dy·W`, or `dx += …`, for `dy (m, n_out)` over the rows of all parts.
pub(crate) fn backward<E: Elem>(
    parts: &[StoredRows<'_>],
    dy: MatRef<'_, E>,
    dx: MatMut<'_, E>,
    accum: Accum,
    threads: Threads,
) {
    let (n_in, n_out) = (dx.ncols(), dy.ncols());
    let work = dx.nrows() * n_in * n_out;
    let block = parts.iter().map(|part| part.format.block_len()).max().unwrap_or(1);
    let width = backward_width(n_in, block);
    let mut tiles = Vec::new();
    let mut rest = dx;
    for from in (0..n_in).step_by(width) {
        let (tile, other) = rest.split_at_col_mut(width.min(n_in - from));
        rest = other;
        tiles.push((from, tile));
    }
    for_each(tiles, work, threads, |(from, dx)| backward_tile(parts, from, dy, dx, accum));
}

/// Whole blocks, near [`BACKWARD_COLUMNS`], so that there is an even number of tiles where blocks allow it.
fn backward_width(n_in: usize, block: usize) -> usize {
    let n_tiles = 2 * n_in.div_ceil(2 * BACKWARD_COLUMNS);
    n_in.div_ceil(n_tiles).next_multiple_of(block)
}

fn backward_tile<E: Elem>(
    parts: &[StoredRows<'_>],
    from: usize,
    dy: MatRef<'_, E>,
    mut dx: MatMut<'_, E>,
    accum: Accum,
) {
    let width = dx.ncols();
    let step = (TILE / width).max(1);
    let mut tile = Scratch::new(step * width);
    let (mut accum, mut part_at) = (accum, 0);
    for part in parts {
        for first in (0..part.n_rows).step_by(step) {
            let n_rows = step.min(part.n_rows - first);
            let tile = &mut tile[..n_rows * width];
            for (row, out) in tile.chunks_exact_mut(width).enumerate() {
                part.widen(first + row, from, out);
            }
            let dy = dy.subcols(part_at + first, n_rows);
            E::gemm(dx.as_mut(), accum, dy, rows(tile, n_rows, width, width), E::one());
            accum = Accum::Add;
        }
        part_at += part.n_rows;
    }
}

/// Runs `body` for each tile, over the threads if the work is worth it.
fn for_each<T: Send + Sync>(tiles: Vec<T>, work: usize, threads: Threads, body: impl Fn(T) + Sync + Send) {
    if threads.count() == 1 || work < MIN_PARALLEL_WORK {
        tiles.into_iter().for_each(body);
    } else if threads == Threads::Team {
        let mut tiles: Vec<_> = tiles.into_iter().map(Some).collect();
        fwd_simd::fork_chunks(&mut tiles, 1, usize::MAX, |_, tiles| {
            tiles.iter_mut().filter_map(Option::take).for_each(&body);
        });
    } else {
        tiles.into_par_iter().for_each(body);
    }
}
