//! Convolutions of frozen image encoders, inference only: a dense `k×k` convolution that reads `NCHW` pixels, and inverted
//! residual blocks over token-major (`NHWC`) activations.
//!
//! A block's depthwise filters run over planes of [`LANES`] channels, `(rows, columns, LANES)` with a border of zeros, so
//! that the innermost loop is a vector and no tap asks where the image ends. A plane is filled from the expanded
//! activations, which is also where their bias and ReLU6 happen. Blocks of rows keep the expanded activations in cache.

use super::elem::Elem;
use super::gemm::Threads;
use super::linear::LinearRef;
use super::parallel::{simd, without_short_tasks};
use super::scratch::Scratch;
use faer::Accum;
use rayon::prelude::*;
use std::ops::Range;

/// Channels of one plane: two vectors of AVX2, four of NEON.
pub(crate) const LANES: usize = 16;

/// Elements of a task's widest activation: 256 KiB in f32, half a core's second-level cache.
const TASK_ELEMENTS: usize = 1 << 16;

/// The sizes of a square convolution with TensorFlow's `SAME` padding: `ceil(n / stride)` outputs along each axis, and an odd
/// surplus of zeros goes below and to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub(crate) kernel: usize,
    /// At most `kernel`, so that every pixel is read.
    pub(crate) stride: usize,
    pub(crate) in_hw: [usize; 2],
    pub(crate) out_hw: [usize; 2],
    pad_top_left: [usize; 2],
}

impl Geometry {
    pub(crate) fn same(kernel: usize, stride: usize, in_hw: [usize; 2]) -> Self {
        let out_hw = in_hw.map(|n| n.div_ceil(stride));
        let pad = |axis: usize| {
            let read = out_hw[axis].saturating_sub(1) * stride + kernel;
            read.saturating_sub(in_hw[axis]) / 2
        };
        Self { kernel, stride, in_hw, out_hw, pad_top_left: [pad(0), pad(1)] }
    }

    fn in_len(&self) -> usize {
        self.in_hw[0] * self.in_hw[1]
    }

    /// Padded rows or columns that `n_out` outputs read.
    fn extent(&self, n_out: usize) -> usize {
        (n_out - 1) * self.stride + self.kernel
    }

    /// The image rows that the output rows `out` read.
    fn rows_read(&self, out: &Range<usize>) -> Range<usize> {
        let first = (out.start * self.stride).saturating_sub(self.pad_top_left[0]);
        let end = (out.end - 1) * self.stride + self.kernel - self.pad_top_left[0];
        first..end.min(self.in_hw[0])
    }
}

/// `min(max(v, 0), 6)`; NaN stays NaN.
#[inline(always)]
fn relu6<E: Elem>(v: E) -> E {
    let v = if v < E::zero() { E::zero() } else { v };
    let six = E::of(6.0);
    if v > six { six } else { v }
}

/// Splits the images of a batch into tasks for the thread pool: whole images together while `width` elements for each input
/// pixel fit in cache, strips of output rows where one image is too large or there are fewer images than threads.
///
/// `body` gets the images of the task, the output rows, and these rows of `y` (`n_out` elements a pixel).
fn for_each_strip<E: Elem>(
    g: Geometry,
    width: usize,
    n_out: usize,
    y: &mut [E],
    body: impl Fn(Range<usize>, Range<usize>, &mut [E]) + Sync,
) {
    let row = g.out_hw[1] * n_out;
    let image = g.out_hw[0] * row;
    let (n_images, n_threads) = (y.len() / image, rayon::current_num_threads());
    let fair = n_images.div_ceil(n_threads).max(1);
    let n_together = (TASK_ELEMENTS / (g.in_len() * width).max(1)).clamp(1, fair);
    if n_together > 1 {
        return y.par_chunks_mut(n_together * image).enumerate().for_each(|(i, y)| {
            let first = i * n_together;
            body(first..first + y.len() / image, 0..g.out_hw[0], y);
        });
    }
    // The rows that neighbouring strips both read are computed twice: fewer than four rows are not worth it.
    const MIN_ROWS: usize = 4;
    let rows_in = TASK_ELEMENTS / (g.in_hw[1] * width).max(1);
    let in_cache = (rows_in + g.stride).saturating_sub(g.kernel) / g.stride;
    let fair = g.out_hw[0].div_ceil(n_threads.div_ceil(n_images.max(1)));
    let n_strips = g.out_hw[0].div_ceil(in_cache.min(fair).max(MIN_ROWS));
    let n_rows = g.out_hw[0].div_ceil(n_strips);
    y.par_chunks_mut(image).enumerate().for_each(|(i, y)| {
        y.par_chunks_mut(n_rows * row).enumerate().for_each(|(strip, y)| {
            let first = strip * n_rows;
            body(i..i + 1, first..first + y.len() / row, y);
        });
    });
}

/// `y (images, h'·w', n_out) = relu6(conv(x) + b)` for `x (images, channels, h, w)`; the weight's columns are
/// `(channels, k, k)`.
pub(crate) fn dense_relu6<E: Elem>(
    g: Geometry,
    channels: usize,
    linear: LinearRef<'_, E>,
    x: &[E],
    y: &mut [E],
) {
    let plane = g.in_len();
    let width = linear.n_in.div_ceil(g.stride * g.stride); // Of the patches, for each input pixel.
    for_each_strip(g, width, linear.n_out, y, |images, out_rows, y| {
        for (image, y) in images.clone().zip(y.chunks_exact_mut(y.len() / images.len())) {
            let x = &x[image * channels * plane..][..channels * plane];
            let m = y.len() / linear.n_out;
            let mut patches = Scratch::new(m * linear.n_in);
            fill_patches(g, out_rows.clone(), x, &mut patches);
            linear.forward(&patches, m, y, Accum::Replace, Threads::One);
            simd(
                #[inline(always)]
                || y.iter_mut().for_each(|v| *v = relu6(*v)),
            );
        }
    });
}

/// One row `(channels, k, k)` for each output pixel of the rows `out_rows`, zero outside the image.
fn fill_patches<E: Elem>(g: Geometry, out_rows: Range<usize>, x: &[E], patches: &mut [E]) {
    let ([h, w], k) = (g.in_hw, g.kernel);
    let n_in = x.len() / (h * w) * k * k;
    for (oy, patches) in out_rows.zip(patches.chunks_exact_mut(g.out_hw[1] * n_in)) {
        for (channel, x) in x.chunks_exact(h * w).enumerate() {
            for ky in 0..k {
                // Above the image the difference wraps around and there is no such row.
                let iy = (oy * g.stride + ky).wrapping_sub(g.pad_top_left[0]);
                let x = if iy < h { &x[iy * w..][..w] } else { &[] };
                let at = (channel * k + ky) * k;
                for (ox, patch) in patches.chunks_exact_mut(n_in).enumerate() {
                    let ix = (ox * g.stride).wrapping_sub(g.pad_top_left[1]);
                    for (kx, value) in patch[at..at + k].iter_mut().enumerate() {
                        *value = x.get(ix.wrapping_add(kx)).copied().unwrap_or(E::zero());
                    }
                }
            }
        }
    }
}

/// `y = relu6(x·Wᵀ + b)` for rows of `x`.
pub(crate) fn linear_relu6<E: Elem>(linear: LinearRef<'_, E>, x: &[E], y: &mut [E]) {
    let m = x.len() / linear.n_in;
    let per_thread = m.div_ceil(rayon::current_num_threads()).max(1);
    let step = without_short_tasks(m, 1, (TASK_ELEMENTS / linear.n_out).clamp(1, per_thread).max(16));
    y.par_chunks_mut(step * linear.n_out).zip(x.par_chunks(step * linear.n_in)).for_each(|(y, x)| {
        linear.forward(x, x.len() / linear.n_in, y, Accum::Replace, Threads::One);
        simd(
            #[inline(always)]
            || y.iter_mut().for_each(|v| *v = relu6(*v)),
        );
    });
}

/// An inverted residual block: `relu6(expand)`, `relu6(depthwise)`, `project`, and the input on top where `residual`.
#[derive(Clone, Copy)]
pub(crate) struct InvertedResidualRef<'a, E: Clone> {
    pub(crate) geometry: Geometry,
    pub(crate) expand: Option<LinearRef<'a, E>>,
    /// `(planes, k·k)` vectors; the last plane is filled up with zeros.
    pub(crate) taps: &'a [[E; LANES]],
    /// `(planes)` vectors.
    pub(crate) bias: &'a [[E; LANES]],
    pub(crate) project: LinearRef<'a, E>,
    pub(crate) residual: bool,
}

impl<E: Elem> InvertedResidualRef<'_, E> {
    /// Channels of the depthwise filters.
    fn channels(&self) -> usize {
        self.project.n_in
    }

    /// Channels of the input.
    fn n_in(&self) -> usize {
        self.expand.map_or(self.channels(), |e| e.n_in)
    }

    /// `y (images, h'·w', n_out)` from `x (images, h·w, n_in)`.
    pub(crate) fn forward(&self, x: &[E], y: &mut [E]) {
        let image = self.geometry.in_len() * self.n_in();
        for_each_strip(self.geometry, self.channels(), self.project.n_out, y, |images, out_rows, y| {
            self.strip(&x[images.start * image..images.end * image], out_rows, y);
        });
    }

    /// The output rows `out_rows` of each of the images `x`; the whole image if there are several.
    fn strip(&self, x: &[E], out_rows: Range<usize>, y: &mut [E]) {
        let (g, channels, n_in) = (self.geometry, self.channels(), self.n_in());
        let in_rows = g.rows_read(&out_rows);
        let (w, n_images) = (g.in_hw[1], x.len() / (g.in_len() * n_in));
        let read = match n_images {
            1 => &x[in_rows.start * w * n_in..in_rows.end * w * n_in],
            _ => x,
        };
        let expanded = self.expand.map(|expand| {
            let m = read.len() / n_in;
            let mut hidden = Scratch::new(m * channels);
            // The bias is added with the activation.
            let map = LinearRef { bias: None, ..expand };
            map.forward(read, m, &mut hidden, Accum::Replace, Threads::One);
            hidden
        });
        let hidden = expanded.as_deref().unwrap_or(read);
        let mut filtered = Scratch::new(n_images * out_rows.len() * g.out_hw[1] * channels);
        self.depthwise(hidden, in_rows, out_rows.clone(), &mut filtered);
        let accum = if self.residual {
            // Stride 1: the input and the output have the same rows.
            y.copy_from_slice(&x[out_rows.start * w * n_in..][..y.len()]);
            Accum::Add
        } else {
            Accum::Replace
        };
        self.project.forward(&filtered, filtered.len() / channels, y, accum, Threads::One);
    }

    /// `relu6(depthwise(relu6(hidden + b)) + b)`: the output rows `out_rows` from the input rows `in_rows` of each image.
    fn depthwise(&self, hidden: &[E], in_rows: Range<usize>, out_rows: Range<usize>, filtered: &mut [E]) {
        let (g, channels) = (self.geometry, self.channels());
        let (w, out_w, n_taps) = (g.in_hw[1], g.out_hw[1], g.kernel * g.kernel);
        let plane_w = g.extent(out_w);
        let top = in_rows.start + g.pad_top_left[0] - out_rows.start * g.stride;
        let corner = top * plane_w + g.pad_top_left[1];
        let mut plane = Scratch::new(g.extent(out_rows.len()) * plane_w * LANES);
        plane.fill(E::zero()); // The border stays so for every plane of this task.
        let (plane, _) = plane.as_chunks_mut::<LANES>();
        let expand_bias = self.expand.and_then(|e| e.bias);
        let images = hidden
            .chunks_exact(in_rows.len() * w * channels)
            .zip(filtered.chunks_exact_mut(out_rows.len() * out_w * channels));
        simd(
            #[inline(always)]
            || {
                for (hidden, filtered) in images {
                    for (i, (taps, bias)) in self.taps.chunks_exact(n_taps).zip(self.bias).enumerate() {
                        let first = i * LANES;
                        let n = LANES.min(channels - first);
                        let source = hidden.chunks_exact(w * channels);
                        for (pixels, plane) in source.zip(plane[corner..].chunks_mut(plane_w)) {
                            let pixels = pixels.chunks_exact(channels).map(|pixel| &pixel[first..][..n]);
                            match (self.expand, expand_bias) {
                                (Some(_), Some(bias)) => {
                                    let mut b = [E::zero(); LANES];
                                    b[..n].copy_from_slice(&bias[first..][..n]);
                                    copy_vectors(pixels, plane, |v, lane| relu6(v + b[lane]));
                                }
                                (Some(_), None) => copy_vectors(pixels, plane, |v, _| relu6(v)),
                                (None, _) => copy_vectors(pixels, plane, |v, _| v),
                            }
                        }
                        let pixels =
                            filtered.chunks_exact_mut(channels).map(|pixel| &mut pixel[first..][..n]);
                        // Strides as literals, and rows of taps of known length: what networks have runs unrolled.
                        match (g.kernel, g.stride) {
                            (3, 1) => filter_plane::<E, 3>(3, 1, plane, out_w, taps, bias, pixels),
                            (3, 2) => filter_plane::<E, 3>(3, 2, plane, out_w, taps, bias, pixels),
                            (5, 1) => filter_plane::<E, 5>(5, 1, plane, out_w, taps, bias, pixels),
                            (5, 2) => filter_plane::<E, 5>(5, 2, plane, out_w, taps, bias, pixels),
                            (k, s) => filter_plane::<E, 1>(k, s, plane, out_w, taps, bias, pixels),
                        }
                    }
                }
            },
        );
    }
}

/// `plane[pixel][lane] = f(pixel[lane], lane)`; lanes that a pixel does not have keep what they hold.
#[inline(always)]
fn copy_vectors<'a, E: Elem>(
    pixels: impl Iterator<Item = &'a [E]>,
    plane: &mut [[E; LANES]],
    f: impl Fn(E, usize) -> E,
) {
    for (pixel, vector) in pixels.zip(plane) {
        if let Some(pixel) = pixel.first_chunk::<LANES>() {
            // All is read before anything is written: otherwise LLVM would have to prove that the two do not overlap.
            let mut values = [E::zero(); LANES];
            for lane in 0..LANES {
                values[lane] = f(pixel[lane], lane);
            }
            *vector = values;
        } else {
            vector.iter_mut().zip(pixel).enumerate().for_each(|(lane, (y, &x))| *y = f(x, lane));
        }
    }
}

/// `relu6(bias + Σ_taps tap·x)` at every output pixel of a plane, `n_columns` in a row; `K` taps of a row at a time.
#[inline(always)]
fn filter_plane<'a, E: Elem, const K: usize>(
    kernel: usize,
    stride: usize,
    plane: &[[E; LANES]],
    n_columns: usize,
    taps: &[[E; LANES]],
    bias: &[E; LANES],
    mut pixels: impl Iterator<Item = &'a mut [E]>,
) {
    // Four pixels share each tap.
    const TOGETHER: usize = 4;
    let width = (n_columns - 1) * stride + kernel;
    let n_rows = (plane.len() / width - kernel) / stride + 1;
    for row in 0..n_rows {
        let x = &plane[row * stride * width..][..kernel * width];
        let mut column = 0;
        while column + TOGETHER <= n_columns {
            let x = &x[column * stride..];
            let sums: [_; TOGETHER] = filter_pixels::<E, K, _>(kernel, stride, x, width, taps, bias);
            store(&sums, &mut pixels);
            column += TOGETHER;
        }
        for column in column..n_columns {
            let x = &x[column * stride..];
            let sum: [_; 1] = filter_pixels::<E, K, _>(kernel, stride, x, width, taps, bias);
            store(&sum, &mut pixels);
        }
    }
}

/// `bias + Σ_taps tap·x` of `N` output pixels next to one another; `x` starts at the first tap of the first, its rows lie
/// `width` apart.
#[inline(always)]
fn filter_pixels<E: Elem, const K: usize, const N: usize>(
    kernel: usize,
    stride: usize,
    x: &[[E; LANES]],
    width: usize,
    taps: &[[E; LANES]],
    bias: &[E; LANES],
) -> [[E; LANES]; N] {
    let mut sums = [*bias; N];
    for ky in 0..kernel {
        let row = &x[ky * width..][..(N - 1) * stride + kernel];
        for (i, taps) in taps[ky * kernel..][..kernel].as_chunks::<K>().0.iter().enumerate() {
            add_taps(stride, &row[i * K..], taps, &mut sums);
        }
    }
    sums
}

/// Adds `K` taps of a row to the sums of `N` pixels that lie `stride` apart.
///
/// The loop over the lanes is the one with vectors in it. For that every bound is checked before it, and the other two are
/// unrolled: with the lanes innermost LLVM makes scalars of it, ten times slower.
#[inline(always)]
fn add_taps<E: Elem, const K: usize, const N: usize>(
    stride: usize,
    x: &[[E; LANES]],
    taps: &[[E; LANES]; K],
    sums: &mut [[E; LANES]; N],
) {
    let x: [[&[E; LANES]; K]; N] = std::array::from_fn(
        #[inline(always)]
        |i| {
            std::array::from_fn(
                #[inline(always)]
                |tap| &x[i * stride + tap],
            )
        },
    );
    for lane in 0..LANES {
        for i in 0..N {
            let mut sum = sums[i][lane];
            for tap in 0..K {
                sum += x[i][tap][lane] * taps[tap][lane];
            }
            sums[i][lane] = sum;
        }
    }
}

/// `relu6` of each sum, as many lanes as the next pixel has.
#[inline(always)]
fn store<'a, E: Elem>(sums: &[[E; LANES]], pixels: &mut impl Iterator<Item = &'a mut [E]>) {
    for (sum, pixel) in sums.iter().zip(pixels) {
        if let Some(whole) = pixel.first_chunk_mut::<LANES>() {
            for lane in 0..LANES {
                whole[lane] = relu6(sum[lane]);
            }
        } else {
            pixel.iter_mut().zip(sum).for_each(|(y, &value)| *y = relu6(value));
        }
    }
}
