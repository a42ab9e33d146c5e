//! A record of a task's file, whatever its format.

use crate::text::without_token;

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
}

impl TaskRecord {
    /// The name of the record in the file, or its number where it has none.
    pub fn name(&self) -> String {
        self.id.clone().unwrap_or_else(|| self.index.to_string())
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

/// The text without the token `<image>`, wherever it stands, and without white space around it.
pub(super) fn without_image_token(text: &str) -> String {
    without_token(text, "<image>").trim().to_owned()
}
