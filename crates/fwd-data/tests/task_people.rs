//! Files as people write them: names, pictures under other keys, lists as text.

#![allow(clippy::unwrap_used)]

mod reading;

use reading::{image, message, outcome};

#[test]
fn names_keep_their_digits() {
    let name = |id: &str, file: &str| {
        let text = match file {
            "t.csv" => format!("id,text,answer\n{id},Q,A\n"),
            _ => format!(r#"[{{"id":{id},"text":"Q","answer":"A","score":0.5}}]"#),
        };
        outcome(file, text.as_bytes()).remove(0).unwrap().name()
    };
    for (id, expected) in [
        ("1", "1"),
        ("1.0", "1"),
        ("-7", "-7"),
        ("-0.0", "0"),
        ("18446744073709551615", "18446744073709551615"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("-123456789012345678901", "-123456789012345678901"),
    ] {
        assert_eq!(name(id, "t.json"), expected);
    }
    assert_eq!(
        (name("3.0", "t.csv"), name("1.50", "t.csv"), name("v1.0", "t.csv")),
        ("3".into(), "1.50".into(), "v1.0".into())
    );
}

#[test]
fn conversations_in_the_form_of_openai_are_read() {
    let text = r#"{"id":1,"messages":[{"role":"system","content":"Be brief."},
        {"role":"user","content":[{"type":"image","image":"a.png"},{"type":"text","text":"What?"}]},
        {"role":"assistant","content":"A cat."},{"role":"user","content":"Sure?"},{"role":"assistant","content":"Yes."}]}"#;
    let records: Vec<_> =
        outcome("t.json", format!("[{text}]").as_bytes()).into_iter().map(Result::unwrap).collect();
    assert_eq!(
        (records[0].instruction.as_str(), records[0].answers[0].as_str()),
        ("Be brief.\nWhat?", "A cat.")
    );
    assert_eq!(records[1].instruction, "Be brief.\nWhat?\nA cat.\nSure?");
    assert_eq!((image(&records[0]), image(&records[1]), records[0].n_image_tokens), ("a.png", "a.png", 1));
    for (turns, reason) in [
        (
            r#"[{"role":"user","content":"Q"},{"role":"tool","content":"A"}]"#,
            "turn 1 is from `tool`, where `gpt` must speak",
        ),
        (
            r#"[{"role":"user","content":"Q"},{"role":"assistant","content":"A"},{"role":"user","content":"<image>Q"},{"role":"assistant","content":"A"}]"#,
            "turn 2 has `<image>`; only the first question may show the image",
        ),
        (
            r#"[{"role":"user","content":[{"type":"audio","audio":"x"}]},{"role":"assistant","content":"A"}]"#,
            "turn 0 has a part that is neither text nor image",
        ),
        (
            r#"[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/a.png"}}]},{"role":"assistant","content":"A"}]"#,
            "this looks like a web address",
        ),
        (
            r#"[{"role":"user","content":"<image><image>Q"},{"role":"assistant","content":"A"}]"#,
            "has no image",
        ),
    ] {
        let message = message("t.json", format!(r#"[{{"messages":{turns}}}]"#).as_bytes());
        assert!(message.starts_with("DIR/t.json, record 0") && message.contains(reason), "{message}");
    }
}

#[test]
fn an_image_is_found_under_other_keys_or_the_key_is_named() {
    let one = |keys: &str| {
        outcome("t.json", format!(r#"[{{"text":"Q","answer":"A",{keys}}}]"#).as_bytes()).remove(0)
    };
    for keys in [
        r#""image":["a.png"]"#,
        r#""image":{"path":"a.png","bytes":null}"#,
        r#""images":["a.png"]"#,
        r#""images":"a.png""#,
        r#""images":[{"path":"a.png"}]"#,
        r#""image":null,"images":["a.png"]"#,
        r#""image":"a.png","images":["a.png"]"#,
        r#""image_path":"a.png""#,
        r#""imagePath":"a.png""#,
        r#""img":"a.png""#,
        r#""image_file":"a.png""#,
        r#""file_name":"a.png""#,
        r#""image_1":"a.png","image_2":null,"image_3":"""#,
        r#""images":"['a.png']""#,
    ] {
        assert_eq!(image(&one(keys).unwrap()), "a.png", "{keys}");
    }
    for (keys, key, reason) in [
        (r#""images":["a.png","b.png"]"#, "images", "2 images; a record has one"),
        (r#""image_1":"a.png","image_2":"b.png""#, "image_1", "the key `image_2` has another image"),
        (r#""image":"a.png","images":["b.png"]"#, "image", "the key `images` has another image"),
        (r#""picture":"a.png""#, "picture", "rename the key to `image`"),
        (r#""source":"x/a.JPG""#, "source", "rename the key to `image`"),
        (r#""image_id":3"#, "image_id", "rename the key to `image`"),
        (r#""image_url":"https://x/1""#, "image_url", "rename the key to `image`"),
        (r#""screenshots":["1"]"#, "screenshots", "rename the key to `image`"),
        (r#""image":"https://x/a.png""#, "image", "this looks like a web address"),
        (r#""image":"data:image/png;base64,AAAA""#, "image", "this looks like a data URL"),
        (r#""image":"/9j/4AAQSkZJRgABAQAAAQABAAD""#, "image", "this looks like an image in base64"),
        (r#""image":[[[1,2,3]]]"#, "image", "a decoded array of numbers"),
        (r#""image":"{'bytes': b'x'}""#, "image", "a Python object written as text"),
        (r#""image":{"bytes":"AAAA"}"#, "image", "written into the record as text"),
        (r#""image":{"x":1}"#, "image", "an object with `x`"),
    ] {
        let error = one(keys).unwrap_err();
        assert!(
            error.starts_with(&format!("DIR/t.json, record 0, key `{key}`: ")) && error.contains(reason),
            "{error}"
        );
    }
    for keys in [
        r#""image":"""#,
        r#""image_width":3"#,
        r#""images":[]"#,
        r#""image_type":"photo""#,
        r#""image":null"#,
    ] {
        assert_eq!(one(keys).unwrap().image, None, "{keys}");
    }
    assert_eq!(
        message("t.json", br#"[{"text":"<image>\nQ","answer":"A"}]"#),
        "DIR/t.json, record 0: the text has `<image>`, but the record has no image; give its path under the key `image`"
    );
    let twice = message("t.json", br#"[{"image":"a.png","text":"<image>\n<image>\nQ","answer":"A"}]"#);
    assert!(
        twice.ends_with("key `text`: `<image>` stands 2 times in the text; a record has one image"),
        "{twice}"
    );
}

#[test]
fn lists_written_as_text_are_several_answers() {
    let answers = |key: &str, value: &str| {
        let record = serde_json::json!([{ "text": "Q", key: value }]);
        outcome("t.json", record.to_string().as_bytes()).remove(0).unwrap().answers
    };
    assert_eq!(answers("answer", "['red', 'crimson']"), ["red", "crimson"]);
    assert_eq!(answers("answers", r#"["red", 3]"#), ["red", "3"]);
    assert_eq!(answers("answers", "[1, 2.5]"), ["1", "2.5"]);
    // A box, and what is no list.
    assert_eq!(answers("answer", "[0.1, 0.2, 0.3, 0.4]"), ["[0.1, 0.2, 0.3, 0.4]"]);
    assert_eq!(answers("answer", "['red' 'crimson']"), ["['red' 'crimson']"]);
}

#[test]
fn messages_are_one_line_of_bounded_length() {
    let long = "x".repeat(100_000);
    for text in [
        format!(r#"[{{"text":"Q","answer":"A","image":"data:{long}"}}]"#),
        format!(r#"[{{"text":"Q","answer":"A","size":"{long}\u001b[2J\n"}}]"#),
        format!(r#"[{{"text":"Q","answer":"A","{long}image":"{long}"}}]"#),
        format!(r#"[{{"conversations":[{{"from":"{long}\n","value":"Q"}},{{"from":"gpt","value":"A"}}]}}]"#),
    ] {
        let message = message("t.json", text.as_bytes());
        assert!(message.len() < 1300 && !message.chars().any(char::is_control), "{message}");
    }
}
