//! Predictions in the field's JSON lines: one object a line, with `question_id`, `prompt`, `text` (the prediction), `answer_id`,
//! `model_id` and `metadata`; or an array of such objects, as `json.dump` and the evaluators of VQA and COCO write.
//!
//! Source: the answer files of LLaVA (Liu et al., *Visual Instruction Tuning*, NeurIPS 2023), which CoIN, Prism and MCITlib write.

use crate::array::{elements, number_of};
use crate::error::{EvalError, Place, Result};
use crate::lines::Lines;
use crate::question_id::{QuestionId, whole};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::io::{BufRead, Read, Write};

/// Bytes that an array of predictions may have; lines have a limit of their own.
const MAX_ARRAY: u64 = 1 << 30;

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
    /// Where each record stands.
    places: Vec<Place>,
}

/// Predictions beside the samples that were annotated.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined<'a> {
    /// The prediction for each sample, in the order of the annotations; none where it is missing.
    pub predictions: Vec<Option<&'a Prediction>>,
    /// Predictions for samples that are not annotated, and where they stand.
    pub unasked: Vec<(Place, &'a Prediction)>,
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
        let places = (1..=records.len()).map(Place::Line).collect();
        Self { file: file.to_owned(), records, places }.checked()
    }

    /// Reads JSON lines, or a JSON array of at most 1 GiB; `file` is the name for errors.
    ///
    /// `question_id` (a string or a whole number of any size) and `text` must be there, the latter under the name `answer` if there is no
    /// `text`; the other keys may be absent or null, and keys beyond the six are passed over. Empty lines, a byte order mark, CRLF,
    /// and commas behind lines and behind the last element are accepted.
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
    pub fn read(mut reader: impl BufRead, file: &str) -> Result<Self> {
        let (mut records, mut places) = (Vec::new(), Vec::new());
        let mut take = |place: Place, text: &str| -> Result<()> {
            records.push(Entry { file, place }.prediction(text)?);
            places.push(place);
            Ok(())
        };
        if begins_array(&mut reader).map_err(|message| EvalError::Read {
            file: file.to_owned(),
            line: 1,
            message,
        })? {
            let text = read_array(reader, file)?;
            let broken = match elements(&text) {
                Ok(elements) => {
                    elements.iter().enumerate().try_for_each(|(i, text)| take(Place::Record(i), text))?;
                    None
                }
                Err(broken) => Some(broken),
            };
            if let Some(broken) = broken {
                let (place, message) = (Place::Record(broken.n_before), broken.message.to_owned());
                return Err(EvalError::Json { file: file.to_owned(), place, byte: 1, message });
            }
        } else {
            let mut lines = Lines::new(reader, file);
            while let Some(text) = lines.next_line()? {
                let text = text.trim();
                let text = text.strip_suffix(',').filter(|object| object.ends_with('}')).unwrap_or(text);
                if !text.is_empty() {
                    take(Place::Line(lines.number), text)?;
                }
            }
        }
        Self { file: file.to_owned(), records, places }.checked()
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

    /// The predictions beside annotated samples.
    ///
    /// A sample's id decides; where several samples share it, the first line of the question too, in lower case.
    ///
    /// # Errors
    /// [`EvalError::DuplicateAnnotation`]; [`EvalError::UnknownPrediction`] if no prediction at all is for an annotated sample;
    /// [`EvalError::UnknownQuestion`] and [`EvalError::DuplicatePrediction`] with file and place.
    pub fn join_samples(&self, samples: &[Sample<'_>]) -> Result<Joined<'_>> {
        let mut by_id: HashMap<&str, Vec<usize>> = HashMap::with_capacity(samples.len());
        for (i, sample) in samples.iter().enumerate() {
            by_id.entry(whole(sample.id)).or_default().push(i);
        }
        let mut by_question = HashMap::new();
        for (i, sample) in samples.iter().enumerate().filter(|(_, sample)| by_id[whole(sample.id)].len() > 1)
        {
            if by_question.insert((whole(sample.id), question_key(sample.question)), i).is_some() {
                return Err(EvalError::DuplicateAnnotation { id: sample.id.to_owned() });
            }
        }
        let mut joined: Vec<Option<usize>> = vec![None; samples.len()];
        let mut unasked = Vec::new();
        for (n, (record, &place)) in self.records.iter().zip(&self.places).enumerate() {
            let (file, id) = (self.file.clone(), record.question_id.to_string());
            let sample = match by_id.get(whole(&id)).map(Vec::as_slice) {
                None => {
                    unasked.push((place, record));
                    continue;
                }
                Some([only]) => *only,
                Some(_) => match by_question.get(&(whole(&id), question_key(&record.prompt))) {
                    Some(&sample) => sample,
                    None => return Err(EvalError::UnknownQuestion { file, place, id }),
                },
            };
            if let Some(first) = joined[sample].replace(n) {
                let first = self.places[first];
                return Err(EvalError::DuplicatePrediction { file, place, first, id });
            }
        }
        match unasked.first() {
            Some((place, record)) if unasked.len() == self.records.len() => Err(self.unknown(*place, record)),
            _ => Ok(Joined {
                predictions: joined.into_iter().map(|record| record.map(|n| &self.records[n])).collect(),
                unasked,
            }),
        }
    }

    /// [`Self::join_samples`] of samples that are known by their ids alone.
    ///
    /// # Errors
    /// Those of [`Self::join_samples`].
    pub fn join<S: AsRef<str>>(&self, ids: &[S]) -> Result<Joined<'_>> {
        let samples: Vec<_> = ids.iter().map(|id| Sample { id: id.as_ref(), question: "" }).collect();
        self.join_samples(&samples)
    }

    /// The predicted text for each annotated sample, empty where it is missing.
    ///
    /// # Errors
    /// Those of [`Self::join`], and [`EvalError::UnknownPrediction`] for any prediction of a sample that is not annotated.
    pub fn texts<S: AsRef<str>>(&self, ids: &[S]) -> Result<Vec<&str>> {
        let Joined { predictions, unasked } = self.join(ids)?;
        match unasked.first() {
            Some((place, record)) => Err(self.unknown(*place, record)),
            None => Ok(predictions
                .into_iter()
                .map(|record| record.map_or("", |record| record.text.as_str()))
                .collect()),
        }
    }

    fn unknown(&self, place: Place, record: &Prediction) -> EvalError {
        EvalError::UnknownPrediction { file: self.file.clone(), place, id: record.question_id.to_string() }
    }

    fn checked(self) -> Result<Self> {
        let mut seen = HashMap::with_capacity(self.records.len());
        for (record, &place) in self.records.iter().zip(&self.places) {
            let asked = (whole(record.question_id.as_str()), question_key(&record.prompt));
            if let Some(first) = seen.insert(asked, place) {
                let id = record.question_id.to_string();
                return Err(EvalError::DuplicatePrediction { file: self.file.clone(), place, first, id });
            }
        }
        Ok(self)
    }
}

/// Whether a file holds an array, by its first character.
fn begins_array(reader: &mut impl BufRead) -> std::result::Result<bool, String> {
    let start = reader.fill_buf().map_err(|error| error.to_string())?;
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    Ok(start.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'['))
}

/// The text of a file that holds an array.
fn read_array(reader: impl Read, file: &str) -> Result<String> {
    let mut bytes = Vec::new();
    let read = reader.take(MAX_ARRAY + 1).read_to_end(&mut bytes);
    let message = match read {
        Ok(_) if bytes.len() as u64 > MAX_ARRAY => {
            format!("the array has more than {MAX_ARRAY} bytes: write one object a line")
        }
        Ok(_) => {
            return String::from_utf8(bytes).map_err(|error| {
                let n_lines = error.as_bytes()[..error.utf8_error().valid_up_to()]
                    .iter()
                    .filter(|&&byte| byte == b'\n');
                EvalError::Encoding { file: file.to_owned(), line: n_lines.count() + 1 }
            });
        }
        Err(error) => error.to_string(),
    };
    Err(EvalError::Read { file: file.to_owned(), line: 1, message })
}

/// What tells the questions of one id apart: prompts put lines behind a question, and the mark of the image before it.
fn question_key(text: &str) -> String {
    let text = text.trim_start().strip_prefix("<image>").unwrap_or(text);
    text.trim_start().lines().next().unwrap_or_default().trim().to_lowercase()
}

/// A record, for errors.
#[derive(Clone, Copy)]
struct Entry<'a> {
    file: &'a str,
    place: Place,
}

impl Entry<'_> {
    fn prediction(self, text: &str) -> Result<Prediction> {
        let value: Value = serde_json::from_str(text).map_err(|error| self.json(&error, text))?;
        let Value::Object(mut object) = value else {
            return Err(self.wrong_type("", "an object", &value));
        };
        // The results of the VQA evaluator call it `answer`.
        let (said, key) = match object.remove("text") {
            None => (object.remove("answer").filter(Value::is_string), "answer"),
            said => (said, "text"),
        };
        Ok(Prediction {
            question_id: self.id(object.remove("question_id"), text)?,
            text: match said {
                None => return Err(self.missing("text")),
                Some(Value::String(text)) => text,
                Some(other) => return Err(self.wrong_type(key, "a string", &other)),
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

    fn id(self, value: Option<Value>, record: &str) -> Result<QuestionId> {
        match value {
            None => Err(self.missing("question_id")),
            Some(Value::String(text)) => Ok(QuestionId::from(text.as_str())),
            Some(Value::Number(number)) => {
                // The digits as they are written: a number of the parser has 64 bits.
                let id = number_of(record, "question_id").and_then(QuestionId::of_number);
                id.ok_or_else(|| {
                    self.wrong_type("question_id", "a string or a whole number", &Value::Number(number))
                })
            }
            Some(other) => Err(self.wrong_type("question_id", "a string or a whole number", &other)),
        }
    }

    fn string(self, object: &mut Map<String, Value>, key: &'static str) -> Result<String> {
        match object.remove(key) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.wrong_type(key, "a string", &other)),
        }
    }

    fn json(self, error: &serde_json::Error, text: &str) -> EvalError {
        let message = error.to_string();
        // The place is that within the record, which the variant says better.
        let message = message.split(" at line ").next().unwrap_or_default().to_owned();
        let before: usize =
            text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        EvalError::Json {
            file: self.file.to_owned(),
            place: self.place,
            byte: before + error.column(),
            message,
        }
    }

    fn missing(self, key: &'static str) -> EvalError {
        EvalError::MissingKey { file: self.file.to_owned(), place: self.place, key }
    }

    fn wrong_type(self, key: &'static str, expected: &'static str, value: &Value) -> EvalError {
        let found = match value {
            Value::Null => "null",
            Value::Bool(_) => "a truth value",
            Value::Number(number) if number.is_f64() => "a number with a fraction",
            Value::Number(_) => "a number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        EvalError::WrongType { file: self.file.to_owned(), place: self.place, key, expected, found }
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
        assert_eq!(predictions.places, [1, 4].map(Place::Line));
        assert_eq!(read("").unwrap().texts(&["1"]), Ok(vec![""]));
    }

    #[test]
    fn errors_name_file_line_and_key() {
        let good = "{\"question_id\":1,\"text\":\"a\"}\n";
        let cases = [
            ("{\"question_id\":2,\"text\":\"a\"", "p.jsonl, line 2, byte 27: EOF while parsing an object"),
            ("{\"question_id\":2 \"text\"}", "p.jsonl, line 2, byte 18: expected `,` or `}`"),
            ("[1]", "p.jsonl, line 2: the record must be an object, not an array"),
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
                "p.jsonl, line 2: `question_id` must be a string or a whole number, not a number with a fraction",
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
    fn joining_counts_what_was_not_asked() {
        let predictions =
            read("{\"question_id\":1,\"text\":\"a\"}\n\n{\"question_id\":\"x\",\"text\":\"b\"}\n").unwrap();
        let joined = predictions.join(&["1"]).unwrap();
        assert_eq!(joined.predictions, [Some(&predictions.records()[0])]);
        assert_eq!(joined.unasked, [(Place::Line(3), &predictions.records()[1])]);
        let unknown = |line, id: &str| EvalError::UnknownPrediction {
            file: "p.jsonl".into(),
            place: Place::Line(line),
            id: id.into(),
        };
        assert_eq!(predictions.texts(&["1"]), Err(unknown(3, "x")));
        // Predictions of another task.
        assert_eq!(predictions.join(&["7", "8"]), Err(unknown(1, "1")));
        assert_eq!(
            predictions.join(&["1", "x", "1"]),
            Err(EvalError::DuplicateAnnotation { id: "1".into() })
        );
        assert_eq!(predictions.texts(&["x", "y", "1"]), Ok(vec!["b", "", "a"]));
    }

    #[test]
    fn an_array_is_read_as_lines_are() {
        let lines = "{\"question_id\":1,\"text\":\"a\"},\n{\"question_id\":\"x\",\"text\":\"[}\\\"\"},\n";
        let expected = read(lines).unwrap();
        assert_eq!(expected.records().len(), 2);
        for array in
            [format!("[{lines}]"), format!("\u{feff}[\n{}\r\n]\r\n", lines.trim_end().trim_end_matches(','))]
        {
            assert_eq!(read(&array).unwrap().records(), expected.records(), "{array}");
        }
        let answers = r#"[{"question_id": 1, "answer": "a"}, {"question_id": 2, "answer": "b"}]"#;
        assert_eq!(read(answers).unwrap().texts(&["2", "1"]), Ok(vec!["b", "a"]));
        assert_eq!(read("[]").unwrap().records(), []);
        assert_eq!(message("[{\"question_id\":1}]"), "p.jsonl, record 0: the key `text` is missing");
        assert_eq!(
            message("[1, {\"question_id\":1}]"),
            "p.jsonl, record 0: the record must be an object, not a number"
        );
        assert_eq!(
            message(&format!("[{lines} {{\"question_id\":2,\"te")),
            "p.jsonl, record 2, byte 1: the array is not closed: the file is cut"
        );
        assert_eq!(
            message("[{\"question_id\":1,\"text\":\"\\ud800\"}]"),
            "p.jsonl, record 0, byte 32: unexpected end of hex escape"
        );
        assert_eq!(
            message("[{\"question_id\":1,\"text\":\"\"}, {\"question_id\":1.0,\"text\":\"\"}]"),
            "p.jsonl, record 1: `question_id` 1 is in record 0 already"
        );
    }

    #[test]
    fn ids_keep_every_digit() {
        let line = |id: &str| format!("{{\"question_id\": {id}, \"text\": \"a\"}}\n");
        for (written, id) in [
            ("1.0", "1"),
            ("1", "1"),
            ("-7.00", "-7"),
            ("1.5e1", "15"),
            ("36893488147419103233", "36893488147419103233"),
            ("-36893488147419103233.0", "-36893488147419103233"),
            ("0.0", "0"),
            ("\"1.0\"", "1.0"),
            ("\"001\"", "001"),
        ] {
            assert_eq!(read(&line(written)).unwrap().records()[0].question_id.as_str(), id, "{written}");
        }
        // Two that a double cannot tell apart.
        let two = read(&(line("36893488147419103232") + &line("36893488147419103233"))).unwrap();
        assert_eq!(two.join(&["36893488147419103233"]).unwrap().unasked.len(), 1);
        assert_eq!(two.records().len(), 2);
        assert_eq!(read(&line("\"1.0\"")).unwrap().texts(&["1"]), Ok(vec!["a"]));
        let long = message(&(line(&format!("\"{}\"", "x".repeat(5000))).repeat(2)));
        assert!(long.len() < 200 && long.contains("4940 characters more"), "{long}");
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
            let joined = predictions.join_samples(&samples)?.predictions;
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
