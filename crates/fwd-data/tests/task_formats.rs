//! Every format that records come in: one file by hand, and what is said about damage.

#![allow(clippy::unwrap_used)]

mod reading;

use fwd_data::task::Format;
use reading::{all, first_error, fixture, image, message, outcome};
use std::fs;

#[test]
fn llava_conversations() {
    let records = all(&fixture("llava.json"));
    let of = |i: usize| (records[i].name(), records[i].instruction.as_str(), records[i].answers[0].as_str());
    assert_eq!(of(0), ("a".to_owned(), "Which colors?", "black, red, gold"));
    assert_eq!(of(1), ("7".to_owned(), "How many stripes?", "three"));
    assert_eq!(of(2), ("7#2".to_owned(), "How many stripes?\nthree\nIs {one} of them \"red\"?", "yes"));
    assert_eq!(of(3), ("2".to_owned(), "What is 1 + 1?", "2"));
    assert_eq!((image(&records[0]), image(&records[2])), ("./flags/de.png", "flags/fr.png"));
    assert_eq!((&records[3].image, records[3].index, records.len()), (&None, 2, 4));
}

#[test]
fn questions() {
    let records = all(&fixture("test.json"));
    assert_eq!((records[0].name().as_str(), &records[0].answers), ("17", &vec!["black".to_owned()]));
    assert_eq!(
        (records[1].name().as_str(), records[1].answers.join("|"), &records[1].image),
        ("18", "x|3".into(), &None)
    );
    assert_eq!(records[2].instruction, "Where is the flag?");
    assert_eq!((records[2].bbox, records[2].size), (Some([0.25, 0.5, 0.75, 1.0]), Some([640.0, 480.0])));
    assert_eq!(records[2].answers, ["[0.25, 0.5, 0.75, 1.0]"]);
    let lines = all(&fixture("test.jsonl"));
    assert_eq!(
        (lines.len(), lines[1].instruction.as_str(), lines[1].answers.join("|")),
        (2, "Über?", "a|b".into())
    );
}

#[test]
fn text_vqa_and_coco() {
    let records = all(&fixture("textvqa.json"));
    assert_eq!(
        (records[0].name().as_str(), image(&records[0]), records[0].answers.len()),
        ("34602", "003a.jpg", 10)
    );
    assert_eq!(records[0].size, Some([1024.0, 683.0]));
    let records = all(&fixture("coco.json"));
    assert_eq!((records[0].name().as_str(), image(&records[0])), ("9", "coco/9.png"));
    assert_eq!(
        (records[0].answers.join("|"), records[1].answers.join("|")),
        ("A dog.|One dog".into(), "A cat.".into())
    );
}

#[test]
fn tables() {
    let records = all(&fixture("table.csv"));
    assert_eq!(
        (records[0].instruction.as_str(), records[0].answers.join("|")),
        ("Black, red or \"gold\"?", "gold".into())
    );
    assert_eq!(
        (records[1].instruction.as_str(), records[1].answers.join("|")),
        ("Two\nlines?", "a|b".into())
    );
    assert_eq!(image(&records[1]), "flags/fr.png");
}

#[test]
fn formats_are_found_by_their_content() {
    for (name, format) in [
        ("llava.json", Format::Llava),
        ("test.json", Format::Test),
        ("test.jsonl", Format::TestLines),
        ("textvqa.json", Format::TextVqa),
        ("coco.json", Format::Coco),
        ("table.csv", Format::Csv),
    ] {
        assert_eq!(Format::of(&fixture(name)).unwrap(), format, "{name}");
    }
    // Conversations a line, under both names; a damaged first record tells nothing.
    let turns = r#"{"images":["a"],"conversations":[{"from":"human","value":"<image>Q"},{"from":"gpt","value":"A"}]}"#;
    for (name, text, n_good) in [
        ("lines.jsonl", format!("{turns}\n{turns}\n"), 2),
        ("lines.json", format!("{turns}\n{turns}\n"), 2),
        ("lines.json", format!("{{\"id\" 1}}\n{turns}\n"), 1),
        ("lines.jsonl", format!("{{\"id\" 1}}\n{turns}\n"), 1),
        ("array.json", format!("[{{\"text\":\"\\ud83d\"}},{turns}]"), 1),
        ("one.json", turns.to_owned(), 1),
    ] {
        let outcomes = outcome(name, text.as_bytes());
        assert_eq!(outcomes.iter().filter(|record| record.is_ok()).count(), n_good, "{name}: {outcomes:?}");
    }
    // One question a line, under the name of the other format.
    let lines = fs::read(fixture("test.jsonl")).unwrap();
    assert_eq!(outcome("lines.json", &lines).len(), 2);
}

#[test]
fn marks_and_line_ends_of_other_systems_are_read() {
    for name in ["llava.json", "test.json", "test.jsonl", "textvqa.json", "coco.json", "table.csv"] {
        let text = fs::read_to_string(fixture(name)).unwrap();
        let expected: Vec<_> = all(&fixture(name)).into_iter().map(Ok).collect();
        let with_mark = format!("\u{feff}{text}");
        assert_eq!(outcome(name, with_mark.as_bytes()), expected, "{name} with a byte-order mark");
        let mut with_crlf = expected;
        if name == "table.csv" {
            // A line break within quotation marks is kept as it is.
            with_crlf[1].as_mut().unwrap().instruction = "Two\r\nlines?".into();
        }
        assert_eq!(outcome(name, text.replace('\n', "\r\n").as_bytes()), with_crlf, "{name} with CRLF");
    }
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain("[]".encode_utf16().flat_map(u16::to_le_bytes)).collect();
    assert_eq!(message("x.json", &utf16), "DIR/x.json, byte 0: the file is UTF-16; save it as UTF-8");
}

#[test]
fn a_damaged_record_is_named_and_the_next_is_read() {
    let good = r#"{"question_id":"1","text":"Q","answer":"A"}"#;
    for (bad, reason) in [
        (r#"{"text":"Q"}"#, ", key `answer`: is missing; nor is `answers`"),
        (r#"{"answer":"A"}"#, ", key `text`: is missing; nor is `question` or `instruction`"),
        (r#"{"text":3,"answer":"A"}"#, ", key `text`: expected a string, found the number 3"),
        (
            r#"{"text":"Q","answer":{"x":1}}"#,
            ", key `answer`: expected a string or a number, found an object",
        ),
        (
            r#"{"text":"Q","answers":["A",null]}"#,
            ", key `answers`: expected a string or a number, found null",
        ),
        (r#"{"text":"Q","answer":"A","image":["a","b"]}"#, ", key `image`: 2 images; a record has one"),
        (r#"{"text":"Q","answer":"A","image":1}"#, ", key `image`: expected a string, found the number 1"),
        (r#"{"text":"Q","answer_bbox":"[1,2]"}"#, ", key `answer_bbox`: expected 4 numbers, found \"[1,2]\""),
        (r#"["Q"]"#, ": expected an object, found a list"),
        ("7", ": expected an object, found the number 7"),
        // The fault is 10 bytes behind the start of the record, which is at byte 46.
        (r#"{"text":"Q" "answer":"A"}"#, ": byte 58: expected `,` or `}`"),
        (r#"{"text":"Q\x"}"#, ": byte 57: invalid escape"),
    ] {
        let array = format!("[{good},\n{bad},{good}]");
        let outcomes = outcome("test.json", array.as_bytes());
        assert_eq!(outcomes.len(), 3, "{bad}: {outcomes:?}");
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{bad}");
        assert_eq!(outcomes[1].as_ref().unwrap_err(), &format!("DIR/test.json, record 1{reason}"), "{bad}");
    }
}

/// A sound file of two records for each text format, and ways to damage the second: what is replaced, by what, and what the error
/// says behind file and record.
type Damage = (&'static str, &'static str, &'static str);
const FORMATS: [(&str, &str, [Damage; 3]); 6] = [
    (
        "llava.json",
        r#"[{"image":"a","conversations":[{"from":"human","value":"P"},{"from":"gpt","value":"A"}]},
            {"image":"b","conversations":[{"from":"human","value":"Q"},{"from":"gpt","value":"B"}]}]"#,
        [
            (r#""b","conversations""#, r#""b","turns""#, ", key `conversations`: is missing"),
            (r#""image":"b""#, r#""image":7"#, ", key `image`: expected a string, found the number 7"),
            (r#""image":"b","#, r#""image":"b""#, ": byte 114: expected `,` or `}`"),
        ],
    ),
    (
        "test.json",
        r#"[{"text":"P","answer":"A"},{"text":"Q","answer":"B","size":[1,2]}]"#,
        [
            (r#""answer":"B","#, "", ", key `answer`: is missing; nor is `answers`"),
            ("[1,2]", "[1]", ", key `size`: expected 2 numbers, found [1]"),
            (r#""Q","#, r#""Q""#, ": byte 38: expected `,` or `}`"),
        ],
    ),
    (
        "test.jsonl",
        "{\"text\":\"P\",\"answer\":\"A\"}\n{\"text\":\"Q\",\"answer\":\"B\"}\n",
        [
            ("\"text\":\"Q\",", "", ", key `text`: is missing; nor is `question` or `instruction`"),
            ("\"Q\"", "[]", ", key `text`: expected a string, found a list"),
            ("\"Q\",", "\"Q\"", ": byte 37: expected `,` or `}`"),
        ],
    ),
    (
        "textvqa.json",
        r#"{"data":[{"question":"P","image_id":"a","answers":["A"]},{"question":"Q","image_id":"b","answers":["B"]}]}"#,
        [
            (r#","image_id":"b""#, "", ", key `image_id`: is missing; nor is `image`"),
            (r#"["B"]"#, "true", ", key `answers`: expected a string or a number, found a truth value"),
            (r#""Q","#, r#""Q""#, ": byte 72: expected `,` or `}`"),
        ],
    ),
    (
        "coco.json",
        r#"{"annotations":[{"image_id":1,"caption":"A"},{"image_id":2,"caption":"B"}],
            "images":[{"id":1,"file_name":"a"},{"id":2,"file_name":"Q"}]}"#,
        [
            (r#","file_name":"Q""#, "", ", key `file_name`: is missing"),
            (r#""Q""#, "5", ", key `file_name`: expected a string, found the number 5"),
            (r#":2,"file"#, r#":2"file"#, ": byte 130: expected `,` or `}`"),
        ],
    ),
    (
        "table.csv",
        "text,answer,answer_bbox\nP,A,\nQ,B,\n",
        [
            ("Q,B", "Q,", ", key `answer`: is missing; nor is `answers`"),
            ("Q,B,", "Q,B,7", ", key `answer_bbox`: expected 4 numbers, found \"7\""),
            ("Q,B,", "Q,B", ": 2 fields under 3 columns"),
        ],
    ),
];

#[test]
fn every_format_names_file_record_and_key() {
    for (name, text, damages) in FORMATS {
        assert_eq!(
            outcome(name, text.as_bytes()).iter().filter(|record| record.is_ok()).count(),
            2,
            "{name}"
        );
        for (from, to, what) in damages {
            assert!(text.contains(from), "{name}: {from}");
            let message = first_error(name, text.replacen(from, to, 1).as_bytes());
            assert_eq!(message, format!("DIR/{name}, record 1{what}"), "{name}: {to}");
        }
        // The second record in another encoding than the first.
        let at = text.rfind('Q').unwrap();
        let latin1 = [&text.as_bytes()[..at], b"\xdc", &text.as_bytes()[at + 1..]].concat();
        let message = first_error(name, &latin1);
        let place = if name == "table.csv" { ", key `text`".into() } else { format!(": byte {at}") };
        assert_eq!(message, format!("DIR/{name}, record 1{place}: this is not UTF-8"));
        // Cut short in the middle of the second record: a fault of the file, after which there is nothing.
        let outcomes = outcome(name, &text.as_bytes()[..at + 1]);
        let error = outcomes.last().unwrap().as_ref().unwrap_err();
        assert!(error.starts_with(&format!("DIR/{name}, byte ")) && error.contains("truncated"), "{error}");
        // Annotations are read first, and with them all keys of the file.
        assert!(error.contains("record 1") || name == "coco.json", "{error}");
    }
}

#[test]
fn a_damaged_conversation_is_named() {
    let one = |turns: &str| message("train.json", format!(r#"[{{"conversations":{turns}}}]"#).as_bytes());
    let human = r#"{"from":"human","value":"Q"}"#;
    for (turns, reason) in [
        ("[]".to_owned(), "0 turns are no pairs"),
        (format!("[{human}]"), "1 turns are no pairs"),
        (format!("[{human},{human}]"), "turn 1 is from `human`, where `gpt` must speak"),
        (format!(r#"[{human},{{"from":"gpt"}}]"#), "turn 1 has no string `value`"),
        (format!(r#"[{human},{{"from":"gpt","value":" "}}]"#), "turn 1 of gpt is empty"),
        ("3".to_owned(), "expected a list of turns"),
    ] {
        let message = one(&turns);
        let start = "DIR/train.json, record 0, key `conversations`: ";
        assert!(message.starts_with(start) && message.contains(reason), "{message}");
    }
}

#[test]
fn damage_outside_the_records_ends_the_file() {
    let good = r#"{"text":"Q","answer":"A"}"#;
    for (text, expected) in [
        (format!("[{good}"), "DIR/t.json, byte 26: the file ends inside the array; it is truncated"),
        (format!("[{good},"), "DIR/t.json, byte 27: the file ends inside the array; it is truncated"),
        (format!("[{good},]"), "DIR/t.json, byte 27: a comma before the end of the array"),
        (format!("[{good} {good}]"), "DIR/t.json, byte 27: expected `,`, found `{`"),
        (format!("[{good}] x"), "DIR/t.json, byte 28: text after the end of the array"),
        (
            format!("[{good},{{\"text\":\"Q"),
            "DIR/t.json, byte 37: the file ends inside a value; it is truncated (record 1, which begins at byte 27)",
        ),
        ("x".into(), "DIR/t.json, byte 0: this is neither a JSON array nor a JSON object"),
        (String::new(), "DIR/t.json, byte 0: the file is empty"),
        (r#"{"data":3}"#.into(), "DIR/t.json, byte 8: expected `[`, found `3`"),
        (r#"{"data":[{}"#.into(), "DIR/t.json, byte 11: the file ends inside the array; it is truncated"),
    ] {
        let outcomes = outcome("t.json", text.as_bytes());
        assert_eq!(outcomes.last().unwrap().as_ref().unwrap_err(), expected, "{text}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_named() {
    let latin1 = b"[{\"text\":\"\xdcber\",\"answer\":\"A\"}]";
    assert_eq!(message("t.json", latin1), "DIR/t.json, record 0: byte 10: this is not UTF-8");
    let lines = b"{\"text\":\"Q\",\"answer\":\"A\"}\n{\"text\":\"\xdc\",\"answer\":\"A\"}\n";
    assert_eq!(message("t.jsonl", lines), "DIR/t.jsonl, record 1: byte 35: this is not UTF-8");
    let table = b"question,answer\nQ,A\n\xdcber,A\nQ,A\n";
    let outcomes = outcome("t.csv", table);
    assert_eq!(outcomes[1].as_ref().unwrap_err(), "DIR/t.csv, record 1, key `question`: this is not UTF-8");
    assert!(outcomes[2].is_ok());
}

#[test]
fn damaged_tables_are_named() {
    let table = |text: &str| message("t.csv", text.as_bytes());
    assert_eq!(table(""), "DIR/t.csv, byte 0: the file is empty; it needs a header");
    assert_eq!(
        table("image,answer\n"),
        "DIR/t.csv, byte 13: the header has no column `question` or `text` among `image`, `answer`"
    );
    assert_eq!(table("text,text\n"), "DIR/t.csv, byte 10: the header names `text` again in column 2");
    assert_eq!(table("text,answer\nQ\n"), "DIR/t.csv, record 0: 1 fields under 2 columns");
    assert_eq!(
        table("text,answer\nQ,A\nQ,\n"),
        "DIR/t.csv, record 1, key `answer`: is missing; nor is `answers`"
    );
    assert_eq!(
        table("text,answer\n\"Q,A\n"),
        "DIR/t.csv, byte 17: the file ends inside the quotation marks of record 0, the row at byte 12; it is truncated"
    );
}

#[test]
fn captions_and_images_must_meet() {
    let text = fs::read_to_string(fixture("coco.json")).unwrap();
    let errors = |text: String| -> Vec<String> {
        outcome("c.json", text.as_bytes()).into_iter().filter_map(Result::err).collect()
    };
    assert_eq!(
        errors(text.replacen("\"image_id\": 8", "\"image_id\": 5", 1)),
        [
            "DIR/c.json, record 1, key `id`: no annotation has the image_id 8",
            "DIR/c.json, record 1, key `image_id`: annotations: no image has the id 5"
        ]
    );
    assert_eq!(
        errors(text.replacen("\"caption\": \"One dog \"", "\"text\": 1", 1)),
        ["DIR/c.json, record 2, key `caption`: is missing"]
    );
    assert_eq!(
        errors(r#"{"images": []}"#.into()),
        ["DIR/c.json, byte 14: the file has no key `annotations`"]
    );
}

#[test]
fn a_record_without_end_ends_the_file() {
    let long = vec![b'x'; 17 << 20];
    for (name, head, record) in [
        ("t.json", "[{\"text\":\"", "record 0"),
        ("t.jsonl", "{\"text\":\"", "record 0"),
        ("t.json", "{\"data\":[{\"question\":\"", "record 0"),
        ("t.json", "{\"annotations\":[{\"caption\":\"", "record 0"),
        ("t.csv", "text,answer\n\"", "record 0"),
    ] {
        let error = message(name, &[head.as_bytes(), &long].concat());
        assert!(error.starts_with(&format!("DIR/{name}, byte ")) && error.contains(record), "{error}");
        assert!(error.contains("longer than 16 MiB"), "{error}");
    }
}

/// Every place that a file can be cut at, and what is read before the error; `n` records are in the whole file.
#[test]
fn a_file_that_is_cut_anywhere_is_an_error_of_the_file() {
    for (name, text, _) in FORMATS {
        let text = text.trim_end();
        // A line that is cut behind its last brace, or a row behind its last comma, is whole.
        let is_whole = |cut: &str| match name {
            "test.jsonl" => cut.is_empty() || cut.ends_with('}') || cut.ends_with("}\n"),
            "table.csv" => !cut.contains("Q,B"),
            _ => false,
        };
        for at in 1..text.len() {
            let cut = &text[..at];
            if is_whole(cut) || name == "table.csv" && cut.ends_with('\n') {
                continue;
            }
            let outcomes = outcome(name, cut.as_bytes());
            let error = outcomes.last().unwrap().as_ref().unwrap_err();
            assert!(error.starts_with(&format!("DIR/{name}, byte ")), "{name} cut at {at}: {error}");
        }
    }
    assert_eq!(
        message("t.csv", b"text,answer,size\nQ"),
        "DIR/t.csv, byte 18: the file ends inside record 0, with 1 fields under 3 columns; it is truncated"
    );
    assert_eq!(
        message("t.json", br#"{"data":[{"question":"Q","image_id":"a","answers":["A"]}]"#),
        "DIR/t.json, byte 57: the file ends inside the object; it is truncated"
    );
    let twice = message("t.json", br#"{"data":[],"data":[]}"#);
    assert!(twice.ends_with("the key `data` stands twice"), "{twice}");
}

#[test]
fn damage_that_takes_in_other_records_is_of_the_file() {
    let crossed = br#"[{"text":"Q","answer":["A"},{"text":"Q","answer":"A"}]]"#;
    assert!(
        message("t.json", crossed).contains("the brackets do not match"),
        "{}",
        message("t.json", crossed)
    );
    let table = outcome("t.csv", b"text,answer\nQ,A\n\"Q,A\nQ,A\n\"Q\",A\n");
    let error = table.last().unwrap().as_ref().unwrap_err();
    assert!(error.starts_with("DIR/t.csv, byte ") && error.contains("record 1"), "{error}");
    // In one line it is of the record.
    let table = outcome("t.csv", b"text,answer\n\"Q\"x,A\nQ,A\n");
    assert!(table[1].is_ok(), "{table:?}");
    assert_eq!(
        table[0].as_ref().unwrap_err(),
        "DIR/t.csv, record 0: text stands behind a closing quotation mark"
    );
}

#[test]
fn files_of_another_kind_are_named() {
    for (start, what) in [
        (&b"\x1f\x8b\x08\0\0"[..], "compressed by gzip; unpack it with `gunzip`"),
        (b"PK\x03\x04", "ZIP archive"),
        (b"\x28\xb5\x2f\xfd", "compressed by zstd"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "pointer of Git LFS"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"PAR1", "ending `.parquet`"),
    ] {
        for name in ["t.json", "t.jsonl", "t.csv", "t.json.gz"] {
            let error = message(name, start);
            assert!(error.starts_with(&format!("DIR/{name}, byte 0: ")) && error.contains(what), "{error}");
        }
    }
}
