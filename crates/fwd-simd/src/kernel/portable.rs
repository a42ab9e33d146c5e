//! Plain loops over arrays, for every processor.
#![allow(unsafe_code)]

use super::f32::level;
use super::vector::Vector;
use crate::element::{Block, Element, Kernel, PANEL};
use faer::MatRef;

/// Four elements, as many as the vector registers of the baselines hold (SSE2, NEON).
#[derive(Clone, Copy)]
#[repr(align(16))]
struct Quad([f32; 4]);

level! {
    Quad;
    packed [1 2 3 4] [1 2 3 4] [1 2] [1 2];
    along [1 2 3 4] [1 2 3 4] [1 2] [1 2];
}

impl Vector for Quad {
    const LANES: usize = 4;
    type Mask = usize;

    #[inline(always)]
    unsafe fn mask(n: usize) -> usize {
        n.min(4)
    }

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller says that 4 elements can be read.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_masked(from: *const f32, n: usize) -> Self {
        if n == 4 {
            // SAFETY: the caller says that the first `n` elements can be read.
            return unsafe { Self::load(from) };
        }
        let mut values = [0.0; 4];
        // SAFETY: as above.
        unsafe { std::ptr::copy_nonoverlapping(from, values.as_mut_ptr(), n) };
        Self(values)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller says that 4 elements can be written.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) };
    }

    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, n: usize) {
        // SAFETY: the caller says that the first `n` elements can be written.
        unsafe { std::ptr::copy_nonoverlapping(self.0.as_ptr(), to, n) };
    }

    #[inline(always)]
    unsafe fn mul(self, by: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] * by.0[i]))
    }

    /// Rounded once where that is one instruction.
    #[inline(always)]
    unsafe fn mul_add(self, by: Self, to: Self) -> Self {
        let one =
            |a: f32, b: f32, c: f32| if cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c };
        Self(std::array::from_fn(|i| one(self.0[i], by.0[i], to.0[i])))
    }

    #[inline(always)]
    unsafe fn transpose(rows: impl Fn(usize) -> Self, mut column: impl FnMut(usize, Self)) {
        let rows: [Self; 4] = std::array::from_fn(rows);
        for j in 0..4 {
            column(j, Self(std::array::from_fn(|i| rows[i].0[j])));
        }
    }
}

/// The kernel of any element, widened to f32 one by one.
pub(super) fn kernel<T: Element>() -> Kernel<T> {
    Kernel {
        max_rows: 4,
        max_steps: 512,
        pack_rows: any_pack_rows::<T>,
        pack_panel: any_pack_panel::<T>,
        turn: any_turn::<T>,
        block: any_block::<T>,
    }
}

/// Of each step all rows, one after the other: `(steps, m, DEPTH)`.
pub(super) fn any_pack_rows<T: Element>(x: MatRef<'_, f32>, alpha: f32, out: &mut [T]) {
    let m = x.nrows();
    out.fill(T::default());
    for i in 0..m {
        for k in 0..x.ncols() {
            out[(k / T::DEPTH * m + i) * T::DEPTH + k % T::DEPTH] = T::round(alpha * x[(i, k)]);
        }
    }
}

pub(super) fn any_pack_panel<T: Element>(rows: MatRef<'_, f32>, out: &mut [T::Step]) {
    out.fill(T::ZERO);
    for i in 0..rows.ncols() {
        let step = T::elements_mut(&mut out[i / T::DEPTH]);
        for j in 0..rows.nrows() {
            step[j * T::DEPTH + i % T::DEPTH] = T::round(rows[(j, i)]);
        }
    }
}

pub(super) fn any_turn<T: Element>(from: &[T::Step], to: &mut [T::Step]) {
    for i in 0..PANEL {
        let step = T::elements_mut(&mut to[i / T::DEPTH]);
        for j in 0..PANEL {
            step[j * T::DEPTH + i % T::DEPTH] = T::elements(&from[j / T::DEPTH])[i * T::DEPTH + j % T::DEPTH];
        }
    }
}

/// A sum goes on from what is in the result, so that its bits do not depend on where the depth is cut.
fn any_block<T: Element>(block: Block<'_, T>) {
    let Block { m, n, a, b, c, c_stride, accumulate } = block;
    for i in 0..m {
        // SAFETY: the caller of a kernel says that `m` rows of `n` columns lie at `c`, and that nobody else reads or writes them.
        let row = unsafe { std::slice::from_raw_parts_mut(c.offset(i as isize * c_stride), n) };
        let mut sums = [0f32; PANEL];
        if accumulate {
            sums[..n].copy_from_slice(row);
        }
        for (step, b) in b.iter().enumerate() {
            let a = &a[(step * m + i) * T::DEPTH..][..T::DEPTH];
            for (sum, b) in sums.iter_mut().zip(T::elements(b).chunks_exact(T::DEPTH)) {
                for (a, b) in a.iter().zip(b) {
                    *sum += a.widen() * b.widen();
                }
            }
        }
        row.copy_from_slice(&sums[..n]);
    }
}
