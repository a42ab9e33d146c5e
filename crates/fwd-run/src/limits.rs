//! Limits on the length of texts: an answer or an instruction of thousands of tokens would take the memory of the machine, and an
//! instruction beyond the model's positions cannot be read at all. What is too long is refused, or cut, as configured, and counted.

use crate::model::Reader;
use anyhow::{Result, bail, ensure};
use fwd_data::bench::{BenchTask, Benchmark, Record, Split, record_name};
use fwd_data::excerpt;
use fwd_data::task::{OnBad, Skipped};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// How long texts may be, in tokens of the model, and what becomes of longer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TextLimits {
    /// The longest instruction, in tokens of the language model. Where the model itself reads fewer, that counts.
    pub max_instruction_tokens: usize,
    /// The longest answer that is learnt. Answers that are only scored may have any length.
    pub max_target_tokens: usize,
    /// What becomes of a text that is too long.
    pub too_long: TooLong,
}

impl Default for TextLimits {
    /// Instructions of 512 tokens, answers of 256; what is longer is refused.
    fn default() -> Self {
        Self { max_instruction_tokens: 512, max_target_tokens: 256, too_long: TooLong::Refuse }
    }
}

/// What becomes of a text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// Its record cannot be used: an error, or left out where records may be.
    #[default]
    Refuse,
    /// The text is cut behind the last word that fits, and counted.
    Cut,
}

/// How many texts were cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CutTexts {
    /// Instructions.
    pub instructions: usize,
    /// Answers that are learnt.
    pub answers: usize,
    /// Instructions of which the Q-Former reads only the beginning, as it has no more positions; the language model reads all of them.
    #[serde(default)]
    pub bridge_instructions: usize,
}

/// The longest text that is taken apart into tokens, in bytes: a tokenizer needs some hundred bytes of memory for each byte of text.
const MAX_BYTES: usize = 1 << 20;

/// A text that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Excess {
    kind: Text,
    size: Size,
    limit: usize,
}

/// How long a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Tokens(usize),
    /// More than [`MAX_BYTES`]; its tokens were not counted.
    Bytes(usize),
}

/// A text of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Text {
    Instruction,
    Answer,
}

impl std::fmt::Display for Excess {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (what, from) = match self.kind {
            Text::Instruction => {
                ("instruction", "the smaller of limits.max_instruction_tokens and what the model reads")
            }
            Text::Answer => ("answer", "limits.max_target_tokens"),
        };
        let limit = self.limit;
        let size = match self.size {
            Size::Tokens(n) => format!("{n} tokens"),
            Size::Bytes(n) => format!("{n} bytes, more than the {MAX_BYTES} that are read"),
        };
        write!(
            f,
            "its {what} has {size}, the limit is {limit} ({from}); shorten it, or set limits.too_long = \"cut\""
        )
    }
}

impl TextLimits {
    /// Refuses limits that let nothing through.
    ///
    /// # Errors
    /// That names the key.
    pub fn check(&self) -> Result<()> {
        for (key, value) in [
            ("limits.max_instruction_tokens", self.max_instruction_tokens),
            ("limits.max_target_tokens", self.max_target_tokens),
        ] {
            ensure!(value >= 2, "{key} is {value}, must be at least 2: the end of the text is a token too");
        }
        Ok(())
    }

    /// What is too long in an instruction and in its answers, of which the first is learnt in the split for training; none if all fits.
    ///
    /// # Errors
    /// Those of the tokenizers.
    pub fn excess(
        &self,
        model: Reader<'_>,
        split: Split,
        instruction: &str,
        answers: &[String],
    ) -> Result<Option<String>> {
        let excess = self.first_excess(model, split, instruction, answers.first().map(String::as_str))?;
        Ok(excess.map(|excess| excess.to_string()))
    }

    fn first_excess(
        &self,
        model: Reader<'_>,
        split: Split,
        instruction: &str,
        answer: Option<&str>,
    ) -> Result<Option<Excess>> {
        let over = |kind, text: &str, limit: usize| {
            // A chat template adds any number of tokens.
            let is_bare = kind == Text::Answer || !model.has_template();
            if is_bare && is_surely_short(text, limit) {
                return Ok(None);
            }
            if text.len() > MAX_BYTES {
                return Ok(Some(Excess { kind, size: Size::Bytes(text.len()), limit }));
            }
            let n_tokens = match kind {
                Text::Instruction => model.count_instruction_tokens(text)?,
                Text::Answer => model.count_answer_tokens(instruction, text)?,
            };
            Ok((n_tokens > limit).then_some(Excess { kind, size: Size::Tokens(n_tokens), limit }))
        };
        let excess = over(Text::Instruction, instruction, self.instruction_limit(model))?;
        match answer.filter(|_| excess.is_none() && split == Split::Train) {
            Some(answer) => over(Text::Answer, answer, self.max_target_tokens),
            None => Ok(excess),
        }
    }

    fn instruction_limit(&self, model: Reader<'_>) -> usize {
        let own = model.max_instruction_tokens().unwrap_or(usize::MAX);
        own.min(self.max_instruction_tokens)
    }

    /// Cuts or leaves out the records of a benchmark whose texts are too long, or refuses them.
    ///
    /// # Errors
    /// That names the record and both figures; those of the tokenizers.
    pub fn apply(
        &self,
        bench: &mut Benchmark,
        model: Reader<'_>,
        on_bad: OnBad,
        skipped: &mut Skipped,
    ) -> Result<CutTexts> {
        self.check()?;
        let mut cut = CutTexts::default();
        for task in &mut bench.tasks {
            let mut keep = vec![true; task.records.len()];
            for (i, what) in self.excesses(task, model)? {
                match (self.too_long, on_bad) {
                    (TooLong::Cut, _) => self.cut(&mut task.records[i], model, &mut cut)?,
                    (TooLong::Refuse, OnBad::Skip) => {
                        keep[i] = false;
                        skipped.list(what);
                    }
                    (TooLong::Refuse, OnBad::Refuse) => bail!("{what}, or leave it out with --skip-bad"),
                }
            }
            let mut keep = keep.into_iter();
            task.records.retain(|_| keep.next().unwrap_or(true));
            cut.bridge_instructions += bridge_cuts(task, model)?;
        }
        Ok(cut)
    }

    /// The records of a benchmark whose texts are too long, each with its name and both figures.
    ///
    /// # Errors
    /// Those of the tokenizers.
    pub fn findings(&self, bench: &Benchmark, model: Reader<'_>) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for task in &bench.tasks {
            all.extend(self.excesses(task, model)?.into_iter().map(|(_, what)| what));
        }
        Ok(all)
    }

    /// The records of a task whose texts are too long, by their places.
    fn excesses(&self, task: &BenchTask, model: Reader<'_>) -> Result<Vec<(usize, String)>> {
        let records = task.records.par_iter().enumerate();
        let found = records.filter_map(|(i, record)| {
            let answer = record.answers.first().map(String::as_str);
            let excess = self.first_excess(model, record.split, &record.instruction, answer);
            excess.transpose().map(|excess| Ok((i, excess?)))
        });
        let found = found.collect::<Result<Vec<_>>>()?;
        let names = if found.is_empty() { Vec::new() } else { names(&task.name, &task.records) };
        Ok(found.into_iter().map(|(i, excess)| (i, format!("{}: {excess}", names[i]))).collect())
    }

    fn cut(&self, record: &mut Record, model: Reader<'_>, cut: &mut CutTexts) -> Result<()> {
        let limit = self.instruction_limit(model);
        if let Some(short) =
            longest_prefix(&record.instruction, limit, |text| model.count_instruction_tokens(text))?
        {
            record.instruction = short;
            cut.instructions += 1;
        }
        if record.split == Split::Train
            && let Some(answer) = record.answers.first_mut()
            && let Some(short) = longest_prefix(answer, self.max_target_tokens, |text| {
                model.count_answer_tokens(&record.instruction, text)
            })?
        {
            *answer = short;
            cut.answers += 1;
        }
        Ok(())
    }
}

/// The records of a task of whose instruction the bridge reads only the beginning.
fn bridge_cuts(task: &BenchTask, model: Reader<'_>) -> Result<usize> {
    let Some(limit) = model.max_bridge_tokens() else { return Ok(0) };
    let is_cut = |record: &Record| {
        let text = &record.instruction;
        Ok(!is_surely_short(text, limit) && model.bridge_excess(text)?.is_some())
    };
    let cuts = task.records.par_iter().map(|record| is_cut(record).map(usize::from));
    cuts.collect::<Result<Vec<_>>>().map(|cuts| cuts.iter().sum())
}

/// Whether a text has no more tokens than `limit` by its length alone: a token of plain letters has at least one of them, and tokenizers
/// add a mark in front and one or two around.
fn is_surely_short(text: &str, limit: usize) -> bool {
    const ADDED: usize = 4;
    text.is_ascii() && text.len() + ADDED <= limit
}

/// The names of a task's records in messages: their own, or split and place.
fn names(task: &str, records: &[Record]) -> Vec<String> {
    let mut counts = [0; 3];
    let name = |record: &Record| {
        let count = &mut counts[record.split as usize];
        let name = record_name(task, record.split, *count);
        *count += 1;
        record.id.as_ref().map_or(name.clone(), |id| format!("{name} (id {})", excerpt(id)))
    };
    records.iter().map(name).collect()
}

/// The longest beginning of a text, up to the end of a word, that has at most `limit` tokens; none if the text itself has no more.
fn longest_prefix(text: &str, limit: usize, count: impl Fn(&str) -> Result<usize>) -> Result<Option<String>> {
    let whole = text;
    let end = (0..=whole.len().min(MAX_BYTES)).rev().find(|&at| whole.is_char_boundary(at));
    let text = &whole[..end.unwrap_or(0)];
    if count(text)? <= limit {
        return Ok((text.len() < whole.len()).then(|| text.trim_end().to_owned()));
    }
    let ends_of_words = text.char_indices().filter(|(at, c)| *at > 0 && c.is_whitespace()).map(|(at, _)| at);
    let all = text.char_indices().map(|(at, _)| at).filter(|&at| at > 0);
    for ends in [ends_of_words.collect::<Vec<_>>(), all.collect()] {
        // The number of tokens grows with the text, but for single tokens at the seam: the last step goes down until it fits.
        let (mut low, mut high) = (0, ends.len());
        while low < high {
            let middle = (low + high) / 2;
            if count(text[..ends[middle]].trim_end())? <= limit { low = middle + 1 } else { high = middle }
        }
        for &end in ends[..low].iter().rev() {
            let short = text[..end].trim_end();
            if !short.is_empty() && count(short)? <= limit {
                return Ok(Some(short.to_owned()));
            }
        }
    }
    bail!("the text {} cannot be cut to {limit} tokens", excerpt(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A token a word, and one for the end.
    fn words(text: &str) -> Result<usize> {
        Ok(text.split_whitespace().count() + 1)
    }

    /// A token a letter, and one for the end.
    fn letters(text: &str) -> Result<usize> {
        Ok(text.chars().count() + 1)
    }

    #[test]
    fn a_text_is_cut_behind_the_last_word_that_fits() {
        assert_eq!(longest_prefix("a b c", 4, words).unwrap(), None);
        assert_eq!(longest_prefix("a b  c", 3, words).unwrap(), Some("a b".to_owned()));
        assert_eq!(longest_prefix("aa bb", 5, letters).unwrap(), Some("aa".to_owned()));
        // A single word is cut within.
        assert_eq!(longest_prefix("äöüß", 4, letters).unwrap(), Some("äöü".to_owned()));
        assert!(longest_prefix("ab", 1, letters).is_err());
        // Of a text of megabytes only the beginning is looked at.
        let long = "ä".repeat(MAX_BYTES);
        let in_bounds = |text: &str| {
            assert!(text.len() <= MAX_BYTES);
            words(text)
        };
        assert_eq!(longest_prefix(&long, 5, in_bounds).unwrap().map(|text| text.len()), Some(MAX_BYTES));
    }

    #[test]
    fn limits_that_let_nothing_through_are_refused() {
        TextLimits::default().check().unwrap();
        let none = TextLimits { max_target_tokens: 1, ..TextLimits::default() };
        assert!(none.check().unwrap_err().to_string().contains("limits.max_target_tokens"));
    }
}
