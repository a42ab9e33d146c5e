//! Working memory that is handed on instead of being allocated, zeroed and paged in anew by every block of rows.
//!
//! Each thread keeps the buffers it has used, as many as it held at one time and none above 8 MiB. Their contents are
//! stale: whoever takes one writes all of it before reading.

use super::elem::Elem;
use std::ops::{Deref, DerefMut};

/// Larger buffers are not kept: a thread of a large machine would hold on to too much.
const MAX_KEPT_BYTES: usize = 8 << 20;

/// A buffer of a thread's pool, given back when it is dropped.
pub(crate) struct Scratch<E: Elem> {
    buffer: Vec<E>,
    len: usize,
}

impl<E: Elem> Scratch<E> {
    /// `len` elements of arbitrary content.
    pub(crate) fn new(len: usize) -> Self {
        let mut buffer = E::with_pool(|pool| pool.borrow_mut().pop()).unwrap_or_default();
        if buffer.len() < len {
            // Not `resize`: that would copy what nobody reads.
            buffer = vec![E::zero(); len];
        }
        Self { buffer, len }
    }

    /// Keeps the buffer as an ordinary vector.
    pub(crate) fn into_vec(mut self) -> Vec<E> {
        if self.buffer.len() > 2 * self.len {
            return self.to_vec(); // A small result must not hold on to a large buffer.
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.truncate(self.len);
        buffer
    }
}

impl<E: Elem> Drop for Scratch<E> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if (1..=MAX_KEPT_BYTES / size_of::<E>()).contains(&buffer.len()) {
            E::with_pool(|pool| pool.borrow_mut().push(buffer));
        }
    }
}

impl<E: Elem> Deref for Scratch<E> {
    type Target = [E];

    fn deref(&self) -> &[E] {
        &self.buffer[..self.len]
    }
}

impl<E: Elem> DerefMut for Scratch<E> {
    fn deref_mut(&mut self) -> &mut [E] {
        &mut self.buffer[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn a_buffer_is_handed_on_and_cut_to_length() {
        let mut first = Scratch::<f32>::new(100);
        first.fill(7.0);
        let address = first.as_ptr();
        drop(first);
        let second = Scratch::<f32>::new(60);
        assert_eq!((second.as_ptr(), second.len(), second[0]), (address, 60, 7.0));
        let vector = second.into_vec();
        assert_eq!((vector.as_ptr(), vector.len()), (address, 60));
        assert_eq!(Scratch::<f32>::new(3).len(), 3);
        drop(Scratch::<f32>::new(1 << 22));
        assert!(Scratch::<f32>::new(5).buffer.len() < 1 << 22, "a buffer above the bound is given back");
    }
}
