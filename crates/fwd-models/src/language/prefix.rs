//! What a decoder-only model has computed of the beginning of an input, kept so that other endings can be scored behind it.
//!
//! A token's keys and values depend on the tokens in front of it alone. Where soft prompts stand at the end, image and instruction are read
//! once, and a training step runs, and differentiates, prompt and answer only.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Bytes that the kept prefixes of a process may take together. The oldest give way to new ones.
const MOST: usize = 1 << 30;

/// Bytes that the prefixes of one batch may take; where they would take more, nothing is kept and the whole input is computed.
pub(crate) const MOST_OF_BATCH: usize = MOST / 4;

/// Where a prefix is kept, as long as its sample is there.
type Cell = Mutex<Option<Arc<Prefix>>>;

/// The places with a prefix, the oldest first.
static KEPT: Mutex<VecDeque<Weak<Cell>>> = Mutex::new(VecDeque::new());

/// The keys and values of the beginning of one input, in host memory.
#[derive(Debug)]
pub struct Prefix {
    /// Of each layer `(tokens, 2·n_kv_heads·d_head)` row-major, rows `[k ; v]`, turned by their positions.
    layers: Vec<Vec<f32>>,
    n_tokens: usize,
    /// Which model it is of, in a number that no other model of the process has.
    model: u64,
}

impl Prefix {
    pub(super) fn new(layers: Vec<Vec<f32>>, n_tokens: usize, model: u64) -> Self {
        Self { layers, n_tokens, model }
    }

    /// Tokens of the beginning.
    pub fn n_tokens(&self) -> usize {
        self.n_tokens
    }

    /// Keys and values of each layer.
    pub(super) fn layers(&self) -> &[Vec<f32>] {
        &self.layers
    }

    pub(super) fn model(&self) -> u64 {
        self.model
    }

    fn n_bytes(&self) -> usize {
        self.layers.iter().map(|layer| size_of_val(&layer[..])).sum()
    }
}

/// The prefix that a sample has under the model that read it last, while there is room for it. It is no part of the sample's value: all are
/// equal. Copies of a sample share it.
#[derive(Debug, Clone, Default)]
pub struct KeptPrefix(Arc<Cell>);

impl PartialEq for KeptPrefix {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl KeptPrefix {
    /// The prefix that is kept, if `is_usable` says so, or else what `read` gives, which is kept from then on.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn get_or<E>(
        &self,
        is_usable: impl FnOnce(&Prefix) -> bool,
        read: impl FnOnce() -> Result<Prefix, E>,
    ) -> Result<Arc<Prefix>, E> {
        if let Some(kept) = locked(&self.0).clone().filter(|prefix| is_usable(prefix)) {
            return Ok(kept);
        }
        let prefix = Arc::new(read()?);
        *locked(&self.0) = Some(prefix.clone());
        keep(&mut locked(&KEPT), &self.0, MOST);
        Ok(prefix)
    }
}

/// Adds a place with a prefix to those that there are, of which the oldest are emptied until all take `most` bytes at most.
fn keep(kept: &mut VecDeque<Weak<Cell>>, new: &Arc<Cell>, most: usize) {
    let n_bytes = |cell: &Cell| locked(cell).as_ref().map_or(0, |prefix| prefix.n_bytes());
    kept.retain(|cell| cell.upgrade().is_some_and(|cell| n_bytes(&cell) > 0 && !Arc::ptr_eq(&cell, new)));
    kept.push_back(Arc::downgrade(new));
    let mut all: usize = kept.iter().filter_map(Weak::upgrade).map(|cell| n_bytes(&cell)).sum();
    while all > most {
        let Some(oldest) = kept.pop_front() else { return };
        if let Some(cell) = oldest.upgrade() {
            all -= n_bytes(&cell);
            *locked(&cell) = None;
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(n: usize) -> Prefix {
        Prefix::new(vec![vec![0.0; n]; 2], n, 1)
    }

    #[test]
    fn a_prefix_is_read_once_and_anew_for_another_model() {
        let kept = KeptPrefix::default();
        let first = kept.get_or(|_| true, || Ok::<_, ()>(prefix(8))).unwrap();
        let again = kept.clone().get_or(|prefix| prefix.model() == 1, || Err(())).unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        let other = kept.get_or(|prefix| prefix.model() == 2, || Ok::<_, ()>(prefix(4))).unwrap();
        assert_eq!(other.n_tokens(), 4);
        assert!(KeptPrefix::default().get_or(|_| true, || Err(())).is_err());
    }

    #[test]
    fn the_oldest_give_way_and_those_of_samples_that_are_gone() {
        let mut kept = VecDeque::new();
        let cell = |n: usize| Arc::new(Mutex::new(Some(Arc::new(prefix(n)))));
        let mut samples: Vec<Arc<Cell>> = (0..4).map(|_| cell(10)).collect();
        // 80 bytes each: there is room for three.
        samples.iter().for_each(|sample| keep(&mut kept, sample, 250));
        let is_kept = |samples: &[Arc<Cell>]| -> Vec<bool> {
            samples.iter().map(|sample| locked(sample).is_some()).collect()
        };
        assert_eq!(is_kept(&samples), [false, true, true, true]);
        let gone = Arc::downgrade(&locked(&samples.remove(2)).clone().unwrap());
        assert_eq!(gone.strong_count(), 0);
        samples.push(cell(10));
        keep(&mut kept, &samples[3], 250);
        assert_eq!((kept.len(), is_kept(&samples)), (3, vec![false, true, true, true]));
        // One that is read again for another model counts once.
        keep(&mut kept, &samples[1], 250);
        assert_eq!((kept.len(), is_kept(&samples)), (3, vec![false, true, true, true]));
        let large = cell(100);
        keep(&mut kept, &large, 250);
        assert!(kept.is_empty() && locked(&large).is_none());
    }
}
