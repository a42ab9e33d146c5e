//! What f32 kernels need of a vector register; a level is an implementation.
#![allow(unsafe_code)]

/// A register of f32. Its functions are compiled for the instructions of the level only where they are inlined into a function that enables
/// them (`#[target_feature]`).
pub(super) trait Vector: Copy {
    /// Elements of a register.
    const LANES: usize;
    /// Which lanes of a register are read or written.
    type Mask: Copy;

    /// The first `n` lanes, or all if there are fewer.
    unsafe fn mask(n: usize) -> Self::Mask;
    unsafe fn splat(value: f32) -> Self;
    /// Reads lanes that lie side by side.
    unsafe fn load(from: *const f32) -> Self;
    /// Reads some lanes and touches no memory of the others, which become zero.
    unsafe fn load_masked(from: *const f32, mask: Self::Mask) -> Self;
    unsafe fn store(self, to: *mut f32);
    unsafe fn store_masked(self, to: *mut f32, mask: Self::Mask);
    unsafe fn mul(self, by: Self) -> Self;
    /// `self·by + to`.
    unsafe fn mul_add(self, by: Self, to: Self) -> Self;
    /// Turns a square of `LANES` rows: `rows(i)` gives row `i`, and column `j` goes to `column(j, …)`.
    unsafe fn transpose(rows: impl Fn(usize) -> Self, column: impl FnMut(usize, Self));
}
