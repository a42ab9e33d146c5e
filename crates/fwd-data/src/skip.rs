//! What becomes of records that cannot be used, a list of those that were left out, and what the others lack.

use crate::error::{DataError, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What becomes of a record that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBad {
    /// It is an error.
    #[default]
    Refuse,
    /// It is left out, counted and listed; every image is decoded once to find out.
    Skip,
}

/// Records that were left out, and what those lack that were not.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Skipped {
    /// Number of records that were left out because they cannot be used.
    pub n_records: usize,
    /// The reasons, one a record; at most 1000.
    pub reasons: Vec<String>,
    /// What is remarkable about records that can be used, of each task of which there is something to say.
    #[serde(default)]
    pub remarks: Vec<Remarks>,
}

/// How many records of a task lack an image or its token, and how many captions were left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Remarks {
    /// The name of the task.
    pub task: String,
    /// Records without an image, for which a grey one stands.
    pub without_image: usize,
    /// Records whose text has `<image>` although they have no image. They cannot be used.
    pub token_without_image: usize,
    /// Records of LLaVA conversations with an image whose text has no `<image>`. The image is used.
    pub image_without_token: usize,
    /// Captions that are empty and were left out.
    pub empty_captions: usize,
    /// Captions that their file marks as `is_rejected` or `is_precanned`, as VizWiz does, and were left out.
    pub rejected_captions: usize,
    /// Images all of whose captions are so marked; they were left out.
    pub rejected_images: usize,
}

impl Skipped {
    /// Lists a record that is left out, or gives its error back where none may be.
    pub(crate) fn take(&mut self, error: DataError, on_bad: OnBad) -> Result<()> {
        if on_bad == OnBad::Refuse {
            return Err(error);
        }
        self.list(error.with_cause());
        Ok(())
    }

    /// Counts a record that is left out, and keeps the reason while there are not too many.
    pub fn list(&mut self, reason: String) {
        const MOST: usize = 1000;
        self.n_records += 1;
        if self.reasons.len() < MOST {
            self.reasons.push(reason);
        }
    }
}

impl Remarks {
    /// No remarks about a task.
    pub(crate) fn new(task: &str) -> Self {
        Self { task: task.into(), ..Self::default() }
    }

    /// The counts that are not zero, each with what it counts.
    fn counts(&self) -> impl Iterator<Item = (usize, &'static str)> {
        [
            (self.without_image, "records without an image, for which a grey one stands"),
            (self.token_without_image, "records with `<image>` in their text and without an image"),
            (self.image_without_token, "conversations with an image and without `<image>` in their text"),
            (self.empty_captions, "empty captions, left out"),
            (self.rejected_captions, "captions marked as rejected or precanned, left out"),
            (self.rejected_images, "images left out because all their captions are so marked"),
        ]
        .into_iter()
        .filter(|(n, _)| *n > 0)
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.counts().next().is_none()
    }
}

impl fmt::Display for Remarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.counts().map(|(n, what)| format!("{n} {what}")).collect();
        write!(f, "{}: {}", self.task, counts.join("; "))
    }
}
