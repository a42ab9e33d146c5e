//! Plain loops over arrays, for every processor.
#![allow(clippy::needless_range_loop)] // Counted loops over arrays become vector instructions.

use super::super::GROUP;
use super::super::rounded::Group;
use super::traits::{Codes, Floats, Int8};

/// Partial sums of a dot product in f32.
const LANES: usize = 8;

#[derive(Clone, Copy)]
pub(super) struct Portable;

impl Codes for Portable {
    type Bytes = [u8; 32];

    #[inline(always)]
    fn load(self, bytes: &[u8; 32]) -> [u8; 32] {
        *bytes
    }

    #[inline(always)]
    fn nibbles(self, bytes: &[u8; 16]) -> [u8; 32] {
        let mut out = [0; 32];
        for i in 0..16 {
            out[i] = bytes[i] & 15;
            out[16 + i] = bytes[i] >> 4;
        }
        out
    }

    #[inline(always)]
    fn fifth_bits(self, bits: &[u8; 4]) -> [u8; 32] {
        std::array::from_fn(|i| (bits[i / 8] >> (i % 8) & 1) << 4)
    }

    #[inline(always)]
    fn field(self, bytes: [u8; 32], right: i32, mask: u8) -> [u8; 32] {
        bytes.map(|b| if right < 0 { b << -right & mask } else { b >> right & mask })
    }

    #[inline(always)]
    fn or(self, a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
        std::array::from_fn(|i| a[i] | b[i])
    }

    #[inline(always)]
    fn add_128(self, bytes: [u8; 32]) -> [u8; 32] {
        bytes.map(|b| b ^ 0x80)
    }

    /// The exponent is moved by a multiplication, which is exact for subnormal numbers too.
    #[inline(always)]
    fn f16(self, bytes: [u8; 2]) -> f32 {
        const SIGN_AND_MAGNITUDE: i32 = 0x8fff_e000_u32 as i32;
        const TWO_TO_THE_112: f32 = f32::from_bits(0x7780_0000);
        let moved = i32::from(i16::from_le_bytes(bytes)) << 13;
        f32::from_bits((moved & SIGN_AND_MAGNITUDE) as u32) * TWO_TO_THE_112
    }
}

impl Floats for Portable {
    type Numbers = [f32; GROUP];
    type Sums = [f32; LANES];

    #[inline(always)]
    fn integers(self, codes: [u8; 32], middle: u8) -> [f32; GROUP] {
        codes.map(|code| f32::from(i16::from(code) - i16::from(middle)))
    }

    #[inline(always)]
    fn f32s(self, bytes: &[u8; 4 * GROUP]) -> [f32; GROUP] {
        let values = bytes.as_chunks::<4>().0;
        std::array::from_fn(|i| f32::from_le_bytes(values[i]))
    }

    #[inline(always)]
    fn bf16s(self, bytes: &[u8; 2 * GROUP]) -> [f32; GROUP] {
        let values = bytes.as_chunks::<2>().0;
        std::array::from_fn(|i| f32::from_bits(u32::from(u16::from_le_bytes(values[i])) << 16))
    }

    #[inline(always)]
    fn f16s(self, bytes: &[u8; 2 * GROUP]) -> [f32; GROUP] {
        let values = bytes.as_chunks::<2>().0;
        std::array::from_fn(|i| self.f16(values[i]))
    }

    #[inline(always)]
    fn store(self, q: [f32; GROUP], scale: [f32; 2], offset: Option<f32>, out: &mut [f32; GROUP]) {
        for i in 0..GROUP {
            let scaled = q[i] * scale[i / (GROUP / 2)];
            out[i] = offset.map_or(scaled, |offset| scaled + offset);
        }
    }

    #[inline(always)]
    fn zero(self) -> [f32; LANES] {
        [0.0; LANES]
    }

    #[inline(always)]
    fn add(
        self,
        mut sums: [f32; LANES],
        q: [f32; GROUP],
        x: &[f32; GROUP],
        scale: [f32; 2],
        halves_differ: bool,
    ) -> [f32; LANES] {
        for lane in 0..LANES {
            let half = |at: usize| q[at] * x[at] + q[at + LANES] * x[at + LANES];
            let (low, high) = (half(lane), half(lane + 2 * LANES));
            sums[lane] +=
                if halves_differ { low * scale[0] + high * scale[1] } else { (low + high) * scale[0] };
        }
        sums
    }

    #[inline(always)]
    fn add_sum(self, mut sums: [f32; LANES], x: &[f32; GROUP], offset: f32) -> [f32; LANES] {
        for lane in 0..LANES {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| x[lane + i * LANES]);
            sums[lane] += ((a + b) + (c + d)) * offset;
        }
        sums
    }

    #[inline(always)]
    fn total(self, l: [f32; LANES]) -> f32 {
        ((l[0] + l[4]) + (l[2] + l[6])) + ((l[1] + l[5]) + (l[3] + l[7]))
    }
}

impl Int8 for Portable {
    type Sums = f32;

    #[inline(always)]
    fn zero(self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn add(
        self,
        sum: f32,
        codes: [u8; 32],
        middle: u8,
        x: &Group,
        scale: [f32; 2],
        halves_differ: bool,
    ) -> f32 {
        let mut halves = [0i32; 2];
        for i in 0..GROUP {
            let code = i16::from(codes[i]) - i16::from(middle);
            halves[i / (GROUP / 2)] += i32::from(code) * i32::from(x.q[i]);
        }
        let [low, high] = halves;
        if halves_differ {
            sum + (low as f32 * scale[0] + high as f32 * scale[1])
        } else {
            sum + (low + high) as f32 * scale[0]
        }
    }

    #[inline(always)]
    fn total(self, sum: f32) -> f32 {
        sum
    }
}
