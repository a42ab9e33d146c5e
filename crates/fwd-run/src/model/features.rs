//! The frozen pass: what the model computes for each sample before any prompt is involved, kept on disk.
//!
//! A file holds one sample. Its name is the SHA-256 of the model's hash, the image's content hash and the instruction, so a
//! file can be missing but never out of date. Layout, little endian: magic `FWDFEAT1`, CRC-32 of what follows, the lengths of
//! four vectors in u32, the vectors in f32. A file that was cut short or damaged is computed anew.

use super::backbone::{Backbone, hex};
use crate::device::DeviceKind;
use crate::files::temporary;
use crate::observer::{Observer, Progress, check};
use anyhow::{Context, Result};
use fwd_data::bench::{Benchmark, Record};
use fwd_models::BlipSample as Sample;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

const MAGIC: &[u8; 8] = b"FWDFEAT1";

/// Computes samples, or takes them from its folder.
pub struct FeatureStore<'a> {
    backbone: &'a Backbone,
    bench: &'a Benchmark,
    dir: PathBuf,
    observer: &'a dyn Observer,
    unwritable: Once,
}

impl<'a> FeatureStore<'a> {
    /// Samples of a benchmark as a model sees them, kept in `dir`; the observer may stop the work between two samples.
    pub fn new(
        backbone: &'a Backbone,
        bench: &'a Benchmark,
        dir: PathBuf,
        observer: &'a dyn Observer,
    ) -> Self {
        Self { backbone, bench, dir, observer, unwritable: Once::new() }
    }

    /// Who watches what is computed with this store.
    pub fn observer(&self) -> &'a dyn Observer {
        self.observer
    }

    /// The samples of some records, in their order, with the first answer of each as the target.
    ///
    /// # Errors
    /// That names the image; [`Interrupted`](crate::observer::Interrupted) between two samples.
    pub fn samples(&self, records: &[&Record], progress: &dyn Progress) -> Result<Vec<Sample>> {
        // Samples side by side use the machine better than each sample's small products do.
        records
            .par_iter()
            .map(|record| {
                check(self.observer)?;
                let sample = self.sample(record)?;
                progress.advance();
                Ok(sample)
            })
            .collect()
    }

    fn sample(&self, record: &Record) -> Result<Sample> {
        let image = self.bench.content_hash(&record.image)?.to_string();
        let path = self.path(&image, &record.instruction);
        let mut sample = match read(&path) {
            Ok(Some(sample)) if self.fits(&sample) => sample,
            unusable => {
                if !matches!(unusable, Ok(None)) {
                    let what = unusable.err().map_or("does not fit the model".to_owned(), |e| e.to_string());
                    tracing::warn!("{}: {what}; its features are computed anew", path.display());
                }
                let bytes = &self.bench.image(&record.image)?;
                let sample = self.backbone.features(bytes, &record.image, &record.instruction);
                let sample = sample.with_context(|| format!("image {}", record.image))?;
                self.keep(&path, &sample);
                sample
            }
        };
        let answer = record.answers.first().map_or("", String::as_str);
        sample.labels = self.backbone.labels(answer)?;
        Ok(sample)
    }

    fn path(&self, image: &str, instruction: &str) -> PathBuf {
        let mut hasher = Sha256::new();
        let tag = DeviceKind::tag(self.backbone.model.device());
        // Without a word for the CPU: its files are as they ever were. A GPU's last digits are others.
        let tag = (!tag.is_empty()).then_some(tag);
        for part in [&self.backbone.hash, image, instruction].into_iter().chain(tag) {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let name = hex(&hasher.finalize());
        self.dir.join(&name[..2]).join(&name[2..])
    }

    fn fits(&self, sample: &Sample) -> bool {
        let dims = fwd_prompt::FrozenModel::dims(&self.backbone.model);
        sample.image_query.len() == dims.image_query
            && sample.text_query.len() == dims.text_query
            && sample.visual_tokens.len().is_multiple_of(dims.model)
            && sample.text_embeds.len().is_multiple_of(dims.model)
    }

    /// A cache that cannot be written costs time, not the run.
    fn keep(&self, path: &Path, sample: &Sample) {
        if let Err(error) = write(path, sample) {
            self.unwritable.call_once(|| {
                tracing::warn!("{}: {error}; features are not kept for the next run", self.dir.display());
            });
        }
    }
}

/// Renamed into place, so that two processes cannot mix. It is not flushed to the disk: the checksum tells what a power cut left.
fn write(path: &Path, sample: &Sample) -> io::Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut file = temporary(dir)?;
    file.write_all(&encode(sample))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// None if there is no file.
fn read(path: &Path) -> io::Result<Option<Sample>> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    decode(&bytes).map(Some).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "damaged or cut short"))
}

fn encode(sample: &Sample) -> Vec<u8> {
    let vectors = [&sample.visual_tokens, &sample.text_embeds, &sample.image_query, &sample.text_query];
    let mut body: Vec<u8> = vectors.iter().flat_map(|v| (v.len() as u32).to_le_bytes()).collect();
    body.extend(vectors.into_iter().flatten().flat_map(|x| x.to_le_bytes()));
    let mut out = MAGIC.to_vec();
    out.extend(crc32fast::hash(&body).to_le_bytes());
    out.extend(body);
    out
}

fn decode(bytes: &[u8]) -> Option<Sample> {
    let (magic, rest) = bytes.split_at_checked(MAGIC.len())?;
    let (crc, body) = rest.split_first_chunk::<4>()?;
    if magic != MAGIC || u32::from_le_bytes(*crc) != crc32fast::hash(body) {
        return None;
    }
    let (words, rest) = body.as_chunks::<4>();
    let (lengths, mut values) = words.split_at_checked(4)?;
    let mut next = |i: usize| {
        let (head, tail) = values.split_at_checked(u32::from_le_bytes(lengths[i]) as usize)?;
        values = tail;
        Some(head.iter().map(|&word| f32::from_le_bytes(word)).collect())
    };
    let sample = Sample {
        visual_tokens: next(0)?,
        text_embeds: next(1)?,
        image_query: next(2)?,
        text_query: next(3)?,
        labels: Vec::new(),
    };
    (values.is_empty() && rest.is_empty()).then_some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_comes_back_and_damage_is_seen() {
        let sample = Sample {
            visual_tokens: vec![1.5, -2.0, f32::MIN_POSITIVE],
            text_embeds: vec![],
            image_query: vec![0.25],
            text_query: vec![3.0, 4.0],
            labels: Vec::new(),
        };
        let bytes = encode(&sample);
        assert_eq!(bytes.len(), MAGIC.len() + 4 + 4 * 4 + 6 * 4);
        assert_eq!(decode(&bytes).as_ref(), Some(&sample));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), None, "{cut}");
        }
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(decode(&damaged), None, "{at}");
        }
    }

    #[test]
    fn a_file_is_written_whole_and_a_missing_one_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ab/cd");
        assert_eq!(read(&path).unwrap(), None);
        let sample = Sample {
            visual_tokens: vec![1.0],
            text_embeds: vec![2.0],
            image_query: vec![3.0],
            text_query: vec![4.0],
            labels: Vec::new(),
        };
        write(&path, &sample).unwrap();
        assert_eq!(read(&path).unwrap(), Some(sample));
        fs::write(&path, b"FWDFEAT1").unwrap();
        assert!(read(&path).is_err());
    }
}
