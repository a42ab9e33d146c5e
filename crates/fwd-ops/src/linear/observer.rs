//! Who sees the inputs of linear maps.

use candle_core::Tensor;
use std::fmt;
use std::sync::Arc;

/// Sees what linear maps read: it is called before each forward pass with the names of the map's parts and the input `(…, n_in)`.
#[derive(Clone)]
pub struct Observer(Arc<See>);

type See = dyn Fn(&[&str], &Tensor) + Send + Sync;

impl Observer {
    /// One that calls a function, of whichever thread the forward pass runs on.
    pub fn new(see: impl Fn(&[&str], &Tensor) + Send + Sync + 'static) -> Self {
        Self(Arc::new(see))
    }

    pub(super) fn see(&self, names: &[&str], input: &Tensor) {
        (self.0)(names, input);
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
