//! Plain loops over arrays, for every processor, and the order of summation that the other levels are tested against.
#![allow(unsafe_code)]

use super::{Block, Kernel};
use crate::element::{Element, PANEL};
use faer::MatRef;

pub(super) fn kernel<T: Element>() -> Kernel<T> {
    Kernel {
        max_rows: 4,
        pack_rows: pack_rows::<T>,
        pack_panel: pack_panel::<T>,
        turn: turn::<T>,
        block: block::<T>,
    }
}

/// Of each step all rows, one after the other: `(steps, m, DEPTH)`.
pub(super) fn pack_rows<T: Element>(x: MatRef<'_, f32>, alpha: f32, out: &mut [T]) {
    let m = x.nrows();
    out.fill(T::default());
    for i in 0..m {
        for k in 0..x.ncols() {
            out[(k / T::DEPTH * m + i) * T::DEPTH + k % T::DEPTH] = T::round(alpha * x[(i, k)]);
        }
    }
}

pub(super) fn pack_panel<T: Element>(rows: MatRef<'_, f32>, out: &mut [T::Step]) {
    out.fill(T::ZERO);
    for i in 0..rows.ncols() {
        let step = T::elements_mut(&mut out[i / T::DEPTH]);
        for j in 0..rows.nrows() {
            step[j * T::DEPTH + i % T::DEPTH] = T::round(rows[(j, i)]);
        }
    }
}

pub(super) fn turn<T: Element>(from: &[T::Step], to: &mut [T::Step]) {
    for i in 0..PANEL {
        let step = T::elements_mut(&mut to[i / T::DEPTH]);
        for j in 0..PANEL {
            step[j * T::DEPTH + i % T::DEPTH] = T::elements(&from[j / T::DEPTH])[i * T::DEPTH + j % T::DEPTH];
        }
    }
}

fn block<T: Element>(block: Block<'_, T>) {
    let Block { m, n, a, b, c, c_stride, accumulate } = block;
    for i in 0..m {
        let mut sums = [0f32; PANEL];
        for (step, b) in b.iter().enumerate() {
            let a = &a[(step * m + i) * T::DEPTH..][..T::DEPTH];
            for (sum, b) in sums.iter_mut().zip(T::elements(b).chunks_exact(T::DEPTH)) {
                for (a, b) in a.iter().zip(b) {
                    *sum += a.widen() * b.widen();
                }
            }
        }
        for (j, &sum) in sums[..n].iter().enumerate() {
            // SAFETY: the caller of a kernel says that `m` rows of `n` columns lie at `c`, and that nobody else reads or writes them.
            unsafe {
                let c = c.offset(i as isize * c_stride + j as isize);
                *c = if accumulate { *c + sum } else { sum };
            }
        }
    }
}
