//! Streams of a benchmark's tasks: which are learnt, in which order, and whole or in parts.
//!
//! Continual learning by classes has tasks that ask the same and differ in their answers (split CIFAR-100 and split ImageNet-R are made so).
//! A task in parts is such a stream: what tells the parts apart is nothing that an instruction says.

use super::benchmark::Benchmark;
use super::record::{BenchTask, Record, Split, Stage};
use crate::error::{DataError, Result};
use std::collections::BTreeMap;

impl Benchmark {
    /// The benchmark with its pre-training tasks and, of the others, those of a sequence, in its order, each of them cut into `n_parts`
    /// ([`BenchTask::parts`]). All first parts come before all second ones, and so on. The hash stays that of the whole benchmark; it is
    /// another one when the stream is written and read again.
    ///
    /// # Errors
    /// [`DataError::UnknownTask`], and [`DataError::Stream`] for a task that stands twice or belongs to pre-training, and those of
    /// [`BenchTask::parts`].
    pub fn stream(mut self, sequence: &[String], n_parts: usize) -> Result<Self> {
        let mut parts = Vec::with_capacity(sequence.len());
        for (i, name) in sequence.iter().enumerate() {
            let task = self.task(name)?;
            if task.stage == Stage::Pretraining || sequence[..i].contains(name) {
                let what =
                    if task.stage == Stage::Pretraining { "belongs to pre-training" } else { "stands twice" };
                return Err(DataError::Stream { task: name.clone(), what: what.to_owned() });
            }
            parts.push(task.parts(n_parts)?);
        }
        self.tasks.retain(|task| task.stage == Stage::Pretraining);
        let mut parts: Vec<_> = parts.into_iter().map(Vec::into_iter).collect();
        for order in 0..n_parts * parts.len() {
            let of_task = order % parts.len();
            let next = parts[of_task].next();
            self.tasks.extend(next.map(|task| BenchTask { order: Some(order as u32 + 1), ..task }));
        }
        Ok(self)
    }
}

impl BenchTask {
    /// The task cut into `n` tasks by its answers, `NAME-1` to `NAME-n`: records with the same first answer belong to the same part, in all
    /// splits. The answers with most training records are dealt first, each to the part that has the fewest so far. One part is the task itself.
    ///
    /// # Errors
    /// [`DataError::Stream`] if `n` is 0 or there are fewer answers in `train` than parts.
    pub fn parts(&self, n: usize) -> Result<Vec<Self>> {
        let fail = |what: String| DataError::Stream { task: self.name.clone(), what };
        if n == 1 {
            return Ok(vec![self.clone()]);
        }
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for record in &self.records {
            *counts.entry(answer(record)).or_default() += usize::from(record.split == Split::Train);
        }
        let n_learnt = counts.values().filter(|count| **count > 0).count();
        if n == 0 || n_learnt < n {
            return Err(fail(format!("{n} parts of {n_learnt} different answers in `train`")));
        }
        let mut answers: Vec<(&str, usize)> = counts.into_iter().collect();
        answers.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let (mut part_of, mut sizes) = (BTreeMap::new(), vec![0; n]);
        for (answer, count) in answers {
            let part = (0..n).min_by_key(|&part| sizes[part]).unwrap_or_default();
            part_of.insert(answer, part);
            sizes[part] += count;
        }
        let mut records: Vec<Vec<Record>> = vec![Vec::new(); n];
        for record in &self.records {
            records[part_of[answer(record)]].push(record.clone());
        }
        let part = |(i, records)| Self {
            name: format!("{}-{}", self.name, i + 1),
            title: format!("{}, part {} of {n}", self.title, i + 1),
            order: None,
            records,
            ..self.clone()
        };
        Ok(records.into_iter().enumerate().map(part).collect())
    }
}

/// The answer that a record is sorted by.
fn answer(record: &Record) -> &str {
    record.answers.first().map_or("", String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fwd_eval::Metric;

    fn task(answers: &[(Split, &str)]) -> BenchTask {
        let record = |(i, &(split, answer)): (usize, &(Split, &str))| Record {
            split,
            id: Some(i.to_string()),
            image: format!("a/{i}"),
            instruction: "What?".to_owned(),
            answers: vec![answer.to_owned()],
        };
        let records = answers.iter().enumerate().map(record).collect();
        let (name, title) = ("kinds".to_owned(), "Kinds".to_owned());
        let (stage, metric) = (Stage::Downstream, Metric::Exact);
        BenchTask { name, title, stage, metric, synthetic: false, order: Some(3), records }
    }

    #[test]
    fn parts_share_no_answer_and_lose_no_record() {
        use Split::{Test, Train, Val};
        let whole = task(&[
            (Train, "cat"),
            (Train, "cat"),
            (Train, "cat"),
            (Train, "dog"),
            (Train, "dog"),
            (Train, "emu"),
            (Test, "dog"),
            (Test, "cat"),
            (Val, "emu"),
            (Test, "fox"),
        ]);
        let parts = whole.parts(2).unwrap();
        let ids = |part: &BenchTask| part.records.iter().map(|r| r.id.clone().unwrap()).collect::<Vec<_>>();
        // 3 cats; then 2 dogs and an emu. The fox, which nobody learns, goes to the first of two equal parts.
        assert_eq!(ids(&parts[0]), ["0", "1", "2", "7", "9"]);
        assert_eq!(ids(&parts[1]), ["3", "4", "5", "6", "8"]);
        assert_eq!([&*parts[0].name, &*parts[1].name], ["kinds-1", "kinds-2"]);
        assert_eq!((parts[1].title.as_str(), parts[1].order), ("Kinds, part 2 of 2", None));
        assert_eq!(whole.parts(1).unwrap(), std::slice::from_ref(&whole));
        assert_eq!(whole.parts(3).unwrap().len(), 3);
        for n in [0, 4] {
            let error = whole.parts(n).unwrap_err().to_string();
            assert!(error.contains("kinds") && error.contains("of 3 different answers"), "{error}");
        }
    }
}
