//! From stored bytes to numbers: every format's decoder, exact in f32.
//!
//! A decoder turns one block (of a float type: [`FLOATS`] elements) into an array on the stack. It is `#[inline(always)]`, so that the
//! same code fills a tile and feeds a dot product, compiled for the vector extension of the processor in both.
//!
//! Source: the block layouts of ggml (`ggml-quants.c`: `dequantize_row_*`).

use super::Format;
use crate::cpu::{Elem, simd};

/// Elements that a decoder of a float type takes at a time.
pub(super) const FLOATS: usize = 32;

/// A format as a type: `LEN` elements in `BYTES` bytes.
pub(super) trait Decode<const LEN: usize, const BYTES: usize> {
    fn decode(bytes: &[u8; BYTES], out: &mut [f32; LEN]);
}

/// Calls `$call::<Format, LEN, BYTES, …>` for a format.
macro_rules! for_format {
    ($format:expr, $call:ident ::<$($generic:ty),*>($($arg:expr),*)) => {{
        use $crate::cpu::stored::blocks::{self, FLOATS};
        match $format {
            Format::F32 => $call::<blocks::F32, FLOATS, { 4 * FLOATS }, $($generic),*>($($arg),*),
            Format::Bf16 => $call::<blocks::Bf16, FLOATS, { 2 * FLOATS }, $($generic),*>($($arg),*),
            Format::F16 => $call::<blocks::F16, FLOATS, { 2 * FLOATS }, $($generic),*>($($arg),*),
            Format::Q4_0 => $call::<blocks::Q4_0, 32, 18, $($generic),*>($($arg),*),
            Format::Q4_1 => $call::<blocks::Q4_1, 32, 20, $($generic),*>($($arg),*),
            Format::Q5_0 => $call::<blocks::Q5_0, 32, 22, $($generic),*>($($arg),*),
            Format::Q5_1 => $call::<blocks::Q5_1, 32, 24, $($generic),*>($($arg),*),
            Format::Q8_0 => $call::<blocks::Q8_0, 32, 34, $($generic),*>($($arg),*),
            Format::Q4K => $call::<blocks::Q4K, 256, 144, $($generic),*>($($arg),*),
            Format::Q5K => $call::<blocks::Q5K, 256, 176, $($generic),*>($($arg),*),
            Format::Q6K => $call::<blocks::Q6K, 256, 210, $($generic),*>($($arg),*),
        }
    }};
}
pub(super) use for_format;

/// Widens `out.len()` elements, whole blocks, from the start of `bytes`.
pub(super) fn widen<E: Elem>(format: Format, bytes: &[u8], out: &mut [E]) {
    for_format!(format, widen_as::<E>(bytes, out));
}

fn widen_as<D: Decode<LEN, BYTES>, const LEN: usize, const BYTES: usize, E: Elem>(
    bytes: &[u8],
    out: &mut [E],
) {
    simd(
        #[inline(always)]
        || {
            let n_blocks = out.len() / LEN;
            let (whole, tail) = out.split_at_mut(n_blocks * LEN);
            let mut values = [0f32; LEN];
            for (out, bytes) in whole.as_chunks_mut::<LEN>().0.iter_mut().zip(bytes.as_chunks::<BYTES>().0) {
                D::decode(bytes, &mut values);
                for (o, &v) in out.iter_mut().zip(&values) {
                    *o = E::of(f64::from(v));
                }
            }
            if !tail.is_empty() {
                decode_tail::<D, LEN, BYTES>(&bytes[n_blocks * BYTES..], tail.len(), &mut values);
                for (o, &v) in tail.iter_mut().zip(&values) {
                    *o = E::of(f64::from(v));
                }
            }
        },
    );
}

/// The last `n < LEN` elements of a row of a float type, and zeros after them.
#[inline(always)]
pub(super) fn decode_tail<D: Decode<LEN, BYTES>, const LEN: usize, const BYTES: usize>(
    bytes: &[u8],
    n: usize,
    values: &mut [f32; LEN],
) {
    let mut padded = [0u8; BYTES];
    let n_bytes = n * BYTES / LEN;
    padded[..n_bytes].copy_from_slice(&bytes[..n_bytes]);
    D::decode(&padded, values);
}

/// A finite f16: the exponent is moved by a multiplication, which is exact for subnormal numbers too.
#[inline(always)]
pub(super) fn f16_value(bits: u16) -> f32 {
    const TWO_TO_THE_112: f32 = f32::from_bits(0x7780_0000);
    let magnitude = f32::from_bits(u32::from(bits & 0x7fff) << 13) * TWO_TO_THE_112;
    f32::from_bits(magnitude.to_bits() | (u32::from(bits & 0x8000) << 16))
}

#[inline(always)]
fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16_value(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

pub(super) enum F32 {}
pub(super) enum Bf16 {}
pub(super) enum F16 {}
pub(super) enum Q4_0 {}
pub(super) enum Q4_1 {}
pub(super) enum Q5_0 {}
pub(super) enum Q5_1 {}
pub(super) enum Q8_0 {}
pub(super) enum Q4K {}
pub(super) enum Q5K {}
pub(super) enum Q6K {}

impl Decode<FLOATS, { 4 * FLOATS }> for F32 {
    #[inline(always)]
    fn decode(bytes: &[u8; 4 * FLOATS], out: &mut [f32; FLOATS]) {
        for (o, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
            *o = f32::from_le_bytes(*b);
        }
    }
}

impl Decode<FLOATS, { 2 * FLOATS }> for Bf16 {
    #[inline(always)]
    fn decode(bytes: &[u8; 2 * FLOATS], out: &mut [f32; FLOATS]) {
        for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *o = f32::from_bits(u32::from(u16::from_le_bytes(*b)) << 16);
        }
    }
}

impl Decode<FLOATS, { 2 * FLOATS }> for F16 {
    #[inline(always)]
    fn decode(bytes: &[u8; 2 * FLOATS], out: &mut [f32; FLOATS]) {
        for (o, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *o = f16_value(u16::from_le_bytes(*b));
        }
    }
}

impl Decode<32, 18> for Q4_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 18], out: &mut [f32; 32]) {
        let d = f16_at(bytes, 0);
        for i in 0..16 {
            out[i] = f32::from(i16::from(bytes[2 + i] & 15) - 8) * d;
            out[16 + i] = f32::from(i16::from(bytes[2 + i] >> 4) - 8) * d;
        }
    }
}

impl Decode<32, 20> for Q4_1 {
    #[inline(always)]
    fn decode(bytes: &[u8; 20], out: &mut [f32; 32]) {
        let (d, m) = (f16_at(bytes, 0), f16_at(bytes, 2));
        for i in 0..16 {
            out[i] = f32::from(bytes[4 + i] & 15) * d + m;
            out[16 + i] = f32::from(bytes[4 + i] >> 4) * d + m;
        }
    }
}

/// The fifth bit of element `i`, in its place.
#[inline(always)]
fn fifth_bit(bits: u32, i: usize) -> u8 {
    (((bits >> i) & 1) << 4) as u8
}

impl Decode<32, 22> for Q5_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 22], out: &mut [f32; 32]) {
        let d = f16_at(bytes, 0);
        let high = u32::from_le_bytes([bytes[2], bytes[3], bytes[4], bytes[5]]);
        for i in 0..16 {
            let low = bytes[6 + i];
            out[i] = f32::from(i16::from(low & 15 | fifth_bit(high, i)) - 16) * d;
            out[16 + i] = f32::from(i16::from(low >> 4 | fifth_bit(high, 16 + i)) - 16) * d;
        }
    }
}

impl Decode<32, 24> for Q5_1 {
    #[inline(always)]
    fn decode(bytes: &[u8; 24], out: &mut [f32; 32]) {
        let (d, m) = (f16_at(bytes, 0), f16_at(bytes, 2));
        let high = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        for i in 0..16 {
            let low = bytes[8 + i];
            out[i] = f32::from(low & 15 | fifth_bit(high, i)) * d + m;
            out[16 + i] = f32::from(low >> 4 | fifth_bit(high, 16 + i)) * d + m;
        }
    }
}

impl Decode<32, 34> for Q8_0 {
    #[inline(always)]
    fn decode(bytes: &[u8; 34], out: &mut [f32; 32]) {
        let d = f16_at(bytes, 0);
        for i in 0..32 {
            out[i] = f32::from(bytes[2 + i] as i8) * d;
        }
    }
}

/// The 6-bit scale and minimum of sub-block `j` of 8, of the 12 bytes that hold them.
#[inline(always)]
fn scale_and_minimum(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, minimum) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    };
    (f32::from(scale), f32::from(minimum))
}

impl Decode<256, 144> for Q4K {
    #[inline(always)]
    fn decode(bytes: &[u8; 144], out: &mut [f32; 256]) {
        let (d, d_min) = (f16_at(bytes, 0), f16_at(bytes, 2));
        for (pair, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let (s1, m1) = scale_and_minimum(&bytes[4..16], 2 * pair);
            let (s2, m2) = scale_and_minimum(&bytes[4..16], 2 * pair + 1);
            let ((d1, m1), (d2, m2)) = ((d * s1, d_min * m1), (d * s2, d_min * m2));
            let quants = &bytes[16 + 32 * pair..][..32];
            for i in 0..32 {
                out[i] = d1 * f32::from(quants[i] & 15) - m1;
                out[32 + i] = d2 * f32::from(quants[i] >> 4) - m2;
            }
        }
    }
}

impl Decode<256, 176> for Q5K {
    #[inline(always)]
    fn decode(bytes: &[u8; 176], out: &mut [f32; 256]) {
        let (d, d_min) = (f16_at(bytes, 0), f16_at(bytes, 2));
        let high = &bytes[16..48];
        for (pair, out) in out.as_chunks_mut::<64>().0.iter_mut().enumerate() {
            let (s1, m1) = scale_and_minimum(&bytes[4..16], 2 * pair);
            let (s2, m2) = scale_and_minimum(&bytes[4..16], 2 * pair + 1);
            let ((d1, m1), (d2, m2)) = ((d * s1, d_min * m1), (d * s2, d_min * m2));
            let quants = &bytes[48 + 32 * pair..][..32];
            for i in 0..32 {
                let bits = high[i] >> (2 * pair);
                out[i] = d1 * f32::from(quants[i] & 15 | (bits & 1) << 4) - m1;
                out[32 + i] = d2 * f32::from(quants[i] >> 4 | (bits & 2) << 3) - m2;
            }
        }
    }
}

impl Decode<256, 210> for Q6K {
    #[inline(always)]
    fn decode(bytes: &[u8; 210], out: &mut [f32; 256]) {
        let d = f16_at(bytes, 208);
        for (half, out) in out.as_chunks_mut::<128>().0.iter_mut().enumerate() {
            let low = &bytes[64 * half..][..64];
            let high = &bytes[128 + 32 * half..][..32];
            let scales = &bytes[192 + 8 * half..][..8];
            let scale = |i: usize| d * f32::from(scales[i] as i8);
            for sixteen in 0..2 {
                let [s0, s1, s2, s3] = [0, 2, 4, 6].map(|i| scale(i + sixteen));
                for i in 16 * sixteen..16 * (sixteen + 1) {
                    let (l0, l1, h) = (low[i], low[32 + i], high[i]);
                    let value = |q: u8| f32::from(i16::from(q) - 32);
                    out[i] = s0 * value(l0 & 15 | (h & 3) << 4);
                    out[32 + i] = s1 * value(l1 & 15 | (h >> 2 & 3) << 4);
                    out[64 + i] = s2 * value(l0 >> 4 | (h >> 4 & 3) << 4);
                    out[96 + i] = s3 * value(l1 >> 4 | (h >> 6) << 4);
                }
            }
        }
    }
}
