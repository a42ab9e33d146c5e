//! What is adapted.

use serde::{Deserialize, Serialize};

/// A linear map of a model, `(n_out, n_in)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its name in the model, which is that of its weight without `.weight`.
    pub name: String,
    /// Rows of the weight.
    pub n_out: usize,
    /// Columns of the weight.
    pub n_in: usize,
}
