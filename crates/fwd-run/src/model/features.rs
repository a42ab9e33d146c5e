//! The frozen pass: what the model computes for each sample before any prompt is involved, kept on disk.
//!
//! A file holds one sample. Its name is the SHA-256 of the model's hash, the image's content hash, the instruction, the kind of
//! device with its level of vector instructions, the layout, and where they are not f32 and plain, the type of the weights, how products
//! are computed, and the template. So a file can be missing but
//! never out of date, except after a change of a large weight file that the model's hash does not notice
//! ([`Backbone::hash`]; docs/reliability.md lists these changes).
//!
//! Layout, little endian: magic `FWDFEAT3`, CRC-32 of what follows, in u32 the number n of segments and for each its kind and its
//! length, the lengths of both queries, then all these vectors in f32. A file that was cut short or damaged is computed anew.

use super::backbone::{Backbone, hex};
use crate::device::DeviceKind;
use crate::observer::{Observer, Progress, check};
use anyhow::Result;
use fwd_data::Orientation;
use fwd_data::bench::{Benchmark, Record, Split};
use fwd_models::{KeptPrefix, Sample, SampleSegment, SegmentKind};
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Once;

const MAGIC: &[u8; 8] = b"FWDFEAT3";

/// The largest file that is read, in bytes: 16,384 tokens of width 4096.
const MAX_BYTES: u64 = 1 << 28;

/// Computes samples, or takes them from its folder.
pub struct FeatureStore<'a> {
    backbone: &'a Backbone,
    bench: &'a Benchmark,
    dir: PathBuf,
    observer: &'a dyn Observer,
    unwritable: Once,
}

impl std::fmt::Debug for FeatureStore<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FeatureStore").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl<'a> FeatureStore<'a> {
    /// Samples of a benchmark as a model sees them, kept in `dir`; the observer may stop the work between two samples.
    pub fn new(
        backbone: &'a Backbone,
        bench: &'a Benchmark,
        dir: PathBuf,
        observer: &'a dyn Observer,
    ) -> Self {
        fwd_files::sweep(&dir);
        Self { backbone, bench, dir, observer, unwritable: Once::new() }
    }

    /// Who watches what is computed with this store.
    pub fn observer(&self) -> &'a dyn Observer {
        self.observer
    }

    /// The samples of some records, in their order, with the first answer of each training record as the target.
    ///
    /// # Errors
    /// That names the image that cannot be read, or quotes the instruction that is too long; [`Interrupted`](crate::observer::Interrupted) between two samples.
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
                let stored = Orientation::Stored;
                let sample = self.backbone.features(bytes, &record.image, stored, &record.instruction)?;
                self.keep(&path, &sample);
                sample
            }
        };
        // The answers of other splits are only compared with, and may have any length.
        if record.split == Split::Train {
            let answer = record.answers.first().map_or("", String::as_str);
            sample.labels = self.backbone.labels(&record.instruction, answer)?;
        }
        Ok(sample)
    }

    fn path(&self, image: &str, instruction: &str) -> PathBuf {
        let mut hasher = Sha256::new();
        let tag = DeviceKind::tag(self.backbone.model.device());
        // The layout is in the name, so that older files are no damaged ones; it changes with the pixels too.
        let layout = str::from_utf8(MAGIC).unwrap_or_default();
        let variant = self.backbone.variant();
        let parts = [&self.backbone.hash, image, instruction, tag, layout].into_iter();
        for part in parts.chain((!variant.is_empty()).then_some(&*variant)) {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let name = hex(&hasher.finalize());
        self.dir.join(&name[..2]).join(&name[2..])
    }

    fn fits(&self, sample: &Sample) -> bool {
        let dims = self.backbone.model.prompt_dims();
        sample.image_query.len() == dims.image_query
            && sample.text_query.len() == dims.text_query
            && sample.segments.iter().all(|segment| segment.embeds.len().is_multiple_of(dims.model))
    }

    /// A cache that cannot be written costs time, not the run.
    fn keep(&self, path: &Path, sample: &Sample) {
        if let Err(error) = write(&self.dir, path, sample) {
            self.unwritable.call_once(|| {
                tracing::warn!("{}: {error}; features are not kept for the next run", self.dir.display());
            });
        }
    }
}

/// Renamed into place, so that two processes cannot mix. It is not flushed to the disk: the checksum tells what a power cut left.
/// The temporary file is in `dir` itself, where the next process looks for leftovers.
fn write(dir: &Path, path: &Path, sample: &Sample) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(dir))?;
    let mut file = fwd_files::temporary(dir)?;
    file.write_all(&encode(sample))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// None if there is no file.
fn read(path: &Path) -> io::Result<Option<Sample>> {
    let bytes = match fwd_files::read(path, MAX_BYTES) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        bytes => bytes?,
    };
    decode(&bytes).map(Some).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "damaged or cut short"))
}

/// The kinds of segments; in a file, the position of a kind stands for it.
const KINDS: [SegmentKind; 3] = [SegmentKind::Prompt, SegmentKind::Image, SegmentKind::Text];

fn number(kind: SegmentKind) -> u32 {
    match kind {
        SegmentKind::Prompt => 0,
        SegmentKind::Image => 1,
        SegmentKind::Text => 2,
    }
}

fn encode(sample: &Sample) -> Vec<u8> {
    let mut head = vec![sample.segments.len() as u32];
    for segment in &sample.segments {
        head.extend([number(segment.kind), segment.embeds.len() as u32]);
    }
    head.extend([sample.image_query.len() as u32, sample.text_query.len() as u32]);
    let mut body: Vec<u8> = head.into_iter().flat_map(u32::to_le_bytes).collect();
    let embeds = sample.segments.iter().flat_map(|segment| &segment.embeds);
    let values = embeds.chain(&sample.image_query).chain(&sample.text_query);
    body.extend(values.flat_map(|x| x.to_le_bytes()));
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
    let (&n, words) = words.split_first()?;
    let (head, mut values) = words.split_at_checked(2 * u32::from_le_bytes(n) as usize + 2)?;
    let mut next = |length: [u8; 4]| {
        let (vector, tail) = values.split_at_checked(u32::from_le_bytes(length) as usize)?;
        values = tail;
        Some(vector.iter().map(|&word| f32::from_le_bytes(word)).collect::<Vec<f32>>())
    };
    let (segments, queries) = head.split_at(head.len() - 2);
    let segment = |&[kind, length]: &[[u8; 4]; 2]| {
        let kind = *KINDS.get(u32::from_le_bytes(kind) as usize)?;
        Some(SampleSegment { kind, embeds: next(length)? })
    };
    let segments = segments.as_chunks::<2>().0.iter().map(segment).collect::<Option<_>>()?;
    let (image_query, text_query) = (next(queries[0])?, next(queries[1])?);
    let (labels, prefix) = (Vec::new(), KeptPrefix::default());
    let sample = Sample { segments, image_query, text_query, labels, prefix };
    (values.is_empty() && rest.is_empty()).then_some(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_comes_back_and_damage_is_seen() {
        let segment = |kind, embeds| SampleSegment { kind, embeds };
        let sample = Sample {
            segments: vec![
                segment(SegmentKind::Image, vec![1.5, -2.0, f32::MIN_POSITIVE]),
                segment(SegmentKind::Text, vec![]),
            ],
            image_query: vec![0.25],
            text_query: vec![3.0, 4.0],
            labels: Vec::new(),
            prefix: KeptPrefix::default(),
        };
        let bytes = encode(&sample);
        assert_eq!(bytes.len(), MAGIC.len() + 4 + 7 * 4 + 6 * 4);
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
            segments: vec![SampleSegment { kind: SegmentKind::Image, embeds: vec![1.0, 2.0] }],
            image_query: vec![3.0],
            text_query: vec![4.0],
            labels: Vec::new(),
            prefix: KeptPrefix::default(),
        };
        write(dir.path(), &path, &sample).unwrap();
        assert_eq!(read(&path).unwrap(), Some(sample));
        fs::write(&path, b"FWDFEAT3").unwrap();
        assert!(read(&path).is_err());
    }
}
