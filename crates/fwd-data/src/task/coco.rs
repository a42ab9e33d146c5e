//! COCO captions: the gold captions of COCO, Flickr30k and VizWiz in UCIT.
//!
//! `{"images": [{"id": 9, "file_name": "…"}], "annotations": [{"id": 1, "image_id": 9, "caption": "…"}]}`, in either order. Each
//! image is one record, its name the id of the image and its answers the captions; the instruction comes from the task. The
//! captions are held in memory, the images are not.
//!
//! Left out and counted are empty captions of images that have others, and captions with `is_rejected` or `is_precanned`, as VizWiz' own
//! program leaves them out; an image with no other captions is no record.

use super::fields::Fields;
use super::json::{Elements, Shape};
use super::record::{ImageSource, TaskRecord};
use crate::error::{DataError, Result};
use crate::shown::shown;
use crate::skip::Remarks;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::vec;

/// How the error of captions without image begins.
pub(super) const ORPHAN: &str = "annotations: no image has the id";

/// Captions of an image.
struct Captions {
    /// The number of their first annotation.
    first: usize,
    /// Those that count.
    texts: Vec<String>,
    /// Whether some are marked as rejected.
    has_rejected: bool,
}

/// Captions that were left out.
#[derive(Debug, Clone, Default)]
pub(super) struct LeftOut {
    /// Captions that are empty.
    pub(super) empty: usize,
    /// Captions that are marked as rejected or precanned.
    pub(super) rejected: usize,
    /// The ids of images that have only such captions.
    pub(super) rejected_images: Vec<String>,
}

impl LeftOut {
    /// Counts the captions among the remarks about a task.
    pub(super) fn remark(&self, remarks: &mut Remarks) {
        remarks.empty_captions += self.empty;
        remarks.rejected_captions += self.rejected;
    }
}

/// The captions of a file by the ids of their images.
pub(super) struct Annotations {
    captions: BTreeMap<String, Captions>,
    /// Errors of single annotations.
    errors: Vec<DataError>,
    pub(super) left_out: LeftOut,
}

impl Annotations {
    /// Reads the annotations of a file.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut read = Self { captions: BTreeMap::new(), errors: Vec::new(), left_out: LeftOut::default() };
        for annotation in Elements::open(path, Shape::Under("annotations"))? {
            let annotation = annotation?;
            let parsed = annotation.object(path).and_then(|map| {
                let fields = Fields { path, index: annotation.index, map: &map, blobs: &[] };
                let image = fields.label(&["image_id"])?.ok_or_else(|| fields.missing(&["image_id"]))?;
                let is_rejected = ["is_rejected", "is_precanned"].iter().any(|key| is_true(map.get(*key)));
                Ok((image, is_rejected, fields.required(&["caption"])?.trim().to_owned()))
            });
            match parsed {
                Ok((image, is_rejected, caption)) => read.add(annotation.index, image, is_rejected, caption),
                Err(error) => read.errors.push(error),
            }
        }
        let rejected =
            read.captions.iter().filter(|(_, captions)| captions.texts.is_empty() && captions.has_rejected);
        read.left_out.rejected_images = rejected.map(|(image, _)| image.clone()).collect();
        Ok(read)
    }

    fn add(&mut self, index: usize, image: String, is_rejected: bool, caption: String) {
        let none = || Captions { first: index, texts: Vec::new(), has_rejected: false };
        let captions = self.captions.entry(image).or_insert_with(none);
        if is_rejected {
            captions.has_rejected = true;
            self.left_out.rejected += 1;
        } else if caption.is_empty() {
            self.left_out.empty += 1;
        } else {
            captions.texts.push(caption);
        }
    }

    /// The captions by the ids of their images, and the errors of single annotations. An image has none if all of its captions are
    /// marked as rejected; one with empty captions only is not among them.
    pub(super) fn into_answers(self) -> (impl Iterator<Item = (String, Vec<String>)>, Vec<DataError>) {
        let known = self
            .captions
            .into_iter()
            .filter(|(_, captions)| captions.has_rejected || !captions.texts.is_empty());
        (known.map(|(image, captions)| (image, captions.texts)), self.errors)
    }
}

fn is_true(value: Option<&Value>) -> bool {
    value.is_some_and(|value| value.as_bool() == Some(true) || value.as_f64() == Some(1.0))
}

/// Reads a file of captions.
pub(super) struct CocoRecords {
    path: PathBuf,
    images: Elements,
    /// Of the images still to come.
    captions: BTreeMap<String, Captions>,
    /// Errors of annotations, given out after the images.
    errors: vec::IntoIter<DataError>,
    is_past_images: bool,
}

impl CocoRecords {
    /// Reads the captions.
    pub(super) fn open(path: &Path) -> Result<(Self, LeftOut)> {
        let Annotations { captions, errors, left_out } = Annotations::open(path)?;
        let images = Elements::open(path, Shape::Under("images"))?;
        let errors = errors.into_iter();
        Ok((Self { path: path.into(), images, captions, errors, is_past_images: false }, left_out))
    }

    /// The record of an image; none if all of its captions were rejected.
    fn image(&mut self, index: usize, fields: &Fields<'_>) -> Result<Option<TaskRecord>> {
        let id = fields.label(&["id"])?.ok_or_else(|| fields.missing(&["id"]))?;
        // Taken out first: captions of an image that is damaged otherwise are none without image.
        let captions = self
            .captions
            .remove(&id)
            .ok_or_else(|| fields.fail("id", format!("no annotation has the image_id {}", shown(&id))))?;
        if captions.texts.is_empty() {
            let what = format!("all captions of the image {} are empty", shown(&id));
            return if captions.has_rejected { Ok(None) } else { Err(fields.fail("caption", what)) };
        }
        let file = fields.required(&["file_name"])?;
        Ok(Some(TaskRecord {
            id: Some(id),
            index,
            image: Some(ImageSource::Path(file.to_owned())),
            instruction: String::new(),
            answers: captions.texts,
            size: None,
            bbox: None,
            n_image_tokens: 0,
            is_conversation: false,
            image_fault: None,
        }))
    }

    /// An error for each group of captions that no image has asked for.
    fn orphans(&mut self) -> vec::IntoIter<DataError> {
        let mut orphans: Vec<_> = std::mem::take(&mut self.captions).into_iter().collect();
        orphans.retain(|(_, captions)| !captions.texts.is_empty());
        orphans.sort_by_key(|(_, captions)| captions.first);
        let errors = orphans.into_iter().map(|(image, captions)| {
            let what = format!("{ORPHAN} {}", shown(&image));
            let (path, index, key) = (self.path.clone(), captions.first, Some("image_id".into()));
            DataError::TaskRecord { path, index, key, what }
        });
        self.errors.by_ref().chain(errors).collect::<Vec<_>>().into_iter()
    }
}

impl Iterator for CocoRecords {
    type Item = Result<TaskRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.is_past_images {
            let Some(element) = self.images.next() else {
                self.errors = self.orphans();
                self.is_past_images = true;
                break;
            };
            let path = self.path.clone();
            let record = element.and_then(|element| {
                let map = element.object(&path)?;
                let fields = Fields { path: &path, index: element.index, map: &map, blobs: &[] };
                self.image(element.index, &fields)
            });
            if let Some(record) = record.transpose() {
                return Some(record);
            }
        }
        self.errors.next().map(Err)
    }
}
