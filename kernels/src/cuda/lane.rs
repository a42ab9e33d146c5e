//! A stream with what cuSOLVER needs to work on it: a handle, parameters, workspaces. All matrices are column-major here.

use super::library::driver;
use super::real::{Factors, Real};
use crate::data::DType;
use crate::error::{KernelError, Result};
use cudarc::cusolver::sys::{
    self, cublasFillMode_t, cusolverDnHandle_t, cusolverDnParams_t, cusolverEigMode_t, cusolverStatus_t,
    gesvdjInfo_t,
};
use cudarc::cusolver::{DnHandle, result};
use cudarc::driver::{CudaSlice, CudaStream, DevicePtrMut};
use std::collections::HashMap;
use std::ffi::{c_int, c_schar, c_void};
use std::sync::Arc;

const VECTORS: cusolverEigMode_t = cusolverEigMode_t::CUSOLVER_EIG_MODE_VECTOR;
const LOWER: cublasFillMode_t = cublasFillMode_t::CUBLAS_FILL_MODE_LOWER;
/// "The leading columns": what is returned of U and V.
const LEADING: c_schar = b'S'.cast_signed();

/// Turns a status of cuSOLVER into an error of ours.
pub(super) fn status(call: &'static str, status: cusolverStatus_t) -> Result<()> {
    match status {
        cusolverStatus_t::CUSOLVER_STATUS_SUCCESS => Ok(()),
        other => Err(KernelError::Cuda { call, code: format!("{other:?}") }),
    }
}

/// What makes two calls need the same workspace.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Call {
    routine: &'static str,
    dtype: DType,
    sizes: [i64; 4],
}

/// The objects of cuSOLVER that a call is given.
#[derive(Clone, Copy)]
struct Objects {
    handle: cusolverDnHandle_t,
    params: cusolverDnParams_t,
    jacobi: gesvdjInfo_t,
}

/// Workspaces on the device and on the host.
#[derive(Clone, Copy)]
struct Work {
    device: u64,
    device_bytes: usize,
    host: *mut c_void,
    host_bytes: usize,
}

/// A stream and cuSOLVER on it.
pub(super) struct Lane {
    pub(super) stream: Arc<CudaStream>,
    handle: DnHandle,
    params: cusolverDnParams_t,
    jacobi: gesvdjInfo_t,
    /// Bytes on the device and on the host.
    sizes: HashMap<Call, (usize, usize)>,
    device_work: Option<CudaSlice<u8>>,
    /// In units of the largest alignment.
    host_work: Vec<u128>,
}

// SAFETY: cuSOLVER's objects belong to no thread; a lane is used by one at a time, which `&mut self` sees to.
unsafe impl Send for Lane {}

impl Drop for Lane {
    fn drop(&mut self) {
        // Nobody is there to tell of a failure; null marks what was never made.
        if !self.params.is_null() {
            // SAFETY: made in `new`, destroyed once.
            let _ = unsafe { result::dn_destroy_params(self.params) };
        }
        if !self.jacobi.is_null() {
            // SAFETY: made in `new`, destroyed once.
            let _ = unsafe { sys::cusolverDnDestroyGesvdjInfo(self.jacobi) };
        }
    }
}

impl Lane {
    pub(super) fn new(stream: Arc<CudaStream>) -> Result<Self> {
        stream.context().bind_to_thread().map_err(driver("cuCtxSetCurrent"))?;
        let handle = DnHandle::new(Arc::clone(&stream)).map_err(|error| KernelError::Cuda {
            call: "cusolverDnCreate",
            code: format!("{:?}", error.0),
        })?;
        let (params, jacobi) = (std::ptr::null_mut(), std::ptr::null_mut());
        let (sizes, device_work, host_work) = (HashMap::new(), None, Vec::new());
        let mut lane = Self { stream, handle, params, jacobi, sizes, device_work, host_work };
        // SAFETY: both are pointers to write to; the lane destroys what was made.
        unsafe {
            status("cusolverDnCreateParams", sys::cusolverDnCreateParams(&raw mut lane.params))?;
            status("cusolverDnCreateGesvdjInfo", sys::cusolverDnCreateGesvdjInfo(&raw mut lane.jacobi))?;
        }
        Ok(lane)
    }

    /// Asks for the workspace, unless that was done for this call, and calls.
    fn call(
        &mut self,
        call: Call,
        ask: impl FnOnce(Objects) -> (cusolverStatus_t, usize, usize),
        run: impl FnOnce(Objects, Work) -> cusolverStatus_t,
    ) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(driver("cuCtxSetCurrent"))?;
        let objects = Objects { handle: self.handle.cu(), params: self.params, jacobi: self.jacobi };
        let (device_bytes, host_bytes) = match self.sizes.get(&call) {
            Some(&known) => known,
            None => {
                let (answer, device_bytes, host_bytes) = ask(objects);
                status(call.routine, answer)?;
                self.sizes.insert(call, (device_bytes, host_bytes));
                (device_bytes, host_bytes)
            }
        };
        if self.device_work.as_ref().is_none_or(|work| work.len() < device_bytes) {
            self.device_work = None;
            // SAFETY: cuSOLVER writes its workspace before it reads it.
            let work = unsafe { self.stream.alloc::<u8>(device_bytes.max(1)) };
            self.device_work = Some(work.map_err(driver("cuMemAllocAsync"))?);
        }
        let units = host_bytes.div_ceil(size_of::<u128>());
        if host_bytes > 0 {
            // The call before may still read its workspace on the host.
            self.stream.synchronize().map_err(driver("cuStreamSynchronize"))?;
            self.host_work.resize(units.max(self.host_work.len()), 0);
        }
        // The guard only tells other streams, and no other one uses the workspace.
        let device = self.device_work.as_mut().map_or(0, |work| work.device_ptr_mut(&self.stream).0);
        let host = if host_bytes > 0 { self.host_work.as_mut_ptr().cast() } else { std::ptr::null_mut() };
        status(call.routine, run(objects, Work { device, device_bytes, host, host_bytes }))
    }

    /// One call for matrices of at most 32×32: u (rows, rows), v (cols, cols).
    ///
    /// # Safety
    /// The addresses are of memory of this context that is as large, and that this stream may use.
    pub(super) unsafe fn gesvdj_batched<T: Real>(&mut self, f: Factors) -> Result<()> {
        let sizes = [f.rows.into(), f.cols.into(), f.batch.into(), 0];
        let call = Call { routine: "cusolverDnXgesvdjBatched", dtype: T::DTYPE, sizes };
        self.call(
            call,
            |o| {
                // SAFETY: the caller's promise.
                let (status, len) = unsafe { T::gesvdj_batched_size(o.handle, &f, o.jacobi) };
                (status, bytes::<T>(len), 0)
            },
            |o, work| {
                // SAFETY: the caller's promise; the workspace has the size that was asked for.
                unsafe { T::gesvdj_batched(o.handle, &f, o.jacobi, work.device, len::<T>(work)) }
            },
        )
    }

    /// One matrix: u (rows, min), v (cols, min).
    ///
    /// # Safety
    /// As for `gesvdj_batched`.
    pub(super) unsafe fn gesvdj<T: Real>(&mut self, f: Factors) -> Result<()> {
        let sizes = [f.rows.into(), f.cols.into(), 0, 0];
        let call = Call { routine: "cusolverDnXgesvdj", dtype: T::DTYPE, sizes };
        self.call(
            call,
            |o| {
                // SAFETY: the caller's promise.
                let (status, len) = unsafe { T::gesvdj_size(o.handle, &f, o.jacobi) };
                (status, bytes::<T>(len), 0)
            },
            |o, work| {
                // SAFETY: the caller's promise; the workspace has the size that was asked for.
                unsafe { T::gesvdj(o.handle, &f, o.jacobi, work.device, len::<T>(work)) }
            },
        )
    }

    /// One matrix by a sketch of k + `oversampling` vectors: u (rows, k), v (cols, k), each with room for the whole sketch.
    ///
    /// # Safety
    /// As for `gesvdj_batched`.
    pub(super) unsafe fn gesvdr<T: Real>(
        &mut self,
        f: Factors,
        k: i64,
        oversampling: i64,
        iterations: i64,
    ) -> Result<()> {
        let (rows, cols): (i64, i64) = (f.rows.into(), f.cols.into());
        let call =
            Call { routine: "cusolverDnXgesvdr", dtype: T::DTYPE, sizes: [rows, cols, k, oversampling] };
        let (job, t) = (LEADING, T::DATA);
        let [a, s, u, v] = [f.a, f.s, f.u, f.v].map(|address| address as *mut c_void);
        self.call(
            call,
            |o| {
                let (mut device, mut host) = (0, 0);
                // SAFETY: the caller's promise; sizes are only computed.
                let status = unsafe {
                    sys::cusolverDnXgesvdr_bufferSize(
                        o.handle,
                        o.params,
                        job,
                        job,
                        rows,
                        cols,
                        k,
                        oversampling,
                        iterations,
                        t,
                        a,
                        rows,
                        t,
                        s,
                        t,
                        u,
                        rows,
                        t,
                        v,
                        cols,
                        t,
                        &raw mut device,
                        &raw mut host,
                    )
                };
                (status, device, host)
            },
            |o, w| {
                let (work, info) = (w.device as *mut c_void, f.info as *mut c_int);
                // SAFETY: the caller's promise; the workspaces have the sizes that were asked for.
                unsafe {
                    sys::cusolverDnXgesvdr(
                        o.handle,
                        o.params,
                        job,
                        job,
                        rows,
                        cols,
                        k,
                        oversampling,
                        iterations,
                        t,
                        a,
                        rows,
                        t,
                        s,
                        t,
                        u,
                        rows,
                        t,
                        v,
                        cols,
                        t,
                        work,
                        w.device_bytes,
                        w.host,
                        w.host_bytes,
                        info,
                    )
                }
            },
        )
    }

    /// Eigenvalues `w`, ascending, and eigenvectors in the place of a batch of symmetric matrices.
    ///
    /// # Safety
    /// As for `gesvdj_batched`.
    pub(super) unsafe fn syev_batched<T: Real>(
        &mut self,
        n: i64,
        batch: i64,
        a: u64,
        w: u64,
        info: u64,
    ) -> Result<()> {
        let call = Call { routine: "cusolverDnXsyevBatched", dtype: T::DTYPE, sizes: [n, batch, 0, 0] };
        let (a, w, info, t) = (a as *mut c_void, w as *mut c_void, info as *mut c_int, T::DATA);
        self.call(
            call,
            |o| {
                let (mut device, mut host) = (0, 0);
                // SAFETY: the caller's promise; sizes are only computed.
                let status = unsafe {
                    sys::cusolverDnXsyevBatched_bufferSize(
                        o.handle,
                        o.params,
                        VECTORS,
                        LOWER,
                        n,
                        t,
                        a,
                        n,
                        t,
                        w,
                        t,
                        &raw mut device,
                        &raw mut host,
                        batch,
                    )
                };
                (status, device, host)
            },
            |o, s| {
                let work = s.device as *mut c_void;
                // SAFETY: the caller's promise; the workspaces have the sizes that were asked for.
                unsafe {
                    sys::cusolverDnXsyevBatched(
                        o.handle,
                        o.params,
                        VECTORS,
                        LOWER,
                        n,
                        t,
                        a,
                        n,
                        t,
                        w,
                        t,
                        work,
                        s.device_bytes,
                        s.host,
                        s.host_bytes,
                        info,
                        batch,
                    )
                }
            },
        )
    }

    /// The same of one matrix.
    ///
    /// # Safety
    /// As for `gesvdj_batched`.
    pub(super) unsafe fn syevd<T: Real>(&mut self, n: i64, a: u64, w: u64, info: u64) -> Result<()> {
        let call = Call { routine: "cusolverDnXsyevd", dtype: T::DTYPE, sizes: [n, 0, 0, 0] };
        let (a, w, info, t) = (a as *mut c_void, w as *mut c_void, info as *mut c_int, T::DATA);
        self.call(
            call,
            |o| {
                let (mut device, mut host) = (0, 0);
                // SAFETY: the caller's promise; sizes are only computed.
                let status = unsafe {
                    sys::cusolverDnXsyevd_bufferSize(
                        o.handle,
                        o.params,
                        VECTORS,
                        LOWER,
                        n,
                        t,
                        a,
                        n,
                        t,
                        w,
                        t,
                        &raw mut device,
                        &raw mut host,
                    )
                };
                (status, device, host)
            },
            |o, s| {
                let work = s.device as *mut c_void;
                // SAFETY: the caller's promise; the workspaces have the sizes that were asked for.
                unsafe {
                    sys::cusolverDnXsyevd(
                        o.handle,
                        o.params,
                        VECTORS,
                        LOWER,
                        n,
                        t,
                        a,
                        n,
                        t,
                        w,
                        t,
                        work,
                        s.device_bytes,
                        s.host,
                        s.host_bytes,
                        info,
                    )
                }
            },
        )
    }
}

/// Bytes of so many numbers of a workspace.
fn bytes<T>(len: c_int) -> usize {
    usize::try_from(len).unwrap_or(0) * size_of::<T>()
}

/// How many numbers a workspace has.
fn len<T>(work: Work) -> c_int {
    c_int::try_from(work.device_bytes / size_of::<T>()).unwrap_or(c_int::MAX)
}
