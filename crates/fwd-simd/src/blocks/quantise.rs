//! From f32 to stored bytes, as ggml's reference quantisers do it (`ggml-quants.c`: `quantize_row_*_ref`).

use super::Format;
use half::{bf16, f16};

/// Why values cannot be stored in a format.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Unfit {
    /// The element at this place is NaN or infinite.
    NotFinite(usize),
    /// The element at this place, or the scale of the block that starts there, is too large for the format.
    TooLarge(usize),
    /// Blocks of this format are not made, only read.
    ReadOnly,
}

impl Format {
    /// Stores values, whose number is that of whole blocks, as ggml's reference quantisers do it; so a matrix can be made piece by piece.
    ///
    /// # Errors
    /// The first place that does not fit the format.
    pub fn encode(self, values: &[f32]) -> Result<Vec<u8>, Unfit> {
        if let Some(at) = values.iter().position(|v| !v.is_finite()) {
            return Err(Unfit::NotFinite(at));
        }
        let mut out = Vec::with_capacity(self.row_bytes(values.len()));
        match self {
            Format::F32 => values.iter().for_each(|v| out.extend(v.to_le_bytes())),
            Format::Bf16 => {
                for (at, &v) in values.iter().enumerate() {
                    let value = bf16::from_f32(v);
                    if !value.is_finite() {
                        return Err(Unfit::TooLarge(at));
                    }
                    out.extend(value.to_le_bytes());
                }
            }
            Format::F16 => {
                for (at, &v) in values.iter().enumerate() {
                    out.extend(to_f16(v).ok_or(Unfit::TooLarge(at))?);
                }
            }
            Format::Q4K | Format::Q5K | Format::Q6K => return Err(Unfit::ReadOnly),
            Format::Q4_0 | Format::Q4_1 | Format::Q5_0 | Format::Q5_1 | Format::Q8_0 => {
                for (i, block) in values.as_chunks::<32>().0.iter().enumerate() {
                    let encoded = match self {
                        Format::Q8_0 => q8_0(block, &mut out),
                        Format::Q4_0 => around_middle(4, block, &mut out),
                        Format::Q5_0 => around_middle(5, block, &mut out),
                        Format::Q4_1 => from_minimum(4, block, &mut out),
                        _ => from_minimum(5, block, &mut out),
                    };
                    encoded.ok_or(Unfit::TooLarge(32 * i))?;
                }
            }
        }
        Ok(out)
    }
}

/// The nearest f16, or none if that is infinite.
fn to_f16(value: f32) -> Option<[u8; 2]> {
    let value = f16::from_f32(value);
    value.is_finite().then(|| value.to_le_bytes())
}

fn inverse(d: f32) -> f32 {
    if d == 0.0 { 0.0 } else { 1.0 / d }
}

fn q8_0(block: &[f32; 32], out: &mut Vec<u8>) -> Option<()> {
    let d = block.iter().fold(0f32, |m, v| m.max(v.abs())) / 127.0;
    let inverse = inverse(d);
    out.extend(to_f16(d)?);
    out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
    Some(())
}

/// `d·(q − 2^(bits−1))`: the value of largest magnitude, with its sign, becomes `q = 0`.
fn around_middle(bits: u32, block: &[f32; 32], out: &mut Vec<u8>) -> Option<()> {
    let middle = (1 << (bits - 1)) as f32;
    let extreme = block.iter().fold(0f32, |m, &v| if v.abs() > m.abs() { v } else { m });
    let d = extreme / -middle;
    let inverse = inverse(d);
    out.extend(to_f16(d)?);
    pack(bits, block.map(|v| v * inverse + (middle + 0.5)), out);
    Some(())
}

/// `d·q + m` between the smallest and the largest value.
fn from_minimum(bits: u32, block: &[f32; 32], out: &mut Vec<u8>) -> Option<()> {
    let (low, high) =
        block.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| (l.min(v), h.max(v)));
    let d = (high - low) / ((1 << bits) - 1) as f32;
    let inverse = inverse(d);
    out.extend(to_f16(d)?);
    out.extend(to_f16(low)?);
    pack(bits, block.map(|v| (v - low) * inverse + 0.5), out);
    Some(())
}

/// The fifth bits if there are any, then 16 bytes of elements `i` (low) and `16 + i` (high). Values are cut to integers.
fn pack(bits: u32, values: [f32; 32], out: &mut Vec<u8>) {
    let quants = values.map(|v| (v as u8).min((1 << bits) - 1));
    if bits == 5 {
        let high = quants.iter().enumerate().fold(0u32, |all, (i, &q)| all | u32::from(q >> 4) << i);
        out.extend(high.to_le_bytes());
    }
    out.extend((0..16).map(|i| quants[i] & 15 | (quants[16 + i] & 15) << 4));
}
