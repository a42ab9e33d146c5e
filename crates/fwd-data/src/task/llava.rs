//! LLaVA conversations: training files of LLaVA, CoIN, UCIT, TriGap and MLLM-DCL, as a JSON array or one a line.
//!
//! `[{"id": "17", "image": "ScienceQA/images/x.png", "conversations": [{"from": "human", "value": "<image>\nQ…"}, {"from": "gpt",
//! "value": "A"}]}]`; `id` and `image` may be missing, the roles alternate. Each pair of turns is one record. The instruction of a
//! later pair begins with the earlier ones, question and answer on lines of their own, and its name ends in `#2`, `#3` and so on.
//! A conversation of one pair may hold further right answers in `answers`, which LLaVA itself ignores.
//!
//! The form of OpenAI and of ShareGPT is read, too: `messages` for `conversations`, `role` and `content` for `from` and `value`, and
//! content in parts, `[{"type": "image", "image": "x.png"}, {"type": "text", "text": "Q…"}]`. A first turn of `system` stands before the
//! first question. Refused are other roles, such as those of tools; `<image>` in a later turn, since the pairs before it would be about
//! no image; and `<image>` in an answer.

use super::fields::Fields;
use super::picture;
use super::record::{ImageFault, ImageSource, TaskRecord, n_image_tokens, without_image_token};
use crate::error::Result;
use crate::shown::shown;
use serde_json::Value;
use std::borrow::Cow;

/// The keys that the turns may stand under.
pub(super) const KEYS: [&str; 2] = ["conversations", "messages"];

/// The pairs of a conversation.
pub(super) fn records(fields: &Fields<'_>) -> Result<Vec<TaskRecord>> {
    let (key, turns) = fields.get(&KEYS).ok_or_else(|| fields.missing(&KEYS[..1]))?;
    let turns = turns.as_array().ok_or_else(|| fields.fail(key, "expected a list of turns"))?;
    let mut turns: Vec<Turn<'_>> = turns
        .iter()
        .enumerate()
        .map(|(number, turn)| Turn::of(fields, key, number, turn))
        .collect::<Result<_>>()?;
    let system =
        turns.first().filter(|turn| turn.role == "system").map(|turn| format!("{}\n", turn.text.trim()));
    if system.is_some() {
        turns.remove(0);
    }
    if turns.is_empty() || turns.len() % 2 == 1 {
        return Err(fields.fail(key, format!("{} turns are no pairs of human and gpt", turns.len())));
    }
    for (i, turn) in turns.iter().enumerate() {
        turn.must_be(fields, key, if i % 2 == 0 { "human" } else { "gpt" })?;
        if i > 0 && turn.n_image_tokens > 0 {
            let what =
                format!("turn {} has `<image>`; only the first question may show the image", turn.number);
            return Err(fields.fail(key, what));
        }
    }
    let n_image_tokens = turns[0].n_image_tokens;
    let id = fields.id()?;
    let (image, image_fault) =
        image(fields, key, &turns).map_or_else(|fault| (None, Some(fault)), |image| (image, None));
    let more_answers = if turns.len() == 2 { fields.answers()? } else { None };
    let (size, bbox) = (fields.numbers(&["size"])?, fields.numbers(&["answer_bbox", "bbox"])?);
    let mut history = system.unwrap_or_default();
    let mut records = Vec::with_capacity(turns.len() / 2);
    for (i, [question, answer]) in turns.as_chunks::<2>().0.iter().enumerate() {
        let text = answer.text.trim();
        if text.is_empty() {
            return Err(fields.fail(key, format!("turn {} of {} is empty", answer.number, answer.role)));
        }
        let instruction = format!("{history}{}", without_image_token(&question.text));
        history = format!("{instruction}\n{text}\n");
        records.push(TaskRecord {
            id: id.as_ref().map(|id| if i == 0 { id.clone() } else { format!("{id}#{}", i + 1) }),
            index: fields.index,
            image: image.clone(),
            instruction,
            answers: more_answers.clone().unwrap_or_else(|| vec![text.to_owned()]),
            size,
            bbox,
            n_image_tokens,
            is_conversation: true,
            image_fault: image_fault.clone(),
        });
    }
    Ok(records)
}

/// The image under a key of the record, or in a part of a turn.
fn image(
    fields: &Fields<'_>,
    key: &str,
    turns: &[Turn<'_>],
) -> std::result::Result<Option<ImageSource>, ImageFault> {
    let mut images = Vec::new();
    for value in turns.iter().flat_map(|turn| &turn.images) {
        images.extend(picture::images(fields, key, value)?);
    }
    match images.len() {
        0 => picture::of(fields),
        1 => Ok(images.pop()),
        n => Err(ImageFault { key: key.into(), what: format!("{n} images; a record has one") }),
    }
}

/// What one side says.
struct Turn<'a> {
    /// Its place in the list, counted from 0.
    number: usize,
    role: &'a str,
    text: Cow<'a, str>,
    n_image_tokens: usize,
    /// The images among its parts.
    images: Vec<&'a Value>,
}

impl<'a> Turn<'a> {
    fn of(fields: &Fields<'_>, key: &str, number: usize, turn: &'a Value) -> Result<Self> {
        let under = |keys: [&str; 2]| keys.iter().find_map(|key| turn.get(key));
        let lacks = |wanted: &str| fields.fail(key, format!("turn {number} has no string `{wanted}`"));
        let role = under(["from", "role"]).and_then(Value::as_str).ok_or_else(|| lacks("from"))?;
        let mut images = Vec::new();
        let text = match under(["value", "content"]) {
            Some(Value::String(text)) => Cow::Borrowed(text.as_str()),
            Some(Value::Array(parts)) => {
                let mut texts = Vec::with_capacity(parts.len());
                for part in parts {
                    texts.push(part_text(part, &mut images).map_err(|what| {
                        fields.fail(
                            key,
                            format!("turn {number} has a part that is neither text nor image: {what}"),
                        )
                    })?);
                }
                Cow::Owned(texts.join("\n"))
            }
            _ => return Err(lacks("value")),
        };
        Ok(Self { number, role, n_image_tokens: n_image_tokens(&text), text, images })
    }

    /// An error unless the turn is that of a role, under one of the names that it has.
    fn must_be(&self, fields: &Fields<'_>, key: &str, role: &str) -> Result<()> {
        if self.role == role
            || matches!((self.role, role), ("user", "human") | ("assistant" | "model", "gpt"))
        {
            return Ok(());
        }
        let (number, from) = (self.number, shown(self.role));
        Err(fields.fail(key, format!("turn {number} is from `{from}`, where `{role}` must speak")))
    }
}

/// The text of a part; for an image its token, and the image goes to the others.
fn part_text<'a>(part: &'a Value, images: &mut Vec<&'a Value>) -> std::result::Result<&'a str, String> {
    if let Some(text) = part.get("text").and_then(Value::as_str) {
        return Ok(text);
    }
    let kind = part.get("type").and_then(Value::as_str).unwrap_or_default();
    if !matches!(kind, "image" | "image_url") {
        return Err(shown(&part.to_string()));
    }
    images.extend(["image", "image_url", "path", "url"].iter().find_map(|key| part.get(key)));
    Ok("<image>")
}
