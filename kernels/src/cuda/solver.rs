//! Batched SVD and symmetric eigenvalues on a GPU, by the plans of [`plan_svd`] and [`plan_eigen`].

use super::Device;
use super::binding::{Binding, Element};
use super::lane::Lane;
use super::library::{self, CUBLAS, CUSOLVER, driver};
use super::real::{Factors, Real};
use crate::data::{DType, Data};
use crate::error::{KernelError, Result};
use crate::solver::{
    EigenPlan, EigenRoute, EigenShape, Layout, SvdPlan, SvdRoute, plan_eigen, plan_from_eigen,
    plan_nonfinite, plan_svd,
};
use cudarc::cublas::CudaBlas;
use cudarc::cublas::sys::{self as blas, cublasOperation_t, cublasStatus_t};
use cudarc::driver::sys::{self, CUmemorytype};
use cudarc::driver::{CudaSlice, DevicePtr, DevicePtrMut, DeviceRepr};
use std::ffi::c_int;
use std::fmt;
use std::sync::Arc;

const TRANSPOSED: cublasOperation_t = cublasOperation_t::CUBLAS_OP_T;
const AS_IT_IS: cublasOperation_t = cublasOperation_t::CUBLAS_OP_N;
/// Up to so many matrices are copied one by one, which has no bound on their size.
const ONE_BY_ONE: usize = 64;

/// An SVD: singular values of all matrices, and vectors one after another, each contiguous.
#[derive(Debug)]
pub struct Svd<T> {
    /// Left vectors (batch, k, m).
    pub u: CudaSlice<T>,
    /// Singular values (batch, k), descending.
    pub s: CudaSlice<T>,
    /// Right vectors (batch, k, n).
    pub v: CudaSlice<T>,
}

/// cuSOLVER and cuBLAS on a device, with their workspaces.
pub struct Solver {
    device: Device,
    blas: CudaBlas,
    /// The first works on the device's stream. The others are made when a plan has use for them.
    lanes: Vec<Lane>,
}

impl Solver {
    /// Makes ready to decompose matrices.
    ///
    /// # Errors
    /// [`KernelError::CudaUnavailable`] without cuSOLVER or cuBLAS, [`KernelError::Cuda`] if they refuse.
    pub fn new(device: &Device) -> Result<Self> {
        library::require(&CUBLAS)?;
        library::require(&CUSOLVER)?;
        let blas = CudaBlas::new(Arc::clone(device.stream()))
            .map_err(|error| KernelError::Cuda { call: "cublasCreate", code: format!("{:?}", error.0) })?;
        let lanes = vec![Lane::new(Arc::clone(device.stream()))?];
        Ok(Self { device: device.clone(), blas, lanes })
    }

    /// Decomposes a batch of matrices (batch, m, n), which is overwritten. Waits for the GPU, to read whether it converged.
    ///
    /// # Errors
    /// [`KernelError::Buffer`] for matrices of another type or number, or that do not begin at a multiple of 16 bytes;
    /// [`KernelError::NonFinite`] for NaN and infinity; [`KernelError::NoConvergence`]; what cuSOLVER refuses.
    pub fn svd<T: Real>(&mut self, plan: &SvdPlan, a: &mut impl DevicePtrMut<T>) -> Result<Svd<T>> {
        let shape = plan_svd(&plan.shape)?.shape;
        fits::<T>("svd", shape.dtype, shape.batch * shape.m * shape.n, a.len())?;
        self.refuse_nonfinite("svd", shape.batch, a)?;
        let (x, s, y) = match plan.route {
            SvdRoute::SmallJacobi => self.small_jacobi(plan, a)?,
            SvdRoute::Jacobi | SvdRoute::Randomised { .. } => self.one_by_one(plan, a)?,
            SvdRoute::Gram => self.gram(plan, a)?,
        };
        Ok(match shape.order {
            Layout::Columns => Svd { u: x, s, v: y },
            Layout::Rows => Svd { u: y, s, v: x },
        })
    }

    /// Eigenvalues (batch, n), ascending, of symmetric matrices (batch, n, n), whose place their eigenvectors take: vector i of
    /// matrix b begins at (b·n + i)·n. Of each matrix the triangle below the diagonal is read, in column-major order.
    ///
    /// # Errors
    /// As [`svd`](Self::svd).
    pub fn eigen<T: Real>(&mut self, plan: &EigenPlan, a: &mut impl DevicePtrMut<T>) -> Result<CudaSlice<T>> {
        let EigenShape { batch, n, dtype } = plan_eigen(&plan.shape)?.shape;
        fits::<T>("eigen", dtype, batch * n * n, a.len())?;
        self.refuse_nonfinite("eigen", batch, a)?;
        let stream = Arc::clone(self.device.stream());
        let mut values = self.alloc::<T>(batch * n)?;
        let mut info = stream.alloc_zeros::<c_int>(batch).map_err(driver("cuMemAllocAsync"))?;
        {
            let (a, _a) = a.device_ptr_mut(&stream);
            let (w, _w) = values.device_ptr_mut(&stream);
            let (i, _i) = info.device_ptr_mut(&stream);
            match plan.route {
                // SAFETY: the lengths were compared above, and the buffers are this stream's.
                EigenRoute::Batched => unsafe {
                    self.lanes[0].syev_batched::<T>(n as i64, batch as i64, a, w, i)?;
                },
                EigenRoute::Single => self.each(plan.n_streams, batch, |lane, matrix| {
                    let (a, w) = (at::<T>(a, matrix * n * n), at::<T>(w, matrix * n));
                    // SAFETY: as above; the stream of the lane waits for the device's and is waited for.
                    unsafe { lane.syevd::<T>(n as i64, a, w, at::<c_int>(i, matrix)) }
                })?,
            }
        }
        let routine = match plan.route {
            EigenRoute::Batched => "cusolverDnXsyevBatched",
            EigenRoute::Single => "cusolverDnXsyevd",
        };
        self.converged(routine, &info)?;
        Ok(values)
    }

    /// [`svd`](Self::svd) of matrices on the host: u (batch, k, m), s (batch, k), v (batch, k, n).
    ///
    /// # Errors
    /// As [`svd`](Self::svd).
    pub fn svd_host(&mut self, plan: &SvdPlan, a: &Data) -> Result<[Data; 3]> {
        match a {
            Data::F32(a) => {
                let Svd { u, s, v } = self.svd(plan, &mut self.upload(a)?)?;
                Ok([
                    Data::F32(self.download(&u)?),
                    Data::F32(self.download(&s)?),
                    Data::F32(self.download(&v)?),
                ])
            }
            Data::F64(a) => {
                let Svd { u, s, v } = self.svd(plan, &mut self.upload(a)?)?;
                Ok([
                    Data::F64(self.download(&u)?),
                    Data::F64(self.download(&s)?),
                    Data::F64(self.download(&v)?),
                ])
            }
            other => Err(wrong_type("svd", plan.shape.dtype, other)),
        }
    }

    /// [`eigen`](Self::eigen) of matrices on the host: eigenvalues (batch, n), eigenvectors (batch, n, n).
    ///
    /// # Errors
    /// As [`eigen`](Self::eigen).
    pub fn eigen_host(&mut self, plan: &EigenPlan, a: &Data) -> Result<[Data; 2]> {
        match a {
            Data::F32(a) => {
                let mut a = self.upload(a)?;
                let values = self.eigen(plan, &mut a)?;
                Ok([Data::F32(self.download(&values)?), Data::F32(self.download(&a)?)])
            }
            Data::F64(a) => {
                let mut a = self.upload(a)?;
                let values = self.eigen(plan, &mut a)?;
                Ok([Data::F64(self.download(&values)?), Data::F64(self.download(&a)?)])
            }
            other => Err(wrong_type("eigen", plan.shape.dtype, other)),
        }
    }

    /// `gesvdjBatched` returns all of U and V; the first k vectors of each are kept.
    fn small_jacobi<T: Real>(&mut self, plan: &SvdPlan, a: &mut impl DevicePtrMut<T>) -> Result<Triple<T>> {
        let (batch, k) = (plan.shape.batch, plan.shape.k);
        let (rows, cols) = plan.stored();
        let short = rows.min(cols);
        let stream = Arc::clone(self.device.stream());
        let (mut x, mut y) = (self.alloc::<T>(batch * rows * rows)?, self.alloc::<T>(batch * cols * cols)?);
        let mut s = self.alloc::<T>(batch * short)?;
        let mut info = stream.alloc_zeros::<c_int>(batch).map_err(driver("cuMemAllocAsync"))?;
        {
            let (a, _a) = a.device_ptr_mut(&stream);
            let (s, _s) = s.device_ptr_mut(&stream);
            let (u, _u) = x.device_ptr_mut(&stream);
            let (v, _v) = y.device_ptr_mut(&stream);
            let (info, _i) = info.device_ptr_mut(&stream);
            let (rows, cols, batch) = (rows as c_int, cols as c_int, batch as c_int);
            // SAFETY: the buffers are as large as `Factors` says, and this stream's.
            unsafe { self.lanes[0].gesvdj_batched::<T>(Factors { rows, cols, batch, a, s, u, v, info })? };
        }
        self.converged("cusolverDnXgesvdjBatched", &info)?;
        Ok((
            self.first(x, rows * rows, k * rows, batch)?,
            self.first(s, short, k, batch)?,
            self.first(y, cols * cols, k * cols, batch)?,
        ))
    }

    /// Routines for one matrix, several streams at a time.
    fn one_by_one<T: Real>(&mut self, plan: &SvdPlan, a: &mut impl DevicePtrMut<T>) -> Result<Triple<T>> {
        let (batch, k) = (plan.shape.batch, plan.shape.k);
        let (rows, cols) = plan.stored();
        let short = rows.min(cols);
        let (routine, vectors) = match plan.route {
            SvdRoute::Randomised { oversampling, .. } => ("cusolverDnXgesvdr", k + oversampling),
            _ => ("cusolverDnXgesvdj", short),
        };
        let stream = Arc::clone(self.device.stream());
        let (mut x, mut y) =
            (self.alloc::<T>(batch * rows * vectors)?, self.alloc::<T>(batch * cols * vectors)?);
        let mut s = self.alloc::<T>(batch * short)?;
        let mut info = stream.alloc_zeros::<c_int>(batch).map_err(driver("cuMemAllocAsync"))?;
        {
            let (a, _a) = a.device_ptr_mut(&stream);
            let (s, _s) = s.device_ptr_mut(&stream);
            let (u, _u) = x.device_ptr_mut(&stream);
            let (v, _v) = y.device_ptr_mut(&stream);
            let (info, _i) = info.device_ptr_mut(&stream);
            self.each(plan.n_streams, batch, |lane, matrix| {
                let f = Factors {
                    rows: rows as c_int,
                    cols: cols as c_int,
                    batch: 1,
                    a: at::<T>(a, matrix * rows * cols),
                    s: at::<T>(s, matrix * short),
                    u: at::<T>(u, matrix * rows * vectors),
                    v: at::<T>(v, matrix * cols * vectors),
                    info: at::<c_int>(info, matrix),
                };
                // SAFETY: the buffers are as large as `Factors` says; the stream of the lane waits for the device's and is waited for.
                unsafe {
                    match plan.route {
                        SvdRoute::Randomised { oversampling, iterations } => {
                            lane.gesvdr::<T>(f, k as i64, oversampling as i64, iterations as i64)
                        }
                        _ => lane.gesvdj::<T>(f),
                    }
                }
            })?;
        }
        self.converged(routine, &info)?;
        Ok((
            self.first(x, rows * vectors, k * rows, batch)?,
            self.first(s, short, k, batch)?,
            self.first(y, cols * vectors, k * cols, batch)?,
        ))
    }

    /// G = AᵀA or AAᵀ of the shorter side, G y = σ² y, and the vectors of the other side by A y / σ or Aᵀ y / σ.
    fn gram<T: Real>(&mut self, plan: &SvdPlan, a: &mut impl DevicePtrMut<T>) -> Result<Triple<T>> {
        let (batch, k) = (plan.shape.batch, plan.shape.k);
        let (rows, cols) = plan.stored();
        let (q, p) = (rows.min(cols), rows.max(cols));
        let tall = rows >= cols;
        let device = self.device.clone();
        let stream = Arc::clone(device.stream());
        let mut wide = T::widen(&device, a)?;
        let mut products = self.alloc::<f64>(batch * q * q)?;
        let (mut s, mut near) = (self.alloc::<T>(batch * k)?, self.alloc::<T>(batch * k * q)?);
        let (mut scaled, mut far) = (self.alloc::<f64>(batch * k * q)?, self.alloc::<f64>(batch * k * p)?);
        // Two products on the same matrices, and the eigenvalues between them.
        let (matrices, guard) = match &mut wide {
            Some(wide) => wide.device_ptr_mut(&stream),
            None => a.device_ptr_mut(&stream),
        };
        let stored = Operand { address: matrices, operation: AS_IT_IS, lead: rows, stride: rows * cols };
        let turned = Operand { operation: TRANSPOSED, ..stored };
        {
            let (c, _c) = products.device_ptr_mut(&stream);
            let (left, right) = if tall { (turned, stored) } else { (stored, turned) };
            self.product([q, q, p], left, right, c, batch)?;
        }
        let eigen = plan_eigen(&EigenShape { batch, n: q, dtype: DType::F64 })?;
        let mut values = self.eigen(&eigen, &mut products)?;
        let pairs = plan_from_eigen(T::DTYPE, batch, q, k)?;
        let mut buffers = [
            Binding::write(&mut values),
            Binding::write(&mut products),
            Binding::write(&mut s),
            Binding::write(&mut near),
            Binding::write(&mut scaled),
        ];
        device.run_on(&pairs, &mut buffers)?;
        drop(buffers);
        {
            let (z, _z) = scaled.device_ptr_mut(&stream);
            let (c, _c) = far.device_ptr_mut(&stream);
            let left = if tall { stored } else { turned };
            let right = Operand { address: z, operation: AS_IT_IS, lead: q, stride: k * q };
            self.product([p, k, q], left, right, c, batch)?;
        }
        drop(guard);
        let far = T::narrow(&device, far)?;
        Ok(if tall { (far, s, near) } else { (near, s, far) })
    }

    /// `c` (rows, cols) = left (rows, inner) · right (inner, cols) for each matrix of the batch, in f64.
    fn product(
        &self,
        [rows, cols, inner]: [usize; 3],
        left: Operand,
        right: Operand,
        c: u64,
        batch: usize,
    ) -> Result<()> {
        let (one, zero) = (1.0, 0.0);
        // SAFETY: the callers' buffers have the sizes that the leading dimensions and strides span, and are this stream's; plans
        // keep sides and batches within an int.
        let status = unsafe {
            blas::cublasDgemmStridedBatched(
                *self.blas.handle(),
                left.operation,
                right.operation,
                rows as c_int,
                cols as c_int,
                inner as c_int,
                &raw const one,
                left.address as *const f64,
                left.lead as c_int,
                left.stride as i64,
                right.address as *const f64,
                right.lead as c_int,
                right.stride as i64,
                &raw const zero,
                c as *mut f64,
                rows as c_int,
                (rows * cols) as i64,
                batch as c_int,
            )
        };
        match status {
            cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
            other => Err(KernelError::Cuda { call: "cublasDgemmStridedBatched", code: format!("{other:?}") }),
        }
    }

    /// Does work on each matrix of a batch, on so many streams. A thread drives each: the routines wait for the GPU now and then.
    fn each(
        &mut self,
        n_streams: usize,
        batch: usize,
        work: impl Fn(&mut Lane, usize) -> Result<()> + Sync,
    ) -> Result<()> {
        let main = Arc::clone(self.device.stream());
        while self.lanes.len() < n_streams {
            self.lanes.push(Lane::new(main.fork().map_err(driver("cuStreamCreate"))?)?);
        }
        if n_streams <= 1 {
            return (0..batch).try_for_each(|matrix| work(&mut self.lanes[0], matrix));
        }
        for lane in &self.lanes[1..n_streams] {
            lane.stream.join(&main).map_err(driver("cuStreamWaitEvent"))?;
        }
        let work = &work;
        let results: Vec<Result<()>> = std::thread::scope(|scope| {
            let threads: Vec<_> = self.lanes[..n_streams]
                .iter_mut()
                .enumerate()
                .map(|(first, lane)| {
                    scope.spawn(move || {
                        (first..batch).step_by(n_streams).try_for_each(|matrix| work(lane, matrix))
                    })
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        // Also after a failure: the buffers may be freed only when nobody uses them.
        for lane in &self.lanes[1..n_streams] {
            main.join(&lane.stream).map_err(driver("cuStreamWaitEvent"))?;
        }
        results.into_iter().collect()
    }

    /// The first numbers of each matrix.
    fn first<T: Real>(
        &self,
        from: CudaSlice<T>,
        stride: usize,
        keep: usize,
        batch: usize,
    ) -> Result<CudaSlice<T>> {
        if stride == keep {
            return Ok(from);
        }
        let stream = self.device.stream();
        let mut to = self.alloc::<T>(batch * keep)?;
        if batch <= ONE_BY_ONE {
            for matrix in 0..batch {
                let source = from.slice(matrix * stride..matrix * stride + keep);
                let mut target = to.slice_mut(matrix * keep..(matrix + 1) * keep);
                stream.memcpy_dtod(&source, &mut target).map_err(driver("cuMemcpyDtoDAsync"))?;
            }
            return Ok(to);
        }
        {
            let (source, _from) = from.device_ptr(stream);
            let (target, _to) = to.device_ptr_mut(stream);
            let copy = sys::CUDA_MEMCPY2D {
                srcXInBytes: 0,
                srcY: 0,
                srcMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
                srcHost: std::ptr::null(),
                srcDevice: source,
                srcArray: std::ptr::null_mut(),
                srcPitch: stride * size_of::<T>(),
                dstXInBytes: 0,
                dstY: 0,
                dstMemoryType: CUmemorytype::CU_MEMORYTYPE_DEVICE,
                dstHost: std::ptr::null_mut(),
                dstDevice: target,
                dstArray: std::ptr::null_mut(),
                dstPitch: keep * size_of::<T>(),
                WidthInBytes: keep * size_of::<T>(),
                Height: batch,
            };
            // SAFETY: `from` has `batch` rows of `stride`, `to` of `keep` numbers.
            unsafe { sys::cuMemcpy2DAsync_v2(&raw const copy, stream.cu_stream()) }
                .result()
                .map_err(driver("cuMemcpy2DAsync"))?;
        }
        Ok(to)
    }

    fn refuse_nonfinite<T: Real>(
        &self,
        op: &'static str,
        batch: usize,
        a: &mut impl DevicePtrMut<T>,
    ) -> Result<()> {
        let plan = plan_nonfinite(T::DTYPE, batch, a.len() / batch)?;
        let n_flags = plan.bound().nth(1).map_or(0, |flags| flags.len);
        let mut flags = self.alloc::<u32>(n_flags)?;
        self.device.run_on(&plan, &mut [Binding::write(a), Binding::write(&mut flags)])?;
        match self.download(&flags)?.iter().position(|&flag| flag != 0) {
            Some(place) => Err(KernelError::NonFinite { op, index: place / (n_flags / batch) }),
            None => Ok(()),
        }
    }

    /// Reads what cuSOLVER says of each matrix.
    fn converged(&self, routine: &'static str, info: &CudaSlice<c_int>) -> Result<()> {
        let info = self.download(info)?;
        match info.iter().position(|&info| info != 0) {
            None => Ok(()),
            Some(index) if info[index] > 0 => {
                Err(KernelError::NoConvergence { routine, index, info: info[index] })
            }
            Some(index) => {
                let code = format!("argument {} is wrong", -i64::from(info[index]));
                Err(KernelError::Cuda { call: routine, code })
            }
        }
    }

    /// Memory that its user writes before anyone reads it.
    fn alloc<T: DeviceRepr>(&self, len: usize) -> Result<CudaSlice<T>> {
        // SAFETY: every caller has a routine or a copy write all of it.
        unsafe { self.device.stream().alloc::<T>(len) }.map_err(driver("cuMemAllocAsync"))
    }

    fn upload<T: Element>(&self, data: &[T]) -> Result<CudaSlice<T>> {
        self.device.stream().clone_htod(data).map_err(driver("cuMemcpyHtoDAsync"))
    }

    fn download<T: DeviceRepr>(&self, slice: &CudaSlice<T>) -> Result<Vec<T>> {
        let data = self.device.stream().clone_dtoh(slice).map_err(driver("cuMemcpyDtoHAsync"))?;
        self.device.synchronize()?;
        Ok(data)
    }
}

impl fmt::Debug for Solver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Solver")
            .field("device", &self.device)
            .field("lanes", &self.lanes.len())
            .finish_non_exhaustive()
    }
}

/// Vectors of the stored matrix's rows, singular values, vectors of its columns.
type Triple<T> = (CudaSlice<T>, CudaSlice<T>, CudaSlice<T>);

/// A batch of matrices as a factor of a product.
#[derive(Clone, Copy)]
struct Operand {
    address: u64,
    operation: cublasOperation_t,
    lead: usize,
    stride: usize,
}

/// The address of an element.
fn at<T>(start: u64, index: usize) -> u64 {
    start + (index * size_of::<T>()) as u64
}

fn fits<T: Element>(op: &'static str, dtype: DType, expected: usize, found: usize) -> Result<()> {
    if (dtype, expected) == (T::DTYPE, found) {
        return Ok(());
    }
    let text = |dtype: DType, len: usize| format!("{len} × {}", dtype.suffix());
    let (expected, found) = (text(dtype, expected), text(T::DTYPE, found));
    Err(KernelError::Buffer { op, index: 0, name: "a", expected, found })
}

fn wrong_type(op: &'static str, dtype: DType, found: &Data) -> KernelError {
    let (expected, found) = (dtype.suffix().to_owned(), found.dtype().suffix().to_owned());
    KernelError::Buffer { op, index: 0, name: "a", expected, found }
}
