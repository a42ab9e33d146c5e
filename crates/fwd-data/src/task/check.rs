//! What makes the scores of a set of tasks worthless: images that are missing or damaged, records under one name, too few answers,
//! test images seen in training, prompts that give the answer away, answers that are lists written as text, and what the caller finds.
//!
//! Images are compared by the hash of their bytes, never by name. Nothing but a missing file stops the check.

use super::coco::ORPHAN;
use super::description::{Kind, TaskSpec};
use super::images::ImageRoot;
use super::literal::is_broken_list;
use super::reader::read_unanswered;
use super::record::{ImageSource, TaskRecord};
use super::set::{TaskSet, asked_and_right, origin, splits};
use crate::bench::{ContentHash, Overlap, Split};
use crate::error::{DataError, PathFault, Result, file as shown_file};
use crate::image_file::{ImageLimits, RgbImage};
use crate::leaks::{Closing, Leaks, Share, states_answer};
use crate::loose::read_file;
use crate::shown::shown;
use crate::skip::{OnBad, Remarks};
use rayon::prelude::*;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Something wrong with a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the task.
    pub task: String,
    /// The split, or `references` or `prompts`.
    pub split: String,
    /// What is wrong, with the file and the record.
    pub what: String,
}

/// Findings of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Findings {
    /// How many there are.
    pub n: usize,
    /// The first hundred.
    pub first: Vec<Finding>,
}

/// What [`check`] has to report about a set of tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TaskReport {
    /// Whether records that cannot be used are left out, and so are not counted as wrong.
    pub skip_bad: bool,
    /// Number of tasks.
    pub n_tasks: usize,
    /// Number of records that can be read.
    pub n_records: usize,
    /// Number of different image files.
    pub n_images: usize,
    /// Records that cannot be read.
    pub unreadable_records: Findings,
    /// Images that are not there.
    pub missing_images: Findings,
    /// Images whose path leads out of the image root.
    pub outside_images: Findings,
    /// Images that cannot be decoded.
    pub undecodable_images: Findings,
    /// Records whose text has `<image>` although they have no image.
    pub tokens_without_image: Findings,
    /// Records that the caller of [`check_with`] refuses, such as those too long for a model.
    pub refused_by_model: Findings,
    /// Answers that look like a list written as text and are none that can be read.
    pub broken_lists: Findings,
    /// Records of one file that share both name and question.
    pub duplicate_ids: Findings,
    /// Records to be scored over ten annotators with another number of answers.
    pub answers_not_ten: Findings,
    /// Captions of images that their file does not list.
    pub captions_without_image: Findings,
    /// Records whose instruction states the answer.
    pub stated_answers: Findings,
    /// Prompts whose ending goes with one answer only.
    pub telling_prompts: Findings,
    /// Images that two splits of one task share.
    pub between_splits: Vec<Overlap>,
    /// Splits without records, as `task: split`.
    pub empty_splits: Vec<String>,
    /// How many records of each task lack an image or its token, and how many captions were left out; only tasks with such records. This
    /// does not count as wrong.
    pub remarks: Vec<Remarks>,
    /// How often a scored question holds its answer. Some questions rightly do, so that this and all fields below do not count as wrong.
    pub answers_in_questions: Vec<Share>,
    /// How often a scored prompt holds an explanation of its answer, as those of ArxivQA do.
    pub explained_answers: Vec<Share>,
    /// Endings of prompts that go with one kind of answer.
    pub telling_kinds: Vec<Closing>,
    /// How often a scored record's name is that of another question: predictions must be told apart by the question too.
    pub shared_ids: Vec<Share>,
}

impl TaskReport {
    /// The findings by kind, with what to call them and whether it is records that cannot be used.
    fn kinds(&self) -> [(&'static str, &Findings, bool); 12] {
        [
            ("records that cannot be read", &self.unreadable_records, true),
            ("missing images", &self.missing_images, true),
            ("images outside the image root", &self.outside_images, true),
            ("undecodable images", &self.undecodable_images, true),
            ("records with `<image>` and without image", &self.tokens_without_image, true),
            ("records that the model refuses", &self.refused_by_model, true),
            ("answers that look like a list and cannot be read as one", &self.broken_lists, false),
            ("names given twice", &self.duplicate_ids, false),
            ("records without ten answers", &self.answers_not_ten, false),
            ("captions without image", &self.captions_without_image, true),
            ("prompts that state the answer", &self.stated_answers, false),
            ("prompts whose ending tells the answer", &self.telling_prompts, false),
        ]
    }

    /// Whether nothing is wrong.
    pub fn is_clean(&self) -> bool {
        self.kinds().iter().all(|(_, findings, is_bad)| findings.n == 0 || *is_bad && self.skip_bad)
            && self.between_splits.is_empty()
            && self.empty_splits.is_empty()
    }
}

impl fmt::Display for TaskReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} tasks, {} records, {} images", self.n_tasks, self.n_records, self.n_images)?;
        for (name, findings, is_bad) in self.kinds() {
            let left_out = if is_bad && self.skip_bad { ", left out" } else { "" };
            writeln!(f, "{name}: {}{left_out}", findings.n)?;
            for Finding { task, split, what } in &findings.first {
                writeln!(f, "  {task}/{split}: {what}")?;
            }
        }
        writeln!(
            f,
            "images in two splits: {}",
            self.between_splits.iter().map(|o| o.n_images).sum::<usize>()
        )?;
        for Overlap { first, second, n_images, example: (a, b) } in &self.between_splits {
            writeln!(f, "  {n_images} in {first} and {second}, such as `{}` = `{}`", shown(a), shown(b))?;
        }
        writeln!(f, "splits without records: {}", self.empty_splits.len())?;
        self.empty_splits.iter().try_for_each(|split| writeln!(f, "  {split}"))?;
        self.remarks.iter().try_for_each(|remarks| writeln!(f, "{remarks}"))?;
        for (shares, what) in [
            (&self.answers_in_questions, "questions hold their answer"),
            (&self.explained_answers, "prompts explain their answer"),
            (&self.shared_ids, "records have the name of another question"),
        ] {
            for Share { task, n, of } in shares {
                writeln!(f, "{task}: {n} of {of} scored {what}")?;
            }
        }
        for Closing { task, line, kind, n } in &self.telling_kinds {
            let line = shown(line);
            writeln!(f, "{task}: {n} scored prompts end in `{line}`, and their answers are all {kind}")?;
        }
        write!(f, "{}", if self.is_clean() { "clean" } else { "NOT clean" })
    }
}

/// Looks at all records and images of a set; `on_bad` says whether records that cannot be used are wrong or left out.
///
/// Memory: hashes of the names of one file, and the path and hash of every image. Cost: every image is read and decoded once.
///
/// # Errors
/// [`DataError::NoTaskFile`] and [`DataError::Io`] for a file of records or a folder that is not there, [`DataError::TaskSyntax`] for
/// one that is not of its format or ends early.
pub fn check(set: &TaskSet, on_bad: OnBad) -> Result<TaskReport> {
    check_with(set, on_bad, &mut |_, _, _, _| None)
}

/// A further look at a record, by task, split, what the model is asked and the right answers: what is wrong with it, or none.
pub type Look<'a> = dyn FnMut(&str, Split, &str, &[String]) -> Option<String> + 'a;

/// As [`check`], with a further look at each record that can be used. What it says is a finding of the record, in
/// [`TaskReport::refused_by_model`].
///
/// # Errors
/// As [`check`].
pub fn check_with(set: &TaskSet, on_bad: OnBad, look: &mut Look<'_>) -> Result<TaskReport> {
    let report = TaskReport { skip_bad: on_bad == OnBad::Skip, ..TaskReport::default() };
    let mut checker = Checker { report, files: HashMap::new(), look };
    checker.report.n_tasks = set.tasks.len();
    set.tasks.iter().try_for_each(|spec| checker.task(set, spec))?;
    checker.report.n_images = checker.files.len();
    Ok(checker.report)
}

/// Where a finding is made.
#[derive(Clone, Copy)]
struct Place<'a> {
    task: &'a str,
    split: &'static str,
}

/// Content of the images of a split, each with a name.
type Contents = BTreeMap<ContentHash, String>;

struct Checker<'a> {
    report: TaskReport,
    /// The hash of each image file; none if it cannot be read.
    files: HashMap<PathBuf, Option<ContentHash>>,
    look: &'a mut Look<'a>,
}

/// What is gathered of the records of a split.
#[derive(Default)]
struct Seen {
    /// Hashes of the names, and of the names with their questions: a large file has millions.
    ids: HashSet<u128>,
    asked: HashSet<u128>,
    n_shared_ids: usize,
    n_records: usize,
    /// Image files, each with the first record that has it.
    files: BTreeMap<PathBuf, String>,
    contents: Contents,
}

impl Checker<'_> {
    fn task(&mut self, set: &TaskSet, spec: &TaskSpec) -> Result<()> {
        let root = set.image_root(spec)?;
        let place = Place { task: &spec.name, split: "references" };
        let references = set.references(spec, |error| self.record_error(place, error))?;
        let mut remarks = Remarks::new(&spec.name);
        references.iter().for_each(|references| references.left_out.remark(&mut remarks));
        let mut contents: Vec<(&'static str, Contents)> = Vec::new();
        let mut leaks = Leaks::default();
        let mut shared_ids = Share { task: spec.name.clone(), n: 0, of: 0 };
        for (split, name, files) in splits(spec) {
            let place = Place { split: name, ..place };
            let mut seen = Seen::default();
            for path in set.files(spec, name, files)? {
                seen.ids.clear();
                seen.asked.clear();
                let records = read_unanswered(&path, spec.format)?;
                records.left_out.remark(&mut remarks);
                remarks.rejected_images += records.left_out.rejected_images.len();
                for record in records {
                    let looked = record.and_then(|record| {
                        let from = origin(&path, record.index);
                        let Some((prompt, answers)) =
                            asked_and_right(spec, references.as_ref(), split, &path, &record)?
                        else {
                            remarks.rejected_images += 1;
                            return Ok(());
                        };
                        self.record(place, (&root, &path), (&record, &from), &mut seen)?;
                        record.remark(&mut remarks);
                        self.texts(place, spec, split, (&from, &prompt, &answers));
                        if split != Split::Train {
                            leaks.see(&prompt, &answers, spec.kind == Kind::MultipleChoice);
                        }
                        Ok(())
                    });
                    looked.or_else(|error| {
                        remarks.token_without_image +=
                            usize::from(matches!(error, DataError::TokenWithoutImage { .. }));
                        self.record_error(place, error)
                    })?;
                }
            }
            self.report.n_records += seen.n_records;
            if split != Split::Train {
                shared_ids.n += seen.n_shared_ids;
                shared_ids.of += seen.n_records;
            }
            if seen.n_records == 0 {
                self.report.empty_splits.push(format!("{}: {name}", spec.name));
            }
            self.images(place, seen.files, &mut seen.contents);
            contents.push((name, seen.contents));
        }
        self.overlaps(spec, &contents);
        let place = Place { split: "prompts", ..place };
        let report = &mut self.report;
        report.remarks.extend(Some(remarks).filter(|remarks| !remarks.is_empty()));
        report.shared_ids.extend(Some(shared_ids).filter(|share| share.n > 0));
        report.answers_in_questions.extend(leaks.held(&spec.name));
        report.explained_answers.extend(leaks.explained(&spec.name));
        let (telling, kinds) = leaks.closings(&spec.name);
        telling.iter().for_each(|ending| add(&mut report.telling_prompts, place, ending.to_string()));
        report.telling_kinds.extend(kinds);
        Ok(())
    }

    /// What the name and the image of a record tell.
    fn record(
        &mut self,
        place: Place<'_>,
        (root, path): (&ImageRoot, &Path),
        (record, from): (&TaskRecord, &str),
        seen: &mut Seen,
    ) -> Result<()> {
        seen.n_records += 1;
        if let Some(id) = &record.id {
            let is_known = !seen.ids.insert(digest(id));
            if !seen.asked.insert(digest(&format!("{id}\n{}", record.instruction))) {
                add(
                    &mut self.report.duplicate_ids,
                    place,
                    format!("{from}: another is called `{}`", shown(id)),
                );
            } else if is_known {
                seen.n_shared_ids += 1;
            }
        }
        match record.usable_image(path)? {
            Some(ImageSource::Path(image)) => match root.resolve(image, from) {
                Ok(file) => {
                    seen.files.entry(file).or_insert_with(|| from.to_owned());
                }
                Err(error) => self.record_error(place, error)?,
            },
            Some(ImageSource::Bytes(bytes)) => {
                if let Err(error) = RgbImage::decode(bytes, from, ImageLimits::default()) {
                    add(&mut self.report.undecodable_images, place, error.with_cause());
                }
                seen.contents.insert(ContentHash::of(bytes), from.to_owned());
            }
            None => {}
        }
        Ok(())
    }

    /// What the texts of a record tell.
    fn texts(
        &mut self,
        place: Place<'_>,
        spec: &TaskSpec,
        split: Split,
        (from, prompt, answers): (&str, &str, &[String]),
    ) {
        let report = &mut self.report;
        if let Some(list) = answers.iter().find(|answer| is_broken_list(answer)) {
            add(&mut report.broken_lists, place, format!("{from}: `{}`", shown(list)));
        }
        if let Some(what) = (self.look)(&spec.name, split, prompt, answers) {
            add(&mut report.refused_by_model, place, format!("{from}: {what}"));
        }
        if split == Split::Train {
            return;
        }
        let due = spec.metric().answers_due();
        if due.is_some_and(|due| due != answers.len()) {
            add(&mut report.answers_not_ten, place, format!("{from}: {} answers", answers.len()));
        }
        if let Some(answer) = states_answer(prompt, answers) {
            add(&mut report.stated_answers, place, format!("{from}: the prompt states `{}`", shown(answer)));
        }
    }

    /// Reads and decodes the images of a split that were not seen before.
    fn images(&mut self, place: Place<'_>, images: BTreeMap<PathBuf, String>, hashes: &mut Contents) {
        let (known, unseen): (Vec<_>, Vec<_>) =
            images.into_iter().partition(|(file, _)| self.files.contains_key(file));
        let read: Vec<_> = unseen
            .into_par_iter()
            .map(|(file, from)| {
                let origin = format!("{from}: {}", shown_file(&file));
                let (hash, error) = match read_file(&file) {
                    Ok(bytes) => {
                        let decoded = RgbImage::decode(&bytes, &origin, ImageLimits::default());
                        (Some(ContentHash::of(&bytes)), decoded.err().map(|error| error.with_cause()))
                    }
                    Err(error) => (None, Some(format!("{from}: {error}"))),
                };
                (file, hash, error)
            })
            .collect();
        let known = known.into_iter().filter_map(|(file, _)| Some((self.files.get(&file).copied()??, file)));
        hashes.extend(known.map(|(hash, file)| (hash, file.display().to_string())));
        for (file, hash, error) in read {
            if let Some(error) = error {
                add(&mut self.report.undecodable_images, place, error);
            }
            if let Some(hash) = hash {
                hashes.insert(hash, file.display().to_string());
            }
            self.files.insert(file, hash);
        }
    }

    fn overlaps(&mut self, spec: &TaskSpec, contents: &[(&'static str, Contents)]) {
        for (i, (second, b)) in contents.iter().enumerate() {
            for (first, a) in &contents[..i] {
                let shared: Vec<_> = a.iter().filter_map(|(hash, a)| Some((a, b.get(hash)?))).collect();
                if let Some((a, b)) = shared.first() {
                    self.report.between_splits.push(Overlap {
                        first: format!("{}/{first}", spec.name),
                        second: format!("{}/{second}", spec.name),
                        n_images: shared.len(),
                        example: ((*a).clone(), (*b).clone()),
                    });
                }
            }
        }
    }

    /// Puts an error where it belongs; one that is not about a record is given back.
    fn record_error(&mut self, place: Place<'_>, error: DataError) -> Result<()> {
        let what = error.with_cause();
        let report = &mut self.report;
        let findings = match &error {
            DataError::ImagePath {
                fault: PathFault::Absolute | PathFault::Upwards | PathFault::LinkOut,
                ..
            } => &mut report.outside_images,
            DataError::ImagePath { .. } => &mut report.missing_images,
            DataError::TaskRecord { key: Some(key), what, .. }
                if key == "image_id" && what.starts_with(ORPHAN) =>
            {
                &mut report.captions_without_image
            }
            DataError::TokenWithoutImage { .. } => &mut report.tokens_without_image,
            DataError::TaskRecord { .. } => &mut report.unreadable_records,
            _ => return Err(error),
        };
        add(findings, place, what);
        Ok(())
    }
}

/// A hash that no two texts will share.
fn digest(text: &str) -> u128 {
    ContentHash::of(text.as_bytes())
        .as_bytes()
        .iter()
        .take(16)
        .fold(0, |sum, byte| sum << 8 | u128::from(*byte))
}

fn add(findings: &mut Findings, place: Place<'_>, what: String) {
    const MOST: usize = 100;
    findings.n += 1;
    if findings.first.len() < MOST {
        findings.first.push(Finding { task: place.task.into(), split: place.split.into(), what });
    }
}
