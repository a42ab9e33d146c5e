//! The convolutions of image encoders against loops over the definition, in f64 and f32, for sizes that fill whole vectors
//! and sizes that do not.

#![allow(clippy::unwrap_used)] // A helper of a test may panic.

use candle_core::{DType, Device, Tensor, Var};
use fwd_ops::{InvertedResidual, InvertedResidualWeights, Linear, StemConv, backward, in_pool, linear_relu6};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::StandardNormal;

fn normal(seed: u64, shape: &[usize], std: f64) -> Tensor {
    let mut rng = StdRng::seed_from_u64(seed);
    let draw = |_| std * rng.sample::<f64, _>(StandardNormal);
    let values: Vec<f64> = (0..shape.iter().product()).map(draw).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn values(t: &Tensor) -> Vec<f64> {
    t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

fn assert_close(name: &str, got: &Tensor, want: &[f64], tolerance: f64) {
    let got = values(got);
    assert_eq!(got.len(), want.len(), "{name}");
    let scale = want.iter().fold(1f64, |m, v| m.max(v.abs()));
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance * scale, "{name}: element {i} is {a}, expected {b}");
    }
}

fn relu6(v: f64) -> f64 {
    v.clamp(0.0, 6.0)
}

/// The sum over the taps of one filter that lie inside the image; `at(y, x)` reads a pixel.
fn filtered(
    [h, w]: [usize; 2],
    [oy, ox]: [usize; 2],
    (kernel, stride): (usize, usize),
    filter: &[f64],
    at: impl Fn(usize, usize) -> f64,
) -> f64 {
    let pad = |n: usize| (((n.div_ceil(stride) - 1) * stride + kernel).saturating_sub(n) / 2) as isize;
    let mut sum = 0.0;
    for ky in 0..kernel {
        for kx in 0..kernel {
            let y = (oy * stride + ky) as isize - pad(h);
            let x = (ox * stride + kx) as isize - pad(w);
            if (0..h as isize).contains(&y) && (0..w as isize).contains(&x) {
                sum += filter[ky * kernel + kx] * at(y as usize, x as usize);
            }
        }
    }
    sum
}

/// `(rows, n_in)` -> `(rows, n_out)`.
fn linear(x: &[f64], weight: &Tensor, bias: Option<&Tensor>) -> Vec<f64> {
    let (n_out, n_in) = weight.dims2().unwrap();
    let (weight, bias) = (values(weight), bias.map_or(vec![0.0; n_out], values));
    let row = |row: &[f64]| -> Vec<f64> {
        let dot = |o: usize| row.iter().zip(&weight[o * n_in..]).map(|(a, b)| a * b).sum::<f64>();
        (0..n_out).map(|o| dot(o) + bias[o]).collect()
    };
    x.chunks_exact(n_in).flat_map(row).collect()
}

/// In f64, and in f32 with a tolerance for its rounding; on one thread and on three.
fn both(name: &str, x: &Tensor, want: &[f64], run: impl Fn(&Tensor, DType) -> Tensor + Sync) {
    for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 1e-5)] {
        let x = x.to_dtype(dtype).unwrap();
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let y = pool.install(|| run(&x, dtype));
            assert_close(&format!("{name}, {dtype:?}, {threads} threads"), &y, want, tolerance);
        }
    }
}

#[test]
fn inverted_residual_blocks() {
    for (i, (batch, [h, w], n_in, expansion, n_out, kernel, stride)) in [
        (2, [8, 8], 16, 6, 24, 3, 2),
        (2, [7, 9], 8, 6, 8, 5, 1), // residual
        (1, [5, 7], 32, 1, 16, 3, 1),
        (3, [6, 13], 5, 3, 7, 5, 2),
        (2, [1, 1], 3, 5, 3, 5, 1),
        (2, [3, 1], 20, 1, 20, 3, 1), // residual, no expansion, a plane and a quarter
        (5, [4, 4], 24, 2, 24, 5, 1),
        (1, [40, 33], 24, 6, 24, 3, 1), // several strips
        (1, [61, 64], 16, 6, 24, 5, 2), // several strips, odd height
        (70, [2, 2], 16, 2, 16, 3, 1),  // several images in one task
        (2, [4, 5], 6, 2, 4, 1, 1),
        (1, [9, 8], 4, 2, 4, 7, 3),
    ]
    .into_iter()
    .enumerate()
    {
        let channels = n_in * expansion;
        let x = normal(1, &[batch, h, w, n_in], 1.0);
        let expand = (normal(2, &[channels, n_in], 1.0), normal(3, &[channels], 1.0));
        let depthwise = (normal(4, &[channels, 1, kernel, kernel], 1.0), normal(5, &[channels], 1.0));
        let project = (normal(6, &[n_out, channels], 0.3), normal(7, &[n_out], 1.0));

        let hidden = match expansion {
            1 => values(&x),
            _ => linear(&values(&x), &expand.0, Some(&expand.1)).into_iter().map(relu6).collect(),
        };
        let (filters, bias) = (values(&depthwise.0), values(&depthwise.1));
        let mut middle = Vec::new();
        for image in hidden.chunks_exact(h * w * channels) {
            for oy in 0..h.div_ceil(stride) {
                for ox in 0..w.div_ceil(stride) {
                    for (c, filter) in filters.chunks_exact(kernel * kernel).enumerate() {
                        let at = |y: usize, x: usize| image[(y * w + x) * channels + c];
                        let sum = filtered([h, w], [oy, ox], (kernel, stride), filter, at);
                        middle.push(relu6(sum + bias[c]));
                    }
                }
            }
        }
        let mut want = linear(&middle, &project.0, Some(&project.1));
        if stride == 1 && n_in == n_out {
            want.iter_mut().zip(values(&x)).for_each(|(y, x)| *y += x);
        }
        both(&format!("block {i}"), &x, &want, |x, dtype| {
            let like = |t: &Tensor| t.to_dtype(dtype).unwrap();
            let frozen =
                |(weight, bias): &(Tensor, Tensor)| Linear::new(like(weight), Some(like(bias))).unwrap();
            let block = InvertedResidual::new(InvertedResidualWeights {
                expand: (expansion != 1).then(|| frozen(&expand)),
                depthwise_weight: like(&depthwise.0),
                depthwise_bias: like(&depthwise.1),
                stride,
                project: frozen(&project),
            })
            .unwrap();
            let y = block.forward(x).unwrap();
            assert_eq!(y.dims(), [batch, h.div_ceil(stride), w.div_ceil(stride), n_out]);
            y
        });
    }
}

#[test]
fn an_expansion_without_bias_is_activated_too() {
    let (x, weight) = (normal(1, &[1, 3, 3, 4], 2.0), normal(2, &[8, 4], 2.0));
    let identity = Tensor::ones((8, 1, 1, 1), DType::F64, &Device::Cpu).unwrap();
    let block = InvertedResidual::new(InvertedResidualWeights {
        expand: Some(Linear::new(weight.clone(), None).unwrap()),
        depthwise_weight: identity,
        depthwise_bias: Tensor::zeros(8, DType::F64, &Device::Cpu).unwrap(),
        stride: 1,
        project: Linear::new(Tensor::eye(8, DType::F64, &Device::Cpu).unwrap(), None).unwrap(),
    })
    .unwrap();
    let want: Vec<f64> = linear(&values(&x), &weight, None).into_iter().map(relu6).collect();
    assert_close("no bias", &block.forward(&x).unwrap(), &want, 1e-13);
}

#[test]
fn stems_and_pointwise_maps() {
    for (batch, channels, [h, w], n_out, kernel, stride) in [
        (2, 3, [8, 8], 32, 3, 2),
        (1, 3, [9, 13], 5, 3, 2),
        (3, 1, [1, 1], 4, 3, 2),
        (2, 2, [6, 5], 16, 5, 1),
        (1, 3, [100, 70], 8, 3, 2), // several strips
    ] {
        let x = normal(1, &[batch, channels, h, w], 1.0);
        let (weight, bias) = (normal(2, &[n_out, channels, kernel, kernel], 1.0), normal(3, &[n_out], 1.0));
        let (filters, offsets) = (values(&weight), values(&bias));
        let mut want = Vec::new();
        for image in values(&x).chunks_exact(channels * h * w) {
            for oy in 0..h.div_ceil(stride) {
                for ox in 0..w.div_ceil(stride) {
                    for (o, filters) in filters.chunks_exact(channels * kernel * kernel).enumerate() {
                        let planes = filters.chunks_exact(kernel * kernel).zip(image.chunks_exact(h * w));
                        let sum: f64 = planes
                            .map(|(f, x)| {
                                filtered([h, w], [oy, ox], (kernel, stride), f, |y, col| x[y * w + col])
                            })
                            .sum();
                        want.push(relu6(sum + offsets[o]));
                    }
                }
            }
        }
        both(&format!("stem {h}x{w}"), &x, &want, |x, dtype| {
            let bias = bias.to_dtype(dtype).unwrap();
            let y =
                StemConv::new(&weight.to_dtype(dtype).unwrap(), bias, stride).unwrap().forward(x).unwrap();
            assert_eq!(y.dims(), [batch, h.div_ceil(stride), w.div_ceil(stride), n_out]);
            y
        });
    }
    let (x, weight, bias) = (normal(1, &[3, 50, 7], 1.0), normal(2, &[9, 7], 2.0), normal(3, &[9], 1.0));
    let want: Vec<f64> = linear(&values(&x), &weight, Some(&bias)).into_iter().map(relu6).collect();
    both("pointwise", &x, &want, |x, dtype| {
        let like = |t: &Tensor| t.to_dtype(dtype).unwrap();
        linear_relu6(&Linear::new(like(&weight), Some(like(&bias))).unwrap(), x).unwrap()
    });
}

fn block(n_in: usize, stride: usize) -> fwd_ops::Result<InvertedResidual> {
    InvertedResidual::new(InvertedResidualWeights {
        expand: None,
        depthwise_weight: normal(1, &[n_in, 1, 3, 3], 1.0),
        depthwise_bias: normal(2, &[n_in], 1.0),
        stride,
        project: Linear::new(normal(3, &[4, n_in], 1.0), None)?,
    })
}

#[test]
fn nan_stays_nan_and_nothing_stays_nothing() {
    let mut pixels = values(&normal(1, &[1, 3, 5, 5], 1.0));
    pixels[40] = f64::NAN;
    let x = Tensor::from_vec(pixels, (1, 3, 5, 5), &Device::Cpu).unwrap();
    let stem = StemConv::new(&normal(2, &[6, 3, 3, 3], 1.0), normal(3, &[6], 1.0), 1).unwrap();
    let y = block(6, 1).unwrap().forward(&stem.forward(&x).unwrap()).unwrap();
    assert!(values(&y).iter().any(|v| v.is_nan()));
    let none = Tensor::zeros((0, 3, 5, 5), DType::F64, &Device::Cpu).unwrap();
    let y = in_pool(|| block(6, 2).unwrap().forward(&stem.forward(&none).unwrap())).unwrap();
    assert_eq!(y.dims(), [0, 3, 3, 4]);
}

#[test]
fn misfits_and_gradients_are_errors() {
    let error = block(6, 0).unwrap_err().to_string();
    assert!(error.starts_with("inverted_residual: ") && error.contains("stride 0"), "{error}");
    assert!(block(6, 4).unwrap_err().to_string().contains("stride 4"));
    let error = block(6, 1).unwrap().forward(&normal(1, &[1, 5, 5, 7], 1.0)).unwrap_err().to_string();
    assert_eq!(error, "inverted_residual: x must be (b, h, w, 6), got [1, 5, 5, 7]");
    let error = StemConv::new(&normal(1, &[4, 3, 3, 2], 1.0), normal(2, &[4], 1.0), 2).unwrap_err();
    assert!(error.to_string().starts_with("stem_conv: weight [4, 3, 3, 2]"), "{error}");
    let stem = StemConv::new(&normal(1, &[4, 3, 3, 3], 1.0), normal(2, &[4], 1.0), 2).unwrap();
    let error = stem.forward(&normal(1, &[1, 3, 0, 4], 1.0)).unwrap_err().to_string();
    assert_eq!(error, "stem_conv: x must be (b, 3, h, w), got [1, 3, 0, 4]");

    let x = Var::from_tensor(&normal(1, &[1, 5, 5, 6], 1.0)).unwrap();
    let loss = block(6, 1).unwrap().forward(&x).unwrap().sum_all().unwrap();
    let error = backward(&loss, &[("x", &x)]).unwrap_err().to_string();
    assert!(error.contains("inverted_residual"), "{error}");
}
