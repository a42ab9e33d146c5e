//! Random numbers: every use has a stream of its own, found by the run's seed, a name and two indices, so that nothing has to be
//! saved to go on exactly where a run stopped, and a new use moves no other.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

/// The stream `name[a, b]` of a run: ChaCha8 with the 32-byte key (seed, FNV-1a of the name, a, b), each little-endian.
///
/// # Examples
/// ```
/// use rand::Rng;
/// let draw = |name, a| fwd_continual::stream(7, name, [a, 0]).random::<u64>();
/// assert_eq!(draw("order", 1), draw("order", 1));
/// assert_ne!(draw("order", 1), draw("order", 2));
/// assert_ne!(draw("order", 1), draw("prompts", 1));
/// ```
pub fn stream(seed: u64, name: &str, indices: [u64; 2]) -> ChaCha8Rng {
    let hash = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let mut key = [0; 32];
    for (part, word) in key.chunks_exact_mut(8).zip([seed, hash, indices[0], indices[1]]) {
        part.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// `n` normal numbers of mean 0 and the given standard deviation.
pub fn normal(rng: &mut ChaCha8Rng, n: usize, std: f32) -> Vec<f32> {
    (0..n).map(|_| std * rng.sample::<f32, _>(StandardNormal)).collect()
}

/// The numbers below `n` in an order drawn from a stream.
pub fn permutation(rng: &mut ChaCha8Rng, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.shuffle(rng);
    order
}
