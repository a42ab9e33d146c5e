//! Prompts that give the answer away: by stating it, by explaining it, or by an ending that goes with one answer only.
//!
//! The last is what a template does that looks at the gold answer: `Answer yes or no.` where that is yes or no, `Answer with the
//! letter.` where it is a letter. A prompt's ending is its last line, or the last sentence of a prompt of one line. It counts where ten
//! prompts or more share it that are not all the same.

use crate::shown::shown;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The fewest prompts with one ending that tell something.
const FEW: usize = 10;
/// The most endings that are kept: questions without a template end each in its own way.
const MOST: usize = 10_000;
/// What an explanation begins with.
const EXPLANATIONS: [&str; 4] = ["rationale:", "explanation:", "reasoning:", "solution:"];

/// How many of a task's scored records have something in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Share {
    /// The name of the task.
    pub task: String,
    /// Number of records that have it.
    pub n: usize,
    /// Number of records that were looked at.
    pub of: usize,
}

/// An ending of prompts that goes with one kind of answer, where the task has endings for other kinds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Closing {
    /// The name of the task.
    pub task: String,
    /// The last line or sentence of the prompts.
    pub line: String,
    /// What all answers are: yes or no, a letter, a number or words.
    pub kind: &'static str,
    /// Number of prompts that end so.
    pub n: usize,
}

/// What the prompts of a task's scored records tell, gathered one by one.
#[derive(Default)]
pub(crate) struct Leaks {
    n_prompts: usize,
    /// Prompts that hold an answer as whole words, of how many where that means something.
    held: (usize, usize),
    n_explained: usize,
    closings: BTreeMap<String, Group>,
    first_answer: Option<String>,
    has_other_answers: bool,
}

/// The prompts of one ending.
struct Group {
    n: usize,
    prompt: String,
    answer: String,
    has_other_prompts: bool,
    has_other_answers: bool,
    /// None once it was mixed.
    kind: Option<AnswerKind>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum AnswerKind {
    YesNo,
    Letter,
    Number,
    Words,
}

/// An ending whose prompts all have one answer, which others have not.
pub(crate) struct Telling {
    pub(crate) line: String,
    pub(crate) n: usize,
    pub(crate) answer: String,
}

impl fmt::Display for Telling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} prompts end in `{}`, and all of them have the answer `{}`",
            self.n,
            shown(&self.line),
            shown(&self.answer)
        )
    }
}

impl Leaks {
    /// Looks at a record; options hold the right one, which says nothing.
    pub(crate) fn see(&mut self, prompt: &str, answers: &[String], has_options: bool) {
        let lower = prompt.to_lowercase();
        self.n_prompts += 1;
        self.n_explained += usize::from(explains(&lower));
        if !has_options {
            let is_held = |answer: &String| {
                let answer = answer.trim().to_lowercase();
                answer.len() > 2 && word_starts(&lower, &answer).next().is_some()
            };
            self.held.0 += usize::from(answers.iter().any(is_held));
            self.held.1 += 1;
        }
        let answer = answers.first().map_or_else(String::new, |answer| answer.trim().to_lowercase());
        self.has_other_answers |= *self.first_answer.get_or_insert_with(|| answer.clone()) != answer;
        let Some(closing) = closing(prompt) else { return };
        if let Some(group) = self.closings.get_mut(closing) {
            group.n += 1;
            group.has_other_prompts |= group.prompt != prompt;
            group.has_other_answers |= group.answer != answer;
            group.kind = group.kind.filter(|kind| *kind == AnswerKind::of(&answer));
        } else if self.closings.len() < MOST {
            let kind = Some(AnswerKind::of(&answer));
            let (has_other_prompts, has_other_answers) = (false, false);
            let group =
                Group { n: 1, prompt: prompt.into(), answer, has_other_prompts, has_other_answers, kind };
            self.closings.insert(closing.into(), group);
        }
    }

    /// The records whose question holds an answer; none if no record does.
    pub(crate) fn held(&self, task: &str) -> Option<Share> {
        share(task, self.held.0, self.held.1)
    }

    /// The records whose prompt holds an explanation; none if no record does.
    pub(crate) fn explained(&self, task: &str) -> Option<Share> {
        share(task, self.n_explained, self.n_prompts)
    }

    /// The endings that tell the answer, and those that tell its kind.
    pub(crate) fn closings(self, task: &str) -> (Vec<Telling>, Vec<Closing>) {
        let (mut telling, mut kinds) = (Vec::new(), Vec::new());
        let shared = self.closings.into_iter().filter(|(_, group)| group.n >= FEW && group.has_other_prompts);
        for (line, group) in shared {
            if let Some(kind) = group.kind {
                kinds.push((
                    kind,
                    Closing { task: task.into(), line: line.clone(), kind: kind.name(), n: group.n },
                ));
            }
            if !group.has_other_answers && self.has_other_answers {
                telling.push(Telling { line, n: group.n, answer: group.answer });
            }
        }
        let is_mixed = kinds.iter().any(|(kind, _)| *kind != kinds[0].0);
        (telling, if is_mixed { kinds.into_iter().map(|(_, closing)| closing).collect() } else { Vec::new() })
    }
}

impl AnswerKind {
    /// That of an answer in lower case.
    fn of(answer: &str) -> Self {
        let answer = answer.trim_end_matches('.');
        match answer {
            "yes" | "no" => Self::YesNo,
            _ if answer.len() == 1 && answer.chars().all(|c| c.is_ascii_alphabetic()) => Self::Letter,
            _ if answer.parse::<f64>().is_ok() => Self::Number,
            _ => Self::Words,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::YesNo => "yes or no",
            Self::Letter => "a letter",
            Self::Number => "a number",
            Self::Words => "words",
        }
    }
}

fn share(task: &str, n: usize, of: usize) -> Option<Share> {
    (n > 0).then(|| Share { task: task.into(), n, of })
}

/// The last line of a prompt of several, the last sentence of a prompt of one; none if that is all there is.
fn closing(prompt: &str) -> Option<&str> {
    let prompt = prompt.trim();
    let (before, last) = prompt.rsplit_once('\n').unwrap_or(("", prompt));
    if !before.trim().is_empty() {
        return Some(last.trim());
    }
    let ends = last.char_indices().filter(|(_, c)| ".?!:".contains(*c)).map(|(at, c)| at + c.len_utf8());
    let mut ends = ends.filter(|&at| last[at..].starts_with(' '));
    ends.next_back().map(|at| last[at..].trim())
}

/// Whether a line of a prompt in lower case begins an explanation.
fn explains(prompt: &str) -> bool {
    prompt.lines().any(|line| {
        let line = line.trim_start();
        EXPLANATIONS.iter().any(|lead| line.strip_prefix(lead).is_some_and(|rest| !rest.trim().is_empty()))
    })
}

/// The answer that a prompt states: `answer is X` or `answer: X`, in whatever case.
pub(crate) fn states_answer<'a>(prompt: &str, answers: &'a [String]) -> Option<&'a String> {
    let prompt = prompt.to_lowercase();
    answers.iter().find(|answer| {
        let answer = answer.trim().to_lowercase();
        !answer.is_empty()
            && word_starts(&prompt, &answer).any(|at| {
                let before = prompt[..at].trim_end_matches([' ', '\'', '"', '(', '\n']);
                ["answer is", "answer:", "answer ="].iter().any(|words| before.ends_with(words))
            })
    })
}

/// Where a phrase stands in a text as whole words.
fn word_starts<'a>(text: &'a str, phrase: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(phrase).map(|(at, _)| at).filter(move |&at| {
        let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_part(text[..at].chars().next_back()) && !is_part(text[at + phrase.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endings_are_lines_or_sentences() {
        for (prompt, expected) in [
            ("Is it red?\nAnswer yes or no.\n", Some("Answer yes or no.")),
            ("Is it red? Answer yes or no.", Some("Answer yes or no.")),
            ("Is it 3.5 m?", None),
            ("Is it red?", None),
            ("", None),
        ] {
            assert_eq!(closing(prompt), expected, "{prompt}");
        }
    }

    #[test]
    fn stated_answers_are_whole_words() {
        let states = |prompt: &str, answer: &str| states_answer(prompt, &[answer.to_owned()]).is_some();
        assert!(states("The Answer is (Cat).", "cat") && states("Answer: b\n", "B"));
        assert!(!states("The answer is category", "cat") && !states("Is the cat an answer?", "cat"));
    }

    /// Twelve records of a template that ends by the gold answer, and twelve of one that does not.
    fn gathered(templates: [&str; 2], answers: [&str; 2]) -> (Vec<Telling>, Vec<Closing>) {
        let mut leaks = Leaks::default();
        for i in 0..24 {
            let answer =
                if i % 2 == 0 { answers[0].to_owned() } else { answers[1].replace('#', &i.to_string()) };
            leaks.see(&format!("Question {i}?\n{}", templates[i % 2]), &[answer], false);
        }
        leaks.closings("t")
    }

    #[test]
    fn an_ending_that_depends_on_the_answer_is_found() {
        let (telling, kinds) = gathered(["Answer yes or no.", "Answer in a word."], ["yes", "word#"]);
        assert_eq!(telling.len(), 1);
        assert_eq!(
            telling[0].to_string(),
            "12 prompts end in `Answer yes or no.`, and all of them have the answer `yes`"
        );
        let kinds: Vec<_> =
            kinds.iter().map(|closing| (closing.line.as_str(), closing.kind, closing.n)).collect();
        assert_eq!(kinds, [("Answer in a word.", "words", 12), ("Answer yes or no.", "yes or no", 12)]);
        // One template for all tells nothing.
        let (telling, kinds) = gathered(["Answer.", "Answer."], ["yes", "word#"]);
        assert!(telling.is_empty() && kinds.is_empty());
        let (telling, kinds) = gathered(["Short.", "Brief."], ["a word", "word#"]);
        assert_eq!((telling.len(), kinds.len()), (1, 0));
    }
}
