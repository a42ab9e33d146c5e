//! Questions with their answers, as a JSON array or one a line: test files of CoIN, UCIT, TriGap and MLLM-DCL, and LLaVA's
//! question files.
//!
//! `{"question_id": "17", "image": "…", "text": "Q…", "answer": "B"}`; `answer` may be a list, `answers` stands for it, and `id`
//! and `question` for the other two. Grounding: `"answer_bbox": "[x1,y1,x2,y2]"` and `"size": [w,h]`; without another answer
//! the box is the answer.

use super::fields::Fields;
use super::record::{ImageSource, TaskRecord, without_image_token};
use crate::error::Result;

/// The question that an object is; its answers are empty where it has none.
pub(super) fn records(fields: &Fields<'_>) -> Result<Vec<TaskRecord>> {
    let bbox = fields.numbers(&["answer_bbox", "bbox"])?;
    let answers = match fields.answers()? {
        Some(answers) => answers,
        None => bbox.map(|bbox| format!("{bbox:?}")).into_iter().collect(),
    };
    Ok(vec![TaskRecord {
        id: fields.id()?,
        index: fields.index,
        image: fields.image(&["image"])?.map(ImageSource::Path),
        instruction: without_image_token(fields.required(&["text", "question", "instruction"])?),
        answers,
        size: fields.numbers(&["size"])?,
        bbox,
    }])
}
