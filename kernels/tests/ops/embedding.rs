//! Look-up of table rows and its gradient.

use super::{close, normal, run};
use fwd_kernels::{DType, Data, EmbeddingShape, Executor, plan_embedding_backward, plan_embedding_forward};

pub(super) fn check(executor: &dyn Executor) {
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        for id_dtype in [DType::U32, DType::I64] {
            for (n_rows, d, n_ids) in
                [(1, 1, 1), (5, 12, 0), (7, 16, 300), (4, 264, 9), (3, 301, 40), (2, 2056, 3)]
            {
                check_shape(executor, &EmbeddingShape { n_rows, d, n_ids, id_dtype, dtype });
            }
        }
    }
    outside(executor);
}

fn check_shape(executor: &dyn Executor, shape: &EmbeddingShape) {
    let EmbeddingShape { n_rows, d, n_ids, id_dtype, dtype } = *shape;
    let mut table = normal(1, dtype, n_rows * d);
    let rows: Vec<usize> = (0..n_ids).map(|i| i * i % n_rows).collect();
    let mut ids = Data::from_f64(id_dtype, rows.iter().map(|&row| row as f64));
    let mut y = Data::zeros(dtype, n_ids * d);
    let mut first_outside = Data::zeros(DType::I64, 1);
    let plan = plan_embedding_forward(shape).unwrap();
    run(executor, &plan, &mut [&mut table, &mut ids, &mut y, &mut first_outside]);
    let values = table.to_f64();
    let expected: Vec<f64> = rows.iter().flat_map(|&row| &values[row * d..][..d]).copied().collect();
    assert_eq!(y.to_f64(), expected, "{shape:?}");
    assert_eq!(first_outside.to_f64(), [-1.0], "{shape:?}");

    let mut dy = normal(2, dtype, n_ids * d);
    let mut d_table = Data::zeros(DType::F32, n_rows * d);
    run(executor, &plan_embedding_backward(shape).unwrap(), &mut [&mut ids, &mut dy, &mut d_table]);
    let mut sums = vec![0.0; n_rows * d];
    for (&row, dy) in rows.iter().zip(dy.to_f64().chunks_exact(d)) {
        sums[row * d..][..d].iter_mut().zip(dy).for_each(|(sum, dy)| *sum += dy);
    }
    // At most n numbers below 6, one after the other: the partial sums are of size √n.
    let rounding = 2f64.powi(-24) * 6.0 * (1.0 + n_ids as f64);
    close(&format!("{shape:?}, d_table"), &d_table, &sums, 0.0, rounding);
}

fn outside(executor: &dyn Executor) {
    let shape = EmbeddingShape { n_rows: 3, d: 4, n_ids: 70, id_dtype: DType::I64, dtype: DType::F32 };
    let mut ids = vec![1; 70];
    ids[66] = -1;
    ids[41] = 3;
    let (mut table, mut ids) = (normal(3, DType::F32, 12), Data::I64(ids));
    let (mut y, mut first_outside) = (Data::zeros(DType::F32, 280), Data::zeros(DType::I64, 1));
    let plan = plan_embedding_forward(&shape).unwrap();
    run(executor, &plan, &mut [&mut table, &mut ids, &mut y, &mut first_outside]);
    assert_eq!(first_outside.to_f64(), [41.0]);
    let y = y.to_f64();
    let wrong: Vec<usize> = (0..280).filter(|&i| y[i].is_nan()).collect();
    assert_eq!(wrong, [164, 165, 166, 167, 264, 265, 266, 267]);
    let (mut dy, mut d_table) = (Data::from_f64(DType::F32, vec![1.0; 280]), Data::zeros(DType::F32, 12));
    run(executor, &plan_embedding_backward(&shape).unwrap(), &mut [&mut ids, &mut dy, &mut d_table]);
    assert_eq!(d_table.to_f64(), [0.0, 0.0, 0.0, 0.0, 68.0, 68.0, 68.0, 68.0, 0.0, 0.0, 0.0, 0.0]);
}
