//! The streaming Gram matrix.

use super::{normal, run};
use fwd_kernels::{DType, Data, Executor, GramShape, plan_gram, plan_gram_mirror};

pub(super) fn check(executor: &dyn Executor) {
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        // Several stages, several tiles, several ranges of rows; whole packs and single elements.
        for (rows, d) in
            [(1, 1), (37, 7), (261, 24), (100, 136), (3, 261), (1100, 5), (1030, 8), (0, 5), (4, 0)]
        {
            check_shape(executor, &GramShape { rows, d, dtype }, 1.0);
        }
        // Squares as large and as small as 16-bit rows and f32 sums hold.
        check_shape(executor, &GramShape { rows: 20, d: 8, dtype }, 8192.0);
        check_shape(executor, &GramShape { rows: 20, d: 8, dtype }, 1.0 / 256.0);
    }
    for d in [0, 1, 5, 32, 77] {
        check_mirror(executor, d);
    }
}

fn scaled(data: &Data, scale: f64) -> Data {
    Data::from_f64(data.dtype(), data.to_f64().into_iter().map(|x| x * scale))
}

fn check_shape(executor: &dyn Executor, shape: &GramShape, scale: f64) {
    let GramShape { rows, d, dtype } = *shape;
    let mut z = scaled(&normal(1, dtype, rows * d), scale);
    let before = scaled(&normal(2, DType::F64, d * d), scale * scale);
    let mut c = before.clone();
    let plan = plan_gram(shape, &executor.target()).unwrap();
    // Twice: the second call adds to what the first one left.
    run(executor, &plan, &mut [&mut z, &mut c]);
    run(executor, &plan, &mut [&mut z, &mut c]);
    let (z, before, found) = (z.to_f64(), before.to_f64(), c.to_f64());
    // Each of rows/16 products may truncate the f32 sum by a unit in the last place; the sum of 16 products of one, the
    // second term of an f32 row (3·2⁻²² of each product) and the rounding of the f32 sum are in the 32.
    let roundoff = 2f64.powi(-23) * (rows as f64 / 16.0 + 32.0);
    for i in 0..d {
        for j in 0..d {
            let at = i * d + j;
            if j > i {
                assert_eq!(found[at], before[at], "{shape:?}: ({i}, {j}) lies above the diagonal");
                continue;
            }
            let products = || (0..rows).map(|n| z[n * d + i] * z[n * d + j]);
            let expected = before[at] + 2.0 * products().sum::<f64>();
            let bound =
                2.0 * roundoff * products().map(f64::abs).sum::<f64>() + 4.0 * f64::EPSILON * expected.abs();
            let error = (found[at] - expected).abs();
            assert!(error <= bound, "{shape:?}: ({i}, {j}) is {}, expected {expected} ± {bound}", found[at]);
        }
    }
}

fn check_mirror(executor: &dyn Executor, d: usize) {
    let before = normal(3, DType::F64, d * d);
    let mut c = before.clone();
    run(executor, &plan_gram_mirror(d).unwrap(), &mut [&mut c]);
    let (before, found) = (before.to_f64(), c.to_f64());
    for i in 0..d {
        for j in 0..d {
            assert_eq!(found[i * d + j], before[i.max(j) * d + i.min(j)], "mirror of {d}: ({i}, {j})");
        }
    }
}
