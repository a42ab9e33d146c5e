//! The hash of a benchmark: parts with their names, so that no byte can move from one part to another unseen.

use sha2::{Digest, Sha256};

/// Adds a part.
pub(super) fn feed(hasher: &mut Sha256, name: &str, bytes: &[u8]) {
    announce(hasher, name, bytes.len() as u64);
    hasher.update(bytes);
}

/// Begins a part of `n_bytes` bytes, which must follow.
pub(super) fn announce(hasher: &mut Sha256, name: &str, n_bytes: u64) {
    hasher.update((name.len() as u64).to_le_bytes());
    hasher.update(name);
    hasher.update(n_bytes.to_le_bytes());
}
