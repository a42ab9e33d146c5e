//! Products of activations with stored rows: `y = x·Wᵀ` and `dx = dy·W`.
//!
//! Many rows of activations are packed once a product, for all threads. A thread widens a tile of the matrix into working memory that fits
//! the second-level cache, packs it, multiplies it, and drops it. Few rows (decoding) are multiplied with the stored bytes as they are.
//! Forward, the rows of the matrix are shared out over the threads; backward, its columns: so every element is widened once, and each
//! element of the result is summed by one thread in an order that does not depend on their number.

use super::StoredRows;
use crate::compute::Compute;
use crate::cpu::Elem;
use crate::cpu::gemm::{MIN_PARALLEL_WORK, Threads, rows};
use crate::cpu::scratch::Scratch;
use faer::{Accum, MatMut, MatRef};
use fwd_simd::{Cpu, Element, Lhs, PANEL, Rounded, multiply, pack_panel};
use half::bf16;
use rayon::prelude::*;

/// Up to as many rows of activations are multiplied with the stored bytes, without a tile.
const FEW_ROWS: usize = 8;
/// Stored rows of a task then.
const ROWS_OF_FEW: usize = 64;
/// Columns of a forward tile of [`PANEL`] rows: 64 KiB in f32, and as much packed.
const FORWARD_COLUMNS: usize = 512;
/// Rows of a backward tile.
const BACKWARD_ROWS: usize = 256;
/// Columns of a backward tile, about.
const BACKWARD_COLUMNS: usize = 128;

/// `y = x·Wᵀ`, or `y += …`, for `x (m, n_in)` and the rows of all parts.
pub(crate) fn forward<E: Elem>(
    parts: &[StoredRows<'_>],
    x: &[E],
    y: MatMut<'_, E>,
    accum: Accum,
    threads: Threads,
) {
    let Some(x) = E::as_f32s(x) else { return forward_in_f64(parts, x, y, accum, threads) };
    let Some(mut rest) = E::as_f32_mut(y) else { return };
    let (m, work) = (rest.nrows(), x.len() * rest.ncols());
    let mut factors = [const { None }; Kind::COUNT];
    for part in parts {
        let kind = Kind::of(part, m);
        factors[kind as usize].get_or_insert_with(|| Factor::new(kind, x, m, part.n_cols));
    }
    let mut tiles = Vec::new();
    for part in parts {
        let kind = Kind::of(part, m);
        let Some(factor) = &factors[kind as usize] else { continue };
        for first in (0..part.n_rows).step_by(kind.rows()) {
            let (tile, other) = rest.split_at_col_mut(kind.rows().min(part.n_rows - first));
            rest = other;
            tiles.push((part, factor, first, tile));
        }
    }
    for_each(tiles, work, threads, |(part, factor, first, y)| match factor {
        Factor::Exact(_) | Factor::Rounded(_) => few_rows(part, first, factor, y, accum),
        Factor::F32(x) => forward_tile(part, first, x, y, accum),
        Factor::Bf16(x) => forward_tile(part, first, x, y, accum),
    });
}

/// How a part is multiplied.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Few rows of activations with the stored bytes.
    Few,
    /// The same with activations of 8 bits.
    FewInt8,
    /// Tiles in f32.
    F32,
    /// Tiles in bf16.
    Bf16,
}

impl Kind {
    const COUNT: usize = 4;

    fn of(part: &StoredRows<'_>, m: usize) -> Self {
        match part.compute {
            Compute::F32 if m <= FEW_ROWS => Self::Few,
            Compute::F32 => Self::F32,
            Compute::Int8 if m <= FEW_ROWS && part.format.block_len() > 1 => Self::FewInt8,
            Compute::Bf16 | Compute::Int8 => Self::Bf16,
        }
    }

    /// Rows of the matrix in a task.
    fn rows(self) -> usize {
        match self {
            Self::Few | Self::FewInt8 => ROWS_OF_FEW,
            Self::F32 | Self::Bf16 => PANEL,
        }
    }
}

/// The activations of a product.
enum Factor<'a> {
    Exact(&'a [f32]),
    Rounded(Rounded),
    F32(Lhs<f32>),
    Bf16(Lhs<bf16>),
}

impl<'a> Factor<'a> {
    fn new(kind: Kind, x: &'a [f32], m: usize, n_cols: usize) -> Self {
        let as_rows = rows(x, m, n_cols, n_cols);
        match kind {
            Kind::Few => Self::Exact(x),
            Kind::FewInt8 => Self::Rounded(Rounded::new(x, n_cols)),
            Kind::F32 => Self::F32(Lhs::pack(Cpu::current(), as_rows, 1.0)),
            Kind::Bf16 => Self::Bf16(Lhs::pack(Cpu::current(), as_rows, 1.0)),
        }
    }
}

/// Rows `first ..` of a part, as many as `y` has columns, times few rows of activations.
fn few_rows(part: &StoredRows<'_>, first: usize, x: &Factor<'_>, mut y: MatMut<'_, f32>, accum: Accum) {
    let (m, n_rows) = (y.nrows(), y.ncols());
    let mut products = [0f32; ROWS_OF_FEW * FEW_ROWS];
    let products = &mut products[..n_rows * m];
    let (cpu, bytes) = (Cpu::current(), part.rows(first, n_rows));
    match x {
        Factor::Exact(x) => fwd_simd::products(cpu, part.format, bytes, x, part.n_cols, products),
        Factor::Rounded(x) => fwd_simd::rounded_products(cpu, part.format, bytes, x, products),
        Factor::F32(_) | Factor::Bf16(_) => return,
    }
    for i in 0..m {
        for j in 0..n_rows {
            let value = products[j * m + i];
            y[(i, j)] = if accum == Accum::Add { y[(i, j)] + value } else { value };
        }
    }
}

/// Rows `first ..` of a part, as many as `y` has columns, times all activations.
fn forward_tile<T: Element>(
    part: &StoredRows<'_>,
    first: usize,
    x: &Lhs<T>,
    mut y: MatMut<'_, f32>,
    accum: Accum,
) {
    let (n_in, n_rows, cpu) = (part.n_cols, y.ncols(), Cpu::current());
    let step = FORWARD_COLUMNS.min(n_in);
    let mut tile = Scratch::new(n_rows * step);
    let mut panel = vec![T::ZERO; T::steps(step)];
    let mut accum = accum;
    for from in (0..n_in).step_by(step) {
        let width = step.min(n_in - from);
        let tile = &mut tile[..n_rows * width];
        for (row, out) in tile.chunks_exact_mut(width).enumerate() {
            part.widen(first + row, from, out);
        }
        let panel = &mut panel[..T::steps(width)];
        pack_panel::<T>(cpu, rows(tile, n_rows, width, width), panel);
        multiply(x, from, panel, y.as_mut(), accum);
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
    let Some(dy) = E::as_f32(dy) else { return backward_in_f64(parts, dy, dx, accum) };
    let Some(mut rest) = E::as_f32_mut(dx) else { return };
    let (n_in, work) = (rest.ncols(), rest.nrows() * rest.ncols() * dy.ncols());
    let mut part_at = 0;
    let factors: Vec<_> = parts
        .iter()
        .map(|part| {
            let dy = dy.subcols(part_at, part.n_rows);
            part_at += part.n_rows;
            match part.compute {
                Compute::F32 => Factor::F32(Lhs::pack(Cpu::current(), dy, 1.0)),
                Compute::Bf16 | Compute::Int8 => Factor::Bf16(Lhs::pack(Cpu::current(), dy, 1.0)),
            }
        })
        .collect();
    let width = backward_width(n_in);
    let mut tiles = Vec::new();
    for from in (0..n_in).step_by(width) {
        let (tile, other) = rest.split_at_col_mut(width.min(n_in - from));
        rest = other;
        tiles.push((from, tile));
    }
    for_each(tiles, work, threads, |(from, mut dx)| {
        let mut accum = accum;
        for (part, factor) in parts.iter().zip(&factors) {
            match factor {
                Factor::F32(dy) => backward_tile(part, from, dy, dx.as_mut(), accum),
                Factor::Bf16(dy) => backward_tile(part, from, dy, dx.as_mut(), accum),
                Factor::Exact(_) | Factor::Rounded(_) => {}
            }
            accum = Accum::Add;
        }
    });
}

/// Whole groups, near [`BACKWARD_COLUMNS`], so that there is an even number of tiles where groups allow it.
fn backward_width(n_in: usize) -> usize {
    let n_tiles = 2 * n_in.div_ceil(2 * BACKWARD_COLUMNS);
    n_in.div_ceil(n_tiles).next_multiple_of(PANEL)
}

/// Columns `from ..` of a part, as many as `dx` has.
fn backward_tile<T: Element>(
    part: &StoredRows<'_>,
    from: usize,
    dy: &Lhs<T>,
    mut dx: MatMut<'_, f32>,
    accum: Accum,
) {
    let (width, cpu) = (dx.ncols(), Cpu::current());
    let step = BACKWARD_ROWS.min(part.n_rows);
    let mut tile = Scratch::new(step * width);
    let mut panel = vec![T::ZERO; T::steps(step)];
    let mut accum = accum;
    for first in (0..part.n_rows).step_by(step) {
        let n_rows = step.min(part.n_rows - first);
        let tile = &mut tile[..n_rows * width];
        for (row, out) in tile.chunks_exact_mut(width).enumerate() {
            part.widen(first + row, from, out);
        }
        let columns = rows(tile, n_rows, width, width);
        for at in (0..width).step_by(PANEL) {
            let n = PANEL.min(width - at);
            let panel = &mut panel[..T::steps(n_rows)];
            pack_panel::<T>(cpu, columns.subcols(at, n).transpose(), panel);
            multiply(dy, first, panel, dx.as_mut().subcols_mut(at, n), accum);
        }
        accum = Accum::Add;
    }
}

/// [`forward`] for activations in f64, with factors rounded as in f32.
fn forward_in_f64<E: Elem>(
    parts: &[StoredRows<'_>],
    x: &[E],
    y: MatMut<'_, E>,
    accum: Accum,
    threads: Threads,
) {
    let (m, work) = (y.nrows(), x.len() * y.ncols());
    let mut tiles = Vec::new();
    let mut rest = y;
    for part in parts {
        for first in (0..part.n_rows).step_by(PANEL) {
            let (tile, other) = rest.split_at_col_mut(PANEL.min(part.n_rows - first));
            rest = other;
            tiles.push((part, first, tile));
        }
    }
    for_each(tiles, work, threads, |(part, first, y)| {
        let n_in = part.n_cols;
        let w = rows_as::<E>(part, first, y.ncols());
        let x: Vec<E> = x.iter().map(|&x| rounded_for(part.compute, x)).collect();
        let w = rows(&w, y.ncols(), n_in, n_in).transpose();
        E::gemm(y, accum, rows(&x, m, n_in, n_in), w, E::one());
    });
}

/// [`backward`] for activations in f64.
fn backward_in_f64<E: Elem>(
    parts: &[StoredRows<'_>],
    dy: MatRef<'_, E>,
    mut dx: MatMut<'_, E>,
    accum: Accum,
) {
    let (n_in, m) = (dx.ncols(), dy.nrows());
    let (mut accum, mut at) = (accum, 0);
    for part in parts {
        for first in (0..part.n_rows).step_by(BACKWARD_ROWS) {
            let n = BACKWARD_ROWS.min(part.n_rows - first);
            let w = rows_as::<E>(part, first, n);
            let mut rounded = vec![E::zero(); m * n];
            for i in 0..m {
                for j in 0..n {
                    rounded[i * n + j] = rounded_for(part.compute, dy[(i, at + j)]);
                }
            }
            E::gemm(dx.as_mut(), accum, rows(&rounded, m, n, n), rows(&w, n, n_in, n_in), E::one());
            (accum, at) = (Accum::Add, at + n);
        }
    }
}

/// The number itself, or rounded to bf16.
fn rounded_for<E: Elem>(compute: Compute, value: E) -> E {
    match compute {
        Compute::F32 => value,
        Compute::Bf16 | Compute::Int8 => E::of(bf16::from_f32(value.to_f64() as f32).to_f64()),
    }
}

/// Rows of a part in another type, rounded for its products.
fn rows_as<E: Elem>(part: &StoredRows<'_>, first: usize, n: usize) -> Vec<E> {
    let mut values = vec![0f32; n * part.n_cols];
    values.chunks_exact_mut(part.n_cols).enumerate().for_each(|(i, out)| part.widen(first + i, 0, out));
    values.into_iter().map(|v| rounded_for(part.compute, E::of(f64::from(v)))).collect()
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
