//! How the weights of a model are kept, together with how its frozen products are computed.

use super::dtype::WeightDtype;
use fwd_ops::Compute;

/// What a model is loaded with. A [`WeightDtype`] alone stands for products in f32, so that functions which take `impl Into<Precision>`
/// take one as well.
///
/// The two are independent of each other: `dtype` is what a weight is rounded to once, on loading, and `compute` what both factors of a
/// frozen product are rounded to. Only a CPU has another `compute` than f32.
///
/// # Examples
/// ```
/// use fwd_models::{Precision, WeightDtype};
/// use fwd_ops::Compute;
/// let precision = Precision::from(WeightDtype::Q8);
/// assert_eq!(precision, Precision { dtype: WeightDtype::Q8, compute: Compute::F32 });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Precision {
    /// How the matrices are kept in memory.
    pub dtype: WeightDtype,
    /// How frozen products are computed.
    pub compute: Compute,
}

impl From<WeightDtype> for Precision {
    fn from(dtype: WeightDtype) -> Self {
        Self { dtype, compute: Compute::F32 }
    }
}
