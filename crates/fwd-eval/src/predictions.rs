//! Predictions in the field's JSON lines: one object a line, with `question_id`, `prompt`, `text` (the prediction), `answer_id`,
//! `model_id` and `metadata`.
//!
//! Source: the answer files of LLaVA (Liu et al., *Visual Instruction Tuning*, NeurIPS 2023), which CoIN, Prism and MCITlib write.

use crate::error::{EvalError, Result};
use crate::lines::Lines;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::fmt::{self, Display};
use std::io::{BufRead, Write};

/// The id of a sample, written as a number or as a string in JSON; `17` and `"17"` are one id.
#[derive(Debug, Clone)]
pub struct QuestionId {
    text: String,
    /// Whether the JSON has the id as a number.
    number: bool,
}

/// One prediction.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The id of the sample that was asked about.
    pub question_id: QuestionId,
    /// What the model was asked.
    pub prompt: String,
    /// What the model answered: the prediction that is scored.
    pub text: String,
    /// The id of the answer, often empty.
    pub answer_id: String,
    /// The name of the model that answered, often empty.
    pub model_id: String,
    /// Further keys, which are kept as they are.
    pub metadata: Map<String, Value>,
}

/// An annotated sample, as predictions name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sample<'a> {
    /// Its id. Several samples may share one, as in CoIN's TextVQA, where questions are called after their images.
    pub id: &'a str,
    /// What is asked: it tells samples of one id apart.
    pub question: &'a str,
}

/// The predictions of a file, no two for one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    file: String,
    records: Vec<Prediction>,
    /// The line of each record.
    lines: Vec<usize>,
}

impl QuestionId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<&str> for QuestionId {
    fn from(text: &str) -> Self {
        Self { text: text.to_owned(), number: false }
    }
}

impl From<u64> for QuestionId {
    fn from(number: u64) -> Self {
        Self { text: number.to_string(), number: true }
    }
}

impl PartialEq for QuestionId {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for QuestionId {}

impl Display for QuestionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for QuestionId {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        // A number is an integer of 64 bits, or it would not have been read.
        match (self.number, self.text.parse::<u64>(), self.text.parse::<i64>()) {
            (true, Ok(number), _) => serializer.serialize_u64(number),
            (true, _, Ok(number)) => serializer.serialize_i64(number),
            _ => serializer.serialize_str(&self.text),
        }
    }
}

impl Prediction {
    /// A prediction with an id and a text; all other fields are empty.
    pub fn new(question_id: impl Into<QuestionId>, text: impl Into<String>) -> Self {
        Self {
            question_id: question_id.into(),
            prompt: String::new(),
            text: text.into(),
            answer_id: String::new(),
            model_id: String::new(),
            metadata: Map::new(),
        }
    }
}

impl Predictions {
    /// Takes predictions that are to be written to a file of the name `file`.
    ///
    /// # Errors
    /// [`EvalError::DuplicatePrediction`], with the line that the record would have in the file.
    pub fn new(file: &str, records: Vec<Prediction>) -> Result<Self> {
        let lines = (1..=records.len()).collect();
        Self { file: file.to_owned(), records, lines }.checked()
    }

    /// Reads JSON lines; `file` is the name for errors.
    ///
    /// `question_id` (a string or an integer) and `text` must be there; the other keys may be absent or null, and keys beyond the
    /// six are passed over. Empty lines, a byte order mark and CRLF are accepted.
    ///
    /// # Errors
    /// [`EvalError::Read`], [`EvalError::Encoding`], [`EvalError::LongLine`], [`EvalError::Json`], [`EvalError::MissingKey`],
    /// [`EvalError::WrongType`], [`EvalError::DuplicatePrediction`], each with file and line, and key where there is one.
    ///
    /// # Examples
    /// ```
    /// use fwd_eval::{Metric, Predictions, corpus_percent};
    /// let file = "{\"question_id\": 2, \"text\": \"dog\"}\r\n{\"question_id\": \"1\", \"text\": \"cat\"}\n";
    /// let predictions = Predictions::read(file.as_bytes(), "answers.jsonl")?;
    /// // Three samples, in an order of their own; the third has no prediction and scores 0.
    /// let texts = predictions.texts(&["1", "2", "3"])?;
    /// assert_eq!(texts, ["cat", "dog", ""]);
    /// let answers = [vec!["cat"], vec!["dog"], vec!["bus"]];
    /// assert!((corpus_percent(Metric::Exact, &texts, &answers)? - 200.0 / 3.0).abs() < 1e-9);
    /// # Ok::<(), fwd_eval::EvalError>(())
    /// ```
    pub fn read(reader: impl BufRead, file: &str) -> Result<Self> {
        let mut reader = Lines::new(reader, file);
        let (mut records, mut lines) = (Vec::new(), Vec::new());
        while let Some(text) = reader.next_line()? {
            if !text.trim().is_empty() {
                records.push(Line { file, line: reader.number }.prediction(&text)?);
                lines.push(reader.number);
            }
        }
        Self { file: file.to_owned(), records, lines }.checked()
    }

    /// Writes JSON lines, ids as they were read.
    ///
    /// # Errors
    /// [`EvalError::Write`] naming the prediction.
    ///
    /// # Examples
    /// ```
    /// use fwd_eval::{Prediction, Predictions};
    /// let mut file = Vec::new();
    /// Predictions::new("answers.jsonl", vec![Prediction::new(17, "B")])?.write(&mut file)?;
    /// let line = r#"{"question_id":17,"prompt":"","text":"B","answer_id":"","model_id":"","metadata":{}}"#;
    /// assert_eq!(file, format!("{line}\n").into_bytes());
    /// # Ok::<(), fwd_eval::EvalError>(())
    /// ```
    pub fn write(&self, mut writer: impl Write) -> Result<()> {
        for record in &self.records {
            let written =
                serde_json::to_vec(record).map_err(|error| error.to_string()).and_then(|mut line| {
                    line.push(b'\n');
                    writer.write_all(&line).map_err(|error| error.to_string())
                });
            written.map_err(|message| EvalError::Write { id: record.question_id.to_string(), message })?;
        }
        Ok(())
    }

    /// The predictions, in the order of the file.
    pub fn records(&self) -> &[Prediction] {
        &self.records
    }

    /// The prediction for each annotated sample, in the order of the annotations; none where it is missing.
    ///
    /// A sample's id decides; where several samples share it, the first line of the question too, in lower case.
    ///
    /// # Errors
    /// [`EvalError::DuplicateAnnotation`]; [`EvalError::UnknownPrediction`], [`EvalError::UnknownQuestion`] and
    /// [`EvalError::DuplicatePrediction`] with file and line.
    pub fn join_samples(&self, samples: &[Sample<'_>]) -> Result<Vec<Option<&Prediction>>> {
        let mut by_id: HashMap<&str, Vec<usize>> = HashMap::with_capacity(samples.len());
        for (i, sample) in samples.iter().enumerate() {
            by_id.entry(sample.id).or_default().push(i);
        }
        let mut by_question = HashMap::new();
        for (i, sample) in samples.iter().enumerate().filter(|(_, sample)| by_id[sample.id].len() > 1) {
            if by_question.insert((sample.id, question_key(sample.question)), i).is_some() {
                return Err(EvalError::DuplicateAnnotation { id: sample.id.to_owned() });
            }
        }
        let mut joined: Vec<Option<usize>> = vec![None; samples.len()];
        for (n, (record, &line)) in self.records.iter().zip(&self.lines).enumerate() {
            let (file, id) = (self.file.clone(), record.question_id.to_string());
            let place = match by_id.get(id.as_str()).map(Vec::as_slice) {
                None => return Err(EvalError::UnknownPrediction { file, line, id }),
                Some([only]) => *only,
                Some(_) => match by_question.get(&(id.as_str(), question_key(&record.prompt))) {
                    Some(&place) => place,
                    None => return Err(EvalError::UnknownQuestion { file, line, id }),
                },
            };
            if let Some(first) = joined[place].replace(n) {
                let first_line = self.lines[first];
                return Err(EvalError::DuplicatePrediction { file, line, first_line, id });
            }
        }
        Ok(joined.into_iter().map(|record| record.map(|n| &self.records[n])).collect())
    }

    /// [`Self::join_samples`] of samples that are known by their ids alone.
    ///
    /// # Errors
    /// Those of [`Self::join_samples`].
    pub fn join<S: AsRef<str>>(&self, ids: &[S]) -> Result<Vec<Option<&Prediction>>> {
        let samples: Vec<_> = ids.iter().map(|id| Sample { id: id.as_ref(), question: "" }).collect();
        self.join_samples(&samples)
    }

    /// The predicted text for each annotated sample, empty where it is missing.
    ///
    /// # Errors
    /// Those of [`Self::join`].
    pub fn texts<S: AsRef<str>>(&self, ids: &[S]) -> Result<Vec<&str>> {
        let joined = self.join(ids)?;
        Ok(joined.into_iter().map(|record| record.map_or("", |record| record.text.as_str())).collect())
    }

    fn checked(self) -> Result<Self> {
        let mut seen = HashMap::with_capacity(self.records.len());
        for (record, &line) in self.records.iter().zip(&self.lines) {
            let asked = (record.question_id.as_str(), question_key(&record.prompt));
            if let Some(first_line) = seen.insert(asked, line) {
                let id = record.question_id.to_string();
                return Err(EvalError::DuplicatePrediction { file: self.file.clone(), line, first_line, id });
            }
        }
        Ok(self)
    }
}

/// What tells the questions of one id apart: prompts put lines behind a question, and the mark of the image before it.
fn question_key(text: &str) -> String {
    let text = text.trim_start().strip_prefix("<image>").unwrap_or(text);
    text.trim_start().lines().next().unwrap_or_default().trim().to_lowercase()
}

/// A line, for errors.
#[derive(Clone, Copy)]
struct Line<'a> {
    file: &'a str,
    line: usize,
}

impl Line<'_> {
    fn prediction(self, text: &str) -> Result<Prediction> {
        let value: Value = serde_json::from_str(text).map_err(|error| self.json(&error))?;
        let Value::Object(mut object) = value else {
            return Err(self.wrong_type("", "an object", &value));
        };
        Ok(Prediction {
            question_id: self.id(object.remove("question_id"))?,
            text: match object.remove("text") {
                None => return Err(self.missing("text")),
                Some(Value::String(text)) => text,
                Some(other) => return Err(self.wrong_type("text", "a string", &other)),
            },
            prompt: self.string(&mut object, "prompt")?,
            answer_id: self.string(&mut object, "answer_id")?,
            model_id: self.string(&mut object, "model_id")?,
            metadata: match object.remove("metadata") {
                None | Some(Value::Null) => Map::new(),
                Some(Value::Object(metadata)) => metadata,
                Some(other) => return Err(self.wrong_type("metadata", "an object", &other)),
            },
        })
    }

    fn id(self, value: Option<Value>) -> Result<QuestionId> {
        match value {
            None => Err(self.missing("question_id")),
            Some(Value::String(text)) => Ok(QuestionId { text, number: false }),
            Some(Value::Number(number)) if number.is_u64() || number.is_i64() => {
                Ok(QuestionId { text: number.to_string(), number: true })
            }
            Some(other) => Err(self.wrong_type("question_id", "a string or an integer", &other)),
        }
    }

    fn string(self, object: &mut Map<String, Value>, key: &'static str) -> Result<String> {
        match object.remove(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.wrong_type(key, "a string", &other)),
        }
    }

    fn json(self, error: &serde_json::Error) -> EvalError {
        let message = error.to_string();
        // The place is that of the one line, which the variant says better.
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        EvalError::Json { file: self.file.to_owned(), line: self.line, byte: error.column(), message }
    }

    fn missing(self, key: &'static str) -> EvalError {
        EvalError::MissingKey { file: self.file.to_owned(), line: self.line, key }
    }

    fn wrong_type(self, key: &'static str, expected: &'static str, value: &Value) -> EvalError {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a truth value",
            Value::Number(number) if number.is_f64() => "a number with a fraction or beyond 64 bits",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        EvalError::WrongType { file: self.file.to_owned(), line: self.line, key, expected, found }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Predictions> {
        Predictions::read(text.as_bytes(), "p.jsonl")
    }

    fn message(text: &str) -> String {
        read(text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_comes_back_as_it_was() {
        let text = concat!(
            r#"{"question_id":"a/1","prompt":"Q?","text":"ü\n","answer_id":"x","model_id":"m","metadata":{"k":[1]}}"#,
            "\n",
            r#"{"question_id":-5,"prompt":"","text":"","answer_id":"","model_id":"","metadata":{}}"#,
            "\n",
            r#"{"question_id":18446744073709551615,"prompt":"","text":"","answer_id":"","model_id":"","metadata":{}}"#,
            "\n",
        );
        let mut written = Vec::new();
        read(text).unwrap().write(&mut written).unwrap();
        assert_eq!(String::from_utf8(written).unwrap(), text);
    }

    #[test]
    fn marks_line_ends_and_null_are_accepted() {
        let text = "\u{feff}{\"question_id\":1,\"text\":\"a\",\"prompt\":null,\"more\":3}\r\n\r\n  \n\
            {\"question_id\":2,\"text\":\"b\",\"metadata\":null}";
        let predictions = read(text).unwrap();
        assert_eq!(predictions.records(), [Prediction::new(1, "a"), Prediction::new("2", "b")]);
        assert_eq!(predictions.lines, [1, 4]);
        assert_eq!(read("").unwrap().texts(&["1"]), Ok(vec![""]));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let good = "{\"question_id\":1,\"text\":\"a\"}\n";
        let cases = [
            ("{\"question_id\":2,\"text\":\"a\"", "p.jsonl, line 2, byte 27: EOF while parsing an object"),
            ("{\"question_id\":2 \"text\"}", "p.jsonl, line 2, byte 18: expected `,` or `}`"),
            ("[1]", "p.jsonl, line 2: the line must be an object, not an array"),
            ("{\"text\":\"a\"}", "p.jsonl, line 2: the key `question_id` is missing"),
            ("{\"question_id\":2}", "p.jsonl, line 2: the key `text` is missing"),
            ("{\"question_id\":2,\"text\":3}", "p.jsonl, line 2: `text` must be a string, not a number"),
            ("{\"question_id\":2,\"text\":null}", "p.jsonl, line 2: `text` must be a string, not null"),
            (
                "{\"question_id\":2,\"text\":\"\",\"prompt\":[]}",
                "p.jsonl, line 2: `prompt` must be a string, not an array",
            ),
            (
                "{\"question_id\":2.5,\"text\":\"\"}",
                "p.jsonl, line 2: `question_id` must be a string or an integer, not a number with a fraction or beyond 64 bits",
            ),
            (
                "{\"question_id\":\"1\",\"text\":\"b\"}",
                "p.jsonl, line 2: `question_id` 1 is in line 1 already",
            ),
        ];
        for (line, expected) in cases {
            assert_eq!(message(&format!("{good}{line}")), expected);
        }
        let utf16 = [0xff, 0xfe, b'{', 0];
        let error = Predictions::read(utf16.as_slice(), "p.jsonl").unwrap_err();
        assert_eq!(error, EvalError::Encoding { file: "p.jsonl".into(), line: 1 });
    }

    #[test]
    fn joining_is_strict() {
        let predictions =
            read("{\"question_id\":1,\"text\":\"a\"}\n\n{\"question_id\":\"x\",\"text\":\"b\"}\n").unwrap();
        assert_eq!(
            predictions.join(&["1"]),
            Err(EvalError::UnknownPrediction { file: "p.jsonl".into(), line: 3, id: "x".into() })
        );
        assert_eq!(
            predictions.join(&["1", "x", "1"]),
            Err(EvalError::DuplicateAnnotation { id: "1".into() })
        );
        assert_eq!(predictions.texts(&["x", "y", "1"]), Ok(vec!["b", "", "a"]));
    }

    #[test]
    fn questions_of_one_id_are_told_apart() {
        let sample = |id, question| Sample { id, question };
        let samples = [sample("7", "What brand?\nShort."), sample("7", "What year?"), sample("8", "Who?")];
        let lines = [
            ("7", "<image>\\nwhat YEAR? \\nIn a word.", "1999"),
            ("7", "What brand?", "dakota"),
            ("8", "", "me"),
        ];
        let line = |(id, prompt, text): (&str, &str, &str)| {
            format!(r#"{{"question_id":"{id}","prompt":"{prompt}","text":"{text}"}}"#) + "\n"
        };
        let file = lines.map(line).concat();
        let read_texts = |file: &str| -> Result<Vec<String>> {
            let predictions = read(file)?;
            let joined = predictions.join_samples(&samples)?;
            Ok(joined.into_iter().map(|record| record.map_or_else(String::new, |r| r.text.clone())).collect())
        };
        assert_eq!(read_texts(&file).unwrap(), ["dakota", "1999", "me"]);
        // Two prompts for a sample that is alone with its id.
        let twice = format!("{file}{}", line(("8", "Why?", "you")));
        assert_eq!(
            read_texts(&twice).unwrap_err().to_string(),
            "p.jsonl, line 4: `question_id` 8 is in line 3 already"
        );
        assert_eq!(
            read_texts(&file.replace("YEAR", "month")).unwrap_err().to_string(),
            "p.jsonl, line 1: several annotations have the `question_id` 7, none of them this `prompt`"
        );
        let same = [sample("7", "What?"), sample("7", "what? ")];
        assert_eq!(
            read(&file).unwrap().join_samples(&same),
            Err(EvalError::DuplicateAnnotation { id: "7".into() })
        );
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let predictions = Predictions::new("p", vec![Prediction::new("7", "a")]).unwrap();
        let mut none: [u8; 0] = [];
        assert!(matches!(predictions.write(&mut none[..]), Err(EvalError::Write { id, .. }) if id == "7"));
    }
}
