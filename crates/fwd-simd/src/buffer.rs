//! Working memory of packed operands, handed on within a thread instead of being allocated and paged in anew.

use crate::element::Element;
use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

thread_local! {
    static POOL: RefCell<Vec<Vec<<f32 as Element>::Step>>> = const { RefCell::new(Vec::new()) };
}

/// Larger buffers are not kept: a thread of a large machine would hold on to too much.
const MAX_KEPT_BYTES: usize = 16 << 20;

/// 128-byte steps of arbitrary content, given back to the thread's pool when dropped.
#[derive(Debug)]
pub(crate) struct Buffer<T: Element> {
    steps: Vec<<f32 as Element>::Step>,
    n_steps: usize,
    element: std::marker::PhantomData<T>,
}

impl<T: Element> Buffer<T> {
    pub(crate) fn new(n_steps: usize) -> Self {
        let mut steps = POOL.with(|pool| pool.borrow_mut().pop()).unwrap_or_default();
        if steps.len() < n_steps {
            steps = vec![<f32 as Element>::ZERO; n_steps];
        }
        Self { steps, n_steps, element: std::marker::PhantomData }
    }

    /// The same memory as elements.
    #[allow(unsafe_code)]
    pub(crate) fn elements_mut(&mut self) -> &mut [T] {
        let n = self.n_steps * size_of::<T::Step>() / size_of::<T>();
        // SAFETY: a step is an array of elements without padding, every bit pattern of f32 and bf16 is a value, and the alignment of a
        // step is larger than that of an element.
        unsafe { std::slice::from_raw_parts_mut(self.as_mut_ptr().cast(), n) }
    }
}

impl<T: Element> Drop for Buffer<T> {
    fn drop(&mut self) {
        let steps = std::mem::take(&mut self.steps);
        if (1..=MAX_KEPT_BYTES / size_of::<T::Step>()).contains(&steps.len()) {
            let _ = POOL.try_with(|pool| pool.borrow_mut().push(steps));
        }
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T::Step];

    #[allow(unsafe_code)]
    fn deref(&self) -> &[T::Step] {
        const { assert!(size_of::<T::Step>() == size_of::<<f32 as Element>::Step>()) };
        const { assert!(align_of::<T::Step>() == align_of::<<f32 as Element>::Step>()) };
        // SAFETY: the steps of all element types have one size and alignment (asserted above) and no invalid bit pattern.
        unsafe { std::slice::from_raw_parts(self.steps.as_ptr().cast(), self.n_steps) }
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    #[allow(unsafe_code)]
    fn deref_mut(&mut self) -> &mut [T::Step] {
        // SAFETY: as in `deref`, whose assertions hold for the same types.
        unsafe { std::slice::from_raw_parts_mut(self.steps.as_mut_ptr().cast(), self.n_steps) }
    }
}
