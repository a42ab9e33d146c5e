//! A record of a task's file, whatever its format.

use crate::error::{DataError, Result};
use crate::skip::Remarks;
use crate::text::without_token;
use std::path::Path;

/// What stands for the image in the text of a record.
const IMAGE_TOKEN: &str = "<image>";

/// What is asked about an image, as it stands in a file.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRecord {
    /// The name of the record in the file; none if it has none.
    pub id: Option<String>,
    /// The element or row of the file that it was read from, counted from 0.
    pub index: usize,
    /// The image; none for a question without one.
    pub image: Option<ImageSource>,
    /// What the model is asked; empty where the file holds captions only.
    pub instruction: String,
    /// The right answers, of which the first is the training target.
    pub answers: Vec<String>,
    /// Width and height of the image in pixels; none where the file does not say.
    pub size: Option<[f64; 2]>,
    /// The right box as `x1, y1, x2, y2`; none where the file has none.
    pub bbox: Option<[f64; 4]>,
    /// How often the text had the token `<image>`, which is not part of the instruction.
    pub n_image_tokens: usize,
    /// Whether it is a pair of turns of a conversation.
    pub(super) is_conversation: bool,
    /// Why its image cannot be used. Only those who look at images need to know.
    pub(super) image_fault: Option<ImageFault>,
}

/// Why the image of a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageFault {
    /// The key that is to blame.
    pub(super) key: String,
    /// What is wrong with its value.
    pub(super) what: String,
}

impl TaskRecord {
    /// The name of the record in the file, or its number where it has none.
    pub fn name(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.index.to_string())
    }

    /// Counts what the record lacks among the remarks about its task.
    pub(super) fn remark(&self, remarks: &mut Remarks) {
        let has_token = self.n_image_tokens > 0;
        remarks.without_image += usize::from(self.image.is_none());
        remarks.image_without_token +=
            usize::from(self.is_conversation && self.image.is_some() && !has_token);
    }

    /// The image, which the text and the keys must agree about; `path` is the file of the record.
    ///
    /// # Errors
    /// [`DataError::TaskRecord`] for an image that cannot be used, or a text about several; [`DataError::TokenWithoutImage`].
    pub(super) fn usable_image(&self, path: &Path) -> Result<Option<&ImageSource>> {
        let fail = |key: &str, what: String| {
            let (path, key) = (path.into(), Some(key.into()));
            Err(DataError::TaskRecord { path, index: self.index, key, what })
        };
        if let Some(ImageFault { key, what }) = &self.image_fault {
            return fail(key, what.clone());
        }
        match (self.n_image_tokens, &self.image) {
            (1.., None) => Err(DataError::TokenWithoutImage { path: path.into(), index: self.index }),
            (n @ 2.., Some(_)) => {
                let key = if self.is_conversation { "conversations" } else { "text" };
                fail(key, format!("`{IMAGE_TOKEN}` stands {n} times in the text; a record has one image"))
            }
            (_, image) => Ok(image.as_ref()),
        }
    }
}

/// Where the image of a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImageSource {
    /// A path below the image root.
    Path(String),
    /// An encoded image within the file.
    Bytes(Vec<u8>),
}

/// How often the token `<image>` stands in a text.
pub(super) fn n_image_tokens(text: &str) -> usize {
    text.matches(IMAGE_TOKEN).count()
}

/// The text without the token `<image>`, wherever it stands, and without white space around it.
pub(super) fn without_image_token(text: &str) -> String {
    without_token(text, IMAGE_TOKEN).trim().to_owned()
}
