//! TextVQA's own annotations, `TextVQA_0.5.1_val.json`, which CoIN scores against.
//!
//! `{"data": [{"question_id": 34602, "question": "…", "image_id": "003a8ae2ef43b901", "answers": [10 strings], "image_width": 1024,
//! "image_height": 683}]}`; the image is `image_id` with `.jpg`, unless a key `image` says otherwise.

use super::fields::Fields;
use super::record::{ImageSource, TaskRecord};
use crate::error::Result;

/// The question that an object is.
pub(super) fn records(fields: &Fields<'_>) -> Result<Vec<TaskRecord>> {
    let image = match fields.image(&["image"])? {
        Some(image) => image,
        None => {
            let id = fields.label(&["image_id"])?.ok_or_else(|| fields.missing(&["image_id", "image"]))?;
            format!("{id}.jpg")
        }
    };
    let side = |key: &str| fields.get(&[key]).and_then(|(_, side)| side.as_f64());
    Ok(vec![TaskRecord {
        id: fields.id()?,
        index: fields.index,
        image: Some(ImageSource::Path(image)),
        instruction: fields.required(&["question", "text"])?.trim().to_owned(),
        answers: fields.answers()?.unwrap_or_default(),
        size: side("image_width").zip(side("image_height")).map(|(width, height)| [width, height]),
        bbox: None,
    }])
}
