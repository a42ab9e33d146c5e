//! The keys and values that a self-attention has seen during generation.

use crate::error::{OpError, Result};
use candle_core::Tensor;

/// The keys and values that a self-attention has seen so far during generation, in memory that is there before they come: a step
/// writes its own and copies nothing. If there are more tokens than expected, the memory doubles.
#[derive(Debug, Default)]
pub struct KvCache {
    /// `(batch, capacity, 2·n_kv_heads·d_head)`, rows `[k ; v]`, of which the first `n` tokens are written.
    memory: Option<Tensor>,
    n: usize,
    capacity: usize,
}

impl KvCache {
    /// A cache with memory for so many tokens of each sequence, which the first step takes.
    pub fn with_capacity(tokens: usize) -> Self {
        Self { memory: None, n: 0, capacity: tokens }
    }

    /// Tokens of each sequence that it holds.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// Keeps the batch entries `rows`, in that order (beam search).
    ///
    /// # Errors
    /// An error of candle if a row does not exist.
    pub fn select(&mut self, rows: &Tensor) -> Result<()> {
        if let Some(memory) = &self.memory {
            self.memory = Some(memory.index_select(rows, 0)?);
        }
        Ok(())
    }

    /// Adds the keys and values of new tokens, `(batch, t_new, width)`; gives those of all tokens, `(batch, t, width)`, as a view.
    pub(super) fn push(&mut self, new: &Tensor) -> Result<Tensor> {
        let (batch, t_new, width) = new.dims3()?;
        let n = self.n + t_new;
        if let Some(memory) = &self.memory
            && (memory.dims()[0], memory.dims()[2]) != (batch, width)
        {
            let what = format!("keys and values {:?} for a cache of {:?}", new.shape(), memory.shape());
            return Err(OpError::shape("key-value cache", what));
        }
        let memory = match self.memory.take() {
            Some(memory) if n <= memory.dims()[1] => memory,
            old => {
                self.capacity = self.capacity.max(n).max(2 * self.n);
                let grown = Tensor::zeros((batch, self.capacity, width), new.dtype(), new.device())?;
                if let Some(old) = old.filter(|_| self.n > 0) {
                    write(&grown, &old.narrow(1, 0, self.n)?, 0)?;
                }
                grown
            }
        };
        write(&memory, new, self.n)?;
        let all = memory.narrow(1, 0, n)?;
        (self.memory, self.n) = (Some(memory), n);
        Ok(all)
    }
}

/// Writes tokens into a memory, from one of its tokens on.
fn write(memory: &Tensor, tokens: &Tensor, at: usize) -> Result<()> {
    // It records no gradient: nor does generation.
    #[allow(clippy::disallowed_methods)]
    memory.slice_set(&tokens.contiguous()?, 1, at)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    fn tokens(values: &[[f32; 2]; 2]) -> Tensor {
        Tensor::new(values, &Device::Cpu).unwrap().unsqueeze(2).unwrap()
    }

    fn rows(all: &Tensor) -> Vec<Vec<f32>> {
        all.squeeze(2).unwrap().to_vec2().unwrap()
    }

    #[test]
    fn what_was_pushed_comes_back_and_memory_grows_when_it_must() {
        let mut cache = KvCache::with_capacity(3);
        assert!(cache.is_empty());
        assert_eq!(rows(&cache.push(&tokens(&[[1., 2.], [3., 4.]])).unwrap()), [[1., 2.], [3., 4.]]);
        let memory = cache.memory.clone().unwrap();
        let last = tokens(&[[5., 0.], [6., 0.]]).narrow(1, 0, 1).unwrap();
        assert_eq!(rows(&cache.push(&last).unwrap()), [[1., 2., 5.], [3., 4., 6.]]);
        // The step wrote into the memory that was there.
        assert_eq!(rows(&memory), [[1., 2., 5.], [3., 4., 6.]]);
        assert_eq!(rows(&cache.push(&last).unwrap()), [[1., 2., 5., 5.], [3., 4., 6., 6.]]);
        assert_eq!((cache.len(), cache.memory.as_ref().unwrap().dims()[1]), (4, 6));
        cache.select(&Tensor::new(&[1u32, 1], &Device::Cpu).unwrap()).unwrap();
        assert_eq!(rows(&cache.push(&last).unwrap()), [[3., 4., 6., 6., 5.], [3., 4., 6., 6., 6.]]);
        let error = cache.push(&last.narrow(0, 0, 1).unwrap()).unwrap_err().to_string();
        assert!(error.contains("for a cache of [2, 6, 1]"), "{error}");
        // What was there is still there.
        assert_eq!(rows(&cache.push(&last).unwrap())[0], [3., 4., 6., 6., 5., 5.]);
    }
}
