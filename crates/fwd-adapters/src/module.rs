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

impl Module {
    /// The layer that the map belongs to: its name up to the first number in it (`model.layers.31`); none without a number.
    pub fn layer(&self) -> Option<&str> {
        let mut end = 0;
        for part in self.name.split('.') {
            end += part.len();
            if part.parse::<u32>().is_ok() {
                return Some(&self.name[..end]);
            }
            end += 1;
        }
        None
    }
}
