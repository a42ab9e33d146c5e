//! Damage to bytes: what a bad disk, a broken copy and somebody with a hex editor do.

use rand::Rng;
use rand_chacha::ChaCha8Rng;
use std::ops::Range;

const BYTES: [u8; 8] = [0, 1, 0x20, 0x7f, 0x80, 0xfe, 0xff, b'"'];

/// Lengths, counts and offsets that overflow something.
const WORDS: [u64; 16] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_fff8,
    u64::MAX,
];

/// One change; `other` is a file of the same reader.
pub(crate) fn change(rng: &mut ChaCha8Rng, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
    if bytes.is_empty() {
        return other.to_vec();
    }
    let at = place(rng, bytes.len());
    match rng.random_range(0..11) {
        0 | 1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => bytes[at] = rng.random(),
        3 => bytes[at] = BYTES[rng.random_range(0..BYTES.len())],
        4 => drop(bytes.drain(range(rng, at, bytes.len()))),
        5 => {
            let copy = bytes[range(rng, at, bytes.len())].to_vec();
            let to = place(rng, bytes.len());
            bytes.splice(to..to, copy);
        }
        6 => {
            let new: Vec<u8> = (0..rng.random_range(1..16)).map(|_| rng.random()).collect();
            bytes.splice(at..at, new);
        }
        7 => bytes.truncate(at),
        8 => {
            let from = place(rng, other.len().max(1)).min(other.len());
            bytes.truncate(at);
            bytes.extend(&other[from..]);
        }
        _ => word(rng, &mut bytes, at),
    }
    bytes
}

/// Replaces a number of 2, 4 or 8 bytes, in either order of bytes.
fn word(rng: &mut ChaCha8Rng, bytes: &mut [u8], at: usize) {
    let width = [2, 4, 8][rng.random_range(0..3)];
    let value = match rng.random_bool(0.2) {
        // A little more or less than what is there.
        true => {
            let there = bytes[at..].iter().take(width).rev().fold(0u64, |n, &b| n << 8 | u64::from(b));
            there.wrapping_add_signed(rng.random_range(-9..=9))
        }
        false => WORDS[rng.random_range(0..WORDS.len())],
    };
    let mut word = value.to_le_bytes()[..width].to_vec();
    if rng.random_bool(0.3) {
        word.reverse();
    }
    bytes[at..].iter_mut().zip(word).for_each(|(byte, new)| *byte = new);
}

/// A place in a file: anywhere, or with the same probability in its head or its last bytes, where lengths are.
fn place(rng: &mut ChaCha8Rng, len: usize) -> usize {
    const HEAD: usize = 512;
    match rng.random_range(0..4) {
        0 => rng.random_range(0..len.min(HEAD)),
        1 => len - 1 - rng.random_range(0..len.min(HEAD)),
        _ => rng.random_range(0..len),
    }
}

/// From `at`, short or long.
fn range(rng: &mut ChaCha8Rng, at: usize, len: usize) -> Range<usize> {
    let longest = if rng.random_bool(0.7) { 16 } else { len };
    at..at + rng.random_range(1..=longest).min(len - at)
}
