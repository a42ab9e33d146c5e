//! Runs plans on the CPU, through the kernels' own source compiled as C++ (`emulation/`).
//!
//! It tests logic: indices, bounds, barriers, the layouts of tensor-core fragments. It says nothing of speed or of memory ordering between
//! blocks. Every plan runs three times, with the threads in ascending, descending and shuffled order, and the three results must be
//! the same bit for bit: a missing barrier shows as a difference.

use crate::data::Data;
use crate::error::{KernelError, Result};
use crate::plan::{Arg, Executor, Launch, Plan, Role, Target};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};

unsafe extern "C" {
    fn fwd_guarded_new(bytes: usize, name: *const c_char) -> *mut c_void;
    fn fwd_guarded_read_only(start: *mut c_void);
    fn fwd_guarded_free(start: *mut c_void) -> c_int;
    fn fwd_emulate(
        name: *const c_char,
        grid: *const c_uint,
        block: c_uint,
        cluster: c_uint,
        shared_bytes: usize,
        signature: *const c_char,
        arguments: *mut *mut c_void,
        order: c_int,
        message: *mut c_char,
        message_len: usize,
    ) -> c_int;
}

/// Runs plans on the CPU.
#[derive(Debug, Clone, Copy)]
pub struct Emulator {
    target: Target,
    orders: &'static [i32],
}

impl Emulator {
    /// An emulator that claims to be the target.
    pub fn new(target: Target) -> Self {
        Self { target, orders: &[0, 1, 12_345] }
    }

    /// One that runs each plan once, with the threads in ascending order: three times as fast, and blind to missing barriers.
    pub fn once(target: Target) -> Self {
        Self { target, orders: &[0] }
    }
}

/// Memory between guard pages.
struct Guarded {
    start: *mut c_void,
    /// The emulator's errors use it as long as the memory lives.
    _name: CString,
}

impl Guarded {
    fn new(plan: &Plan, name: &str, bytes: usize) -> Result<Self> {
        let name = CString::new(name).unwrap_or_default();
        // SAFETY: `name` is a C string that lives in `self` as long as the memory.
        let start = unsafe { fwd_guarded_new(bytes, name.as_ptr()) };
        if start.is_null() {
            return Err(KernelError::shape(plan.op, format!("no memory for {bytes} bytes")));
        }
        Ok(Self { start, _name: name })
    }

    /// Frees the memory, once. False if something was written between it and its guard page.
    fn close(&mut self) -> bool {
        let start = std::mem::replace(&mut self.start, std::ptr::null_mut());
        // SAFETY: `start` comes from `fwd_guarded_new`, or is null, for which the call does nothing.
        unsafe { fwd_guarded_free(start) != 0 }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.close();
    }
}

impl Executor for Emulator {
    fn target(&self) -> Target {
        self.target
    }

    fn run(&self, plan: &Plan, data: &mut [&mut Data]) -> Result<()> {
        let given: Vec<_> = data.iter().map(|d| (d.dtype(), d.len())).collect();
        plan.check(&given)?;
        let before: Vec<Data> = data.iter().map(|d| (**d).clone()).collect();
        let mut first: Option<Vec<Data>> = None;
        for &order in self.orders {
            let mut now = before.clone();
            run_once(plan, &mut now, order)?;
            match &first {
                None => first = Some(now),
                Some(first) => {
                    let differs = first.iter().zip(&now).position(|(a, b)| a.as_bytes() != b.as_bytes());
                    if let Some(name) = differs.and_then(|i| plan.bound().nth(i)).map(|buffer| buffer.name) {
                        return Err(KernelError::Emulation {
                            kernel: plan
                                .launches
                                .iter()
                                .map(|l| l.kernel.as_str())
                                .collect::<Vec<_>>()
                                .join(", "),
                            message: format!(
                                "{name} depends on the order of threads: a barrier is missing, or two threads write one element"
                            ),
                        });
                    }
                }
            }
        }
        for (slot, result) in data.iter_mut().zip(first.unwrap_or_default()) {
            **slot = result;
        }
        Ok(())
    }
}

fn run_once(plan: &Plan, data: &mut [Data], order: i32) -> Result<()> {
    let mut given = data.iter();
    let mut memory = Vec::with_capacity(plan.buffers.len());
    for buffer in &plan.buffers {
        let guarded = Guarded::new(plan, buffer.name, buffer.len * buffer.dtype.size())?;
        if buffer.role != Role::Scratch
            && let Some(data) = given.next()
            && buffer.role != Role::Output
        {
            let bytes = data.as_bytes();
            // SAFETY: the memory is as long as the buffer, whose length `check` compared with the data's.
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), guarded.start.cast(), bytes.len()) };
        }
        if buffer.role == Role::Input {
            // SAFETY: `start` comes from `fwd_guarded_new`.
            unsafe { fwd_guarded_read_only(guarded.start) };
        }
        memory.push(guarded);
    }
    for launch in &plan.launches {
        emulate(launch, &memory, order)?;
    }
    let mut given = data.iter_mut();
    for (buffer, mut guarded) in plan.buffers.iter().zip(memory) {
        if buffer.role != Role::Scratch
            && let Some(data) = given.next()
            && buffer.role != Role::Input
        {
            let bytes = data.as_bytes_mut();
            // SAFETY: both are as long as the buffer and do not overlap; any bits are a number.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    guarded.start.cast_const().cast(),
                    bytes.as_mut_ptr(),
                    bytes.len(),
                )
            };
        }
        if !guarded.close() {
            let kernel = plan.launches.iter().map(|l| l.kernel.as_str()).collect::<Vec<_>>().join(", ");
            return Err(KernelError::Emulation { kernel, message: format!("write beside {}", buffer.name) });
        }
    }
    Ok(())
}

fn emulate(launch: &Launch, memory: &[Guarded], order: i32) -> Result<()> {
    /// What an argument's address points to.
    union Value {
        pointer: *mut c_void,
        i32: i32,
        i64: i64,
        f32: f32,
    }
    let mut values: Vec<Value> = launch
        .args
        .iter()
        .map(|arg| match *arg {
            Arg::Buffer(index) => Value { pointer: memory[index].start },
            Arg::I32(i32) => Value { i32 },
            Arg::I64(i64) => Value { i64 },
            Arg::F32(f32) => Value { f32 },
        })
        .collect();
    let mut pointers: Vec<*mut c_void> = values.iter_mut().map(|value| (&raw mut *value).cast()).collect();
    let name = CString::new(launch.kernel.as_str()).unwrap_or_default();
    let signature: Vec<u8> = launch
        .args
        .iter()
        .map(|arg| match arg {
            Arg::Buffer(_) => b'p',
            Arg::I32(_) => b'i',
            Arg::I64(_) => b'l',
            Arg::F32(_) => b'f',
        })
        .collect();
    let signature = CString::new(signature).unwrap_or_default();
    let mut message = [0 as c_char; 512];
    // SAFETY: the emulator compares the signature with the kernel's parameters before it reads the arguments; an access of the
    // kernel beyond its buffers ends in a report.
    let failed = unsafe {
        fwd_emulate(
            name.as_ptr(),
            launch.grid.as_ptr(),
            launch.block,
            launch.cluster,
            launch.shared_bytes as usize,
            signature.as_ptr(),
            pointers.as_mut_ptr(),
            order,
            message.as_mut_ptr(),
            message.len(),
        )
    };
    if failed == 0 {
        return Ok(());
    }
    // SAFETY: the emulator ends its message with a zero.
    let message = unsafe { CStr::from_ptr(message.as_ptr()) }.to_string_lossy().into_owned();
    Err(KernelError::Emulation { kernel: launch.kernel.clone(), message })
}
