//! Questions with their answers, as a JSON array or one a line: test files of CoIN, UCIT, TriGap and MLLM-DCL, and LLaVA's
//! question files.
//!
//! `{"question_id": "17", "image": "…", "text": "Q…", "answer": "B"}`; `answer` may be a list, `answers` stands for it, and `id`
//! and `question` for the other two. Other keys of the image are listed in `picture.rs`. Grounding: `"answer_bbox": "[x1,y1,x2,y2]"` and
//! `"size": [w,h]`; without another answer the box is the answer.

use super::fields::Fields;
use super::picture;
use super::record::{TaskRecord, n_image_tokens, without_image_token};
use crate::error::Result;

/// The question that an object is; its answers are empty where it has none.
pub(super) fn records(fields: &Fields<'_>) -> Result<Vec<TaskRecord>> {
    Ok(vec![record(fields)?])
}

/// As [`records`], for formats that have one question an object.
pub(super) fn record(fields: &Fields<'_>) -> Result<TaskRecord> {
    let bbox = fields.numbers(&["answer_bbox", "bbox"])?;
    let answers = match fields.answers()? {
        Some(answers) => answers,
        None => bbox.map(|bbox| format!("{bbox:?}")).into_iter().collect(),
    };
    let text = fields.required(&["text", "question", "instruction"])?;
    let (image, image_fault) =
        picture::of(fields).map_or_else(|fault| (None, Some(fault)), |image| (image, None));
    Ok(TaskRecord {
        id: fields.id()?,
        index: fields.index,
        image,
        instruction: without_image_token(text),
        answers,
        size: fields.numbers(&["size"])?,
        bbox,
        n_image_tokens: n_image_tokens(text),
        is_conversation: false,
        image_fault,
    })
}
