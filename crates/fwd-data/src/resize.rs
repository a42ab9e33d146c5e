//! Pillow's 8-bit bicubic resize, to the bit.
//!
//! Keys' cubic with `a = −1/2`, its support widened by the shrink factor (antialiasing); coefficients normalised, then
//! rounded to 22-bit fixed point; horizontal pass first, its result rounded and clipped to 8 bits, then the vertical pass.
//!
//! # Source
//! Keys, "Cubic convolution interpolation for digital image processing", 1981; the fixed-point scheme is Pillow's
//! `ImagingResample` for 8-bit channels.

use crate::image_file::RgbImage;
use std::ops::Range;

/// 32 bits less 8 of the pixel and 2 of headroom for negative lobes.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// Resizes without keeping the aspect ratio; the same size is a copy.
///
/// # Examples
/// ```
/// use fwd_data::{RgbImage, resize_bicubic};
/// let grey = RgbImage::new(2, 2, vec![100; 12])?;
/// assert_eq!(resize_bicubic(&grey, 5, 3).data(), vec![100; 45]);
/// # Ok::<(), fwd_data::DataError>(())
/// ```
pub fn resize_bicubic(image: &RgbImage, width: usize, height: usize) -> RgbImage {
    resize_part(image, (width, height), 0..width, 0..height)
}

/// Some columns and rows of the image that [`resize_bicubic`] would make, without the rest of it: the long side of a narrow image that is
/// made as high as another would take the memory of the machine.
pub(crate) fn resize_part(
    image: &RgbImage,
    (width, height): (usize, usize),
    columns: Range<usize>,
    rows: Range<usize>,
) -> RgbImage {
    let (width_in, height_in) = (image.width(), image.height());
    let (n_columns, n_rows) = (columns.len(), rows.len());
    if width_in == 0 || height_in == 0 || n_columns == 0 || n_rows == 0 {
        return RgbImage::black(n_columns, n_rows);
    }
    let is_kept = |range: &Range<usize>, n: usize, n_in: usize| n == n_in && *range == (0..n);
    let narrowed = if is_kept(&columns, width, width_in) {
        image.data().to_vec()
    } else {
        horizontal(image, width, columns)
    };
    let data = if is_kept(&rows, height, height_in) {
        narrowed
    } else {
        vertical(&narrowed, n_columns, (height_in, height), rows)
    };
    RgbImage::of(n_columns, n_rows, data)
}

/// The source pixels that make up one output pixel: the first one and the weights.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// The weights of some of `n_out` pixels that `n_in` become. Without a change of size they are 1 and 0, exactly.
fn taps(n_in: usize, n_out: usize, range: Range<usize>) -> Vec<Taps> {
    let scale = n_in as f64 / n_out as f64;
    let widen = scale.max(1.0);
    let support = 2.0 * widen;
    range
        .map(|out| {
            let center = (out as f64 + 0.5) * scale;
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).min(n_in as i64) as usize;
            let weights: Vec<f64> = (first..end).map(|i| cubic((i as f64 - center + 0.5) / widen)).collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |w: f64| {
                let w = w / sum * f64::from(1u32 << PRECISION_BITS);
                // Rounds half away from zero, as Pillow does.
                (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
            };
            Taps { first, weights: weights.into_iter().map(fixed).collect() }
        })
        .collect()
}

const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn to_u8(fixed: i32) -> u8 {
    (fixed >> PRECISION_BITS).clamp(0, 255) as u8
}

fn horizontal(image: &RgbImage, width: usize, columns: Range<usize>) -> Vec<u8> {
    let taps = taps(image.width(), width, columns);
    let mut out = Vec::with_capacity(taps.len() * image.height() * 3);
    for row in image.data().chunks_exact(image.width() * 3) {
        for Taps { first, weights } in &taps {
            let mut sums = [HALF; 3];
            for (pixel, &weight) in row[first * 3..].as_chunks::<3>().0.iter().zip(weights) {
                for channel in 0..3 {
                    sums[channel] += i32::from(pixel[channel]) * weight;
                }
            }
            out.extend(sums.map(to_u8));
        }
    }
    out
}

fn vertical(data: &[u8], width: usize, (height_in, height): (usize, usize), rows: Range<usize>) -> Vec<u8> {
    let stride = width * 3;
    let mut out = Vec::with_capacity(stride * rows.len());
    let mut sums = vec![HALF; stride];
    for Taps { first, weights } in taps(height_in, height, rows) {
        sums.fill(HALF);
        for (row, &weight) in data[first * stride..].chunks_exact(stride).zip(&weights) {
            for (sum, &value) in sums.iter_mut().zip(row) {
                *sum += i32::from(value) * weight;
            }
        }
        out.extend(sums.iter().map(|&s| to_u8(s)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_every_output_pixel_sum_to_one() {
        for (n_in, n_out) in [(1, 7), (7, 1), (200, 224), (400, 224), (3, 3), (1000, 56)] {
            for taps in taps(n_in, n_out, 0..n_out) {
                let sum: i32 = taps.weights.iter().sum();
                let one = 1 << PRECISION_BITS;
                assert!(
                    (sum - one).unsigned_abs() as usize <= taps.weights.len(),
                    "{n_in} -> {n_out}: {sum}"
                );
                assert!(taps.first + taps.weights.len() <= n_in);
            }
        }
    }

    #[test]
    fn a_part_is_cut_out_of_the_whole() {
        let image = RgbImage::new(9, 7, (0..9 * 7 * 3).map(|i| (i * 37 % 251) as u8).collect()).unwrap();
        for (width, height) in [(9, 7), (5, 7), (9, 12), (20, 3)] {
            let whole = resize_bicubic(&image, width, height);
            let part = resize_part(&image, (width, height), 1..width - 1, 1..height);
            let rows = whole.data().chunks_exact(width * 3).skip(1);
            let want: Vec<u8> = rows.flat_map(|row| row[3..(width - 1) * 3].to_vec()).collect();
            assert_eq!(part.data(), want, "{width}x{height}");
        }
    }

    #[test]
    fn the_same_size_is_a_copy_and_nothing_stays_nothing() {
        let image = RgbImage::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(resize_bicubic(&image, 2, 1), image);
        let none = RgbImage::new(0, 0, vec![]).unwrap();
        assert_eq!(resize_bicubic(&none, 2, 1).data(), vec![0; 6]);
    }
}
