//! What a decoder-only model has computed of the beginning of an input, kept so that other endings can be scored behind it.
//!
//! A token's keys and values depend on the tokens in front of it alone. Where soft prompts stand at the end, image and instruction are read
//! once, and a training step runs, and differentiates, prompt and answer only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes that the kept prefixes of a process may take together. The oldest give way to new ones.
const MOST: usize = 1 << 30;

/// The prefixes that are kept, the oldest first. Samples point to them.
static KEPT: Mutex<VecDeque<Arc<Prefix>>> = Mutex::new(VecDeque::new());

/// The keys and values of the beginning of one input, in host memory.
#[derive(Debug)]
pub struct Prefix {
    /// Of each layer `(tokens, 2·n_kv_heads·d_head)` row-major, rows `[k ; v]`, turned by their positions.
    layers: Vec<Vec<f32>>,
    n_tokens: usize,
}

impl Prefix {
    pub(super) fn new(layers: Vec<Vec<f32>>, n_tokens: usize) -> Self {
        Self { layers, n_tokens }
    }

    /// Tokens of the beginning.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Keys and values of each layer.
    pub(super) fn layers(&self) -> &[Vec<f32>] {
        &self.layers
    }

    fn n_bytes(&self) -> usize {
        self.layers.iter().map(|layer| size_of_val(&layer[..])).sum()
    }
}

/// The prefix that a sample has under the one model that reads it, while there is room for it. It is no part of the sample's value: all
/// are equal.
#[derive(Debug, Default)]
pub struct KeptPrefix(Mutex<Weak<Prefix>>);

impl Clone for KeptPrefix {
    fn clone(&self) -> Self {
        Self(Mutex::new(locked(&self.0).clone()))
    }
}

impl PartialEq for KeptPrefix {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl KeptPrefix {
    /// The prefix that is kept, or else what `read` gives, if anything, which is kept from then on.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn get_or<E>(
        &self,
        read: impl FnOnce() -> Result<Option<Prefix>, E>,
    ) -> Result<Option<Arc<Prefix>>, E> {
        if let Some(kept) = locked(&self.0).upgrade() {
            return Ok(Some(kept));
        }
        let Some(prefix) = read()?.map(Arc::new) else { return Ok(None) };
        *locked(&self.0) = Arc::downgrade(&prefix);
        keep(&mut locked(&KEPT), prefix.clone(), MOST);
        Ok(Some(prefix))
    }
}

/// Adds a prefix to those that are kept. Those of samples that are gone, and the oldest, are dropped until all take `most` bytes at most.
fn keep(kept: &mut VecDeque<Arc<Prefix>>, prefix: Arc<Prefix>, most: usize) {
    kept.retain(|prefix| Arc::weak_count(prefix) > 0);
    kept.push_back(prefix);
    let mut n_bytes: usize = kept.iter().map(|prefix| prefix.n_bytes()).sum();
    while n_bytes > most {
        let Some(oldest) = kept.pop_front() else { return };
        n_bytes -= oldest.n_bytes();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(n: usize) -> Prefix {
        Prefix::new(vec![vec![0.0; n]; 2], n)
    }

    #[test]
    fn a_prefix_is_read_once_also_through_a_copy_of_its_sample() {
        let kept = KeptPrefix::default();
        let first = kept.get_or(|| Ok::<_, ()>(Some(prefix(8)))).unwrap().unwrap();
        let again = kept.clone().get_or(|| Err(())).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        assert!(KeptPrefix::default().get_or(|| Err(())).is_err());
        assert!(KeptPrefix::default().get_or(|| Ok::<_, ()>(None)).unwrap().is_none());
    }

    #[test]
    fn the_oldest_give_way_and_those_of_samples_that_are_gone() {
        let mut kept = VecDeque::new();
        let samples: Vec<Arc<Prefix>> = (0..4).map(|_| Arc::new(prefix(10))).collect();
        let mut pointers: Vec<Weak<Prefix>> = samples.iter().map(Arc::downgrade).collect();
        for sample in samples {
            // 80 bytes each: there is room for three.
            keep(&mut kept, sample, 250);
        }
        let is_there = |pointers: &[Weak<Prefix>]| -> Vec<bool> {
            pointers.iter().map(|pointer| pointer.strong_count() > 0).collect()
        };
        assert_eq!(is_there(&pointers), [false, true, true, true]);
        pointers.remove(2);
        let last = Arc::new(prefix(10));
        pointers.push(Arc::downgrade(&last));
        keep(&mut kept, last, 250);
        assert_eq!((kept.len(), is_there(&pointers)), (3, vec![false, true, true, true]));
        let large = Arc::new(prefix(100));
        keep(&mut kept, large, 250);
        assert!(kept.is_empty());
    }
}
