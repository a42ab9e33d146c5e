//! Activations, packed for one product.

use crate::buffer::Buffer;
use crate::element::{Element, Kernel};
use crate::level::Cpu;
use crate::split::blocks;
use faer::MatRef;

/// The left factor `x (m, depth)` of a product, in the order in which the kernel of its level reads it.
///
/// Rows are cut into blocks of about equal height, at most what the kernel takes; of a block, all rows of a step follow each other.
#[derive(Debug)]
pub struct Lhs<T: Element> {
    pub(crate) kernel: Kernel<T>,
    pub(crate) n_rows: usize,
    pub(crate) depth: usize,
    pub(crate) data: Buffer<T>,
}

impl<T: Element> Lhs<T> {
    /// Packs `alpha·x` for products at a level, in working memory of the thread.
    ///
    /// # Panics
    /// If the packed rows are larger than memory can be.
    #[allow(unsafe_code)]
    pub fn pack(cpu: Cpu, x: MatRef<'_, f32>, alpha: f32) -> Self {
        let kernel = T::kernel(cpu);
        let (n_rows, depth) = (x.nrows(), x.ncols());
        let n_elements =
            (T::steps(depth) * T::DEPTH).checked_mul(n_rows).expect("packed rows that memory can hold");
        let per_step = size_of::<T::Step>() / size_of::<T>();
        let mut data = Buffer::new(n_elements.div_ceil(per_step));
        let elements = data.elements_mut();
        for (first, n) in blocks(n_rows, kernel.max_rows) {
            let at = first * T::steps(depth) * T::DEPTH;
            let block = &mut elements[at..][..n * T::steps(depth) * T::DEPTH];
            // SAFETY: the kernel belongs to the level of `cpu`, which the processor has.
            unsafe { (kernel.pack_rows)(x.subrows(first, n), alpha, block) };
        }
        Self { kernel, n_rows, depth, data }
    }

    /// Rows of the product.
    pub fn n_rows(&self) -> usize {
        self.n_rows
    }

    /// Columns of the activations: the depth of the product.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// First row and height of every block.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = (usize, usize)> {
        blocks(self.n_rows, self.kernel.max_rows)
    }

    /// The packed elements.
    #[allow(unsafe_code)]
    pub(crate) fn elements(&self) -> &[T] {
        let n = self.data.len() * size_of::<T::Step>() / size_of::<T>();
        // SAFETY: a step is an array of elements without padding, and its alignment is larger than that of an element.
        unsafe { std::slice::from_raw_parts(self.data.as_ptr().cast(), n) }
    }
}
