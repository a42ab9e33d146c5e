//! Element types, and typed data on the host.

use half::{bf16, f16};

/// The element type of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DType {
    F32,
    F16,
    Bf16,
    F64,
    I64,
    U32,
}

impl DType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::F16 | Self::Bf16 => 2,
            Self::F32 | Self::U32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// The end of the names of kernels for it.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::F64 => "f64",
            Self::I64 => "i64",
            Self::U32 => "u32",
        }
    }

    /// Elements in 16 bytes, the widest access of a thread.
    pub fn per_pack(self) -> usize {
        16 / self.size()
    }
}

/// A vector on the host whose element type is known at run time.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs)]
pub enum Data {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
    F64(Vec<f64>),
    I64(Vec<i64>),
    U32(Vec<u32>),
}

/// Runs an expression on whichever vector it is.
macro_rules! for_each_type {
    ($data:expr, $vector:ident => $body:expr) => {
        match $data {
            $crate::data::Data::F32($vector) => $body,
            $crate::data::Data::F16($vector) => $body,
            $crate::data::Data::Bf16($vector) => $body,
            $crate::data::Data::F64($vector) => $body,
            $crate::data::Data::I64($vector) => $body,
            $crate::data::Data::U32($vector) => $body,
        }
    };
}

impl Data {
    /// `len` zeros of the type.
    pub fn zeros(dtype: DType, len: usize) -> Self {
        Self::from_f64(dtype, std::iter::repeat_n(0.0, len))
    }

    /// Numbers rounded to a type.
    pub fn from_f64(dtype: DType, values: impl IntoIterator<Item = f64>) -> Self {
        let values = values.into_iter();
        match dtype {
            DType::F32 => Self::F32(values.map(|x| x as f32).collect()),
            DType::F16 => Self::F16(values.map(f16::from_f64).collect()),
            DType::Bf16 => Self::Bf16(values.map(bf16::from_f64).collect()),
            DType::F64 => Self::F64(values.collect()),
            DType::I64 => Self::I64(values.map(|x| x as i64).collect()),
            DType::U32 => Self::U32(values.map(|x| x as u32).collect()),
        }
    }

    /// The elements as f64.
    pub fn to_f64(&self) -> Vec<f64> {
        match self {
            Self::F32(v) => v.iter().map(|&x| x.into()).collect(),
            Self::F16(v) => v.iter().map(|&x| x.into()).collect(),
            Self::Bf16(v) => v.iter().map(|&x| x.into()).collect(),
            Self::F64(v) => v.clone(),
            Self::I64(v) => v.iter().map(|&x| x as f64).collect(),
            Self::U32(v) => v.iter().map(|&x| x.into()).collect(),
        }
    }

    /// The bytes in memory.
    #[cfg(any(feature = "cuda", feature = "emulate"))]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: numbers have no padding, and any byte is a valid u8.
        for_each_type!(self, v => unsafe { std::slice::from_raw_parts(v.as_ptr().cast(), size_of_val(v.as_slice())) })
    }

    /// The bytes in memory, to be written.
    #[cfg(any(feature = "cuda", feature = "emulate"))]
    pub(crate) fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and any bits are a number.
        for_each_type!(self, v => unsafe {
            std::slice::from_raw_parts_mut(v.as_mut_ptr().cast(), size_of_val(v.as_slice()))
        })
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        for_each_type!(self, v => v.len())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::Bf16(_) => DType::Bf16,
            Self::F64(_) => DType::F64,
            Self::I64(_) => DType::I64,
            Self::U32(_) => DType::U32,
        }
    }
}
