//! Random numbers that depend on the seed, the name of the tensor and the place in it, and on nothing else: tensors may be written in
//! any order and in any number of threads.
//!
//! Number `i` of a tensor is `mix(key + i·φ)`, the output function of SplitMix64 (Steele, Lea and Flood 2014) at a counter. A normal
//! number is the sum of the four 16-bit parts of one such number (Irwin–Hall), which has the right mean and variance and ends at 3.46
//! standard deviations.

use half::{bf16, f16};

/// 2⁶⁴ over the golden ratio, odd: the step of SplitMix64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
/// Elements of a block of GGUF's Q4_0 and Q8_0.
const BLOCK: usize = 32;

/// What the elements of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fill {
    /// Normal numbers of mean 0 and this standard deviation.
    Normal(f32),
    /// The weight of a norm.
    One,
}

/// How the elements of a tensor are written, in little-endian order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// 32-bit floating point.
    F32,
    /// The upper half of `F32`.
    Bf16,
    /// IEEE half precision.
    F16,
    /// GGUF's blocks of 32 elements: a scale in half precision and 4 bits an element.
    Q4,
    /// GGUF's blocks of 32 elements: a scale in half precision and 8 bits an element.
    Q8,
}

impl Format {
    /// Elements of the smallest piece that has a size in bytes.
    pub(crate) fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 => 1,
            Self::Q4 | Self::Q8 => BLOCK,
        }
    }

    /// Bytes of that piece.
    pub(crate) fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Q4 => 2 + BLOCK / 2,
            Self::Q8 => 2 + BLOCK,
        }
    }
}

/// The random numbers of one tensor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64, name: &str) -> Self {
        // FNV-1a over the name.
        let hash = name.bytes().fold(0xCBF2_9CE4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01B3)
        });
        Self(mix(hash ^ mix(seed.wrapping_add(STEP))))
    }

    #[inline]
    fn bits(self, at: u64) -> u64 {
        mix(self.0.wrapping_add(at.wrapping_mul(STEP)))
    }

    #[inline]
    fn normal(self, at: u64) -> f32 {
        // The sum of four uniform numbers on 0..=65535: mean 2·65535, variance (65536² − 1)/3.
        const MEAN: i32 = 2 * 65535;
        const SCALE: f32 = 1.0 / 37837.227;
        let bits = self.bits(at);
        let sum = (bits & 0xFFFF) + (bits >> 16 & 0xFFFF) + (bits >> 32 & 0xFFFF) + (bits >> 48);
        (sum as i32 - MEAN) as f32 * SCALE
    }

    /// Writes whole blocks from block `first` of the tensor on.
    pub(crate) fn fill(self, fill: Fill, format: Format, first: u64, out: &mut [u8]) {
        let value = |at: usize| match fill {
            Fill::Normal(std) => std * self.normal(first + at as u64),
            Fill::One => 1.0,
        };
        match format {
            Format::F32 => {
                out.as_chunks_mut::<4>()
                    .0
                    .iter_mut()
                    .enumerate()
                    .for_each(|(at, bytes)| *bytes = value(at).to_le_bytes());
            }
            Format::Bf16 => {
                let bytes = |at| bf16::from_f32(value(at)).to_le_bytes();
                out.as_chunks_mut::<2>().0.iter_mut().enumerate().for_each(|(at, out)| *out = bytes(at));
            }
            Format::F16 => {
                let bytes = |at| f16::from_f32(value(at)).to_le_bytes();
                out.as_chunks_mut::<2>().0.iter_mut().enumerate().for_each(|(at, out)| *out = bytes(at));
            }
            Format::Q4 | Format::Q8 => {
                let std = match fill {
                    Fill::Normal(std) => std,
                    Fill::One => unreachable!("norms are never written in blocks"),
                };
                for (at, block) in out.chunks_exact_mut(format.block_bytes()).enumerate() {
                    self.block(std, first + at as u64, block);
                }
            }
        }
    }

    /// One block: a scale of random size and sign, then uniform quants.
    ///
    /// Q4_0 stores `d·(q − 8)` with q in 0..=15, whose mean is −d/2. The random sign of d takes this mean away, which would otherwise
    /// be a direction that grows from layer to layer.
    fn block(self, std: f32, at: u64, out: &mut [u8]) {
        let (head, quants) = out.split_at_mut(2);
        // Eight numbers a block, so that blocks share none.
        let bits = |part: u64| self.bits(at * 8 + part);
        // The root mean square of a quant, and of a factor that is uniform on 0.5..1.5.
        let quant_rms = if quants.len() == BLOCK { 73.61 } else { 21.5f32.sqrt() };
        let factor_rms = (13.0f32 / 12.0).sqrt();
        let random = bits(7);
        let factor = 0.5 + (random >> 40) as f32 / (1u64 << 24) as f32;
        let sign = if random & 1 == 0 { 1.0 } else { -1.0 };
        head.copy_from_slice(&f16::from_f32(sign * std * factor / (quant_rms * factor_rms)).to_le_bytes());
        for (part, bytes) in quants.as_chunks_mut::<8>().0.iter_mut().enumerate() {
            *bytes = bits(part as u64).to_le_bytes();
        }
        if quants.len() == BLOCK {
            // −128 is not used by Q8_0.
            quants.iter_mut().filter(|q| **q == 0x80).for_each(|q| *q = 0x81);
        }
    }
}

/// The output function of SplitMix64.
#[inline]
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mean and root mean square of what a format holds.
    fn moments(format: Format, std: f32) -> (f64, f64) {
        const N: usize = 1 << 20;
        let mut bytes = vec![0; N / format.block_len() * format.block_bytes()];
        Stream::new(7, "a.weight").fill(Fill::Normal(std), format, 0, &mut bytes);
        let half = |bytes: &[u8]| f16::from_le_bytes([bytes[0], bytes[1]]).to_f64();
        let values: Vec<f64> = match format {
            Format::F32 => {
                bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b))).collect()
            }
            Format::Bf16 => {
                bytes.as_chunks::<2>().0.iter().map(|b| bf16::from_le_bytes(*b).to_f64()).collect()
            }
            Format::F16 => bytes.as_chunks::<2>().0.iter().map(|b| half(b)).collect(),
            Format::Q4 => bytes
                .chunks_exact(18)
                .flat_map(|b| {
                    b[2..].iter().flat_map(|q| [q & 15, q >> 4]).map(|q| half(b) * (f64::from(q) - 8.0))
                })
                .collect(),
            Format::Q8 => bytes
                .chunks_exact(34)
                .flat_map(|b| b[2..].iter().map(|q| half(b) * f64::from(q.cast_signed())))
                .collect(),
        };
        assert_eq!(values.len(), N);
        let mean = |of: &dyn Fn(f64) -> f64| values.iter().map(|v| of(*v)).sum::<f64>() / N as f64;
        (mean(&|v| v), mean(&|v| v * v).sqrt())
    }

    #[test]
    fn every_format_has_mean_zero_and_the_deviation_that_is_asked_for() {
        for format in [Format::F32, Format::Bf16, Format::F16, Format::Q4, Format::Q8] {
            let std = 0.03;
            let (mean, rms) = moments(format, std);
            // The mean of N numbers varies by std/√N; the blocks of Q4_0 share a sign each, so that there it is √32 times as much at most.
            let limit = 5.0 * 32f64.sqrt() / 1024.0;
            assert!(mean.abs() < limit * f64::from(std), "{format:?}: mean {mean}");
            assert!((rms / f64::from(std) - 1.0).abs() < 0.01, "{format:?}: deviation {rms}");
        }
    }

    #[test]
    fn pieces_make_the_same_bytes_as_the_whole_and_names_and_seeds_differ() {
        for format in [Format::F32, Format::Bf16, Format::Q4, Format::Q8] {
            let size = format.block_bytes();
            let mut whole = vec![0; 64 * size];
            Stream::new(1, "a").fill(Fill::Normal(1.0), format, 0, &mut whole);
            let mut pieces = vec![0; 64 * size];
            let (one, two) = pieces.split_at_mut(24 * size);
            Stream::new(1, "a").fill(Fill::Normal(1.0), format, 24, two);
            Stream::new(1, "a").fill(Fill::Normal(1.0), format, 0, one);
            assert_eq!(whole, pieces);
            for (seed, name) in [(2, "a"), (1, "b")] {
                Stream::new(seed, name).fill(Fill::Normal(1.0), format, 0, &mut pieces);
                assert_ne!(whole, pieces);
            }
        }
    }
}
