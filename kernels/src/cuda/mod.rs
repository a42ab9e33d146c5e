//! A GPU that runs plans: memory of the device in, launches on a stream.
//!
//! Nothing here panics on a machine without a driver or a GPU. The libraries of CUDA are loaded when they are needed first.

mod binding;
mod lane;
mod library;
mod module;
mod output;
mod real;
mod solver;

pub use binding::{Binding, Element};
pub use module::compile;
pub use real::Real;
pub use solver::{Solver, Svd};

use self::library::{driver, unavailable, version_parts};
use self::module::Modules;
use crate::data::Data;
use crate::error::{KernelError, Result};
use crate::info::DeviceInfo;
use crate::plan::{Buffer, Executor, Launch, Plan, Role, Target, round_up};
use cudarc::driver::sys::{
    self, CUdevice_attribute_enum as Attribute, CUfunction_attribute_enum as FunctionAttribute,
};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtrMut, LaunchConfig, PushKernelArg, result,
};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Shared memory that a block may have without asking for it.
const SHARED_WITHOUT_ASKING: u32 = 48 * 1024;
/// Blocks of a cluster that every GPU with clusters can hold.
const PORTABLE_CLUSTER: u32 = 8;
/// Where buffers begin within the workspace.
const SCRATCH_ALIGNMENT: usize = 256;
/// The alignment that kernels rely on.
const ALIGNMENT: u64 = 16;

/// A GPU and a stream on it. Clones share both.
#[derive(Clone)]
pub struct Device(Arc<Inner>);

struct Inner {
    stream: Arc<CudaStream>,
    target: Target,
    cuda: i32,
    modules: Modules,
    functions: Mutex<HashMap<String, Function>>,
    /// Scratch of the plans. They use it one after another, as the stream does.
    workspace: Mutex<Option<CudaSlice<u8>>>,
}

#[derive(Clone)]
struct Function {
    function: CudaFunction,
    /// Dynamic shared memory that was asked for.
    shared_bytes: u32,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    /// Opens a GPU by its number, on the default stream of its primary context.
    ///
    /// # Errors
    /// [`KernelError::CudaUnavailable`] with what is missing: the driver, CUDA 13 in it, the GPU, or compute capability 8.0.
    pub fn open(ordinal: usize) -> Result<Self> {
        library::require_driver()?;
        result::init().map_err(|error| unavailable(format!("cuInit answered {:?}", error.0)))?;
        let count = result::device::get_count().map_err(driver("cuDeviceGetCount"))?;
        if usize::try_from(count).is_ok_and(|count| ordinal >= count) {
            return Err(unavailable(format!("there is no GPU {ordinal}, the driver sees {count}")));
        }
        let context = CudaContext::new(ordinal)
            .map_err(|error| unavailable(format!("GPU {ordinal} does not open: {:?}", error.0)))?;
        Self::new(context.default_stream())
    }

    /// The device of a stream that another library works on, with its context: launches are in order with the library's own.
    ///
    /// One device a stream is kept for the life of the program, so that repeated calls are cheap.
    ///
    /// # Errors
    /// As [`open`](Self::open); [`KernelError::Shape`] for the stream that stands for a different one in each thread.
    pub fn on_stream(stream: &Arc<CudaStream>) -> Result<Self> {
        static KNOWN: Mutex<Option<HashMap<(usize, usize), Device>>> = Mutex::new(None);
        /// `CU_STREAM_PER_THREAD`.
        const PER_THREAD: usize = 2;
        let handle = stream.cu_stream() as usize;
        if handle == PER_THREAD {
            return Err(KernelError::shape(
                "device",
                "the per-thread default stream has no device of its own",
            ));
        }
        let key = (stream.context().cu_ctx() as usize, handle);
        let mut known = lock(&KNOWN);
        let known = known.get_or_insert_default();
        if let Some(device) = known.get(&key) {
            return Ok(device.clone());
        }
        let device = Self::new(Arc::clone(stream))?;
        known.insert(key, device.clone());
        Ok(device)
    }

    fn new(stream: Arc<CudaStream>) -> Result<Self> {
        let context = stream.context();
        let attribute = |which| -> Result<u32> {
            let value = context.attribute(which).map_err(driver("cuDeviceGetAttribute"))?;
            Ok(value.max(0).unsigned_abs())
        };
        let (major, minor) = (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        );
        if major < 8 {
            return Err(unavailable(format!(
                "GPU {} has compute capability {major}.{minor}, 8.0 is needed",
                context.ordinal()
            )));
        }
        let target = Target {
            capability: 10 * major + minor,
            n_multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            shared_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        };
        let mut cuda = 0;
        // SAFETY: `cuda` is an int to write to.
        unsafe { sys::cuDriverGetVersion(&raw mut cuda) }.result().map_err(driver("cuDriverGetVersion"))?;
        let modules = Modules::new(Arc::clone(context), target, cuda);
        let (functions, workspace) = (Mutex::default(), Mutex::default());
        Ok(Self(Arc::new(Inner { stream, target, cuda, modules, functions, workspace })))
    }

    /// The stream that everything runs on.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.0.stream
    }

    /// Waits for everything that was enqueued.
    ///
    /// # Errors
    /// [`KernelError::Cuda`], also for a kernel that failed before.
    pub fn synchronize(&self) -> Result<()> {
        self.stream().synchronize().map_err(driver("cuStreamSynchronize"))
    }

    /// What a report says of the GPU.
    ///
    /// # Errors
    /// [`KernelError::Cuda`] if the driver does not answer.
    pub fn info(&self) -> Result<DeviceInfo> {
        let context = self.stream().context();
        let l2 = context
            .attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)
            .map_err(driver("cuDeviceGetAttribute"))?;
        let nvrtc = module::nvrtc_version().ok();
        Ok(DeviceInfo {
            name: context.name().map_err(driver("cuDeviceGetName"))?,
            capability: (self.0.target.capability / 10, self.0.target.capability % 10),
            cuda: version_parts(self.0.cuda),
            driver: driver_release(),
            nvrtc: nvrtc.map(|(major, minor)| (major.unsigned_abs(), minor.unsigned_abs())),
            memory_bytes: context.total_mem().map_err(driver("cuDeviceTotalMem"))?,
            n_multiprocessors: self.0.target.n_multiprocessors,
            l2_bytes: usize::try_from(l2).unwrap_or(0),
        })
    }

    /// Does work and measures, with events on the stream, how long the GPU took over what it enqueued. Waits for it.
    ///
    /// # Errors
    /// What the work says; [`KernelError::Cuda`] for the events.
    pub fn time<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<(R, Duration)> {
        let event = || {
            self.stream()
                .record_event(Some(sys::CUevent_flags::CU_EVENT_DEFAULT))
                .map_err(driver("cuEventRecord"))
        };
        let start = event()?;
        let result = work()?;
        let milliseconds = start.elapsed_ms(&event()?).map_err(driver("cuEventElapsedTime"))?;
        Ok((result, Duration::from_secs_f64(f64::from(milliseconds) / 1e3)))
    }

    /// Enqueues a plan's launches on memory of this device: its buffers but for the scratch, in the plan's order.
    ///
    /// Other streams that use the buffers, before or after, are waited for as cudarc does it.
    ///
    /// # Errors
    /// [`KernelError::Shape`] and [`KernelError::Buffer`] for buffers that do not fit the plan, belong to another context, are only
    /// read where the plan writes, or do not begin at a multiple of 16 bytes; what compiling or launching says.
    pub fn run_on(&self, plan: &Plan, buffers: &mut [Binding<'_>]) -> Result<()> {
        self.enqueue(plan, buffers, false)
    }

    fn enqueue(&self, plan: &Plan, buffers: &mut [Binding<'_>], poison: bool) -> Result<()> {
        let given: Vec<_> = buffers.iter().map(|buffer| (buffer.dtype, buffer.len)).collect();
        plan.check(&given)?;
        let refuse = |index, buffer: &Buffer, (expected, found)| KernelError::Buffer {
            op: plan.op,
            index,
            name: buffer.name,
            expected,
            found,
        };
        for (index, (buffer, given)) in plan.bound().zip(&*buffers).enumerate() {
            if let Some(words) = given.refused(buffer.role, self.stream().context()) {
                return Err(refuse(index, buffer, words));
            }
        }
        // Compile and load before anything is enqueued.
        let functions: Vec<_> =
            plan.launches.iter().map(|launch| self.function(plan.op, launch)).collect::<Result<_>>()?;
        let stream = self.stream();
        stream.context().bind_to_thread().map_err(driver("cuCtxSetCurrent"))?;
        let mut scratch_bytes = 0;
        let mut places = Vec::new();
        for buffer in plan.buffers.iter().filter(|buffer| buffer.role == Role::Scratch) {
            places.push(scratch_bytes as u64);
            scratch_bytes += round_up(buffer.len * buffer.dtype.size(), SCRATCH_ALIGNMENT);
        }
        let mut workspace = lock(&self.0.workspace);
        let scratch = self.scratch(&mut workspace, scratch_bytes)?;
        let scratch = scratch.map(|slice| slice.device_ptr_mut(stream));
        let start = scratch.as_ref().map_or(0, |(address, _)| *address);
        if poison && scratch_bytes > 0 {
            // SAFETY: the workspace has at least so many bytes.
            unsafe { result::memset_d8_async(start, 0xff, scratch_bytes, stream.cu_stream()) }
                .map_err(driver("cuMemsetD8Async"))?;
        }
        let mut places = places.into_iter();
        let mut bound = buffers.iter_mut().enumerate();
        // The guards record, when they are dropped at the end, that the buffers were used.
        let mut guards = Vec::with_capacity(plan.buffers.len());
        let mut addresses = Vec::with_capacity(plan.buffers.len());
        for buffer in &plan.buffers {
            if buffer.role == Role::Scratch {
                addresses.push(start + places.next().unwrap_or(0));
            } else if let Some((index, binding)) = bound.next() {
                let (address, guard) = binding.address(stream);
                guards.push(guard);
                addresses.push(address);
                if buffer.len > 0 && !address.is_multiple_of(ALIGNMENT) {
                    let found = format!("{} bytes beyond one", address % ALIGNMENT);
                    return Err(refuse(index, buffer, ("at a multiple of 16 bytes".to_owned(), found)));
                }
            }
        }
        for (launch, function) in plan.launches.iter().zip(&functions) {
            self.launch(launch, function, &addresses)?;
        }
        drop(guards);
        drop(scratch);
        Ok(())
    }

    /// The workspace, made larger if it is too small. Memory that is given back is used up by then: the stream frees it in order.
    fn scratch<'w>(
        &self,
        workspace: &'w mut Option<CudaSlice<u8>>,
        bytes: usize,
    ) -> Result<Option<&'w mut CudaSlice<u8>>> {
        if bytes == 0 {
            return Ok(None);
        }
        if workspace.as_ref().is_none_or(|slice| slice.len() < bytes) {
            *workspace = None;
            // SAFETY: any byte is a byte; plans write their scratch before they read it.
            let slice = unsafe { self.stream().alloc::<u8>(bytes) }.map_err(driver("cuMemAllocAsync"))?;
            *workspace = Some(slice);
        }
        Ok(workspace.as_mut())
    }

    fn function(&self, op: &'static str, launch: &Launch) -> Result<CudaFunction> {
        let target = self.0.target;
        if launch.shared_bytes > target.shared_bytes {
            let message = format!(
                "{} bytes of shared memory, a block has {}",
                launch.shared_bytes, target.shared_bytes
            );
            return Err(KernelError::shape(op, message));
        }
        if launch.cluster > 1 && target.capability < 90 {
            return Err(KernelError::shape(
                op,
                format!("{} needs clusters, this GPU has none", launch.kernel),
            ));
        }
        let mut functions = lock(&self.0.functions);
        if let Some(known) = functions.get(&launch.kernel)
            && launch.shared_bytes <= known.shared_bytes
        {
            return Ok(known.function.clone());
        }
        let function = self
            .0
            .modules
            .get(launch.file)?
            .load_function(&launch.kernel)
            .map_err(driver("cuModuleGetFunction"))?;
        let set =
            |attribute, value| function.set_attribute(attribute, value).map_err(driver("cuFuncSetAttribute"));
        if launch.shared_bytes > SHARED_WITHOUT_ASKING {
            let bytes = launch.shared_bytes.cast_signed();
            set(FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes)?;
        }
        if launch.cluster > PORTABLE_CLUSTER {
            set(FunctionAttribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
        }
        let shared_bytes = launch.shared_bytes.max(SHARED_WITHOUT_ASKING);
        functions.insert(launch.kernel.clone(), Function { function: function.clone(), shared_bytes });
        Ok(function)
    }

    fn launch(&self, launch: &Launch, function: &CudaFunction, addresses: &[u64]) -> Result<()> {
        use crate::plan::Arg;
        let mut builder = self.stream().launch_builder(function);
        for arg in &launch.args {
            match arg {
                Arg::Buffer(index) => match addresses.get(*index) {
                    Some(address) => builder.arg(address),
                    None => {
                        return Err(KernelError::shape(
                            "launch",
                            format!("{} asks for buffer {index}", launch.kernel),
                        ));
                    }
                },
                Arg::I32(value) => builder.arg(value),
                Arg::I64(value) => builder.arg(value),
                Arg::F32(value) => builder.arg(value),
            };
        }
        let [x, y, z] = launch.grid;
        let config = LaunchConfig {
            grid_dim: (x, y, z),
            block_dim: (launch.block, 1, 1),
            shared_mem_bytes: launch.shared_bytes,
        };
        // SAFETY: the buffers have the types and lengths that the plan asks for, and its tests on the emulator show that the kernels
        // take these arguments and stay within the buffers; the guards of the caller keep other streams away.
        unsafe { builder.launch(config) }.map_err(driver("cuLaunchKernel"))?;
        Ok(())
    }
}

impl Executor for Device {
    fn target(&self) -> Target {
        self.0.target
    }

    /// Copies to the device, runs, and copies back what was written. What is not an input holds NaN before.
    fn run(&self, plan: &Plan, data: &mut [&mut Data]) -> Result<()> {
        let given: Vec<_> = data.iter().map(|data| (data.dtype(), data.len())).collect();
        plan.check(&given)?;
        let stream = self.stream();
        let mut slices = Vec::with_capacity(data.len());
        for (buffer, data) in plan.bound().zip(&*data) {
            let bytes = data.as_bytes();
            // SAFETY: the bytes are written before they are read, here or by the copy.
            let mut slice =
                unsafe { stream.alloc::<u8>(bytes.len().max(1)) }.map_err(driver("cuMemAllocAsync"))?;
            if buffer.role == Role::Output {
                let (address, _guard) = slice.device_ptr_mut(stream);
                // SAFETY: the slice has so many bytes.
                unsafe { result::memset_d8_async(address, 0xff, bytes.len().max(1), stream.cu_stream()) }
                    .map_err(driver("cuMemsetD8Async"))?;
            } else if !bytes.is_empty() {
                stream.memcpy_htod(bytes, &mut slice).map_err(driver("cuMemcpyHtoDAsync"))?;
            }
            slices.push(slice);
        }
        let mut bindings: Vec<_> = slices
            .iter_mut()
            .zip(&given)
            .map(|(slice, &(dtype, len))| Binding::bytes(dtype, len, slice))
            .collect();
        self.enqueue(plan, &mut bindings, true)?;
        drop(bindings);
        for ((buffer, data), slice) in plan.bound().zip(data).zip(&slices) {
            let bytes = data.as_bytes_mut();
            if buffer.role != Role::Input && !bytes.is_empty() {
                stream
                    .memcpy_dtoh(&slice.slice(..bytes.len()), bytes)
                    .map_err(driver("cuMemcpyDtoHAsync"))?;
            }
        }
        self.synchronize()
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ordinal, target) = (self.stream().context().ordinal(), self.0.target);
        f.debug_struct("Device").field("ordinal", &ordinal).field("target", &target).finish_non_exhaustive()
    }
}

/// The release of the driver, where Linux tells it.
fn driver_release() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let release = |word: &&str| word.contains('.') && word.chars().all(|c| c.is_ascii_digit() || c == '.');
    text.lines().next()?.split_whitespace().find(release).map(str::to_owned)
}
