//! Prompt selection.

use super::{normal, run};
use fwd_kernels::{DType, Data, Executor, SelectionShape, plan_selection};

pub(super) fn check(executor: &dyn Executor) {
    for (batch, d_image, d_text, prompts, among, top_k) in [
        (1, 1, 1, 1, 0..1, 1),
        (3, 5, 4, 6, 0..6, 4),
        (2, 33, 128, 70, 3..67, 5),
        (2, 8, 7, 331, 0..331, 32),
        (1, 0, 12, 40, 0..40, 32),
        (2, 6, 0, 300, 290..300, 32),
        (0, 4, 4, 3, 0..3, 2),
        (2, 4, 4, 0, 0..0, 2),
    ] {
        check_shape(executor, &SelectionShape { batch, d_image, d_text, prompts, among, top_k });
    }
}

/// Each prompt of the second half has the keys of one of the first half, and the first key of each half has no length.
fn keys(seed: u64, n: usize, d: usize) -> Data {
    let mut keys = normal(seed, DType::F32, n * d).to_f64();
    let half = n / 2 * d;
    keys[..d.min(half)].fill(0.0);
    keys.copy_within(..half, half);
    Data::from_f64(DType::F32, keys)
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = (dot(a, a) * dot(b, b)).sqrt();
    if scale > 0.0 { dot(a, b) / scale } else { 0.0 }
}

fn check_shape(executor: &dyn Executor, shape: &SelectionShape) {
    let SelectionShape { batch, d_image, d_text, prompts, ref among, .. } = *shape;
    let mut queries = [normal(1, DType::F32, batch * d_image), normal(2, DType::F32, batch * d_text)];
    let mut pool = [keys(3, prompts, d_image), keys(4, prompts, d_text)];
    let k = shape.n_selected();
    let (mut indices, mut scores) = (Data::zeros(DType::U32, batch * k), Data::zeros(DType::F32, batch * k));
    let plan = plan_selection(shape, &executor.target()).unwrap();
    let ([image, text], [image_keys, text_keys]) = (&mut queries, &mut pool);
    run(executor, &plan, &mut [image, text, image_keys, text_keys, &mut indices, &mut scores]);
    let [image, text, image_keys, text_keys] =
        [&queries[0], &queries[1], &pool[0], &pool[1]].map(Data::to_f64);
    let (indices, scores) = (indices.to_f64(), scores.to_f64());
    let slot = |v: &'_ [f64], i: usize, d: usize| v[i * d..(i + 1) * d].to_vec();
    for sample in 0..batch {
        let (q_image, q_text) = (slot(&image, sample, d_image), slot(&text, sample, d_text));
        let score = |j: usize| {
            let image = cosine(&q_image, &slot(&image_keys, j, d_image));
            (image + cosine(&q_text, &slot(&text_keys, j, d_text))) as f32
        };
        let mut expected: Vec<(usize, f32)> = among.clone().map(|j| (j, score(j))).collect();
        expected.sort_by(|a, b| b.1.total_cmp(&a.1));
        for (rank, &(index, score)) in expected.iter().take(k).enumerate() {
            let (found, value) = (indices[sample * k + rank] as usize, scores[sample * k + rank]);
            // Copies of a key are equal to the last bit; the order of a f64 sum moves its rounding to f32 by a unit at most.
            assert_eq!(found, index, "{shape:?}: rank {rank} of sample {sample}");
            let (score, bound) = (f64::from(score), 2f64.powi(-23) * f64::from(score.abs()) + 1e-13);
            assert!((value - score).abs() <= bound, "{shape:?}: {value}, expected {score} ± {bound}");
        }
    }
}
