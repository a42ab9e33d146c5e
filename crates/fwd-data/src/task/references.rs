//! Answers that are kept apart from the questions: TextVQA's annotations and COCO captions.
//!
//! A question finds its answers by its name: the id of an image in COCO; in TextVQA the question's id, or the id of its image and
//! the question itself, as CoIN's questions are called after their images. Prompts put lines behind a question: the first line counts.
//!
//! What nobody asks about does not matter: images without captions, records without answers, images that are not there.

use super::coco::{self, LeftOut};
use super::format::Format;
use super::reader::read_unanswered;
use super::record::{ImageSource, TaskRecord};
use crate::error::{DataError, Result, file};
use crate::shown::shown;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The answers of a file.
pub(super) struct References {
    path: PathBuf,
    answers: HashMap<String, Vec<String>>,
    /// Captions of the file that are not among the answers.
    pub(super) left_out: LeftOut,
}

impl References {
    /// Reads TextVQA annotations or COCO captions; errors of single records go to `on_bad`.
    ///
    /// # Errors
    /// As [`read`](super::read), and those of `on_bad`.
    pub(super) fn open(path: &Path, mut on_bad: impl FnMut(DataError) -> Result<()>) -> Result<Self> {
        let format = Format::of(path)?;
        let mut references =
            Self { path: path.into(), answers: HashMap::new(), left_out: LeftOut::default() };
        let answers = &mut references.answers;
        if format == Format::Coco {
            let mut annotations = coco::Annotations::open(path)?;
            references.left_out = std::mem::take(&mut annotations.left_out);
            let (captions, errors) = annotations.into_answers();
            answers.extend(captions);
            errors.into_iter().try_for_each(on_bad)?;
            return Ok(references);
        }
        for record in read_unanswered(path, Some(format))? {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    on_bad(error)?;
                    continue;
                }
            };
            let id = record.name();
            let TaskRecord { image, instruction, answers: own, .. } = record;
            if own.is_empty() {
                continue;
            }
            if let (Format::TextVqa, Some(ImageSource::Path(image))) = (format, image) {
                let stem = Path::new(&image).file_stem().unwrap_or_default().to_string_lossy();
                answers.insert(question_key(&stem, &instruction), own.clone());
            }
            answers.insert(id, own);
        }
        Ok(references)
    }

    /// The answers of a record; none if all captions of its image are marked as rejected.
    ///
    /// # Errors
    /// [`DataError::TaskRecord`] if the file has none.
    pub(super) fn of(&self, path: &Path, record: &TaskRecord) -> Result<Vec<String>> {
        let id = record.name();
        let by_question = self.answers.get(&question_key(&id, &record.instruction));
        by_question.or_else(|| self.answers.get(&id)).cloned().ok_or_else(|| {
            let what = format!("{} has no answers for `{}`", file(&self.path), shown(&id));
            DataError::TaskRecord {
                path: path.into(),
                index: record.index,
                key: Some("question_id".into()),
                what,
            }
        })
    }
}

fn question_key(image: &str, question: &str) -> String {
    format!("{image}\n{}", question.lines().next().unwrap_or_default().trim().to_lowercase())
}
