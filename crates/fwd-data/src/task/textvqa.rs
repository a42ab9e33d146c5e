//! TextVQA's own annotations, `TextVQA_0.5.1_val.json`, which CoIN scores against.
//!
//! `{"data": [{"question_id": 34602, "question": "…", "image_id": "003a8ae2ef43b901", "answers": [10 strings], "image_width": 1024,
//! "image_height": 683}]}`; the image is `image_id` with `.jpg`, unless a key such as `image` says otherwise.

use super::fields::Fields;
use super::picture;
use super::record::{ImageSource, TaskRecord, n_image_tokens, without_image_token};
use crate::error::Result;

/// The question that an object is.
pub(super) fn records(fields: &Fields<'_>) -> Result<Vec<TaskRecord>> {
    let (image, image_fault) = match picture::under_its_keys(fields) {
        Ok(Some(image)) => (Some(image), None),
        Ok(None) => {
            let id = fields.label(&["image_id"])?.ok_or_else(|| fields.missing(&["image_id", "image"]))?;
            (Some(ImageSource::Path(format!("{id}.jpg"))), None)
        }
        Err(fault) => (None, Some(fault)),
    };
    let side = |key: &str| fields.get(&[key]).and_then(|(_, side)| side.as_f64());
    let text = fields.required(&["question", "text"])?;
    Ok(vec![TaskRecord {
        id: fields.id()?,
        index: fields.index,
        image,
        instruction: without_image_token(text),
        answers: fields.answers()?.unwrap_or_default(),
        size: side("image_width").zip(side("image_height")).map(|(width, height)| [width, height]),
        bbox: None,
        n_image_tokens: n_image_tokens(text),
        is_conversation: false,
        image_fault,
    }])
}
