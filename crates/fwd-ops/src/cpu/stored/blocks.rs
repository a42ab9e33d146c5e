//! From stored bytes to numbers: every format's decoder, exact in f32.
//!
//! An element is `scale·q + offset` with an integer (or, for the float types, any) `q`. Elements come in groups of [`GROUP`] that share
//! scale and offset; a block has one or more groups. A tile takes the elements ([`widen`]); a dot product takes `q`, and applies scale
//! and offset to sums of a group. All of it is `#[inline(always)]`, to be compiled for the vector extension of the processor.
//!
//! Source: the block layouts of ggml (`ggml-quants.c`: `dequantize_row_*`).

use super::Format;
use crate::cpu::{Elem, simd};

/// Elements that share scale and offset.
pub(super) const GROUP: usize = 32;

/// A format as a type: a block of whole groups in `BYTES` bytes (of a float type: one group).
pub(super) trait Block<const BYTES: usize> {
    /// Groups a block.
    const GROUPS: usize = 1;
    /// Whether elements have an offset.
    const HAS_OFFSET: bool = false;
    /// Whether the second half of a group has a scale of its own.
    const TWO_SCALES: bool = false;
    /// The scales of all groups.
    type Scales: Copy;

    fn scales(bytes: &[u8; BYTES]) -> Self::Scales;

    /// The `q` of group `j`.
    fn quants(bytes: &[u8; BYTES], j: usize, q: &mut [f32; GROUP]);

    /// The scales of the halves of group `j`, and its offset.
    fn affine(scales: &Self::Scales, j: usize) -> ([f32; 2], f32);
}

/// Calls `$call::<Format, BYTES, …>` for a format.
macro_rules! for_format {
    ($format:expr, $call:ident ::<$($generic:tt),*>($($arg:expr),*)) => {{
        use $crate::cpu::stored::blocks::{self, GROUP};
        match $format {
            Format::F32 => $call::<blocks::F32, { 4 * GROUP }, $($generic),*>($($arg),*),
            Format::Bf16 => $call::<blocks::Bf16, { 2 * GROUP }, $($generic),*>($($arg),*),
            Format::F16 => $call::<blocks::F16, { 2 * GROUP }, $($generic),*>($($arg),*),
            Format::Q4_0 => $call::<blocks::Q4_0, 18, $($generic),*>($($arg),*),
            Format::Q4_1 => $call::<blocks::Q4_1, 20, $($generic),*>($($arg),*),
            Format::Q5_0 => $call::<blocks::Q5_0, 22, $($generic),*>($($arg),*),
            Format::Q5_1 => $call::<blocks::Q5_1, 24, $($generic),*>($($arg),*),
            Format::Q8_0 => $call::<blocks::Q8_0, 34, $($generic),*>($($arg),*),
            Format::Q4K => $call::<blocks::Q4K, 144, $($generic),*>($($arg),*),
            Format::Q5K => $call::<blocks::Q5K, 176, $($generic),*>($($arg),*),
            Format::Q6K => $call::<blocks::Q6K, 210, $($generic),*>($($arg),*),
        }
    }};
}
pub(super) use for_format;

/// Widens `out.len()` elements, whole blocks, from the start of `bytes`.
pub(super) fn widen<E: Elem>(format: Format, bytes: &[u8], out: &mut [E]) {
    for_format!(format, widen_as::<E>(bytes, out));
}

fn widen_as<B: Block<BYTES>, const BYTES: usize, E: Elem>(bytes: &[u8], out: &mut [E]) {
    simd(
        #[inline(always)]
        || {
            let (groups, tail) = out.as_chunks_mut::<GROUP>();
            let blocks = bytes.as_chunks::<BYTES>().0;
            for (block, groups) in blocks.iter().zip(groups.chunks_exact_mut(B::GROUPS)) {
                let scales = B::scales(block);
                for (j, out) in groups.iter_mut().enumerate() {
                    widen_group::<B, BYTES, E>(block, &scales, j, out);
                }
            }
            if !tail.is_empty() {
                let block = padded_block::<BYTES>(bytes, groups.len(), tail.len());
                let mut values = [E::zero(); GROUP];
                widen_group::<B, BYTES, E>(&block, &B::scales(&block), 0, &mut values);
                tail.copy_from_slice(&values[..tail.len()]);
            }
        },
    );
}

#[inline(always)]
fn widen_group<B: Block<BYTES>, const BYTES: usize, E: Elem>(
    block: &[u8; BYTES],
    scales: &B::Scales,
    j: usize,
    out: &mut [E; GROUP],
) {
    let mut q = [0f32; GROUP];
    B::quants(block, j, &mut q);
    let (scale, offset) = B::affine(scales, j);
    for i in 0..GROUP {
        let scaled = q[i] * scale[i / (GROUP / 2)];
        let value = if B::HAS_OFFSET { scaled + offset } else { scaled };
        out[i] = E::of(f64::from(value));
    }
}

/// The last `n < GROUP` elements of a row of a float type, after `n_blocks` groups, and zeros behind them.
#[inline(always)]
pub(super) fn padded_block<const BYTES: usize>(row: &[u8], n_blocks: usize, n: usize) -> [u8; BYTES] {
    let mut block = [0u8; BYTES];
    let n_bytes = n * (BYTES / GROUP);
    block[..n_bytes].copy_from_slice(&row[n_blocks * BYTES..][..n_bytes]);
    block
}

/// A finite f16: the exponent is moved by a multiplication, which is exact for subnormal numbers too.
#[inline(always)]
fn f16_value(bytes: [u8; 2]) -> f32 {
    const SIGN_AND_MAGNITUDE: i32 = 0x8fff_e000_u32 as i32;
    const TWO_TO_THE_112: f32 = f32::from_bits(0x7780_0000);
    let moved = i32::from(i16::from_le_bytes(bytes)) << 13;
    f32::from_bits((moved & SIGN_AND_MAGNITUDE) as u32) * TWO_TO_THE_112
}

#[inline(always)]
fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16_value([bytes[at], bytes[at + 1]])
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

/// A float type: the elements themselves.
macro_rules! float_block {
    ($name:ident, $size:literal, $value:expr) => {
        impl Block<{ $size * GROUP }> for $name {
            type Scales = ();

            #[inline(always)]
            fn scales(_: &[u8; $size * GROUP]) {}

            #[inline(always)]
            fn quants(bytes: &[u8; $size * GROUP], _: usize, q: &mut [f32; GROUP]) {
                for (q, b) in q.iter_mut().zip(bytes.as_chunks::<$size>().0) {
                    *q = $value(*b);
                }
            }

            #[inline(always)]
            fn affine((): &(), _: usize) -> ([f32; 2], f32) {
                ([1.0; 2], 0.0)
            }
        }
    };
}

float_block!(F32, 4, f32::from_le_bytes);
float_block!(Bf16, 2, |b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16));
float_block!(F16, 2, f16_value);

/// 32 bytes with a sign.
#[inline(always)]
fn signed_bytes(bytes: &[u8], q: &mut [f32; GROUP]) {
    for i in 0..GROUP {
        q[i] = f32::from(bytes[i] as i8);
    }
}

/// 16 bytes of elements `i` (low nibbles) and `16 + i` (high nibbles), minus a constant.
#[inline(always)]
fn nibbles(bytes: &[u8], minus: i8, q: &mut [f32; GROUP]) {
    let mut n = [0i8; GROUP];
    for i in 0..16 {
        n[i] = (bytes[i] & 15) as i8 - minus;
    }
    for i in 0..16 {
        n[16 + i] = (bytes[i] >> 4) as i8 - minus;
    }
    for i in 0..GROUP {
        q[i] = f32::from(n[i]);
    }
}

/// [`nibbles`] with a fifth bit: that of element `i` is bit `i` of four bytes.
#[inline(always)]
fn five_bits(high: &[u8], low: &[u8], minus: i32, q: &mut [f32; GROUP]) {
    let high = u32::from_le_bytes([high[0], high[1], high[2], high[3]]);
    let mut n = [0u8; GROUP];
    for i in 0..16 {
        n[i] = low[i] & 15;
    }
    for i in 0..16 {
        n[16 + i] = low[i] >> 4;
    }
    for i in 0..GROUP {
        let fifth = (high >> i & 1) << 4;
        q[i] = (i32::from(n[i]) + fifth as i32 - minus) as f32;
    }
}

/// A format of 32 elements with one scale, and perhaps an offset.
macro_rules! small_block {
    ($name:ident, $bytes:literal, scale, $quants:expr) => {
        impl Block<$bytes> for $name {
            type Scales = f32;

            #[inline(always)]
            fn scales(bytes: &[u8; $bytes]) -> f32 {
                f16_at(bytes, 0)
            }

            #[inline(always)]
            fn quants(bytes: &[u8; $bytes], _: usize, q: &mut [f32; GROUP]) {
                $quants(bytes, q);
            }

            #[inline(always)]
            fn affine(&d: &f32, _: usize) -> ([f32; 2], f32) {
                ([d; 2], 0.0)
            }
        }
    };
    ($name:ident, $bytes:literal, scale_and_offset, $quants:expr) => {
        impl Block<$bytes> for $name {
            const HAS_OFFSET: bool = true;
            type Scales = (f32, f32);

            #[inline(always)]
            fn scales(bytes: &[u8; $bytes]) -> (f32, f32) {
                (f16_at(bytes, 0), f16_at(bytes, 2))
            }

            #[inline(always)]
            fn quants(bytes: &[u8; $bytes], _: usize, q: &mut [f32; GROUP]) {
                $quants(bytes, q);
            }

            #[inline(always)]
            fn affine(&(d, m): &(f32, f32), _: usize) -> ([f32; 2], f32) {
                ([d; 2], m)
            }
        }
    };
}

small_block!(Q8_0, 34, scale, |b: &[u8; 34], q: &mut _| signed_bytes(&b[2..], q));
small_block!(Q4_0, 18, scale, |b: &[u8; 18], q: &mut _| nibbles(&b[2..], 8, q));
small_block!(Q4_1, 20, scale_and_offset, |b: &[u8; 20], q: &mut _| nibbles(&b[4..], 0, q));
small_block!(Q5_0, 22, scale, |b: &[u8; 22], q: &mut _| five_bits(&b[2..6], &b[6..], 16, q));
small_block!(Q5_1, 24, scale_and_offset, |b: &[u8; 24], q: &mut _| five_bits(&b[4..8], &b[8..], 0, q));

/// Factors of `Q4K` and `Q5K`, with the 6-bit scales and minima of the 8 groups.
#[derive(Clone, Copy)]
pub(super) struct KScales {
    d: f32,
    d_min: f32,
    scales: [u8; 8],
    minima: [u8; 8],
}

impl KScales {
    /// The two factors, then 12 bytes: the lower 6 bits of the first 8 are scales and minima of the first 4 groups; their upper 2 bits
    /// and the nibbles of the last 4 are those of the others.
    #[inline(always)]
    fn new(bytes: &[u8]) -> Self {
        let word = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let (a, b, c) = (word(4), word(8), word(12));
        let upper = |word: u32| (word >> 6 & 0x0303_0303) << 4;
        let join = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
        Self {
            d: f16_at(bytes, 0),
            d_min: f16_at(bytes, 2),
            scales: join(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | upper(a)),
            minima: join(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | upper(b)),
        }
    }

    #[inline(always)]
    fn affine(&self, j: usize) -> ([f32; 2], f32) {
        let scale = self.d * f32::from(self.scales[j]);
        ([scale; 2], -(self.d_min * f32::from(self.minima[j])))
    }
}

impl Block<144> for Q4K {
    const GROUPS: usize = 8;
    const HAS_OFFSET: bool = true;
    type Scales = KScales;

    #[inline(always)]
    fn scales(bytes: &[u8; 144]) -> KScales {
        KScales::new(bytes)
    }

    #[inline(always)]
    fn quants(bytes: &[u8; 144], j: usize, q: &mut [f32; GROUP]) {
        let low = &bytes[16 + 32 * (j / 2)..][..32];
        let shift = 4 * (j % 2);
        for i in 0..GROUP {
            q[i] = f32::from(low[i] >> shift & 15);
        }
    }

    #[inline(always)]
    fn affine(scales: &KScales, j: usize) -> ([f32; 2], f32) {
        scales.affine(j)
    }
}

impl Block<176> for Q5K {
    const GROUPS: usize = 8;
    const HAS_OFFSET: bool = true;
    type Scales = KScales;

    #[inline(always)]
    fn scales(bytes: &[u8; 176]) -> KScales {
        KScales::new(bytes)
    }

    #[inline(always)]
    fn quants(bytes: &[u8; 176], j: usize, q: &mut [f32; GROUP]) {
        let (high, low) = (&bytes[16..48], &bytes[48 + 32 * (j / 2)..][..32]);
        let shift = 4 * (j % 2);
        for i in 0..GROUP {
            q[i] = f32::from(low[i] >> shift & 15 | (high[i] >> j & 1) << 4);
        }
    }

    #[inline(always)]
    fn affine(scales: &KScales, j: usize) -> ([f32; 2], f32) {
        scales.affine(j)
    }
}

impl Block<210> for Q6K {
    const GROUPS: usize = 8;
    const TWO_SCALES: bool = true;
    type Scales = (f32, [u8; 16]);

    #[inline(always)]
    fn scales(bytes: &[u8; 210]) -> (f32, [u8; 16]) {
        let mut scales = [0; 16];
        scales.copy_from_slice(&bytes[192..208]);
        (f16_at(bytes, 208), scales)
    }

    #[inline(always)]
    fn quants(bytes: &[u8; 210], j: usize, q: &mut [f32; GROUP]) {
        let (half, quarter) = (j / 4, j % 4);
        let low = &bytes[64 * half + 32 * (quarter % 2)..][..32];
        let high = &bytes[128 + 32 * half..][..32];
        let (low_shift, high_shift) = (4 * (quarter / 2), 2 * quarter);
        for i in 0..GROUP {
            let value = low[i] >> low_shift & 15 | (high[i] >> high_shift & 3) << 4;
            q[i] = f32::from(value as i8 - 32);
        }
    }

    #[inline(always)]
    fn affine(&(d, scales): &(f32, [u8; 16]), j: usize) -> ([f32; 2], f32) {
        let scale = |i: usize| d * f32::from(scales[i] as i8);
        ([scale(2 * j), scale(2 * j + 1)], 0.0)
    }
}
