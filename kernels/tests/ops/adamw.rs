//! The projected AdamW step.

use super::projection::{basis, coefficients, norm, project, targets, tolerance};
use super::{epsilon, normal, run};
use fwd_kernels::{AdamWShape, AdamWStep, DType, Data, Executor, ProjectAt, Target, plan_adamw};

const PLACES: [ProjectAt; 3] = [ProjectAt::Both, ProjectAt::Update, ProjectAt::Gradient];
const N_STEPS: u32 = 2;

pub(super) fn check(executor: &dyn Executor) {
    for target in targets(executor) {
        for at in PLACES {
            for (rows, d, rank, keeps_rest) in [
                (1, 1, 1, true),
                (2, 7, 3, false),
                (3, 33, 0, true),
                (2, 10, 0, false),
                (19, 132, 37, true),
                (18, 34, 20, false),
            ] {
                check_steps(executor, &target, &AdamWShape { rows, d, rank, keeps_rest, at });
            }
            check_leakage(executor, &target, at);
        }
        let empty = AdamWShape { rows: 0, d: 4, rank: 1, keeps_rest: true, at: ProjectAt::Both };
        check_steps(executor, &target, &empty);
    }
}

/// The state of a parameter in f64, and its step.
struct Reference {
    p: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Reference {
    fn step(&mut self, shape: &AdamWShape, step: &AdamWStep, g: &[f64], basis: &[f64], c: &[f64]) {
        let pi = |x: &[f64]| project(x, basis, c, shape.d, shape.keeps_rest);
        let mut x: Vec<f64> = g.iter().map(|x| x * step.gradient_scale).collect();
        if shape.at != ProjectAt::Update {
            x = pi(&x);
        }
        let t = f64::from(step.step);
        for (((x, m), v), p) in x.iter_mut().zip(&mut self.m).zip(&mut self.v).zip(&self.p) {
            *m = step.beta1 * *m + (1.0 - step.beta1) * *x;
            *v = step.beta2 * *v + (1.0 - step.beta2) * *x * *x;
            let (first, second) = (*m / (1.0 - step.beta1.powf(t)), *v / (1.0 - step.beta2.powf(t)));
            *x = step.lr * (first / (second.sqrt() + step.eps) + step.weight_decay * p);
        }
        if shape.at != ProjectAt::Gradient {
            x = pi(&x);
        }
        self.p.iter_mut().zip(x).for_each(|(p, u)| *p -= u);
    }
}

fn check_steps(executor: &dyn Executor, target: &Target, shape: &AdamWShape) {
    let AdamWShape { rows, d, rank, .. } = *shape;
    let len = rows * d;
    let (mut p, mut m, mut v) =
        (normal(31, DType::F32, len), Data::zeros(DType::F32, len), Data::zeros(DType::F32, len));
    let mut basis = basis(32, rank, d, DType::F32);
    let mut c = Data::from_f64(DType::F32, (0..rank).map(|i| if i % 3 == 0 { -1.0 } else { 0.5 }));
    let mut reference = Reference { p: p.to_f64(), m: m.to_f64(), v: v.to_f64() };
    // With eps as large as 0.1 an error of the direction is at most ten times that of the gradient.
    let mut step = AdamWStep {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 0.1,
        weight_decay: 0.1,
        gradient_scale: 0.7,
        step: 0,
    };
    let mut largest = 0.0f64;
    for t in 1..=N_STEPS {
        step.step = t;
        let mut g = normal(40 + u64::from(t), DType::F32, len);
        let plan = plan_adamw(shape, &step, target).unwrap();
        run(executor, &plan, &mut [&mut p, &mut g, &mut m, &mut v, &mut basis, &mut c]);
        let g = g.to_f64();
        reference.step(shape, &step, &g, &basis.to_f64(), &c.to_f64());
        largest = g.chunks_exact(d).map(norm).fold(largest, f64::max);
    }
    // The error of a projected row, to which the rounding of its elements adds, once a step; as a share of the longest row.
    let (n, eps) = (f64::from(N_STEPS), epsilon(DType::F32));
    let x = 2.0 * (tolerance(d, rank) + 4.0 * eps) * largest;
    let longest = reference.p.chunks_exact(d).map(norm).fold(0.0, f64::max);
    let moved = n * step.lr * (10.0 * x + 2.0 * (tolerance(d, rank) + 8.0 * eps) * (d as f64).sqrt() * 10.0);
    for (name, found, expected, allowed) in [
        ("m", &m, &reference.m, x),
        ("v", &v, &reference.v, n * (1.0 - step.beta2) * 2.0 * largest * x),
        ("p", &p, &reference.p, moved + n * eps * longest),
    ] {
        for (i, (a, b)) in found.to_f64().chunks_exact(d).zip(expected.chunks_exact(d)).enumerate() {
            let error: Vec<f64> = a.iter().zip(b).map(|(a, b)| a - b).collect();
            assert!(
                norm(&error) <= allowed,
                "{shape:?}, {name}: row {i} is {a:?}, expected {b:?} ± {allowed}"
            );
        }
    }
}

/// After several steps the parameter has not moved in what is forbidden, if the update is projected; else it has.
fn check_leakage(executor: &dyn Executor, target: &Target, at: ProjectAt) {
    let (rows, d, rank) = (3, 100, 20);
    let shape = AdamWShape { rows, d, rank, keeps_rest: true, at };
    let [mut p, mut m, mut v] = [(); 3].map(|()| Data::zeros(DType::F32, rows * d));
    let (mut basis, mut c) = (basis(52, rank, d, DType::F32), Data::F32(vec![-1.0; rank]));
    for t in 1..=N_STEPS {
        let step = AdamWStep {
            lr: 0.01,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.0,
            gradient_scale: 1.0,
            step: t,
        };
        let mut g = normal(60 + u64::from(t), DType::F32, rows * d);
        let plan = plan_adamw(&shape, &step, target).unwrap();
        run(executor, &plan, &mut [&mut p, &mut g, &mut m, &mut v, &mut basis, &mut c]);
    }
    let share = norm(&coefficients(&p.to_f64(), &basis.to_f64(), d).concat()) / norm(&p.to_f64());
    match at {
        ProjectAt::Both | ProjectAt::Update => assert!(share <= 1e-5, "{at:?}: {share} of the change leaks"),
        ProjectAt::Gradient => assert!(share >= 1e-2, "the leak of {at:?} is not seen: {share}"),
    }
}
