//! What f32 kernels need of a vector register; a level is an implementation.
#![allow(unsafe_code)]

/// A register of f32. Its functions are compiled for the instructions of the level only where they are inlined into a function that enables
/// them (`#[target_feature]`).
pub(super) trait Vector: Copy {
    /// Elements.
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

/// The functions of a level: from its register, the instructions to enable, and the heights of blocks that there are kernels for, with
/// columns in one, two, three and four registers; `packed` has the rows of the left factor side by side, `along` its depth.
macro_rules! level {
    (
        $vector:ty $(, $feature:literal)?;
        packed [$($p1:literal)*] [$($p2:literal)*] [$($p3:literal)*] [$($p4:literal)*];
        along [$($a1:literal)*] [$($a2:literal)*] [$($a3:literal)*] [$($a4:literal)*];
    ) => {
        pub(super) const KERNEL: $crate::kernel::Kernel<f32> = $crate::kernel::Kernel {
            max_rows: [$($p2),*].len(),
            max_steps: $crate::kernel::f32::DEPTH,
            pack_rows,
            pack_panel,
            turn,
            block,
        };

        pub(super) static DENSE: $crate::kernel::f32::Dense = $crate::kernel::f32::Dense {
            lanes: <$vector as $crate::kernel::vector::Vector>::LANES,
            packed: [
                &[$(tile::<$p1, 1, false>),*],
                &[$(tile::<$p2, 2, false>),*],
                &[$(tile::<$p3, 3, false>),*],
                &[$(tile::<$p4, 4, false>),*],
            ],
            along: [
                &[$(tile::<$a1, 1, true>),*],
                &[$(tile::<$a2, 2, true>),*],
                &[$(tile::<$a3, 3, true>),*],
                &[$(tile::<$a4, 4, true>),*],
            ],
            pack_rows,
            pack_columns,
        };

        $(#[target_feature(enable = $feature)])?
        unsafe fn tile<const M: usize, const NV: usize, const ALONG: bool>(tile: &$crate::kernel::f32::Tile) {
            // SAFETY: the caller says what this one needs; so in the functions below.
            unsafe { $crate::kernel::f32::tile::<$vector, M, NV, ALONG>(tile) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn pack_rows(x: faer::MatRef<'_, f32>, alpha: f32, out: &mut [f32]) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::pack_rows::<$vector>(x, alpha, out) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn pack_panel(rows: faer::MatRef<'_, f32>, out: &mut [$crate::element::Step<f32, 32>]) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::pack_panel::<$vector>(rows, out) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn pack_columns(rows: faer::MatRef<'_, f32>, width: usize, out: &mut [f32]) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::pack_columns::<$vector>(rows, width, out) }
        }

        $(#[target_feature(enable = $feature)])?
        unsafe fn turn(from: &[$crate::element::Step<f32, 32>], to: &mut [$crate::element::Step<f32, 32>]) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::turn::<$vector>(from, to) }
        }

        unsafe fn block(block: $crate::kernel::Block<'_, f32>) {
            // SAFETY: as above.
            unsafe { $crate::kernel::f32::block(&DENSE, block) }
        }
    };
}
pub(super) use level;
