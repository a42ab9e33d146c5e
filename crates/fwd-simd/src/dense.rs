//! Products of two matrices that are used once: attention, gradients of trained weights.

use crate::element::PANEL;
use crate::kernel::multiply;
use crate::level::Cpu;
use crate::lhs::Lhs;
use crate::panels::panel_of;
use faer::{Accum, MatMut, MatRef};

/// `dst = alpha·lhs·rhs`, or `dst += …`, in f32 on the calling thread. The columns of `dst` must lie side by side in memory.
///
/// # Panics
/// If the shapes do not fit together.
pub fn gemm(
    cpu: Cpu,
    dst: MatMut<'_, f32>,
    accum: Accum,
    lhs: MatRef<'_, f32>,
    rhs: MatRef<'_, f32>,
    alpha: f32,
) {
    assert!(
        dst.nrows() == lhs.nrows() && dst.ncols() == rhs.ncols() && lhs.ncols() == rhs.nrows(),
        "shapes do not fit"
    );
    let x = Lhs::<f32>::pack(cpu, lhs, alpha);
    let (mut dst, n) = (dst, rhs.ncols());
    for first in (0..n).step_by(PANEL) {
        let width = PANEL.min(n - first);
        let panel = panel_of::<f32>(cpu, rhs.subcols(first, width).transpose());
        multiply(cpu, &x, 0, &panel, dst.as_mut().subcols_mut(first, width), accum);
    }
}
