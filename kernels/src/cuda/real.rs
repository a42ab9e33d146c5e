//! The two precisions of cuSOLVER behind one trait.

use super::binding::{Binding, Element};
use super::{Device, library};
use crate::error::Result;
use crate::solver::plan_convert;
use cudarc::cusolver::sys::{
    self, cudaDataType, cusolverDnHandle_t, cusolverEigMode_t, cusolverStatus_t, gesvdjInfo_t,
};
use cudarc::driver::{CudaSlice, DevicePtrMut, ValidAsZeroBits};
use std::ffi::c_int;

const VECTORS: cusolverEigMode_t = cusolverEigMode_t::CUSOLVER_EIG_MODE_VECTOR;

/// Sizes and device addresses of a Jacobi SVD in column-major order: a (rows, cols), s, u with columns of `rows`, v with columns of
/// `cols`, one `info` a matrix.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct Factors {
    pub(super) rows: c_int,
    pub(super) cols: c_int,
    pub(super) batch: c_int,
    pub(super) a: u64,
    pub(super) s: u64,
    pub(super) u: u64,
    pub(super) v: u64,
    pub(super) info: u64,
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// f32 or f64, the types of matrices that are decomposed.
#[allow(missing_docs, clippy::missing_safety_doc)]
pub trait Real: Element + ValidAsZeroBits + sealed::Sealed + Sized {
    #[doc(hidden)]
    const DATA: cudaDataType;

    /// A copy in f64; none if that is what it is.
    #[doc(hidden)]
    fn widen(device: &Device, a: &mut impl DevicePtrMut<Self>) -> Result<Option<CudaSlice<f64>>>;

    /// The same in this type.
    #[doc(hidden)]
    fn narrow(device: &Device, a: CudaSlice<f64>) -> Result<CudaSlice<Self>>;

    // The four calls need what cuSOLVER needs: addresses of memory as large as `Factors` says, in the context of the handle.
    #[doc(hidden)]
    unsafe fn gesvdj_batched_size(
        handle: cusolverDnHandle_t,
        f: &Factors,
        jacobi: gesvdjInfo_t,
    ) -> (cusolverStatus_t, c_int);
    #[doc(hidden)]
    unsafe fn gesvdj_batched(
        handle: cusolverDnHandle_t,
        f: &Factors,
        jacobi: gesvdjInfo_t,
        work: u64,
        len: c_int,
    ) -> cusolverStatus_t;
    #[doc(hidden)]
    unsafe fn gesvdj_size(
        handle: cusolverDnHandle_t,
        f: &Factors,
        jacobi: gesvdjInfo_t,
    ) -> (cusolverStatus_t, c_int);
    #[doc(hidden)]
    unsafe fn gesvdj(
        handle: cusolverDnHandle_t,
        f: &Factors,
        jacobi: gesvdjInfo_t,
        work: u64,
        len: c_int,
    ) -> cusolverStatus_t;
}

macro_rules! calls {
    ($data:ident, $batched:ident, $batched_size:ident, $single:ident, $single_size:ident) => {
        const DATA: cudaDataType = cudaDataType::$data;

        unsafe fn gesvdj_batched_size(
            handle: cusolverDnHandle_t,
            f: &Factors,
            jacobi: gesvdjInfo_t,
        ) -> (cusolverStatus_t, c_int) {
            let mut len = 0;
            let (a, s, u, v) =
                (f.a as *const Self, f.s as *const Self, f.u as *const Self, f.v as *const Self);
            // SAFETY: the caller vouches for the handle and the addresses; sizes are only computed.
            let status = unsafe {
                sys::$batched_size(
                    handle,
                    VECTORS,
                    f.rows,
                    f.cols,
                    a,
                    f.rows,
                    s,
                    u,
                    f.rows,
                    v,
                    f.cols,
                    &raw mut len,
                    jacobi,
                    f.batch,
                )
            };
            (status, len)
        }

        unsafe fn gesvdj_batched(
            handle: cusolverDnHandle_t,
            f: &Factors,
            jacobi: gesvdjInfo_t,
            work: u64,
            len: c_int,
        ) -> cusolverStatus_t {
            let (a, s, u, v) = (f.a as *mut Self, f.s as *mut Self, f.u as *mut Self, f.v as *mut Self);
            let (work, info) = (work as *mut Self, f.info as *mut c_int);
            // SAFETY: the caller vouches for the handle, the addresses and the workspace.
            unsafe {
                sys::$batched(
                    handle, VECTORS, f.rows, f.cols, a, f.rows, s, u, f.rows, v, f.cols, work, len, info,
                    jacobi, f.batch,
                )
            }
        }

        unsafe fn gesvdj_size(
            handle: cusolverDnHandle_t,
            f: &Factors,
            jacobi: gesvdjInfo_t,
        ) -> (cusolverStatus_t, c_int) {
            let mut len = 0;
            let (a, s, u, v) =
                (f.a as *const Self, f.s as *const Self, f.u as *const Self, f.v as *const Self);
            // SAFETY: the caller vouches for the handle and the addresses; sizes are only computed.
            let status = unsafe {
                sys::$single_size(
                    handle,
                    VECTORS,
                    1,
                    f.rows,
                    f.cols,
                    a,
                    f.rows,
                    s,
                    u,
                    f.rows,
                    v,
                    f.cols,
                    &raw mut len,
                    jacobi,
                )
            };
            (status, len)
        }

        unsafe fn gesvdj(
            handle: cusolverDnHandle_t,
            f: &Factors,
            jacobi: gesvdjInfo_t,
            work: u64,
            len: c_int,
        ) -> cusolverStatus_t {
            let (a, s, u, v) = (f.a as *mut Self, f.s as *mut Self, f.u as *mut Self, f.v as *mut Self);
            let (work, info) = (work as *mut Self, f.info as *mut c_int);
            // SAFETY: the caller vouches for the handle, the addresses and the workspace.
            unsafe {
                sys::$single(
                    handle, VECTORS, 1, f.rows, f.cols, a, f.rows, s, u, f.rows, v, f.cols, work, len, info,
                    jacobi,
                )
            }
        }
    };
}

impl Real for f32 {
    calls!(
        CUDA_R_32F,
        cusolverDnSgesvdjBatched,
        cusolverDnSgesvdjBatched_bufferSize,
        cusolverDnSgesvdj,
        cusolverDnSgesvdj_bufferSize
    );

    fn widen(device: &Device, a: &mut impl DevicePtrMut<Self>) -> Result<Option<CudaSlice<f64>>> {
        let plan = plan_convert(Self::DTYPE, a.len())?;
        // SAFETY: the launch below writes all of it.
        let wide = unsafe { device.stream().alloc::<f64>(a.len()) };
        let mut wide = wide.map_err(library::driver("cuMemAllocAsync"))?;
        device.run_on(&plan, &mut [Binding::write(a), Binding::write(&mut wide)])?;
        Ok(Some(wide))
    }

    fn narrow(device: &Device, a: CudaSlice<f64>) -> Result<CudaSlice<Self>> {
        let plan = plan_convert(f64::DTYPE, a.len())?;
        // SAFETY: the launch below writes all of it.
        let narrow = unsafe { device.stream().alloc::<f32>(a.len()) };
        let mut narrow = narrow.map_err(library::driver("cuMemAllocAsync"))?;
        device.run_on(&plan, &mut [Binding::read(&a), Binding::write(&mut narrow)])?;
        Ok(narrow)
    }
}

impl Real for f64 {
    calls!(
        CUDA_R_64F,
        cusolverDnDgesvdjBatched,
        cusolverDnDgesvdjBatched_bufferSize,
        cusolverDnDgesvdj,
        cusolverDnDgesvdj_bufferSize
    );

    fn widen(_device: &Device, _a: &mut impl DevicePtrMut<Self>) -> Result<Option<CudaSlice<f64>>> {
        Ok(None)
    }

    fn narrow(_device: &Device, a: CudaSlice<f64>) -> Result<CudaSlice<Self>> {
        Ok(a)
    }
}
