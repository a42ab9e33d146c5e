//! Batched SVD and symmetric eigenvalues: which routine for which shape.
//!
//! ```text
//! A = U·diag(s)·Vᵀ,  A (m, n), U (m, k), s (k) descending, V (n, k)
//! ```
//!
//! A matrix in row-major order is its transpose in the column-major order of cuSOLVER, whose SVD has U and V exchanged: no copy is
//! needed. Singular vectors are returned one after another, each contiguous, whatever the order of the matrix.
//!
//! | shape | accuracy | route |
//! |---|---|---|
//! | m, n ≤ 32 | any | [`SvdRoute::SmallJacobi`], one call for the batch |
//! | any | [`Accuracy::Full`] | [`SvdRoute::Jacobi`], a matrix at a time on several streams |
//! | any | [`Accuracy::Squared`] | [`SvdRoute::Gram`], one call each for products and eigenvalues |
//! | min(m, n) > 1024 and k ≤ min(m, n) / 8 | [`Accuracy::Sketch`] | [`SvdRoute::Randomised`], a matrix at a time on several streams; else as `Squared` |

use crate::data::DType;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Launch, Plan, Role, to_grid, to_i32};
use crate::source::File;

/// The largest side for which cuSOLVER has a Jacobi SVD of a whole batch.
const SMALL: usize = 32;
/// The largest side for which one call takes a batch of eigenproblems; beyond it a single one fills the GPU.
const BATCHED_EIGEN: usize = 1024;
/// A sketch must be this many times smaller than the matrix to be worth it.
const SKETCH: usize = 8;
/// Power iterations of the sketch: singular values below the sketched ones count with the power 2·4 + 1 of their ratio.
const ITERATIONS: usize = 4;
/// Streams for routines that take one matrix at a time.
const STREAMS: usize = 4;
const THREADS: usize = 256;

/// How the numbers of a matrix lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// Rows one after another.
    Rows,
    /// Columns one after another.
    Columns,
}

/// What is asked of singular values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Accuracy {
    /// Each to a few eps·σ₁, vectors orthogonal to eps.
    Full,
    /// Through the Gram matrix in f64, whatever the type of the data: with e = 2⁻⁵²·min(m, n), σᵢ to the fraction e·(σ₁/σᵢ)² plus
    /// the rounding of its type, and the vectors of the longer side orthogonal to that. σᵢ ≤ sqrt(e)·σ₁ and their vectors of the
    /// longer side are 0. For f32 data with σᵢ > 10⁻⁴·σ₁ there is no difference to `Full`, and energies σᵢ² ask for no more.
    Squared,
    /// By a random sketch: only for spectra that fall fast, where the vectors are good as long as (σ_(k+p+1)/σ_k)⁹ is small.
    Sketch,
}

/// A batch of matrices of one shape, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SvdShape {
    /// How many matrices.
    pub batch: usize,
    /// Rows of each matrix.
    pub m: usize,
    /// Columns of each matrix.
    pub n: usize,
    /// Singular values and vectors to keep, the largest.
    pub k: usize,
    /// Type of the matrices and of what is computed from them: f32 or f64.
    pub dtype: DType,
    /// How a matrix lies.
    pub order: Layout,
    /// How exact the singular values and vectors must be.
    pub accuracy: Accuracy,
}

/// The way to an SVD.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SvdRoute {
    /// `gesvdjBatched`: one call for the batch.
    SmallJacobi,
    /// `gesvdj` for each matrix.
    Jacobi,
    /// The Gram matrix of the shorter side, its eigenvalues ([`plan_eigen`]), the other side by a product.
    Gram,
    /// `Xgesvdr` for each matrix.
    Randomised {
        /// Vectors of the sketch beyond k.
        oversampling: usize,
        /// Power iterations of the sketch.
        iterations: usize,
    },
}

/// How a batch will be decomposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SvdPlan {
    /// The matrices, and what is asked of them.
    pub shape: SvdShape,
    /// The cuSOLVER routine, or the steps, that decompose them.
    pub route: SvdRoute,
    /// Streams that work at a time.
    pub n_streams: usize,
}

impl SvdPlan {
    /// Rows and columns of a matrix as cuSOLVER sees it, in column-major order.
    pub fn stored(&self) -> (usize, usize) {
        match self.shape.order {
            Layout::Columns => (self.shape.m, self.shape.n),
            Layout::Rows => (self.shape.n, self.shape.m),
        }
    }
}

/// Chooses how to decompose a batch of matrices.
///
/// # Errors
/// [`KernelError::Shape`] for a side or k of 0, k beyond the shorter side, another type than f32 and f64, or sides and batches
/// that the routines cannot count.
pub fn plan_svd(shape: &SvdShape) -> Result<SvdPlan> {
    let op = "svd";
    let SvdShape { batch, m, n, k, dtype, accuracy, .. } = *shape;
    let short = m.min(n);
    check(op, &[("batch", batch), ("m", m), ("n", n), ("k", k)], dtype)?;
    if k > short {
        return Err(KernelError::shape(op, format!("k = {k} of {short} singular values")));
    }
    check_len(op, &[batch, m, n], dtype)?;
    let oversampling = k.max(8);
    let route = if m.max(n) <= SMALL {
        SvdRoute::SmallJacobi
    } else if accuracy == Accuracy::Full {
        SvdRoute::Jacobi
    } else if accuracy == Accuracy::Sketch && short > BATCHED_EIGEN && k <= short / SKETCH {
        SvdRoute::Randomised { oversampling, iterations: ITERATIONS }
    } else {
        check_len(op, &[batch, short, short], DType::F64)?;
        SvdRoute::Gram
    };
    let n_streams = match route {
        SvdRoute::Jacobi | SvdRoute::Randomised { .. } => batch.min(STREAMS),
        SvdRoute::SmallJacobi | SvdRoute::Gram => 1,
    };
    Ok(SvdPlan { shape: *shape, route, n_streams })
}

/// A batch of symmetric matrices, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EigenShape {
    /// How many matrices.
    pub batch: usize,
    /// Rows and columns.
    pub n: usize,
    /// Type of the matrices, eigenvalues and eigenvectors: f32 or f64.
    pub dtype: DType,
}

/// The way to eigenvalues.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EigenRoute {
    /// `XsyevBatched`: one call for the batch.
    Batched,
    /// `Xsyevd` for each matrix.
    Single,
}

/// How eigenvalues will be computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EigenPlan {
    /// The matrices that are decomposed.
    pub shape: EigenShape,
    /// The cuSOLVER routine that decomposes them.
    pub route: EigenRoute,
    /// Streams that work at a time.
    pub n_streams: usize,
}

/// Chooses how to compute eigenvalues and eigenvectors of symmetric matrices: one call for many of n ≤ 1024, else each alone.
///
/// # Errors
/// [`KernelError::Shape`] for a side of 0, another type than f32 and f64, or sizes that the routines cannot count.
pub fn plan_eigen(shape: &EigenShape) -> Result<EigenPlan> {
    let op = "eigen";
    let EigenShape { batch, n, dtype } = *shape;
    check(op, &[("batch", batch), ("n", n)], dtype)?;
    check_len(op, &[batch, n, n], dtype)?;
    let (route, n_streams) = if batch > 1 && n <= BATCHED_EIGEN {
        (EigenRoute::Batched, 1)
    } else {
        (EigenRoute::Single, batch.min(STREAMS))
    };
    Ok(EigenPlan { shape: *shape, route, n_streams })
}

fn check(op: &'static str, sizes: &[(&str, usize)], dtype: DType) -> Result<()> {
    for &(name, size) in sizes {
        to_i32(op, name, size)?;
        if size == 0 {
            return Err(KernelError::shape(op, format!("{name} is 0: there is nothing to decompose")));
        }
    }
    if !matches!(dtype, DType::F32 | DType::F64) {
        return Err(KernelError::shape(op, format!("takes f32 and f64, not {}", dtype.suffix())));
    }
    Ok(())
}

/// Whether the bytes of a buffer can be counted.
fn check_len(op: &'static str, sides: &[usize], dtype: DType) -> Result<()> {
    let bytes = sides.iter().try_fold(dtype.size(), |bytes, &side| bytes.checked_mul(side));
    match bytes {
        Some(bytes) if i64::try_from(bytes).is_ok() => Ok(()),
        _ => Err(KernelError::shape(op, format!("{sides:?} numbers are more than memory can have"))),
    }
}

fn launch(kernel: String, grid: u32, shared_bytes: u32, args: Vec<Arg>) -> Launch {
    let (file, block) = (File::Solver, THREADS as u32);
    Launch { file, kernel, grid: [grid, 1, 1], block, cluster: 1, shared_bytes, args }
}

/// Looks for NaN and infinity: `x` (batch, len) -> flags (batch, chunks), 1 for a chunk that has one.
///
/// Reads `x` once. The number of chunks is the length of the plan's second buffer over the batch.
///
/// # Errors
/// [`KernelError::Shape`] for another type than f32 and f64, or more blocks than a grid has.
pub fn plan_nonfinite(dtype: DType, batch: usize, len: usize) -> Result<Plan> {
    const OP: &str = "nonfinite";
    /// Numbers of a thread, and blocks that fill the largest GPU several times.
    const PER_THREAD: usize = 16;
    const BLOCKS: usize = 1024;
    check(OP, &[("batch", batch)], dtype)?;
    let chunks = len.div_ceil(THREADS * PER_THREAD).clamp(1, BLOCKS.div_ceil(batch).max(1));
    let mut plan = Plan::new(OP);
    let x = plan.buffer("x", Role::Input, dtype, batch * len);
    let flags = plan.buffer("flags", Role::Output, DType::U32, batch * chunks);
    let args = vec![x, flags, Arg::I64(len as i64), Arg::I32(to_i32(OP, "chunks", chunks)?)];
    let grid = to_grid(OP, batch * chunks)?;
    plan.launches.push(launch(format!("solver_nonfinite_{}", dtype.suffix()), grid, 64 * 4, args));
    Ok(plan)
}

/// f32 to f64, or f64 to f32: `x` (n) -> `y` (n).
///
/// # Errors
/// [`KernelError::Shape`] for other types, or more blocks than a grid has.
pub fn plan_convert(from: DType, n: usize) -> Result<Plan> {
    const OP: &str = "convert";
    let (kernel, to) = match from {
        DType::F32 => ("solver_widen", DType::F64),
        DType::F64 => ("solver_narrow", DType::F32),
        _ => return Err(KernelError::shape(OP, format!("takes f32 and f64, not {}", from.suffix()))),
    };
    let mut plan = Plan::new(OP);
    let args = vec![
        plan.buffer("x", Role::Input, from, n),
        plan.buffer("y", Role::Output, to, n),
        Arg::I64(n as i64),
    ];
    if n > 0 {
        plan.launches.push(launch(kernel.to_owned(), to_grid(OP, n.div_ceil(THREADS))?, 0, args));
    }
    Ok(plan)
}

/// Singular values and vectors from the eigenpairs of Gram matrices: eigenvalues (batch, q) ascending and vectors (batch, q, q), both
/// f64 -> `s` (batch, k) descending and vectors `near` (batch, k, q) in `dtype`, and `scaled` = near / s (batch, k, q) in f64.
///
/// An eigenvalue of at most q·2⁻⁵² times the largest is rounding: its `s` and its `scaled` are 0.
///
/// # Errors
/// [`KernelError::Shape`] for sizes of 0, k > q, another type than f32 and f64, or more blocks than a grid has.
pub fn plan_from_eigen(dtype: DType, batch: usize, q: usize, k: usize) -> Result<Plan> {
    const OP: &str = "singular values from eigenvalues";
    check(OP, &[("batch", batch), ("q", q), ("k", k)], dtype)?;
    if k > q {
        return Err(KernelError::shape(OP, format!("k = {k} of {q} eigenvalues")));
    }
    let mut plan = Plan::new(OP);
    let args = vec![
        plan.buffer("values", Role::Input, DType::F64, batch * q),
        plan.buffer("vectors", Role::Input, DType::F64, batch * q * q),
        plan.buffer("s", Role::Output, dtype, batch * k),
        plan.buffer("near", Role::Output, dtype, batch * k * q),
        plan.buffer("scaled", Role::Output, DType::F64, batch * k * q),
        Arg::I32(to_i32(OP, "q", q)?),
        Arg::I32(to_i32(OP, "k", k)?),
    ];
    let kernel = format!("solver_from_eigen_{}", dtype.suffix());
    plan.launches.push(launch(kernel, to_grid(OP, batch * k)?, 0, args));
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: SvdShape = SvdShape {
        batch: 12,
        m: 4096,
        n: 768,
        k: 64,
        dtype: DType::F32,
        order: Layout::Rows,
        accuracy: Accuracy::Squared,
    };

    fn route(shape: SvdShape) -> SvdRoute {
        plan_svd(&shape).unwrap().route
    }

    #[test]
    fn the_route_follows_the_shape() {
        use Accuracy::{Full, Sketch, Squared};
        for accuracy in [Full, Squared, Sketch] {
            assert_eq!(route(SvdShape { m: 32, n: 7, k: 7, accuracy, ..SHAPE }), SvdRoute::SmallJacobi);
        }
        assert_eq!(route(SvdShape { m: 33, n: 7, k: 7, accuracy: Full, ..SHAPE }), SvdRoute::Jacobi);
        assert_eq!(route(SvdShape { m: 7, n: 33, k: 7, ..SHAPE }), SvdRoute::Gram);
        assert_eq!(route(SHAPE), SvdRoute::Gram);
        let large = SvdShape { m: 20_000, n: 4096, accuracy: Sketch, ..SHAPE };
        assert_eq!(route(large), SvdRoute::Randomised { oversampling: 64, iterations: 4 });
        assert_eq!(route(SvdShape { k: 513, ..large }), SvdRoute::Gram);
        assert_eq!(route(SvdShape { n: 1024, ..large }), SvdRoute::Gram);
    }

    #[test]
    fn row_major_is_the_transpose_and_streams_are_few() {
        let plan = plan_svd(&SvdShape { accuracy: Accuracy::Full, ..SHAPE }).unwrap();
        assert_eq!((plan.stored(), plan.n_streams), ((768, 4096), 4));
        let plan = plan_svd(&SvdShape { order: Layout::Columns, batch: 1, ..SHAPE }).unwrap();
        assert_eq!((plan.stored(), plan.n_streams), ((4096, 768), 1));
    }

    #[test]
    fn a_sketch_fits_into_the_matrix() {
        for k in [1, 7, 128] {
            let shape = SvdShape { m: 1025, n: 1025, k, accuracy: Accuracy::Sketch, ..SHAPE };
            let SvdRoute::Randomised { oversampling, .. } = route(shape) else { panic!("k = {k}") };
            assert!(k + oversampling <= 1025);
        }
    }

    #[test]
    fn eigenvalues_of_many_small_matrices_take_one_call() {
        let plan = |batch, n| plan_eigen(&EigenShape { batch, n, dtype: DType::F64 }).unwrap();
        assert_eq!((plan(12, 768).route, plan(12, 768).n_streams), (EigenRoute::Batched, 1));
        assert_eq!((plan(1, 768).route, plan(1, 768).n_streams), (EigenRoute::Single, 1));
        assert_eq!((plan(12, 2048).route, plan(12, 2048).n_streams), (EigenRoute::Single, 4));
    }

    #[test]
    fn what_cannot_be_decomposed_is_refused() {
        for wrong in [
            SvdShape { batch: 0, ..SHAPE },
            SvdShape { m: 0, ..SHAPE },
            SvdShape { k: 0, ..SHAPE },
            SvdShape { k: 769, ..SHAPE },
            SvdShape { dtype: DType::Bf16, ..SHAPE },
            SvdShape { m: 1 << 31, ..SHAPE },
            SvdShape { batch: 1 << 30, m: 1 << 30, ..SHAPE },
        ] {
            assert!(matches!(plan_svd(&wrong), Err(KernelError::Shape { .. })), "{wrong:?}");
        }
        let wrong = EigenShape { batch: 1, n: 0, dtype: DType::F32 };
        assert!(matches!(plan_eigen(&wrong), Err(KernelError::Shape { .. })));
        assert!(matches!(plan_from_eigen(DType::F32, 1, 3, 4), Err(KernelError::Shape { .. })));
        assert!(matches!(plan_convert(DType::I64, 4), Err(KernelError::Shape { .. })));
    }

    #[test]
    fn chunks_fill_the_gpu_and_no_more() {
        let flags = |batch, len| plan_nonfinite(DType::F32, batch, len).unwrap().buffers[1].len;
        assert_eq!(flags(1, 100), 1);
        assert_eq!(flags(1, 1 << 30), 1024);
        assert_eq!(flags(5000, 1 << 20), 5000);
        assert!(plan_convert(DType::F32, 0).unwrap().launches.is_empty());
    }
}
