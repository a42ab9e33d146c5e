//! Looking at intermediate activations: every model calls its tap with the name and the value of each stage.

use candle_core::Tensor;

type Look<'a> = dyn FnMut(&str, &Tensor) + Send + 'a;

/// Sees the stages of a forward pass, named after Hugging Face's modules (`vision.layer.3`, `t5.encoder.block.0` …).
///
/// ```
/// let mut names = Vec::new();
/// let mut look = |name: &str, _value: &candle_core::Tensor| names.push(name.to_string());
/// let tap = fwd_models::Tap::new(&mut look);
/// # drop(tap);
/// ```
pub struct Tap<'a>(Option<&'a mut Look<'a>>);

impl std::fmt::Debug for Tap<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap").field("is_seen", &self.0.is_some()).finish_non_exhaustive()
    }
}

impl<'a> Tap<'a> {
    /// Calls `look` for every stage.
    pub fn new(look: &'a mut Look<'a>) -> Self {
        Self(Some(look))
    }

    /// Sees nothing and costs nothing.
    pub fn none() -> Self {
        Self(None)
    }

    /// Shows the value of a stage; a model calls this at each of its own.
    pub fn see(&mut self, name: &str, value: &Tensor) {
        if let Some(look) = &mut self.0 {
            look(name, value);
        }
    }

    /// Shows the value of one layer of a stack, under the name `stack.layer`.
    pub fn see_layer(&mut self, stack: &str, layer: usize, value: &Tensor) {
        if let Some(look) = &mut self.0 {
            look(&format!("{stack}.{layer}"), value);
        }
    }
}
