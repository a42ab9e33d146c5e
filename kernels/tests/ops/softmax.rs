//! Softmax with bias and masks.

use super::{close, epsilon, normal, run};
use fwd_kernels::{
    DType, Data, Executor, Order, Place, SoftmaxShape, plan_softmax_backward, plan_softmax_forward,
};

pub(super) fn check(executor: &dyn Executor) {
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        for (rows, d) in
            [(0, 8), (1, 1), (5, 3), (130, 4), (3, 31), (7, 64), (2, 257), (3, 1024), (2, 1027), (1, 2056)]
        {
            check_shape(executor, &SoftmaxShape::rows(rows, d, dtype), 1.0);
        }
        let shape = SoftmaxShape {
            batch: 2,
            n_heads: 3,
            t_q: 5,
            t_k: 16,
            scale: 0.25,
            ..SoftmaxShape::rows(0, 0, dtype)
        };
        for order in [Order::All, Order::Causal] {
            for (position, keys, place) in
                [(true, false, Place::Separate), (false, true, Place::InPlace), (true, true, Place::InPlace)]
            {
                for (t_q, t_k) in [(5, 16), (7, 13), (9, 3), (1, 40)] {
                    let shape = SoftmaxShape { t_q, t_k, position, keys, place, order, ..shape };
                    check_shape(executor, &shape, 1.0);
                }
            }
        }
        let wide =
            SoftmaxShape { t_q: 2, t_k: 1200, position: true, keys: true, order: Order::Causal, ..shape };
        check_shape(executor, &wide, 1.0);
        check_shape(executor, &SoftmaxShape { t_k: 1033, ..wide }, 300.0);
    }
    nan_stays_in_its_row(executor);
}

/// Probabilities in f64, from the numbers that the kernel reads.
fn reference(shape: &SoftmaxShape, scores: &[f64], position: &[f64], keys: &[f64]) -> Vec<f64> {
    let SoftmaxShape { n_heads, t_q, t_k, .. } = *shape;
    let mut probs = Vec::with_capacity(scores.len());
    for (row, scores) in scores.chunks_exact(t_k).enumerate() {
        let (entry, in_entry) = (row / (n_heads * t_q), row % (n_heads * t_q));
        let query = in_entry % t_q;
        let term = |j: usize| {
            if shape.order == Order::Causal && j + t_q > query + t_k {
                return f64::NEG_INFINITY;
            }
            let mut term = scores[j] * f64::from(shape.scale);
            if shape.position {
                term += position[in_entry * t_k + j];
            }
            if shape.keys {
                term += keys[entry * t_k + j];
            }
            term
        };
        let terms: Vec<f64> = (0..t_k).map(term).collect();
        let highest = terms.iter().fold(f64::NEG_INFINITY, |a, &b| a.max(b));
        if highest == f64::NEG_INFINITY {
            probs.extend(terms.iter().map(|_| 0.0));
            continue;
        }
        let sum: f64 = terms.iter().map(|t| (t - highest).exp()).sum();
        probs.extend(terms.iter().map(|t| (t - highest).exp() / sum));
    }
    probs
}

/// The gradients to scores and position bias, from the rounded probabilities, as the kernel reads them.
fn gradients(shape: &SoftmaxShape, probs: &[f64], d_probs: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let (scale, per_entry) = (f64::from(shape.scale), shape.n_heads * shape.t_q * shape.t_k);
    let mut d_scores = Vec::with_capacity(probs.len());
    let mut d_position = vec![0.0; per_entry];
    for (p, dp) in probs.chunks_exact(shape.t_k).zip(d_probs.chunks_exact(shape.t_k)) {
        let mean: f64 = p.iter().zip(dp).map(|(p, dp)| p * dp).sum();
        for (p, dp) in p.iter().zip(dp) {
            let ds = p * (dp - mean);
            d_position[d_scores.len() % per_entry] += ds;
            d_scores.push(scale * ds);
        }
    }
    (d_scores, d_position)
}

fn check_shape(executor: &dyn Executor, shape: &SoftmaxShape, magnitude: f64) {
    let SoftmaxShape { batch, n_heads, t_q, t_k, dtype, .. } = *shape;
    let (per_entry, len) = (n_heads * t_q * t_k, batch * n_heads * t_q * t_k);
    let scaled = |data: Data| Data::from_f64(dtype, data.to_f64().iter().map(|x| x * magnitude));
    let mut scores = scaled(normal(1, dtype, len));
    let mut d_probs = normal(2, dtype, len);
    let mut position = normal(3, DType::F32, per_entry);
    // Every fourth key is padding, and the whole of the last entry.
    let hidden = |i: usize| i % 4 == 1 || i / t_k.max(1) + 1 == batch;
    let mut keys =
        Data::F32((0..batch * t_k).map(|i| if hidden(i) { f32::NEG_INFINITY } else { 0.0 }).collect());
    let what = format!("{shape:?}, magnitude {magnitude}");
    let expected = reference(shape, &scores.to_f64(), &position.to_f64(), &keys.to_f64());

    let mut probs = Data::zeros(dtype, len);
    let mut data = vec![&mut scores];
    if shape.position {
        data.push(&mut position);
    }
    if shape.keys {
        data.push(&mut keys);
    }
    if shape.place == Place::Separate {
        data.push(&mut probs);
    }
    run(executor, &plan_softmax_forward(shape).unwrap(), &mut data);
    if shape.place == Place::InPlace {
        probs = scores;
    }
    // A term of size m is rounded by m·eps, and so its exponential relatively; m is at most 5 deviations and the bias. Then the sum.
    let f32_eps = 2f64.powi(-24);
    let relative = epsilon(dtype) + f32_eps * (20.0 + 10.0 * magnitude + (t_k as f64).sqrt());
    // The least positive number of a type bounds what underflows.
    let least = if dtype == DType::F16 { 2f64.powi(-24) } else { 2f64.powi(-126) };
    close(&format!("{what}, probs"), &probs, &expected, relative, least);

    let expected = gradients(shape, &probs.to_f64(), &d_probs.to_f64());
    let mut d_scores = Data::zeros(dtype, len);
    let mut d_position = Data::zeros(DType::F32, per_entry);
    let plan = plan_softmax_backward(shape, shape.position, &executor.target()).unwrap();
    let mut data = vec![&mut probs, &mut d_probs];
    if shape.place == Place::Separate {
        data.push(&mut d_scores);
    }
    if shape.position {
        data.push(&mut d_position);
    }
    run(executor, &plan, &mut data);
    if shape.place == Place::InPlace {
        d_scores = d_probs;
    }
    // Σ p·dp with Σ p = 1 and |dp| < 6 is rounded by 6·eps a few times; p is at most 1.
    let sums = 40.0 * f32_eps + least;
    close(&format!("{what}, d_scores"), &d_scores, &expected.0, epsilon(dtype) + 4.0 * f32_eps, sums);
    if shape.position {
        // The summands are rounded to the type; they are below 6.
        let rounding = batch as f64 * (6.0 * epsilon(dtype) + sums / f64::from(shape.scale));
        close(&format!("{what}, d_position"), &d_position, &expected.1, 0.0, rounding);
    }
}

/// A NaN makes its row NaN, also beside keys that are all hidden, and no other row; below the causal diagonal it is not read.
fn nan_stays_in_its_row(executor: &dyn Executor) {
    let shape = SoftmaxShape { order: Order::Causal, ..SoftmaxShape::rows(4, 4, DType::F32) };
    let (nan, low) = (f32::NAN, f32::NEG_INFINITY);
    let mut scores =
        Data::F32(vec![1.0, nan, nan, nan, 1.0, nan, nan, nan, low, low, low, nan, low, low, low, nan]);
    let mut probs = Data::zeros(DType::F32, 16);
    run(executor, &plan_softmax_forward(&shape).unwrap(), &mut [&mut scores, &mut probs]);
    let probs = probs.to_f64();
    assert_eq!(probs[..4], [1.0, 0.0, 0.0, 0.0]);
    assert!(probs[4].is_nan() && probs[5].is_nan(), "{probs:?}");
    assert_eq!(probs[8..12], [0.0; 4]);
    assert!(probs[12..].iter().all(|p| p.is_nan()), "{probs:?}");
}
