//! Answers that are kept apart from the questions: TextVQA's annotations and COCO captions.
//!
//! A question finds its answers by its name: the id of an image in COCO; in TextVQA the question's id, or the id of its image and
//! the question itself, as CoIN's questions are called after their images. Prompts put lines behind a question: the first line counts.

use super::format::Format;
use super::reader::read;
use super::record::{ImageSource, TaskRecord};
use crate::error::{DataError, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The answers of a file.
pub(super) struct References {
    path: PathBuf,
    answers: HashMap<String, Vec<String>>,
}

impl References {
    /// Reads TextVQA annotations or COCO captions; errors of single records go to `on_bad`.
    ///
    /// # Errors
    /// As [`read`], and those of `on_bad`.
    pub(super) fn open(path: &Path, mut on_bad: impl FnMut(DataError) -> Result<()>) -> Result<Self> {
        let format = Format::of(path)?;
        let mut answers = HashMap::new();
        for record in read(path, Some(format))? {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    on_bad(error)?;
                    continue;
                }
            };
            let id = record.name();
            let TaskRecord { image, instruction, answers: own, .. } = record;
            if let (Format::TextVqa, Some(ImageSource::Path(image))) = (format, image) {
                let stem = Path::new(&image).file_stem().unwrap_or_default().to_string_lossy();
                answers.insert(question_key(&stem, &instruction), own.clone());
            }
            answers.insert(id, own);
        }
        Ok(Self { path: path.into(), answers })
    }

    /// The answers of a record.
    ///
    /// # Errors
    /// [`DataError::TaskRecord`] if the file has none.
    pub(super) fn of(&self, path: &Path, record: &TaskRecord) -> Result<Vec<String>> {
        let id = record.name();
        let by_question = self.answers.get(&question_key(&id, &record.instruction));
        by_question.or_else(|| self.answers.get(&id)).cloned().ok_or_else(|| {
            let what = format!("{} has no answers for `{id}`", self.path.display());
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
