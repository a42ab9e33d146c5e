//! Cross entropy.

use super::{close, epsilon, normal, run};
use fwd_kernels::{
    CrossEntropyShape, DType, Data, Executor, plan_cross_entropy_backward, plan_cross_entropy_forward,
};

pub(super) fn check(executor: &dyn Executor) {
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        for (rows, n_classes) in
            [(1, 1), (3, 2), (40, 5), (7, 37), (5, 64), (4, 1000), (3, 4099), (2, 32_128)]
        {
            check_shape(executor, &CrossEntropyShape { rows, n_classes, dtype }, 1.0);
        }
        check_shape(executor, &CrossEntropyShape { rows: 6, n_classes: 301, dtype }, 1000.0);
        check_shape(executor, &CrossEntropyShape { rows: 1100, n_classes: 3, dtype }, 1.0);
    }
    without_labels(executor);
    outside(executor);
    hidden_classes(executor);
}

struct Results {
    nll: Data,
    loss: f64,
    counts: Vec<f64>,
    d_logits: Data,
}

const D_LOSS: f32 = 1.5;

fn results(
    executor: &dyn Executor,
    shape: &CrossEntropyShape,
    logits: &mut Data,
    labels: &mut Data,
) -> Results {
    let rows = shape.rows;
    let mut nll = Data::zeros(DType::F32, rows);
    let mut statistics = Data::zeros(DType::F32, 2 * rows);
    let (mut loss, mut counts) = (Data::zeros(DType::F32, 1), Data::zeros(DType::I64, 2));
    let mut d_logits = Data::zeros(shape.dtype, rows * shape.n_classes);
    let mut d_loss = Data::F32(vec![D_LOSS]);
    let plan = plan_cross_entropy_forward(shape).unwrap();
    run(executor, &plan, &mut [logits, labels, &mut nll, &mut statistics, &mut loss, &mut counts]);
    let plan = plan_cross_entropy_backward(shape).unwrap();
    run(executor, &plan, &mut [logits, labels, &mut statistics, &mut counts, &mut d_loss, &mut d_logits]);
    Results { nll, loss: loss.to_f64()[0], counts: counts.to_f64(), d_logits }
}

fn check_shape(executor: &dyn Executor, shape: &CrossEntropyShape, magnitude: f64) {
    let CrossEntropyShape { rows, n_classes, dtype } = *shape;
    let random = normal(5, dtype, rows * n_classes).to_f64();
    let mut logits = Data::from_f64(dtype, random.iter().map(|z| z * magnitude));
    // Every third label does not count; the others include the first and the last class.
    let label = |i: usize| match i % 3 {
        1 => -100,
        0 => (n_classes - 1 - i / 3 % n_classes) as i64,
        _ => (i / 3 % n_classes) as i64,
    };
    let labels: Vec<i64> = (0..rows).map(label).collect();
    let found = results(executor, shape, &mut logits, &mut Data::I64(labels.clone()));
    let count = labels.iter().filter(|&&label| label != -100).count();
    let (mut nll, mut d_logits) = (Vec::new(), Vec::new());
    for (z, &label) in logits.to_f64().chunks_exact(n_classes).zip(&labels) {
        if label == -100 {
            nll.push(0.0);
            d_logits.extend(z.iter().map(|_| 0.0));
            continue;
        }
        let highest = z.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        let sum: f64 = z.iter().map(|z| (z - highest).exp()).sum();
        nll.push(sum.ln() + highest - z[label as usize]);
        let weight = f64::from(D_LOSS) / count as f64;
        d_logits.extend(z.iter().enumerate().map(|(j, z)| {
            weight * ((z - highest).exp() / sum - if j == label as usize { 1.0 } else { 0.0 })
        }));
    }
    let what = format!("{shape:?}, magnitude {magnitude}");
    let f32_eps = 2f64.powi(-24);
    // Logits up to 5 deviations are added and taken away again; a sum of n exponentials is rounded about √n times.
    let sums = f32_eps * (20.0 * magnitude + 4.0 * (n_classes as f64).sqrt());
    close(&format!("{what}, nll"), &found.nll, &nll, 2.0 * f32_eps, sums);
    let mean = nll.iter().sum::<f64>() / count as f64;
    close(&format!("{what}, loss"), &Data::F32(vec![found.loss as f32]), &[mean], 3.0 * f32_eps, sums);
    assert_eq!(found.counts, [count as f64, -1.0], "{what}");
    // A difference of two logits is rounded by its own size, which the exponential takes over; f16 has a least number.
    let least = if dtype == DType::F16 { 2f64.powi(-24) } else { 2f64.powi(-126) };
    let relative = epsilon(dtype) + f32_eps * (10.0 * magnitude + 4.0 * (n_classes as f64).sqrt());
    let weight = f64::from(D_LOSS) / count as f64;
    close(&format!("{what}, d_logits"), &found.d_logits, &d_logits, relative, weight * sums + least);
}

fn without_labels(executor: &dyn Executor) {
    for rows in [0, 3] {
        let shape = CrossEntropyShape { rows, n_classes: 9, dtype: DType::F32 };
        let mut logits = normal(6, DType::F32, rows * 9);
        let found = results(executor, &shape, &mut logits, &mut Data::I64(vec![-100; rows]));
        assert!(found.loss.is_nan(), "the mean over nothing is {}", found.loss);
        assert_eq!(found.counts, [0.0, -1.0]);
        assert_eq!(found.nll.to_f64(), vec![0.0; rows]);
        assert_eq!(found.d_logits.to_f64(), vec![0.0; 9 * rows]);
    }
}

fn outside(executor: &dyn Executor) {
    let shape = CrossEntropyShape { rows: 70, n_classes: 10, dtype: DType::F16 };
    let mut logits = normal(7, DType::F16, 700);
    let mut labels = vec![3; 70];
    labels[69] = -1;
    labels[40] = 10;
    labels[2] = -100;
    let found = results(executor, &shape, &mut logits, &mut Data::I64(labels));
    assert_eq!(found.counts, [69.0, 40.0]);
    assert!(found.loss.is_nan());
    let wrong: Vec<usize> = (0..70).filter(|&i| found.nll.to_f64()[i].is_nan()).collect();
    assert_eq!(wrong, [40, 69]);
    let d_logits = found.d_logits.to_f64();
    assert!(
        d_logits[400..410].iter().all(|d| d.is_nan()) && d_logits[410..690].iter().all(|d| d.is_finite())
    );
}

/// Classes with a logit of −∞ have no probability, also where they are all that a thread reads; a NaN is not lost beside them.
fn hidden_classes(executor: &dyn Executor) {
    let shape = CrossEntropyShape { rows: 2, n_classes: 512, dtype: DType::F32 };
    let mut logits = vec![f32::NEG_INFINITY; 1024];
    logits[100] = 2.0;
    logits[300] = 2.0;
    logits[512 + 5] = 1.0;
    logits[512 + 400] = f32::NAN;
    let found = results(executor, &shape, &mut Data::F32(logits), &mut Data::I64(vec![300, 5]));
    let nll = found.nll.to_f64();
    assert!((nll[0] - 2f64.ln()).abs() < 4.0 * 2f64.powi(-24) && nll[1].is_nan(), "{nll:?}");
    let d_logits = found.d_logits.to_f64();
    let half = f64::from(D_LOSS) / 4.0;
    assert_eq!((d_logits[0], d_logits[100], d_logits[300]), (0.0, half, -half));
    assert!(d_logits[512..].iter().all(|d| d.is_nan()));
}
