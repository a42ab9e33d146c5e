//! Runs the cases of [`crate::gpu`], and the decompositions of cuSOLVER, on a device.

use crate::gpu::{Case, EIGEN, SVD, cases};
use anyhow::{Context, Result};
use fwd_kernels::cudarc::driver::{CudaSlice, CudaStream};
use fwd_kernels::{
    Accuracy, Binding, DType, Data, Device, EigenShape, Executor, Layout, Plan, Role, Solver, SvdShape,
    plan_eigen, plan_svd,
};
use half::{bf16, f16};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// A buffer of the device.
enum Memory {
    F32(CudaSlice<f32>),
    F16(CudaSlice<f16>),
    Bf16(CudaSlice<bf16>),
    F64(CudaSlice<f64>),
    I64(CudaSlice<i64>),
    U32(CudaSlice<u32>),
}

impl Memory {
    fn upload(stream: &Arc<CudaStream>, data: &Data) -> Result<Self> {
        Ok(match data {
            Data::F32(v) => Self::F32(stream.clone_htod(v)?),
            Data::F16(v) => Self::F16(stream.clone_htod(v)?),
            Data::Bf16(v) => Self::Bf16(stream.clone_htod(v)?),
            Data::F64(v) => Self::F64(stream.clone_htod(v)?),
            Data::I64(v) => Self::I64(stream.clone_htod(v)?),
            Data::U32(v) => Self::U32(stream.clone_htod(v)?),
        })
    }

    fn bind(&mut self, role: Role) -> Binding<'_> {
        macro_rules! bind {
            ($slice:expr) => {
                if role == Role::Input { Binding::read($slice) } else { Binding::write($slice) }
            };
        }
        match self {
            Self::F32(slice) => bind!(slice),
            Self::F16(slice) => bind!(slice),
            Self::Bf16(slice) => bind!(slice),
            Self::F64(slice) => bind!(slice),
            Self::I64(slice) => bind!(slice),
            Self::U32(slice) => bind!(slice),
        }
    }
}

/// Random numbers for a buffer: 0 … 99 for integers, which are labels and counts.
fn random(dtype: DType, len: usize, rng: &mut StdRng) -> Data {
    match dtype {
        DType::I64 => Data::I64((0..len).map(|_| rng.random_range(0..100)).collect()),
        DType::U32 => Data::U32((0..len).map(|_| rng.random_range(0..100)).collect()),
        // Sums of uniform numbers will do: what the values are does not change the time.
        _ => Data::from_f64(dtype, (0..len).map(|_| rng.random_range(-1.0..1.0))),
    }
}

/// Buffers for a plan, as often as it takes to exceed twice the cache.
fn copies(device: &Device, plan: &Plan, l2_bytes: usize) -> Result<Vec<Vec<Memory>>> {
    let bytes: usize = plan.bound().map(|b| b.len * b.dtype.size()).sum();
    let n = (2 * l2_bytes / bytes.max(1) + 1).min(16);
    let mut rng = StdRng::seed_from_u64(0);
    let data: Vec<Data> = plan.bound().map(|b| random(b.dtype, b.len, &mut rng)).collect();
    let upload = |_| data.iter().map(|data| Memory::upload(device.stream(), data)).collect();
    (0..n).map(upload).collect()
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e3
}

/// A case with its buffers on the device.
pub struct Prepared<'a> {
    device: &'a Device,
    case: &'a Case,
    roles: Vec<Role>,
    copies: Vec<Vec<Memory>>,
    next: usize,
}

impl<'a> Prepared<'a> {
    /// Fills the buffers, with as many copies as it takes to miss the cache where memory is the bound.
    ///
    /// # Errors
    /// What the device says.
    pub fn new(device: &'a Device, case: &'a Case) -> Result<Self> {
        // Where arithmetic is the bound, the cache is part of it.
        let l2_bytes = if case.bytes > 0 { device.info()?.l2_bytes } else { 0 };
        let roles = case.plan.bound().map(|b| b.role).collect();
        Ok(Self { device, case, roles, copies: copies(device, &case.plan, l2_bytes)?, next: 0 })
    }

    /// Runs it once; the time is the GPU's.
    ///
    /// # Errors
    /// What the device says.
    pub fn run(&mut self) -> Result<Duration> {
        let copy = self.next % self.copies.len();
        self.next += 1;
        let mut buffers: Vec<Binding<'_>> =
            self.copies[copy].iter_mut().zip(&self.roles).map(|(memory, role)| memory.bind(*role)).collect();
        let (_, time) = self.device.time(|| self.device.run_on(&self.case.plan, &mut buffers))?;
        Ok(time)
    }
}

fn time_case(device: &Device, case: &Case, iters: usize) -> Result<f64> {
    let mut prepared = Prepared::new(device, case)?;
    for _ in 0..3 {
        prepared.run()?;
    }
    Ok(median((0..iters.max(1)).map(|_| prepared.run()).collect::<Result<_>>()?))
}

fn time_solver(device: &Device, report: &mut Map<String, Value>, only: &dyn Fn(&str) -> bool) -> Result<()> {
    const ITERS: usize = 5;
    let mut solver = Solver::new(device)?;
    let mut rng = StdRng::seed_from_u64(1);
    for (batch, d) in EIGEN {
        let name = format!("eigen {batch}x{d}");
        if !only(&name) {
            continue;
        }
        let Data::F32(mut a) = random(DType::F32, batch * d * d, &mut rng) else { continue };
        for matrix in a.chunks_exact_mut(d * d) {
            for i in 0..d {
                for j in 0..i {
                    matrix[j * d + i] = matrix[i * d + j];
                }
            }
        }
        let plan = plan_eigen(&EigenShape { batch, n: d, dtype: DType::F32 })?;
        let mut times = Vec::new();
        for _ in 0..ITERS + 1 {
            let mut a = device.stream().clone_htod(&a)?;
            times.push(device.time(|| solver.eigen(&plan, &mut a))?.1);
        }
        report.insert(name, json!(median(times.split_off(1))));
    }
    for (batch, m, n) in SVD {
        let name = format!("svd {batch}x{m}x{n}");
        if !only(&name) {
            continue;
        }
        let Data::F32(a) = random(DType::F32, batch * m * n, &mut rng) else { continue };
        let (k, dtype, order, accuracy) = (m.min(n), DType::F32, Layout::Rows, Accuracy::Squared);
        let plan = plan_svd(&SvdShape { batch, m, n, k, dtype, order, accuracy })?;
        let mut times = Vec::new();
        for _ in 0..ITERS + 1 {
            let mut a = device.stream().clone_htod(&a)?;
            times.push(device.time(|| solver.svd(&plan, &mut a))?.1);
        }
        report.insert(name, json!(median(times.split_off(1))));
    }
    Ok(())
}

/// Median milliseconds of every case whose name contains `only`, with what the device is and the work of each case.
///
/// # Errors
/// What a plan or the device says.
pub fn report(device: &Device, iters: usize, only: Option<&str>) -> Result<Value> {
    let info = device.info()?;
    let wanted = |name: &str| only.is_none_or(|part| name.contains(part));
    let (mut ms, mut work) = (Map::new(), Map::new());
    for case in cases(&device.target())?.iter().filter(|case| wanted(&case.name)) {
        eprintln!("{}", case.name);
        let time = time_case(device, case, iters).with_context(|| case.name.clone())?;
        ms.insert(case.name.clone(), json!(time));
        work.insert(case.name.clone(), json!({ "bytes": case.bytes, "flop": case.flop }));
    }
    time_solver(device, &mut ms, &wanted)?;
    Ok(json!({ "device": info.to_string(), "ms": ms, "work": work }))
}
