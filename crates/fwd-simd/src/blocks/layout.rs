//! From stored bytes to integers and scales: every format's decoder, exact in f32.
//!
//! Source: the block layouts of ggml (`ggml-quants.c`: `dequantize_row_*`).

use super::GROUP;
use super::isa::{Codes, Floats};

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

    fn scales<I: Codes>(isa: I, bytes: &[u8; BYTES]) -> Self::Scales;

    /// The `q` of group `j`.
    fn numbers<I: Floats>(isa: I, bytes: &[u8; BYTES], j: usize) -> I::Numbers;

    /// The scales of the halves of group `j`, and its offset.
    fn affine(scales: &Self::Scales, j: usize) -> ([f32; 2], f32);
}

/// A format whose `q` are integers: a code of at most 8 bits, minus [`Self::MIDDLE`].
pub(super) trait IntegerBlock<const BYTES: usize>: Block<BYTES> {
    /// A power of two, or 0.
    const MIDDLE: u8;

    /// The codes of group `j`.
    fn codes<I: Codes>(isa: I, bytes: &[u8; BYTES], j: usize) -> I::Bytes;
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

/// `N` bytes from a place on, which the compiler knows to lie within the block.
#[inline(always)]
fn part<const N: usize>(bytes: &[u8], at: usize) -> &[u8; N] {
    &bytes[at..].as_chunks().0[0]
}

/// A float type: the elements themselves.
macro_rules! float_block {
    ($name:ident, $size:literal, $numbers:ident) => {
        impl Block<{ $size * GROUP }> for $name {
            type Scales = ();

            #[inline(always)]
            fn scales<I: Codes>(_: I, _: &[u8; $size * GROUP]) {}

            #[inline(always)]
            fn numbers<I: Floats>(isa: I, bytes: &[u8; $size * GROUP], _: usize) -> I::Numbers {
                isa.$numbers(bytes)
            }

            #[inline(always)]
            fn affine((): &(), _: usize) -> ([f32; 2], f32) {
                ([1.0; 2], 0.0)
            }
        }
    };
}

float_block!(F32, 4, f32s);
float_block!(Bf16, 2, bf16s);
float_block!(F16, 2, f16s);

/// A format of integers in blocks of some groups: what [`Block`] has for it, and the function that unpacks the codes of a group.
macro_rules! integer_block {
    ($name:ident, $bytes:literal, $middle:literal, $codes:ident, { $($block:item)* }) => {
        impl Block<$bytes> for $name {
            $($block)*

            #[inline(always)]
            fn numbers<I: Floats>(isa: I, bytes: &[u8; $bytes], j: usize) -> I::Numbers {
                isa.integers($codes(isa, bytes, j), $middle)
            }
        }

        impl IntegerBlock<$bytes> for $name {
            const MIDDLE: u8 = $middle;

            #[inline(always)]
            fn codes<I: Codes>(isa: I, bytes: &[u8; $bytes], j: usize) -> I::Bytes {
                $codes(isa, bytes, j)
            }
        }
    };
}

/// A format of 32 elements with one scale, and perhaps an offset.
macro_rules! small_block {
    ($name:ident, $bytes:literal, scale, $middle:literal, $codes:ident) => {
        integer_block!($name, $bytes, $middle, $codes, {
            type Scales = f32;

            #[inline(always)]
            fn scales<I: Codes>(isa: I, bytes: &[u8; $bytes]) -> f32 {
                isa.f16(*part(bytes, 0))
            }

            #[inline(always)]
            fn affine(&d: &f32, _: usize) -> ([f32; 2], f32) {
                ([d; 2], 0.0)
            }
        });
    };
    ($name:ident, $bytes:literal, scale_and_offset, $middle:literal, $codes:ident) => {
        integer_block!($name, $bytes, $middle, $codes, {
            const HAS_OFFSET: bool = true;
            type Scales = (f32, f32);

            #[inline(always)]
            fn scales<I: Codes>(isa: I, bytes: &[u8; $bytes]) -> (f32, f32) {
                (isa.f16(*part(bytes, 0)), isa.f16(*part(bytes, 2)))
            }

            #[inline(always)]
            fn affine(&(d, m): &(f32, f32), _: usize) -> ([f32; 2], f32) {
                ([d; 2], m)
            }
        });
    };
}

/// The 6-bit scales and minima of the 8 groups, times their factors.
macro_rules! k_block {
    ($name:ident, $bytes:literal, $codes:ident) => {
        integer_block!($name, $bytes, 0, $codes, {
            const GROUPS: usize = 8;
            const HAS_OFFSET: bool = true;
            type Scales = ([f32; 8], [f32; 8]);

            #[inline(always)]
            fn scales<I: Codes>(isa: I, bytes: &[u8; $bytes]) -> Self::Scales {
                k_scales(isa, part(bytes, 0))
            }

            #[inline(always)]
            fn affine((scales, offsets): &Self::Scales, j: usize) -> ([f32; 2], f32) {
                ([scales[j]; 2], offsets[j])
            }
        });
    };
}

small_block!(Q8_0, 34, scale, 128, q8_0);
small_block!(Q4_0, 18, scale, 8, q4_0);
small_block!(Q4_1, 20, scale_and_offset, 0, q4_1);
small_block!(Q5_0, 22, scale, 16, q5_0);
small_block!(Q5_1, 24, scale_and_offset, 0, q5_1);
k_block!(Q4K, 144, q4_k);
k_block!(Q5K, 176, q5_k);
integer_block!(Q6K, 210, 32, q6_k, {
    const GROUPS: usize = 8;
    const TWO_SCALES: bool = true;
    type Scales = [f32; 16];

    #[inline(always)]
    fn scales<I: Codes>(isa: I, bytes: &[u8; 210]) -> [f32; 16] {
        let d = isa.f16(*part(bytes, 208));
        part::<16>(bytes, 192).map(|scale| d * f32::from(scale as i8))
    }

    #[inline(always)]
    fn affine(scales: &[f32; 16], j: usize) -> ([f32; 2], f32) {
        ([scales[2 * j], scales[2 * j + 1]], 0.0)
    }
});

/// 32 bytes with a sign.
#[inline(always)]
fn q8_0<I: Codes>(isa: I, bytes: &[u8; 34], _: usize) -> I::Bytes {
    isa.add_128(isa.load(part(bytes, 2)))
}

/// 16 bytes of elements `i` (low nibbles) and `16 + i` (high nibbles).
#[inline(always)]
fn q4_0<I: Codes>(isa: I, bytes: &[u8; 18], _: usize) -> I::Bytes {
    isa.nibbles(part(bytes, 2))
}

#[inline(always)]
fn q4_1<I: Codes>(isa: I, bytes: &[u8; 20], _: usize) -> I::Bytes {
    isa.nibbles(part(bytes, 4))
}

/// As [`q4_0`], with a fifth bit: that of element `i` is bit `i` of four bytes.
#[inline(always)]
fn q5_0<I: Codes>(isa: I, bytes: &[u8; 22], _: usize) -> I::Bytes {
    isa.or(isa.nibbles(part(bytes, 6)), isa.fifth_bits(part(bytes, 2)))
}

#[inline(always)]
fn q5_1<I: Codes>(isa: I, bytes: &[u8; 24], _: usize) -> I::Bytes {
    isa.or(isa.nibbles(part(bytes, 8)), isa.fifth_bits(part(bytes, 4)))
}

/// Two groups share 32 bytes: the low nibbles are those of the first.
#[inline(always)]
fn q4_k<I: Codes>(isa: I, bytes: &[u8; 144], j: usize) -> I::Bytes {
    isa.field(isa.load(part(bytes, 16 + 32 * (j / 2))), 4 * (j % 2) as i32, 15)
}

/// As [`q4_k`], with a fifth bit: that of group `j` is bit `j` of 32 bytes.
#[inline(always)]
fn q5_k<I: Codes>(isa: I, bytes: &[u8; 176], j: usize) -> I::Bytes {
    let low = isa.field(isa.load(part(bytes, 48 + 32 * (j / 2))), 4 * (j % 2) as i32, 15);
    isa.or(low, isa.field(isa.load(part(bytes, 16)), j as i32 - 4, 16))
}

/// Of each half of the block, 64 bytes of low nibbles (of groups 0 and 2, 1 and 3), and 32 bytes of two upper bits of each group.
#[inline(always)]
fn q6_k<I: Codes>(isa: I, bytes: &[u8; 210], j: usize) -> I::Bytes {
    let (half, quarter) = (j / 4, j % 4);
    let low = isa.load(part(bytes, 64 * half + 32 * (quarter % 2)));
    let high = isa.load(part(bytes, 128 + 32 * half));
    isa.or(isa.field(low, 4 * (quarter / 2) as i32, 15), isa.field(high, 2 * quarter as i32 - 4, 0x30))
}

/// Scales and offsets of the 8 groups: the two factors, then 12 bytes. The lower 6 bits of the first 8 are scales and minima of the first
/// 4 groups; their upper 2 bits and the nibbles of the last 4 are those of the others.
#[inline(always)]
fn k_scales<I: Codes>(isa: I, bytes: &[u8; 16]) -> ([f32; 8], [f32; 8]) {
    let word = |i: usize| u32::from_le_bytes(*part(bytes, i));
    let (a, b, c) = (word(4), word(8), word(12));
    let upper = |word: u32| (word >> 6 & 0x0303_0303) << 4;
    let join = |low: u32, high: u32| (u64::from(high) << 32 | u64::from(low)).to_le_bytes();
    let scales = join(a & 0x3f3f_3f3f, c & 0x0f0f_0f0f | upper(a));
    let minima = join(b & 0x3f3f_3f3f, c >> 4 & 0x0f0f_0f0f | upper(b));
    let (d, d_min) = (isa.f16(*part(bytes, 0)), isa.f16(*part(bytes, 2)));
    (scales.map(|scale| d * f32::from(scale)), minima.map(|minimum| -(d_min * f32::from(minimum))))
}

/// Calls `$call::<Format, BYTES, …>` for a format of integers, or the other expression.
macro_rules! for_integer_format {
    ($format:expr, $call:ident [$($generic:tt),*] ($($arg:expr),*), else $other:expr) => {{
        use $crate::blocks::{Format, layout};
        match $format {
            Format::Q4_0 => $call::<layout::Q4_0, 18, $($generic),*>($($arg),*),
            Format::Q4_1 => $call::<layout::Q4_1, 20, $($generic),*>($($arg),*),
            Format::Q5_0 => $call::<layout::Q5_0, 22, $($generic),*>($($arg),*),
            Format::Q5_1 => $call::<layout::Q5_1, 24, $($generic),*>($($arg),*),
            Format::Q8_0 => $call::<layout::Q8_0, 34, $($generic),*>($($arg),*),
            Format::Q4K => $call::<layout::Q4K, 144, $($generic),*>($($arg),*),
            Format::Q5K => $call::<layout::Q5K, 176, $($generic),*>($($arg),*),
            Format::Q6K => $call::<layout::Q6K, 210, $($generic),*>($($arg),*),
            Format::F32 | Format::Bf16 | Format::F16 => $other,
        }
    }};
}
pub(super) use for_integer_format;

/// Calls `$call::<Format, BYTES, …>` for a format.
macro_rules! for_format {
    ($format:expr, $call:ident [$($generic:tt),*] ($($arg:expr),*)) => {
        match $format {
            $crate::blocks::Format::F32 => $call::<$crate::blocks::layout::F32, 128, $($generic),*>($($arg),*),
            $crate::blocks::Format::Bf16 => $call::<$crate::blocks::layout::Bf16, 64, $($generic),*>($($arg),*),
            $crate::blocks::Format::F16 => $call::<$crate::blocks::layout::F16, 64, $($generic),*>($($arg),*),
            format => $crate::blocks::layout::for_integer_format!(format, $call [$($generic),*] ($($arg),*), else unreachable!()),
        }
    };
}
pub(super) use for_format;
