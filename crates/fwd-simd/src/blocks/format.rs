//! The element formats of frozen matrices.

use std::fmt;

/// How the elements of a frozen matrix are stored: a float type, or blocks of quantised values that share scales.
///
/// The block formats are those of ggml, as they lie in a `.gguf` file; a row is a whole number of blocks. All are little endian.
///
/// | format | elements a block | bytes a block | value |
/// |---|---|---|---|
/// | `F32`, `Bf16`, `F16` | 1 | 4, 2, 2 | itself |
/// | `Q4_0`, `Q5_0`, `Q8_0` | 32 | 18, 22, 34 | `d·(q − 8)`, `d·(q − 16)`, `d·q` |
/// | `Q4_1`, `Q5_1` | 32 | 20, 24 | `d·q + m` |
/// | `Q4K`, `Q5K` | 256 | 144, 176 | `d·s·q − d_min·m`, with 6-bit `s` and `m` for every 32 elements |
/// | `Q6K` | 256 | 210 | `d·s·(q − 32)`, with an 8-bit `s` for every 16 elements |
///
/// The scales `d`, `m` and `d_min` are f16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // The names of ggml.
pub enum Format {
    /// IEEE single precision.
    F32,
    /// The upper half of an f32.
    Bf16,
    /// IEEE half precision.
    F16,
    /// 4 bits around 8, one scale for 32 elements.
    Q4_0,
    /// 4 bits, a scale and a minimum for 32 elements.
    Q4_1,
    /// 5 bits around 16, one scale for 32 elements.
    Q5_0,
    /// 5 bits, a scale and a minimum for 32 elements.
    Q5_1,
    /// 8 bits with a sign, one scale for 32 elements.
    Q8_0,
    /// 4 bits, a 6-bit scale and minimum for 32 elements, two f16 factors for 256.
    Q4K,
    /// 5 bits, a 6-bit scale and minimum for 32 elements, two f16 factors for 256.
    Q5K,
    /// 6 bits around 32, an 8-bit scale for 16 elements, one f16 factor for 256.
    Q6K,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::Bf16,
        Self::F16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4K,
        Self::Q5K,
        Self::Q6K,
    ];

    /// Elements a block: 1 for the float types.
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4K | Self::Q5K | Self::Q6K => 256,
        }
    }

    /// Bytes a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q4K => 144,
            Self::Q5K => 176,
            Self::Q6K => 210,
        }
    }

    /// Bytes of a row of `n_cols` elements, which are whole blocks.
    pub fn row_bytes(self, n_cols: usize) -> usize {
        n_cols / self.block_len() * self.block_bytes()
    }

    /// Where the f16 scales of a block lie: byte offsets within it. The float types have none.
    pub fn scale_places(self) -> &'static [usize] {
        match self {
            Self::F32 | Self::Bf16 | Self::F16 => &[],
            Self::Q4_0 | Self::Q5_0 | Self::Q8_0 => &[0],
            Self::Q4_1 | Self::Q5_1 | Self::Q4K | Self::Q5K => &[0, 2],
            Self::Q6K => &[208],
        }
    }

    /// The name in lower case, as ggml writes it: `q4_k`.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Q4_0 => "q4_0",
            Self::Q4_1 => "q4_1",
            Self::Q5_0 => "q5_0",
            Self::Q5_1 => "q5_1",
            Self::Q8_0 => "q8_0",
            Self::Q4K => "q4_k",
            Self::Q5K => "q5_k",
            Self::Q6K => "q6_k",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
