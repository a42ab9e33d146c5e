//! The keys and values that a self-attention has seen during generation.

use crate::error::{OpError, Result};
use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, DType, Device, InplaceOp2, Layout, Tensor};

/// The keys and values that a self-attention has seen so far during generation, in memory that is there before they come: a step
/// writes its own and copies nothing. If there are more tokens than expected, the memory doubles.
#[derive(Debug, Default)]
pub struct KvCache {
    /// `(batch, capacity, 2·n_kv_heads·d_head)`, rows `[k ; v]`, of which the first `n` tokens are written.
    memory: Option<Tensor>,
    /// Of the same shape: where [`Self::select`] puts the entries that it keeps. The two change places then.
    spare: Option<Tensor>,
    n: usize,
    capacity: usize,
}

impl KvCache {
    /// A cache with memory for so many tokens of each sequence, which the first step takes.
    pub fn with_capacity(tokens: usize) -> Self {
        Self { capacity: tokens, ..Self::default() }
    }

    /// Tokens of each sequence that it holds.
    pub fn len(&self) -> usize {
        self.n
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.n == 0
    }

    /// What it holds, `(batch, tokens, 2·n_kv_heads·d_head)` with rows `[k ; v]`, as a view.
    ///
    /// # Errors
    /// [`OpError::Shape`] if it holds nothing.
    pub fn tokens(&self) -> Result<Tensor> {
        match &self.memory {
            Some(memory) => Ok(memory.narrow(1, 0, self.n)?),
            None => Err(OpError::shape("key-value cache", "it holds nothing".to_owned())),
        }
    }

    /// Keeps the batch entries `rows` (u32), in that order (beam search). Copies the tokens that are written, and nothing if the entries
    /// stay what they are.
    ///
    /// # Errors
    /// [`OpError::IdOutOfRange`] for an entry that does not exist.
    pub fn select(&mut self, rows: &Tensor) -> Result<()> {
        let Some(memory) = &self.memory else { return Ok(()) };
        let (batch, capacity, width) = memory.dims3()?;
        let ids = rows.to_vec1::<u32>()?;
        if let Some(position) = ids.iter().position(|&id| id as usize >= batch) {
            let id = ids[position].into();
            return Err(OpError::IdOutOfRange { op: "key-value cache", id, position, limit: batch });
        }
        if ids.len() == batch && ids.iter().zip(0..).all(|(&id, i)| id == i) {
            return Ok(());
        }
        if !memory.device().is_cpu() {
            self.memory = Some(memory.index_select(&rows.to_device(memory.device())?, 0)?);
            return Ok(());
        }
        let shape = (ids.len(), capacity, width);
        let kept = match self.spare.take() {
            Some(spare) if spare.dims() == [shape.0, shape.1, shape.2] => spare,
            _ => Tensor::zeros(shape, memory.dtype(), memory.device())?,
        };
        kept.inplace_op2(memory, &Select { ids, n: self.n })?;
        self.spare = self.memory.replace(kept);
        Ok(())
    }

    /// Makes room for new tokens `(batch, t_new, width)`; gives the memory `(batch, capacity, width)`, to write them from token
    /// [`Self::len`] on and to say so with [`Self::advance`].
    pub(super) fn reserve(
        &mut self,
        [batch, t_new, width]: [usize; 3],
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let n = self.n + t_new;
        if let Some(memory) = &self.memory
            && (memory.dims()[0], memory.dims()[2], memory.dtype()) != (batch, width, dtype)
        {
            let what = format!(
                "keys and values {:?} in {dtype:?} for a cache of {:?} in {:?}",
                [batch, t_new, width],
                memory.shape(),
                memory.dtype()
            );
            return Err(OpError::shape("key-value cache", what));
        }
        let memory = match &self.memory {
            Some(memory) if n <= memory.dims()[1] => memory.clone(),
            old => {
                self.capacity = self.capacity.max(n).max(2 * self.n);
                let grown = Tensor::zeros((batch, self.capacity, width), dtype, device)?;
                if let Some(old) = old.as_ref().filter(|_| self.n > 0) {
                    write(&grown, &old.narrow(1, 0, self.n)?, 0)?;
                }
                grown
            }
        };
        self.memory = Some(memory.clone());
        Ok(memory)
    }

    /// Counts new tokens in that were written.
    pub(super) fn advance(&mut self, t_new: usize) {
        self.n += t_new;
    }

    /// Adds the keys and values of new tokens, `(batch, t_new, width)`; gives those of all tokens, `(batch, t, width)`, as a view.
    pub(super) fn push(&mut self, new: &Tensor) -> Result<Tensor> {
        let (batch, t_new, width) = new.dims3()?;
        let memory = self.reserve([batch, t_new, width], new.dtype(), new.device())?;
        write(&memory, new, self.n)?;
        self.advance(t_new);
        Ok(memory.narrow(1, 0, self.n)?)
    }
}

/// Writes tokens into a memory, from one of its tokens on.
fn write(memory: &Tensor, tokens: &Tensor, at: usize) -> Result<()> {
    // It records no gradient: nor does generation.
    #[allow(clippy::disallowed_methods)]
    memory.slice_set(&tokens.contiguous()?, 1, at)?;
    Ok(())
}

/// Copies the first `n` tokens of the entries `ids` of one memory to another one.
struct Select {
    ids: Vec<u32>,
    n: usize,
}

impl Select {
    fn copy<T: Copy>(&self, to: &mut [T], from: &[T], [_, capacity, width]: [usize; 3]) {
        let (row, n) = (capacity * width, self.n * width);
        if n == 0 {
            return;
        }
        for (to, &id) in to.chunks_exact_mut(row).zip(&self.ids) {
            to[..n].copy_from_slice(&from[id as usize * row..][..n]);
        }
    }
}

impl InplaceOp2 for Select {
    fn name(&self) -> &'static str {
        "key_value_select"
    }

    fn cpu_fwd(
        &self,
        to: &mut CpuStorage,
        layout: &Layout,
        from: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<()> {
        let dims = layout.shape().dims3()?.into();
        match (to, from) {
            (CpuStorage::F32(to), CpuStorage::F32(from)) => self.copy(to, from, dims),
            (CpuStorage::F64(to), CpuStorage::F64(from)) => self.copy(to, from, dims),
            (_, from) => candle_core::bail!("a key-value cache in {:?}", from.dtype()),
        }
        Ok(())
    }
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
