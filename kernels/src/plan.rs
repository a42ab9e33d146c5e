//! What an operation asks of a GPU: buffers, and launches in order.

use crate::data::{DType, Data};
use crate::error::{KernelError, Result};
use crate::source::File;

/// What a plan has to know of the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// 10 × major + minor compute capability: 80, 90, 100 …
    pub capability: u32,
    /// Streaming multiprocessors.
    pub n_multiprocessors: u32,
    /// Shared memory that one block may have, in bytes.
    pub shared_bytes: u32,
}

impl Target {
    /// An H100 SXM, compute capability 9.0.
    pub const H100: Self = Self { capability: 90, n_multiprocessors: 132, shared_bytes: 227 * 1024 };
    /// An A100, compute capability 8.0.
    pub const A100: Self = Self { capability: 80, n_multiprocessors: 108, shared_bytes: 163 * 1024 };
}

/// How a plan uses a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Read, and never written.
    Input,
    /// Written in full before it is read, if it is.
    Output,
    /// Read and written.
    InOut,
    /// For the plan alone; the executor provides it, uninitialised.
    Scratch,
}

/// A buffer of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// The name in errors.
    pub name: &'static str,
    /// Whether launches read it, write it or both.
    pub role: Role,
    /// The type of its elements.
    pub dtype: DType,
    /// Number of elements.
    pub len: usize,
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Arg {
    /// The address of the plan's buffer of this number.
    Buffer(usize),
    /// A number that the kernel takes as `int`.
    I32(i32),
    /// A number that the kernel takes as `long long`.
    I64(i64),
    /// A number that the kernel takes as `float`.
    F32(f32),
}

/// One launch of a kernel.
#[derive(Debug, Clone, PartialEq)]
pub struct Launch {
    /// Where the kernel is.
    pub file: File,
    /// The name of the kernel's function in that file.
    pub kernel: String,
    /// Blocks along each of the three dimensions.
    pub grid: [u32; 3],
    /// Threads of a block, along one dimension.
    pub block: u32,
    /// Blocks of a cluster, along the first dimension of the grid; 1 without clusters. The kernel's declaration says the same.
    pub cluster: u32,
    /// Dynamic shared memory of a block, in bytes.
    pub shared_bytes: u32,
    /// The arguments, in order.
    pub args: Vec<Arg>,
}

/// Buffers and launches of an operation. One without launches has nothing to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The name of the operation in errors.
    pub op: &'static str,
    /// Its buffers; those that are not [`Role::Scratch`] are given to the executor in this order.
    pub buffers: Vec<Buffer>,
    /// In order; each sees what those before it wrote.
    pub launches: Vec<Launch>,
}

impl Plan {
    pub(crate) fn new(op: &'static str) -> Self {
        Self { op, buffers: Vec::new(), launches: Vec::new() }
    }

    /// Adds a buffer and returns the argument that stands for it.
    pub(crate) fn buffer(&mut self, name: &'static str, role: Role, dtype: DType, len: usize) -> Arg {
        self.buffers.push(Buffer { name, role, dtype, len });
        Arg::Buffer(self.buffers.len() - 1)
    }

    /// The buffers that the caller provides, in order.
    pub fn bound(&self) -> impl Iterator<Item = &Buffer> {
        self.buffers.iter().filter(|buffer| buffer.role != Role::Scratch)
    }

    /// Checks buffers that are given, by type and length, against those of the plan.
    ///
    /// # Errors
    /// [`KernelError::Shape`] for a wrong number of buffers, [`KernelError::Buffer`] for one that differs.
    pub fn check(&self, given: &[(DType, usize)]) -> Result<()> {
        let expected = self.bound().count();
        if given.len() != expected {
            let message = format!("takes {expected} buffers, {} were given", given.len());
            return Err(KernelError::shape(self.op, message));
        }
        for (index, (buffer, &(dtype, len))) in self.bound().zip(given).enumerate() {
            if (buffer.dtype, buffer.len) != (dtype, len) {
                let text = |dtype: DType, len: usize| format!("{len} × {}", dtype.suffix());
                return Err(KernelError::Buffer {
                    op: self.op,
                    index,
                    name: buffer.name,
                    expected: text(buffer.dtype, buffer.len),
                    found: text(dtype, len),
                });
            }
        }
        Ok(())
    }
}

/// Something that runs plans on data of the host: a GPU that copies them there and back, or the emulator.
pub trait Executor {
    /// The GPU that plans for this executor must be made for.
    fn target(&self) -> Target;

    /// Runs a plan. `data` are its buffers but for the scratch; outputs are overwritten.
    ///
    /// # Errors
    /// [`KernelError::Shape`] and [`KernelError::Buffer`] for data that do not fit the plan; what the launch says.
    fn run(&self, plan: &Plan, data: &mut [&mut Data]) -> Result<()>;
}

/// Rounds up to whole multiples.
pub(crate) fn round_up(n: usize, multiple: usize) -> usize {
    n.div_ceil(multiple) * multiple
}

/// A size as the kernels take it.
pub(crate) fn to_i32(op: &'static str, name: &str, value: usize) -> Result<i32> {
    i32::try_from(value).map_err(|_| KernelError::shape(op, format!("{name} = {value} is more than 2³¹ − 1")))
}

/// A number of blocks along the first dimension of a grid.
pub(crate) fn to_grid(op: &'static str, blocks: usize) -> Result<u32> {
    match u32::try_from(blocks) {
        Ok(n) if n <= i32::MAX as u32 => Ok(n),
        _ => Err(KernelError::shape(op, format!("{blocks} blocks are more than a grid has"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_of_another_type_or_length_is_named() {
        let mut plan = Plan::new("test");
        plan.buffer("x", Role::Input, DType::F32, 3);
        plan.buffer("work", Role::Scratch, DType::F32, 9);
        plan.buffer("y", Role::Output, DType::Bf16, 2);
        assert_eq!(plan.check(&[(DType::F32, 3), (DType::Bf16, 2)]), Ok(()));
        let error = plan.check(&[(DType::F32, 3), (DType::F32, 2)]).unwrap_err();
        assert_eq!(error.to_string(), "test: buffer 1 (y) must be 2 × bf16, not 2 × f32");
        assert!(matches!(plan.check(&[(DType::F32, 3)]), Err(KernelError::Shape { .. })));
    }
}
