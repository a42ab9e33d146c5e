//! Rows of features on disk: f32, little endian, two of each sample.

use anyhow::Result;
use fwd_continual::{normal, stream};
use std::fs::File;
use std::io::{BufWriter, Read, Seek, Write};

/// Rows of a sample.
pub(super) const OF_SAMPLE: usize = 2;
/// Numbers that are drawn; rows are pieces of them, each from another place on.
const DRAWN: usize = 1 << 20;
/// From row to row the piece moves by so many numbers; a prime, so that pieces come again only after many rows.
const STRIDE: usize = 7919;

/// A temporary file of rows.
pub(super) struct RowFile {
    file: File,
    dim: usize,
}

impl RowFile {
    /// The rows of so many samples of a width.
    pub(super) fn new(samples: usize, dim: usize) -> Result<Self> {
        let drawn = normal(&mut stream(0, "features", [0, 0]), DRAWN + dim, 1.0);
        let drawn: Vec<u8> = drawn.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut file = BufWriter::with_capacity(1 << 20, tempfile::tempfile()?);
        for row in 0..samples * OF_SAMPLE {
            let at = 4 * (row * STRIDE % DRAWN);
            file.write_all(&drawn[at..at + 4 * dim])?;
        }
        Ok(Self { file: file.into_inner()?, dim })
    }

    /// Shows all rows, `at_most` at a time.
    pub(super) fn each(&self, at_most: usize, mut see: impl FnMut(&[f32]) -> Result<()>) -> Result<()> {
        let mut file = &self.file;
        file.rewind()?;
        let mut bytes = vec![0; at_most * self.dim * 4];
        loop {
            let mut n = 0;
            while n < bytes.len() {
                match file.read(&mut bytes[n..])? {
                    0 => break,
                    more => n += more,
                }
            }
            if n == 0 {
                return Ok(());
            }
            see(&numbers(&bytes[..n]))?;
        }
    }

    /// The rows of one sample, one after another.
    #[cfg(unix)]
    pub(super) fn sample(&self, sample: usize) -> std::io::Result<Vec<f32>> {
        use std::os::unix::fs::FileExt;
        let mut bytes = vec![0; OF_SAMPLE * self.dim * 4];
        self.file.read_exact_at(&mut bytes, (sample * OF_SAMPLE * self.dim * 4) as u64)?;
        Ok(numbers(&bytes))
    }

    /// The rows of one sample; only Unix reads at a place of a shared file.
    #[cfg(not(unix))]
    pub(super) fn sample(&self, _sample: usize) -> std::io::Result<Vec<f32>> {
        Err(std::io::Error::other("this benchmark needs Unix"))
    }
}

fn numbers(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|&word| f32::from_le_bytes(word)).collect()
}
