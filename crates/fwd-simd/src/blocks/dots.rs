//! Decoding of rows, and dot products of stored rows with few rows of activations.
#![allow(clippy::needless_range_loop)] // Counted loops over arrays become vector instructions.

use super::isa::{Floats, FloatsWork, Int8, Int8Work, run_floats, run_int8};
use super::layout::{Block, IntegerBlock, for_format, for_integer_format};
use super::rounded::Group;
use super::{Format, GROUP, Rounded};
use crate::level::Cpu;

/// Decodes `out.len()` elements of a stored row, exactly, from element `from` on.
///
/// # Panics
/// If `from` is not a multiple of 32 in a format of blocks, the end neither, or the row ends before.
pub fn decode(cpu: Cpu, format: Format, row: &[u8], from: usize, out: &mut [f32]) {
    let is_float = format.block_len() == 1;
    assert!(is_float || (from.is_multiple_of(GROUP) && out.len().is_multiple_of(GROUP)), "whole groups");
    let (row, from) = if is_float { (&row[from * format.block_bytes()..], 0) } else { (row, from) };
    for_format!(format, decode_as[](cpu, row, from, out));
}

fn decode_as<B: Block<BYTES>, const BYTES: usize>(cpu: Cpu, row: &[u8], from: usize, out: &mut [f32]) {
    run_floats(cpu, Decode::<B, BYTES> { row, from, out, format: std::marker::PhantomData });
}

struct Decode<'a, B, const BYTES: usize> {
    row: &'a [u8],
    from: usize,
    out: &'a mut [f32],
    format: std::marker::PhantomData<B>,
}

impl<B: Block<BYTES>, const BYTES: usize> FloatsWork for Decode<'_, B, BYTES> {
    #[inline(always)]
    fn run<I: Floats>(self, isa: I) {
        let (groups, tail) = self.out.as_chunks_mut::<GROUP>();
        let (n_groups, mut at) = (groups.len(), self.from / GROUP);
        let blocks = self.row.as_chunks::<BYTES>().0;
        let mut done = 0;
        while done < n_groups {
            let block = &blocks[at / B::GROUPS];
            let scales = B::scales(isa, block);
            let first = at % B::GROUPS;
            let n = (B::GROUPS - first).min(n_groups - done);
            for (j, out) in (first..).zip(&mut groups[done..done + n]) {
                decode_group::<B, BYTES, I>(isa, block, &scales, j, out);
            }
            done += n;
            at += n;
        }
        if !tail.is_empty() {
            let block = padded_block::<BYTES>(self.row, n_groups, tail.len());
            let mut values = [0f32; GROUP];
            decode_group::<B, BYTES, I>(isa, &block, &B::scales(isa, &block), 0, &mut values);
            tail.copy_from_slice(&values[..tail.len()]);
        }
    }
}

#[inline(always)]
fn decode_group<B: Block<BYTES>, const BYTES: usize, I: Floats>(
    isa: I,
    block: &[u8; BYTES],
    scales: &B::Scales,
    j: usize,
    out: &mut [f32; GROUP],
) {
    let (scale, offset) = B::affine(scales, j);
    isa.store(B::numbers(isa, block, j), scale, B::HAS_OFFSET.then_some(offset), out);
}

/// The last `n < GROUP` elements of a row of a float type, after `n_blocks` groups, and zeros behind them.
#[inline(always)]
fn padded_block<const BYTES: usize>(row: &[u8], n_blocks: usize, n: usize) -> [u8; BYTES] {
    let mut block = [0u8; BYTES];
    let n_bytes = n * (BYTES / GROUP);
    block[..n_bytes].copy_from_slice(&row[n_blocks * BYTES..][..n_bytes]);
    block
}

/// `out (n_rows, m)`: the dot products of the stored `rows` with each of the rows of `x (m, n_cols)`, in f32.
///
/// # Panics
/// If the lengths do not fit together.
pub fn products(cpu: Cpu, format: Format, rows: &[u8], x: &[f32], n_cols: usize, out: &mut [f32]) {
    assert!(n_cols > 0 && x.len().is_multiple_of(n_cols), "rows of activations of {n_cols} columns");
    let m = x.len() / n_cols;
    let n_rows = check(format, rows, n_cols, m, out);
    for (first, n) in at_once(m) {
        let x = &x[first * n_cols..][..n * n_cols];
        let rows = Rows { bytes: rows, n_rows, n_cols, m, first };
        match n {
            1 => for_format!(format, dots[1](cpu, rows, x, out)),
            2 => for_format!(format, dots[2](cpu, rows, x, out)),
            _ => for_format!(format, dots[4](cpu, rows, x, out)),
        }
    }
}

/// As [`products`], with activations of 8 bits: sums of products of integers within each group of 32, scaled and summed in f32.
///
/// With `s` the scales of the activations, `d` those of the elements and `q` the integers, an element of the result is off by at most
/// `Σ_groups |d|·Σ|q|·s/2` from that of exact activations, besides the rounding of f32.
///
/// # Panics
/// If the lengths do not fit together, or the format is a float type.
pub fn rounded_products(cpu: Cpu, format: Format, rows: &[u8], x: &Rounded, out: &mut [f32]) {
    let (m, n_cols) = (x.n_rows(), x.n_cols());
    let n_rows = check(format, rows, n_cols, m, out);
    let n_groups = n_cols / GROUP;
    for (first, n) in at_once(m) {
        let x = &x.groups()[first * n_groups..][..n * n_groups];
        let rows = Rows { bytes: rows, n_rows, n_cols, m, first };
        let other = || -> () { panic!("products in 8 bits are for blocks of integers, not for {format}") };
        match n {
            1 => for_integer_format!(format, int8_dots[1](cpu, rows, x, out), else other()),
            2 => for_integer_format!(format, int8_dots[2](cpu, rows, x, out), else other()),
            _ => for_integer_format!(format, int8_dots[4](cpu, rows, x, out), else other()),
        }
    }
}

/// The number of rows.
fn check(format: Format, rows: &[u8], n_cols: usize, m: usize, out: &[f32]) -> usize {
    let row_bytes = format.row_bytes(n_cols);
    assert!(row_bytes > 0 && rows.len().is_multiple_of(row_bytes), "whole rows");
    let n_rows = rows.len() / row_bytes;
    assert_eq!(out.len(), n_rows * m, "a result of another shape");
    n_rows
}

/// First row and number of rows of activations that share the decoding: 4, 2 or 1.
fn at_once(m: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut first = 0;
    std::iter::from_fn(move || {
        let n = match m - first {
            0 => return None,
            1 => 1,
            2 | 3 => 2,
            _ => 4,
        };
        first += n;
        Some((first - n, n))
    })
}

/// Stored rows, and which rows of all activations are multiplied with them.
#[derive(Clone, Copy)]
struct Rows<'a> {
    bytes: &'a [u8],
    n_rows: usize,
    n_cols: usize,
    /// Rows of all activations.
    m: usize,
    /// The first of them here.
    first: usize,
}

impl<'a> Rows<'a> {
    /// The rows, one after the other: several at a time would be as many streams of memory, each too short to be fetched ahead.
    #[inline(always)]
    fn each(&self) -> impl Iterator<Item = (usize, &'a [u8])> {
        let n_bytes = self.bytes.len() / self.n_rows.max(1);
        self.bytes.chunks_exact(n_bytes.max(1)).enumerate()
    }

    /// Writes a row's products to their place.
    #[inline(always)]
    fn put<const M: usize>(&self, row: usize, products: [f32; M], out: &mut [f32]) {
        out[row * self.m + self.first..][..M].copy_from_slice(&products);
    }
}

fn dots<B: Block<BYTES>, const BYTES: usize, const M: usize>(
    cpu: Cpu,
    rows: Rows<'_>,
    x: &[f32],
    out: &mut [f32],
) {
    run_floats(cpu, Dots::<B, BYTES, M> { rows, x, out, format: std::marker::PhantomData });
}

/// Products with `M` rows of activations.
struct Dots<'a, B, const BYTES: usize, const M: usize> {
    rows: Rows<'a>,
    x: &'a [f32],
    out: &'a mut [f32],
    format: std::marker::PhantomData<B>,
}

impl<B: Block<BYTES>, const BYTES: usize, const M: usize> FloatsWork for Dots<'_, B, BYTES, M> {
    #[inline(always)]
    fn run<I: Floats>(self, isa: I) {
        let n_cols = self.rows.n_cols;
        let x: [&[f32]; M] = std::array::from_fn(|i| &self.x[i * n_cols..][..n_cols]);
        for (i, row) in self.rows.each() {
            let products = dot::<B, BYTES, M, I>(isa, row, &x);
            self.rows.put(i, products, self.out);
        }
    }
}

#[inline(always)]
fn dot<B: Block<BYTES>, const BYTES: usize, const M: usize, I: Floats>(
    isa: I,
    row: &[u8],
    x: &[&[f32]; M],
) -> [f32; M] {
    let mut sums = [isa.zero(); M];
    let mut offsets = [isa.zero(); M];
    let n_blocks = x[0].len() / (GROUP * B::GROUPS);
    let groups = x.map(|x| &x.as_chunks::<GROUP>().0[..n_blocks * B::GROUPS]);
    for (i, block) in row.as_chunks::<BYTES>().0[..n_blocks].iter().enumerate() {
        let scales = B::scales(isa, block);
        for j in 0..B::GROUPS {
            let q = B::numbers(isa, block, j);
            let (scale, offset) = B::affine(&scales, j);
            for m in 0..M {
                let x = &groups[m][i * B::GROUPS + j];
                sums[m] = isa.add(sums[m], q, x, scale, B::TWO_SCALES);
                if B::HAS_OFFSET {
                    offsets[m] = isa.add_sum(offsets[m], x, offset);
                }
            }
        }
    }
    let tail = x[0].len() % GROUP;
    if tail > 0 {
        let block = padded_block::<BYTES>(row, n_blocks, tail);
        let q = B::numbers(isa, &block, 0);
        let (scale, _) = B::affine(&B::scales(isa, &block), 0);
        for m in 0..M {
            let mut end = [0f32; GROUP];
            end[..tail].copy_from_slice(&x[m][n_blocks * GROUP..]);
            sums[m] = isa.add(sums[m], q, &end, scale, false);
        }
    }
    let mut products = [0f32; M];
    for m in 0..M {
        products[m] = isa.total(sums[m]);
        if B::HAS_OFFSET {
            products[m] += isa.total(offsets[m]);
        }
    }
    products
}

fn int8_dots<B: IntegerBlock<BYTES>, const BYTES: usize, const M: usize>(
    cpu: Cpu,
    rows: Rows<'_>,
    x: &[Group],
    out: &mut [f32],
) {
    run_int8(cpu, Int8Dots::<B, BYTES, M> { rows, x, out, format: std::marker::PhantomData });
}

/// [`Dots`] with activations of 8 bits.
struct Int8Dots<'a, B, const BYTES: usize, const M: usize> {
    rows: Rows<'a>,
    x: &'a [Group],
    out: &'a mut [f32],
    format: std::marker::PhantomData<B>,
}

impl<B: IntegerBlock<BYTES>, const BYTES: usize, const M: usize> Int8Work for Int8Dots<'_, B, BYTES, M> {
    #[inline(always)]
    fn run<I: Int8>(self, isa: I) {
        let n_groups = self.rows.n_cols / GROUP;
        let x: [&[Group]; M] = std::array::from_fn(|i| &self.x[i * n_groups..][..n_groups]);
        for (i, row) in self.rows.each() {
            let products = int8_dot::<B, BYTES, M, I>(isa, row, &x);
            self.rows.put(i, products, self.out);
        }
    }
}

#[inline(always)]
fn int8_dot<B: IntegerBlock<BYTES>, const BYTES: usize, const M: usize, I: Int8>(
    isa: I,
    row: &[u8],
    x: &[&[Group]; M],
) -> [f32; M] {
    let mut sums = [isa.zero(); M];
    let mut products = [0f32; M];
    let n_blocks = x[0].len() / B::GROUPS;
    let groups = x.map(|x| &x[..n_blocks * B::GROUPS]);
    for (i, block) in row.as_chunks::<BYTES>().0[..n_blocks].iter().enumerate() {
        let scales = B::scales(isa, block);
        for j in 0..B::GROUPS {
            let codes = B::codes(isa, block, j);
            let (scale, offset) = B::affine(&scales, j);
            for m in 0..M {
                let x = &groups[m][i * B::GROUPS + j];
                let scale = scale.map(|scale| scale * x.scale);
                sums[m] = isa.add(sums[m], codes, B::MIDDLE, x, scale, B::TWO_SCALES);
                if B::HAS_OFFSET {
                    products[m] += offset * x.sum;
                }
            }
        }
    }
    for m in 0..M {
        products[m] += isa.total(sums[m]);
    }
    products
}
