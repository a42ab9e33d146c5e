//! LLaVA conversations: training files of LLaVA, CoIN, UCIT, TriGap and MLLM-DCL.
//!
//! `[{"id": "17", "image": "ScienceQA/images/x.png", "conversations": [{"from": "human", "value": "<image>\nQ…"}, {"from": "gpt",
//! "value": "A"}]}]`; `id` and `image` may be missing, the roles alternate. Each pair of turns is one record. The instruction of a
//! later pair begins with the earlier ones, question and answer on lines of their own, and its name ends in `#2`, `#3` and so on.
//! A conversation of one pair may hold further right answers in `answers`, which LLaVA itself ignores.

use super::fields::Fields;
use super::record::{ImageSource, TaskRecord, without_image_token};
use crate::error::Result;
use serde_json::Value;

/// The pairs of a conversation.
pub(super) fn records(fields: &Fields<'_>) -> Result<Vec<TaskRecord>> {
    const KEY: &str = "conversations";
    let (_, turns) = fields.get(&[KEY]).ok_or_else(|| fields.missing(&[KEY]))?;
    let turns = turns.as_array().ok_or_else(|| fields.fail(KEY, "expected a list of turns"))?;
    if turns.is_empty() || turns.len() % 2 == 1 {
        return Err(fields.fail(KEY, format!("{} turns are no pairs of human and gpt", turns.len())));
    }
    let id = fields.id()?;
    let image = fields.image(&["image"])?;
    let more_answers = if turns.len() == 2 { fields.answers()? } else { None };
    let (size, bbox) = (fields.numbers(&["size"])?, fields.numbers(&["answer_bbox", "bbox"])?);
    let mut history = String::new();
    let mut records = Vec::with_capacity(turns.len() / 2);
    for (i, [question, answer]) in turns.as_chunks::<2>().0.iter().enumerate() {
        let question = without_image_token(turn(fields, question, 2 * i, "human")?);
        let answer = turn(fields, answer, 2 * i + 1, "gpt")?.trim();
        if answer.is_empty() {
            return Err(fields.fail(KEY, format!("turn {} of gpt is empty", 2 * i + 1)));
        }
        let instruction = format!("{history}{question}");
        history = format!("{instruction}\n{answer}\n");
        records.push(TaskRecord {
            id: id.as_ref().map(|id| if i == 0 { id.clone() } else { format!("{id}#{}", i + 1) }),
            index: fields.index,
            image: image.clone().map(ImageSource::Path),
            instruction,
            answers: more_answers.clone().unwrap_or_else(|| vec![answer.to_owned()]),
            size,
            bbox,
        });
    }
    Ok(records)
}

/// The text of a turn, which must be `role`'s.
fn turn<'a>(fields: &Fields<'_>, turn: &'a Value, number: usize, role: &str) -> Result<&'a str> {
    const KEY: &str = "conversations";
    let text = |key: &str| {
        turn.get(key)
            .and_then(Value::as_str)
            .ok_or_else(|| fields.fail(KEY, format!("turn {number} has no string `{key}`")))
    };
    let from = text("from")?;
    let is_role = from == role || matches!((from, role), ("user", "human") | ("assistant", "gpt"));
    if !is_role {
        return Err(fields.fail(KEY, format!("turn {number} is from `{from}`, where `{role}` must speak")));
    }
    text("value")
}
