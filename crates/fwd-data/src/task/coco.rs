//! COCO captions: the gold captions of COCO, Flickr30k and VizWiz in UCIT.
//!
//! `{"images": [{"id": 9, "file_name": "…"}], "annotations": [{"id": 1, "image_id": 9, "caption": "…"}]}`, in either order. Each
//! image is one record, its name the id of the image and its answers the captions; the instruction comes from the task. The
//! captions are held in memory, the images are not.

use super::fields::Fields;
use super::json::{Elements, Shape};
use super::record::{ImageSource, TaskRecord};
use crate::error::{DataError, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::vec;

/// Captions of an image, with the number of their first annotation.
type Captions = BTreeMap<String, (usize, Vec<String>)>;

/// Reads a file of captions.
pub(super) struct CocoRecords {
    path: PathBuf,
    images: Elements,
    /// Of the images still to come.
    captions: Captions,
    /// Errors of annotations, given out after the images.
    errors: vec::IntoIter<DataError>,
    is_past_images: bool,
}

impl CocoRecords {
    /// Reads the captions.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let (mut captions, mut errors) = (Captions::new(), Vec::new());
        for annotation in Elements::open(path, Shape::Under("annotations"))? {
            let annotation = annotation?;
            let parsed = annotation.object(path).and_then(|map| {
                let fields = Fields { path, index: annotation.index, map: &map };
                let image = fields.label(&["image_id"])?.ok_or_else(|| fields.missing(&["image_id"]))?;
                Ok((image, fields.required(&["caption"])?.trim().to_owned()))
            });
            match parsed {
                Ok((image, caption)) => {
                    captions.entry(image).or_insert_with(|| (annotation.index, Vec::new())).1.push(caption);
                }
                Err(error) => errors.push(error),
            }
        }
        let images = Elements::open(path, Shape::Under("images"))?;
        let errors = errors.into_iter();
        Ok(Self { path: path.into(), images, captions, errors, is_past_images: false })
    }

    fn image(&mut self, index: usize, fields: &Fields<'_>) -> Result<TaskRecord> {
        let id = fields.label(&["id"])?.ok_or_else(|| fields.missing(&["id"]))?;
        // Taken out first: captions of an image that is damaged otherwise are none without image.
        let (_, answers) = self
            .captions
            .remove(&id)
            .ok_or_else(|| fields.fail("id", format!("no annotation has the image_id {id}")))?;
        let file = fields.required(&["file_name"])?;
        Ok(TaskRecord {
            id: Some(id),
            index,
            image: Some(ImageSource::Path(file.to_owned())),
            instruction: String::new(),
            answers,
            size: None,
            bbox: None,
        })
    }

    /// An error for each group of captions that no image has asked for.
    fn orphans(&mut self) -> vec::IntoIter<DataError> {
        let mut orphans: Vec<_> = std::mem::take(&mut self.captions).into_iter().collect();
        orphans.sort_by_key(|(_, (index, _))| *index);
        let errors = orphans.into_iter().map(|(image, (index, _))| {
            let what = format!("annotations: no image has the id {image}");
            DataError::TaskRecord { path: self.path.clone(), index, key: Some("image_id".into()), what }
        });
        self.errors.by_ref().chain(errors).collect::<Vec<_>>().into_iter()
    }
}

impl Iterator for CocoRecords {
    type Item = Result<TaskRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.is_past_images {
            match self.images.next() {
                Some(element) => {
                    let path = self.path.clone();
                    return Some(element.and_then(|element| {
                        let map = element.object(&path)?;
                        let fields = Fields { path: &path, index: element.index, map: &map };
                        self.image(element.index, &fields)
                    }));
                }
                None => {
                    self.errors = self.orphans();
                    self.is_past_images = true;
                }
            }
        }
        self.errors.next().map(Err)
    }
}
