//! What decoders and dot products need of a level's instructions.

use crate::blocks::GROUP;
use crate::blocks::rounded::Group;

/// Unpacking of integers.
pub(in crate::blocks) trait Codes: Copy {
    /// A register, or an array, of 32 bytes.
    type Bytes: Copy;

    fn load(self, bytes: &[u8; 32]) -> Self::Bytes;

    /// The low nibbles of 16 bytes, then their high nibbles.
    fn nibbles(self, bytes: &[u8; 16]) -> Self::Bytes;

    /// 16 where the bit of the byte's number is set, 0 elsewhere.
    fn fifth_bits(self, bits: &[u8; 4]) -> Self::Bytes;

    /// Some bits of every byte, moved to the right, or to the left by a negative number.
    fn field(self, bytes: Self::Bytes, right: i32, mask: u8) -> Self::Bytes;

    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;

    /// Turns the highest bit of every byte: from a signed number to that number plus 128.
    fn add_128(self, bytes: Self::Bytes) -> Self::Bytes;

    /// A finite f16.
    fn f16(self, bytes: [u8; 2]) -> f32;
}

/// Products in f32.
pub(in crate::blocks) trait Floats: Codes {
    /// 32 numbers.
    type Numbers: Copy;
    /// Partial sums of a dot product.
    type Sums: Copy;

    /// `code − middle`.
    fn integers(self, codes: Self::Bytes, middle: u8) -> Self::Numbers;
    fn f32s(self, bytes: &[u8; 4 * GROUP]) -> Self::Numbers;
    fn bf16s(self, bytes: &[u8; 2 * GROUP]) -> Self::Numbers;
    fn f16s(self, bytes: &[u8; 2 * GROUP]) -> Self::Numbers;

    /// `scale·q + offset`, each operation rounded; each half of the group has its scale.
    fn store(self, q: Self::Numbers, scale: [f32; 2], offset: Option<f32>, out: &mut [f32; GROUP]);

    fn zero(self) -> Self::Sums;

    /// Adds `scale·Σ q·x`. Where `halves_differ` is not set, the first scale is that of the whole group.
    fn add(
        self,
        sums: Self::Sums,
        q: Self::Numbers,
        x: &[f32; GROUP],
        scale: [f32; 2],
        halves_differ: bool,
    ) -> Self::Sums;

    /// Adds `offset·Σ x`.
    fn add_sum(self, sums: Self::Sums, x: &[f32; GROUP], offset: f32) -> Self::Sums;

    fn total(self, sums: Self::Sums) -> f32;
}

/// Products with activations of 8 bits.
pub(in crate::blocks) trait Int8: Codes {
    /// Partial sums of a dot product.
    type Sums: Copy;

    fn zero(self) -> Self::Sums;

    /// Adds `scale·Σ (code − middle)·x`, where `scale` holds those of both factors. `middle` is a power of two or 0. Where `halves_differ`
    /// is not set, the first scale is that of the whole group.
    fn add(
        self,
        sums: Self::Sums,
        codes: Self::Bytes,
        middle: u8,
        x: &Group,
        scale: [f32; 2],
        halves_differ: bool,
    ) -> Self::Sums;

    fn total(self, sums: Self::Sums) -> f32;
}

/// Work in f32 that is compiled for every level.
pub(in crate::blocks) trait FloatsWork {
    fn run<I: Floats>(self, isa: I);
}

/// Work in 8 bits that is compiled for every level.
pub(in crate::blocks) trait Int8Work {
    fn run<I: Int8>(self, isa: I);
}
