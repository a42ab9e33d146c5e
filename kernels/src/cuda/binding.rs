//! Memory of the device, as a plan takes it.

use crate::data::DType;
use crate::plan::Role;
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, SyncOnDrop};
use half::{bf16, f16};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// A number that kernels take.
pub trait Element: DeviceRepr {
    /// Its type at run time.
    const DTYPE: DType;
}

macro_rules! elements {
    ($($number:ty => $dtype:ident),*) => {
        $(impl Element for $number {
            const DTYPE: DType = DType::$dtype;
        })*
    };
}
elements!(f32 => F32, f16 => F16, bf16 => Bf16, f64 => F64, i64 => I64, u32 => U32);

/// The address of a buffer, and the guard that tells other streams when it was used.
pub(super) type Address<'a> = (u64, SyncOnDrop<'a>);

trait Memory {
    fn context(&self) -> &Arc<CudaContext>;
    fn address<'s>(&'s mut self, stream: &'s CudaStream) -> Address<'s>;
}

struct Read<'a, T, S>(&'a S, PhantomData<T>);

impl<T, S: DevicePtr<T>> Memory for Read<'_, T, S> {
    fn context(&self) -> &Arc<CudaContext> {
        self.0.stream().context()
    }

    fn address<'s>(&'s mut self, stream: &'s CudaStream) -> Address<'s> {
        self.0.device_ptr(stream)
    }
}

struct Write<'a, T, S>(&'a mut S, PhantomData<T>);

impl<T, S: DevicePtrMut<T>> Memory for Write<'_, T, S> {
    fn context(&self) -> &Arc<CudaContext> {
        self.0.stream().context()
    }

    fn address<'s>(&'s mut self, stream: &'s CudaStream) -> Address<'s> {
        self.0.device_ptr_mut(stream)
    }
}

/// A buffer of the device that is given to a plan: a slice or a view of cudarc.
pub struct Binding<'a> {
    pub(super) dtype: DType,
    pub(super) len: usize,
    writable: bool,
    memory: Box<dyn Memory + 'a>,
}

impl<'a> Binding<'a> {
    /// A buffer that the plan reads ([`Role::Input`]).
    pub fn read<T: Element + 'a>(slice: &'a impl DevicePtr<T>) -> Self {
        let (dtype, len) = (T::DTYPE, slice.len());
        Self { dtype, len, writable: false, memory: Box::new(Read(slice, PhantomData::<T>)) }
    }

    /// A buffer that the plan writes ([`Role::Output`], [`Role::InOut`]).
    pub fn write<T: Element + 'a>(slice: &'a mut impl DevicePtrMut<T>) -> Self {
        let (dtype, len) = (T::DTYPE, slice.len());
        Self { dtype, len, writable: true, memory: Box::new(Write(slice, PhantomData::<T>)) }
    }

    /// Bytes of which the first are so many elements of the type.
    pub(super) fn bytes(dtype: DType, len: usize, slice: &'a mut CudaSlice<u8>) -> Self {
        Self { dtype, len, writable: true, memory: Box::new(Write(slice, PhantomData::<u8>)) }
    }

    /// What speaks against this role, in the words of [`KernelError::Buffer`](crate::KernelError::Buffer): expected, and found.
    pub(super) fn refused(&self, role: Role, context: &CudaContext) -> Option<(String, String)> {
        if role != Role::Input && !self.writable {
            return Some(("given by Binding::write".to_owned(), "by Binding::read".to_owned()));
        }
        let theirs = self.memory.context();
        (theirs.cu_ctx() != context.cu_ctx()).then(|| {
            let memory = |context: &CudaContext| format!("memory of a context of GPU {}", context.ordinal());
            (memory(context), memory(theirs))
        })
    }

    /// Makes the stream wait for those who use the buffer. The guard must live until the launches are enqueued.
    pub(super) fn address<'s>(&'s mut self, stream: &'s CudaStream) -> Address<'s> {
        self.memory.address(stream)
    }
}

impl fmt::Debug for Binding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = if self.writable { "write" } else { "read" };
        write!(f, "{access} {} × {}", self.len, self.dtype.suffix())
    }
}
