//! Products with packed panels: `y = x·Wᵀ` and `dx = dy·W`.
//!
//! The activations are packed (and rounded, for panels of bf16) once a product. Forward, a thread takes rows of the activations, or
//! panels where there are few rows. Backward it takes columns of the matrix: it turns what they have in each panel, once, for all
//! rows that it is given. Each element of a result is summed in an order that does not depend on the number of threads.

use super::Elem;
use super::gemm::{MIN_PARALLEL_WORK, Threads, rows};
use super::scratch::Scratch;
use faer::{Accum, MatMut, MatRef};
use fwd_simd::{Cpu, Element, Lhs, PANEL, Panels, multiply, multiply_panels};
use rayon::prelude::*;

/// Steps of turned panels at a time, 64 KiB each.
const TURNED_STEPS: usize = 512;
/// Columns of the matrix that a thread turns at a time, at most: 1 MiB of turned panels.
const TURNED_COLUMNS: usize = 16 * PANEL;

/// `y = x·Wᵀ`, or `y += …`, for the rows of all parts, below each other.
pub(crate) fn forward<T: Element, E: Elem>(
    parts: &[&Panels<T>],
    x: MatRef<'_, E>,
    y: MatMut<'_, E>,
    accum: Accum,
    threads: Threads,
) {
    let Some(x) = E::as_f32(x) else { return forward_widened(parts, x, y, accum) };
    let Some(mut y) = E::as_f32_mut(y) else { return };
    let (m, tasks) = (y.nrows(), threads.count());
    let one_task = |x: MatRef<'_, f32>, y: MatMut<'_, f32>| {
        let x = Lhs::<T>::pack(Cpu::current(), x, 1.0);
        let mut jobs = Vec::with_capacity(y.ncols().div_ceil(PANEL) + parts.len());
        for_each_panel(parts, 0, y, |panel, y| jobs.push((panel, y)));
        multiply_panels(&x, 0, &mut jobs, accum);
    };
    if tasks == 1 || m * y.ncols() * x.ncols() < MIN_PARALLEL_WORK {
        one_task(x, y);
    } else if threads == Threads::Team {
        forward_team(parts, &Lhs::<T>::pack(Cpu::current(), x, 1.0), y, accum);
    } else if m >= 16 * tasks {
        y.par_row_partition_mut(tasks).zip(x.par_row_partition(tasks)).for_each(|(y, x)| one_task(x, y));
    } else {
        let x = Lhs::<T>::pack(Cpu::current(), x, 1.0);
        let mut jobs = Vec::with_capacity(y.ncols().div_ceil(PANEL) + parts.len());
        for_each_panel(parts, 0, y.as_mut(), |panel, y| jobs.push((panel, y)));
        jobs.into_par_iter().for_each(|(panel, y)| multiply(&x, 0, panel, y, accum));
    }
}

/// [`forward`] of packed rows: one section of the team, or one for each part where parts end within a panel.
fn forward_team<T: Element>(parts: &[&Panels<T>], x: &Lhs<T>, y: MatMut<'_, f32>, accum: Accum) {
    let Some((last, others)) = parts.split_last() else { return };
    if others.iter().all(|part| part.n_rows().is_multiple_of(PANEL)) {
        return fwd_simd::fork_columns(y, PANEL, usize::MAX, |from, y| {
            for_each_panel(parts, from, y, |panel, y| multiply(x, 0, panel, y, accum));
        });
    }
    let (of_others, of_last) = y.split_at_col_mut(others.iter().map(|part| part.n_rows()).sum());
    forward_team(others, x, of_others, accum);
    forward_team(&[*last], x, of_last, accum);
}

/// Calls `body` with each panel and the columns of `y` that it gives; `y` begins with column `from` of the product, where a panel begins.
fn for_each_panel<'a, 'y, T: Element, E>(
    parts: &[&'a Panels<T>],
    from: usize,
    y: MatMut<'y, E>,
    mut body: impl FnMut(&'a [T::Step], MatMut<'y, E>),
) {
    let (mut rest, mut from) = (y, from);
    for part in parts {
        for i in (from / PANEL).min(part.n_panels())..part.n_panels() {
            if rest.ncols() == 0 {
                return;
            }
            let (columns, other) = rest.split_at_col_mut(PANEL.min(part.n_rows() - i * PANEL));
            rest = other;
            body(part.panel(i), columns);
        }
        from = from.saturating_sub(part.n_rows());
    }
}

/// `dx = dy·W`, or `dx += …`, over the rows of all parts.
pub(crate) fn backward<T: Element, E: Elem>(
    parts: &[&Panels<T>],
    dy: MatRef<'_, E>,
    dx: MatMut<'_, E>,
    accum: Accum,
    threads: Threads,
) {
    let Some(dy) = E::as_f32(dy) else { return backward_widened(parts, dy, dx, accum) };
    let Some(dx) = E::as_f32_mut(dx) else { return };
    let work = dx.nrows() * dx.ncols() * dy.ncols();
    let mut at = 0;
    let packed: Vec<_> = parts
        .iter()
        .map(|part| {
            let dy = dy.subcols(at, part.n_rows());
            at += part.n_rows();
            (*part, Lhs::<T>::pack(Cpu::current(), dy, 1.0))
        })
        .collect();
    let tasks = if work < MIN_PARALLEL_WORK { 1 } else { threads.count() };
    let width = dx.ncols().div_ceil(tasks).next_multiple_of(PANEL).min(TURNED_COLUMNS);
    if tasks == 1 {
        let (mut rest, mut from) = (dx, 0);
        while rest.ncols() > 0 {
            let n = width.min(rest.ncols());
            let (columns, other) = rest.split_at_col_mut(n);
            backward_columns(&packed, from, columns, accum);
            (rest, from) = (other, from + n);
        }
    } else {
        let tasks = dx.par_col_chunks_mut(width).enumerate();
        tasks.for_each(|(i, columns)| backward_columns(&packed, i * width, columns, accum));
    }
}

/// Columns `from ..` of `dx`, the first of a panel.
fn backward_columns<T: Element>(
    packed: &[(&Panels<T>, Lhs<T>)],
    from: usize,
    mut dx: MatMut<'_, f32>,
    accum: Accum,
) {
    let (mut accum, n_columns) = (accum, dx.ncols());
    let per_chunk = TURNED_STEPS * T::DEPTH;
    let deepest = packed.iter().map(|(part, _)| part.n_rows().min(per_chunk)).max().unwrap_or(0);
    let mut turned = vec![T::ZERO; T::steps(deepest) * n_columns.div_ceil(PANEL)];
    for (part, dy) in packed {
        for first in (0..part.n_rows()).step_by(per_chunk) {
            let depth = per_chunk.min(part.n_rows() - first);
            let mut jobs = Vec::with_capacity(n_columns.div_ceil(PANEL));
            let mut rest = dx.as_mut();
            for (i, turned) in turned.chunks_mut(T::steps(depth)).enumerate() {
                let n = PANEL.min(rest.ncols());
                if n == 0 {
                    break;
                }
                let (columns, other) = rest.split_at_col_mut(n);
                rest = other;
                let at = from + i * PANEL;
                part.transposed_panel(Cpu::current(), at..at + n, first, depth, turned);
                jobs.push((&*turned, columns));
            }
            multiply_panels(dy, first, &mut jobs, accum);
            accum = Accum::Add;
        }
    }
}

/// [`forward`] in f64, panel by panel, with factors rounded as in f32.
fn forward_widened<T: Element, E: Elem>(
    parts: &[&Panels<T>],
    x: MatRef<'_, E>,
    y: MatMut<'_, E>,
    accum: Accum,
) {
    let x = rounded::<T, E>(x);
    let x = rows(&x, y.nrows(), parts[0].n_cols(), parts[0].n_cols());
    let mut rest = y;
    for part in parts {
        for first in (0..part.n_rows()).step_by(PANEL) {
            let (columns, other) = rest.split_at_col_mut(PANEL.min(part.n_rows() - first));
            rest = other;
            let w = widened(part, first, columns.ncols());
            let w = rows(&w, columns.ncols(), x.ncols(), x.ncols());
            E::gemm(columns, accum, x, w.transpose(), E::one());
        }
    }
}

/// [`backward`] in f64.
fn backward_widened<T: Element, E: Elem>(
    parts: &[&Panels<T>],
    dy: MatRef<'_, E>,
    mut dx: MatMut<'_, E>,
    accum: Accum,
) {
    let (rounded, n_in, n_out) = (rounded::<T, E>(dy), dx.ncols(), dy.ncols());
    let dy = rows(&rounded, dy.nrows(), n_out, n_out);
    let (mut accum, mut at) = (accum, 0);
    for part in parts {
        for first in (0..part.n_rows()).step_by(PANEL) {
            let n = PANEL.min(part.n_rows() - first);
            let w = widened(part, first, n);
            E::gemm(dx.as_mut(), accum, dy.subcols(at, n), rows(&w, n, n_in, n_in), E::one());
            (accum, at) = (Accum::Add, at + n);
        }
    }
}

/// Rows `first .. first + n` in another type.
fn widened<T: Element, E: Elem>(part: &Panels<T>, first: usize, n: usize) -> Scratch<E> {
    let n_cols = part.n_cols();
    let mut out = Scratch::new(n * n_cols);
    let mut row = vec![0f32; n_cols];
    for (i, out) in out.chunks_exact_mut(n_cols).enumerate() {
        part.row(first + i, 0, &mut row);
        out.iter_mut().zip(&row).for_each(|(out, &w)| *out = E::of(f64::from(w)));
    }
    out
}

/// The rows of `x` one after the other, rounded to bf16 for panels of bf16.
fn rounded<T: Element, E: Elem>(x: MatRef<'_, E>) -> Scratch<E> {
    let rounds = size_of::<T>() < size_of::<f32>();
    let mut out = Scratch::new(x.nrows() * x.ncols());
    for (i, out) in out.chunks_exact_mut(x.ncols().max(1)).enumerate() {
        for (j, out) in out.iter_mut().enumerate() {
            let value = x[(i, j)];
            *out = if rounds { E::of(f64::from(T::round(value.to_f64() as f32).widen())) } else { value };
        }
    }
    out
}

/// The first row with a NaN or an infinity.
pub(crate) fn first_non_finite_row<T: Element>(panels: &Panels<T>) -> Option<usize> {
    (0..panels.n_panels()).into_par_iter().find_map_first(|i| {
        // Not short-circuited within a step, so that it vectorises.
        let is_finite = |step: &T::Step| {
            T::elements(step).iter().fold(true, |all, value| all & value.widen().is_finite())
        };
        if panels.panel(i).iter().all(is_finite) {
            return None;
        }
        let mut rows = i * PANEL..panels.n_rows();
        rows.find(|&row| (0..panels.n_cols()).any(|col| !panels.at(row, col).is_finite()))
    })
}
